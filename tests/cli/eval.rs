//! Measures, comparison of runs, and answers. `crates/eval/tests` compares measures with `ir_measures`.

use std::fmt::Write;
use std::fs;
use std::io::Write as _;

use crate::support::{DONE, FAILED, Outcome, Scratch, USAGE};

#[track_caller]
fn run(scratch: &Scratch, line: &str, code: i32) -> Outcome {
    let outcome = scratch.run(line);
    assert_eq!(outcome.code, code, "{line}: {}", outcome.stderr);
    outcome
}

#[test]
fn ties_go_by_id_downwards_and_no_number_is_rounded() {
    let scratch = Scratch::new();
    let long = "36893488147419103233";
    let qrels = format!("q1 0 b 2\r\nq1\t0\ta 0\r\nq1 0 c -1\r\nq2 0 a 1\r\n{long} 0 é 1\r\n");
    scratch.write("qrels", format!("\u{feff}{qrels}"));
    let hits = format!("{long}\tQ0\té\t1\t-0.0\tt\r\n{long} Q0 z 2 0 t\r\n");
    scratch.write("run", format!("q1 Q0 a 1 1e300 t\r\nq1 Q0 b 2 1e300 t\r\n{hits}"));
    let list = "RR,P(rel=2)@1,Judged@5,nDCG(gains={1:1,2:4})@10,MAP,MRR@10,Bpref,infAP,RBP(p=0.5,rel=1),ERR@3";
    let line = format!("eval --run run --qrels qrels --json --measure {list}");
    let outcome = run(&scratch, &line, DONE);
    let own = outcome.json().remove(0);
    let of = |query: &str, name: &str| own["per_query"][query][name].as_f64().unwrap();
    assert_eq!((of("q1", "RR"), of("q1", "P(rel=2)@1"), of("q1", "Judged@5")), (1.0, 1.0, 1.0));
    assert_eq!((of(long, "RR"), of("q1", "RBP(rel=1,p=0.5)")), (1.0, 0.5));
    assert_eq!((of("q1", "ERR@3"), of("q1", "nDCG(gains={2:4})@10")), (3.0 / 16.0, 1.0));
    assert_eq!((of("q1", "Bpref"), of("q1", "infAP")), (1.0, 1.0));
    // MRR@10 and MAP are RR@10 and AP.
    assert_eq!((own["metrics"]["AP"]["mean"].as_f64(), of("q2", "RR@10")), (Some(2.0 / 3.0), 0.0));
    let text = outcome.stdout;
    assert!(!text.contains("-0.0") && !text.contains("null"), "{text}");
}

#[test]
fn a_query_is_no_hit_of_itself_where_that_is_asked() {
    let scratch = Scratch::new();
    scratch.write("qrels", "a 0 b 1\nb 0 c 1\n");
    scratch.write("run", "a Q0 a 1 3 t\na Q0 b 2 2 t\nb Q0 c 1 1 t\n");
    let mean = |line: &str| run(&scratch, line, DONE).json()[0]["metrics"]["RR"]["mean"].clone();
    let line = "eval --run run --qrels qrels --measure RR --json";
    assert_eq!(mean(line), 0.75);
    assert_eq!(mean(&format!("{line} --exclude-self")), 1.0);
    let outcome = run(&scratch, &format!("{line} --exclude-self --baseline run"), DONE);
    outcome.says(&["run: 1 documents with their query's id were left out"]);
    assert_eq!(outcome.json()[0]["baseline"]["metrics"]["RR"]["mean"], 1.0);
}

#[test]
fn runs_that_have_nothing_of_the_judgements_are_told() {
    let scratch = Scratch::new();
    scratch.write("qrels", "1 0 a 1\n2 0 a 1\n");
    scratch.write("empty", "\n");
    scratch.write("other", "q1 Q0 a 1 1 t\nq2 Q0 a 1 1 t\n");
    let outcome = run(&scratch, "eval --run empty --qrels qrels --json", DONE);
    outcome.says(&["empty: the run is empty: all 2 judged queries count 0"]);
    assert!(!outcome.stdout.contains("-0.0"), "{}", outcome.stdout);
    let outcome = run(&scratch, "eval --run other --qrels qrels", DONE);
    outcome.says(&["other: none of its 2 queries is judged", "query is \"q1\"", "one \"1\""]);
}

#[test]
fn several_runs_are_compared_with_the_first_and_p_adjusted() {
    let scratch = Scratch::new();
    let (mut qrels, mut good, mut bad) = (String::new(), String::new(), String::new());
    for query in 0..8 {
        writeln!(qrels, "q{query} 0 a 1").unwrap();
        writeln!(good, "q{query} Q0 a 1 2 t\nq{query} Q0 b 2 1 t").unwrap();
        writeln!(bad, "q{query} Q0 b 1 2 t\nq{query} Q0 a 2 1 t").unwrap();
    }
    let names = ["qrels", "good", "better", "bad", "worse"];
    let texts = [&qrels, &good, &good, &bad, &bad];
    names.iter().zip(texts).for_each(|(name, text)| scratch.write(name, text));
    let line = "eval --run bad good worse better --qrels qrels --measure RR";
    let json = run(&scratch, &format!("{line} --json"), DONE).json().remove(0);
    assert!(json["comparison"].is_null() && json["metrics"]["RR"]["mean"] == 0.5);
    let of = |place: usize| &json["runs"][place]["comparison"]["RR"];
    let p = |place: usize| (of(place)["p"].as_f64(), of(place)["p_holm"].as_f64());
    assert_eq!((json["runs"][0]["run"].as_str(), of(0).is_null()), (Some("bad"), true));
    // Of 256 combinations of signs two are as far out; three tests are made.
    assert_eq!(p(1), (Some(2.0 / 256.0), Some(6.0 / 256.0)));
    assert_eq!((p(2), p(3).1), ((Some(1.0), Some(1.0)), Some(6.0 / 256.0)));
    let table = run(&scratch, &format!("{line} --per-query"), DONE).stdout;
    assert!(table.contains("p (Holm)") && table.contains("0.0234"), "{table}");
    assert!(table.contains("RR\tworse\tq7\t0.5000\t+0.0000\t"), "{table}");
    assert!(table.contains("RR\tbetter\tall\t1.0000\t+0.5000\t"), "{table}");
    let fields: Vec<usize> = table.lines().map(|line| line.split('\t').count()).collect();
    assert_eq!((fields.len(), fields[0]), (1 + 4 * (8 + 1), 11), "{table}");
    assert!(fields.iter().all(|found| *found == 11), "every row has the header's fields: {table}");
    let line = "eval --run good --run worse --baseline bad --qrels qrels --measure RR";
    let json = run(&scratch, &format!("{line} --json"), DONE).json().remove(0);
    assert_eq!(json["comparison"]["RR"]["p_holm"].as_f64(), Some(4.0 / 256.0));
    assert_eq!(json["comparison"], json["runs"][0]["comparison"]);
    let drawn = ["--svg draws one run"];
    run(&scratch, &format!("{line} --svg x.svg"), USAGE).says(&drawn);
    run(&scratch, "eval --run bad --qrels qrels --svg x.svg", USAGE).says(&drawn);
    run(&scratch, "eval --run bad good --qrels qrels --svg x.svg", DONE);
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
    assert!(table.contains("+0.5000"), "{table}");
    assert!(table.contains("P@1\tq29\t1.0000\t0.0000\t+1.0000\t"), "{table}");
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
    scratch.write("run", "q1 Q0 a 1 2 t\nq1 Q0 b 2 nan t\n");
    let line = "eval --run run --qrels qrels";
    run(&scratch, line, FAILED).says(&["run:2", "\"nan\"", "not a finite"]);
    scratch.write("qrels", "q1 0 a 5\n");
    scratch.write("run", "q1 Q0 a 1 2 t\n");
    let line = "eval --run run --qrels qrels --measure ERR@10";
    run(&scratch, line, FAILED).says(&["qrels: it has the grade 5", "grades up to 4"]);
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
    outcome.says(&["1 question has no answer"]);
    let found = outcome.json().remove(0);
    assert_eq!(found["metrics"]["EM"].as_f64().unwrap(), 1.0 / 3.0);
    assert_eq!(found["per_query"]["b"]["F1"].as_f64().unwrap(), 2.0 / 3.0);
    assert!(run(&scratch, line, DONE).stdout.contains("questions\t3\n"));
    scratch.write("answers", "{\"query_id\": \"a\"}\n");
    run(&scratch, line, FAILED).says(&["answers:1", "`answer`"]);
    scratch.write("answers", "1\n");
    run(&scratch, line, FAILED).says(&["answers:1", "not a JSON object"]);
    scratch.write("answers", "[1]\n");
    run(&scratch, line, FAILED).says(&["answers row 1", "not a JSON object"]);
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
    outcome.says(&["1 question has no answer", "1 answer belongs to no question"]);
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

/// A file in SQuAD's form, with a question that has no answer and one whose answer has no words.
const SQUAD: &str = r#"{
  "version": "v2.0",
  "data": [{"title": "Bees", "paragraphs": [{"context": "Bees make honey.", "qas": [
    {"question": "What?", "id": "a", "answers": [{"text": "honey", "answer_start": 10}],
     "is_impossible": false},
    {"question": "When?", "id": "b", "answers": [],
     "plausible_answers": [{"text": "x", "answer_start": 0}], "is_impossible": true},
    {"question": "Why?", "id": 36893488147419103233, "answers": [{"text": "the", "answer_start": 0}],
     "is_impossible": false}
  ]}, {"context": "", "qas": []}]}]}"#;

#[test]
fn squads_file_is_read() {
    let scratch = Scratch::new();
    let long = "36893488147419103233";
    let mut answers = String::new();
    for (id, answer) in [("a", "the honey"), ("b", ""), (long, "sun")] {
        writeln!(answers, "{{\"query_id\": \"{id}\", \"answer\": \"{answer}\"}}").unwrap();
    }
    scratch.write("answers", answers);
    let line = "eval qa --answers answers --gold gold --json";
    for gold in [SQUAD, &SQUAD.replace('\n', " "), &format!("\u{feff}{SQUAD}")] {
        scratch.write("gold", gold);
        let found = run(&scratch, line, DONE).json().remove(0);
        let of = |id: &str| ["EM", "F1"].map(|name| found["per_query"][id][name].as_f64().unwrap());
        assert_eq!((found["questions"].as_u64(), found["unanswered"].as_u64()), (Some(3), Some(0)));
        assert_eq!([of("a"), of("b"), of(long)], [[1.0; 2], [1.0; 2], [0.0; 2]]);
    }
    // Rows of a data set, which have columns of texts and places.
    let rows = "{\"id\": \"a\", \"answers\": {\"text\": [\"honey\"], \"answer_start\": [10]}}\n\
                {\"id\": \"b\", \"answers\": {\"text\": [], \"answer_start\": []}}\n";
    scratch.write("gold", rows);
    assert_eq!(run(&scratch, line, DONE).json()[0]["metrics"]["F1"], 1.0);
    scratch.write("gold", "{\n \"data\": [{\"paragraphs\": [{\"qas\": [{\"id\": \"a\"}]}]}]}");
    run(&scratch, line, FAILED).says(&["gold: question 1", "no `answers`"]);
    scratch.write("gold", "{\n \"rows\": []}");
    run(&scratch, line, FAILED).says(&["gold: neither JSON objects, one a line", "`data`"]);
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn files_may_be_compressed() {
    let scratch = Scratch::new();
    let zstd = |text: &str| zstd::encode_all(text.as_bytes(), 3).unwrap();
    let (qrels, hits) = ("q1 0 a 1\nq1 0 b 0\n", "q1 Q0 b 1 2 t\nq1 Q0 a 2 1 t\n");
    let answers = "{\"query_id\": \"a\", \"answer\": \"honey\"}\n";
    for compressed in [&gzip as &dyn Fn(&str) -> Vec<u8>, &zstd] {
        scratch.write("qrels.packed", compressed(qrels));
        scratch.write("run.packed", compressed(hits));
        let line = "eval --run run.packed --qrels qrels.packed --measure RR --json";
        assert_eq!(run(&scratch, line, DONE).json()[0]["metrics"]["RR"]["mean"], 0.5);
        let line = "eval qa --answers answers.packed --gold gold.packed --json";
        scratch.write("answers.packed", compressed(answers));
        for gold in [SQUAD, "{\"_id\": \"a\", \"answers\": [\"honey\"]}\n"] {
            scratch.write("gold.packed", compressed(gold));
            assert_eq!(run(&scratch, line, DONE).json()[0]["per_query"]["a"]["EM"], 1.0);
        }
    }
    scratch.write("cut.gz", &gzip(&hits.repeat(50))[..20]);
    let line = "eval --run cut.gz --qrels qrels.packed";
    run(&scratch, line, FAILED).says(&["cut.gz:1: cannot be read"]);
}

#[test]
fn questions_of_nq_open_are_read() {
    let scratch = Scratch::new();
    let gold = "{\"question\": \"who sings\", \"answer\": [\"Ada\", \"Bob\"]}\n\
                {\"question\": \"why\", \"answer\": [\"x\"]}\n";
    let answers = "{\"query_id\": \"1\", \"query\": \"who sings\", \"answer\": \"bob\"}\n\
                   {\"query_id\": \"2\", \"query\": \"why\", \"error\": \"no room\"}\n";
    scratch.write("answers", answers);
    for gold in [gold, &format!("[{}]", gold.trim_end().replace('\n', ",\n"))] {
        scratch.write("gold", gold);
        let outcome = run(&scratch, "eval qa --answers answers --gold gold --json", DONE);
        outcome.says(&["1 question has no answer"]);
        let found = outcome.json().remove(0);
        assert_eq!(found["per_query"]["who sings"]["EM"], 1.0);
        assert_eq!(found["metrics"]["EM"], 0.5);
    }
}
