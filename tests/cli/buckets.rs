//! Inputs in a bucket: the bytes of a build from files, through faults, by row groups alone, and refused when they
//! change.

use std::fs::{self, File};
use std::io::Write;
use std::ops::Range;
use std::process::{Child, Stdio};
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use flate2::Compression;
use flate2::write::GzEncoder;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use serde_json::{Value, json};

use crate::fake_s3::{self, FakeS3, Fault};
use crate::support::{DONE, FAILED, Outcome, Scratch, jsonl, passages};

/// Settings of the builds: eight passages a shard, which are twenty shards in two spans.
pub(crate) const BUILD: &str = "TINY --unit-rows 8";

/// Rows of a row group.
const GROUP: usize = 20;

/// Passages in the Parquet file, and in it and the lines.
const PARTS: (usize, usize) = (100, 130);

/// Writes a folder `in` with the passages in three files of different formats. The Parquet file has a large column
/// that no document needs, and several row groups.
pub(crate) fn written() -> Scratch {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path("in")).unwrap();
    let rows = passages();
    let (parquet, lines, table) = (&rows[..PARTS.0], &rows[PARTS.0..PARTS.1], &rows[PARTS.1..]);
    write_parquet(&scratch, parquet);
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(jsonl(lines).as_bytes()).unwrap();
    scratch.write("in/b.jsonl.gz", gzip.finish().unwrap());
    let line = |row: &Value| format!("{}\t{}\n", text(row, "_id"), text(row, "text"));
    scratch.write("in/c.tsv", table.iter().map(line).collect::<String>());
    scratch.write("in/README.md", "no input");
    scratch
}

fn text(row: &Value, name: &str) -> String {
    row[name].as_str().unwrap_or_default().replace(['\t', '\n'], " ")
}

fn write_parquet(scratch: &Scratch, rows: &[Value]) {
    let column = |name: &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| text(row, name))))
    };
    // Digits that no codec and no dictionary makes short.
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut noise = || {
        let mut digits = String::new();
        for _ in 0..800 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            digits += &format!("{:x}", state >> 32);
        }
        digits
    };
    let noise: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|_| noise())));
    let columns = [
        ("_id", column("_id")),
        ("noise", noise),
        ("title", column("title")),
        ("text", column("text")),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(GROUP)).build();
    let file = File::create(scratch.path("in/a.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// Stores the files in the bucket of a server.
fn stored(scratch: &Scratch, seed: u64) -> FakeS3 {
    let server = FakeS3::start(seed);
    for name in ["a.parquet", "b.jsonl.gz", "c.tsv", "README.md"] {
        server.store(&format!("in/{name}"), fs::read(scratch.path("in").join(name)).unwrap());
    }
    server.store("in/below/d.tsv", b"d\tit is not read\n".to_vec());
    server
}

/// Starts the program with the settings of a server that is no AWS.
fn start(scratch: &Scratch, endpoint: &str, line: &str) -> Child {
    let mut command = scratch.command(line);
    command.env("AWS_ENDPOINT_URL", endpoint).env("AWS_REGION", "us-east-1");
    command.env("AWS_ACCESS_KEY_ID", fake_s3::KEY).env("AWS_SECRET_ACCESS_KEY", "secret");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

#[track_caller]
fn run(scratch: &Scratch, server: &FakeS3, line: &str) -> Outcome {
    let child = start(scratch, &server.endpoint, line);
    scratch.check(line, child.wait_with_output().unwrap())
}

#[track_caller]
fn ok(scratch: &Scratch, server: &FakeS3, line: &str) -> Outcome {
    let outcome = run(scratch, server, line);
    assert_eq!(outcome.code, DONE, "{line}: {}", outcome.stderr);
    outcome
}

#[test]
fn a_bucket_that_answers_wrongly_gives_the_store_of_its_files() {
    let scratch = written();
    let server = stored(&scratch, 41);
    scratch.ok(&format!("build in {BUILD} --store whole"));
    let kinds = [
        Fault::Status(500),
        Fault::Status(503),
        Fault::Status(429),
        Fault::Drop,
        Fault::Cut,
        Fault::Short,
    ];
    server.fail(250, &kinds);
    let all = "s3://bucket/in/a.parquet s3://bucket/in/b.jsonl.gz s3://bucket/in/c.tsv";
    for (n, inputs) in ["s3://bucket/in/", "s3://bucket/in", all].into_iter().enumerate() {
        ok(&scratch, &server, &format!("build {inputs} {BUILD} --store far{n}"));
        assert!(scratch.contents(&format!("far{n}")) == scratch.contents("whole"), "{inputs}");
    }
    assert!(server.faults(|_| true) > 10, "{}", server.faults(|_| true));
    server.fail(0, &kinds);
    // Built by files of both kinds in turn, and planned without being built.
    scratch.ok(&format!("build in/a.parquet {BUILD} --store mixed"));
    scratch.ok(&format!("build in/b.jsonl.gz in/c.tsv {BUILD} --store mixed --append"));
    ok(&scratch, &server, &format!("build s3://bucket/in/a.parquet {BUILD} --store added"));
    let rest = "s3://bucket/in/b.jsonl.gz in/c.tsv";
    ok(&scratch, &server, &format!("build {rest} {BUILD} --store added --append"));
    assert!(scratch.contents("added") == scratch.contents("mixed"));
    let plan = |inputs: &str| {
        let line = format!("build {inputs} {BUILD} --store planned --dry-run --json");
        let plan = ok(&scratch, &server, &line).json().remove(0);
        ["documents", "chunks", "tokens"].map(|field| plan[field].as_u64().unwrap())
    };
    assert_eq!(plan("s3://bucket/in"), plan("in"));
    assert!(!scratch.path("planned").exists());
    // The whole input that is there again leaves all as it is.
    ok(&scratch, &server, &format!("build s3://bucket/in {BUILD} --store whole"));
    let url = format!("file://{}", scratch.path("in").display());
    scratch.ok(&format!("build {url} {BUILD} --store named"));
    assert!(scratch.contents("named") == scratch.contents("whole"));
}

#[test]
fn of_parquet_only_the_columns_of_documents_are_read() {
    let scratch = written();
    let server = stored(&scratch, 42);
    let bytes = fs::metadata(scratch.path("in/a.parquet")).unwrap().len();
    let line = format!("build s3://bucket/in/a.parquet {BUILD} --store store");
    ok(&scratch, &server, &line);
    let ranged = |seen: &fake_s3::Seen| seen.method == "HEAD" || seen.range.is_some();
    assert!(server.seen().iter().all(ranged), "{:?}", server.seen());
    // The end of the file is read each time that it is opened, the first row group to look at its first rows.
    let ranges = server.seen().into_iter().filter_map(|seen| seen.range);
    let data: u64 =
        ranges.filter(|range| range.end != bytes).map(|range| range.end - range.start).sum();
    assert!(data < bytes / 5, "{data} of {bytes}");
    assert!(bytes > 500_000, "{bytes}");
}

#[test]
fn an_object_that_is_replaced_is_refused() {
    let scratch = written();
    scratch.ok(&format!("build in {BUILD} --store whole"));
    for name in ["a.parquet", "b.jsonl.gz", "c.tsv"] {
        let mut refused = 0;
        // Slow answers are right ones.
        for before in 1..8 {
            let server = stored(&scratch, 43);
            let faults: Vec<Fault> =
                std::iter::repeat_n(Fault::Slow, before).chain([Fault::Replaced]).collect();
            server.fail_next(&faults);
            let line = format!("build s3://bucket/in/{name} {BUILD} --store store{name}{before}");
            let outcome = run(&scratch, &server, &line);
            if outcome.code == FAILED {
                let said = format!("s3://bucket/in/{name}: it was replaced or removed");
                outcome.says(&[&said, "run the command again"]);
                refused += 1;
            }
        }
        assert!(refused > 1, "{name}: {refused}");
    }
}

#[test]
fn workers_share_an_input_in_a_bucket_and_count_it_once() {
    let scratch = written();
    let server = stored(&scratch, 44);
    // One document a shard: seven spans in the Parquet file alone. A language that is named is not guessed from
    // the first documents.
    let build = "TINY --unit-rows 1 --language english";
    scratch.ok(&format!("build in/a.parquet {build} --store whole"));
    let worker = |part: &str| {
        format!("build s3://bucket/in/a.parquet {build} --store store --partition {part}")
    };
    let children = ["1/2", "2/2"].map(|part| start(&scratch, &server.endpoint, &worker(part)));
    for child in children {
        let outcome = Outcome::of(child.wait_with_output().unwrap());
        assert_eq!(outcome.code, DONE, "{}", outcome.stderr);
    }
    // A worker that comes late fetches what was counted, and of the input what it builds.
    let ranges = || {
        let seen = server.seen().into_iter().filter(|seen| seen.method == "GET");
        seen.filter_map(|seen| seen.range).collect::<Vec<_>>()
    };
    let before = ranges().len();
    ok(&scratch, &server, &worker("1/1"));
    let bytes = fs::metadata(scratch.path("in/a.parquet")).unwrap().len();
    let read = ranges().split_off(before);
    assert!(read.iter().all(|range| range.end == bytes), "only the footer: {read:?}");
    for folder in ["spans", "done"] {
        for entry in fs::read_dir(scratch.path("store/build").join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_string_lossy().starts_with("000006") {
                fs::remove_file(path).unwrap();
            }
        }
    }
    let before = ranges().len();
    let report = ok(&scratch, &server, &format!("{} --json", worker("1/1"))).json().remove(0);
    assert_eq!((&report["spans"], &report["spans_built"]), (&json!(7), &json!(1)));
    assert_eq!((&report["rows"], &report["finished"]), (&json!(PARTS.0), &json!(true)));
    // The span has the last four documents, which are in the last of five row groups.
    let last_group = bytes - bytes / 5 - 10_000;
    let read = ranges().split_off(before);
    assert!(read.iter().all(|range| range.start > last_group), "{read:?} of {bytes}");
    let is_data = |range: &Range<u64>| range.start > last_group && range.end < bytes;
    assert!(read.iter().any(is_data), "{read:?}");

    // Other settings are counted, and found to be of another input.
    let limited = run(&scratch, &server, &format!("{} --limit 50", worker("1/1")));
    assert_eq!(limited.code, FAILED);
    limited.says(&["another input", "100 rows", "50 rows"]);
    // A new version of the object, though of the same length.
    let mut other = fs::read(scratch.path("in/a.parquet")).unwrap();
    other[1000] ^= 1;
    let same = fs::read(scratch.path("in/a.parquet")).unwrap();
    server.store("in/a.parquet", other);
    let changed = run(&scratch, &server, &worker("1/1"));
    assert_eq!(changed.code, FAILED);
    changed.says(&["from another version of the input", "s3://bucket/in/a.parquet has changed"]);
    // Files have no such versions: their rows count.
    scratch.ok(&format!("build in/a.parquet {build} --store store --partition 1/1"));
    server.store("in/a.parquet", same);
    scratch.ok("merge --store store");
    assert!(scratch.contents("store") == scratch.contents("whole"));
    ok(&scratch, &server, &worker("1/1")).says(&["every span is done"]);
    assert!(!scratch.path("store/build").exists());
}

#[test]
fn what_a_bucket_does_not_give_is_said_in_a_sentence() {
    let scratch = written();
    let server = stored(&scratch, 45);
    let parquet = fs::read(scratch.path("in/a.parquet")).unwrap();
    server.store("odd/cut.parquet", parquet[..parquet.len() - 9].to_vec());
    server.store("odd/empty.parquet", vec![]);
    server.store("notes/README.md", vec![1]);
    server.store("empty/x.tsv", vec![]);
    for (inputs, parts) in [
        ("s3://bucket/in/none.tsv", &["s3://bucket/in/none.tsv: there is no such object"][..]),
        ("s3://bucket/none/", &["s3://bucket/none/: there is no such object"]),
        ("s3://bucket/in/*.tsv", &["a pattern is not read there"]),
        ("s3://bucket/notes/", &["s3://bucket/notes/: it holds no .parquet"]),
        ("s3://bucket/notes/README.md", &["README.md: not a known kind of file", "--input-format"]),
        ("s3://absent/in/a.tsv", &["s3://absent/in/a.tsv: the place refuses", "no bucket"]),
        ("s3://b/x.tsv", &["s3://b/x.tsv: the place refuses"]),
        ("gs://bucket/x.tsv", &["read from paths and s3:// alone"]),
        ("s3://key:secret@bucket/x.tsv", &["AWS_SECRET_ACCESS_KEY"]),
        ("s3://bucket/x.tsv?secret", &["s3://bucket/x.tsv: the place refuses"]),
        ("s3://bucket/odd/cut.parquet", &["cut.parquet: cannot be decoded as Parquet"]),
        ("s3://bucket/odd/empty.parquet", &["empty.parquet: cannot be decoded as Parquet"]),
        ("s3://bucket/empty/", &["the corpus has no document"]),
        ("s3://bucket/in/a.parquet?endpoint=http://127.0.0.1:9", &["the place cannot be reached"]),
    ] {
        let line = format!("build {inputs} {BUILD} --store store");
        let outcome = run(&scratch, &server, &line);
        assert_eq!(outcome.code, FAILED, "{inputs}: {}", outcome.stderr);
        outcome.says(parts);
        assert!(!outcome.stderr.contains("secret@") && !outcome.stderr.contains("?secret"));
        assert!(!scratch.path("store").exists(), "{inputs}");
    }
    let line = format!("build s3://bucket/in/ {BUILD} --store store");
    let mut command = scratch.command(&line);
    command.env("AWS_ENDPOINT_URL", &server.endpoint);
    command.env("AWS_ACCESS_KEY_ID", "other").env("AWS_SECRET_ACCESS_KEY", "secret");
    let outcome = scratch.check(&line, command.output().unwrap());
    assert_eq!(outcome.code, FAILED);
    outcome.says(&["s3://bucket/in/: the place refuses: no right to the object"]);
    // Rows are named by their object.
    server.store("rows/x.jsonl", b"{\"_id\": \"a\", \"text\": \"b\"}\nno JSON\n".to_vec());
    let outcome = run(&scratch, &server, &format!("build s3://bucket/rows {BUILD} --store store"));
    outcome.says(&["s3://bucket/rows/x.jsonl:2: not valid JSON"]);
}
