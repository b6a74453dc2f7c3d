//! Runs the suite of tiers on a tier, plain and behind faults. In: a tier and how it is filled. Out: a panic where
//! a promise is broken.

use std::sync::Arc;

use bytes::Bytes;
use hyperrag_core::{Blob, FileTier, Tier};
use hyperrag_tiers::contract::{Harness, cases, file_cases};
use hyperrag_tiers::{FaultRates, Faulty};

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

/// Runs all cases on blocks, plain and behind faults.
pub(crate) fn run_blocks(harness: impl Harness) {
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

/// Runs all cases on files.
pub(crate) fn run_files(place: &dyn FileTier) {
    let cases = file_cases();
    assert!(cases.len() >= 12, "{}", cases.len());
    for case in &cases {
        println!("{}", case.name);
        (case.run)(place);
    }
}
