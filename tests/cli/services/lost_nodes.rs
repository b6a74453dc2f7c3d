//! A thousand queries from a cluster that loses nodes meanwhile.

use std::io::{BufRead, BufReader, Read};
use std::process::Output;
use std::thread;
use std::time::Duration;

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
        for (n, line) in (1..).zip(stdout.lines()) {
            all.push_str(&line.unwrap());
            all.push('\n');
            if n == STRIKE {
                strike.take().unwrap()();
            }
        }
        let status = child.wait().unwrap();
        let output = Output { status, stdout: all.into(), stderr: warnings.join().unwrap() };
        let outcome = self.scratch.check(&line, output);
        note(&format!("{name}: {}", times(&outcome)));
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
    format!("query --store store TINY --json --queries asked.jsonl --depth 8 {store}")
}

/// Returns the median and the longest time of the queries, in words.
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
fn a_master_that_hangs_or_is_killed_costs_no_answer() {
    let Some(services) = Services::find() else { return };
    let moved = Moved::new(&services);
    let nodes = &moved.cluster.nodes;
    let (hangs, heir) = moved.cluster.pairs()[0];
    moved.loses_nothing("a master hangs", || nodes[hangs].signal("STOP"));
    until("a new master", || nodes[heir].info("role") == "master");
    nodes[hangs].signal("CONT");
    until("the former master's return", || nodes[hangs].info("role") == "slave");
    moved.cluster.wait_until_whole();

    let pairs = moved.cluster.pairs();
    let (dies, heir) = *pairs.iter().find(|(master, _)| *master != heir).unwrap();
    moved.loses_nothing("a master is killed", || nodes[dies].signal("KILL"));
    until("a new master", || nodes[heir].info("role") == "master");
    moved.loses_nothing("its replica is the master", || ());
}

#[test]
fn what_a_master_and_its_replica_had_is_computed_again() {
    let Some(services) = Services::find() else { return };
    let moved = Moved::new(&services);
    let (master, replica) = moved.cluster.pairs()[0];
    let after = moved.ask("a master and its replica are killed", || {
        [replica, master].iter().for_each(|node| moved.cluster.nodes[*node].signal("KILL"));
    });
    assert_eq!(after.code, DEGRADED, "{}", after.stderr);
    after.says(&["computed again"]);
    assert_eq!(hits(&after), hits(&moved.before));
    let recomputed = |answer: &Value| answer["stats"]["blocks_recomputed"].as_u64().unwrap();
    let recomputed: Vec<_> = after.json().iter().map(recomputed).collect();
    // The other two thirds go on to come from their nodes.
    let read = |answer: &Value| answer["stats"]["blocks_read"].as_u64().unwrap() > 0;
    assert!(recomputed.iter().any(|blocks| *blocks > 0));
    assert!(after.json()[QUERIES / 2..].iter().any(read));
}
