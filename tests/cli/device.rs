//! The choice of the device that computes. Without the feature `cuda` there is no GPU to choose.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use hyperrag_core::{
    Coverage, Fingerprint, KvDtype, LanguageModel, Profile, SCORE_TOLERANCE_MEAN_LOGPROB,
};
use hyperrag_corpus::{Chunker, Columns, Corpus};
use hyperrag_engine::{BuildInput, BuildProgress, Memory, build};
use hyperrag_model::{ComputeDtype, DeviceChoice, DeviceModel, DeviceSettings, ModelFile};
use serde_json::{Value, json};

use crate::support::{FAILED, Scratch, USAGE, ranked, testdata};

#[test]
fn a_gpu_that_is_not_there_is_refused_and_auto_does_without() {
    let scratch = Scratch::new();
    let refused = scratch.fails_without_store("build CORPUS --store store TINY --device cuda");
    refused.says(&["cuda:0", "use --device cpu"]);
    scratch.ends(USAGE, "build CORPUS --store store TINY --device gpu").says(&["cuda:N"]);
    let built = scratch.ok("build CORPUS --store store TINY --device auto --json").json();
    assert_eq!(built[0]["device"], json!({"device": "cpu"}));
    scratch.ends(FAILED, "query --store store TINY --device cuda:1 bees").says(&["cuda:1"]);
    let answer = scratch.ok("query --store store TINY --device cpu --json bees").json();
    assert_eq!(answer[0]["stats"]["device"], "cpu");
    assert_eq!(scratch.ok("info --store store --json").json()[0]["auto_device"]["device"], "cpu");
    assert_eq!(scratch.ok("devices --json").json()[0]["auto"], "cpu");
}

#[test]
fn a_bench_against_another_device_compares() {
    let scratch = Scratch::new();
    scratch.ok("build CORPUS --store store TINY");
    let bench = "bench --store store TINY --queries QUERIES --query-count 3 --against cpu";
    let printed = scratch.ok(&format!("{bench} --json --out figures.json")).json();
    let agreements = printed[0]["against"]["agreements"].as_array().unwrap();
    assert_eq!(agreements.len(), 3);
    assert!(agreements.iter().all(|a| a["score_difference_max"] == 0.0));
    let written = std::fs::read(scratch.path("figures.json")).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&written).unwrap(), printed[0]);
}

/// Runs the GPU's code on the CPU.
#[test]
fn a_device_is_timed() {
    let scratch = Scratch::new();
    let bench = "bench-device --device cpu --shapes tiny --depth 7 --chunk-tokens 40 --runs 2";
    let figures = &scratch.ok(&format!("{bench} --json")).json()[0]["rows"][0]["figures"];
    for part in ["prefill", "recompute", "device", "host", "disk"] {
        assert_eq!(figures[part].as_array().unwrap().len(), 2, "{part}");
    }
    // Two layers of two KV heads of 16 dimensions in bf16, and a hidden state of 64 in f32.
    assert_eq!(figures["bytes"], json!(7 * (40 * 2 * 2 * 2 * 16 * 2 + 4 * 64)));
    assert_eq!(figures["score_difference_max"], 0.0);
    assert!(scratch.ok(bench).stdout.starts_with("7 candidates of 40"));
    scratch.ends(USAGE, "bench-device --device cpu --shapes huge").says(&["smollm2-135m"]);
    scratch.ends(FAILED, "bench-device --shapes tiny").says(&["cuda:0"]);
}

/// Builds the store that a GPU would build, on candle's CPU device.
fn build_as_a_gpu(root: &Path) {
    let mut file = ModelFile::open(Path::new(&testdata("tiny.gguf"))).unwrap();
    let tokenizer = file.tokenizer().unwrap();
    let profile = Profile::built_in("chat").unwrap();
    let settings = DeviceSettings {
        dtype: ComputeDtype::F32,
        kv_dtype: KvDtype::Bf16,
        block_positions: 256,
        memory_bytes: None,
        warn: |_| (),
    };
    let (model, _) = DeviceModel::load(&mut file, DeviceChoice::Cpu, settings).unwrap();
    let corpus = Corpus::open(&[testdata("corpus.parquet")], Columns::default()).unwrap();
    let fingerprint = Fingerprint {
        format_version: hyperrag_store::FORMAT_VERSION,
        model: file.name(),
        weights: file.digest(Coverage::Contents).unwrap(),
        tokenizer: tokenizer.digest(Coverage::Contents),
        profile: profile.name.clone(),
        profile_digest: profile.document_digest(),
        chunk_tokens: 256,
        unit_rows: 256,
        language: "english".into(),
        kv_shape: *model.kv_shape(),
        calibration: None,
        rope: model.config().rope(),
        dtype: ComputeDtype::F16.name().to_owned(),
        kernel: ComputeDtype::F16.kernel_id().to_owned(),
    };
    let input = BuildInput {
        model: &model,
        corpus: &corpus,
        chunker: &Chunker::new(&tokenizer, &profile, 256).unwrap(),
        fingerprint: &fingerprint,
        calibration: None,
        notes: None,
        add: None,
        limit: None,
        max_bytes: None,
        memory: Memory::default(),
        warn: |_| {},
        progress: &BuildProgress::default(),
        stop: &AtomicBool::new(false),
    };
    assert_eq!(build(&input, root).unwrap().documents, 160);
}

#[test]
fn a_gpus_store_is_read_on_a_cpu_with_a_tolerance() {
    let scratch = Scratch::new();
    build_as_a_gpu(&scratch.path("gpu"));
    scratch.ok("build CORPUS --store cpu TINY --dtype f32");
    let info = scratch.ok("info --store gpu --json").json();
    assert!(info[0]["exactness"].as_str().unwrap().contains("within 0.02"), "{}", info[0]);
    let query = "TINY --json --queries QUERIES -k 100";
    let read = scratch.ok(&format!("query --store gpu {query}"));
    read.says(&["cuda-f16-v1", "cpu-f32-v1", "within 0.02"]);
    let own = scratch.ok(&format!("query --store cpu {query}"));
    for ((query, read), (_, own)) in ranked(&read).iter().zip(ranked(&own)) {
        let own: std::collections::HashMap<String, u32> = own.into_iter().collect();
        for (id, score) in read {
            let (a, b) = (f32::from_bits(*score), f32::from_bits(own[id]));
            assert!(
                (a - b).abs() <= SCORE_TOLERANCE_MEAN_LOGPROB,
                "query {query}, document {id}: {a}, {b}"
            );
        }
    }
    // Units of two kernels are never mixed in one store.
    let resumed = scratch.run("build CORPUS --store gpu TINY");
    assert_eq!(resumed.code, crate::support::MISMATCH, "{}", resumed.stderr);
    resumed.says(&["compute"]);
}

/// Rehearses `make gpu` on the CPU: otherwise only a machine with a GPU runs it.
#[test]
fn what_a_gpu_is_asked_for_can_be_rehearsed() {
    let scratch = Scratch::new();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/gpu.sh");
    let mut rehearsal = std::process::Command::new(script);
    rehearsal.env("HYPERRAG", env!("CARGO_BIN_EXE_hyperrag")).env("DEVICE", "cpu");
    let output = rehearsal.env("OUT", scratch.path("out")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for name in ["devices", "tiny-cpu", "bench-device"] {
        let text = std::fs::read(scratch.path("out").join(format!("{name}.json"))).unwrap();
        assert!(serde_json::from_slice::<Value>(&text).unwrap().is_object(), "{name}");
    }
}
