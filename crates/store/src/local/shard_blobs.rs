//! Whole blocks of a shard, as tiers hold them. In: a shard of a store, bytes from anywhere. Out: names, places and
//! checked bytes of its blocks. It knows no tier.

use std::fs::File;
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use hyperrag_core::{Blob, BlobKey, ShardId, Slot};

use crate::error::StoreError;
use crate::format::block_table::BlockEntry;
use crate::local::reader::Store;
use crate::local::shard_reader::{OpenShard, check_block_bytes};

/// The blocks of a shard, by its checked block table.
pub struct ShardBlobs<'a> {
    store: &'a Store,
    shard: ShardId,
    opened: OpenShard,
}

impl Store {
    /// Returns the blocks of a shard of the manifest. The block table is enough; the shard may be elsewhere.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if neither the table nor the shard is as it was written.
    pub fn blobs(&self, shard: ShardId) -> Result<ShardBlobs<'_>, StoreError> {
        let (store, alone, path) = (self, self.paths.table(shard), self.paths.shard(shard));
        let (manifest, fingerprint) = (&self.manifest, &self.fingerprint);
        let opened = OpenShard::read_table(&alone, manifest, fingerprint, shard).or_else(|_| {
            let opened = OpenShard::open(&path, manifest, fingerprint, shard);
            opened.map(|(opened, _)| opened).map_err(|fault| fault.of_file(&path))
        });
        Ok(ShardBlobs { store, shard, opened: opened? })
    }
}

impl ShardBlobs<'_> {
    /// Number of blocks.
    #[must_use]
    pub fn count(&self) -> u32 {
        u32::try_from(self.opened.entries.len()).unwrap_or(u32::MAX)
    }

    /// Returns the block of a slot as a tier is asked for it.
    ///
    /// # Panics
    /// If the shard has no such slot.
    #[must_use]
    pub fn blob(&self, slot: Slot) -> Blob {
        let entry = &self.opened.entries[slot.0 as usize];
        let digest = self.store.manifest.record(self.shard).kv.digest;
        let table = *digest.0.first_chunk().expect("a digest has 32 bytes");
        let (offset, bytes) = (entry.offset, entry.bytes);
        Blob { key: BlobKey { table, slot }, shard: self.shard, offset, bytes }
    }

    /// Checks all bytes of the block of a slot, wherever they come from.
    ///
    /// # Errors
    /// The fault, in words.
    pub fn check(&self, slot: Slot, bytes: &[u8]) -> Result<(), BlockFault> {
        let entry = &self.opened.entries[slot.0 as usize];
        let checked = check_block_bytes(bytes, entry, self.store.kv_shape());
        checked.map_err(|fault| BlockFault(fault.to_string()))
    }

    /// Returns the places of the blocks.
    pub(crate) fn into_entries(self) -> Vec<BlockEntry> {
        self.opened.entries
    }

    /// Opens the shard's file to read blocks.
    ///
    /// # Errors
    /// [`StoreError`] if there is none as the manifest says.
    pub fn file(&self) -> Result<ShardFile<'_>, StoreError> {
        let path = self.store.paths.shard(self.shard);
        let Store { manifest, fingerprint, .. } = self.store;
        let opened = OpenShard::open(&path, manifest, fingerprint, self.shard);
        let (_, file) = opened.map_err(|fault| fault.of_file(&path))?;
        Ok(ShardFile { blobs: self, file })
    }
}

/// A fault of a block's bytes, in words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BlockFault(String);

/// The file of a shard.
pub struct ShardFile<'a> {
    blobs: &'a ShardBlobs<'a>,
    file: File,
}

impl ShardFile<'_> {
    /// Reads and checks the block of a slot.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if it is not as it was written.
    pub fn read(&self, slot: Slot) -> Result<Bytes, StoreError> {
        let entry = &self.blobs.opened.entries[slot.0 as usize];
        let path = self.blobs.store.paths.shard(self.blobs.shard);
        let mut bytes = vec![0; entry.bytes as usize];
        let read = self.file.read_exact_at(&mut bytes, entry.offset);
        read.map_err(StoreError::io(&path, "cannot be read"))?;
        let checked = self.blobs.check(slot, &bytes);
        checked
            .map_err(|fault| StoreError::damaged(&path, format!("block {}: {fault}", slot.0)))?;
        Ok(bytes.into())
    }
}
