//! The places of a store's blocks in the order in which they are asked: folders and tiers come in, block tables
//! and names of blocks go out.

use std::path::PathBuf;
use std::sync::Arc;

use hyperrag_core::{Blob, BlobKey, BlockError, BlockKey, KvShape, ShardId, TierRole};

use crate::format::block_table::BlockEntry;
use crate::local::reader::Store;
use crate::local::shard_reader::OpenShard;
use crate::tiered::in_use::TierInUse;
use crate::tiered::promotion::{Kept, Promoter};
use crate::tiered::stats::TierWork;

/// A place that may have blocks.
pub(crate) enum Place {
    /// Folder of the store or of a replica, by its number.
    Copy(usize),
    Tier(Arc<TierInUse>),
}

/// All places of a store's blocks.
pub(crate) struct Places {
    /// The store itself, then its replicas.
    pub(crate) copies: Vec<Store>,
    pub(crate) order: Vec<Place>,
    promoter: Promoter,
}

impl Places {
    pub(crate) fn of_copies(copies: Vec<Store>) -> Self {
        let order = (0..copies.len()).map(Place::Copy).collect();
        Self { copies, order, promoter: Promoter::default() }
    }

    /// Whether the store has this shard.
    pub(crate) fn has_shard(&self, shard: ShardId) -> bool {
        self.copies[0].manifest().shard(shard).is_some()
    }

    pub(crate) fn kv_shape(&self) -> &KvShape {
        self.copies[0].kv_shape()
    }

    /// Returns the name of a place: a folder, or the name of a tier.
    pub(crate) fn name(&self, place: usize) -> PathBuf {
        match &self.order[place] {
            Place::Copy(copy) => self.copies[*copy].root().to_owned(),
            Place::Tier(tier) => PathBuf::from(tier.tier.name()),
        }
    }

    /// Whether any place is a tier.
    pub(crate) fn are_tiered(&self) -> bool {
        self.order.iter().any(|place| matches!(place, Place::Tier(_)))
    }

    /// Returns the error of bytes that no place has.
    pub(crate) fn lost(&self, error: BlockError) -> BlockError {
        let others = if self.are_tiered() { "other place" } else { "replica" };
        match error {
            BlockError::Damaged { place, what } if self.order.len() > 1 => BlockError::Damaged {
                place,
                what: format!("{what}, and no {others} has it intact"),
            },
            error => error,
        }
    }

    /// Lists the tiers that answer later than at once, with their places in the order.
    pub(crate) fn distant(&self) -> impl Iterator<Item = (usize, &Arc<TierInUse>)> {
        self.order.iter().enumerate().filter_map(|(place, tier)| match tier {
            Place::Tier(tier) if !tier.shape.immediate => Some((place, tier)),
            _ => None,
        })
    }

    /// Returns the block table of a shard, from the first folder that has it intact.
    pub(crate) fn table(&self, shard: ShardId) -> Result<Arc<OpenShard>, BlockError> {
        let mut tables = self.copies.iter().map(|copy| copy.table(shard));
        let first = tables.next().expect("a store has a folder");
        first.or_else(|error| tables.find_map(Result::ok).ok_or(error))
    }

    /// Returns the block of an entry as a tier is asked for it.
    pub(crate) fn blob(&self, entry: &BlockEntry, key: &BlockKey) -> Blob {
        let digest = &self.copies[0].manifest().record(key.shard).kv.digest;
        let table = *digest.0.first_chunk().expect("a digest has 32 bytes");
        let (offset, bytes) = (entry.offset, entry.bytes);
        Blob { key: BlobKey { table, slot: key.slot }, shard: key.shard, offset, bytes }
    }

    /// Gives leave to keep a block that comes from `place` for the caches before it.
    pub(crate) fn keep(&self, place: usize, bytes: u64) -> Option<Kept> {
        let caches = self.order[..place].iter().filter_map(|place| match place {
            Place::Tier(tier) if tier.shape.role == TierRole::Cache => Some(Arc::clone(tier)),
            _ => None,
        });
        self.promoter.keep(bytes, self.kv_shape().layers, caches.collect())
    }

    /// Returns the work of each tier.
    pub(crate) fn work(&self) -> Vec<TierWork> {
        let tiers = self.order.iter().filter_map(|place| match place {
            Place::Tier(tier) => Some(tier.stats.work(tier.tier.name())),
            Place::Copy(_) => None,
        });
        tiers.collect()
    }
}

/// Returns the text of an error in the note of a failover.
pub(crate) fn told(error: &BlockError) -> String {
    match error {
        BlockError::Io { source, .. } => format!("{error} ({source})"),
        error => error.to_string(),
    }
}
