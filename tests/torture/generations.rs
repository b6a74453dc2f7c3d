//! Replicas of every age of a store, whose manifest is then damaged or lost.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use hyperrag_core::ModelError;
use hyperrag_engine::maintain::compact::compact;
use hyperrag_engine::maintain::delete::delete;
use hyperrag_engine::maintain::repair::{RepairSettings, repair};
use hyperrag_engine::maintain::repair_model::{Recompute, RecomputeError};
use hyperrag_engine::maintain::replicate::replicate;
use hyperrag_engine::maintain::verify::{VerifySettings, verify};
use hyperrag_engine::search::session::BlockPolicy;
use hyperrag_engine::{Add, ByteProgress};
use hyperrag_store::Tiered;

use crate::Tally;
use crate::live::{Changing, State, found, query, text};
use crate::seeded::Seeded;
use crate::world::{Tree, read_tree, write_tree};

/// The folders of a store and of a replica, at one generation.
struct Age {
    state: State,
    store: Tree,
    replica: Tree,
}

/// Ways to damage the manifest.
const DAMAGES: [fn(&mut Vec<u8>, &mut Seeded); 3] = [
    |bytes, random| {
        let at = random.below(bytes.len() - 1);
        bytes[at] ^= 1 << random.below(5);
    },
    |bytes, random| bytes.truncate(random.below(bytes.len() - 1)),
    |bytes, _| bytes.clear(),
];

struct NoModel;

fn no_model() -> RecomputeError {
    ModelError::Device("no model is at hand".to_owned()).into()
}

impl Recompute for NoModel {
    fn fingerprints(&mut self, _: u32) -> Result<Vec<hyperrag_core::Fingerprint>, RecomputeError> {
        Err(no_model())
    }

    fn calibrate(
        &mut self,
        _: &hyperrag_core::Fingerprint,
        _: &[hyperrag_core::Chunk],
    ) -> Result<hyperrag_core::Calibration, RecomputeError> {
        Err(no_model())
    }

    fn other_kernel(
        &mut self,
        _: &hyperrag_core::Fingerprint,
    ) -> Result<Option<String>, RecomputeError> {
        Err(no_model())
    }

    fn compute(
        &mut self,
        _: &hyperrag_core::Fingerprint,
        _: &[hyperrag_core::Chunk],
    ) -> Result<Vec<hyperrag_core::KvBlock>, RecomputeError> {
        Err(no_model())
    }
}

/// Damages the manifest of a store of every generation, with two replicas of all generations up to its
/// own. Then queries, verifies and repairs. Runs at most `trials` cases.
pub(crate) fn stale(seed: u64, trials: u64) -> Tally {
    let mut random = Seeded(seed ^ 0x57a1e);
    let changing = Changing::new(seed);
    let ages = ages(&changing, seed);
    let mut all = Vec::new();
    for store in 0..ages.len() {
        for first in 0..=store {
            for second in 0..=store {
                all.extend((0..=DAMAGES.len()).map(|damage| (store, [first, second], damage)));
            }
        }
    }
    let mut tally = Tally::default();
    while tally.trials < trials && !all.is_empty() {
        tally.trials += 1;
        let (store, copies, damage) = all.swap_remove(random.below(all.len()));
        put(&changing, &ages, store, copies);
        let path = changing.root().join("manifest.json");
        let whole = fs::read(&path).unwrap();
        match DAMAGES.get(damage) {
            Some(change) => {
                let mut bytes = whole.clone();
                change(&mut bytes, &mut random);
                fs::write(&path, bytes).unwrap();
            }
            None => fs::remove_file(&path).unwrap(),
        }
        match judge(&changing, &ages, store, copies, &whole) {
            Ok(()) => tally.detected += 1,
            Err(why) => {
                tally.wrong += 1;
                tally.misses.push(format!(
                    "generations: store {store}, replicas {copies:?}, damage {damage}: {why}"
                ));
            }
        }
    }
    tally
}

/// Returns the folders after a build, a deletion, an append, a compaction, a replacement and a
/// deletion.
fn ages(changing: &Changing, seed: u64) -> Vec<Age> {
    let root = changing.root();
    let mut state = changing.first();
    let mut ages = Vec::new();
    let gone = |state: &mut State, id: &str| {
        state.remove(id).unwrap();
        assert_eq!(delete(&root, [id]).unwrap().deleted, 1);
    };
    let add = |state: &mut State, id: &str, number: u64| {
        let added = State::from([(id.to_owned(), text(seed ^ number))]);
        state.extend(added.clone());
        changing.add(&added, Some(Add::Resume));
    };
    for step in 0..6 {
        match step {
            0 => {}
            1 => gone(&mut state, "d3"),
            2 => add(&mut state, "e1", 77),
            3 => drop(
                compact(&root, &AtomicBool::new(false), &ByteProgress::default(), |_| {}).unwrap(),
            ),
            4 => add(&mut state, "d5", 78),
            _ => gone(&mut state, "d7"),
        }
        replicate(&root, &copy(changing, 0), false, &ByteProgress::default()).unwrap();
        let (store, replica) = (read_tree(&root), read_tree(&copy(changing, 0)));
        ages.push(Age { state: state.clone(), store, replica });
    }
    replicate(&root, &copy(changing, 1), false, &ByteProgress::default()).unwrap();
    let list = fs::read(root.join("replicas.json")).unwrap();
    for age in &mut ages {
        age.store.insert("replicas.json".into(), Some(list.clone()));
    }
    ages
}

fn copy(changing: &Changing, number: usize) -> PathBuf {
    changing.root().with_file_name(format!("copy{number}"))
}

fn put(changing: &Changing, ages: &[Age], store: usize, copies: [usize; 2]) {
    write_tree(&changing.root(), &ages[store].store);
    for (number, age) in copies.into_iter().enumerate() {
        write_tree(&copy(changing, number), &ages[age].replica);
    }
}

/// Returns the documents that a query finds, and whether they are said to be doubtful; `None` if the
/// store refuses.
fn ask(changing: &Changing) -> Option<(State, bool)> {
    let store = Tiered::open(&changing.root()).ok()?;
    let session = changing.session(&store);
    let answer = session.search(&query(), usize::MAX, BlockPolicy::Load).ok()?;
    answer.damages.is_empty().then(|| (found(&answer), store.doubt().is_some()))
}

fn judge(
    changing: &Changing,
    ages: &[Age],
    store: usize,
    copies: [usize; 2],
    whole: &[u8],
) -> Result<(), String> {
    let root = changing.root();
    let best = copies[0].max(copies[1]);
    let answer = ask(changing).ok_or("the replicas do not answer")?;
    // The store's last state may be doubted; an older one must be.
    if answer.0 != ages[best].state || best < store && !answer.1 {
        return Err(format!("a query finds {} documents, doubt {}", answer.0.len(), answer.1));
    }
    let settings = VerifySettings { deep: true, threads: 1 };
    let damages = || {
        Ok::<_, String>(
            verify(&root, settings, &ByteProgress::default())
                .map_err(|error| error.to_string())?
                .damages,
        )
    };
    if damages()?.is_empty() {
        return Err("verify says that all is well".to_owned());
    }
    let mend = |accept_older| {
        let settings = RepairSettings { accept_older, threads: 1, ..RepairSettings::default() };
        repair(&root, settings, &mut NoModel, &ByteProgress::default())
            .map(|report| report.left)
            .map_err(|error| error.to_string())
    };
    let before = read_tree(&root);
    if mend(false)? == 0 {
        let same = fs::read(root.join("manifest.json")).is_ok_and(|bytes| bytes == whole);
        return match same
            && damages()?.is_empty()
            && ask(changing) == Some((ages[store].state.clone(), false))
        {
            true => Ok(()),
            false => Err("repair made another store of it".to_owned()),
        };
    }
    if best == store && read_tree(&root) != before {
        return Err("a repair that was refused changed files".to_owned());
    }
    if mend(true)? != 0 || !damages()?.is_empty() {
        return Err("it cannot be mended with --accept-older".to_owned());
    }
    if ask(changing) != Some((ages[best].state.clone(), false)) {
        return Err("the accepted state is not that of the replica".to_owned());
    }
    // Documents added then are found.
    let added = State::from([("new".to_owned(), text(4242))]);
    changing.add(&added, Some(Add::Resume));
    let mut state = ages[best].state.clone();
    state.extend(added);
    match ask(changing) == Some((state, false)) && damages()?.is_empty() {
        true => Ok(()),
        false => Err("a document that was added then is not found".to_owned()),
    }
}
