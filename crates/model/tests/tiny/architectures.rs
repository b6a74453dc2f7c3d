//! The tiny model of every architecture: against transformers, and exact like any other.

use std::fs;
use std::io::Cursor;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use candle_core::Device;
use candle_core::quantized::gguf_file::Value;
use candle_core::quantized::{GgmlDType, QTensor};
use hyperrag_core::{
    Chunk, FixedPositions, Generate, KvBlock, KvDtype, LanguageModel, Pair, QuerySuffix, Sampling,
    Scorer, Warning,
};
use hyperrag_model::testing::tiny::{NAMES, Tiny};
use hyperrag_model::{
    ComputeDtype, CpuModel, DeviceChoice, DeviceModel, DeviceSettings, DtypeChoice, Generator,
    Kernel, LoadSettings, Model, ModelFile,
};

use crate::blocks::{bits, chunk, same};
use crate::cpu::{edited_of, load_as, write_file};
use crate::device::assert_close;
use crate::seeded::{ragged, tokens};

fn gguf(name: &str) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    Tiny::new(name, 0).unwrap().write_gguf(&mut bytes).unwrap();
    bytes.into_inner()
}

fn load(bytes: &[u8], kv_dtype: KvDtype) -> CpuModel {
    load_as(bytes, kv_dtype, ComputeDtype::F32, Kernel::best(), 2).unwrap()
}

fn device(bytes: &[u8], kv_dtype: KvDtype, dtype: ComputeDtype) -> DeviceModel {
    let folder = tempfile::tempdir().unwrap();
    let mut file = ModelFile::open(&write_file(folder.path(), bytes)).unwrap();
    let block_positions = 128;
    let warn = |_: &Warning| ();
    let settings = DeviceSettings { dtype, kv_dtype, block_positions, memory_bytes: None, warn };
    DeviceModel::load(&mut file, DeviceChoice::Cpu, settings).unwrap().0
}

/// Whether the GPU and calibrated types of K and V have the model. They have one size for all layers.
fn has_one_size(name: &str) -> bool {
    !name.starts_with("gemma4")
}

/// Results of transformers for one sequence.
struct Golden {
    tokens: Vec<u32>,
    /// Log-probability of each token but the first.
    log_probabilities: Vec<f32>,
    /// Logits of some tokens after the last one.
    logits: Vec<(u32, f32)>,
}

fn golden(name: &str) -> Vec<Golden> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden/architectures.json");
    let all: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let numbers = |value: &serde_json::Value| -> Vec<f64> {
        value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
    };
    let labels: Vec<u32> = numbers(&all["labels"]).into_iter().map(|label| label as u32).collect();
    let sequences = all["models"][name].as_array().unwrap().iter().map(|sequence| {
        let logits = numbers(&sequence["label_logits"]).into_iter().map(|logit| logit as f32);
        let logs = numbers(&sequence["log_probabilities"]).into_iter().map(|log| log as f32);
        Golden {
            tokens: numbers(&sequence["tokens"]).into_iter().map(|token| token as u32).collect(),
            log_probabilities: logs.collect(),
            logits: labels.iter().copied().zip(logits).collect(),
        }
    });
    sequences.collect()
}

/// Returns the likelihood of a sequence's second half after its first, and the logits after its last
/// token.
fn scores<M: LanguageModel>(model: &M, sequence: &Golden) -> (f32, Vec<f32>) {
    let half = sequence.tokens.len() / 2;
    let score = |document: &[u32], query: &QuerySuffix| {
        let block = model.upload(model.prefill(&[chunk(document)]).unwrap().remove(0)).unwrap();
        model.score_resident(&[Pair { query, block: &block }]).unwrap()[0]
    };
    let likelihood =
        score(&sequence.tokens[..half], &QuerySuffix::likelihood(&sequence.tokens[half..]));
    let (document, query) = sequence.tokens.split_at(sequence.tokens.len() - 1);
    let logits = sequence.logits.iter().map(|(token, _)| {
        let scorer = Scorer::Logit { token: *token };
        score(document, &QuerySuffix { tokens: query.to_vec(), scorer })
    });
    (likelihood, logits.collect())
}

#[test]
fn transformers_computes_the_same() {
    for name in NAMES {
        let bytes = gguf(name);
        let cpu = load(&bytes, KvDtype::F32);
        let device = has_one_size(name).then(|| device(&bytes, KvDtype::F32, ComputeDtype::F32));
        let sequences = golden(name);
        assert!(sequences.iter().any(|sequence| sequence.tokens.len() > 100), "{name}");
        for sequence in &sequences {
            let what = format!("{name}, {} tokens", sequence.tokens.len());
            let logs = cpu.log_probabilities_of_run(&sequence.tokens).unwrap();
            let logs: Vec<f32> = logs.into_iter().map(|log| log as f32).collect();
            assert_close(&logs, &sequence.log_probabilities, 1e-4, &what);
            let expected: Vec<f32> = sequence.logits.iter().map(|(_, logit)| *logit).collect();
            let half = &sequence.log_probabilities[sequence.tokens.len() / 2 - 1..];
            let mean = half.iter().sum::<f32>() / half.len() as f32;
            let on_device = device.as_ref().map(|device| ("device", scores(device, sequence)));
            let on_cpu = ("CPU", scores(&cpu, sequence));
            for (place, (likelihood, logits)) in [on_cpu].into_iter().chain(on_device) {
                let what = format!("{what}, {place}");
                assert_close(&[likelihood], &[mean], 1e-4, &what);
                assert_close(&logits, &expected, 1e-4, &what);
            }
        }
    }
}

/// Changes one number at a time, each of which changes the result. So the models above show that each
/// is used.
#[test]
fn every_number_of_the_configuration_matters() {
    for (name, key, value) in [
        ("llama3", "rope_freqs.weight", None),
        ("mistral", "llama.attention.sliding_window", None),
        ("gemma2", "gemma2.attention.sliding_window", None),
        ("gemma2", "gemma2.attn_logit_softcapping", None),
        ("gemma2", "gemma2.final_logit_softcapping", None),
        ("gemma2", "gemma2.attention.scale", None),
        ("gemma3", "gemma3.attention.sliding_window", None),
        ("gemma3", "gemma3.attention.sliding_window_pattern", Some(Value::U32(3))),
        ("gemma3", "gemma3.rope.freq_base_swa", Some(Value::F32(20_000.0))),
        ("gemma3", "gemma3.final_logit_softcapping", Some(Value::F32(3.0))),
        ("gemma3-linear", "gemma3.rope.scaling.type", None),
        ("gemma4", "gemma4.attention.sliding_window", Some(Value::U32(9))),
        ("gemma4", "gemma4.rope.freq_base", Some(Value::F32(20_000.0))),
        ("gemma4", "gemma4.rope.freq_base_swa", Some(Value::F32(20_000.0))),
        ("gemma4", "gemma4.final_logit_softcapping", None),
        ("granite", "granite.embedding_scale", None),
        ("granite", "granite.residual_scale", None),
        ("granite", "granite.logit_scale", None),
        ("granite", "granite.attention.scale", None),
        ("granite4", "granite.rope.scaling.finetuned", None),
        ("olmo3", "olmo2.attention.sliding_window", None),
        ("olmo3", "olmo2.attention.sliding_window_pattern", Some(Value::U32(2))),
        ("olmo3", "olmo2.rope.freq_base_swa", Some(Value::F32(10_000.0))),
        ("olmo3", "olmo2.rope.scaling.type", None),
        ("olmo3", "olmo2.rope.scaling.factor", Some(Value::F32(2.0))),
        ("olmo3", "olmo2.rope.scaling.original_context_length", Some(Value::U32(32))),
        ("olmo3", "olmo2.rope.scaling.yarn_beta_fast", Some(Value::F32(1.1))),
        ("olmo3", "olmo2.rope.scaling.yarn_beta_slow", Some(Value::F32(0.05))),
        ("olmo3", "olmo2.rope.scaling.attn_factor", Some(Value::F32(1.5))),
        ("phi3", "phi3.attention.sliding_window", None),
        ("phi4", "phi3.rope.scaling.attn_factor", None),
        ("phi4", "rope_factors_short.weight", None),
    ] {
        let other = edited_of(&gguf(name), |metadata, tensors| {
            metadata.retain(|(k, _)| k != key);
            tensors.retain(|(k, _)| k != key);
            metadata.extend(value.map(|value| (key.to_owned(), value)));
        });
        let run = tokens(1, 100);
        let [own, other] = [gguf(name), other].map(|bytes| load(&bytes, KvDtype::F32));
        assert_ne!(own.config(), other.config(), "{name}, {key}");
        // Another fingerprint: a store of one is refused by the other.
        assert_ne!(own.config().rope(), other.config().rope(), "{name}, {key}");
        let logs = [&own, &other].map(|model| model.log_probabilities_of_run(&run).unwrap());
        let largest = logs[0].iter().zip(&logs[1]).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(largest > 0.01, "{name}, {key}: {largest}");
    }
}

/// Changes one tensor at a time of Gemma 4, each of which changes the result.
#[test]
fn every_tensor_of_gemma4_matters() {
    let bytes = gguf("gemma4");
    let run = tokens(1, 60);
    let logs = load(&bytes, KvDtype::F32).log_probabilities_of_run(&run).unwrap();
    let names = [
        ("rope_freqs.weight", 3.0),
        ("per_layer_token_embd.weight", 1.5),
        ("per_layer_model_proj.weight", -1.0),
        ("per_layer_proj_norm.weight", 1.5),
        // A local layer that later ones read, one that sees everything, and two that read them.
        ("blk.3.attn_k.weight", -1.0),
        ("blk.3.attn_v.weight", -1.0),
        ("blk.4.attn_k.weight", -1.0),
        ("blk.4.attn_k_norm.weight", 2.0),
        ("blk.6.attn_q.weight", -1.0),
        ("blk.7.attn_q_norm.weight", 2.0),
        ("blk.7.ffn_down.weight", -1.0),
        ("blk.5.inp_gate.weight", -1.0),
        ("blk.5.proj.weight", -1.0),
        ("blk.5.post_norm.weight", 2.0),
        ("blk.0.layer_output_scale.weight", 3.0),
    ];
    for (changed, factor) in names {
        let other = edited_of(&bytes, |_, tensors| {
            let (_, tensor) = tensors.iter_mut().find(|(name, _)| name == changed).unwrap();
            let values = tensor.dequantize(&Device::Cpu).unwrap();
            *tensor = QTensor::quantize(&(values * factor).unwrap(), GgmlDType::F32).unwrap();
        });
        let other = load(&other, KvDtype::F32).log_probabilities_of_run(&run).unwrap();
        let largest = logs.iter().zip(&other).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(largest > 0.01, "{changed}: {largest}");
    }
}

/// K and V of layers that read those of others are nowhere in a block, and tensors for them, which some files
/// have, change nothing.
#[test]
fn layers_of_gemma4_share_keys_and_values() {
    let bytes = gguf("gemma4");
    let model = load(&bytes, KvDtype::Bf16);
    // Three local layers of 2 heads of 16, and two that see everything, of 2 heads of 32.
    let shape = *model.kv_shape();
    assert_eq!((shape.layers, shape.kv_heads, shape.head_dim), (3 + 2 * 2, 2, 16));
    let dense = *load(&gguf("gemma4-dense"), KvDtype::Bf16).kv_shape();
    assert_eq!((dense.layers, dense.kv_heads, dense.head_dim), (2 * 2 + 2, 2, 16));
    let other = edited_of(&bytes, |_, tensors| {
        let own = tensors.iter().filter(|(name, _)| name.starts_with("blk.3.attn_"));
        let own: Vec<_> =
            own.map(|(n, t)| (n.clone(), t.dequantize(&Device::Cpu).unwrap())).collect();
        for (name, values) in own.into_iter().filter(|(n, _)| n.contains("_k") || n.contains("_v"))
        {
            let more = QTensor::quantize(&values, GgmlDType::F32).unwrap();
            tensors.push((name.replace("blk.3", "blk.5"), more));
        }
    });
    let chunks = [chunk(&tokens(3, 40))];
    let blocks = [&model, &load(&other, KvDtype::Bf16)].map(|m| m.prefill(&chunks).unwrap());
    assert!(same(&blocks[0][0], &blocks[1][0]));
}

#[test]
fn fused_tensors_are_cut_whatever_their_type() {
    let names = ["blk.0.attn_qkv.weight", "blk.1.ffn_up.weight"];
    let with = |to_f32: bool| {
        edited_of(&gguf("phi4"), |_, tensors| {
            let fused = tensors.iter_mut().filter(|(name, _)| names.contains(&name.as_str()));
            for (_, tensor) in fused {
                let values = tensor.dequantize(&Device::Cpu).unwrap();
                *tensor = QTensor::quantize(&values, GgmlDType::Q4_1).unwrap();
                if to_f32 {
                    let values = tensor.dequantize(&Device::Cpu).unwrap();
                    *tensor = QTensor::quantize(&values, GgmlDType::F32).unwrap();
                }
            }
        })
    };
    let [quantised, exact] = [false, true].map(|to_f32| {
        let model = load(&with(to_f32), KvDtype::F32);
        model.prefill(&[chunk(&tokens(3, 20))]).unwrap().remove(0)
    });
    assert!(same(&quantised, &exact));
}

#[test]
fn two_parts_score_as_one_run() {
    for name in NAMES {
        let bytes = gguf(name);
        for kv_dtype in KvDtype::ALL.into_iter().filter(|kv_dtype| !kv_dtype.is_calibrated()) {
            let model = load(&bytes, kv_dtype);
            for (document, query) in [(1, 1), (1, 20), (7, 40), (31, 2), (60, 20), (200, 64)] {
                let (document, query) = (tokens(3, document), tokens(4, query));
                let block = model.prefill(&[chunk(&document)]).unwrap().remove(0);
                let score = f64::from(model.score(&query, &[&block]).unwrap()[0]);
                let run = [&document[..], &query].concat();
                let logs = model.log_probabilities_of_run(&run).unwrap();
                let whole = logs[document.len() - 1..].iter().sum::<f64>() / query.len() as f64;
                assert!((score - whole).abs() <= 1e-5, "{name}, {kv_dtype}: {score}, {whole}");
            }
        }
    }
}

/// Makes chunks shorter and longer than windows and the steps of attention.
fn chunks() -> Vec<Chunk> {
    ragged(9).into_iter().chain([33, 200].map(|count| chunk(&tokens(8, count)))).collect()
}

#[test]
fn types_that_need_a_calibration_are_refused_where_layers_differ() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = ModelFile::open(&write_file(folder.path(), &gguf("gemma4"))).unwrap();
    let mut settings = LoadSettings {
        device: DeviceChoice::Cpu,
        dtype: DtypeChoice::Named(ComputeDtype::F32),
        threads: 1,
        kv_dtype: KvDtype::F32,
        calibration: None,
        chunk_tokens: 64,
        warn: |_| (),
    };
    let model = Model::load(&mut file, settings.clone()).unwrap();
    let fixed = FixedPositions { first: 1, last: 1 };
    let calibration = Arc::new(model.calibrate(&chunks(), fixed).unwrap());
    for kv_dtype in [KvDtype::Int5, KvDtype::Int4] {
        settings.kv_dtype = kv_dtype;
        let loaded = Model::load(&mut file, settings.clone()).err().unwrap();
        let variant = model.with_kv_dtype(kv_dtype, Some(Arc::clone(&calibration))).err().unwrap();
        for error in [loaded, variant] {
            assert!(error.to_string().contains(&format!("of a gemma4 in {kv_dtype}")), "{error}");
        }
    }
    let device = DeviceModel::load(
        &mut file,
        DeviceChoice::Cpu,
        DeviceSettings {
            dtype: ComputeDtype::F32,
            kv_dtype: KvDtype::F32,
            block_positions: 128,
            memory_bytes: None,
            warn: |_| (),
        },
    );
    assert!(device.err().unwrap().to_string().contains("a gemma4 on a GPU"));
}

/// Checks that blocks and scores of `model` all at once equal those of `single` one by one.
fn assert_bits(model: &CpuModel, single: &CpuModel, chunks: &[Chunk], what: &str) {
    let alone = chunks.iter().map(|chunk| single.prefill(std::slice::from_ref(chunk)).unwrap());
    let alone: Vec<KvBlock> = alone.flatten().collect();
    let blocks = model.prefill(chunks).unwrap();
    assert!(blocks.iter().zip(&alone).all(|(a, b)| same(a, b)), "blocks: {what}");
    for query in [1, 2, 37].map(|length| tokens(500 + length as u64, length)) {
        let each = alone.iter().map(|block| single.score(&query, &[block]).unwrap()[0]);
        let all = model.score(&query, &blocks.iter().collect::<Vec<_>>()).unwrap();
        assert_eq!(bits(&all), bits(&each.collect::<Vec<_>>()), "scores: {what}");
    }
}

#[test]
fn bits_depend_on_tokens_alone() {
    for name in NAMES {
        let bytes = gguf(name);
        let has_it = |kv_dtype: &KvDtype| has_one_size(name) || !kv_dtype.is_calibrated();
        for kv_dtype in KvDtype::ALL.into_iter().filter(has_it) {
            let load =
                |threads| load_as(&bytes, kv_dtype, ComputeDtype::F32, Kernel::best(), threads);
            let what = format!("{name}, {kv_dtype}");
            assert_bits(&load(2).unwrap(), &load(1).unwrap(), &chunks(), &what);
        }
    }
}

#[test]
fn bits_do_not_depend_on_instructions() {
    let chunks = [1, 70].map(|count| chunk(&tokens(8, count)));
    // Like the others, but for numbers.
    for name in NAMES.into_iter().filter(|name| !["llama3", "gemma3-linear"].contains(name)) {
        let bytes = gguf(name);
        for dtype in [ComputeDtype::F32, ComputeDtype::Bf16] {
            for kernel in Kernel::available() {
                let reference = match kernel.id(dtype) == Kernel::Portable.id(dtype) {
                    true => Kernel::Portable,
                    false => kernel,
                };
                let load = |kernel, threads| load_as(&bytes, KvDtype::Bf16, dtype, kernel, threads);
                let what = format!("{name}, {dtype}, {kernel:?}");
                let [model, single] = [load(kernel, 2), load(reference, 1)].map(Result::unwrap);
                assert_bits(&model, &single, &chunks, &what);
            }
        }
    }
}

#[test]
fn generation_goes_on_as_one_pass_over_all() {
    let greedy = Sampling { tokens_max: 12, temperature: 0.0, top_p: 1.0, seed: 0 };
    for name in NAMES {
        let folder = tempfile::tempdir().unwrap();
        let mut file = ModelFile::open(&write_file(folder.path(), &gguf(name))).unwrap();
        let model = Generator::load(&mut file, ComputeDtype::F32, Kernel::best(), 2).unwrap();
        let generate = |prompt: &[u32], tokens_max| {
            let mut generated = Vec::new();
            let sampling = Sampling { tokens_max, ..greedy };
            let end = model.generate(prompt, &sampling, &mut |token, _| {
                generated.push(token);
                ControlFlow::Continue(())
            });
            end.unwrap();
            generated
        };
        for length in [1, 33, 70] {
            let mut run = tokens(length as u64, length);
            let generated = generate(&run, 12);
            assert_eq!(generated.len(), 12);
            for token in generated {
                assert_eq!(generate(&run, 1), [token], "{name} after {} tokens", run.len());
                run.push(token);
            }
        }
    }
}

#[test]
fn the_device_agrees() {
    let chunks: Vec<Chunk> =
        chunks().into_iter().filter(|chunk| chunk.tokens.len() < 128).collect();
    for name in NAMES.into_iter().filter(|name| has_one_size(name)) {
        let bytes = gguf(name);
        let (cpu, exact) =
            (load(&bytes, KvDtype::F32), device(&bytes, KvDtype::F32, ComputeDtype::F32));
        let bf16 = device(&bytes, KvDtype::Bf16, ComputeDtype::Bf16);
        let random = DeviceModel::random(
            cpu.config().clone(),
            DeviceChoice::Cpu,
            DeviceSettings {
                dtype: ComputeDtype::F32,
                kv_dtype: KvDtype::F32,
                block_positions: 128,
                memory_bytes: None,
                warn: |_| (),
            },
        );
        let random = random.unwrap().0;
        let (blocks, made) = (cpu.prefill(&chunks).unwrap(), exact.prefill(&chunks).unwrap());
        for (block, made) in blocks.iter().zip(&made) {
            assert_close(made.hidden(), block.hidden(), 2e-4, name);
        }
        for length in [1, 2, 20] {
            let query = tokens(99, length);
            let expected = cpu.score(&query, &blocks.iter().collect::<Vec<_>>()).unwrap();
            let score = |model: &DeviceModel| {
                let blocks = model.prefill_resident(&chunks).unwrap();
                model.score(&query, &blocks.iter().collect::<Vec<_>>()).unwrap()
            };
            assert_close(&score(&exact), &expected, 1e-4, name);
            // Random weights magnify rounding, the more layers the more.
            assert_close(&score(&bf16), &expected, 0.5, name);
            assert!(score(&random).iter().all(|score| *score < 0.0), "{name}");
        }
    }
}
