//! The jobs for which users run the program.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use hyperrag_core::{DocId, Document, Profile, Tokenize};
use hyperrag_corpus::Chunker;
use hyperrag_model::ModelFile;
use serde_json::{Value, json};

use crate::support::{
    DEGRADED, FAILED, MISMATCH, Scratch, USAGE, jsonl, passages, ranked, testdata,
};

fn built(kv_dtype: &str) -> Scratch {
    let scratch = Scratch::new();
    let line =
        format!("build CORPUS --store store TINY --unit-rows 64 --kv-dtype {kv_dtype} --json");
    let summary = &scratch.ok(&line).json()[0];
    assert_eq!((&summary["documents"], &summary["shards"]), (&json!(160), &json!(3)));
    scratch
}

#[test]
fn a_question_gets_a_table_a_json_line_and_a_run() {
    let scratch = built("bf16");
    let query = "query --store store TINY -k 3 honeybees";
    let table = scratch.ok(query).stdout;
    assert!(table.starts_with("query\tscore\trank\tid\ttitle\tsnippet\n"), "{table}");
    assert!(table.contains("\tp001\t"), "{table}");
    let answers = scratch.ok(&format!("{query} --json")).json();
    let hits = answers[0]["hits"].as_array().unwrap();
    assert_eq!(answers.len(), 1);
    assert!(!hits.is_empty() && hits.len() <= 3);
    assert_eq!(answers, {
        let mut jsonl = scratch.ok(&format!("{query} --format jsonl")).json();
        jsonl[0]["stats"] = answers[0]["stats"].clone();
        jsonl
    });
    let run = scratch.ok(&format!("{query} --format trec")).stdout;
    for (line, hit) in run.lines().zip(hits) {
        let fields: Vec<&str> = line.split(' ').collect();
        assert_eq!((fields[0], fields[1], fields[5]), ("1", "Q0", "hyperrag"));
        assert_eq!(
            (fields[2], fields[3].parse().ok()),
            (hit["id"].as_str().unwrap(), hit["rank"].as_u64())
        );
        assert_eq!(fields[4].parse::<f32>().unwrap(), hit["score"].as_f64().unwrap() as f32);
    }
    assert_eq!(run.lines().count(), hits.len());
    let none = scratch.ok("query --store store TINY --json xylophonist");
    assert_eq!(none.json()[0]["hits"], json!([]));
    let none = scratch.ok("query --store store TINY --format trec xylophonist");
    assert_eq!(none.stdout, "");
}

#[test]
fn products_of_bf16_and_int8_are_other_kernels() {
    for dtype in ["bf16", "int8"] {
        let scratch = Scratch::new();
        let kernel = format!("cpu-{dtype}");
        scratch.ok(&format!("build CORPUS --store store TINY --dtype {dtype}"));
        let info = &scratch.ok("info --store store --json").json()[0];
        assert_eq!(info["fingerprint"]["compute"], dtype);
        assert!(info["fingerprint"]["kernel"].as_str().unwrap().starts_with(&kernel), "{info}");
        // A query computes in the store's type, unless it is told otherwise.
        let query = "query --store store TINY --json --queries QUERIES -k 100";
        let stored = scratch.ok(query);
        assert_eq!(ranked(&stored), ranked(&scratch.ok(&format!("{query} --recompute"))));
        assert_eq!(ranked(&stored), ranked(&scratch.ok(&format!("{query} --dtype auto"))));
        let exact = scratch.ok(&format!("{query} --dtype f32"));
        let agree = if dtype == "bf16" { "within 0.02" } else { "nearly" };
        exact.says(&[&kernel, "cpu-f32-v1", "not to the bit", agree]);
        assert!(scratch.ok("info --store store").stdout.contains(agree));
        assert_ne!(ranked(&stored), ranked(&exact));
        let resumed = scratch.ends(MISMATCH, "build CORPUS --store store TINY --dtype f32");
        resumed.says(&["compute"]);
        scratch.ok("build CORPUS --store store TINY").says(&["up to date"]);
        let info = scratch.ok("info --store store").stdout;
        assert!(info.starts_with("computed") && info.contains("of those in f32"), "{info}");
        let refused = scratch.ends(FAILED, &format!("{query} --dtype f16"));
        refused.says(&["--dtype f32, bf16 or int8"]);
    }
}

/// A new store is computed in the type that the machine multiplies fast. The first line of a build
/// names that type.
#[test]
fn a_new_store_is_computed_in_what_the_machine_multiplies_fast() {
    let scratch = Scratch::new();
    let built = scratch.ok("build CORPUS --store store TINY --device cpu");
    let info = &scratch.ok("info --store store --json").json()[0];
    let best = hyperrag_model::Kernel::best();
    let (dtype, kernel) = (best.dtype().name(), best.id(best.dtype()));
    assert_eq!(info["fingerprint"]["compute"], dtype);
    assert_eq!(info["fingerprint"]["kernel"], kernel);
    let first = built.stderr.lines().next().unwrap();
    let start = format!("computing in {dtype} on the CPU ({}, ", best.name());
    assert!(first.starts_with(&start), "{first}");
    assert_eq!(first.contains("--dtype f32 for f32"), dtype != "f32", "{first}");
    let planned = "build CORPUS --store store TINY --device cpu --dry-run --json";
    let planned = &scratch.ok(planned).json()[0];
    assert_eq!((&planned["compute"], &planned["kernel"]), (&json!(dtype), &json!(kernel)));
    let model = &scratch.ok(&format!("model info {} --json", testdata("tiny.gguf"))).json()[0];
    assert_eq!(model["compute_auto"], dtype);

    // Same blocks and scores as with the type by its name, or with auto.
    let query = "query TINY --json --queries QUERIES -k 100 --store";
    let scores = ranked(&scratch.ok(&format!("{query} store")));
    for named in [dtype, "auto"] {
        scratch.ok(&format!("build CORPUS --store {named} TINY --dtype {named}"));
        assert_eq!(scratch.contents(named), scratch.contents("store"), "{named}");
        assert_eq!(ranked(&scratch.ok(&format!("{query} {named}"))), scores, "{named}");
    }
    let unknown = "build CORPUS --store store TINY --dtype int4";
    scratch.ends(USAGE, unknown).says(&["auto, f16, bf16, f32 or int8"]);
}

#[test]
fn a_build_says_which_columns_it_takes() {
    let scratch = Scratch::new();
    scratch.write(
        "a.jsonl",
        "{\"docno\": 1, \"heading\": \"Bees\", \"body\": \"b\", \"url\": \"u\"}\n",
    );
    let sentence =
        r#"columns: id from "docno", title from "heading", text from "body"; left out: "url""#;
    for build in ["build a.jsonl --store store TINY --dry-run", "build a.jsonl --store store TINY"]
    {
        let told = scratch.ok(build);
        assert!(told.stderr.contains(sentence), "{}", told.stderr);
        assert!(!told.stderr.contains("different columns"), "{}", told.stderr);
    }
    scratch.write("b.jsonl", "{\"id\": 2, \"title\": \"Ants\", \"text\": \"b\"}\n");
    let told = scratch.ok("build a.jsonl b.jsonl --store both TINY --dry-run --json");
    told.says(&["the files have different columns: b.jsonl: id from \"id\", title from \"title\""]);
    let columns = &told.json()[0]["columns"];
    let expected = json!({
        "id": "docno",
        "title": "heading",
        "text": "body",
        "by_position": false,
        "left_out": ["url"],
        "left_out_more": 0,
        "other_files": [{"file": "b.jsonl", "id": "id", "title": "title", "text": "text"}],
        "other_files_more": 0,
    });
    assert_eq!(*columns, expected);
    scratch.write("c.tsv", "1\tno header\n");
    let told = scratch.ok("build c.tsv --store none TINY --dry-run --json");
    let columns = &told.json()[0]["columns"];
    let expected = (&json!(true), &json!("1"), &json!(null), &json!("2"));
    let told = (&columns["by_position"], &columns["id"], &columns["title"], &columns["text"]);
    assert_eq!(told, expected);
    let text = "build c.tsv --store none TINY --dry-run";
    scratch.ok(text).says(&["columns: id from field 1, no title, text from field 2"]);
    scratch.write("d.csv", "1,u,Bees,no header\n");
    let text = "build d.csv --store none TINY --dry-run";
    scratch.ok(text).says(&["title from field 3, text from field 4; left out: field 2"]);
    scratch.write("e.tsv", "one field\n");
    assert_eq!(scratch.run("build e.tsv --store none TINY --dry-run --json").code, FAILED);
}

/// Earlier stores were in f32 by default.
#[test]
fn a_store_goes_on_in_the_type_that_it_was_begun_in() {
    let scratch = Scratch::new();
    let rows = passages();
    scratch.write("whole.jsonl", jsonl(&rows));
    scratch.write("corpus.jsonl", format!("{}{{", jsonl(&rows[..70])));
    let build = "corpus.jsonl --store store TINY --unit-rows 32";
    for dtype in ["f32", "int8"] {
        let _ = fs::remove_dir_all(scratch.path("store"));
        let whole = format!("build whole.jsonl --store {dtype} TINY --unit-rows 32");
        scratch.ok(&format!("{whole} --dtype {dtype} --limit 70"));
        scratch.write("corpus.jsonl", format!("{}{{", jsonl(&rows[..70])));
        scratch.ends(FAILED, &format!("build {build} --dtype {dtype}"));
        scratch.write("corpus.jsonl", jsonl(&rows[..70]));
        let other = format!("build {build} --dtype bf16");
        scratch.ends(MISMATCH, &other).says(&["compute", dtype, "bf16"]);
        let said = format!("computing in {dtype} on the CPU");
        scratch.ok(&format!("build {build} --device cpu")).says(&[&said]);
        assert_eq!(scratch.contents("store"), scratch.contents(dtype));
        scratch.ok(&format!("build {build}")).says(&["up to date"]);
        let added = "build whole.jsonl --store store TINY --append --device cpu";
        scratch.ok(added).says(&[&said]);
        scratch.ok("verify --store store TINY --recompute --device cpu");
    }
}

#[test]
fn stored_and_recomputed_scores_have_the_same_bits() {
    for kv_dtype in ["bf16", "f32", "int8"] {
        let scratch = built(kv_dtype);
        let query = "query --store store TINY --json --queries QUERIES -k 100";
        let stored = scratch.ok(query);
        assert_eq!(stored.stdout.lines().count(), 40);
        let recomputed = scratch.ok(&format!("{query} --recompute"));
        assert_eq!(ranked(&stored), ranked(&recomputed), "{kv_dtype}");
        let stats = |value: &Value, name: &str| value["stats"][name].as_u64().unwrap();
        for (stored, recomputed) in stored.json().iter().zip(recomputed.json()) {
            assert_eq!(stats(&recomputed, "bytes_read"), 0);
            assert!(stats(stored, "bytes_read") > 0);
            assert!(stats(stored, "tokens_computed") < stats(&recomputed, "tokens_computed"));
        }
        let bench = "bench --store store TINY --query-count 2 --runs 2 --depth 20";
        let report = &scratch.ok(&format!("{bench} --json --queries QUERIES")).json()[0];
        let comparisons = report["comparisons"].as_array().unwrap();
        assert_eq!(comparisons.len(), 4);
        for comparison in comparisons {
            assert_eq!(comparison["bit_equal"], true);
            assert_eq!(comparison["kendall_tau"], 1.0);
            assert_eq!(comparison["top10_overlap"], 1.0);
            assert_eq!(comparison["score_difference_max"], 0.0);
        }
        assert_eq!(report["conditions"]["element"], kv_dtype);
        let table = scratch.ok(bench);
        assert!(table.stdout.contains("\nlatency p50\t"), "{}", table.stdout);
        table.says(&["equal to the bit"]);
    }
}

#[test]
fn a_bench_writes_the_token_ids_that_it_computes() {
    let scratch = Scratch::new();
    // With words before the query, and some documents of several chunks.
    scratch.ok("build CORPUS --store store TINY --profile plain --chunk-tokens 160");
    let search = "--store store TINY --queries first.tsv --depth 30";
    let text = "How do honeybees tell each other where the flowers are?";
    scratch.write("first.tsv", format!("1\t{text}\n"));
    let bench = scratch.ok(&format!("bench {search} --workload workload.json"));
    assert_eq!(bench.stdout, "");
    let workload: Value =
        serde_json::from_slice(&fs::read(scratch.path("workload.json")).unwrap()).unwrap();

    let tokenizer =
        ModelFile::open(Path::new(&testdata("tiny.gguf"))).unwrap().tokenizer().unwrap();
    let profile = Profile::built_in("plain").unwrap();
    let mut query = tokenizer.encode_template(&profile.query_prefix).unwrap();
    query.extend(tokenizer.encode_text(text).unwrap());
    assert_eq!(workload["query"], json!(query));

    let chunker = Chunker::new(&tokenizer, &profile, 160).unwrap();
    let field = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    let documents = passages().into_iter().map(|row| Document {
        id: DocId::new(&field(&row, "_id")).unwrap(),
        title: field(&row, "title"),
        text: field(&row, "text"),
    });
    let chunks: HashMap<String, Vec<Vec<u32>>> = documents
        .map(|document| {
            let chunks = chunker.chunks(&document).unwrap();
            (document.id.as_str().to_owned(), chunks.into_iter().map(|c| c.tokens).collect())
        })
        .collect();
    let mut ids: Vec<&str> =
        workload["ids"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    let scores = workload["scores"].as_array().unwrap();
    let mut best: HashMap<String, f32> = HashMap::new();
    for (id, score) in ids.iter().zip(scores) {
        let best = best.entry((*id).to_owned()).or_insert(f32::NEG_INFINITY);
        *best = best.max(score.as_f64().unwrap() as f32);
    }
    let blocks = ids.len();
    ids.dedup();
    assert!(ids.len() < blocks, "no document has several chunks");
    let expected: Vec<_> = ids.iter().flat_map(|id| &chunks[*id]).collect();
    assert_eq!(workload["documents"], json!(expected));

    let (_, hits) = &ranked(&scratch.ok(&format!("query {search} -k 30 --json")))[0];
    let answered: HashMap<_, _> =
        hits.iter().map(|(id, score)| (id.clone(), f32::from_bits(*score))).collect();
    assert_eq!(best, answered);
    scratch.ends(USAGE, &format!("bench {search} --workload w.json --out o.json")).says(&["--out"]);
    scratch.write("first.tsv", "1\txylophonist\n");
    let nothing = scratch.ends(FAILED, &format!("bench {search} --workload none.json"));
    nothing.says(&["no query found any document"]);
    assert!(!scratch.path("none.json").exists());
}

#[test]
fn queries_come_from_files_and_stdin() {
    let scratch = built("bf16");
    let texts = ["How do honeybees dance?", "bread that is heavy", "buses in winter"];
    let rows = (1..).zip(texts).map(|(id, text)| json!({"_id": id.to_string(), "text": text}));
    scratch.write("q.jsonl", jsonl(&rows.collect::<Vec<_>>()));
    let rows: Vec<String> =
        (1..).zip(texts).map(|(id, text): (u8, _)| format!("{id}\t{text}\n")).collect();
    scratch.write("q.tsv", rows.concat());
    let answers = ranked(&scratch.ok("query --store store TINY --json --queries q.jsonl"));
    assert_eq!(answers.len(), 3);
    assert!(answers.iter().all(|(_, hits)| !hits.is_empty()));
    assert_eq!(answers, ranked(&scratch.ok("query --store store TINY --json --queries q.tsv")));
    let stdin = texts.join("\n");
    let piped = scratch.run_with_stdin("query --store store TINY --json -", &stdin);
    assert_eq!((piped.code, ranked(&piped)), (0, answers.clone()));
    // Queries of a file are computed together, each with its own result; a failed one keeps its place.
    scratch.write("mixed.tsv", [&rows[0], "0\t  \n", &rows[1], &rows[2]].concat());
    let mixed = scratch.ends(DEGRADED, "query --store store TINY --json --queries mixed.tsv");
    mixed.says(&["query 0"]);
    assert_eq!(ranked(&mixed), answers);
    for (text, (_, hits)) in texts.iter().zip(&answers) {
        scratch.write("one.tsv", format!("1\t{text}\n"));
        let alone = scratch.ok("query --store store TINY --json --queries one.tsv");
        assert_eq!(&ranked(&alone)[0].1, hits, "{text}");
    }
    scratch.write("latin.tsv", b"1\tbread\n2\tcaf\xe9\n");
    let refused = scratch.ends(1, "query --store store TINY --queries latin.tsv");
    refused.says(&["latin.tsv:2"]);
}

#[test]
fn candidates_of_a_run_are_ranked_as_those_of_bm25() {
    let scratch = built("bf16");
    let query =
        "query --store store TINY --queries QUERIES --depth 30 -k 30 --format trec --fuse none";
    let run = scratch.ok(query).stdout;
    // In another order, so that the ranks are the reranker's.
    let mut lines: Vec<&str> = run.lines().collect();
    lines.reverse();
    scratch.write("reversed.run", lines.join("\n"));
    let again = scratch.ok(&format!("{query} --candidates reversed.run")).stdout;
    assert_eq!(again, run);
    // Only queries of a file have ids that a run may name.
    for typed in ["bees", "-"] {
        let line = format!("query --store store TINY {typed} --candidates reversed.run");
        scratch.ends(USAGE, &line).says(&["--candidates"]);
    }

    scratch
        .write("strange.run", "q01 Q0 p001 1 1.0 x\nq02 Q0 nowhere 1 1.0 x\nq03 Q0 p002 1 1.0 x\n");
    let line = format!("{query} --candidates strange.run --on-missing fail");
    let degraded = scratch.ends(DEGRADED, &line);
    degraded.says(&["strange.run:2: query q02: the store has no document \"nowhere\""]);
    assert_eq!(degraded.stderr.matches("q02").count(), 1, "{}", degraded.stderr);
    assert!(degraded.stdout.contains("q01 Q0 p001") && degraded.stdout.contains("q03 Q0 p002"));
    assert!(degraded.stderr.contains("query q04: the run of candidates does not name it"));
}

#[test]
fn stores_and_models_are_described() {
    let scratch = built("bf16");
    let text = scratch.ok("info --store store").stdout;
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let best = hyperrag_model::Kernel::best();
    let kernel = best.id(best.dtype());
    for part in ["state complete", "documents 160", "tiny", "bf16", kernel] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let manifest = &scratch.ok("info --store store --json").json()[0];
    assert_eq!(manifest["complete"], true);
    assert_eq!(manifest["shards"].as_array().unwrap().len(), 3);
    let list = scratch.ok("model list").stdout;
    assert!(list.contains("smollm2-135m") && list.contains("not pulled"), "{list}");
    assert_eq!(scratch.ok("model list --json").json()[0]["path"], Value::Null);
    let tiny = testdata("tiny.gguf");
    let model = &scratch.ok(&format!("model info {tiny} --json")).json()[0];
    assert_eq!((&model["layers"], &model["kv_bytes_a_token_bf16"]), (&json!(2), &json!(256)));
}

#[test]
fn a_dry_run_counts_what_a_build_stores_and_writes_nothing() {
    let scratch = Scratch::new();
    let plan = scratch.ok("build CORPUS --store store TINY --dry-run --json").json();
    assert!(!scratch.path("store").exists());
    let built = scratch.ok("build CORPUS --store store TINY --json").json();
    for field in ["documents", "chunks", "tokens", "empty_rows"] {
        assert_eq!(plan[0][field], built[0][field], "{field}");
    }
    let (about, bytes) = (plan[0]["bytes"].as_f64().unwrap(), built[0]["bytes"].as_f64().unwrap());
    assert!((about / bytes - 1.0).abs() < 0.05, "{about} {bytes}");
}

#[test]
fn a_limit_takes_the_first_rows() {
    let scratch = Scratch::new();
    let built = scratch.ok("build CORPUS --store store TINY --limit 10 --json").json();
    assert_eq!(built[0]["documents"], 10);
    scratch.write("ten.jsonl", jsonl(&passages()[..10]));
    scratch.ok("build ten.jsonl --store ten TINY");
    assert_eq!(scratch.contents("store"), scratch.contents("ten"));
}

#[test]
fn every_format_gives_the_same_store() {
    let scratch = Scratch::new();
    let passages = passages();
    scratch.write("all.jsonl", jsonl(&passages));
    fs::create_dir(scratch.path("parts")).unwrap();
    scratch.write("parts/a.jsonl", jsonl(&passages[..70]));
    scratch.write("parts/b.jsonl", jsonl(&passages[70..]));
    scratch.ok("build CORPUS --store parquet TINY --unit-rows 64");
    let expected = scratch.contents("parquet");
    assert_eq!(expected.len(), 6);
    for (store, input) in [("s1", "all.jsonl"), ("s2", "parts"), ("s3", "parts/*.jsonl")] {
        scratch.ok(&format!("build {input} --store {store} TINY --unit-rows 64"));
        assert_eq!(scratch.contents(store), expected, "{input}");
    }
}

#[test]
fn tab_separated_rows_give_the_same_store() {
    let scratch = Scratch::new();
    let mut rows = passages();
    rows.retain(|row| !row["text"].as_str().unwrap().contains(['\n', '\t']));
    scratch.write("all.jsonl", jsonl(&rows));
    let field = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    let lines = rows.iter().map(|row| {
        format!("{}\t{}\t{}\n", field(row, "_id"), field(row, "title"), field(row, "text"))
    });
    scratch.write("all.tsv", lines.collect::<String>());
    scratch.ok("build all.jsonl --store s1 TINY");
    scratch.ok("build all.tsv --store s2 TINY");
    assert_eq!(scratch.contents("s1"), scratch.contents("s2"));
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let scratch = Scratch::new();
    let line = "build CORPUS --store store --print-config";
    let threads = |flag: &str, environment: Option<&str>| {
        let mut command = scratch.command(&format!("{line} {flag}"));
        command.envs(environment.map(|value| ("HYPERRAG_THREADS", value)));
        let outcome = scratch.check(line, command.output().unwrap());
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        outcome.stdout.lines().find(|line| line.starts_with("threads")).unwrap().to_owned()
    };
    assert_eq!(threads("", None), "threads = 0");
    scratch.write("hyperrag.toml", "store = 'elsewhere'\n[build]\nthreads = 5\nunit-rows = 7\n");
    assert_eq!(threads("", None), "threads = 5");
    assert_eq!(threads("", Some("6")), "threads = 6");
    assert_eq!(threads("--threads 4", Some("6")), "threads = 4");
    scratch.write("other.toml", "threads = 9\n");
    assert_eq!(threads("--config other.toml", None), "threads = 9");
    let printed = scratch.ok(line).stdout;
    assert!(
        printed.contains("store = \"store\"") && printed.contains("unit-rows = 7"),
        "{printed}"
    );
    // The output is itself a settings file.
    scratch.write("printed.toml", &printed);
    assert_eq!(scratch.ok(&format!("{line} --config printed.toml")).stdout, printed);
    assert!(!scratch.path("store").exists());

    scratch.write("hyperrag.toml", "[build]\ncolour = 1\n");
    scratch.ends(USAGE, line).says(&["hyperrag.toml", "build.colour"]);
    scratch.write("hyperrag.toml", "[build\n");
    let broken = scratch.ends(USAGE, line);
    broken.says(&["hyperrag.toml", "line 1"]);
    assert_eq!(broken.stderr.lines().count(), 1, "{}", broken.stderr);
    scratch.ends(1, &format!("{line} --config none.toml")).says(&["none.toml", "cannot be read"]);
}

#[test]
fn what_is_asked_on_the_command_line_wins_over_queries_of_the_file() {
    let scratch = Scratch::new();
    scratch.write("corpus.jsonl", jsonl(&passages()[..8]));
    scratch.ok("build corpus.jsonl --store store TINY");
    scratch
        .write("q.jsonl", "{\"_id\":\"q1\",\"text\":\"honey\"}\n{\"_id\":\"q2\",\"text\":\"x\"}\n");
    scratch.write("run", "q1 Q0 p001 1 1.0 t\n");
    let line = "query --store store TINY --json";
    let none = scratch.ends(USAGE, line);
    none.says(&["no query", "--queries FILE"]);
    let typed = scratch.ok(&format!("{line} bees")).json();
    scratch.write("hyperrag.toml", "[query]\nqueries = 'q.jsonl'\ncandidates = 'run'\n");
    let answers = |line: &str| {
        let answers = scratch.ok(line).json();
        let asked = answers.iter().map(|answer| answer["query"].as_str().unwrap().to_owned());
        (asked.collect::<Vec<_>>(), answers[0]["hits"].clone())
    };
    assert_eq!(answers(line).0, ["honey", "x"]);
    assert_eq!(
        answers(&format!("{line} bees")),
        (vec!["bees".to_owned()], typed[0]["hits"].clone())
    );

    scratch.ends(USAGE, "replicate --store store").says(&["--to DIR"]);
    scratch.write("hyperrag.toml", "[replicate]\nto = 'copy'\n");
    scratch.ok("replicate --store store");
    assert!(scratch.path("copy/manifest.json").exists());
}
