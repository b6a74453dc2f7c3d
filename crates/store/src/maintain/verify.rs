//! Checks the files of a store: shards, chunk files, and both against each other. Out: damages. Changes
//! nothing.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use hyperrag_core::{Digest, ShardId, Slot};

use crate::damage::Damage;
use crate::error::StoreError;
use crate::format::chunk_file::ShardChunks;
use crate::local::chunk_file::read_chunks;
use crate::local::open::open_sized;
use crate::local::reader::Store;
use crate::local::shard_reader::{OpenShard, check_block};
use crate::read_error::ReadError;

/// Size of the reads of a chunk file to hash, in bytes.
const HASH_BYTES: usize = 1 << 20;

impl Store {
    /// Checks every byte of a shard of the manifest. Reads go to `buffer`, which only grows. `bytes_read`
    /// counts along.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the system refuses the file.
    pub fn verify_shard(
        &self,
        shard: ShardId,
        buffer: &mut Vec<u8>,
        bytes_read: &AtomicU64,
    ) -> Result<Vec<Damage>, StoreError> {
        self.verify_shard_at(&self.paths.shard(shard), shard, buffer, bytes_read)
    }

    /// Checks a file like [`Store::verify_shard`], but at another path.
    pub(crate) fn verify_shard_at(
        &self,
        path: &Path,
        shard: ShardId,
        buffer: &mut Vec<u8>,
        bytes_read: &AtomicU64,
    ) -> Result<Vec<Damage>, StoreError> {
        let opened = OpenShard::open(path, &self.manifest, &self.fingerprint, shard);
        let (opened, file) = match opened {
            Ok(opened) => opened,
            Err(fault) => return Ok(vec![self.fault(path, shard, None, fault)?]),
        };
        let mut damages = Vec::new();
        for (slot, entry) in (0..).zip(&opened.entries) {
            if let Err(fault) = check_block(&file, entry, self.kv_shape(), buffer) {
                damages.push(self.fault(path, shard, Some(slot), fault)?);
            }
            bytes_read.fetch_add(entry.padded_end() - entry.offset, Ordering::Relaxed);
        }
        Ok(damages)
    }

    /// Checks length and digest of a shard's chunk file.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the system refuses the file.
    pub fn verify_chunk_file(
        &self,
        shard: ShardId,
        buffer: &mut Vec<u8>,
        bytes_read: &AtomicU64,
    ) -> Result<Option<Damage>, StoreError> {
        self.verify_chunk_file_at(&self.paths.chunk_file(shard), shard, buffer, bytes_read)
    }

    /// Checks a file like [`Store::verify_chunk_file`], but at another path.
    pub(crate) fn verify_chunk_file_at(
        &self,
        path: &Path,
        shard: ShardId,
        buffer: &mut Vec<u8>,
        bytes_read: &AtomicU64,
    ) -> Result<Option<Damage>, StoreError> {
        let record = &self.manifest.record(shard).chunk_file;
        let checked = open_sized(path, record.bytes).and_then(|file| {
            buffer.resize(buffer.len().max(HASH_BYTES), 0);
            let (mut hasher, mut offset) = (blake3::Hasher::new(), 0);
            while offset < record.bytes {
                let part = (record.bytes - offset).min(HASH_BYTES as u64);
                let part = &mut buffer[..part as usize];
                file.read_exact_at(part, offset)?;
                hasher.update(part);
                offset += part.len() as u64;
                bytes_read.fetch_add(part.len() as u64, Ordering::Relaxed);
            }
            match Digest(*hasher.finalize().as_bytes()) == record.digest {
                true => Ok(()),
                false => Err("its digest is not the one that the manifest names".to_owned().into()),
            }
        });
        checked.err().map(|fault| self.fault(path, shard, None, fault)).transpose()
    }

    /// Reads a shard's chunk file and checks that the manifest's counts and the block table's identities
    /// follow from it. Damages take the place of the contents. A damaged table is not reported here, but by
    /// [`Store::verify_shard`].
    ///
    /// # Errors
    /// [`StoreError::Io`] if the system refuses a file.
    pub fn verify_chunks(
        &self,
        shard: ShardId,
    ) -> Result<Result<ShardChunks, Vec<Damage>>, StoreError> {
        let path = self.paths.chunk_file(shard);
        let damage = |slot, what: String| self.damage(&path, shard, slot, what);
        let contents = match read_chunks(&self.paths, &self.manifest, shard) {
            Ok(contents) => contents,
            Err(error) if error.is_refusal() => return Err(error),
            Err(error) => {
                let Damage { what, .. } = Damage::from_error(&self.paths.root, &error);
                return Ok(Err(vec![damage(None, what)]));
            }
        };
        let record = self.manifest.record(shard);
        let tokens: u64 = contents.chunks.iter().map(|chunk| chunk.tokens.len() as u64).sum();
        let counts = (contents.documents.len() as u64, contents.chunks.len() as u64, tokens);
        if counts != (record.documents, record.chunks, record.tokens) {
            let what = "documents, chunks or tokens are not as many as the manifest says";
            return Ok(Err(vec![damage(None, what.to_owned())]));
        }
        let kv_path = self.paths.shard(shard);
        let (manifest, fingerprint) = (&self.manifest, &self.fingerprint);
        // The shard may be elsewhere.
        let alone = OpenShard::read_table(&self.paths.table(shard), manifest, fingerprint, shard);
        let opened = alone.or_else(|_| {
            OpenShard::open(&kv_path, manifest, fingerprint, shard).map(|(opened, _)| opened)
        });
        let entries = match opened {
            Ok(OpenShard { entries, .. }) => entries,
            // The file may have been readable a moment ago.
            Err(fault @ ReadError::Io(_)) => {
                return Ok(Err(vec![self.fault(&kv_path, shard, None, fault)?]));
            }
            Err(_) => return Ok(Ok(contents)),
        };
        let slots = (0..).zip(contents.chunks.iter().zip(&entries));
        let other =
            slots.filter(|(_, (chunk, entry))| chunk.identity(&self.fingerprint) != entry.identity);
        let damages: Vec<Damage> = other
            .map(|(slot, (chunk, _))| {
                damage(Some(slot), format!("{} is not what the block was made from", chunk.id))
            })
            .collect();
        Ok(if damages.is_empty() { Ok(contents) } else { Err(damages) })
    }

    /// Makes the damage of a block with right checksums and wrong bytes.
    #[must_use]
    pub fn block_damage(&self, shard: ShardId, slot: Slot, what: String) -> Damage {
        self.damage(&self.paths.shard(shard), shard, Some(slot.0), what)
    }

    /// Returns the damage that a fault shows, or an error if the system refused the file.
    fn fault(
        &self,
        path: &Path,
        shard: ShardId,
        slot: Option<u32>,
        fault: ReadError,
    ) -> Result<Damage, StoreError> {
        match fault.is_refusal() {
            true => Err(fault.of_file(path)),
            false => Ok(self.damage(path, shard, slot, fault.to_string())),
        }
    }

    fn damage(&self, path: &Path, shard: ShardId, slot: Option<u32>, what: String) -> Damage {
        let file = path.strip_prefix(&self.paths.root).unwrap_or(path).to_owned();
        Damage { file, shard: Some(shard.0), slot, what }
    }
}
