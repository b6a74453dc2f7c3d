//! Writes one shard file: chunks, and blocks in any order, come in; a sealed file and its record go out.
//! Knows neither the journal nor the manifest.

use std::fs::{self, File};
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use hyperrag_core::{Chunk, Digest, Fingerprint, KvBlock, KvDtype};
use hyperrag_files::temporary;
use rustix::fs::{Advice, fadvise};

use crate::error::StoreError;
use crate::format::block_table;
use crate::format::block_table::{ENTRY_BYTES, Entry, Head, Header};
use crate::format::manifest::{FileRecord, Origin};
use crate::local::open::create_temporary;
use crate::local::paths::publish;
use crate::local::shard_reader::Shard;
use crate::read_error::ReadError;

/// Smallest block that is sent to the disk by itself, in bytes. Smaller ones are faster together.
const SENT_FROM: u64 = 1 << 20;

/// A shard file that is written under its temporary name. If dropped before [`ShardFileWriter::publish`], it leaves
/// nothing behind.
pub(crate) struct ShardFileWriter {
    path: PathBuf,
    file: File,
    fingerprint: Fingerprint,
    pub(crate) entries: Vec<Entry>,
    /// Whether each slot has its block.
    pub(crate) written: Vec<bool>,
    published: bool,
}

/// Returns the table entries of the blocks of `chunks`, with their places in the file.
pub(crate) fn place(chunks: &[Chunk], fingerprint: &Fingerprint) -> Vec<Entry> {
    let digest = fingerprint.digest();
    let blocks = chunks.iter().map(|chunk| {
        let id_bytes = chunk.id.document.as_str().len();
        (chunk.identity(&digest), id_bytes, chunk.tokens.len())
    });
    block_table::place(&fingerprint.kv_shape, blocks)
}

impl ShardFileWriter {
    /// Creates the file of `path`, with room for the blocks of `chunks`.
    pub(crate) fn create(
        path: &Path,
        chunks: &[Chunk],
        fingerprint: &Fingerprint,
    ) -> Result<Self, StoreError> {
        let entries = place(chunks, fingerprint);
        let file = create_temporary(path)?;
        let (written, path) = (vec![false; entries.len()], path.to_owned());
        let fingerprint = fingerprint.clone();
        let draft = Self { path, file, fingerprint, entries, written, published: false };
        // Sets the length first, so that the zeros between blocks are holes.
        let sized = draft.file.set_len(block_table::file_bytes(&draft.entries));
        sized.map_err(StoreError::io(&temporary(&draft.path), "cannot be made"))?;
        Ok(draft)
    }

    /// Writes the block of `chunk` to the place of `slot`. Every slot is written once, in any order.
    pub(crate) fn write(
        &mut self,
        slot: usize,
        chunk: &Chunk,
        block: &KvBlock,
    ) -> Result<(), StoreError> {
        let kv_shape = &self.fingerprint.kv_shape;
        assert_eq!(block.kv_shape(), kv_shape, "sizes of the store");
        assert!(!self.written[slot], "slot {slot} is written once");
        let entry = &mut self.entries[slot];
        assert_eq!(block.tokens(), chunk.tokens.len(), "the block belongs to the chunk");
        let mut hidden = vec![0; kv_shape.hidden_bytes()];
        KvDtype::F32.encode(block.hidden(), &mut hidden);
        let layers = 0..kv_shape.layers as usize;
        let layer_crcs: Vec<_> =
            layers.map(|layer| crc32fast::hash(block.layer(layer)).to_le_bytes()).collect();
        let head = Head {
            identity: entry.identity,
            document: chunk.id.document.as_str(),
            ordinal: chunk.id.ordinal,
            tokens: entry.tokens,
            hidden_crc: crc32fast::hash(&hidden),
            layer_crcs: &layer_crcs,
        };
        let head = head.encode(kv_shape);
        entry.head_crc = crc32fast::hash(&head);
        let mut offset = entry.offset;
        for part in [&head[..], block.kv(), &hidden] {
            let written = self.file.write_all_at(part, offset);
            written.map_err(StoreError::io(&self.path, "cannot be written"))?;
            offset += part.len() as u64;
        }
        self.written[slot] = true;
        if entry.bytes >= SENT_FROM {
            // Sends the block to the disk while others are computed, so that the sync finds little left to
            // do. Only advice.
            let bytes = NonZeroU64::new(entry.bytes);
            let _ = fadvise(&self.file, entry.offset, bytes, Advice::DontNeed);
        }
        Ok(())
    }

    /// Copies the block of `entry` from another file, unchecked.
    pub(crate) fn copy(
        &mut self,
        slot: usize,
        entry: &Entry,
        from: &File,
    ) -> Result<(), StoreError> {
        assert!(!self.written[slot], "slot {slot} is written once");
        let place = &mut self.entries[slot];
        assert_eq!(place.bytes, entry.bytes, "the same block");
        let mut bytes = vec![0; entry.bytes as usize];
        let copied = from
            .read_exact_at(&mut bytes, entry.offset)
            .and_then(|()| self.file.write_all_at(&bytes, place.offset));
        copied.map_err(StoreError::io(&self.path, "cannot be written"))?;
        place.head_crc = entry.head_crc;
        self.written[slot] = true;
        Ok(())
    }

    /// Copies the block of `slot` from a shard of another fingerprint. The head is checked and gets its new
    /// identity; the rest is copied unchecked.
    pub(crate) fn adopt(
        &mut self,
        slot: usize,
        from: &Shard,
        file: &File,
    ) -> Result<(), StoreError> {
        assert!(!self.written[slot], "slot {slot} is written once");
        let (kv_shape, entry) = (&self.fingerprint.kv_shape, &from.entries[slot]);
        let place = &mut self.entries[slot];
        let mut bytes = vec![0; entry.bytes as usize];
        let read = file.read_exact_at(&mut bytes, entry.offset);
        read.map_err(|error| ReadError::from(error).of_file(&from.path))?;
        let (head, rest) = bytes.split_at(entry.head_bytes as usize);
        let head = Head::decode(head, entry.head_crc, kv_shape);
        let head = head.map_err(|what| from.damaged_block(slot, &what))?;
        if head.identity != entry.identity || place.bytes != entry.bytes {
            return Err(from.damaged_block(slot, "its head is that of another block"));
        }
        let head = Head { identity: place.identity, ..head }.encode(kv_shape);
        place.head_crc = crc32fast::hash(&head);
        let after = place.offset + head.len() as u64;
        let file = &self.file;
        let written =
            file.write_all_at(&head, place.offset).and_then(|()| file.write_all_at(rest, after));
        written.map_err(StoreError::io(&self.path, "cannot be written"))?;
        self.written[slot] = true;
        Ok(())
    }

    /// Writes header and table, and syncs the file.
    pub(crate) fn finish(&mut self, origin: Origin) -> Result<FileRecord, StoreError> {
        assert!(self.written.iter().all(|written| *written), "every slot of the unit is written");
        let top = top(origin, &self.entries, &self.fingerprint);
        let written = self.file.write_all_at(&top, 0).and_then(|()| self.file.sync_all());
        written.map_err(StoreError::io(&self.path, "cannot be written"))?;
        Ok(FileRecord { bytes: block_table::file_bytes(&self.entries), digest: Digest::of(&top) })
    }

    /// Gives the finished file its name.
    pub(crate) fn publish(&mut self) -> Result<(), StoreError> {
        publish(&self.path)?;
        self.published = true;
        Ok(())
    }
}

/// Returns the bytes of a shard's header and table.
pub(crate) fn top(origin: Origin, entries: &[Entry], fingerprint: &Fingerprint) -> Vec<u8> {
    let mut table = vec![0; entries.len() * ENTRY_BYTES];
    for (bytes, entry) in table.chunks_exact_mut(ENTRY_BYTES).zip(entries) {
        bytes.copy_from_slice(&entry.encode());
    }
    let Origin { shard, rows, rows_digest } = origin;
    let header = Header {
        version: fingerprint.format_version,
        shard,
        rows,
        rows_digest,
        blocks: entries.len() as u32,
        table_crc: crc32fast::hash(&table),
        file_bytes: block_table::file_bytes(entries),
        fingerprint: fingerprint.digest(),
    };
    [&header.encode()[..], &table].concat()
}

impl Drop for ShardFileWriter {
    fn drop(&mut self) {
        if !self.published {
            // Best effort: the next writer of this file overwrites it.
            let _ = fs::remove_file(temporary(&self.path));
        }
    }
}
