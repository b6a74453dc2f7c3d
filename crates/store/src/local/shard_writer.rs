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
use crate::format::block_header::BlockHeader;
use crate::format::block_table::{BlockEntry, file_bytes, header_and_table, place_chunks};
use crate::format::records::{FileRecord, ShardRows};
use crate::local::durable::publish;
use crate::local::open::create_temporary;
use crate::local::shard_reader::OpenShard;
use crate::read_error::ReadError;

/// Smallest block that is sent to the disk by itself, in bytes. Smaller ones are faster together.
const SENT_FROM: u64 = 1 << 20;

/// A shard file that is written under its temporary name. If dropped before [`ShardFileWriter::publish`], it
/// leaves nothing behind.
pub(crate) struct ShardFileWriter {
    path: PathBuf,
    file: File,
    fingerprint: Fingerprint,
    pub(crate) entries: Vec<BlockEntry>,
    /// Whether each slot has its block.
    pub(crate) written: Vec<bool>,
    published: bool,
}

impl ShardFileWriter {
    /// Creates the file of `path`, with room for the blocks of `chunks`.
    pub(crate) fn create(
        path: &Path,
        chunks: &[Chunk],
        fingerprint: &Fingerprint,
    ) -> Result<Self, StoreError> {
        let entries = place_chunks(chunks, fingerprint);
        let file = create_temporary(path)?;
        let (written, path) = (vec![false; entries.len()], path.to_owned());
        let fingerprint = fingerprint.clone();
        let shard_file = Self { path, file, fingerprint, entries, written, published: false };
        // Sets the length first, so that the zeros between blocks are holes.
        let sized = shard_file.file.set_len(file_bytes(&shard_file.entries));
        sized.map_err(StoreError::io(&temporary(&shard_file.path), "cannot be made"))?;
        Ok(shard_file)
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
        let header = BlockHeader {
            identity: entry.identity,
            document: chunk.id.document.as_str(),
            ordinal: chunk.id.ordinal,
            tokens: entry.tokens,
            hidden_crc: crc32fast::hash(&hidden),
            layer_crcs: &layer_crcs,
        };
        let header = header.encode(kv_shape);
        entry.header_crc = crc32fast::hash(&header);
        let mut offset = entry.offset;
        for part in [&header[..], block.kv(), &hidden] {
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
        entry: &BlockEntry,
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
        place.header_crc = entry.header_crc;
        self.written[slot] = true;
        Ok(())
    }

    /// Copies the block of `slot` from a shard of another fingerprint. The header is checked and gets its new
    /// identity; the rest is copied unchecked.
    pub(crate) fn adopt(
        &mut self,
        slot: usize,
        from: &OpenShard,
        file: &File,
    ) -> Result<(), StoreError> {
        assert!(!self.written[slot], "slot {slot} is written once");
        let (kv_shape, entry) = (&self.fingerprint.kv_shape, &from.entries[slot]);
        let place = &mut self.entries[slot];
        let mut bytes = vec![0; entry.bytes as usize];
        let read = file.read_exact_at(&mut bytes, entry.offset);
        read.map_err(|error| ReadError::from(error).of_file(&from.path))?;
        let (header, rest) = bytes.split_at(entry.header_bytes as usize);
        let header = BlockHeader::decode(header, entry.header_crc, kv_shape);
        let header = header.map_err(|what| from.damaged_block(slot, &what))?;
        if header.identity != entry.identity || place.bytes != entry.bytes {
            return Err(from.damaged_block(slot, "its head is that of another block"));
        }
        let header = BlockHeader { identity: place.identity, ..header }.encode(kv_shape);
        place.header_crc = crc32fast::hash(&header);
        let after = place.offset + header.len() as u64;
        let file = &self.file;
        let written =
            file.write_all_at(&header, place.offset).and_then(|()| file.write_all_at(rest, after));
        written.map_err(StoreError::io(&self.path, "cannot be written"))?;
        self.written[slot] = true;
        Ok(())
    }

    /// Writes header and table, and syncs the file.
    pub(crate) fn finish(&mut self, shard_rows: ShardRows) -> Result<FileRecord, StoreError> {
        assert!(self.written.iter().all(|written| *written), "every slot of the shard is written");
        let start = header_and_table(shard_rows, &self.entries, &self.fingerprint);
        let written = self.file.write_all_at(&start, 0).and_then(|()| self.file.sync_all());
        written.map_err(StoreError::io(&self.path, "cannot be written"))?;
        Ok(FileRecord { bytes: file_bytes(&self.entries), digest: Digest::of(&start) })
    }

    /// Gives the finished file its name.
    pub(crate) fn publish(&mut self) -> Result<(), StoreError> {
        publish(&self.path)?;
        self.published = true;
        Ok(())
    }
}

impl Drop for ShardFileWriter {
    fn drop(&mut self) {
        if !self.published {
            // Best effort: the next writer of this file overwrites it.
            let _ = fs::remove_file(temporary(&self.path));
        }
    }
}
