//! Opens one shard file and checks it, and its blocks, against the manifest. In: a path and a manifest. Out:
//! the block table, or a fault. Every length comes from the checked table.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use hyperrag_core::{Digest, KvShape, ShardId};

use crate::error::StoreError;
use crate::format::block_table;
use crate::format::block_table::{ENTRY_BYTES, Entry, HEADER_BYTES, Head, Header, check_crc};
use crate::format::manifest::Manifest;
use crate::local::open::{open_plain, open_sized};
use crate::local::paths::Files;
use crate::read_error::ReadError;

/// Size of the reads of a check, in bytes. The bytes stay in a core's cache until they are summed.
const CHECK_BYTES: usize = 256 << 10;

/// Size of a page, in bytes. The kernel copies to an address of another alignment at about half the speed.
pub(crate) const PAGE_BYTES: usize = 4096;

/// Reads a shard's header and the digest of header and table. Checks their checksums.
pub(crate) fn read_top(files: &Files, shard: ShardId) -> Result<(Header, Digest), String> {
    let path = files.shard(shard);
    let unreadable = |error| format!("{}: cannot be read ({error})", path.display());
    let file = open_plain(&path).map_err(|fault| format!("{}: {fault}", path.display()))?;
    let mut bytes = vec![0; HEADER_BYTES];
    file.read_exact_at(&mut bytes, 0).map_err(unreadable)?;
    let damaged = |what: String| format!("{}: {what}", path.display());
    let header = Header::decode(bytes.first_chunk().expect("256 bytes")).map_err(damaged)?;
    bytes.resize(HEADER_BYTES + header.blocks as usize * ENTRY_BYTES, 0);
    file.read_exact_at(&mut bytes[HEADER_BYTES..], HEADER_BYTES as u64).map_err(unreadable)?;
    if crc32fast::hash(&bytes[HEADER_BYTES..]) != header.table_crc || header.shard != shard {
        return Err(damaged("its block table is damaged too".to_owned()));
    }
    Ok((header, Digest::of(&bytes)))
}

/// Block table of a shard, with a header and a table as the manifest names them.
pub(crate) struct Shard {
    pub(crate) path: PathBuf,
    /// Length of the file, in bytes.
    pub(crate) bytes: u64,
    pub(crate) entries: Vec<Entry>,
}

impl Shard {
    /// Opens the file at `path` as shard `shard` of `manifest`. `fingerprint` is the digest of the manifest's
    /// fingerprint.
    pub(crate) fn open(
        path: &Path,
        manifest: &Manifest,
        fingerprint: &Digest,
        shard: ShardId,
    ) -> Result<(Self, File), ReadError> {
        let file = open_sized(path, manifest.record(shard).kv.bytes)?;
        Ok((Self::read(path, &file, manifest, fingerprint, shard)?, file))
    }

    /// Reads a shard's header and table from an open file. The caller has checked its length.
    pub(crate) fn read(
        path: &Path,
        file: &File,
        manifest: &Manifest,
        fingerprint: &Digest,
        shard: ShardId,
    ) -> Result<Self, ReadError> {
        let record = manifest.record(shard);
        let length = record.kv.bytes;
        let mut top = vec![0; HEADER_BYTES];
        file.read_exact_at(&mut top, 0)?;
        let bytes = top.first_chunk().expect("256 bytes were read");
        let header = Header::decode(bytes)?;
        let version = manifest.fingerprint.format_version;
        let expected = (version, shard, *fingerprint, record.chunks, length);
        let Header { fingerprint, blocks, file_bytes, .. } = header;
        if (header.version, header.shard, fingerprint, u64::from(blocks), file_bytes) != expected {
            return Err("it is a shard of another store or place".to_owned().into());
        }
        let first = block_table::first_offset(header.blocks as usize);
        if first > length {
            return Err(format!("its block table would end at {first} of {length} bytes").into());
        }
        top.resize(first as usize, 0);
        file.read_exact_at(&mut top[HEADER_BYTES..], HEADER_BYTES as u64)?;
        let padding = top.split_off(HEADER_BYTES + header.table_bytes());
        if padding.iter().any(|byte| *byte != 0) {
            return Err("the padding after the block table is not zero".to_owned().into());
        }
        let (kv_shape, tokens_max) =
            (&manifest.fingerprint.kv_shape, manifest.fingerprint.chunk_tokens);
        let entries =
            block_table::decode_table(&top[HEADER_BYTES..], &header, kv_shape, tokens_max)?;
        if Digest::of(&top) != record.kv.digest {
            let what = "header and table are not those that the manifest names";
            return Err(what.to_owned().into());
        }
        Ok(Self { path: path.to_owned(), bytes: length, entries })
    }

    /// Returns the name of a block in messages.
    pub(crate) fn place(&self, slot: u32) -> String {
        format!("{}: block {slot}", self.path.display())
    }

    /// Makes the error of copying a damaged block.
    pub(crate) fn damaged_block(&self, slot: usize, what: &str) -> StoreError {
        let what = format!("block {slot}: {what}; mend it with `hyperrag repair`");
        StoreError::damaged(&self.path, what)
    }
}

/// Checks every byte of the block of `entry`. `buffer` only grows, so that a caller who keeps it saves
/// allocations.
pub(crate) fn check_block(
    file: &File,
    entry: &Entry,
    kv_shape: &KvShape,
    buffer: &mut Vec<u8>,
) -> Result<(), ReadError> {
    let layer_bytes = kv_shape.layer_bytes(entry.tokens as usize);
    let group = (CHECK_BYTES / layer_bytes.max(1)).clamp(1, kv_shape.layers as usize);
    let rest_bytes = kv_shape.hidden_bytes() + entry.padding();
    let bytes = entry.head_bytes as usize + rest_bytes.max(group * layer_bytes);
    if buffer.len() < bytes + PAGE_BYTES {
        buffer.resize(bytes + PAGE_BYTES, 0);
    }
    let aligned = buffer.as_ptr().align_offset(PAGE_BYTES).min(PAGE_BYTES);
    let (head, part) = buffer[aligned..].split_at_mut(entry.head_bytes as usize);
    file.read_exact_at(head, entry.offset)?;
    let head = Head::decode(head, entry.head_crc, kv_shape)?;
    if (head.identity, head.tokens) != (entry.identity, entry.tokens) {
        return Err("its head is that of another block".to_owned().into());
    }
    let mut offset = entry.offset + u64::from(entry.head_bytes);
    let layers = kv_shape.layers as usize;
    for first in (0..layers).step_by(group) {
        let part = &mut part[..group.min(layers - first) * layer_bytes];
        file.read_exact_at(part, offset)?;
        check_layers(&head, first, layer_bytes, part)?;
        offset += part.len() as u64;
    }
    let rest = &mut part[..rest_bytes];
    file.read_exact_at(rest, offset)?;
    check_rest(&head, kv_shape, rest)?;
    Ok(())
}

/// Checks K and V of the layers from `first` on.
fn check_layers(
    head: &Head<'_>,
    first: usize,
    layer_bytes: usize,
    kv: &[u8],
) -> Result<(), ReadError> {
    for (layer, bytes) in (first..).zip(kv.chunks_exact(layer_bytes)) {
        let expected = u32::from_le_bytes(head.layer_crcs[layer]);
        check_crc(format_args!("layer {layer}"), expected, bytes)?;
    }
    Ok(())
}

/// Checks the hidden state and the zeros after it. Returns the hidden state.
pub(crate) fn check_rest<'a>(
    head: &Head<'_>,
    kv_shape: &KvShape,
    rest: &'a [u8],
) -> Result<&'a [u8], ReadError> {
    let (hidden, padding) = rest.split_at(kv_shape.hidden_bytes());
    check_crc("the hidden state", head.hidden_crc, hidden)?;
    if padding.iter().any(|byte| *byte != 0) {
        return Err("the padding after the block is not zero".to_owned().into());
    }
    Ok(hidden)
}
