//! Profiles that score by labels or a logit, with words after the query.

use std::fs;
use std::path::Path;

use hyperrag_core::{
    Chunk, ChunkId, DocId, KvDtype, LanguageModel, Pair, QuerySuffix, Scorer, Tokenize,
};
use hyperrag_model::testing::tiny::Tiny;
use hyperrag_model::{ComputeDtype, CpuModel, Kernel, ModelFile};
use serde_json::{Value, json};

use crate::support::{FAILED, MISMATCH, Scratch, ranked, testdata};

/// Returns a profile whose suffix has a special token.
fn profile(scorer: &str, keys: &str) -> String {
    format!(
        "name = \"judge\"\nscorer = \"{scorer}\"\ndocument = \"Passage: {{title}}. {{text}}\"\n\
         infix = \"\\nQuery: \"\nquery = \"> {{query}}<|im_end|>\\nRelevant:\"\n{keys}"
    )
}

const LABEL: &str = "yes = \" the\"\nno = \" a\"\n";

#[test]
fn labels_and_logits_are_reused_to_the_bit() {
    let scratch = Scratch::new();
    scratch.write("label.toml", profile("label", LABEL));
    scratch.write("turned.toml", profile("label", "yes = \" a\"\nno = \" the\"\n"));
    scratch.write("logit.toml", profile("logit", "token = \"<|im_start|>\"\n"));
    for kv_dtype in ["bf16", "int4"] {
        let build = "build CORPUS TINY --profile label.toml --unit-rows 16 --chunk-tokens 128";
        scratch.ok(&format!("{build} --store store-{kv_dtype} --kv-dtype {kv_dtype}"));
        let ask = |profile: &str, options: &str| {
            let line = format!(
                "query --store store-{kv_dtype} TINY --queries QUERIES --depth 20 -k 20 --json"
            );
            ranked(&scratch.ok(&format!("{line} --profile {profile} {options}")))
        };
        let label = ask("label.toml", "");
        assert!(label.len() > 5 && label.iter().all(|(_, hits)| hits.len() > 1));
        assert_eq!(label, ask("label.toml", "--recompute --threads 1"), "{kv_dtype}");
        // The document part is the same, so one store serves all of them.
        let logit = ask("logit.toml", "");
        assert_eq!(logit, ask("logit.toml", "--recompute"), "{kv_dtype}");
        assert_ne!(label, logit);
        let turned = ask("turned.toml", "--aggregate first");
        for ((query, hits), (_, turned)) in
            ask("label.toml", "--aggregate first").iter().zip(&turned)
        {
            for (id, score) in hits {
                let (_, other) = turned.iter().find(|(other, _)| other == id).unwrap();
                assert_eq!(f32::from_bits(*score), -f32::from_bits(*other), "{query}, {id}");
            }
        }
    }
}

#[test]
fn the_query_stays_text_between_the_words_of_the_profile() {
    let scratch = Scratch::new();
    scratch.write("label.toml", profile("label", LABEL));
    let text = "What does <|im_end|> mean to bees?";
    scratch.write("q.tsv", format!("1\t{text}\n"));
    scratch.ok("build CORPUS --store store TINY --profile label.toml");
    let search = "--store store TINY --profile label.toml --queries q.tsv --depth 5";
    scratch.ok(&format!("bench {search} --workload workload.json"));
    let workload: Value =
        serde_json::from_slice(&fs::read(scratch.path("workload.json")).unwrap()).unwrap();
    let tokenizer =
        ModelFile::open(Path::new(&testdata("tiny.gguf"))).unwrap().tokenizer().unwrap();
    let template = |text: &str| tokenizer.encode_template(text).unwrap();
    let query = tokenizer.encode_text(text).unwrap();
    let end = template("<|im_end|>");
    assert!(end.len() == 1 && !query.contains(&end[0]));
    let expected = [template("> "), query, template("<|im_end|>\nRelevant:")].concat();
    assert_eq!(workload["query"], json!(expected));
    let report = scratch.ok(&format!("bench {search} --query-count 1 --json")).json().remove(0);
    assert_eq!(report["comparisons"][0]["bit_equal"], true);
    let computed = |mode: &str| {
        let samples = report["samples"].as_array().unwrap();
        let sample = samples.iter().find(|sample| sample["mode"] == mode).unwrap();
        (sample["tokens_computed"].as_u64().unwrap(), sample["blocks"].as_u64().unwrap())
    };
    // Query and suffix go through the decoder whole.
    let (tokens, blocks) = computed("reuse");
    assert_eq!(tokens, blocks * expected.len() as u64);
}

#[test]
fn words_that_are_not_one_token_are_refused() {
    let scratch = Scratch::new();
    let check = |scorer: &str, keys: &str, said: &[&str]| {
        scratch.write("wrong.toml", profile(scorer, keys));
        let line = "build CORPUS --store store TINY --profile wrong.toml";
        scratch.fails_without_store(line).says(&[&["wrong.toml"], said].concat());
    };
    check(
        "label",
        "yes = \" the\"\nno = \" nowhere\"\n",
        &["no \" nowhere\"", "one token", "tokens, ["],
    );
    check("logit", "token = \"\"\n", &["token \"\"", "is none"]);
    check("label", "yes = \" the\"\n", &["label needs the key no"]);
    check("logit", LABEL, &["logit does not use the key yes"]);
    check("odds", LABEL, &["scorer \"odds\" is unknown", "label or logit"]);
    check("query-likelihood", "", &["must end with {query}", "no suffix"]);
    let first = profile("label", LABEL).replace("Passage: {title}", "{query}");
    scratch.write("first.toml", first);
    let line = "build CORPUS --store store TINY --profile first.toml";
    scratch.fails_without_store(line).says(&["not contain {query}", "document template has"]);
    scratch.write("label.toml", profile("label", LABEL));
    scratch.ok("build CORPUS --store store TINY --profile label.toml");
    scratch.write("wrong.toml", profile("label", "yes = \"maybe\"\nno = \" a\"\n"));
    let query = "query --store store TINY --profile wrong.toml bees";
    scratch.ends(FAILED, query).says(&["yes \"maybe\""]);
}

/// Compares a reranker that was trained with the query first with one run over the same tokens. Its
/// prompt takes the texts of a store that was built with another profile.
#[test]
fn a_query_that_comes_first_is_read_again_for_every_document() {
    let scratch = Scratch::new();
    scratch.write(
        "first.toml",
        "name = \"first\"\nscorer = \"label\"\ndocument = \"<|im_start|>Query: {query}\\nText: \
         {title} {text}\"\ninfix = \"\"\nquery = \"<|im_end|>\\nRelevant:\"\nyes = \" the\"\nno = \
         \" a\"\njoin_blanks = true\n",
    );
    scratch
        .write("one.jsonl", "{\"_id\": \"d\", \"title\": \"Bees\", \"text\": \"in the heat\"}\n");
    scratch
        .ends(FAILED, "build one.jsonl TINY --profile first.toml --store F")
        .says(&["profile first", "query --recompute"]);
    assert!(!scratch.path("F").exists());
    scratch.ok("build one.jsonl TINY --profile plain --kv-dtype f32 --dtype f32 --store S");
    scratch.ends(FAILED, "query TINY --store S --profile first.toml bees").says(&["--recompute"]);
    let line = "query TINY --store S --profile first.toml --recompute --json bees";
    let found = ranked(&scratch.ok(line));
    let (id, score) = &found[0].1[0];
    assert_eq!(id, "d");

    let file = ModelFile::open(Path::new(&testdata("tiny.gguf"))).unwrap();
    let tokenizer = file.tokenizer().unwrap();
    let template = |text: &str| tokenizer.encode_template(text).unwrap();
    let text = |text: &str| tokenizer.encode_text(text).unwrap();
    let document = [
        template("<|im_start|>Query:"),
        text(" bees"),
        template("\nText:"),
        text(" Bees"),
        text(" in the heat"),
    ];
    assert_eq!(
        f32::from_bits(*score),
        log_odds(&document.concat(), &template("<|im_end|>\nRelevant:"))
    );

    // Blocks of another model are not read, so recompute is allowed.
    let tiny = Tiny::new("gemma3", 3).unwrap();
    tiny.write_folder(&scratch.path("other"), 1).unwrap();
    scratch.ends(MISMATCH, "query --model other --store S --profile plain bees");
    scratch.ok("query --model other --store S --profile first.toml --recompute bees");
}

/// Returns the log-odds of ` the` against ` a` after both parts.
fn log_odds(document: &[u32], suffix: &[u32]) -> f32 {
    let mut file = ModelFile::open(Path::new(&testdata("tiny.gguf"))).unwrap();
    let tokenizer = file.tokenizer().unwrap();
    let label = |word: &str| tokenizer.encode_template(word).unwrap()[0];
    let model =
        CpuModel::load(&mut file, KvDtype::F32, ComputeDtype::F32, Kernel::best(), 1).unwrap();
    let id = ChunkId { document: DocId::new("d").unwrap(), ordinal: 0 };
    let block = model.prefill(&[Chunk { id, tokens: document.to_vec() }]).unwrap().remove(0);
    let scorer = Scorer::Label { yes: label(" the"), no: label(" a") };
    let query = QuerySuffix { tokens: suffix.to_vec(), scorer };
    model.score_resident(&[Pair { query: &query, block: &block }]).unwrap()[0]
}
