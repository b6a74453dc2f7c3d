//! Attention at given sizes, for `benches/attention.rs`. No part of the library's interface.

use std::sync::Arc;

use hyperrag_core::{Calibration, FixedPositions, KvBlock, KvDtype, KvShape};
use hyperrag_kernels::cpu::gemm::pack_lhs::LhsFormat;
use hyperrag_kernels::dtype::ComputeDtype;
use hyperrag_kernels::isa::Kernel;

use crate::arch::rope::Rotations;
use crate::backend::cpu::attention::{KvHead, QkvHeads};
use crate::backend::cpu::kv_cache::PastHead;
use crate::backend::cpu::kv_codec::{KvCodec, KvPart, KvRowIndex};
use crate::backend::cpu::scratch::Scratch;

/// Values between -1 and 1 that look random.
fn values(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919 % 10_007) as f32 / 5003.5) - 1.0).collect()
}

/// Attention of a query's rows over a stored block, of one layer with the heads of SmolLM2-135M,
/// on one thread.
pub struct Attention {
    kernel: Kernel,
    codec: KvCodec,
    block: KvBlock,
    qkv: Vec<f32>,
    scratch: Scratch,
    out: Vec<f32>,
    rows: usize,
    format: LhsFormat,
}

const HEADS: usize = 9;
const KV_HEADS: usize = 3;
const DIM: usize = 64;
const GROUP: usize = HEADS / KV_HEADS;

impl Attention {
    /// `rows` rows after `stored` positions.
    #[must_use]
    pub fn new(
        kernel: Kernel,
        dtype: ComputeDtype,
        kv_dtype: KvDtype,
        stored: usize,
        rows: usize,
    ) -> Self {
        let kv_shape = KvShape {
            layers: 1,
            kv_heads: KV_HEADS as u32,
            head_dim: DIM as u32,
            hidden: 1,
            kv_dtype,
        };
        let angles = (0..(stored + rows) * DIM / 2).map(|i| (i as f32 * 0.01).sin_cos());
        let codec = KvCodec::new(
            kernel,
            kv_dtype,
            DIM,
            vec![Arc::new(Rotations::new(angles.map(|(sin, cos)| (cos, sin)).collect(), DIM))],
        );
        let fixed = FixedPositions { first: 0, last: 0 };
        let means = vec![0.25; fixed.places() * 2 * KV_HEADS * DIM];
        let calibration = Arc::new(Calibration::new(&kv_shape, fixed, means));
        let codec = match kv_dtype.is_calibrated() {
            true => codec.calibrated(kv_dtype, calibration),
            false => codec,
        };
        let mut kv = vec![0; stored * kv_shape.token_bytes()];
        let heads = kv.chunks_exact_mut(kv_shape.head_bytes(stored)).enumerate();
        for (head, bytes) in heads {
            let part = if head < KV_HEADS { KvPart::Key } else { KvPart::Value };
            let rows = bytes.chunks_exact_mut(kv_dtype.row_bytes(DIM)).enumerate();
            for (position, bytes) in rows {
                let index =
                    KvRowIndex { layer: 0, head: head % KV_HEADS, position, tokens: stored };
                codec.encode(part, index, &mut values(DIM), bytes);
            }
        }
        let block = KvBlock::new(kv_shape, stored, kv, vec![0.0]);
        let qkv = values(rows * (HEADS + 2 * KV_HEADS) * DIM);
        let out = vec![0.0; rows * GROUP * DIM];
        let format = kernel.attention_lhs_format(dtype);
        Self { kernel, codec, block, qkv, scratch: Scratch::default(), out, rows, format }
    }

    /// Computes it once, for all heads.
    pub fn run(&mut self) -> &[f32] {
        for head in 0..KV_HEADS {
            let heads = QkvHeads {
                qkv: &self.qkv,
                shared: None,
                heads: HEADS,
                kv_heads: KV_HEADS,
                dim: DIM,
                cap: None,
                window: None,
            };
            let (keys, values) = (self.block.keys(0, head), self.block.values(0, head));
            let past = Some(PastHead { tokens: self.block.tokens(), keys, values });
            let codec = &self.codec;
            let kv = KvHead { codec, format: self.format, past, layer: 0, head, kv_out: None };
            heads.attend(self.kernel, kv, &mut self.scratch, &mut self.out);
        }
        &self.out
    }

    /// Floating-point operations of a run's products.
    #[must_use]
    pub fn flops(&self) -> u64 {
        let positions = self.rows * self.block.tokens() + self.rows * (self.rows + 1) / 2;
        (4 * HEADS * DIM * positions) as u64
    }
}
