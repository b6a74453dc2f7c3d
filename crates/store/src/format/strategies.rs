//! Values for tests of the format.

use hyperrag_core::{Digest, KvDtype, KvShape};
use proptest::prelude::*;

pub(crate) fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest)
}

pub(crate) fn kv_shape() -> impl Strategy<Value = KvShape> {
    (1..9u32, 1..4u32, any::<bool>()).prop_map(|(layers, kv_heads, f32)| {
        let kv_dtype = if f32 { KvDtype::F32 } else { KvDtype::Bf16 };
        KvShape { layers, kv_heads, head_dim: 4, hidden: 8, kv_dtype }
    })
}
