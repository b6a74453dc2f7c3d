//! Gemma 3 270M against llama.cpp's tokens and transformers' log-probabilities, made by
//! scripts/golden_gemma3.py. `make test-gemma` fetches the model (250 MB) and runs these tests.

#![expect(clippy::print_stderr, reason = "the largest difference is worth reading")]

#[path = "tiny/blocks.rs"]
mod blocks;

use std::fs;
use std::path::{Path, PathBuf};

use blocks::{bits, chunk, same};
use hyperrag_core::{KvBlock, KvDtype, LanguageModel, Tokenize};
use hyperrag_model::{ComputeDtype, CpuModel, Kernel, ModelCache, ModelFile};
use serde_json::Value;

fn path() -> PathBuf {
    let found = ModelCache::from_environment().resolve("gemma3-270m");
    found.unwrap_or_else(|error| panic!("{error}"))
}

fn golden(name: &str, list: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden").join(name);
    let golden: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    golden[list].as_array().unwrap().clone()
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
#[ignore = "needs the model: make test-gemma"]
fn tokens_are_llama_cpps() {
    let tokenizer = ModelFile::open(&path()).unwrap().tokenizer().unwrap();
    assert_eq!(tokenizer.bos(), Some("<bos>"));
    let cases = golden("gemma3-tokens.json", "cases");
    assert!(cases.len() > 40);
    for case in cases {
        let text = case["text"].as_str().unwrap();
        assert_eq!(tokenizer.encode_text(text).unwrap(), ids(&case["ids"]), "{text:?}");
        let special = tokenizer.encode_template(text).unwrap();
        assert_eq!(special, ids(&case["ids_with_special"]), "{text:?} as template");
    }
    for pair in golden("gemma3-scores.json", "pairs") {
        let document = tokenizer.encode_text(pair["document"].as_str().unwrap()).unwrap();
        let bos = tokenizer.encode_template("<bos>").unwrap();
        assert_eq!([bos, document].concat(), ids(&pair["document_tokens"]));
        let query = tokenizer.encode_text(pair["query"].as_str().unwrap()).unwrap();
        assert_eq!(query, ids(&pair["query_tokens"]));
    }
}

#[test]
#[ignore = "needs the model: make test-gemma"]
fn scores_are_transformers() {
    let mut file = ModelFile::open(&path()).unwrap();
    let model =
        CpuModel::load(&mut file, KvDtype::F32, ComputeDtype::F32, Kernel::best(), 2).unwrap();
    let pairs = golden("gemma3-scores.json", "pairs");
    assert_eq!(pairs.len(), 12);
    let chunks: Vec<_> = pairs.iter().map(|pair| chunk(&ids(&pair["document_tokens"]))).collect();
    assert!(chunks.iter().any(|chunk| chunk.tokens.len() > 1024), "one is longer than the window");
    let blocks = model.prefill(&chunks).unwrap();
    let all: Vec<&KvBlock> = blocks.iter().collect();
    let mut largest: f64 = 0.0;
    for (i, pair) in pairs.iter().enumerate() {
        let query = ids(&pair["query_tokens"]);
        let scores = model.score(&query, &all).unwrap();
        let expected = pair["mean_logprob"].as_f64().unwrap();
        let difference = (f64::from(scores[i]) - expected).abs();
        assert!(difference <= 2e-3, "pair {i}: {}, transformers gives {expected}", scores[i]);
        largest = largest.max(difference);
        if i < 3 {
            let again = model.prefill(std::slice::from_ref(&chunks[i])).unwrap();
            assert!(same(&again[0], &blocks[i]));
        }
        let alone = model.score(&query, &[&blocks[i]]).unwrap();
        assert_eq!(bits(&alone), bits(&scores[i..=i]));
    }
    eprintln!("largest difference to transformers: {largest:e}");
}
