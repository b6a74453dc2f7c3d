//! Means of K and V over some chunks, which calibrated element types subtract.

use hyperrag_core::{
    Calibration, Chunk, FixedPositions, KvBlock, KvDtype, LanguageModel, ModelError,
};

use crate::arch::mixed::HeadSizes;
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
        let tokens = block.tokens();
        let place_values = self.kv_shape.token_bytes() / 4;
        let (layer_bytes, layer_values) =
            (self.kv_shape.layer_bytes(tokens), self.kv_shape.layer_bytes(1) / 4);
        for layer in 0..self.config.own_layers() {
            let HeadSizes { kv_heads, head_dim } = self.config.heads_of(layer);
            let slots = self.config.slots(layer);
            let kv = &block.kv()[slots.start * layer_bytes..slots.end * layer_bytes];
            let mut row = vec![0.0; head_dim];
            for (part, run) in kv.chunks_exact(4 * head_dim * tokens).enumerate() {
                for (position, bytes) in run.chunks_exact(4 * head_dim).enumerate() {
                    KvDtype::F32.decode(bytes, &mut row);
                    if part < kv_heads {
                        self.codec.rotate_back(layer, position, &mut row);
                    }
                    let place = fixed.place(position, tokens) * place_values;
                    let start = place + slots.start * layer_values + part * head_dim;
                    for (sum, value) in sums[start..start + head_dim].iter_mut().zip(&row) {
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
