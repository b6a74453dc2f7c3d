//! Packs K and V of one head as the right sides of attention's two products.

use hyperrag_core::KvDtype;
use hyperrag_kernels::cpu::gemm::pack_lhs::LhsFormat;
use hyperrag_kernels::cpu::gemm::panels::k_steps;
use hyperrag_kernels::isa::Kernel;
use hyperrag_kernels::lanes::{Lanes, PANEL, Pairs, panels_of};
use hyperrag_kernels::memory::aligned::take;

use crate::backend::cpu::kv_codec::{KvCodec, KvPart, KvRowIndex};

/// Packed K and V: K as panels `[16 positions][dim]`, V as panels `[16 dims][position]`. Rows come in
/// order of positions.
pub(super) enum KvPanels<'a> {
    F32 {
        keys: &'a mut [Lanes],
        values: &'a mut [Lanes],
        positions: usize,
        dim: usize,
    },
    /// Panels of bf16 with two dims of K, or two positions of V, in a step.
    Pairs {
        kernel: Kernel,
        keys: &'a mut [Pairs],
        values: &'a mut [Pairs],
        /// Steps in a panel of K, and in one of V.
        k_steps: [usize; 2],
        /// Buffer for rows that are rounded to bf16.
        rounded: &'a mut Vec<u32>,
    },
}

impl<'a> KvPanels<'a> {
    pub(super) fn start(
        kernel: Kernel,
        format: LhsFormat,
        positions: usize,
        dim: usize,
        keys: &'a mut Vec<Lanes>,
        values: &'a mut Vec<Lanes>,
        rounded: &'a mut Vec<u32>,
    ) -> Self {
        let k_steps = [k_steps(format, dim), k_steps(format, positions)];
        let keys = take(keys, panels_of(positions) * k_steps[0]);
        let values = take(values, panels_of(dim) * k_steps[1]);
        if format != LhsFormat::Bf16Pairs {
            return Self::F32 { keys, values, positions, dim };
        }
        let (keys, values) = (bytemuck::cast_slice_mut(keys), bytemuck::cast_slice_mut(values));
        // Values after the last one are multiplied by zero, so they must be numbers.
        for (panels, [k_steps, filled]) in
            [(&mut *keys, [k_steps[0], dim / 2]), (&mut *values, [k_steps[1], positions / 2])]
        {
            panels.chunks_exact_mut(k_steps).for_each(|panel| panel[filled..].fill(Pairs::ZERO));
        }
        Self::Pairs { kernel, keys, values, k_steps, rounded }
    }

    /// Takes rows in a block's format from `index`'s position on. `row` is a buffer for one row.
    pub(super) fn put_stored(
        &mut self,
        codec: &KvCodec,
        part: KvPart,
        index: KvRowIndex,
        bytes: &[u8],
        row: &mut [f32],
    ) {
        let row_bytes = codec.row_bytes(row.len());
        match self {
            Self::Pairs { .. }
                if codec.kv_dtype == KvDtype::Bf16 && row.len().is_multiple_of(2) =>
            {
                self.put_rows(part, index.position, bytes, row_bytes);
            }
            Self::Pairs { rounded, .. } => {
                let (pairs, mut buffer) = (row.len().div_ceil(2), std::mem::take(*rounded));
                let rows = take(&mut buffer, bytes.len() / row_bytes * pairs);
                codec.decode_to_pairs(part, index, bytes, row, rows);
                self.put_rows(part, index.position, bytemuck::cast_slice(rows), 4 * pairs);
                self.give_back(buffer);
            }
            Self::F32 { .. } => {
                for (i, bytes) in bytes.chunks_exact(row_bytes).enumerate() {
                    let index = KvRowIndex { position: index.position + i, ..index };
                    codec.decode(part, index, bytes, row);
                    self.put(part, index.position, row);
                }
            }
        }
    }

    /// Takes the row of a position.
    pub(super) fn put(&mut self, part: KvPart, position: usize, row: &[f32]) {
        match (&mut *self, part) {
            (Self::F32 { keys, dim, .. }, KvPart::Key) => {
                let panel = &mut keys[position / PANEL * *dim..];
                for (lanes, k) in panel.iter_mut().zip(row) {
                    lanes.0[position % PANEL] = *k;
                }
            }
            (Self::F32 { values, positions, .. }, KvPart::Value) => {
                for (panel, part) in row.chunks(PANEL).enumerate() {
                    values[panel * *positions + position].0[..part.len()].copy_from_slice(part);
                }
            }
            (Self::Pairs { kernel, rounded, .. }, _) => {
                let (kernel, mut buffer) = (*kernel, std::mem::take(*rounded));
                let pairs = take(&mut buffer, row.len().div_ceil(2));
                kernel.round_to_pairs(row, pairs);
                self.put_row(part, position, bytemuck::cast_slice(pairs));
                self.give_back(buffer);
            }
        }
    }

    fn give_back(&mut self, buffer: Vec<u32>) {
        if let Self::Pairs { rounded, .. } = self {
            **rounded = buffer;
        }
    }

    /// Takes rows of bf16 with whole pairs, from a position on.
    fn put_rows(&mut self, part: KvPart, first: usize, rows: &[u8], row_bytes: usize) {
        let (mut position, mut rest) = (first, rows);
        while !rest.is_empty() {
            let whole = self.put_whole(part, position, rest, row_bytes);
            if whole == 0 {
                self.put_row(part, position, &rest[..row_bytes]);
            }
            position += whole.max(1);
            rest = &rest[whole.max(1) * row_bytes..];
        }
    }

    /// Takes as many of the rows as fill panels of K or steps of V. Returns their number.
    fn put_whole(&mut self, part: KvPart, position: usize, rows: &[u8], row_bytes: usize) -> usize {
        let Self::Pairs { kernel, keys, values, k_steps, .. } = self else { return 0 };
        let count = rows.len() / row_bytes;
        match part {
            KvPart::Key if position.is_multiple_of(PANEL) => {
                let panels = keys[position / PANEL * k_steps[0]..].chunks_exact_mut(k_steps[0]);
                let rows = rows.chunks_exact(PANEL * row_bytes);
                rows.zip(panels).for_each(|(rows, panel)| kernel.pack_columns(rows, panel));
                count / PANEL * PANEL
            }
            KvPart::Value if position.is_multiple_of(2) => {
                kernel.pack_steps(rows, row_bytes, &mut values[position / 2..], k_steps[1]);
                count / 2 * 2
            }
            _ => 0,
        }
    }

    fn put_row(&mut self, part: KvPart, position: usize, row: &[u8]) {
        let Self::Pairs { keys, values, k_steps, .. } = self else { return };
        match part {
            KvPart::Key => {
                let panel = &mut keys[position / PANEL * k_steps[0]..];
                for (lanes, pair) in panel.iter_mut().zip(row.as_chunks().0) {
                    lanes.0[position % PANEL] = u32::from_le_bytes(*pair);
                }
            }
            KvPart::Value => {
                for (panel, halves) in row.as_chunks().0.chunks(PANEL).enumerate() {
                    let step = &mut values[panel * k_steps[1] + position / 2].0;
                    for (pair, half) in step.iter_mut().zip(halves) {
                        let half = u32::from(u16::from_le_bytes(*half));
                        // The second value of a pair comes after the first.
                        *pair = if position.is_multiple_of(2) { half } else { *pair | half << 16 };
                    }
                }
            }
        }
    }
}
