//! Exports to a cluster whose replicas fall behind or are gone.

use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::cluster::Cluster;
use super::places::stored;
use super::{Server, Services, until};
use crate::support::{DONE, FAILED, Outcome, Scratch};

/// Silence after which the cluster replaces a master: longer than any export.
const SILENCE: Duration = Duration::from_secs(60);

fn line(to: &str) -> String {
    format!("export --store store --to {to} --jobs 1")
}

fn keys(node: &Server) -> u64 {
    node.cli(&["DBSIZE"]).trim().parse().unwrap_or(0)
}

/// Starts exports, each to a place of its own, until one is under way when its replica stops. Returns it with its
/// place.
fn held_up(scratch: &Scratch, cluster: &Cluster, name: &str) -> (Child, String) {
    let (master, replica) = cluster.pairs()[0];
    let (master, replica) = (&cluster.nodes[master], &cluster.nodes[replica]);
    for attempt in 0..20 {
        let to = cluster.url(&format!("copies=1&prefix={name}{attempt}"));
        let before = keys(master);
        let mut child = scratch.spawn(&line(&to));
        until("the first block", || keys(master) > before || child.try_wait().unwrap().is_some());
        replica.signal("STOP");
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(1) && child.try_wait().unwrap().is_none() {
            sleep(Duration::from_millis(10));
        }
        if child.try_wait().unwrap().is_none() {
            return (child, to);
        }
        replica.signal("CONT");
    }
    panic!("every export was over before its replica stopped");
}

fn ended(scratch: &Scratch, child: Child, code: i32, to: &str) -> Outcome {
    let outcome = scratch.check(&line(to), child.wait_with_output().unwrap());
    assert_eq!(outcome.code, code, "{to}: {}", outcome.stderr);
    outcome
}

#[test]
fn an_export_waits_for_a_replica_and_goes_on_after_one_that_hung_too_long() {
    let Some(services) = Services::find() else { return };
    let cluster = Cluster::start(&services, SILENCE);
    let scratch = stored(1);
    let (_, replica) = cluster.pairs()[0];

    let (child, to) = held_up(&scratch, &cluster, "short");
    cluster.nodes[replica].signal("CONT");
    ended(&scratch, child, DONE, &to);
    scratch.ok(&format!("verify --store store --tier {to}"));

    let (child, to) = held_up(&scratch, &cluster, "long");
    ended(&scratch, child, FAILED, &to).says(&["0 replicas that confirm", "ask for fewer copies"]);
    cluster.nodes[replica].signal("CONT");
    cluster.wait_until_whole();
    scratch.ok(&line(&to));
    scratch.ok(&format!("verify --store store --tier {to}"));
}

#[test]
fn an_export_does_not_begin_without_the_copies_that_are_asked_for() {
    let Some(services) = Services::find() else { return };
    let cluster = Cluster::start(&services, SILENCE);
    let scratch = stored(1);
    let (_, replica) = cluster.pairs()[0];
    let to = cluster.url("copies=2&timeout=1s");
    scratch.ends(FAILED, &line(&to)).says(&["has 1 replicas that follow it, not 2"]);
    cluster.nodes[replica].signal("KILL");
    let to = cluster.url("copies=1&timeout=1s");
    let refused = scratch.ends(FAILED, &line(&to));
    refused.says(&["follow", "wait until", "copies"]);
    let left = cluster.nodes.iter().enumerate().filter(|(n, _)| *n != replica);
    assert_eq!(left.map(|(_, node)| keys(node)).sum::<u64>(), 0, "something was written");
    // Who asks for no copies is not held up.
    let to = cluster.url("timeout=30s");
    scratch.ok(&line(&to));
    scratch.ok(&format!("verify --store store --tier {to}"));
}
