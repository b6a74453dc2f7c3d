//! Bytes of K and V, for people.

use hyperrag_core::KvShape;

/// Chunks of which bytes are told.
pub(crate) const MILLION: u64 = 1_000_000;

/// Returns the bytes of K and V of a position if no query heads shared them.
pub(crate) fn full_heads(kv_shape: &KvShape, query_heads: usize) -> usize {
    kv_shape.token_bytes() * query_heads / kv_shape.kv_heads as usize
}

/// Says how much less K and V grouped-query attention needs, for people.
pub(crate) fn gqa_saving(kv_shape: &KvShape, query_heads: usize) -> String {
    let kv_heads = kv_shape.kv_heads as usize;
    match query_heads / kv_heads {
        1 => "none: every query head has its own K and V".to_owned(),
        group => format!("{group} times less: {kv_heads} KV heads for {query_heads} query heads"),
    }
}
