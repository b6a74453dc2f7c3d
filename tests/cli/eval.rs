//! Measures against `ir_measures`, comparison of runs, and answers.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::seeded::Seeded;
use crate::support::{DONE, FAILED, Outcome, Scratch, USAGE};

const MEASURES: [&str; 13] = [
    "nDCG",
    "nDCG@3",
    "nDCG@10",
    "AP",
    "AP@5",
    "RR",
    "RR@2",
    "RR@10",
    "R@5",
    "R@100",
    "P@5",
    "P@30",
    "Success@2",
];

/// Writes judgements and a run, with graded and negative judgements, queries without a relevant
/// document, queries that only one of the two files has, ties, and documents that nobody judged.
fn write_seeded(scratch: &Scratch, seed: u64) {
    let mut random = Seeded(seed);
    let (mut qrels, mut run) = (String::new(), String::new());
    for query in 0..40 {
        let highest = if query % 7 == 0 { 0 } else { 3 };
        for document in 0..30 {
            if query != 5 && random.below(3) == 0 {
                let grade = random.below(5) as i64 - 1;
                writeln!(qrels, "q{query} 0 d{document} {}", grade.min(highest)).unwrap();
            }
            if query % 11 != 3 && random.below(4) > 0 {
                // Few different scores, some of which are equal in single precision only.
                let score = random.below(6) as f64 + random.below(2) as f64 * 1e-9;
                writeln!(run, "q{query} Q0 d{document} 1 {score:.10} test").unwrap();
            }
        }
    }
    scratch.write("qrels", qrels);
    scratch.write("run", run);
}

#[track_caller]
fn run(scratch: &Scratch, line: &str, code: i32) -> Outcome {
    let outcome = scratch.run(line);
    assert_eq!(outcome.code, code, "{line}: {}", outcome.stderr);
    outcome
}

/// Returns the measures of `ir_measures`.
fn reference(scratch: &Scratch) -> Value {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/python/bin/python");
    assert!(python.exists(), "there is no {}: `make python` installs it", python.display());
    let mut command = Command::new(python);
    command.arg(root.join("scripts/measures.py"));
    command.args([scratch.path("qrels"), scratch.path("run")]).args(MEASURES);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn measures_are_those_of_ir_measures() {
    for seed in 0..3 {
        let scratch = Scratch::new();
        write_seeded(&scratch, seed);
        let line = format!("eval --run run --qrels qrels --measure {} --json", MEASURES.join(","));
        let own = run(&scratch, &line, DONE).json().remove(0);
        let reference = reference(&scratch);
        let close = |own: &Value, other: &Value, what: &str| {
            let (own, other) = (own.as_f64().unwrap(), other.as_f64().unwrap());
            assert!((own - other).abs() <= 1e-6, "seed {seed}, {what}: {own}, not {other}");
        };
        for name in MEASURES {
            close(&own["metrics"][name]["mean"], &reference["means"][name], name);
        }
        let queries = reference["per_query"].as_object().unwrap();
        assert_eq!(own["per_query"].as_object().unwrap().len(), queries.len());
        for (query, values) in queries {
            for (name, value) in values.as_object().unwrap() {
                close(&own["per_query"][query][name], value, &format!("{query} {name}"));
            }
        }
        assert!(own["missing_queries"].as_u64().unwrap() > 0);
        assert_eq!(own["unjudged_queries"], 1);
    }
}

#[test]
fn runs_are_compared() {
    let scratch = Scratch::new();
    let (mut qrels, mut good, mut bad) = (String::new(), String::new(), String::new());
    for query in 0..30 {
        writeln!(qrels, "q{query}\ta\t1").unwrap();
        writeln!(good, "q{query} Q0 a 1 2 t\nq{query} Q0 b 2 1 t").unwrap();
        writeln!(bad, "q{query} Q0 b 1 2 t\nq{query} Q0 a 2 1 t").unwrap();
    }
    scratch.write("qrels.tsv", format!("query-id\tcorpus-id\tscore\n{qrels}"));
    scratch.write("good", good);
    scratch.write("bad", bad);
    let line = "eval --run good --baseline bad --qrels qrels.tsv --measure RR,P@1 --svg gains.svg";
    let compared = run(&scratch, &format!("{line} --json"), DONE).json().remove(0);
    let difference = &compared["comparison"]["RR"];
    assert_eq!((difference["mean"].as_f64(), difference["wins"].as_u64()), (Some(0.5), Some(30)));
    assert!(difference["p"].as_f64().unwrap() < 0.001);
    assert!(fs::read_to_string(scratch.path("gains.svg")).unwrap().contains("RR against"));
    let table = run(&scratch, &format!("{line} --per-query"), DONE).stdout;
    assert!(table.contains("+0.5000") && table.contains("q29\tP@1\t1.0000"), "{table}");
    let same = run(&scratch, "eval --run bad --baseline bad --qrels qrels.tsv --json", DONE).json();
    assert_eq!(same[0]["comparison"]["nDCG@10"]["p"], 1.0);
}

#[test]
fn what_is_wrong_is_named() {
    let scratch = Scratch::new();
    scratch.write("qrels", "q1 0 a 1\n");
    scratch.write("run", "q1 Q0 a b 1 1 t\n");
    run(&scratch, "eval --run run --qrels qrels", FAILED).says(&["run:1: 7 fields"]);
    run(&scratch, "eval --run run --qrels none", FAILED).says(&["none", "cannot be opened"]);
    run(&scratch, "eval --run run", USAGE).says(&["--qrels"]);
    let line = "eval --run run --qrels qrels --measure ndcg@10";
    run(&scratch, line, USAGE).says(&["is no measure", "nDCG@10"]);
}

#[test]
fn answers_are_evaluated() {
    let scratch = Scratch::new();
    let gold = "{\"_id\": \"a\", \"question\": \"?\", \"answers\": [\"The Tower\", \"Paris\"]}\n\
                {\"_id\": \"b\", \"answers\": [\"red house\"]}\n{\"_id\": 3, \"answers\": [\"x\"]}\n";
    scratch.write("gold", gold);
    scratch.write(
        "answers",
        "{\"query_id\": \"a\", \"answer\": \"tower.\"}\n{\"_id\": \"b\", \"answer\": \"a house\"}\n",
    );
    let line = "eval qa --answers answers --gold gold";
    let outcome = run(&scratch, &format!("{line} --json"), DONE);
    outcome.says(&["1 questions have no answer"]);
    let found = outcome.json().remove(0);
    assert_eq!(found["metrics"]["EM"].as_f64().unwrap(), 1.0 / 3.0);
    assert_eq!(found["per_query"]["b"]["F1"].as_f64().unwrap(), 2.0 / 3.0);
    assert!(run(&scratch, line, DONE).stdout.contains("questions\t3\n"));
    scratch.write("answers", "{\"query_id\": \"a\"}\n");
    run(&scratch, line, FAILED).says(&["answers:1", "`answer`"]);
    scratch.write("answers", "[1]\n");
    run(&scratch, line, FAILED).says(&["answers:1", "not a JSON object"]);
}

#[test]
fn questions_without_an_id_are_matched_by_their_text() {
    let scratch = Scratch::new();
    let gold = "{\"question\": \"Who?\", \"answers\": [\"Ada\"]}\n{\"question\": \"Why?\", \"answers\": [\"x\"]}\n";
    scratch.write("gold", gold);
    scratch.write(
        "answers",
        "{\"query_id\": \"1\", \"query\": \"Who?\", \"answer\": \"Ada.\"}\n{\"query\": \"When?\", \"answer\": \"x\"}\n",
    );
    let line = "eval qa --answers answers --gold gold";
    let outcome = run(&scratch, &format!("{line} --json"), DONE);
    outcome.says(&["1 questions have no answer", "1 answers belong to no question"]);
    let found = outcome.json().remove(0);
    assert_eq!(found["per_query"]["Who?"]["EM"], 1.0);
    assert_eq!(found["per_query"]["Why?"]["F1"], 0.0);
    let twice = "{\"query_id\": \"1\", \"query\": \"Who?\", \"answer\": \"Ada\"}\n\
                 {\"query_id\": \"2\", \"query\": \"Who?\", \"answer\": \"Bob\"}\n";
    scratch.write("answers", twice);
    run(&scratch, line, FAILED).says(&["gold:1", "two answers to \"Who?\" differ"]);
    scratch.write("answers", "{\"answer\": \"x\"}\n");
    run(&scratch, line, FAILED).says(&["answers:1", "neither `query_id` nor `query`"]);
}
