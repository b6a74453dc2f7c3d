//! The decoder on the CPU: against candle's operations, exactness, errors.

use std::fs;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::quantized::gguf_file::{Content, Value, write as write_gguf};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{D, DType, Device, Tensor};
use candle_nn::ops::{log_softmax, rms_norm, silu, softmax_last_dim};
use candle_nn::rotary_emb::rope_i;
use hyperrag_core::{
    Classified, FixedPositions, Hint, KvBlock, KvDtype, KvShape, LanguageModel, ModelError,
    Tokenize,
};
use hyperrag_model::{
    CATALOG, ComputeDtype, CpuModel, DeviceChoice, DtypeChoice, Kernel, LoadError, LoadSettings,
    Model, ModelCache, ModelFile, NamedModel,
};

use crate::blocks::{bits, chunk, same};
use crate::seeded::{ragged, tokens};

const CPU: Device = Device::Cpu;

pub(crate) fn tiny() -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    hyperrag_model::testing::tiny::write(0, &mut bytes).unwrap();
    bytes.into_inner()
}

/// Returns the tiny model after `edit` of its metadata and tensors.
pub(crate) fn edited(
    edit: impl FnOnce(&mut Vec<(String, Value)>, &mut Vec<(String, QTensor)>),
) -> Vec<u8> {
    edited_of(&tiny(), edit)
}

/// Returns the model in `bytes` after `edit` of its metadata and tensors.
pub(crate) fn edited_of(
    bytes: &[u8],
    edit: impl FnOnce(&mut Vec<(String, Value)>, &mut Vec<(String, QTensor)>),
) -> Vec<u8> {
    let mut bytes = Cursor::new(bytes);
    let content = Content::read(&mut bytes).unwrap();
    let mut metadata: Vec<_> = content.metadata.clone().into_iter().collect();
    let names = content.tensor_infos.keys();
    let mut tensors: Vec<_> =
        names.map(|name| (name.clone(), content.tensor(&mut bytes, name, &CPU).unwrap())).collect();
    edit(&mut metadata, &mut tensors);
    let metadata: Vec<_> = metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
    let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let mut out = Cursor::new(Vec::new());
    write_gguf(&mut out, &metadata, &tensors).unwrap();
    out.into_inner()
}

pub(crate) fn with_metadata(key: &str, value: Value) -> Vec<u8> {
    edited(|metadata, _| {
        metadata.retain(|(k, _)| k != key);
        metadata.push((key.to_owned(), value));
    })
}

pub(crate) fn with_tensor(name: &str, dtype: GgmlDType, values: &Tensor) -> Vec<u8> {
    edited(|_, tensors| {
        tensors.retain(|(n, _)| n != name);
        tensors.push((name.to_owned(), QTensor::quantize(values, dtype).unwrap()));
    })
}

pub(crate) fn write_file(folder: &Path, bytes: &[u8]) -> PathBuf {
    let path = folder.join("model.gguf");
    fs::write(&path, bytes).unwrap();
    path
}

pub(crate) fn load_as(
    bytes: &[u8],
    kv_dtype: KvDtype,
    dtype: ComputeDtype,
    kernel: Kernel,
    threads: usize,
) -> Result<CpuModel, LoadError> {
    let folder = tempfile::tempdir().unwrap();
    let path = write_file(folder.path(), bytes);
    let mut file = ModelFile::open(&path)?;
    if !kv_dtype.is_calibrated() {
        return CpuModel::load(&mut file, kv_dtype, dtype, kernel, threads);
    }
    let refused = CpuModel::load(&mut file, kv_dtype, dtype, kernel, threads).err();
    assert!(matches!(refused, Some(LoadError::Unsupported { .. })));
    let model = CpuModel::load(&mut file, KvDtype::F32, dtype, kernel, threads)?;
    let fixed = FixedPositions { first: 2, last: 3 };
    let calibration = model.calibrate(&ragged(16), fixed).unwrap();
    Ok(model.calibrated(kv_dtype, Arc::new(calibration)))
}

fn load(kv_dtype: KvDtype) -> CpuModel {
    load_as(&tiny(), kv_dtype, ComputeDtype::F32, Kernel::best(), 2).unwrap()
}

fn mean_log_probability(model: &CpuModel, document: &[u32], query: &[u32]) -> f64 {
    let logs = model.log_probabilities_of_run(&[document, query].concat()).unwrap();
    logs[document.len() - 1..].iter().sum::<f64>() / query.len() as f64
}

/// A reference decoder from candle's operations, one run at a time.
pub(crate) struct Reference {
    content: Content,
    bytes: Cursor<Vec<u8>>,
}

/// K and V of each layer, `[head][position][dim]`, and the final hidden state of each position.
type Run = (Vec<(Tensor, Tensor)>, Tensor);

impl Reference {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        let mut bytes = Cursor::new(bytes);
        Self { content: Content::read(&mut bytes).unwrap(), bytes }
    }

    fn weight(&mut self, name: &str) -> candle_core::Result<Tensor> {
        self.content.tensor(&mut self.bytes, name, &CPU)?.dequantize(&CPU)
    }

    fn size(&self, key: &str) -> usize {
        self.content.metadata[&format!("llama.{key}")].to_u32().unwrap() as usize
    }

    fn float(&self, key: &str) -> f32 {
        self.content.metadata[&format!("llama.{key}")].to_f32().unwrap()
    }

    fn run(&mut self, tokens: &[u32]) -> candle_core::Result<Run> {
        let (n, heads) = (tokens.len(), self.size("attention.head_count"));
        let (kv_heads, dim) =
            (self.size("attention.head_count_kv"), self.size("rope.dimension_count"));
        let eps = self.float("attention.layer_norm_rms_epsilon");
        let base = f64::from(self.float("rope.freq_base"));
        let angles: Vec<f32> = (0..n * dim / 2)
            .map(|i| {
                let (position, pair) = (i / (dim / 2), i % (dim / 2));
                (position as f64 * base.powf(-2.0 * pair as f64 / dim as f64)) as f32
            })
            .collect();
        let angles = Tensor::from_vec(angles, (n, dim / 2), &CPU)?;
        let (cos, sin) = (angles.cos()?, angles.sin()?);
        let mask: Vec<f32> =
            (0..n * n).map(|i| if i % n > i / n { f32::NEG_INFINITY } else { 0.0 }).collect();
        let mask = Tensor::from_vec(mask, (1, 1, n, n), &CPU)?;
        let mut x = self.weight("token_embd.weight")?.embedding(&Tensor::new(tokens, &CPU)?)?;
        let mut blocks = Vec::new();
        for layer in 0..self.size("block_count") {
            let mut get = |name: &str| self.weight(&format!("blk.{layer}.{name}.weight"));
            let normed = rms_norm(&x, &get("attn_norm")?, eps)?;
            let split = |weight: Tensor, heads: usize| {
                let all = normed.matmul(&weight.t()?)?.reshape((1, n, heads, dim))?;
                all.transpose(1, 2)?.contiguous()
            };
            let query = rope_i(&split(get("attn_q")?, heads)?, &cos, &sin)?;
            let key = rope_i(&split(get("attn_k")?, kv_heads)?, &cos, &sin)?;
            let value = split(get("attn_v")?, kv_heads)?;
            blocks.push((key.squeeze(0)?, value.squeeze(0)?));
            let group = heads / kv_heads;
            let repeat = |t: &Tensor| {
                let wide = t.unsqueeze(2)?.expand((1, kv_heads, group, n, dim))?;
                wide.reshape((1, heads, n, dim))
            };
            let scores = (query.matmul(&repeat(&key)?.t()?)? / (dim as f64).sqrt())?;
            let weights = softmax_last_dim(&scores.broadcast_add(&mask)?)?;
            let attended = weights.matmul(&repeat(&value)?)?;
            let attended = attended.transpose(1, 2)?.reshape((n, heads * dim))?;
            x = (x + attended.matmul(&get("attn_output")?.t()?)?)?;
            let normed = rms_norm(&x, &get("ffn_norm")?, eps)?;
            let gate = silu(&normed.matmul(&get("ffn_gate")?.t()?)?)?;
            let up = normed.matmul(&get("ffn_up")?.t()?)?;
            x = (x + (gate * up)?.matmul(&get("ffn_down")?.t()?)?)?;
        }
        Ok((blocks, rms_norm(&x, &self.weight("output_norm.weight")?, eps)?))
    }

    /// Computes the logits, `[position][token]`.
    pub(crate) fn logits(&mut self, tokens: &[u32]) -> candle_core::Result<Tensor> {
        let (_, hidden) = self.run(tokens)?;
        let untied = self.content.tensor_infos.contains_key("output.weight");
        let head = self.weight(if untied { "output.weight" } else { "token_embd.weight" })?;
        hidden.matmul(&head.t()?)
    }

    /// Computes the logits of the token after `tokens`.
    pub(crate) fn next_logits(&mut self, tokens: &[u32]) -> candle_core::Result<Vec<f32>> {
        self.logits(tokens)?.get(tokens.len() - 1)?.to_vec1()
    }

    fn score(&mut self, document: &[u32], query: &[u32]) -> candle_core::Result<f32> {
        let logits = self.logits(&[document, query].concat())?;
        let logits = logits.narrow(0, document.len() - 1, query.len())?;
        let logs = log_softmax(&logits.to_dtype(DType::F64)?, D::Minus1)?;
        let targets = Tensor::new(query, &CPU)?.unsqueeze(1)?;
        Ok(logs.gather(&targets, 1)?.mean_all()?.to_scalar::<f64>()? as f32)
    }
}

fn assert_close(actual: &[f32], expected: &Tensor, what: &str) {
    let expected: Vec<f32> = expected.flatten_all().unwrap().to_vec1().unwrap();
    assert_eq!(actual.len(), expected.len(), "{what}");
    for (i, (a, e)) in actual.iter().zip(expected).enumerate() {
        assert!((a - e).abs() <= 1e-4, "{what}, value {i}: {a}, the reference has {e}");
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    let mut values = vec![0.0; bytes.len() / 4];
    KvDtype::F32.decode(bytes, &mut values);
    values
}

pub(crate) fn head_weights() -> Tensor {
    let weights = tokens(7, 291 * 64).into_iter().map(|t| (t as f32 - 143.0) / 400.0);
    Tensor::from_vec(weights.collect::<Vec<_>>(), (291, 64), &CPU).unwrap()
}

#[test]
fn the_checked_in_model_is_the_one_written_today() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/tiny.gguf");
    assert!(fs::read(path).unwrap() == tiny(), "testdata/tiny.gguf: run examples/tiny_model.rs");
}

#[test]
fn candle_operations_give_the_same() {
    // Tied and quantised untied head, and another base of the rotary angles.
    let variants = [
        tiny(),
        with_tensor("output.weight", GgmlDType::Q8_0, &head_weights()),
        with_metadata("llama.rope.freq_base", Value::F32(100_000.0)),
    ];
    for bytes in variants {
        let model = load_as(&bytes, KvDtype::F32, ComputeDtype::F32, Kernel::best(), 2).unwrap();
        let mut reference = Reference::new(bytes);
        for length in [1, 2, 31, 33, 100] {
            let document = tokens(length as u64, length);
            let block = model.prefill(&[chunk(&document)]).unwrap().remove(0);
            let (layers, hidden) = reference.run(&document).unwrap();
            for (layer, (keys, values)) in layers.iter().enumerate() {
                for head in 0..block.kv_shape().kv_heads as usize {
                    let what = format!("{length} tokens, layer {layer}, head {head}");
                    let (k, v) =
                        (floats(block.keys(layer, head)), floats(block.values(layer, head)));
                    assert_close(&k, &keys.get(head).unwrap(), &format!("K, {what}"));
                    assert_close(&v, &values.get(head).unwrap(), &format!("V, {what}"));
                }
            }
            assert_close(block.hidden(), &hidden.get(length - 1).unwrap(), "hidden state");
            for query in [1, 2, 20, 70] {
                let query = tokens(1000 + query as u64, query);
                let score = model.score(&query, &[&block]).unwrap()[0];
                let expected = reference.score(&document, &query).unwrap();
                assert!((score - expected).abs() <= 1e-4, "{score}, the reference has {expected}");
            }
        }
    }
}

#[test]
fn bits_depend_on_tokens_alone() {
    for kv_dtype in KvDtype::ALL {
        bits_are_those_of_one_chunk(kv_dtype, ComputeDtype::F32);
    }
    bits_are_those_of_one_chunk(KvDtype::Bf16, ComputeDtype::Bf16);
    bits_are_those_of_one_chunk(KvDtype::Bf16, ComputeDtype::Int8);
}

fn bits_are_those_of_one_chunk(kv_dtype: KvDtype, dtype: ComputeDtype) {
    let chunks = ragged(100);
    let queries = [1, 2, 20].map(|length| tokens(500 + length as u64, length));
    for kernel in Kernel::available() {
        // Kernels of one id give the same bits.
        let reference = match kernel.id(dtype) == Kernel::Portable.id(dtype) {
            true => Kernel::Portable,
            false => kernel,
        };
        let single = load_as(&tiny(), kv_dtype, dtype, reference, 1).unwrap();
        let alone: Vec<KvBlock> = chunks
            .iter()
            .map(|chunk| single.prefill(std::slice::from_ref(chunk)).unwrap().remove(0))
            .collect();
        let expected: Vec<Vec<f32>> = queries
            .iter()
            .map(|q| alone.iter().map(|block| single.score(q, &[block]).unwrap()[0]).collect())
            .collect();
        for threads in [1, 2] {
            let model = load_as(&tiny(), kv_dtype, dtype, kernel, threads).unwrap();
            for count in [1, 2, 7, 100] {
                let what = format!("{kv_dtype}, {kernel:?}, {threads} threads, batch of {count}");
                let blocks = model.prefill(&chunks[..count]).unwrap();
                assert_eq!(blocks.len(), count);
                assert!(blocks.iter().zip(&alone).all(|(a, b)| same(a, b)), "blocks: {what}");
                let blocks: Vec<&KvBlock> = blocks.iter().collect();
                for (query, expected) in queries.iter().zip(&expected) {
                    let scores = model.score(query, &blocks).unwrap();
                    assert_eq!(bits(&scores), bits(&expected[..count]), "scores: {what}");
                }
            }
        }
    }
}

#[test]
fn bf16_and_int8_are_near_f32() {
    let exact = load(KvDtype::F32);
    let query = tokens(4, 20);
    // Random weights magnify rounding.
    for (dtype, limit) in [(ComputeDtype::Bf16, 0.1), (ComputeDtype::Int8, 0.3)] {
        let rounded = load_as(&tiny(), KvDtype::F32, dtype, Kernel::best(), 2).unwrap();
        let scores = [&exact, &rounded].map(|model| {
            let blocks = model.prefill(&ragged(20)).unwrap();
            model.score(&query, &blocks.iter().collect::<Vec<_>>()).unwrap()
        });
        let differences = scores[0].iter().zip(&scores[1]).map(|(a, b)| (a - b).abs());
        let largest = differences.fold(0.0, f32::max);
        assert!(largest > 0.0 && largest <= limit, "{dtype}: {largest}");
    }
    let refused = load_as(&tiny(), KvDtype::F32, ComputeDtype::F16, Kernel::best(), 1).err();
    assert_eq!(refused.unwrap().hint(), Some(Hint::UseDtype("f32, bf16 or int8")));
}

#[test]
fn int8_needs_inputs_that_can_be_turned() {
    let narrow = |name: &str, shape: &[usize]| {
        let values = Tensor::zeros(shape, DType::F32, &CPU).unwrap();
        (name.to_owned(), QTensor::quantize(&values, GgmlDType::F32).unwrap())
    };
    let bytes = edited(|metadata, tensors| {
        metadata.retain(|(key, _)| key != "llama.feed_forward_length");
        metadata.push(("llama.feed_forward_length".to_owned(), Value::U32(104)));
        tensors.retain(|(name, _)| !name.contains(".ffn_") || name.contains("norm"));
        for layer in ["blk.0", "blk.1"] {
            tensors.push(narrow(&format!("{layer}.ffn_gate.weight"), &[104, 64]));
            tensors.push(narrow(&format!("{layer}.ffn_up.weight"), &[104, 64]));
            tensors.push(narrow(&format!("{layer}.ffn_down.weight"), &[64, 104]));
        }
    });
    let load = |dtype| load_as(&bytes, KvDtype::F32, dtype, Kernel::best(), 1);
    assert!(load(ComputeDtype::Bf16).is_ok());
    let refused = load(ComputeDtype::Int8).err().unwrap();
    assert!(refused.to_string().contains("104 inputs"), "{refused}");
    assert_eq!(refused.hint(), Some(Hint::UseDtype("bf16")));
}

/// Gates and ups are packed panel by panel of 16; the last panel need not be full.
#[test]
fn a_feed_forward_part_of_any_width_gives_the_same() {
    let widened = edited(|metadata, tensors| {
        metadata.retain(|(key, _)| key != "llama.feed_forward_length");
        metadata.push(("llama.feed_forward_length".to_owned(), Value::U32(101)));
        for (name, tensor) in tensors.iter_mut().filter(|(name, _)| name.contains(".ffn_")) {
            let dim = match name.rsplit('.').nth(1) {
                Some("ffn_gate" | "ffn_up") => 0,
                Some("ffn_down") => 1,
                _ => continue,
            };
            let exact = tensor.dequantize(&CPU).unwrap();
            let wider = exact.pad_with_zeros(dim, 0, 5).unwrap();
            *tensor = QTensor::quantize(&wider, GgmlDType::F32).unwrap();
        }
    });
    for kernel in Kernel::available() {
        for dtype in [ComputeDtype::F32, ComputeDtype::Bf16] {
            let prefill = |bytes: &[u8], length: usize| {
                let model = load_as(bytes, KvDtype::F32, dtype, kernel, 2).unwrap();
                model.prefill(&[chunk(&tokens(1, length))]).unwrap().remove(0)
            };
            // A single row takes another path.
            for length in [1, 40] {
                assert!(same(&prefill(&tiny(), length), &prefill(&widened, length)), "{kernel:?}");
            }
        }
    }
}

#[test]
fn more_tokens_than_a_pass_holds_give_the_same() {
    let model = load(KvDtype::Bf16);
    let long =
        [1023, 1, 1024, 1025, 3, 1500, 60].map(|length| chunk(&tokens(length, length as usize)));
    let blocks = model.prefill(&long).unwrap();
    for (block, chunk) in blocks.iter().zip(&long) {
        assert!(same(block, &model.prefill(std::slice::from_ref(chunk)).unwrap()[0]));
    }
    let blocks: Vec<&KvBlock> = blocks.iter().filter(|block| block.tokens() < 700).collect();
    for length in [511, 513, 1024, 1300] {
        let query = tokens(9, length);
        let alone: Vec<f32> =
            blocks.iter().map(|block| model.score(&query, &[block]).unwrap()[0]).collect();
        assert_eq!(bits(&model.score(&query, &blocks).unwrap()), bits(&alone));
    }
}

#[test]
fn order_of_documents_does_not_matter() {
    let model = load(KvDtype::F32);
    let (a, b) = (chunk(&[5; 40]), chunk(&[200, 201, 202]));
    let ab = model.prefill(&[a.clone(), b.clone()]).unwrap();
    let ba = model.prefill(&[b, a]).unwrap();
    assert!(same(&ab[0], &ba[1]) && same(&ab[1], &ba[0]));
    let query = tokens(1, 5);
    let forth = model.score(&query, &[&ab[0], &ab[1]]).unwrap();
    let back = model.score(&query, &[&ab[1], &ab[0]]).unwrap();
    assert_eq!(bits(&forth), bits(&[back[1], back[0]]));
}

#[test]
fn two_parts_score_as_one_run() {
    // With a calibration the query's rows are not rounded, and its positions are none of a chunk's.
    for kv_dtype in KvDtype::ALL.into_iter().filter(|kv_dtype| !kv_dtype.is_calibrated()) {
        let model = load(kv_dtype);
        for (document, query) in [(1, 1), (1, 20), (31, 2), (33, 1), (60, 20), (200, 64), (7, 40)] {
            let (document, query) = (tokens(3, document), tokens(4, query));
            let block = model.prefill(&[chunk(&document)]).unwrap().remove(0);
            let score = model.score(&query, &[&block]).unwrap()[0];
            let whole = mean_log_probability(&model, &document, &query);
            assert!((f64::from(score) - whole).abs() <= 1e-5, "{score}, one run gives {whole}");
        }
    }
}

#[test]
fn a_calibration_depends_on_its_chunks_alone() {
    let fixed = FixedPositions { first: 2, last: 3 };
    let made = |kernel, threads| {
        let model = load_as(&tiny(), KvDtype::F32, ComputeDtype::F32, kernel, threads).unwrap();
        model.calibrate(&ragged(16), fixed).unwrap().digest()
    };
    let first = made(Kernel::Portable, 1);
    for kernel in Kernel::available() {
        assert_eq!(made(kernel, 2), first, "{kernel:?}");
    }
}

/// Positions that are the same in every chunk equal their own means, so nothing is left to round.
#[test]
fn fixed_positions_are_stored_nearly_exactly() {
    let fixed = FixedPositions { first: 6, last: 0 };
    let chunks: Vec<_> =
        (0..8).map(|i| chunk(&[vec![9, 8, 7, 6, 5, 4], tokens(i, 20)].concat())).collect();
    let exact = load(KvDtype::F32);
    let calibration = Arc::new(exact.calibrate(&chunks, fixed).unwrap());
    let blocks = exact.prefill(&chunks[..1]).unwrap();
    let (query, prefix) = (tokens(77, 9), chunk(&chunks[0].tokens[..6]));
    let [start] = &exact.prefill(std::slice::from_ref(&prefix)).unwrap()[..] else { panic!() };
    let expected = exact.score(&query, &[start, &blocks[0]]).unwrap();
    for kv_dtype in [KvDtype::Int5, KvDtype::Int4] {
        let model = load(KvDtype::F32).calibrated(kv_dtype, Arc::clone(&calibration));
        let blocks = model.prefill(&[prefix.clone(), chunks[0].clone()]).unwrap();
        let scores = model.score(&query, &[&blocks[0], &blocks[1]]).unwrap();
        assert!((scores[0] - expected[0]).abs() < 1e-4, "{kv_dtype}: {scores:?} {expected:?}");
        assert_ne!(bits(&scores)[1], bits(&expected)[1], "{kv_dtype} rounds the rest");
    }
}

#[test]
fn heads_that_are_mixed_too_little_are_refused() {
    let bytes = edited(|metadata, _| {
        for key in ["llama.attention.key_length", "llama.rope.dimension_count"] {
            metadata.retain(|(k, _)| k != key);
            metadata.push((key.to_owned(), Value::U32(12)));
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let mut file = ModelFile::open(&write_file(folder.path(), &bytes)).unwrap();
    for kv_dtype in KvDtype::ALL {
        let settings = LoadSettings {
            device: DeviceChoice::Cpu,
            dtype: DtypeChoice::Named(ComputeDtype::F32),
            threads: 1,
            kv_dtype,
            calibration: None,
            chunk_tokens: 64,
            warn: |_| {},
        };
        // The tensors are not of these sizes either, but that comes later.
        let refused = Model::load(&mut file, settings).err();
        let named = matches!(&refused, Some(LoadError::UnsupportedChoice { choice, .. })
            if choice.contains(&format!("{kv_dtype} with heads of 12 dimensions")));
        assert_eq!(named, kv_dtype.is_calibrated(), "{kv_dtype}: {refused:?}");
    }
}

#[test]
fn nothing_to_compute_is_no_panic() {
    let model = load(KvDtype::F32);
    assert_eq!(model.prefill(&[]).unwrap().len(), 0);
    assert_eq!(model.score(&[5], &[]).unwrap().len(), 0);
    assert_eq!(model.log_probabilities_of_run(&[5]).unwrap().len(), 0);
}

#[test]
fn wrong_tokens_and_blocks_are_refused() {
    let model = load(KvDtype::F32);
    let vocabulary = model.config().vocabulary;
    let unknown = u32::try_from(vocabulary).unwrap();
    let prefill = |tokens: &[u32]| model.prefill(&[chunk(&[5]), chunk(tokens)]).unwrap_err();
    assert!(matches!(prefill(&[]), ModelError::Empty { what } if what.contains("document")));
    assert!(matches!(
        prefill(&[5, unknown]),
        ModelError::UnknownToken { token, vocabulary: v, .. } if token == unknown && v == vocabulary
    ));
    assert!(matches!(prefill(&[5; 2049]), ModelError::TooLong { tokens: 2049, max: 2048, .. }));
    let block = model.prefill(&[chunk(&[5; 2040])]).unwrap().remove(0);
    let score = |query: &[u32]| model.score(query, &[&block]);
    assert!(matches!(score(&[]), Err(ModelError::Empty { .. })));
    assert!(matches!(score(&[unknown]), Err(ModelError::UnknownToken { .. })));
    assert!(score(&[5; 8]).is_ok());
    assert!(matches!(score(&[5; 9]), Err(ModelError::TooLong { tokens: 2049, max: 2048, .. })));
    let other = load(KvDtype::Bf16).prefill(&[chunk(&[5])]).unwrap().remove(0);
    assert!(matches!(
        model.upload(other),
        Err(ModelError::KvShape { block, model })
            if block.kv_dtype == KvDtype::Bf16 && model.kv_dtype == KvDtype::F32
    ));
    assert!(model.upload(block).is_ok());
}

#[test]
fn values_that_are_no_numbers_are_refused() {
    let model = load(KvDtype::F32);
    let kv_shape: KvShape = *model.kv_shape();
    let good = model.prefill(&[chunk(&[5, 6])]).unwrap().remove(0);
    let kv = vec![0xff; 2 * kv_shape.token_bytes()];
    let bad = KvBlock::new(kv_shape, 2, kv, vec![0.0; kv_shape.hidden as usize]);
    let hidden = KvBlock::new(kv_shape, 2, good.kv().to_vec(), vec![f32::NAN; good.hidden().len()]);
    for bad in [bad, hidden] {
        let scored = model.score(&[5, 6], &[&good, &bad]);
        assert!(matches!(scored, Err(ModelError::NotANumber { what }) if what == "candidate 1"));
        // The contents that such a block leaves in the buffers change no other score.
        assert!(model.score(&[5, 6], &[&good]).is_ok());
    }
    let nan = Tensor::full(f32::NAN, 64, &CPU).unwrap();
    let model = with_tensor("output_norm.weight", GgmlDType::F32, &nan);
    let model = load_as(&model, KvDtype::F32, ComputeDtype::F32, Kernel::best(), 1).unwrap();
    assert!(matches!(model.prefill(&[chunk(&[5])]), Err(ModelError::NotANumber { .. })));
}

#[test]
fn other_models_are_refused() {
    let error =
        |bytes: Vec<u8>| load_as(&bytes, KvDtype::F32, ComputeDtype::F32, Kernel::best(), 1).err();
    let text = |text: &str| Value::String(text.to_owned());
    let other = error(with_metadata("general.architecture", text("gpt2")));
    assert!(
        matches!(other, Some(LoadError::Architecture { architecture }) if architecture == "gpt2")
    );
    let mamba = error(with_metadata("general.architecture", text("mamba"))).unwrap();
    assert!(matches!(mamba, LoadError::RefusedArchitecture { .. }), "{mamba}");
    assert!(mamba.to_string().contains("\"mamba\"") && mamba.to_string().contains("a state"));
    for (key, value) in [
        ("llama.rope.scaling.type", text("longrope")),
        ("llama.rope.dimension_count", Value::U32(8)),
        ("llama.attention.head_count_kv", Value::U32(3)),
        ("llama.attention.head_count_kv", Value::Array([2, 1].map(Value::U32).to_vec())),
    ] {
        let refused = error(with_metadata(key, value));
        assert!(matches!(refused, Some(LoadError::Unsupported { .. })), "{key}: {refused:?}");
    }
    for (key, value) in [
        ("llama.block_count", Value::U32(0)),
        ("llama.embedding_length", text("64")),
        ("llama.context_length", Value::U64(u64::MAX)),
    ] {
        let refused = error(with_metadata(key, value));
        assert!(matches!(refused, Some(LoadError::Metadata { key: k, .. }) if k == key));
    }
    for (name, length) in [
        ("blk.0.attn_q.bias", 64),
        ("blk.0.attn_q_norm.weight", 16),
        ("blk.0.post_attention_norm.weight", 64),
        ("blk.0.attn_output.bias", 64),
    ] {
        let ones = Tensor::ones(length, DType::F32, &CPU).unwrap();
        let refused = error(with_tensor(name, GgmlDType::F32, &ones));
        assert!(matches!(refused, Some(LoadError::Unsupported { .. })), "{name}: {refused:?}");
    }
    let zeros = Tensor::zeros(8, DType::F32, &CPU).unwrap();
    let refused = error(with_tensor("rope_freqs.weight", GgmlDType::F32, &zeros));
    assert!(matches!(refused, Some(LoadError::Unsupported { .. })), "{refused:?}");
    let ones = Tensor::ones(65, DType::F32, &CPU).unwrap();
    let refused = error(with_tensor("output_norm.weight", GgmlDType::F32, &ones));
    assert!(matches!(refused, Some(LoadError::Gguf { .. })), "{refused:?}");
    let refused = error(edited(|_, tensors| tensors.retain(|(n, _)| n != "blk.1.ffn_up.weight")));
    assert!(matches!(refused, Some(LoadError::Gguf { .. })), "{refused:?}");
    // candle divides by it.
    let refused = error(with_metadata("general.alignment", Value::U32(0)));
    assert!(matches!(refused, Some(LoadError::Gguf { .. })), "{refused:?}");
}

/// Runs everything that reads the file, down to a score.
fn use_model(path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let mut file = ModelFile::open(path)?;
    let tokenizer = file.tokenizer();
    let model = CpuModel::load(&mut file, KvDtype::F32, ComputeDtype::F32, Kernel::best(), 1)?;
    let ids = tokenizer?.encode_text("in the and of 12")?;
    let blocks = model.prefill(&[chunk(&ids)])?;
    model.score(&ids, &[&blocks[0]])?;
    Ok(())
}

#[test]
fn damaged_files_are_errors_or_models() {
    let folder = tempfile::tempdir().unwrap();
    let whole = tiny();
    let survives = |bytes: &[u8], what: String| {
        let path = write_file(folder.path(), bytes);
        catch_unwind(AssertUnwindSafe(|| use_model(&path).is_ok())).expect(&what)
    };
    assert!(survives(&whole, "the whole file".to_owned()));
    for i in 0..60 {
        // Half of the cuts are in the header and the metadata.
        let length = if i < 30 { i * 8192 / 30 } else { i * (whole.len() - 1) / 59 };
        assert!(!survives(&whole[..length], format!("cut at {length}")), "cut at {length}");
    }
    for (i, random) in tokens(11, 1024).chunks_exact(2).enumerate() {
        let (offset, bit) = ((i * 16 + random[0] as usize % 16) % 8192, random[1] % 8);
        let mut bytes = whole.clone();
        bytes[offset] ^= 1 << bit;
        survives(&bytes, format!("bit {bit} of byte {offset} flipped"));
    }
}

#[test]
fn special_tokens_are_read_in_templates_alone() {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer =
        ModelFile::open(&write_file(folder.path(), &tiny())).unwrap().tokenizer().unwrap();
    assert!(tokenizer.has_special("<|im_start|>") && !tokenizer.has_special("the"));
    assert_eq!(tokenizer.encode_template("<|im_start|>").unwrap(), [1]);
    assert!(tokenizer.encode_text("<|im_start|>").unwrap().iter().all(|id| *id > 2));
    assert_eq!(tokenizer.encode_text("").unwrap(), [0_u32; 0]);
    for (key, value) in [
        ("tokenizer.ggml.pre", "falcon"),
        ("tokenizer.ggml.pre", "default"),
        ("tokenizer.ggml.model", "bert"),
    ] {
        let other = with_metadata(key, Value::String(value.to_owned()));
        let file = ModelFile::open(&write_file(folder.path(), &other)).unwrap();
        let refused = file.tokenizer().err().unwrap();
        assert_eq!(refused.hint(), Some(Hint::GiveTokenizer));
        let LoadError::Tokenizer { source, .. } = refused else { panic!("{refused:?}") };
        assert!(matches!(*source, LoadError::Unsupported { .. }), "{source:?}");
    }
}

#[test]
fn names_and_paths_are_resolved() {
    let folder = tempfile::tempdir().unwrap();
    let cache = ModelCache::at(folder.path());
    let name = CATALOG[0].name;
    let missing = cache.resolve(name).unwrap_err();
    assert_eq!(missing.hint(), Some(Hint::PullModel { name: name.to_owned() }));
    assert!(
        matches!(missing, LoadError::NotPulled { path, .. } if path.starts_with(folder.path()))
    );
    let unknown = cache.resolve("no-such-model").unwrap_err();
    assert!(matches!(unknown, LoadError::UnknownName { known, .. } if known.contains(name)));
    let path = write_file(folder.path(), b"GGUF");
    assert_eq!(cache.resolve(path.to_str().unwrap()).unwrap(), path);
    // A file of another length is not the model.
    let place = cache.path(&CATALOG[0]).unwrap();
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    fs::write(&place, b"GGUF").unwrap();
    assert!(!cache.holds(&CATALOG[0]));
    assert!(matches!(cache.resolve(name), Err(LoadError::NotPulled { .. })));
}

#[test]
fn what_is_there_is_not_pulled_again() {
    let folder = tempfile::tempdir().unwrap();
    let cache = ModelCache::at(folder.path());
    let mut model: NamedModel = CATALOG[0];
    // No part of it could be fetched: a pull would fail.
    (model.bytes, model.parts) = (4, &[]);
    let place = cache.path(&model).unwrap();
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    fs::write(&place, b"GGUF").unwrap();
    assert_eq!(cache.pull(&model).unwrap(), place);
    assert_eq!(fs::read(&place).unwrap(), b"GGUF");
}
