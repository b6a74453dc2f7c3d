//! Labels and logits at the last position, and pairs of several queries in one call.

use candle_core::quantized::GgmlDType;
use hyperrag_core::{
    BlockError, KvBlock, KvDtype, KvShape, LanguageModel, LayerSource, ModelError, Pair,
    QuerySuffix, Scorer,
};
use hyperrag_model::{ComputeDtype, CpuModel, Kernel};

use crate::blocks::{bits, chunk};
use crate::cpu::{Reference, head_weights, load_as, tiny, with_tensor};
use crate::device::{assert_close, both, uploaded};
use crate::seeded::{ragged, tokens};

const YES: u32 = 40;
const NO: u32 = 275;

fn part(seed: u64, count: usize, scorer: Scorer) -> QuerySuffix {
    QuerySuffix { tokens: tokens(seed, count), scorer }
}

/// Makes queries of all scorers and of several lengths.
fn parts() -> Vec<QuerySuffix> {
    let scorers =
        [Scorer::QueryLikelihood, Scorer::Label { yes: YES, no: NO }, Scorer::Logit { token: YES }];
    let lengths = [1, 2, 20].into_iter().zip(0..);
    let all = lengths.flat_map(|(length, seed)| scorers.map(|scorer| part(seed, length, scorer)));
    all.collect()
}

/// Pairs every query with every block, no two pairs of a query side by side.
fn mixed<'a, R>(parts: &'a [QuerySuffix], blocks: &'a [R]) -> Vec<Pair<'a, R>> {
    let pairs =
        blocks.iter().flat_map(|block| parts.iter().map(move |query| Pair { query, block }));
    pairs.collect()
}

fn one(model: &CpuModel, query: &QuerySuffix, block: &KvBlock) -> f32 {
    model.score_resident(&[Pair { query, block }]).unwrap()[0]
}

#[test]
fn candle_operations_give_the_same_logits() {
    for bytes in [tiny(), with_tensor("output.weight", GgmlDType::Q8_0, &head_weights())] {
        let model = load_as(&bytes, KvDtype::F32, ComputeDtype::F32, Kernel::best(), 2).unwrap();
        let mut reference = Reference::new(bytes);
        for (document, query) in [(1, 1), (33, 2), (60, 20)] {
            let (document, query) = (tokens(3, document), tokens(4, query));
            let block = model.prefill(&[chunk(&document)]).unwrap().remove(0);
            let logits = reference.logits(&[&document[..], &query].concat()).unwrap();
            let last = logits.get(document.len() + query.len() - 1).unwrap();
            let last: Vec<f32> = last.to_vec1().unwrap();
            let score =
                |scorer| one(&model, &QuerySuffix { tokens: query.clone(), scorer }, &block);
            let (yes, no) = (last[YES as usize], last[NO as usize]);
            let label = score(Scorer::Label { yes: YES, no: NO });
            assert!((label - (yes - no)).abs() <= 1e-4, "{label}, expected {yes} - {no}");
            let logit = score(Scorer::Logit { token: YES });
            assert!((logit - yes).abs() <= 1e-4, "{logit}, expected {yes}");
        }
    }
}

#[test]
fn labels_of_two_parts_are_those_of_one_run() {
    for kv_dtype in [KvDtype::F32, KvDtype::Bf16, KvDtype::Int8] {
        let model = load_as(&tiny(), kv_dtype, ComputeDtype::F32, Kernel::best(), 2).unwrap();
        for (document, query) in [(1, 1), (31, 2), (60, 20), (200, 64)] {
            let (document, query) = (tokens(3, document), tokens(4, query));
            let block = model.prefill(&[chunk(&document)]).unwrap().remove(0);
            let log = |label: u32| {
                let run = [&document[..], &query, &[label]].concat();
                *model.log_probabilities_of_run(&run).unwrap().last().unwrap()
            };
            let part =
                QuerySuffix { tokens: query.clone(), scorer: Scorer::Label { yes: YES, no: NO } };
            let (score, whole) = (one(&model, &part, &block), log(YES) - log(NO));
            assert!((f64::from(score) - whole).abs() <= 1e-5, "{score}, one run gives {whole}");
        }
    }
}

#[test]
fn bits_of_a_pair_depend_on_the_pair_alone() {
    for (kv_dtype, dtype) in [
        (KvDtype::F32, ComputeDtype::F32),
        (KvDtype::Bf16, ComputeDtype::F32),
        (KvDtype::Int4, ComputeDtype::F32),
        (KvDtype::Bf16, ComputeDtype::Bf16),
        (KvDtype::Bf16, ComputeDtype::Int8),
    ] {
        for kernel in Kernel::available() {
            let reference = match kernel.id(dtype) == Kernel::Portable.id(dtype) {
                true => Kernel::Portable,
                false => kernel,
            };
            let (chunks, parts) = (ragged(17), parts());
            let single = load_as(&tiny(), kv_dtype, dtype, reference, 1).unwrap();
            let alone: Vec<KvBlock> = chunks
                .iter()
                .map(|chunk| single.prefill(std::slice::from_ref(chunk)).unwrap().remove(0))
                .collect();
            let pairs = mixed(&parts, &alone);
            let expected: Vec<f32> =
                pairs.iter().map(|pair| one(&single, pair.query, pair.block)).collect();
            for threads in [1, 2] {
                let model = load_as(&tiny(), kv_dtype, dtype, kernel, threads).unwrap();
                let blocks = model.prefill(&chunks).unwrap();
                let scores = model.score_resident(&mixed(&parts, &blocks)).unwrap();
                let what = format!("{kv_dtype}, {kernel:?}, {threads} threads");
                assert_eq!(bits(&scores), bits(&expected), "{what}");
            }
        }
    }
}

/// A block with one layer that cannot be read.
struct Broken<'a> {
    block: &'a KvBlock,
    layer: usize,
}

impl LayerSource for Broken<'_> {
    fn kv_shape(&self) -> &KvShape {
        self.block.kv_shape()
    }

    fn tokens(&self) -> usize {
        self.block.tokens()
    }

    fn hidden(&self) -> Result<&[f32], BlockError> {
        Ok(self.block.hidden())
    }

    fn layer<'a>(&'a self, layer: usize, _: &'a mut Vec<u8>) -> Result<&'a [u8], BlockError> {
        let (place, what) = ("here".to_owned(), format!("layer {layer}"));
        match layer == self.layer {
            true => Err(BlockError::Damaged { place, what }),
            false => Ok(self.block.layer(layer)),
        }
    }

    fn read(&self) -> Result<KvBlock, BlockError> {
        self.layer(self.layer, &mut Vec::new()).map(|_| self.block.clone())
    }
}

#[test]
fn a_block_that_cannot_be_read_is_named_and_changes_no_other_score() {
    let (cpu, device) = both(KvDtype::Bf16);
    let (blocks, parts) = (cpu.prefill(&ragged(9)).unwrap(), parts());
    let expected = cpu.score_resident(&mixed(&parts, &blocks)).unwrap();
    let layers = cpu.kv_shape().layers as usize;
    for broken in [0, 1, layers - 1] {
        let held = Broken { block: &blocks[broken], layer: broken };
        let pairs = mixed(&parts, &blocks).into_iter();
        let kept = pairs.map(|Pair { query, block }| Pair {
            query,
            block: if std::ptr::eq(block, held.block) {
                &held as _
            } else {
                block as &dyn LayerSource
            },
        });
        let kept: Vec<_> = kept.collect();
        let on_cpu = cpu.score_streamed(&kept).unwrap();
        let on_device = device.score_streamed(&kept).unwrap();
        for (((pair, expected), score), near) in
            kept.iter().zip(&expected).zip(on_cpu).zip(on_device)
        {
            let named = |error: BlockError| error.to_string().contains(&format!("layer {broken}"));
            match std::ptr::addr_eq(pair.block, &raw const held) {
                // The hidden state alone gives the probability of one token, which needs no layer.
                true if pair.query.computed().is_empty() => {
                    assert_eq!(score.unwrap().to_bits(), expected.to_bits());
                }
                true => assert!(named(score.unwrap_err()) && named(near.unwrap_err())),
                false => {
                    assert_eq!(score.unwrap().to_bits(), expected.to_bits());
                    assert!((near.unwrap() - expected).abs() < 0.05);
                }
            }
        }
    }
}

#[test]
fn the_device_gives_the_same_labels() {
    let (cpu, device) = both(KvDtype::F32);
    let (blocks, parts) = (cpu.prefill(&ragged(11)).unwrap(), parts());
    let resident = uploaded(&device, &blocks);
    let expected = cpu.score_resident(&mixed(&parts, &blocks)).unwrap();
    assert_close(
        &device.score_resident(&mixed(&parts, &resident)).unwrap(),
        &expected,
        1e-4,
        "mixed",
    );
    for query in &parts {
        let run: Vec<_> = resident.iter().map(|block| Pair { query, block }).collect();
        let on_cpu: Vec<_> = blocks.iter().map(|block| Pair { query, block }).collect();
        let expected = cpu.score_resident(&on_cpu).unwrap();
        assert_close(&device.score_resident(&run).unwrap(), &expected, 1e-4, "one query");
    }
}

#[test]
fn pairs_are_checked() {
    let (cpu, device) = both(KvDtype::F32);
    let blocks = cpu.prefill(&ragged(1)).unwrap();
    let resident = uploaded(&device, &blocks);
    let refused = |query: &QuerySuffix| {
        let on_device = device.score_resident(&[Pair { query, block: &resident[0] }]).unwrap_err();
        let on_cpu = cpu.score_resident(&[Pair { query, block: &blocks[0] }]).unwrap_err();
        assert_eq!(on_device.to_string(), on_cpu.to_string());
        on_cpu
    };
    let label = Scorer::Label { yes: YES, no: 1 << 20 };
    let error = refused(&part(1, 3, label));
    assert!(
        matches!(error, ModelError::UnknownToken { .. }) && error.to_string().contains("scorer")
    );
    for scorer in [Scorer::QueryLikelihood, Scorer::Logit { token: YES }] {
        assert!(matches!(refused(&part(1, 0, scorer)), ModelError::Empty { .. }));
        assert!(matches!(refused(&part(1, 4000, scorer)), ModelError::TooLong { .. }));
    }
    assert!(
        cpu.score_resident(&[]).unwrap().is_empty()
            && device.score_resident(&[]).unwrap().is_empty()
    );
}
