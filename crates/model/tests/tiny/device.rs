//! The decoder on candle's tensors against the one on the CPU. The code is the GPU's, the device is
//! candle's CPU device.

use std::path::Path;

use hyperrag_core::{Chunk, Classified, Hint, KvBlock, KvDtype, LanguageModel, ModelError};
use hyperrag_model::{
    ComputeDtype, CpuModel, DeviceBlock, DeviceChoice, DeviceModel, DeviceSettings, Kernel,
    ModelFile,
};

use crate::blocks::chunk;
use crate::seeded::{ragged, tokens};

/// Number of positions of the static layout; the longest candidate has 60.
const POSITIONS: usize = 64;

pub(crate) fn both(kv_dtype: KvDtype) -> (CpuModel, DeviceModel) {
    with_memory(kv_dtype, None)
}

fn with_memory(kv_dtype: KvDtype, memory_bytes: Option<usize>) -> (CpuModel, DeviceModel) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/tiny.gguf");
    let mut file = ModelFile::open(&path).unwrap();
    let cpu = CpuModel::load(&mut file, kv_dtype, ComputeDtype::F32, Kernel::best(), 2).unwrap();
    let settings = settings(kv_dtype, memory_bytes);
    (cpu, DeviceModel::load(&mut file, DeviceChoice::Cpu, settings).unwrap().0)
}

fn settings(kv_dtype: KvDtype, memory_bytes: Option<usize>) -> DeviceSettings {
    DeviceSettings {
        dtype: ComputeDtype::F32,
        kv_dtype,
        block_positions: POSITIONS,
        memory_bytes,
        warn: |_| (),
    }
}

fn values(block: &KvBlock) -> Vec<f32> {
    let (kv_dtype, dim) = (block.kv_shape().kv_dtype, block.kv_shape().head_dim as usize);
    let rows = block.kv().chunks_exact(kv_dtype.row_bytes(dim));
    let decoded = rows.flat_map(|bytes| {
        let mut row = vec![0.0; dim];
        kv_dtype.decode(bytes, &mut row);
        row
    });
    decoded.collect()
}

pub(crate) fn assert_close(actual: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(actual.len(), expected.len(), "{what}");
    for (i, (a, e)) in actual.iter().zip(expected).enumerate() {
        assert!((a - e).abs() <= tolerance, "{what}, value {i}: {a}, on the CPU {e}");
    }
}

fn assert_blocks_close(actual: &[KvBlock], expected: &[KvBlock], tolerance: f32) {
    assert_eq!(actual.len(), expected.len());
    for (i, (a, e)) in actual.iter().zip(expected).enumerate() {
        assert_eq!((a.kv_shape(), a.tokens()), (e.kv_shape(), e.tokens()));
        assert_close(&values(a), &values(e), tolerance, &format!("K and V of block {i}"));
        assert_close(a.hidden(), e.hidden(), tolerance, &format!("hidden state of block {i}"));
    }
}

pub(crate) fn uploaded<M: LanguageModel>(model: &M, blocks: &[KvBlock]) -> Vec<M::Resident> {
    blocks.iter().map(|block| model.upload(block.clone()).unwrap()).collect()
}

fn scores<M: LanguageModel>(model: &M, query: &[u32], blocks: &[KvBlock]) -> Vec<f32> {
    let resident = uploaded(model, blocks);
    model.score(query, &resident.iter().collect::<Vec<_>>()).unwrap()
}

#[test]
fn ragged_chunks_prefill_as_on_the_cpu() {
    let (cpu, device) = both(KvDtype::F32);
    let chunks: Vec<Chunk> = ragged(23);
    assert_blocks_close(&device.prefill(&chunks).unwrap(), &cpu.prefill(&chunks).unwrap(), 1e-4);
    // One alone, without padding, and in the order of the input.
    let alone = device.prefill(&chunks[3..4]).unwrap();
    assert_blocks_close(&alone, &cpu.prefill(&chunks[3..4]).unwrap(), 1e-4);
    assert_eq!(device.prefill(&[]).unwrap(), []);
}

#[test]
fn ragged_batches_score_as_on_the_cpu() {
    let (cpu, device) = both(KvDtype::F32);
    let blocks = cpu.prefill(&ragged(23)).unwrap();
    for length in [1, 2, 20] {
        let query = tokens(99, length);
        let expected = scores(&cpu, &query, &blocks);
        assert_close(&scores(&device, &query, &blocks), &expected, 1e-4, "scores");
        for (i, block) in blocks.iter().enumerate().take(4) {
            let alone = scores(&device, &query, std::slice::from_ref(block));
            assert_close(&alone, &expected[i..=i], 1e-4, "score alone");
        }
    }
    assert!(device.score(&[3], &[]).unwrap().is_empty());
}

/// Uses the device's own blocks for scores, like a store that is built on the device and used on it.
#[test]
fn prefill_and_score_together_agree() {
    let (cpu, device) = both(KvDtype::F32);
    let chunks = ragged(9);
    let query = tokens(5, 12);
    let expected = scores(&cpu, &query, &cpu.prefill(&chunks).unwrap());
    let actual = scores(&device, &query, &device.prefill(&chunks).unwrap());
    assert_close(&actual, &expected, 1e-4, "scores");
    let resident = device.prefill_resident(&chunks).unwrap();
    let resident = device.score(&query, &resident.iter().collect::<Vec<_>>()).unwrap();
    assert_close(&resident, &expected, 1e-4, "scores of blocks that stayed");
    // The other way: a store built on the device, read on the CPU.
    let across = scores(&cpu, &query, &device.prefill(&chunks).unwrap());
    assert_close(&across, &expected, 1e-4, "scores across");
}

#[test]
fn bf16_blocks_agree() {
    let (cpu, device) = both(KvDtype::Bf16);
    let chunks = ragged(9);
    let (on_cpu, on_device) = (cpu.prefill(&chunks).unwrap(), device.prefill(&chunks).unwrap());
    // A value near the middle of two bf16 numbers may be rounded either way.
    assert_blocks_close(&on_device, &on_cpu, 0.04);
    let query = tokens(5, 12);
    assert_close(&scores(&device, &query, &on_cpu), &scores(&cpu, &query, &on_cpu), 1e-4, "scores");
}

/// Tries memory for one sequence, for a few, and for all.
#[test]
fn batches_may_be_split_anywhere() {
    let chunks = ragged(23);
    let query = tokens(5, 12);
    for memory in [1, 1 << 20, 1 << 22, 1 << 30] {
        let (cpu, device) = with_memory(KvDtype::F32, Some(memory));
        let expected = cpu.prefill(&chunks).unwrap();
        assert_blocks_close(&device.prefill(&chunks).unwrap(), &expected, 1e-4);
        let scores_there = scores(&device, &query, &expected);
        assert_close(&scores_there, &scores(&cpu, &query, &expected), 1e-4, "scores");
    }
}

/// Scores a block that fills the layout beside one of a single position.
#[test]
fn full_and_shortest_blocks_share_a_batch() {
    let (cpu, device) = both(KvDtype::F32);
    let chunks = [chunk(&tokens(1, POSITIONS)), chunk(&tokens(2, 1))];
    let blocks = cpu.prefill(&chunks).unwrap();
    let query = tokens(3, 7);
    assert_close(&scores(&device, &query, &blocks), &scores(&cpu, &query, &blocks), 1e-4, "scores");
}

#[test]
fn inputs_are_checked() {
    let (cpu, device) = both(KvDtype::F32);
    let refused = |tokens: &[u32]| device.prefill(&[chunk(tokens)]).unwrap_err();
    assert!(matches!(refused(&[]), ModelError::Empty { .. }));
    assert!(matches!(refused(&[1 << 20]), ModelError::UnknownToken { .. }));
    assert!(matches!(refused(&[1; 4000]), ModelError::TooLong { .. }));
    let long = cpu.prefill(&[chunk(&tokens(1, POSITIONS + 1))]).unwrap().remove(0);
    assert!(matches!(
        device.upload(long),
        Err(ModelError::TooLong { tokens: 65, max: POSITIONS, .. })
    ));
    let (bf16, _) = both(KvDtype::Bf16);
    let other = bf16.prefill(&ragged(1)).unwrap().remove(0);
    assert!(matches!(device.upload(other), Err(ModelError::KvShape { .. })));
    let block: DeviceBlock = device.upload(cpu.prefill(&ragged(1)).unwrap().remove(0)).unwrap();
    assert!(matches!(device.score(&[], &[&block]), Err(ModelError::Empty { .. })));
    assert!(matches!(device.score(&[1; 4000], &[&block]), Err(ModelError::TooLong { .. })));
}

/// Uses random weights of the tiny model's sizes, as the figures do.
#[test]
fn random_weights_compute() {
    let (cpu, _) = both(KvDtype::Bf16);
    let settings = settings(KvDtype::Bf16, None);
    let model = DeviceModel::random(cpu.config().clone(), DeviceChoice::Cpu, settings).unwrap().0;
    let blocks = model.prefill(&ragged(5)).unwrap();
    let scores = scores(&model, &tokens(1, 6), &blocks);
    assert!(scores.iter().all(|score| *score < 0.0));
    assert!(model.product_flops(64).unwrap() > 1e6);
}

#[test]
fn int8_is_refused_on_a_gpu() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/tiny.gguf");
    let settings = DeviceSettings { dtype: ComputeDtype::Int8, ..settings(KvDtype::F32, None) };
    let mut file = ModelFile::open(&path).unwrap();
    let refused = DeviceModel::load(&mut file, DeviceChoice::Cpu, settings).err();
    assert_eq!(refused.unwrap().hint(), Some(Hint::UseDtype("f16, bf16 or f32")));
}
