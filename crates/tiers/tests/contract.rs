//! Runs the suite of tiers on those of this machine, plain and behind faults.

#![expect(clippy::print_stdout, reason = "the last case before a failure is worth reading")]

#[path = "support/suite.rs"]
mod suite;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use hyperrag_core::{Blob, Tier};
use hyperrag_tiers::contract::Harness;
use hyperrag_tiers::{CacheTier, FolderTier, RamTier, Throttled};
use suite::{run_blocks, run_files};

/// A tier that takes blocks.
struct Writable(Arc<dyn Tier>);

impl Harness for Writable {
    fn tier(&self) -> Arc<dyn Tier> {
        Arc::clone(&self.0)
    }

    fn fill(&self, blobs: &[(Blob, Bytes)]) {
        blobs.iter().for_each(|(blob, bytes)| self.0.put(blob, bytes).unwrap());
    }

    fn writable(&self) -> bool {
        true
    }
}

#[test]
fn blocks_in_memory() {
    run_blocks(Writable(Arc::new(RamTier::new(1 << 30))));
}

#[test]
fn blocks_behind_a_link() {
    let memory = Arc::new(RamTier::new(1 << 30));
    run_blocks(Writable(Arc::new(Throttled::new(memory, 2 << 30))));
}

#[test]
fn blocks_in_files() {
    let folder = tempfile::tempdir().unwrap();
    run_blocks(Writable(Arc::new(CacheTier::new(folder.path(), 1 << 30).unwrap())));
}

/// A folder of shards.
struct Shards {
    folder: PathBuf,
    tier: Arc<FolderTier>,
}

impl Harness for Shards {
    fn tier(&self) -> Arc<dyn Tier> {
        Arc::clone(&self.tier) as Arc<dyn Tier>
    }

    fn fill(&self, blobs: &[(Blob, Bytes)]) {
        fs::create_dir_all(self.folder.join("shards")).unwrap();
        for (blob, bytes) in blobs {
            let path = self.folder.join(format!("shards/{}.kv", blob.shard));
            let file = File::options().write(true).create(true).truncate(false).open(path).unwrap();
            file.write_all_at(bytes, blob.offset).unwrap();
        }
    }

    fn writable(&self) -> bool {
        false
    }
}

#[test]
fn shards_in_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let tier = Arc::new(FolderTier::new(folder.path()));
    run_blocks(Shards { folder: folder.path().to_owned(), tier });
}

#[test]
fn files_in_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    for root in [folder.path().to_owned(), folder.path().join("made/when/needed")] {
        run_files(&FolderTier::new(&root));
    }
}
