#!/usr/bin/env python3
"""usage: scripts/read_store.py STORE [--dump FOLDER]

Reads a hyperrag store without hyperrag: Python's standard library and numpy, after
crates/store/FORMAT.md. Checks every checksum on the way, prints what the store holds, and exits with
4 where something is not what was written, with 5 for another version of the format. --dump writes K and V of every block, f32, as
SHARD-SLOT.npy, shaped [layer][K, then V][KV head][position][dim], and its hidden state as
SHARD-SLOT-hidden.npy.
"""

import argparse
import json
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
from blake3 import blake3

PAGE, HEADER, ENTRY = 4096, 256, 64
VERSIONS = (1, 2)


class Damaged(Exception):
    """What is wrong, and where."""


class Unknown(Exception):
    """A version of the format that this reader does not know."""


def check(fits, place, what):
    if not fits:
        raise Damaged(f"{place}: {what}")


def padded(offset, to=PAGE):
    return (offset + to - 1) // to * to


def bf16(raw):
    """Two bytes each, the upper half of an f32."""
    return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)


def digest(data):
    return blake3(data).hex()


def read(path):
    check(path.is_file() and not path.is_symlink(), path, "it is missing, or not a plain file")
    return path.read_bytes()


def fingerprint_digest(fields):
    """Of one `name="value"` a line, the names and their order as listed."""
    geometry = fields["geometry"]
    values = {**fields, **geometry}
    names = ["format_version", "model", "weights", "tokenizer", "profile", "profile_digest", "chunk_tokens",
             "unit_rows", "language", "layers", "kv_heads", "head_dim", "hidden", "element", "rope", "compute",
             "kernel", "calibration"]  # fmt: skip

    def quoted(value):
        text = str(value).replace("\\", "\\\\").replace('"', '\\"')
        return '"' + text.replace("\n", "\\n").replace("\t", "\\t") + '"'

    return blake3("".join(f"{name}={quoted(values[name])}\n" for name in names if name in values).encode())


def sealed_whole(line):
    """Whether a line of the journal, without its end, fits its checksum."""
    crc, blank, sealed = line.partition(b" ")
    return bool(blank) and crc == b"%08x" % zlib.crc32(sealed)


def enveloped(path, name):
    """The value of `name` in a JSON file with a checksum."""
    text, field = read(path), f'"{name}":'.encode()
    try:
        envelope = json.loads(text)
        body = text[text.index(field) + len(field) : text.rindex(b"}")]
        check(digest(body) == envelope["checksum"], path, "its checksum does not fit")
        return envelope[name]
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{path}: no {name} ({error})") from error


def manifest(store):
    path = store / "manifest.json"
    found = enveloped(path, "manifest")
    try:
        version = found["fingerprint"]["format_version"]
    except (KeyError, TypeError) as error:
        raise Damaged(f"{path}: no manifest ({error})") from error
    if version not in VERSIONS:
        raise Unknown(f"{store}: the store is of format version {version}, this reader knows {VERSIONS}")
    if not found["complete"]:
        journal = store / f"journal-{found['generation']:06}.log"
        lines = journal.read_bytes().split(b"\n") if journal.exists() else [b""]
        # A line without its end was never acknowledged, unless its end was damaged.
        check(not sealed_whole(lines.pop()[:-1]), journal, "the end of its last line is damaged")
        following = found["shards"][-1]["shard"] + 1 if found["shards"] else found["first_shard"]
        for number, line in enumerate(lines):
            check(sealed_whole(line), journal, f"line {number + 1} does not fit its checksum")
            record = json.loads(line[9:])["record"]
            check(record["shard"] == following + number, journal, f"line {number + 1} is not of the next shard")
            found["shards"].append(record)
    return found


class Codec:
    """Rows of an element type to numbers."""

    def __init__(self, store, fingerprint):
        geometry = fingerprint["geometry"]
        self.element, self.dim = geometry["element"], geometry["head_dim"]
        self.shape = (geometry["layers"], 2, geometry["kv_heads"])
        sizes = {"bf16": 2 * self.dim, "f32": 4 * self.dim, "int8": 2 + self.dim,
                 "int5": 2 + (5 * self.dim + 7) // 8, "int4": 4 + (self.dim + 1) // 2}  # fmt: skip
        self.row_bytes = sizes[self.element]
        if self.element in ("int5", "int4"):
            self.load_calibration(store / "calibration.bin", fingerprint)

    def load_calibration(self, path, fingerprint):
        raw = read(path)
        check(digest(raw) == fingerprint["calibration"], path, "its digest is not the fingerprint's")
        layers, heads, dim, self.first, self.last, _ = struct.unpack_from("<6I", raw, 8)
        places = self.first + 1 + self.last
        self.means = np.frombuffer(raw, "<f4", offset=32).reshape(places, layers, 2, heads, dim)
        block = dim & -dim
        self.block, state, signs = block, 0, []
        for _ in range(dim):
            state = (state + 0x9E3779B97F4A7C15) % 2**64
            z = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % 2**64
            z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
            signs.append(-1 if (z ^ z >> 31) & 1 else 1)
        self.signs = np.array(signs, np.float32) * np.float32(1 / np.sqrt(np.float32(block)))
        self.base = float(fingerprint["rope"].rsplit("base ", 1)[1])

    def decode(self, raw, tokens):
        """[layer][K, then V][KV head][position][dim]"""
        rows = np.frombuffer(raw, np.uint8).reshape(*self.shape, tokens, self.row_bytes)
        if self.element == "f32":
            return rows.view("<f4")
        if self.element == "bf16":
            return bf16(np.ascontiguousarray(rows))
        if self.element == "int8":
            return rows[..., 2:].view(np.int8).astype(np.float32) * bf16(rows[..., :2].copy())
        return self.turned(self.levels(rows), tokens)

    def levels(self, rows):
        bits, start = (5, 2) if self.element == "int5" else (4, 4)
        single = np.unpackbits(rows[..., start:], axis=-1, bitorder="little")[..., : bits * self.dim]
        single = single.reshape(*single.shape[:-1], self.dim, bits)
        levels = (single * (1 << np.arange(bits))).sum(-1).astype(np.float32)
        if self.element == "int5":
            return (levels - 15) * bf16(rows[..., :2].copy())
        return bf16(rows[..., :2].copy()) + levels * bf16(rows[..., 2:4].copy())

    def turned(self, rows, tokens):
        shape = rows.shape
        rows = rows.reshape(-1, self.dim // self.block, self.block)
        half = 1
        while half < self.block:
            pairs = rows.reshape(len(rows), -1, 2, half)
            rows = np.stack((pairs[:, :, 0] + pairs[:, :, 1], pairs[:, :, 0] - pairs[:, :, 1]), 2)
            rows = rows.reshape(len(rows), -1, self.block)
            half *= 2
        rows = rows.reshape(shape) * self.signs
        for position in range(tokens):
            rows[..., position, :] += self.means[self.place(position, tokens)]
        frequencies = self.base ** -(np.arange(0, self.dim, 2, dtype=np.float64) / self.dim)
        angles = np.arange(tokens)[:, None] * frequencies
        cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        a, b = rows[:, 0, :, :, 0::2].copy(), rows[:, 0, :, :, 1::2].copy()
        rows[:, 0, :, :, 0::2], rows[:, 0, :, :, 1::2] = a * cos - b * sin, a * sin + b * cos
        return rows

    def place(self, position, tokens):
        if position < self.first:
            return position
        left = tokens - position
        return self.first + 1 + self.last - left if left <= self.last else self.first


def read_header(path, data, record, fingerprint, format_version):
    check(len(data) == record["kv"]["bytes"], path, f"{len(data)} bytes, expected {record['kv']['bytes']}")
    check(data[:8] == b"HYPERKV\0", path, "it does not start as a shard does")
    check(zlib.crc32(data[:252]) == struct.unpack_from("<I", data, 252)[0], path, "the header's checksum does not fit")
    version, shard, blocks, table_crc, length = struct.unpack_from("<4IQ", data, 8)
    check((version, shard, length) == (format_version, record["shard"], len(data)), path, "it is another shard")
    check(data[32:64] == fingerprint and not any(data[104:252]), path, "it is a shard of another store")
    table = data[HEADER : HEADER + ENTRY * blocks]
    check(zlib.crc32(table) == table_crc, path, "the block table's checksum does not fit")
    check(digest(data[:HEADER] + table) == record["kv"]["digest"], path, "it is not the shard that the manifest names")
    first = padded(HEADER + len(table))
    check(not any(data[HEADER + len(table) : first]), path, "the padding after the table is not zero")
    return blocks, first


def read_block(place, data, entry, geometry, codec):
    """Document id, ordinal, K and V, hidden state."""
    identity, (offset, length, tokens, head_bytes, head_crc, _) = entry[:32], struct.unpack("<QQ4I", entry[32:])
    layers, hidden_bytes = geometry["layers"], 4 * geometry["hidden"]
    head = data[offset : offset + head_bytes]
    check(zlib.crc32(head) == head_crc and head[:32] == identity, place, "the head's checksum does not fit")
    ordinal, positions, id_bytes, head_layers, hidden_crc = struct.unpack_from("<5I", head, 32)
    check((positions, head_layers) == (tokens, layers), place, "the head is of other sizes")
    crcs = struct.unpack_from(f"<{layers}I", head, 52)
    document = head[52 + 4 * layers :][:id_bytes].decode()
    kv = data[offset + head_bytes : offset + length - hidden_bytes]
    layer_bytes = len(kv) // layers
    check(layer_bytes == 2 * geometry["kv_heads"] * tokens * codec.row_bytes, place, "it has another length")
    for layer, crc in enumerate(crcs):
        part = kv[layer * layer_bytes : (layer + 1) * layer_bytes]
        check(zlib.crc32(part) == crc, place, f"layer {layer} does not fit its checksum")
    hidden = data[offset + length - hidden_bytes : offset + length]
    check(zlib.crc32(hidden) == hidden_crc, place, "the hidden state does not fit its checksum")
    check(not any(data[offset + length : padded(offset + length)]), place, "the padding is not zero")
    return document, ordinal, codec.decode(kv, tokens), np.frombuffer(hidden, "<f4"), tokens


def read_store(store, dump):
    found = manifest(store)
    if (store / "notes.json").exists():
        enveloped(store / "notes.json", "notes")
    fingerprint, totals = found["fingerprint"], [0, 0]
    identity, codec = fingerprint_digest(fingerprint), Codec(store, fingerprint)
    for record in found["shards"]:
        name = f"{record['shard']:06}"
        chunk_file = store / "chunks" / f"{name}.parquet"
        check(digest(read(chunk_file)) == record["chunk_file"]["digest"], chunk_file, "its digest is not the manifest's")
        path = store / "shards" / f"{name}.kv"
        data = read(path)
        blocks, end = read_header(path, data, record, identity, fingerprint["format_version"])
        check(blocks == record["chunks"], path, "it has another number of blocks")
        for slot in range(blocks):
            entry = data[HEADER + ENTRY * slot :][:ENTRY]
            offset, length = struct.unpack_from("<QQ", entry, 32)
            check(offset == end, path, "the blocks do not follow one another")
            end = padded(offset + length)
            _, _, kv, hidden, tokens = read_block(f"{path}: block {slot}", data, entry, fingerprint["geometry"], codec)
            totals[0] += 1
            totals[1] += tokens
            if dump:
                np.save(dump / f"{name}-{slot}.npy", kv)
                np.save(dump / f"{name}-{slot}-hidden.npy", hidden)
        check(end == len(data), path, "it goes on after the last block")
    print(f"{len(found['shards'])} shards, {totals[0]} blocks, {totals[1]} tokens of {fingerprint['model']}")


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--dump", type=Path)
    args = parser.parse_args()
    if args.dump:
        args.dump.mkdir(parents=True, exist_ok=True)
    try:
        read_store(args.store, args.dump)
    except Damaged as damage:
        print(f"damaged: {damage}", file=sys.stderr)
        sys.exit(4)
    except Unknown as unknown:
        print(unknown, file=sys.stderr)
        sys.exit(5)


if __name__ == "__main__":
    main()
