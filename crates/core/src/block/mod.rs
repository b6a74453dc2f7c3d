//! KV blocks: sizes and element types, the bytes of a block, and where its layers come from.

pub(crate) mod calibration;
pub(crate) mod kv_block;
pub(crate) mod kv_dtype;
pub(crate) mod kv_shape;
pub(crate) mod layer_source;
