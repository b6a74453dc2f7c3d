//! One set of weights with several element types, and blocks rounded after a prefill in f32.

use std::sync::Arc;

use hyperrag_core::{FixedPositions, KvDtype, LanguageModel, ModelError};
use hyperrag_model::{ComputeDtype, Kernel};

use crate::blocks::{bits, same};
use crate::cpu::{load_as, tiny};
use crate::seeded::ragged;

#[test]
fn elements_share_weights_and_blocks_are_rounded() {
    let load = |kv_dtype| load_as(&tiny(), kv_dtype, ComputeDtype::F32, Kernel::best(), 2).unwrap();
    let (exact, chunks) = (load(KvDtype::F32), ragged(9));
    let blocks = exact.prefill(&chunks).unwrap();
    let fixed = FixedPositions { first: 2, last: 3 };
    let calibration = Arc::new(exact.calibrate(&ragged(16), fixed).unwrap());
    for kv_dtype in KvDtype::ALL {
        let model = match kv_dtype.is_calibrated() {
            true => exact.clone().calibrated(kv_dtype, Arc::clone(&calibration)),
            false => exact.clone().with_kv_dtype(kv_dtype),
        };
        let own = model.prefill(&chunks).unwrap();
        let loaded = load(kv_dtype).prefill(&chunks).unwrap();
        assert!(own.iter().zip(&loaded).all(|(a, b)| same(a, b)), "{kv_dtype}");
        let (mut equal, mut all) = (0, 0);
        for (block, own) in blocks.iter().zip(&own) {
            let rounded = model.requantise(block).unwrap();
            assert_eq!((rounded.kv_shape(), rounded.tokens()), (own.kv_shape(), own.tokens()));
            assert_eq!(bits(rounded.hidden()), bits(block.hidden()), "{kv_dtype}");
            // Nothing was rounded before the first layer's K and V.
            let bytes = rounded.layer(0).iter().zip(own.layer(0));
            equal += bytes.filter(|(a, b)| a == b).count();
            all += own.layer(0).len();
            assert_eq!(same(&rounded, own), kv_dtype == KvDtype::F32, "{kv_dtype}");
        }
        // Rotating K back from its position rounds, which shows in few levels.
        let expected = if kv_dtype.is_calibrated() { all * 98 / 100 } else { all };
        assert!(equal >= expected, "{kv_dtype}: {equal} of {all} bytes are equal");
    }
    let bf16 = load(KvDtype::Bf16);
    let refused = bf16.requantise(&bf16.prefill(&chunks[..1]).unwrap()[0]);
    assert!(matches!(refused, Err(ModelError::KvShape { .. })));
}
