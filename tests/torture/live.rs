//! Queries of a store that changes meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;

use hyperrag_corpus::{Columns, Corpus};
use hyperrag_engine::maintain::compact::compact;
use hyperrag_engine::maintain::delete::delete;
use hyperrag_engine::search::session::BlockPolicy;
use hyperrag_engine::{Add, ByteProgress, Query, SearchResult, Session};
use hyperrag_model::{CpuModel, Tokenizer};
use hyperrag_store::Tiered;
use tempfile::TempDir;

use crate::Tally;
use crate::seeded::Seeded;
use crate::store::Tiny;

const READERS: usize = 2;
const DOCUMENTS: usize = 12;

/// Ids and texts of all documents.
pub(crate) type State = BTreeMap<String, String>;

/// A store with all its states, past and coming.
pub(crate) struct Changing {
    folder: TempDir,
    tiny: Tiny,
    states: RwLock<Vec<State>>,
    /// Index of the last state that is in place.
    done: AtomicUsize,
}

/// Queries while a writer adds, replaces, deletes and compacts. Every answer must be that of a state of
/// the store during the query, with the scores of blocks computed anew.
pub(crate) fn queries(seed: u64, trials: u64) -> Tally {
    let changing = Changing::new(seed);
    let root = changing.root();
    let (asked, wrong, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let held = Tiered::open(&root).unwrap();
    let first = changing.session(&held);
    thread::scope(|scope| {
        let writer = scope.spawn(|| changing.change(seed, &stop));
        let readers: Vec<_> = (0..READERS)
            .map(|_| {
                scope.spawn(|| {
                    while asked.fetch_add(1, Ordering::Relaxed) < trials {
                        wrong.fetch_add(u64::from(!changing.ask()), Ordering::Relaxed);
                    }
                })
            })
            .collect();
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap();
    });
    // A reader that opened the store before all changes still has it as it was.
    let answer = first.search(&query(), usize::MAX, BlockPolicy::Load).unwrap();
    let same = found(&answer) == changing.states.read().unwrap()[0] && answer.damages.is_empty();
    drop(first);
    let wrong = wrong.into_inner() + u64::from(!same);
    let changes = changing.done.load(Ordering::Relaxed) as u64;
    assert!(changes > 0, "nothing changed meanwhile");
    Tally { trials, harmless: trials - wrong.min(trials), wrong, ..Tally::default() }
}

pub(crate) fn query() -> Query {
    Query { id: "q".to_owned(), text: "honey of the bees".to_owned() }
}

pub(crate) fn found(answer: &SearchResult) -> State {
    answer.hits.iter().map(|hit| (hit.id.clone(), hit.text.clone())).collect()
}

pub(crate) fn text(number: u64) -> String {
    format!("The honey of hive {number} was taken in the week {} of the year.", number % 52)
}

impl Changing {
    pub(crate) fn new(seed: u64) -> Self {
        let folder = TempDir::new().unwrap();
        let tiny = Tiny::load();
        let numbers = 0..DOCUMENTS as u64;
        let state: State = numbers.map(|n| (format!("d{n}"), text(seed ^ n))).collect();
        let states = RwLock::new(vec![state.clone()]);
        let changing = Self { folder, tiny, states, done: AtomicUsize::new(0) };
        changing.add(&state, None);
        changing
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    pub(crate) fn add(&self, documents: &State, add: Option<Add>) {
        let rows = documents.iter();
        let rows = rows.map(|(id, text)| format!("{{\"_id\": \"{id}\", \"text\": \"{text}\"}}\n"));
        let input = self.folder.path().join("input.jsonl");
        fs::write(&input, rows.collect::<String>()).unwrap();
        let corpus = Corpus::open(&[input.display().to_string()], Columns::default()).unwrap();
        self.tiny.build(&self.root(), &corpus, None, add);
    }

    pub(crate) fn session<'a>(&'a self, store: &'a Tiered) -> Session<'a, CpuModel, Tokenizer> {
        Session::open(store, &self.tiny.model, &self.tiny.tokenizer, &self.tiny.profile).unwrap()
    }

    /// Changes the store until `stop` is set, for at least one round.
    pub(crate) fn change(&self, seed: u64, stop: &AtomicBool) {
        let mut random = Seeded(seed ^ 0x11fe);
        let (mut state, mut next) = (self.states.read().unwrap()[0].clone(), DOCUMENTS as u64);
        loop {
            let pick = |state: &State, random: &mut Seeded| {
                state.keys().nth(random.below(state.len())).unwrap().clone()
            };
            let mut added = State::new();
            for _ in 0..1 + random.below(3) {
                next += 1;
                added.insert(format!("d{next}"), text(random.next()));
            }
            added.insert(pick(&state, &mut random), text(random.next()));
            state.extend(added.clone());
            self.advance(&state, || self.add(&added, Some(Add::Resume)));

            while state.len() > DOCUMENTS {
                let gone = pick(&state, &mut random);
                state.remove(&gone);
                self.advance(&state, || drop(delete(&self.root(), [&*gone]).unwrap()));
            }
            let (never, progress) = (AtomicBool::new(false), ByteProgress::default());
            self.advance(&state, || {
                compact(&self.root(), &never, &progress, |_| {}).unwrap();
            });
            if stop.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    /// Brings the store to its next state.
    fn advance(&self, state: &State, change: impl FnOnce()) {
        self.states.write().unwrap().push(state.clone());
        change();
        self.done.fetch_add(1, Ordering::SeqCst);
    }

    /// Returns the first state of the store.
    pub(crate) fn first(&self) -> State {
        self.states.read().unwrap()[0].clone()
    }

    /// Returns the index of the last state that is in place.
    pub(crate) fn done(&self) -> usize {
        self.done.load(Ordering::SeqCst)
    }

    /// Whether the store was in this state since the state with index `before`.
    pub(crate) fn was_since(&self, before: usize, state: &State) -> bool {
        self.states.read().unwrap()[before..].contains(state)
    }

    /// Whether an answer is right.
    fn ask(&self) -> bool {
        let before = self.done();
        let Ok(store) = Tiered::open(&self.root()) else { return false };
        let session = self.session(&store);
        let answers = [BlockPolicy::Load, BlockPolicy::Recompute]
            .map(|policy| session.search(&query(), usize::MAX, policy));
        let [Ok(reused), Ok(recomputed)] = answers else { return false };
        let state = found(&reused);
        let known = self.was_since(before, &state);
        let bits = |answer: &SearchResult| -> Vec<(String, u32)> {
            answer.hits.iter().map(|hit| (hit.id.clone(), hit.score.to_bits())).collect()
        };
        known && bits(&reused) == bits(&recomputed) && reused.damages.is_empty()
    }
}
