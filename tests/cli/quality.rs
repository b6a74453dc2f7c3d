//! `bench quality`: the cost of element types in a ranking, and the equality of its scores with those
//! of stores.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use crate::support::{FAILED, Outcome, Scratch, USAGE, testdata};

const VARIANTS: [&str; 6] =
    ["f32/f32", "bf16/f32", "int8/f32", "int5/f32", "int4/f32", "bf16/bf16"];

fn bench(scratch: &Scratch, options: &str) -> Outcome {
    let qrels = testdata("qrels.tsv");
    scratch.ok(&format!("bench quality CORPUS TINY --queries QUERIES --qrels {qrels} {options}"))
}

/// Returns the bits of the model's score of every pair in the output of `query --json`.
fn model_scores(text: &str) -> BTreeMap<(String, String), u32> {
    let mut scores = BTreeMap::new();
    for line in text.lines() {
        let answer: Value = serde_json::from_str(line).unwrap();
        for hit in answer["hits"].as_array().unwrap() {
            let name = |value: &Value| value.as_str().unwrap().to_owned();
            let score = hit["model_score"].as_f64().unwrap() as f32;
            scores.insert((name(&answer["query_id"]), name(&hit["id"])), score.to_bits());
        }
    }
    scores
}

fn written(scratch: &Scratch, name: &str) -> BTreeMap<(String, String), u32> {
    model_scores(&fs::read_to_string(scratch.path(name)).unwrap())
}

#[test]
fn its_scores_are_those_of_stores() {
    let scratch = Scratch::new();
    let chunks = "--chunk-tokens 160 --profile plain";
    bench(&scratch, &format!("--depth 12 --runs-dir runs {chunks}"));
    for variant in VARIANTS {
        let (kv_dtype, dtype) = variant.split_once('/').unwrap();
        let store = format!("store-{kv_dtype}-{dtype}");
        scratch.ok(&format!(
            "build CORPUS --store {store} TINY --kv-dtype {kv_dtype} --dtype {dtype} {chunks}"
        ));
        let query = format!(
            "query --store {store} TINY --profile plain --queries QUERIES --depth 12 -k 12 --json"
        );
        // From stored blocks, with BM25 of the store and with the run that the bench wrote.
        let stored = model_scores(&scratch.ok(&query).stdout);
        let file = format!("runs/{}.jsonl", variant.replace('/', "-"));
        let found = written(&scratch, &file);
        assert!(found.len() > 100, "{variant}: {}", found.len());
        assert_eq!(found, stored, "{variant}");
        let listed = scratch.ok(&format!("{query} --candidates runs/retriever.run"));
        assert_eq!(found, model_scores(&listed.stdout), "{variant}");
    }
    // The other way round: the same candidates from a run.
    let options = format!("--depth 12 --variants int8 --dtype f32 --runs-dir again {chunks}");
    bench(&scratch, &format!("{options} --candidates runs/retriever.run"));
    assert_eq!(written(&scratch, "again/int8.jsonl"), written(&scratch, "runs/int8-f32.jsonl"));
    let lines = |name: &str| fs::read_to_string(scratch.path(name)).unwrap();
    assert_eq!(lines("again/int8.run"), lines("runs/int8-f32.run").replace("int8-f32", "int8"));
}

#[test]
fn its_figures_are_those_of_eval_and_tune() {
    let scratch = Scratch::new();
    let options = "--depth 8 --variants f32,int4 --runs-dir runs --recompute-queries 3 --json";
    let report = bench(&scratch, options).json().remove(0);
    let rows = report["rows"].as_array().unwrap();
    let row = |variant: &str, how: &str| {
        rows.iter().find(|row| row["variant"] == variant && row["how"] == how).unwrap()
    };
    assert_eq!(rows.len(), 7);
    let qrels = testdata("qrels.tsv");
    for (variant, how, run) in
        [("", "retriever", "retriever"), ("f32", "alone", "f32"), ("int4", "alone", "int4")]
    {
        let eval = format!("eval --run runs/{run}.run --qrels {qrels} --measure nDCG@10 --json");
        let eval = scratch.ok(&eval).json().remove(0);
        assert_eq!(row(variant, how)["mean"], eval["metrics"]["nDCG@10"]["mean"], "{run}");
    }
    let tune = format!("tune --hits runs/int4.jsonl --qrels {qrels} --json");
    let tuned = scratch.ok(&tune).json().remove(0);
    assert_eq!(row("int4", "tuned")["mean"], tuned["held_out"]["mean"]);
    let compare = format!(
        "eval --run runs/int4.run --baseline runs/f32.run --qrels {qrels} --measure nDCG@10 --json"
    );
    let compared = scratch.ok(&compare).json().remove(0);
    let mut difference = compared["comparison"]["nDCG@10"].clone();
    assert_eq!(difference.as_object_mut().unwrap().remove("p_holm"), Some(difference["p"].clone()));
    assert_eq!(row("int4", "alone")["against_reference"], difference);
    assert!(row("f32", "alone")["against_reference"].is_null());
    for variant in report["variants"].as_array().unwrap() {
        let recomputed = &variant["recomputed"];
        assert_eq!(recomputed["queries"], 3);
        assert!(recomputed["scores"].as_u64().unwrap() >= 24);
        assert_eq!(recomputed["scores"], recomputed["equal"]);
    }
    let agreement = &row("int4", "alone")["agreement"];
    assert!(agreement["kendall_tau"]["mean"].as_f64().unwrap() > 0.5);
    assert!(agreement["score_difference_max"].as_f64().unwrap() > 0.0);
    let table = bench(&scratch, &options.replace("--json", "--out figures.json")).stdout;
    for part in [
        "ranking\tnDCG@10\tless f32, 95 %\t",
        "\nBM25\t",
        "\nint4, fused, w = 0.6\t",
        "\nrecompute, 3 queries, each variant\t",
        "scores have the same bits",
    ] {
        assert!(table.contains(part), "{part:?} is not in {table}");
    }
    let file: Value =
        serde_json::from_slice(&fs::read(scratch.path("figures.json")).unwrap()).unwrap();
    assert_eq!(file["rows"], report["rows"]);
}

#[test]
fn quality_is_charted_against_its_cost() {
    let scratch = Scratch::new();
    let options =
        "--depth 12 --variants f32,int8@160,f32@160 --svg chart.svg --recompute-queries 1";
    let report = bench(&scratch, &format!("{options} --json --runs-dir runs")).json().remove(0);
    let number = |value: &Value, key: &str| value[key].as_f64().unwrap();
    let costs = report["costs"].as_array().unwrap();
    let point = |variant: &str, depth: u64| {
        costs.iter().find(|point| point["variant"] == variant && point["depth"] == depth).unwrap()
    };
    assert_eq!(costs.len(), 9, "three depths of three variants");
    for variant in ["f32", "int8@160", "f32@160"] {
        let row = report["rows"].as_array().unwrap().iter();
        let mut fused = row.filter(|row| row["variant"] == variant && row["how"] == "fused");
        assert_eq!(point(variant, 12)["mean"], fused.next().unwrap()["mean"], "{variant}");
        let speed = |depth| number(point(variant, depth), "queries_per_second");
        assert!(speed(5) > speed(10) && speed(10) > speed(12));
    }
    let bytes = |variant| number(point(variant, 12), "bytes_a_document");
    assert!(bytes("int8@160") * 2.0 < bytes("f32@160"));
    assert!(bytes("f32") < bytes("f32@160"), "short chunks repeat the profile's words");
    let best = costs.iter().map(|point| number(point, "mean")).fold(0.0, f64::max);
    assert!(number(&report["knee"], "mean") >= best - 0.005);
    let svg = fs::read_to_string(scratch.path("chart.svg")).unwrap();
    for part in ["<svg", "bytes a document", "int8@160, depth 5", "○ knee"] {
        assert!(svg.contains(part), "{part}");
    }
    assert_eq!(
        written(&scratch, "runs/f32-160.jsonl").len(),
        written(&scratch, "runs/f32.jsonl").len()
    );
}

#[test]
fn rounding_after_one_prefill_is_near() {
    let scratch = Scratch::new();
    let options = "--depth 8 --chunk-tokens 160 --recompute-queries 2";
    bench(&scratch, &format!("{options} --runs-dir own"));
    let rounded = bench(&scratch, &format!("{options} --runs-dir rounded --round --json"));
    assert_eq!(rounded.json()[0]["rounded"], true);
    let scores =
        |folder: &str, variant: &str| written(&scratch, &format!("{folder}/{variant}.jsonl"));
    // Unrounded scores are the same.
    assert_eq!(scores("own", "f32-f32"), scores("rounded", "f32-f32"));
    for variant in ["bf16-f32", "int8-f32", "int5-f32", "int4-f32", "bf16-bf16"] {
        let (own, rounded) = (scores("own", variant), scores("rounded", variant));
        assert_ne!(rounded, scores("own", "f32-f32"), "{variant} is rounded");
        let pairs = own.values().zip(rounded.values());
        let difference = |(a, b): (&u32, &u32)| (f32::from_bits(*a) - f32::from_bits(*b)).abs();
        let largest = pairs.map(difference).fold(0.0, f32::max);
        // A CPU that multiplies bf16 rounds K and V for that, whatever their stored type is.
        assert!(largest > 0.0 || variant == "bf16-bf16", "{variant} is no other block");
        assert!(largest < 0.3, "{variant}: {largest}");
    }
}

#[test]
fn a_seed_draws_the_queries() {
    let scratch = Scratch::new();
    let drawn = |seed: u32| {
        let options = "--depth 3 --variants f32 --query-count 4 --recompute-queries 0 --json";
        let report = bench(&scratch, &format!("{options} --seed {seed}")).json().remove(0);
        assert_eq!(report["queries"], 4);
        let ids = report["rows"][0]["per_query"].as_object().unwrap().keys().cloned();
        ids.collect::<Vec<_>>()
    };
    assert_eq!(drawn(1), drawn(1));
    assert_ne!(drawn(1), drawn(2));
}

#[test]
fn wrong_input_is_told() {
    let scratch = Scratch::new();
    let qrels = testdata("qrels.tsv");
    let line = format!("bench quality CORPUS TINY --queries QUERIES --qrels {qrels}");
    scratch.write("other.tsv", "nobody 0 x 1\n");
    let unjudged = "bench quality CORPUS TINY --queries QUERIES --qrels other.tsv";
    scratch.ends(FAILED, unjudged).says(&["other.tsv", "judges none of the queries"]);
    scratch.write("some.tsv", "q01 0 bees 1\nnobody 0 x 1\n");
    let some =
        "bench quality CORPUS TINY --queries QUERIES --qrels some.tsv --variants f32 --depth 2";
    scratch.ok(some).says(&["39 queries are not judged", "1 judged queries are not among"]);
    scratch.write("run", "q01 Q0 nowhere 1 2.0 x\n");
    let listed = format!("{line} --candidates run");
    scratch.ends(FAILED, &listed).says(&["query q01", "the input has no document \"nowhere\""]);
    scratch.write("run", "other Q0 nowhere 1 2.0 x\n");
    scratch.ends(FAILED, &listed).says(&["no query has a candidate"]);
    let variant = scratch.run(&format!("{line} --variants f32,int3"));
    assert_eq!(variant.code, USAGE);
    variant.says(&["int3", "use bf16, f32, int8, int5 or int4"]);
    scratch.ends(FAILED, &format!("{line} --variants f32/f16")).says(&["f16 on a CPU"]);
    scratch.write("empty.tsv", "q01\t \nq02\tbees\n");
    let empty = format!("bench quality CORPUS TINY --queries empty.tsv --qrels {qrels}");
    scratch.ends(FAILED, &empty).says(&["query q01", "the query is empty"]);
    // `bench` alone still needs its store, and the settings file reaches the subcommand.
    assert_eq!(scratch.run("bench").code, USAGE);
    scratch.write("hyperrag.toml", "[bench]\ndepth = 3\nvariants = 'int8'\n");
    let config = scratch.ok(&format!("{line} --print-config")).stdout;
    assert!(config.contains("depth = 3") && config.contains("variants = \"int8\""), "{config}");
}
