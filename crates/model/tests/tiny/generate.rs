//! Generation: against one pass over all tokens, and against candle's operations.

use std::ops::ControlFlow;

use candle_core::Tensor;
use candle_core::quantized::gguf_file::Value;
use candle_core::quantized::{GgmlDType, QTensor};
use hyperrag_core::{
    FixedPositions, Generate, Generation, KvDtype, ModelError, Sampling, Stop, Tokenize,
};
use hyperrag_model::{
    ComputeDtype, DeviceChoice, DtypeChoice, Generator, Kernel, LoadError, LoadSettings, Model,
    ModelFile,
};

use crate::cpu::{Reference, edited, head_weights, tiny, with_metadata, with_tensor, write_file};
use crate::seeded::{ragged, tokens};

const GREEDY: Sampling = Sampling { tokens_max: 12, temperature: 0.0, top_p: 1.0, seed: 0 };

fn open(bytes: &[u8]) -> ModelFile {
    let folder = tempfile::tempdir().unwrap();
    ModelFile::open(&write_file(folder.path(), bytes)).unwrap()
}

fn load(bytes: &[u8]) -> Generator {
    Generator::load(&mut open(bytes), ComputeDtype::F32, Kernel::best(), 2).unwrap()
}

/// Generates tokens. Returns them and how the generation ended.
fn generate(model: &Generator, prompt: &[u32], sampling: &Sampling) -> (Vec<u32>, Generation) {
    let mut generated = Vec::new();
    let end = model.generate(prompt, sampling, &mut |token, _| {
        generated.push(token);
        ControlFlow::Continue(())
    });
    let end = end.unwrap();
    assert_eq!(end.tokens, generated.len());
    (generated, end)
}

#[test]
fn greedy_tokens_are_the_most_probable_of_one_pass_over_all() {
    for bytes in [tiny(), with_tensor("output.weight", GgmlDType::Q8_0, &head_weights())] {
        let model = load(&bytes);
        let mut reference = Reference::new(bytes);
        // The last one is longer than a pass.
        for length in [1, 33, 1030] {
            let prompt = tokens(length as u64, length);
            let (generated, end) = generate(&model, &prompt, &GREEDY);
            assert_eq!((generated.len(), end.stop), (12, Stop::Length));
            for i in 0..generated.len() {
                let so_far = [&prompt[..], &generated[..i]].concat();
                let one = Sampling { tokens_max: 1, ..GREEDY };
                assert_eq!(generate(&model, &so_far, &one).0, [generated[i]], "{length}, {i}");
                if length < 100 {
                    let logits = reference.next_logits(&so_far).unwrap();
                    let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    assert!(logits[generated[i] as usize] >= best - 1e-4, "{length}, {i}");
                }
            }
        }
    }
}

#[test]
fn tokens_do_not_depend_on_threads_or_instructions() {
    let sampled = Sampling { temperature: 1.5, top_p: 0.9, seed: 3, ..GREEDY };
    let prompt = tokens(1, 70);
    for dtype in [ComputeDtype::F32, ComputeDtype::Bf16, ComputeDtype::Int8] {
        for sampling in [GREEDY, sampled] {
            let of = |(kernel, threads): (Kernel, usize)| {
                let model = Generator::load(&mut open(&tiny()), dtype, kernel, threads).unwrap();
                generate(&model, &prompt, &sampling).0
            };
            // AVX-512's instruction for bf16 has bits of its own.
            let same = |kernel: &Kernel| kernel.id(dtype) == Kernel::available()[0].id(dtype);
            let kernels = Kernel::available().into_iter().filter(same);
            let all: Vec<_> = kernels.flat_map(|k| [(k, 1), (k, 3)]).map(of).collect();
            assert!(all.len() > 1 && all.windows(2).all(|pair| pair[0] == pair[1]), "{all:?}");
        }
    }
}

#[test]
fn a_seed_decides_what_is_drawn() {
    let (model, prompt) = (load(&tiny()), tokens(2, 40));
    let drawn = |seed, top_p| {
        generate(&model, &prompt, &Sampling { temperature: 1.0, top_p, seed, ..GREEDY }).0
    };
    assert_eq!(drawn(1, 1.0), drawn(1, 1.0));
    assert_ne!(drawn(1, 1.0), drawn(2, 1.0));
    assert_eq!(drawn(1, 0.0), generate(&model, &prompt, &GREEDY).0);
}

#[test]
fn a_model_that_reranks_lends_its_weights() {
    let (prompt, bytes) = (tokens(3, 50), tiny());
    let expected = generate(&load(&bytes), &prompt, &GREEDY);
    for kv_dtype in [KvDtype::F32, KvDtype::Bf16, KvDtype::Int8, KvDtype::Int4] {
        let mut file = open(&bytes);
        let mut settings = LoadSettings {
            device: DeviceChoice::Cpu,
            dtype: DtypeChoice::Named(ComputeDtype::F32),
            threads: 2,
            kv_dtype: KvDtype::F32,
            calibration: None,
            chunk_tokens: 256,
            warn: |_| (),
        };
        if kv_dtype.is_calibrated() {
            let model = Model::load(&mut file, settings.clone()).unwrap();
            let fixed = FixedPositions { first: 1, last: 1 };
            settings.calibration = Some(model.calibrate(&ragged(16), fixed).unwrap().into());
        }
        let model = Model::load(&mut file, LoadSettings { kv_dtype, ..settings }).unwrap();
        let sharing = Generator::sharing(&model, &mut file, 2).unwrap();
        assert_eq!(generate(&sharing, &prompt, &GREEDY), expected, "{kv_dtype}");
    }
}

#[test]
fn what_ends_a_turn_is_not_part_of_it() {
    let prompt = tokens(4, 20);
    let (all, _) = generate(&load(&tiny()), &prompt, &GREEDY);
    let end = 1 + all[1..].iter().position(|token| !all[..1].contains(token)).unwrap();
    let before = all.iter().position(|token| *token == all[end]).unwrap();
    for key in ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"] {
        let model = load(&with_metadata(key, Value::U32(all[end])));
        let (generated, end) = generate(&model, &prompt, &GREEDY);
        assert_eq!((&generated[..], end.stop), (&all[..before], Stop::Eos), "{key}");
    }
    // The caller may end it.
    let ended = load(&tiny()).generate(&prompt, &GREEDY, &mut |token, _| {
        if token == all[end] { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!(ended.unwrap(), Generation { tokens: before + 1, stop: Stop::Line });
}

/// Returns the tiny model with a chat template that ends turns with `token`.
fn with_turns(token: u32) -> Vec<u8> {
    let template = "{% for m in messages %}<|im_start|>{{ m.role }}: {{ m.content }}<|im_end|>\n\
        {% endfor %}{% if add_generation_prompt %}<|im_start|>{% endif %}";
    edited(|metadata, tensors| {
        let template = Value::String(template.to_owned());
        metadata.push(("tokenizer.chat_template".to_owned(), template));
        let embedding = tensors.iter_mut().find(|(name, _)| name == "token_embd.weight").unwrap();
        let device = candle_core::Device::Cpu;
        let rows = embedding.1.dequantize(&device).unwrap();
        let mut order: Vec<u32> = (0..rows.dim(0).unwrap() as u32).collect();
        order.swap(2, token as usize);
        let order = Tensor::new(order, &device).unwrap();
        let swapped = rows.index_select(&order, 0).unwrap();
        embedding.1 = QTensor::quantize(&swapped, GgmlDType::F32).unwrap();
    })
}

#[test]
fn the_chat_template_says_how_turns_begin_and_end() {
    assert!(load(&tiny()).turn().is_none());
    let prompt = tokens(5, 30);
    let (all, _) = generate(&load(&tiny()), &prompt, &GREEDY);
    assert!(!prompt.contains(&all[0]) && all[0] > 2, "{all:?}");
    let model = load(&with_turns(all[0]));
    let turn = model.turn().unwrap();
    assert_eq!(turn.before, "<|im_start|>user: ");
    assert_eq!(turn.after, "<|im_end|>\n<|im_start|>");
    let after = model.encode_template(&turn.after).unwrap();
    assert_eq!((after.first(), after.last()), (Some(&2), Some(&1)));
    let ended = Generation { tokens: 0, stop: Stop::Eos };
    assert_eq!(generate(&model, &prompt, &GREEDY), (Vec::new(), ended));
    let broken = with_metadata("tokenizer.chat_template", Value::String("{% for".to_owned()));
    let refused = Generator::load(&mut open(&broken), ComputeDtype::F32, Kernel::best(), 1);
    let Some(LoadError::ChatTemplate { source, .. }) = refused.err() else { panic!("no error") };
    assert!(matches!(*source, LoadError::Metadata { key, .. } if key.contains("chat")));
}

#[test]
fn prompts_that_cannot_be_gone_on_with_are_errors() {
    let model = load(&tiny());
    let fails = |prompt: &[u32]| {
        model.generate(prompt, &GREEDY, &mut |_, _| ControlFlow::Continue(())).unwrap_err()
    };
    assert!(matches!(fails(&[]), ModelError::Empty { .. }));
    assert!(matches!(fails(&tokens(6, 2037)), ModelError::TooLong { tokens: 2049, .. }));
    assert!(matches!(fails(&[7, 291]), ModelError::UnknownToken { token: 291, .. }));
    assert_eq!(generate(&model, &tokens(6, 2036), &GREEDY).0.len(), 12);
    let nan = Tensor::from_vec(vec![f32::NAN; 64], 64, &candle_core::Device::Cpu).unwrap();
    let broken = load(&with_tensor("output_norm.weight", GgmlDType::F32, &nan));
    let error = broken.generate(&[5], &GREEDY, &mut |_, _| ControlFlow::Continue(()));
    assert!(matches!(error, Err(ModelError::NotANumber { .. })));
}
