//! Variants of a model: its weights with other element types of K and V.

use std::sync::Arc;

use hyperrag_core::{Calibration, KvBlock, KvDtype, ModelError};
use rayon::prelude::*;

use crate::arch::mixed::HeadSizes;
use crate::backend::cpu::kv_codec::{KvPart, KvRowIndex};
use crate::backend::cpu::model::CpuModel;
use crate::backend::cpu::scratch::split;

impl CpuModel {
    /// Returns the model with an element type that needs a calibration.
    ///
    /// # Panics
    /// If the calibration has the sizes of another model.
    #[must_use]
    pub fn calibrated(mut self, kv_dtype: KvDtype, calibration: Arc<Calibration>) -> Self {
        let kv_shape = self.config.kv_shape(kv_dtype);
        assert!(calibration.fits(&kv_shape), "a calibration of this model's sizes");
        self.codec = self.codec.calibrated(kv_dtype, calibration);
        self.kv_shape = kv_shape;
        self
    }

    /// Returns the model with an element type that needs no calibration.
    ///
    /// # Panics
    /// If `kv_dtype` needs one.
    #[must_use]
    pub fn with_kv_dtype(mut self, kv_dtype: KvDtype) -> Self {
        assert!(!kv_dtype.is_calibrated(), "{kv_dtype} needs a calibration");
        self.codec = self.codec.uncalibrated(kv_dtype);
        self.kv_shape = self.config.kv_shape(kv_dtype);
        self
    }

    /// Rounds K and V of a block in f32 to this model's element type. A prefill of this model gives
    /// another block: its attention reads rounded K and V in every layer.
    ///
    /// # Errors
    /// [`ModelError::KvShape`] for a block of other sizes.
    pub fn requantise(&self, exact: &KvBlock) -> Result<KvBlock, ModelError> {
        let expected = self.config.kv_shape(KvDtype::F32);
        if *exact.kv_shape() != expected {
            let (block, model) = (Box::new(*exact.kv_shape()), Box::new(expected));
            return Err(ModelError::KvShape { block, model });
        }
        let tokens = exact.tokens();
        let mut kv = KvBlock::memory(tokens * self.kv_shape.token_bytes());
        let layers = 0..self.config.own_layers();
        let cut =
            |bytes: usize| layers.clone().map(move |layer| self.config.slots(layer).len() * bytes);
        let mut from = exact.kv();
        let mut next = |bytes| {
            let (own, later) = from.split_at(bytes);
            from = later;
            own
        };
        let from: Vec<_> = cut(expected.layer_bytes(tokens)).map(&mut next).collect();
        let to = split(&mut kv, cut(self.kv_shape.layer_bytes(tokens)));
        self.pool.install(|| {
            from.into_par_iter().zip(to).enumerate().for_each(|(layer, (from, to))| {
                self.requantise_layer(layer, tokens, from, to);
            });
        });
        Ok(KvBlock::new(self.kv_shape, tokens, kv, exact.hidden().to_vec()))
    }

    fn requantise_layer(&self, layer: usize, tokens: usize, from: &[u8], to: &mut [u8]) {
        let HeadSizes { kv_heads: heads, head_dim: dim } = self.config.heads_of(layer);
        let row_bytes = self.codec.row_bytes(dim);
        let mut row = vec![0.0; dim];
        let rows = from.chunks_exact(KvDtype::F32.row_bytes(dim));
        for (i, (from, to)) in rows.zip(to.chunks_exact_mut(row_bytes)).enumerate() {
            let (head, position) = (i / tokens, i % tokens);
            let part = if head < heads { KvPart::Key } else { KvPart::Value };
            KvDtype::F32.decode(from, &mut row);
            let index = KvRowIndex { layer, head: head % heads, position, tokens };
            self.codec.encode_rotated(part, index, &mut row, to);
        }
    }
}
