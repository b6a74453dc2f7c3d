//! Tiers: places that hold the bytes of blocks. In memory, in a folder of an NVMe drive, in a Redis Cluster, in
//! an object store.
//!
//! In: keys of blocks, ranges and deadlines. Out: unchecked bytes or a reason. It knows no format of blocks, and
//! is the one crate with an asynchronous runtime.

#[cfg(feature = "testing")]
pub mod contract;
#[cfg(feature = "testing")]
mod faulty;
#[cfg(feature = "testing")]
mod throttled;

mod breaker;
mod cache;
mod counters;
mod disk;
mod folder;
mod names;
mod object;
mod ram;
mod redis;
mod runs;
mod spec;

pub use breaker::Breaker;
pub use cache::CacheTier;
pub use counters::CacheCounts;
#[cfg(feature = "testing")]
pub use faulty::{FaultCounts, FaultRates, Faulty};
pub use folder::FolderTier;
pub use names::check_file_name;
pub use object::{ObjectLogin, ObjectOptions, ObjectReader, ObjectTier};
pub use ram::RamTier;
pub use redis::{Readers, RedisOptions, RedisTier};
pub use spec::{
    ClaimPlace, ReadFrom, RedisSpec, S3Spec, SpecError, TierSpec, parse_bytes, parse_tiers,
};
#[cfg(feature = "testing")]
pub use throttled::Throttled;
