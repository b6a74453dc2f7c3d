//! Corpora and queries in every form: compressed, through pipes, as arrays and tables, with faults in rows.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::process::Command;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use flate2::Compression;
use flate2::write::GzEncoder;
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};

use crate::support::{DEGRADED, DONE, FAILED, Outcome, Scratch, USAGE, jsonl, passages, ranked};

const STORE: &str = "TINY --unit-rows 4 --profile plain";

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn field<'a>(row: &'a Value, name: &str) -> &'a str {
    row[name].as_str().unwrap_or_default()
}

/// Writes the rows as a table with a header, all fields in quotes.
fn table(rows: &[Value], delimiter: &str) -> String {
    let names = ["_id", "title", "text"];
    let line = |fields: [&str; 3]| {
        let quoted = fields.map(|field| format!("\"{}\"", field.replace('"', "\"\"")));
        format!("{}\n", quoted.join(delimiter))
    };
    let lines = rows.iter().map(|row| line(names.map(|name| field(row, name))));
    line(names) + &lines.collect::<String>()
}

/// Builds from stdin and checks the exit code.
fn build_from(scratch: &Scratch, code: i32, line: &str, stdin: &str) -> Outcome {
    let outcome = scratch.run_with_stdin(line, stdin);
    assert_eq!(outcome.code, code, "{line}: {}", outcome.stderr);
    outcome
}

#[test]
fn every_form_of_a_corpus_makes_the_same_store() {
    let scratch = Scratch::new();
    let mut rows = passages()[..10].to_vec();
    rows[3]["text"] = json!("One line,\nand \"another\",\twith a tab.");
    let lines = jsonl(&rows);
    scratch.write("c.jsonl", &lines);
    scratch.ok(&format!("build c.jsonl --store store {STORE}"));
    let expected = scratch.contents("store");
    let array = json!(rows).to_string();
    scratch.write("array.json", &array);
    scratch.write("lines.jsonl.gz", [gzip(&lines[..400]), gzip(&lines[400..])].concat());
    scratch.write("array.json.zst", zstd::encode_all(array.as_bytes(), 3).unwrap());
    scratch.write("table.csv", table(&rows, ","));
    scratch.write("table.csv.gz", gzip(&table(&rows, ",")));
    scratch.write("table.tsv", table(&rows, "\t"));
    scratch.write("lines.txt", &lines);
    let mut number = 0;
    let mut check = |line: &str, stdin: Option<&str>| {
        number += 1;
        let line = format!("build {line} --store s{number} {STORE}");
        let outcome = build_from(&scratch, DONE, &line, stdin.unwrap_or_default());
        assert!(scratch.contents(&format!("s{number}")) == expected, "{line}: {}", outcome.stderr);
    };
    for name in ["array.json", "lines.jsonl.gz", "array.json.zst", "table.csv", "table.csv.gz"] {
        check(name, None);
    }
    check("table.tsv --quoting csv", None);
    check("lines.txt --input-format json", None);
    check("-", Some(&lines));
    check("-", Some(&array));
    check("- --input-format csv", Some(&table(&rows, ",")));
    // Calibration reads the corpus too.
    for (input, stdin) in [("c.jsonl", ""), ("-", lines.as_str())] {
        let store = if stdin.is_empty() { "file" } else { "pipe" };
        let line = format!("build {input} --store {store} {STORE} --kv-dtype int5");
        build_from(&scratch, DONE, &line, stdin);
    }
    assert!(scratch.contents("file") == scratch.contents("pipe"));
    let unknown = build_from(&scratch, FAILED, &format!("build - --store none {STORE}"), "a,b\n");
    unknown.says(&["stdin: not a known kind of text", "name its format with --input-format"]);
}

#[test]
fn a_named_pipe_and_a_resumed_build_are_read() {
    let scratch = Scratch::new();
    let lines = jsonl(&passages()[..10]);
    scratch.write("c.jsonl", &lines);
    scratch.ok(&format!("build c.jsonl --store store {STORE}"));
    assert!(Command::new("mkfifo").arg(scratch.path("pipe")).status().unwrap().success());
    for _ in 0..2 {
        let (path, bytes) = (scratch.path("pipe"), gzip(&lines));
        let writer = std::thread::spawn(move || fs::write(path, bytes));
        // The second time, the store is there and must be that of the same rows.
        scratch.ok(&format!("build pipe --store piped {STORE}"));
        writer.join().unwrap().unwrap();
    }
    assert!(scratch.contents("store") == scratch.contents("piped"));
    scratch.ends(FAILED, "build /dev/zero --store none TINY").says(&["/dev/zero: no plain file"]);
}

#[test]
fn compressed_files_that_are_cut_short_are_named() {
    let scratch = Scratch::new();
    let rows: String = (0..3000).map(|id| format!("{id}\tsome words {id}\n")).collect();
    let whole = gzip(&rows);
    scratch.write("cut.tsv.gz", &whole[..whole.len() / 2]);
    let line = format!("build cut.tsv.gz --store store {STORE} --dry-run");
    let said = scratch.ends(FAILED, &line).stderr;
    assert!(said.contains("cut.tsv.gz:") && said.contains("end too early"), "{said}");
    scratch.write("half.json", "[{\"id\": 1, \"text\": \"a\"}, {\"id\": 2");
    let line = format!("build half.json --store store {STORE} --dry-run");
    scratch.ends(FAILED, &line).says(&["half.json row 2", "the file ends before the array does"]);
    // One line of 200 MB in 200 KB: it is not held.
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    (0..200).for_each(|_| encoder.write_all(&[b'x'; 1_000_000]).unwrap());
    scratch.write("bomb.tsv.gz", encoder.finish().unwrap());
    let line = format!("build bomb.tsv.gz --store store {STORE} --memory 256M");
    scratch.fails_without_store(&line).says(&["bomb.tsv.gz:1: the line is longer than 16777216"]);
}

#[test]
fn rows_that_cannot_be_read_end_the_build_or_are_left_out() {
    let scratch = Scratch::new();
    let rows = passages()[..9].to_vec();
    scratch.write("good.jsonl", jsonl(&rows));
    scratch.ok(&format!("build good.jsonl --store good {STORE}"));
    let mut lines: Vec<String> = rows.iter().map(|row| format!("{row}\n")).collect();
    lines.insert(2, "{\"_id\": \"x\", \"txt\": \"no text\"}\n".to_owned());
    lines.insert(5, "no JSON\n".to_owned());
    scratch.write("bad.jsonl", lines.concat());
    let build = format!("build bad.jsonl {STORE}");
    let failed = scratch.fails_without_store(&format!("{build} --store store --dry-run"));
    failed.says(&["bad.jsonl:3: no text column", "found \"_id\", \"txt\""]);
    failed.says(&["; 2 rows cannot be read: lines 3, 6"]);
    let skip = format!("{build} --store skipped --on-bad-row skip --json");
    let plan = scratch.ends(DEGRADED, &format!("{skip} --dry-run"));
    assert_eq!((&plan.json()[0]["bad_rows"], &plan.json()[0]["documents"]), (&json!(2), &json!(9)));
    for _ in 0..2 {
        let outcome = scratch.ends(DEGRADED, &skip);
        assert_eq!(outcome.json()[0]["bad_rows"], 2);
        outcome.says(&[
            "warning: bad.jsonl:3: no text column",
            "warning: bad.jsonl:6: not valid JSON",
            "the row is left out",
            "2 rows cannot be read and were left out",
        ]);
        assert!(scratch.contents("skipped") == scratch.contents("good"));
    }
    let append = scratch.ends(DEGRADED, &format!("{skip} --append"));
    assert_eq!(
        (&append.json()[0]["unchanged"], &append.json()[0]["bad_rows"]),
        (&json!(9), &json!(2))
    );
    let many: String = (0..30).map(|_| "{}\n").collect();
    scratch.write("many.jsonl", format!("{many}{}", jsonl(&rows)));
    let line = format!("build many.jsonl --store many {STORE} --on-bad-row skip --limit 5");
    let outcome = scratch.ends(DEGRADED, &line);
    assert_eq!(outcome.stderr.matches("the row is left out").count(), 10, "{}", outcome.stderr);
    outcome.says(&["30 rows cannot be read"]);
    scratch.write("none.jsonl", &many);
    let line = format!("build none.jsonl --store none {STORE} --on-bad-row skip");
    let refused = scratch.ends(FAILED, &line);
    refused.says(&["none.jsonl:1: no id column", "30 rows cannot be read: lines 1, 2, 3, 4, 5, 6"]);
    refused.says(&["10 and 20 more"]);
}

#[test]
fn what_writers_make_beyond_the_standard_is_read() {
    let scratch = Scratch::new();
    scratch.write(
        "c.jsonl",
        "{\"_id\": 1, \"title\": 1984, \"text\": \"a river of bees\", \"price\": NaN}\n\
         {\"_id\": 2, \"title\": true, \"text\": \"half a pair \\ud83d of bees\", \"x\": -Infinity}\n",
    );
    let outcome = scratch.ok(&format!("build c.jsonl --store store {STORE} --json"));
    outcome.says(&["1 row has half a surrogate pair"]);
    assert_eq!(outcome.json()[0]["lossy_rows"], 1);
    let hits = scratch.ok("query bees --store store TINY --profile plain --json").json();
    let titles: Vec<&str> =
        hits[0]["hits"].as_array().unwrap().iter().map(|hit| field(hit, "title")).collect();
    assert!(titles.contains(&"1984") && titles.contains(&"true"), "{titles:?}");
}

#[test]
fn headers_are_recognised_and_quotes_warned_of() {
    let scratch = Scratch::new();
    let build = |name: &str, text: &str, flags: &str| {
        scratch.write(name, text);
        scratch.run(&format!("build {name} --store store {STORE} --dry-run --json {flags}"))
    };
    let documents = |outcome: Outcome| outcome.json()[0]["documents"].as_u64().unwrap();
    assert_eq!(documents(build("a.tsv", "text\tid\nbees\t1\nbread\t2\n", "")), 2);
    assert_eq!(documents(build("a.csv", "id,text\n1,\"a, b\"\n2,c\n", "")), 2);
    let unknown = build("a.tsv", "uid\tsentence\n1\tbees\n", "");
    unknown.says(&["a.tsv:1: no id column", "found \"uid\", \"sentence\"", "--id-column"]);
    let named =
        build("a.tsv", "uid\tsentence\n1\tbees\n", "--id-column uid --text-column sentence");
    assert_eq!(documents(named), 1);
    let quoted = "\"id\"\t\"text\"\n\"1\"\t\"bees\"\n";
    build("q.tsv", quoted, "")
        .says(&["warning: q.tsv: all fields stand in quotes", "--quoting csv"]);
    // As pandas writes it: only fields with quotes in them are in quotes.
    let minimal = "id\ttext\n1\t\"he said \"\"bees\"\"\"\n2\thoney\n";
    build("m.tsv", minimal, "")
        .says(&["warning: m.tsv: a field stands in quotes", "--quoting csv"]);
    let own = build("o.tsv", "id\ttext\n1\t\"bees\" and \"bread\"\n2\t\"honey\"\n", "");
    assert!(!own.stderr.contains("quotes"), "{}", own.stderr);
    let read = build("q.tsv", quoted, "--quoting csv");
    assert_eq!((read.stderr.matches("quotes").count(), documents(read)), (0, 1));
}

#[test]
fn files_with_names_of_any_bytes_are_read() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path("data")).unwrap();
    let latin = OsString::from_vec(b"caf\xe9.jsonl".to_vec());
    fs::write(scratch.path("data").join(&latin), jsonl(&passages()[..2])).unwrap();
    scratch.write("data/a\nb.jsonl", jsonl(&passages()[2..4]));
    for pattern in ["data/*.jsonl", "**/*.jsonl", "data"] {
        let outcome = scratch.ok(&format!("build {pattern} --store store TINY --dry-run --json"));
        assert_eq!(outcome.json()[0]["documents"], 4, "{pattern}");
    }
    let mut command = scratch.command("build --store store TINY --dry-run");
    let output = command.arg(scratch.path("data").join(&latin)).output().unwrap();
    assert_eq!(output.status.code(), Some(DONE), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn queries_have_every_form_of_a_corpus() {
    let scratch = Scratch::new();
    scratch.write("c.jsonl", jsonl(&passages()[..8]));
    scratch.ok(&format!("build c.jsonl --store store {STORE}"));
    let query = "query --store store TINY --profile plain --json --depth 8 --queries";
    // Larger than a number of 64 bits.
    let id = "98765432109876543210";
    let text = "bees, and \"bread\"";
    let quoted = text.replace('"', "\"\"");
    let object = json!({"query_id": id, "query": text}).to_string();
    scratch.write("q.jsonl", object.replace(&format!("\"{id}\""), id));
    let expected = ranked(&scratch.ok(&format!("{query} q.jsonl")));
    assert_eq!(expected[0].0, id);
    scratch.write("q.json", format!("[{object}]"));
    scratch.write("q.jsonl.gz", gzip(&format!("\u{feff}{object}\n")));
    scratch.write("q.csv", format!("qid,query\n{id},\"{quoted}\"\n"));
    scratch.write("plain.csv", format!("{id},\"{quoted}\"\n"));
    scratch.write("q.tsv", format!("\u{feff}query-id\tquestion\n{id}\t{text}\n"));
    scratch.write("q.tsv.zst", zstd::encode_all(format!("{id}\t{text}\n").as_bytes(), 3).unwrap());
    scratch.write("topics", format!("{id}\t{text}\n"));
    let column = |text: &str| -> ArrayRef { Arc::new(StringArray::from(vec![text])) };
    let columns = [("qid", column(id)), ("query", column(text))];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let file = File::create(scratch.path("q.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    for name in
        ["q.json", "q.jsonl.gz", "q.csv", "plain.csv", "q.tsv", "q.tsv.zst", "topics", "q.parquet"]
    {
        assert_eq!(ranked(&scratch.ok(&format!("{query} {name}"))), expected, "{name}");
    }
    let piped = scratch.run_with_stdin(&format!("{query} -"), &object);
    assert_eq!((piped.code, ranked(&piped)), (DONE, expected), "{}", piped.stderr);
    scratch.ok("bench --store store TINY --profile plain --queries q.csv --depth 4 --json");
    let refused = |name: &str, bytes: &str, parts: &[&str]| {
        scratch.write(name, bytes);
        scratch.ends(FAILED, &format!("{query} {name}")).says(parts);
    };
    refused("twice.csv", "qid,query\n1,a\n1,b\n", &["twice.csv:3: the query id \"1\" comes twice"]);
    refused("none.csv", "qid,query\n", &["none.csv: the file has no queries"]);
    refused(
        "words.jsonl",
        "{\"id\": 1, \"words\": 2}",
        &["words.jsonl:1: no text column", "\"query\""],
    );
    let long = format!("1\t{}\n", "word ".repeat(300_000));
    refused("long.tsv", &long, &["long.tsv:1: the query has 1500000 bytes, 1048576 are allowed"]);
    let usage = scratch.ends(USAGE, "build c.jsonl --store s TINY --on-bad-row maybe");
    usage.says(&["fail, skip"]);
}

#[test]
fn a_byte_order_mark_is_no_part_of_an_id() {
    let scratch = Scratch::new();
    let marked = |name: &str, text: &str| scratch.write(name, format!("\u{feff}{text}"));
    marked("c.tsv", "p1\tbees dance\np2\tbread is heavy\n");
    scratch.ok(&format!("build c.tsv --store store {STORE}"));
    marked("queries.csv", "q1,bees\n");
    marked("run", "q1 Q0 p1 1 2.0 x\n");
    marked("qrels", "q1 0 p1 1\n");
    marked("ids", "p2\n");
    marked("gold", "{\"_id\": \"q1\", \"answers\": [\"honey\"]}\n");
    marked("answers", "{\"query_id\": \"q1\", \"answer\": \"honey\"}\n");
    let query = "query --store store TINY --profile plain --queries queries.csv --candidates run";
    let trec = scratch.ok(&format!("{query} --format trec")).stdout;
    assert!(trec.starts_with("q1 Q0 p1 "), "{trec}");
    let eval = scratch.ok("eval --run run --qrels qrels --measure RR --json").json();
    assert_eq!(eval[0]["metrics"]["RR"]["mean"], 1.0);
    let qa = scratch.ok("eval qa --answers answers --gold gold --json").json();
    assert_eq!((&qa[0]["metrics"]["EM"], &qa[0]["unanswered"]), (&json!(1.0), &json!(0)));
    scratch.ok("delete --store store --ids ids").says(&["deleted 1 document,"]);
    let piped = scratch
        .run_with_stdin("query --store store TINY --profile plain --json -", "\u{feff}bees\n");
    assert_eq!(piped.json()[0]["query"], "bees", "{}", piped.stderr);
}
