//! Copies of a store that changes meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use hyperrag_engine::ByteProgress;
use hyperrag_engine::maintain::replicate::replicate;
use hyperrag_engine::maintain::verify::{VerifySettings, verify};
use hyperrag_engine::search::session::BlockPolicy;
use hyperrag_store::Tiered;

use crate::Tally;
use crate::live::{Changing, found, query};

/// Replicates while a writer adds, replaces, deletes and compacts. Every copy must be whole, and hold
/// the contents of the store at one moment.
pub(crate) fn beside_changes(seed: u64, trials: u64) -> Tally {
    let changing = Changing::new(seed);
    let stop = AtomicBool::new(false);
    let mut tally = Tally::default();
    thread::scope(|scope| {
        let writer = scope.spawn(|| changing.change(seed, &stop));
        while tally.trials < trials {
            tally.trials += 1;
            match copied(&changing) {
                Ok(()) => tally.harmless += 1,
                Err(why) => {
                    tally.wrong += 1;
                    tally.misses.push(format!("copy {}: {why}", tally.trials));
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap();
    });
    tally
}

fn copied(changing: &Changing) -> Result<(), String> {
    let (root, copy) = (changing.root(), changing.root().with_file_name("copy"));
    let before = changing.done();
    let progress = ByteProgress::default();
    replicate(&root, &copy, false, &progress).map_err(|error| format!("it fails: {error}"))?;
    for root in [&copy, &root] {
        let settings = VerifySettings { deep: true, threads: 1 };
        let found = verify(root, settings, &progress).map_err(|error| error.to_string())?;
        if let Some(damage) = found.damages.first() {
            return Err(format!("{} is called damaged: {damage:?}", root.display()));
        }
    }
    let store = Tiered::open(&copy).map_err(|error| error.to_string())?;
    let answer = changing.session(&store).search(&query(), usize::MAX, BlockPolicy::Load);
    let answer = answer.map_err(|error| error.to_string())?;
    match changing.was_since(before, &found(&answer)) && answer.damages.is_empty() {
        true => Ok(()),
        false => Err("it answers as the store never did".to_owned()),
    }
}
