//! Runs the suite of tiers on those of this machine, plain and behind faults.

#![expect(clippy::print_stdout, reason = "the last case before a failure is worth reading")]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use hyperrag_core::{Blob, Tier};
use hyperrag_tiers::contract::{Harness, cases, file_cases};
use hyperrag_tiers::{CacheTier, FaultRates, Faulty, FolderTier, RamTier};

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

/// A tier behind faults. Blocks get into it without any.
struct Spoiled<H> {
    tier: Arc<Faulty<dyn Tier>>,
    inner: H,
}

impl<H: Harness> Spoiled<H> {
    fn new(inner: H) -> Self {
        Self { tier: Arc::new(Faulty::new(inner.tier(), 7, FaultRates::all(40))), inner }
    }
}

impl<H: Harness> Harness for Spoiled<H> {
    fn tier(&self) -> Arc<dyn Tier> {
        Arc::clone(&self.tier) as Arc<dyn Tier>
    }

    fn fill(&self, blobs: &[(Blob, Bytes)]) {
        self.inner.fill(blobs);
    }

    fn writable(&self) -> bool {
        self.inner.writable()
    }

    fn exact(&self) -> bool {
        false
    }
}

/// Runs all cases, plain and behind faults.
fn run(harness: impl Harness) {
    let cases = cases();
    assert!(cases.len() >= 40, "{}", cases.len());
    for case in &cases {
        println!("{}", case.name);
        (case.run)(&harness);
    }
    let spoiled = Spoiled::new(harness);
    for case in &cases {
        println!("{} behind faults", case.name);
        (case.run)(&spoiled);
    }
    let counts = spoiled.tier.counts();
    println!("{counts:?}");
    assert!(counts.pieces > 4000);
    let each = [counts.errors, counts.delays, counts.cuts, counts.flips, counts.swaps];
    assert!(each.iter().chain(&[counts.stales, counts.nones]).all(|kind| *kind > 50), "{counts:?}");
}

#[test]
fn blocks_in_memory() {
    run(Writable(Arc::new(RamTier::new(1 << 30))));
}

#[test]
fn blocks_in_files() {
    let folder = tempfile::tempdir().unwrap();
    run(Writable(Arc::new(CacheTier::new(folder.path(), 1 << 30).unwrap())));
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
    run(Shards { folder: folder.path().to_owned(), tier });
}

#[test]
fn files_in_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let cases = file_cases();
    assert!(cases.len() >= 12);
    for root in [folder.path().to_owned(), folder.path().join("made/when/needed")] {
        let place = FolderTier::new(&root);
        for case in &cases {
            println!("{}", case.name);
            (case.run)(&place);
        }
    }
}
