//! The retriever's score beside the model's, chunks into documents, and stores of candidates only.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::support::{FAILED, Scratch, USAGE, testdata};

/// Returns query, document, model's score, retriever's score and final score, best first.
fn hits(scratch: &Scratch, options: &str) -> Vec<(String, f64, f64, f64)> {
    let line =
        format!("query --store store TINY --queries QUERIES --depth 8 -k 8 --json {options}");
    let number = |hit: &Value, key: &str| hit[key].as_f64().unwrap();
    let of = |answer: Value| {
        let query = answer["query_id"].as_str().unwrap().to_owned();
        let hit = |hit: &Value| {
            let id = format!("{query} {}", hit["id"].as_str().unwrap());
            (id, number(hit, "model_score"), number(hit, "retriever_score"), number(hit, "score"))
        };
        answer["hits"].as_array().unwrap().iter().map(hit).collect::<Vec<_>>()
    };
    scratch.ok(&line).json().into_iter().flat_map(of).collect()
}

#[test]
fn scores_are_fused() {
    let scratch = Scratch::new();
    scratch.ok("build CORPUS --store store TINY");
    let alone = hits(&scratch, "--fuse none");
    assert!(alone.len() > 20 && alone.iter().all(|(_, model, _, score)| model == score));
    let by_model: BTreeSet<_> = alone.iter().map(|(id, ..)| id.clone()).collect();
    for options in ["--fuse zscore", "--fuse rrf", "--fuse zscore --fuse-weight 0"] {
        let fused = hits(&scratch, options);
        assert_eq!(fused.iter().map(|(id, ..)| id.clone()).collect::<BTreeSet<_>>(), by_model);
        assert!(fused.windows(2).all(|pair| {
            let same_query = pair[0].0.split(' ').next() == pair[1].0.split(' ').next();
            !same_query || pair[0].3 >= pair[1].3
        }));
        assert_ne!(fused, alone, "{options}");
    }
    assert_eq!(
        hits(&scratch, ""),
        hits(&scratch, "--fuse zscore --fuse-weight 0.6"),
        "the default"
    );
    // With all weight on one side, the order is that side's.
    let order = |hits: &[(String, f64, f64, f64)]| -> Vec<String> {
        hits.iter().map(|(id, ..)| id.clone()).collect()
    };
    assert_eq!(order(&hits(&scratch, "--fuse zscore --fuse-weight 1")), order(&alone));
    let bm25 = hits(&scratch, "--fuse zscore --fuse-weight 0");
    assert!(bm25.windows(2).all(|pair| {
        pair[0].0.split(' ').next() != pair[1].0.split(' ').next() || pair[0].2 >= pair[1].2
    }));
    for wrong in ["1.5", "-0.1", "NaN", "x"] {
        let line = format!("query --store store TINY bees --fuse zscore --fuse-weight={wrong}");
        let outcome = scratch.run(&line);
        assert_eq!(outcome.code, USAGE);
        outcome.says(&["a number from 0 to 1"]);
    }
}

#[test]
fn a_weight_is_tuned() {
    let scratch = Scratch::new();
    scratch.ok("build CORPUS --store store TINY");
    let line = "query --store store TINY --queries QUERIES --depth 8 -k 8 --json";
    scratch.write("hits", scratch.ok(line).stdout);
    let qrels = testdata("qrels.tsv");
    let tuned = scratch.ok(&format!("tune --hits hits --qrels {qrels} --json")).json().remove(0);
    let number = |value: &Value| value.as_f64().unwrap();
    let (weight, curve) = (number(&tuned["weight"]), tuned["curve"].as_array().unwrap());
    let best = curve.iter().map(|point| number(&point[1])).fold(0.0, f64::max);
    let chosen = curve.iter().find(|point| number(&point[0]) == weight).unwrap();
    assert_eq!(number(&chosen[1]), best);
    assert!(number(&tuned["held_out"]["mean"]) <= best + 1e-9);
    // The promised value is the one that eval finds for the query's run.
    let trec = line.replace("--json", "--format trec --fuse zscore");
    scratch.write("run", scratch.ok(&format!("{trec} --fuse-weight {weight}")).stdout);
    let eval = format!("eval --run run --qrels {qrels} --measure nDCG@10 --json");
    let found = scratch.ok(&eval).json().remove(0);
    assert!((number(&found["metrics"]["nDCG@10"]["mean"]) - best).abs() < 1e-6);
    assert!(
        scratch.ok(&format!("tune --hits hits --qrels {qrels}")).stdout.contains("use\t--fuse")
    );
    scratch.write("hits", "{\"query_id\": \"q01\", \"hits\": [{\"id\": \"a\"}]}\n");
    let outcome = scratch.run(&format!("tune --hits hits --qrels {qrels}"));
    assert_eq!(outcome.code, FAILED);
    outcome.says(&["hits:1", "model_score"]);
}

#[test]
fn chunks_come_to_a_document_in_three_ways() {
    let scratch = Scratch::new();
    scratch.ok("build CORPUS --store store TINY");
    let best = hits(&scratch, "--aggregate max");
    let score = |hits: &[(String, f64, f64, f64)], id: &str| {
        hits.iter().find(|hit| hit.0 == id).map(|hit| hit.1)
    };
    let mut less = 0;
    for aggregate in ["mean", "first"] {
        let other = hits(&scratch, &format!("--aggregate {aggregate}"));
        for (id, model, ..) in &best {
            let other = score(&other, id).unwrap();
            assert!(other <= *model, "{aggregate} {id}");
            less += usize::from(other < *model);
        }
    }
    assert!(less > 0, "some document has several chunks");
}

#[test]
fn a_store_may_hold_candidates_only() {
    let scratch = Scratch::new();
    scratch.ok("build CORPUS --store store TINY");
    let query = "TINY --queries QUERIES --depth 4 -k 4 --format trec --fuse none";
    let run = scratch.ok(&format!("query --store store {query}")).stdout;
    scratch.write("run", &run);
    let summary = scratch.ok("build CORPUS --store few TINY --only run --json").json().remove(0);
    let named: BTreeSet<&str> = run.lines().filter_map(|line| line.split(' ').nth(2)).collect();
    assert_eq!(summary["documents"], named.len());
    // Another run cannot continue it, the same one can.
    scratch.ok("build CORPUS --store few TINY --only run");
    assert_eq!(scratch.run("build CORPUS --store few TINY").code, FAILED);
    let again = scratch.ok(&format!("query --store few {query} --candidates run")).stdout;
    assert_eq!(again, run, "the same scores from a store of few");
    scratch.write("more.run", format!("{run}q01 Q0 nowhere 9 0.5 t\n"));
    scratch.ok("build CORPUS --store more TINY --only more.run").says(&["1 document of the run"]);
    let outcome = scratch.run("build CORPUS --store none TINY --only none");
    assert_eq!(outcome.code, FAILED);
    outcome.says(&["none", "cannot be opened"]);
    scratch.write("other.run", "q01 Q0 nowhere 1 0.5 t\nq01 Q0 elsewhere 2 0.4 t\n");
    for more in ["", " --dry-run", " --kv-dtype int4"] {
        let line = format!("build CORPUS --store none TINY --only other.run{more}");
        let named = ["other.run: the run names no document of the input: its first is \"nowhere\""];
        let outcome = scratch.ends(FAILED, &line);
        outcome.says(&named);
        outcome.says(&["the input's first is \"p001\""]);
    }
    scratch.write("empty.run", "");
    let outcome = scratch.ends(FAILED, "build CORPUS --store none TINY --only empty.run");
    outcome.says(&["empty.run: the run names no document"]);
    fs::metadata(scratch.path("none")).expect_err("nothing was written");
}
