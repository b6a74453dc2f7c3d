//! A hundred answers from places alone, compared byte by byte with those of the store.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::cluster::Cluster;
use super::{BUCKET, Services};
use crate::support::{Outcome, Scratch, all_files, jsonl, passages};

/// Makes a store of 160 documents in ten shards, and a file of queries.
pub(super) fn stored(queries: usize) -> Scratch {
    let scratch = Scratch::new();
    scratch.write("corpus.jsonl", jsonl(&passages()));
    scratch.write("asked.jsonl", jsonl(&queries_of(queries)));
    scratch.ok("build corpus.jsonl --store store TINY --unit-rows 16");
    scratch
}

/// Makes queries of words of the passages; no two are equal.
fn queries_of(count: usize) -> Vec<Value> {
    let passages = passages();
    let text = |n: usize| {
        let words: Vec<_> =
            passages[n % passages.len()]["text"].as_str().unwrap().split(' ').collect();
        let start = n / passages.len() * 3;
        let some: Vec<_> = words.into_iter().cycle().skip(start).take(6).collect();
        format!("{} {n}", some.join(" "))
    };
    (0..count).map(|n| json!({"_id": format!("q{n:04}"), "text": text(n)})).collect()
}

/// Returns the texts of the answers, byte by byte, without times and without the work of tiers.
pub(super) fn told(outcome: &Outcome) -> Vec<String> {
    type Fields = BTreeMap<String, Box<RawValue>>;
    let told = |line: &str| {
        let mut answer: Fields = serde_json::from_str(line).unwrap();
        let mut stats: Fields =
            serde_json::from_str(answer.remove("stats").unwrap().get()).unwrap();
        stats.retain(|name, _| !name.ends_with("_seconds") && name != "tiers" && name != "plan");
        format!("{}{}", json!(answer), json!(stats))
    };
    outcome.stdout.lines().map(told).collect()
}

/// Removes the shards of the store.
pub(super) fn remove_shards(scratch: &Scratch) {
    let shards = all_files(&scratch.path("store/shards"));
    assert!(shards.len() > 5);
    shards.iter().for_each(|shard| fs::remove_file(shard).unwrap());
}

#[test]
fn a_hundred_answers_are_the_same_from_every_place_alone() {
    let Some(services) = Services::find() else { return };
    let cluster = Cluster::start(&services, Duration::from_secs(30));
    let weed = services.weed();
    let scratch = stored(100);
    let query = "TINY --json --queries asked.jsonl --depth 12";
    let before = told(&scratch.ok(&format!("query --store store {query}")));
    assert_eq!(before.len(), 100);

    let environment = weed.environment();
    let run = |scratch: &Scratch, line: &str| {
        let mut command = scratch.command(line);
        command.envs(environment.iter().map(|(name, value)| (*name, value.as_str())));
        let outcome = scratch.check(line, command.output().unwrap());
        assert_eq!(outcome.code, 0, "{line}: {}", outcome.stderr);
        outcome
    };
    let places = [cluster.url("copies=1&timeout=30s"), format!("s3://{BUCKET}/hundred")];
    for place in &places {
        let sent = run(&scratch, &format!("export --store store --to {place} --json")).json();
        assert_eq!(sent[0]["shards_sent"], sent[0]["shards"]);
        // A document has one chunk or more.
        assert!(sent[0]["blocks_sent"].as_u64().unwrap() >= passages().len() as u64);
    }
    remove_shards(&scratch);
    for place in &places {
        let line = format!("query --store store {query} --plan load --tiers {place}");
        assert_eq!(told(&run(&scratch, &line)), before, "{place}");
    }
    // Machines with nothing but their model and the queries; one that has fetched asks again.
    for place in &places {
        let other = Scratch::new();
        fs::copy(scratch.path("asked.jsonl"), other.path("asked.jsonl")).unwrap();
        for _ in 0..2 {
            let found = run(&other, &format!("query --store {place} {query} --plan load"));
            assert_eq!(told(&found), before, "{place}");
        }
    }
}

/// Returns ranks and scores of every query, and the sum of a field of their stats.
fn hits_and(outcome: &Outcome, field: &str) -> (Vec<Value>, u64) {
    let answers = outcome.json();
    let sum = answers.iter().map(|answer| answer["stats"][field].as_u64().unwrap()).sum();
    (answers.into_iter().map(|mut answer| answer["hits"].take()).collect(), sum)
}

#[test]
fn every_plan_gives_the_same_hits_from_a_far_place() {
    let Some(services) = Services::find() else { return };
    let server = services.redis();
    let scratch = stored(40);
    let query = "query --store store TINY --json --queries asked.jsonl --depth 30";
    let (before, read) = hits_and(&scratch.ok(query), "blocks_read");
    let place = format!("redis://127.0.0.1:{}?timeout=30s", server.port);
    scratch.ok(&format!("export --store store --to {place}"));
    remove_shards(&scratch);
    for plan in ["load", "auto", "recompute"] {
        let found = scratch.ok(&format!("{query} --tiers {place} --plan {plan} --explain"));
        let (hits, computed) = hits_and(&found, "blocks_computed");
        let (_, loaded) = hits_and(&found, "blocks_read");
        assert_eq!(hits, before, "{plan}");
        match plan {
            "load" => assert_eq!((loaded, computed), (read, 0)),
            // A server on this machine is fast: few blocks or none are computed.
            "auto" => {
                assert_eq!(loaded + computed, read);
                found.says(&["plan: ", "computed in the stead of loading"]);
                let last = found.json().pop().unwrap();
                let share = &last["stats"]["plan"][0];
                let count = |name: &str| share[name].as_u64().unwrap();
                assert_eq!((count("loaded"), count("computed")), (loaded, computed));
                assert!(share["tier"].as_str().unwrap().starts_with("redis://"), "{share}");
                assert!(share["bytes_per_second"].as_f64().unwrap() > 0.0, "{share}");
                assert!(share["reason"].as_str().unwrap().len() > 10, "{share}");
            }
            _ => assert_eq!((loaded, computed), (0, 0)),
        }
    }
    // What is lost is computed too, and told.
    drop(server);
    let line = format!("{query} --tiers {place} --plan auto");
    let lost = scratch.check(&line, scratch.command(&line).output().unwrap());
    assert_eq!(lost.code, crate::support::DEGRADED, "{}", lost.stderr);
    assert_eq!(hits_and(&lost, "blocks_read").0, before);
}
