"""BLAKE3 in plain Python, from its specification (github: BLAKE3-team/BLAKE3-specs, sections 2.1 to
2.5): the hash of bytes, 32 bytes long. Slow; for readers that have nothing else."""

import struct

IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8
MIXES = (
    (0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
    (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14),
)  # fmt: skip
MASK = 0xFFFFFFFF


def compress(value, block, counter, length, flags):
    """The 8 words that follow from a chaining value and a block of 16 words."""
    v = [*value, *IV[:4], counter & MASK, counter >> 32, length, flags]
    for turn in range(7):
        for k, (a, b, c, d) in enumerate(MIXES):
            for word, right, left in ((block[2 * k], 16, 12), (block[2 * k + 1], 8, 7)):
                v[a] = (v[a] + v[b] + word) & MASK
                x = v[d] ^ v[a]
                v[d] = (x >> right | x << (32 - right)) & MASK
                v[c] = (v[c] + v[d]) & MASK
                x = v[b] ^ v[c]
                v[b] = (x >> left | x << (32 - left)) & MASK
        if turn < 6:
            block = [block[i] for i in PERMUTATION]
    return [v[i] ^ v[i + 8] for i in range(8)]


def chunk_value(chunk, number, flags):
    """The chaining value of up to 1,024 bytes."""
    value = IV
    blocks = max(1, (len(chunk) + 63) // 64)
    for k in range(blocks):
        part = chunk[64 * k : 64 * k + 64]
        words = struct.unpack("<16I", part.ljust(64, b"\0"))
        own = (CHUNK_START if k == 0 else 0) | (CHUNK_END | flags if k == blocks - 1 else 0)
        value = compress(value, words, number, len(part), own)
    return value


def subtree(data, first, flags):
    """The chaining value of a subtree: the left side has the largest power of two of whole chunks
    that leaves the right side something."""
    if len(data) <= 1024:
        return chunk_value(data, first, flags)
    chunks = (len(data) - 1) // 1024
    left = 1 << (chunks.bit_length() - 1)
    split = 1024 * left
    sides = subtree(data[:split], first, 0) + subtree(data[split:], first + left, 0)
    return compress(IV, sides, 0, 64, PARENT | flags)


def blake3(data):
    return struct.pack("<8I", *subtree(memoryview(data).tobytes(), 0, ROOT))
