//! Means of K and V over some chunks, which calibrated element types subtract.

use hyperrag_core::{
    Calibration, Chunk, FixedPositions, KvBlock, KvDtype, LanguageModel, ModelError,
};

use crate::backend::cpu::model::CpuModel;

impl CpuModel {
    /// Computes the calibration of `chunks`. `fixed` are the positions of the profile's own words. The
    /// same chunks give the same bits.
    ///
    /// # Errors
    /// The errors of [`LanguageModel::prefill`].
    ///
    /// # Panics
    /// If the model was not loaded with f32 elements.
    pub fn calibrate(
        &self,
        chunks: &[Chunk],
        fixed: FixedPositions,
    ) -> Result<Calibration, ModelError> {
        assert_eq!(self.kv_shape.kv_dtype, KvDtype::F32, "means are taken of what is computed");
        let kv_shape = self.kv_shape;
        let place_values = kv_shape.token_bytes() / 4;
        let mut sums = vec![0.0_f64; fixed.places() * place_values];
        let mut counts = vec![0_u32; fixed.places()];
        for chunk in chunks {
            for block in self.prefill(std::slice::from_ref(chunk))? {
                self.add_block(&block, fixed, &mut sums, &mut counts);
            }
        }
        let means = sums.chunks_exact(place_values).zip(&counts).flat_map(|(sums, count)| {
            sums.iter().map(move |sum| (sum / f64::from((*count).max(1))) as f32)
        });
        Ok(Calibration::new(&kv_shape, fixed, means.collect()))
    }

    fn add_block(
        &self,
        block: &KvBlock,
        fixed: FixedPositions,
        sums: &mut [f64],
        counts: &mut [u32],
    ) {
        let (kv_shape, tokens) = (&self.kv_shape, block.tokens());
        let (heads, dim) = (kv_shape.kv_heads as usize, kv_shape.head_dim as usize);
        let mut row = vec![0.0; dim];
        for layer in 0..kv_shape.layers as usize {
            for part in 0..2 * heads {
                let is_key = part < heads;
                let bytes = if is_key {
                    block.keys(layer, part)
                } else {
                    block.values(layer, part - heads)
                };
                for (position, bytes) in bytes.chunks_exact(4 * dim).enumerate() {
                    KvDtype::F32.decode(bytes, &mut row);
                    if is_key {
                        self.codec.rotate_back(layer, position, &mut row);
                    }
                    let place = fixed.place(position, tokens);
                    let start =
                        ((place * kv_shape.layers as usize + layer) * 2 * heads + part) * dim;
                    for (sum, value) in sums[start..start + dim].iter_mut().zip(&row) {
                        *sum += f64::from(*value);
                    }
                }
            }
        }
        for position in 0..tokens {
            counts[fixed.place(position, tokens)] += 1;
        }
    }
}
