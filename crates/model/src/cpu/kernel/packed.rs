use super::LANES;

/// Columns of a panel: one 512-bit register, so that a panel is read from end to end by the kernels
/// of every instruction set, and fits a first-level cache's sets evenly.
pub(crate) const PANEL: usize = LANES;

/// One 512-bit register's worth of floats, aligned so that no load crosses a cache line.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(C, align(64))]
pub(crate) struct Lanes(pub(crate) [f32; LANES]);

impl Lanes {
    pub(crate) const ZERO: Self = Self([0.0; LANES]);
}

/// How many panels `columns` columns take.
pub(crate) const fn panels_of(columns: usize) -> usize {
    columns.div_ceil(PANEL)
}

/// The weights of a linear layer, packed once for the tiles: panels of 16 outputs, each
/// `[input][16]`, the last one padded with zeros.
pub(crate) struct PackedMatrix {
    outputs: usize,
    inputs: usize,
    lanes: Vec<Lanes>,
}

impl PackedMatrix {
    /// Packs matrices of `inputs` columns, row-major, one below the other.
    pub(crate) fn pack(parts: &[&[f32]], inputs: usize) -> Self {
        let outputs = parts.iter().map(|part| part.len() / inputs).sum();
        let mut lanes = vec![Lanes::ZERO; panels_of(outputs) * inputs];
        let rows = parts.iter().flat_map(|part| part.chunks_exact(inputs));
        for (output, row) in rows.enumerate() {
            let panel = &mut lanes[output / PANEL * inputs..][..inputs];
            for (lanes, weight) in panel.iter_mut().zip(row) {
                lanes.0[output % PANEL] = *weight;
            }
        }
        Self { outputs, inputs, lanes }
    }

    pub(crate) fn outputs(&self) -> usize {
        self.outputs
    }

    pub(crate) fn inputs(&self) -> usize {
        self.inputs
    }

    pub(crate) fn panel(&self, panel: usize) -> &[Lanes] {
        &self.lanes[panel * self.inputs..(panel + 1) * self.inputs]
    }

    /// The weights of one output: with tied embeddings, a token's embedding.
    pub(crate) fn copy_row(&self, output: usize, row: &mut [f32]) {
        for (weight, lanes) in row.iter_mut().zip(self.panel(output / PANEL)) {
            *weight = lanes.0[output % PANEL];
        }
    }
}
