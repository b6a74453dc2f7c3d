//! Runs: candidates by their scores, one order everywhere, ids, and documents that are missing.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{
    DEGRADED, DONE, FAILED, Scratch, USAGE, copy_folder, jsonl, passages, testdata,
};

/// A store of four passages and of twelve with one text, whose scores are equal.
fn built() -> Scratch {
    let scratch = Scratch::new();
    let mut rows = passages()[..4].to_vec();
    for number in 1..=12 {
        let text = "Wax is what bees build their combs from.";
        rows.push(json!({"_id": format!("w{number}"), "title": "", "text": text}));
    }
    scratch.write("corpus.jsonl", jsonl(&rows));
    scratch.ok("build corpus.jsonl --store store TINY");
    scratch.write("q.tsv", "q1\twax of bees\n");
    scratch
}

fn ids(answer: &Value) -> Vec<&str> {
    let hits = answer["hits"].as_array().unwrap();
    hits.iter().map(|hit| hit["id"].as_str().unwrap()).collect()
}

/// Documents of a run in its order.
fn documents(run: &str) -> Vec<&str> {
    run.lines().map(|line| line.split(' ').nth(2).unwrap()).collect()
}

const QUERY: &str = "query --store store TINY --queries q.tsv";

#[test]
fn candidates_are_the_best_by_score_whatever_the_order_of_lines() {
    let scratch = built();
    let run =
        "q1 Q0 p001 1 1 x\nq1 Q0 w2 2 3 x\nq1 Q0 w10 3 3.00000000001 x\nq1 Q0 p002 9 1e300 x\n";
    scratch.write("run", run);
    let line = format!("{QUERY} --candidates run --fuse zscore --fuse-weight 0");
    let of = |depth: usize| {
        let answer = scratch.ok(&format!("{line} --depth {depth} --json")).json().remove(0);
        ids(&answer).join(" ")
    };
    assert_eq!(of(1), "p002");
    // In single precision the two of 3 are equal, and the greater id comes first.
    assert_eq!(of(2), "p002 w2");
    assert_eq!(of(4), "p002 w2 w10 p001");
    let answer = scratch.ok(&format!("{line} --json")).json().remove(0);
    assert_eq!(answer["hits"][0]["retriever_score"], json!(1e300));
    assert!(answer["hits"].as_array().unwrap().iter().all(|hit| hit["score"].is_number()));
    let fused = scratch.ok(&format!("{QUERY} --candidates run --format trec"));
    assert_eq!(fused.stdout.lines().count(), 4);
}

#[test]
fn a_candidate_that_the_store_lacks_is_left_out() {
    let scratch = built();
    let mut run: String = (1..=7).map(|i| format!("q1 Q0 gone{i} {i} {} x\n", 9 - i)).collect();
    run.push_str("q1 Q0 p001 8 1 x\nq1 Q0 p002 9 0.5 x\n");
    scratch.write("run", run);
    let line = format!("{QUERY} --candidates run --depth 1");
    let skipped = scratch.ends(DEGRADED, &format!("{line} --json"));
    skipped.says(&[
        "query q1: 7 candidates are not in the store",
        "gone1, gone2, gone3, gone4, gone5, ...",
    ]);
    let answer = skipped.json().remove(0);
    assert_eq!(ids(&answer), ["p001"], "the next takes their place");
    let missing: Vec<String> = (1..=7).map(|i| format!("gone{i}")).collect();
    assert_eq!((&answer["missing"], &answer["stats"]["candidates"]), (&json!(missing), &json!(1)));
    let trec = scratch.ends(DEGRADED, &format!("{line} --format trec"));
    assert_eq!(documents(&trec.stdout), ["p001"]);
    let failed = scratch.ends(DEGRADED, &format!("{line} --on-missing fail --json"));
    failed.says(&["run:1: query q1: the store has no document \"gone1\""]);
    assert_eq!(failed.json()[0]["query_id"], "q1");
    assert!(failed.json()[0]["error"].as_str().unwrap().contains("gone1"));
}

#[test]
fn a_run_that_gives_no_query_a_candidate_is_an_error() {
    let scratch = built();
    scratch.write("two.tsv", "q1\tbees\nq2\tbread\n");
    let query = "query --store store TINY --queries two.tsv --candidates run";
    for (run, words) in [
        ("", "run: the run is empty"),
        ("1 Q0 p001 1 1 x\n", "names none of the 2 queries; the first that it names is \"1\""),
        ("q1 Q0 gone 1 1 x\n", "the store has none of the documents that the run names"),
    ] {
        scratch.write("run", run);
        let outcome = scratch.ends(FAILED, &format!("{query} --json"));
        outcome.says(&[words, "query q2: the run of candidates does not name it"]);
        let answers = outcome.json();
        assert_eq!(answers.len(), 2, "a record for each query");
        assert!(answers.iter().all(|answer| ids(answer).is_empty()));
        assert_eq!(scratch.ends(FAILED, &format!("{query} --format trec")).stdout, "");
    }
    scratch.write("run", "q1 Q0 p001 1 1 x\n");
    let some = scratch.ok(&format!("{query} --json"));
    some.says(&["query q2: the run of candidates does not name it"]);
    assert_eq!(some.json().len(), 2);
}

#[test]
fn equal_scores_have_one_order_in_every_form() {
    let scratch = built();
    let mut expected: Vec<String> = (1..=12).map(|i| format!("w{i}")).collect();
    expected.sort_by(|a, b| b.cmp(a));
    let line = format!("{QUERY} -k 16");
    for fuse in ["none", "zscore", "rrf", "zscore --fuse-weight 0"] {
        let line = format!("{line} --fuse {fuse}");
        let run = scratch.ok(&format!("{line} --format trec")).stdout;
        let tied: Vec<&str> =
            documents(&run).into_iter().filter(|id| id.starts_with('w')).collect();
        assert_eq!(tied, expected, "{fuse}");
        let answer = scratch.ok(&format!("{line} --json")).json().remove(0);
        assert_eq!(ids(&answer), documents(&run), "{fuse}");
        let table = scratch.ok(&line).stdout;
        let places =
            documents(&run).into_iter().map(|id| table.find(&format!("\t{id}\t")).unwrap());
        assert!(places.is_sorted(), "{fuse}: {table}");
    }
    for how in ["--no-rerank", "--fuse none"] {
        let line = format!("answer --store store TINY --queries q.tsv --max-tokens 2 --json {how}");
        let answer = scratch.ok(&format!("{line} --passages 12")).json().remove(0);
        let passages = answer["passages"].as_array().unwrap();
        let tied = passages.iter().map(|passage| passage["id"].as_str().unwrap());
        let tied: Vec<&str> = tied.filter(|id| id.starts_with('w')).collect();
        assert!(tied.len() > 5 && tied.is_sorted_by(|a, b| a > b), "{how}: {tied:?}");
    }
    scratch.write("qrels", "q1 0 w1 1\n");
    let bench = "bench quality corpus.jsonl TINY --queries q.tsv --qrels qrels --variants f32";
    scratch.ok(&format!("{bench} --runs-dir runs"));
    for run in ["retriever.run", "f32.run"] {
        let run = fs::read_to_string(scratch.path("runs").join(run)).unwrap();
        let tied = documents(&run).into_iter().filter(|id| id.starts_with('w'));
        assert_eq!(tied.collect::<Vec<_>>(), expected, "{run}");
    }
}

#[test]
fn a_run_is_evaluated_in_the_order_in_which_it_is_printed() {
    let scratch = built();
    // Scores that are equal, nearly so, too close for single precision, and huge.
    let close = "1 1 1.0000001 1.00000005 0.99999994 1.00000012 1.00000011 0.9999998 1 1.0000002";
    let huge = "1e30 1e30 1e300 -1e300 1e-9 -0 0 2e300 1 1";
    for (name, scores) in [("close", close), ("huge", huge)] {
        let scores = (1..).zip(scores.split(' '));
        let run: String = scores.map(|(i, score)| format!("q1 Q0 w{i} 1 {score} x\n")).collect();
        scratch.write(name, run);
    }
    let given = ["close", "huge"].map(|name| {
        ["", "--fuse-weight 0", "--fuse rrf"].map(|fuse| format!("--candidates {name} {fuse}"))
    });
    for options in given.concat().into_iter().chain(["--fuse none".to_owned()]) {
        let line = format!("{QUERY} {options} -k 12 --format trec");
        let printed = scratch.ok(&line).stdout;
        let documents = documents(&printed);
        // Of query k the first k documents are right: if all are found first, AP is 1.
        let (mut run, mut qrels) = (String::new(), String::new());
        for k in 1..=documents.len() {
            run += &printed.replace("q1 Q0", &format!("k{k} Q0"));
            qrels.extend(documents[..k].iter().map(|id| format!("k{k} 0 {id} 1\n")));
        }
        scratch.write("run", run);
        scratch.write("qrels", qrels);
        let values = average_precision(&scratch);
        assert_eq!(values.as_object().unwrap().len(), documents.len());
        for (query, ap) in values.as_object().unwrap() {
            let ap = ap.as_f64().unwrap();
            assert!((ap - 1.0).abs() < 1e-9, "{options} {query}: {ap}\n{printed}");
        }
    }
}

/// Average precision of each query.
const AVERAGE_PRECISION: &str = "
import ir_measures, json
qrels, run = ir_measures.read_trec_qrels('qrels'), ir_measures.read_trec_run('run')
values = ir_measures.iter_calc([ir_measures.AP], list(qrels), list(run))
print(json.dumps({value.query_id: value.value for value in values}))
";

fn average_precision(scratch: &Scratch) -> Value {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python/bin/python");
    assert!(python.exists(), "there is no {}: `make python` installs it", python.display());
    let mut command = Command::new(python);
    let output = command.current_dir(scratch.path("")).args(["-c", AVERAGE_PRECISION]).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn ids_have_no_blanks() {
    let scratch = Scratch::new();
    let mut row = passages()[0].clone();
    for id in ["my doc", "edge ", " ", "wide\u{3000}id", "no\u{a0}break", "line\u{2028}end"] {
        row["_id"] = json!(id);
        scratch.write("corpus.jsonl", jsonl(&[row.clone()]));
        let outcome = scratch.fails_without_store("build corpus.jsonl --store store TINY");
        outcome.says(&["corpus.jsonl:1: the id \"", "contains a blank", "--id-column"]);
    }
    row["_id"] = json!("a\tb");
    scratch.write("corpus.jsonl", jsonl(&[row.clone()]));
    scratch
        .fails_without_store("build corpus.jsonl --store store TINY")
        .says(&["contains a control character"]);
    let valid = ["<dbpedia:Caffè_(\"album\")>", "a/b?c=%20&d", "蜜蜂", "'quoted'", "test-x-con02a"];
    let rows: Vec<Value> =
        valid.iter().map(|id| json!({"_id": id, "text": "honey of bees"})).collect();
    scratch.write("corpus.jsonl", jsonl(&rows));
    scratch.ok("build corpus.jsonl --store store TINY");
    for (name, text) in
        [("q.tsv", "q 1\thoney\n"), ("q.jsonl", "{\"_id\":\"q\u{a0}1\",\"text\":\"honey\"}")]
    {
        scratch.write(name, text);
        let outcome = scratch.ends(FAILED, &format!("query --store store TINY --queries {name}"));
        outcome.says(&[&format!("{name}:1: the id \"q"), "contains a blank"]);
    }
    scratch.write("q.tsv", "<q>/1\thoney\n");
    let run = scratch.ok(&format!("{QUERY} --format trec"));
    let mut expected = valid.to_vec();
    expected.sort_by(|a, b| b.cmp(a));
    assert_eq!(documents(&run.stdout), expected);
    scratch.write("ids", valid.join("\n"));
    scratch.ok("delete --store store --ids ids").says(&["deleted 5 documents"]);
}

#[test]
fn a_store_whose_ids_have_blanks_is_read_and_cleared_of_them() {
    let scratch = Scratch::new();
    copy_folder(Path::new(&testdata("stores/v2-blanks")), &scratch.path("store"));
    scratch.ok("verify --store store");
    let query = "query --store store TINY --profile plain --dtype f32 honey";
    let run = scratch.ok(&format!("{query} --format trec"));
    run.says(&["warning: blanks in ids are written as %20"]);
    let mut written = documents(&run.stdout);
    written.sort_unstable();
    assert_eq!(written, ["edge%20", "my%20doc", "plain", "wide%E3%80%80id"]);
    let answer = scratch.ok(&format!("{query} --json")).json().remove(0);
    let mut found = ids(&answer);
    found.sort_unstable();
    assert_eq!(found, ["edge ", "my doc", "plain", "wide\u{3000}id"]);
    scratch.write("ids", "edge \r\n\n \nwide\u{3000}id\n  plain \nnobody \n");
    let deleted = scratch.ok("delete --store store --ids ids");
    deleted.says(&["deleted 3 documents, 1 is left", "1 id is not in the store: nobody"]);
    scratch.ok("compact --store store");
    let answer = scratch.ok(&format!("{query} --json")).json().remove(0);
    assert_eq!(ids(&answer), ["my doc"]);
}

#[test]
fn a_query_may_leave_out_its_own_document() {
    let scratch = built();
    scratch.write("q.tsv", "w12\twax\np001\twax of bees\n");
    let line = format!("{QUERY} --depth 3 --fuse zscore --fuse-weight 0 --json");
    let with = scratch.ok(&line).json();
    let without = scratch.ok(&format!("{line} --exclude-self")).json();
    let found: Vec<Vec<&str>> = without.iter().map(ids).collect();
    // The cut of BM25 is by row.
    assert_eq!(ids(&with[0]).len(), 3);
    assert!(found.iter().all(|found| found.len() == 3), "{found:?}");
    scratch
        .write("run", "w12 Q0 w12 1 9 x\nw12 Q0 w2 2 8 x\nw12 Q0 w3 3 7 x\np001 Q0 p001 1 9 x\n");
    let line = format!("{QUERY} --depth 1 --candidates run --json");
    let of = |line: &str| -> Vec<Vec<String>> {
        let answers = scratch.ok(line).json();
        answers.iter().map(|answer| ids(answer).into_iter().map(str::to_owned).collect()).collect()
    };
    assert_eq!(of(&line), [["w12"], ["p001"]]);
    assert_eq!(of(&format!("{line} --exclude-self")), [vec!["w2"], vec![]]);
    scratch.write("q.tsv", "w1\twax\n");
    let line = format!("{QUERY} --depth 3 --json");
    assert!(of(&line)[0].contains(&"w1".to_owned()), "the first row");
    let others = of(&format!("{line} --exclude-self"));
    assert!(others[0].len() == 3 && !others[0].contains(&"w1".to_owned()), "{others:?}");
}

#[test]
fn a_run_has_the_tag_and_the_ids_that_were_given() {
    let scratch = built();
    let large = "98765432109876543210987";
    scratch.write("q.jsonl", format!("{{\"_id\": {large}, \"text\": \"wax\"}}\n"));
    let line = "query --store store TINY --queries q.jsonl -k 1 --format trec";
    let run = scratch.ok(&format!("{line} --tag mine")).stdout;
    assert!(run.starts_with(&format!("{large} Q0 w")) && run.ends_with(" mine\n"), "{run}");
    assert!(scratch.ok(line).stdout.ends_with(" hyperrag\n"));
    for tag in ["EMPTY", "\u{a0}"] {
        // A blank would be a field more.
        let outcome = match tag {
            "EMPTY" => scratch.run(&format!("{line} --tag EMPTY")),
            tag => {
                let mut command = scratch.command(&format!("{line} --tag"));
                scratch.check(line, command.arg(tag).output().unwrap())
            }
        };
        assert_eq!(outcome.code, USAGE, "{tag:?}");
        outcome.says(&["a word without blanks"]);
    }
}

#[test]
fn no_score_is_minus_zero() {
    let scratch = built();
    scratch.write("run", "q1 Q0 w1 1 -0 x\nq1 Q0 w2 2 -0.0 x\n");
    let line = format!("{QUERY} --candidates run --fuse-weight 0");
    for format in ["text", "trec"] {
        let outcome = scratch.ends(DONE, &format!("{line} --format {format}"));
        assert!(!outcome.stdout.contains("-0"), "{}", outcome.stdout);
    }
    let hits = scratch.ok(&format!("{line} --json")).json().remove(0)["hits"].to_string();
    assert!(!hits.contains("-0.0"), "{hits}");
}
