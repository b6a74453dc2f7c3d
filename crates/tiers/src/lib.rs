//! Tiers: places that hold the bytes of blocks. In memory, in a folder of an NVMe drive, in a Redis Cluster, in
//! an object store.
//!
//! In: keys of blocks, ranges and deadlines. Out: unchecked bytes or a reason. It knows no format of blocks, and
//! is the one crate with an asynchronous runtime.

