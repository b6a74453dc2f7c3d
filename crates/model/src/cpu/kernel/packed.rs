use super::LANES;

/// Columns of a panel.
pub(crate) const PANEL: usize = 2 * LANES;

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

/// The weights of a linear layer, packed once for the tiles: panels of 32 outputs, each
/// `[input][32]`, the last one padded with zeros.
pub(crate) struct PackedMatrix {
    outputs: usize,
    inputs: usize,
    lanes: Vec<Lanes>,
}

impl PackedMatrix {
    /// Packs matrices of `inputs` columns, row-major, one below the other.
    pub(crate) fn pack(parts: &[&[f32]], inputs: usize) -> Self {
        let outputs = parts.iter().map(|part| part.len() / inputs).sum();
        let mut lanes = vec![Lanes::ZERO; panels_of(outputs) * inputs * 2];
        let rows = parts.iter().flat_map(|part| part.chunks_exact(inputs));
        for (output, row) in rows.enumerate() {
            let panel = &mut lanes[output / PANEL * inputs * 2..];
            let column = output % PANEL;
            for (input, weight) in row.iter().enumerate() {
                panel[2 * input + column / LANES].0[column % LANES] = *weight;
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
        let length = 2 * self.inputs;
        &self.lanes[panel * length..(panel + 1) * length]
    }

    /// The weights of one output: with tied embeddings, a token's embedding.
    pub(crate) fn copy_row(&self, output: usize, row: &mut [f32]) {
        let panel = self.panel(output / PANEL);
        let column = output % PANEL;
        for (input, weight) in row.iter_mut().enumerate() {
            *weight = panel[2 * input + column / LANES].0[column % LANES];
        }
    }
}
