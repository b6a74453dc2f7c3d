//! The decoder on the CPU, in f32, bf16 or int8.
//!
//! In: token ids and blocks. Out: blocks and scores. The bits of a row depend on nothing but the row's
//! own data, whatever the batch and the number of threads.

pub(crate) mod attention;
mod attention_tasks;
mod calibrate;
mod decode_loop;
mod forward;
pub(crate) mod kv_cache;
pub(crate) mod kv_codec;
mod kv_panels;
mod kv_rows;
mod language_model;
mod lm_head;
mod load_weights;
mod micro_batches;
pub(crate) mod model;
mod requantise;
pub(crate) mod scratch;
mod token_inputs;
