//! A thousand queries from a cluster that loses nodes meanwhile.

use std::io::{BufRead, BufReader, Read};
use std::process::Output;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::cluster::Cluster;
use super::places::{remove_shards, stored, told};
use super::{Services, until};
use crate::support::{DEGRADED, DONE, Outcome, Scratch, note};

/// Queries of a run.
const QUERIES: usize = 1000;
/// Answers after which a node is struck.
const STRIKE: usize = QUERIES / 3;
/// Silence after which the cluster replaces a master.
const SILENCE: Duration = Duration::from_secs(2);

/// A store whose shards are in a cluster alone, and the answers that it gave before.
struct Moved {
    cluster: Cluster,
    scratch: Scratch,
    before: Outcome,
}

impl Moved {
    fn new(services: &Services) -> Self {
        let cluster = Cluster::start(services, SILENCE);
        let scratch = stored(QUERIES);
        let before = scratch.ok(&line("store"));
        assert_eq!(before.stdout.lines().count(), QUERIES);
        let to = cluster.url("copies=1&timeout=30s");
        scratch.ok(&format!("export --store store --to {to}"));
        remove_shards(&scratch);
        Self { cluster, scratch, before }
    }

    /// Asks all queries in one run, and calls `strike` while it goes on. Returns what it gave.
    fn ask(&self, name: &str, strike: impl FnOnce()) -> Outcome {
        // A slow machine may be late, which is no fault of a node.
        let line = line(&self.cluster.url("timeout=30s"));
        let mut child = self.scratch.spawn(&line);
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut stderr = child.stderr.take().unwrap();
        let warnings = thread::spawn(move || {
            let mut all = Vec::new();
            stderr.read_to_end(&mut all).map(|_| all).unwrap()
        });
        let (mut strike, mut all) = (Some(strike), String::new());
        let (mut last, mut pause) = (None::<Instant>, Duration::ZERO);
        for (n, line) in (1..).zip(stdout.lines()) {
            // The start is no pause.
            pause = last.map_or(pause, |last| pause.max(last.elapsed()));
            last = Some(Instant::now());
            all.push_str(&line.unwrap());
            all.push('\n');
            if n == STRIKE {
                strike.take().unwrap()();
            }
        }
        let status = child.wait().unwrap();
        let output = Output { status, stdout: all.into(), stderr: warnings.join().unwrap() };
        let outcome = self.scratch.check(&line, output);
        note(&format!("{name}: {}, longest pause {} ms", times(&outcome), pause.as_millis()));
        assert!(strike.is_none(), "{name}: {}", outcome.stderr);
        assert_eq!(outcome.stdout.lines().count(), QUERIES, "{name}: {}", outcome.stderr);
        outcome
    }

    /// Asks, and expects every answer to be as it was.
    fn loses_nothing(&self, name: &str, strike: impl FnOnce()) {
        let after = self.ask(name, strike);
        assert_eq!(after.code, DONE, "{name}: {}", after.stderr);
        assert_eq!(told(&after), told(&self.before), "{name}");
    }
}

fn line(store: &str) -> String {
    let store = match store {
        "store" => String::new(),
        place => format!("--tiers {place}"),
    };
    format!("query --store store TINY --json --queries asked.jsonl --depth 5 --plan load {store}")
}

/// Returns the median and the longest time of the queries, in words. Queries that were computed together share
/// their time; the longest pause between two answers tells how long anybody waited.
fn times(outcome: &Outcome) -> String {
    let seconds = |answer: Value| {
        let stats = &answer["stats"];
        let of = |name: &str| stats[name].as_f64().unwrap();
        of("retrieve_seconds") + of("rerank_seconds")
    };
    let mut all: Vec<_> = outcome.json().into_iter().map(seconds).collect();
    all.sort_by(f64::total_cmp);
    let (median, longest) = (all[all.len() / 2] * 1e3, all[all.len() - 1] * 1e3);
    format!("{} queries, median {median:.1} ms, longest {longest:.1} ms", all.len())
}

/// Returns id, ranks and scores of each query.
fn hits(outcome: &Outcome) -> Vec<(Value, Value)> {
    let answers = outcome.json().into_iter();
    answers.map(|answer| (answer["query_id"].clone(), answer["hits"].clone())).collect()
}

#[test]
fn a_lost_master_costs_no_answer_and_what_is_lost_with_its_replica_is_computed_again() {
    let Some(services) = Services::find() else { return };
    let moved = Moved::new(&services);
    let nodes = &moved.cluster.nodes;
    let pairs = moved.cluster.pairs();
    let [(hangs, its_heir), (dies, heir), (last, its_replica)] = pairs[..] else {
        panic!("{pairs:?}")
    };
    moved.loses_nothing("a master hangs", || nodes[hangs].signal("STOP"));
    until("a new master", || nodes[its_heir].info("role") == "master");
    nodes[hangs].signal("CONT");
    until("the former master's return", || nodes[hangs].info("role") == "slave");
    moved.cluster.wait_until_whole();

    moved.loses_nothing("a master is killed", || nodes[dies].signal("KILL"));
    until("a new master", || nodes[heir].info("role") == "master");

    // A busy machine may have let the cluster change the roles of a pair, but not the pair.
    let after = moved.ask("a master and its replica are killed", || {
        [its_replica, last].iter().for_each(|node| nodes[*node].signal("KILL"));
    });
    assert_eq!(after.code, DEGRADED, "{}", after.stderr);
    after.says(&["computed again"]);
    assert_eq!(hits(&after), hits(&moved.before));
    // What the other nodes have goes on to come from there, where a master was replaced too.
    let stats = |answer: &Value, name: &str| answer["stats"][name].as_u64().unwrap();
    let after = after.json();
    assert!(after.iter().any(|answer| stats(answer, "blocks_recomputed") > 0));
    assert!(after[..STRIKE / 2].iter().all(|answer| stats(answer, "blocks_recomputed") == 0));
    assert!(after[QUERIES / 2..].iter().any(|answer| stats(answer, "blocks_read") > 0));
}
