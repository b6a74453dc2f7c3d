//! The decoder-only language model: weights and tokenizer from a GGUF file, K and V in and out.
//!
//! In: token ids and blocks. Out: blocks, log-probabilities, token ids of text. This is the only
//! crate that names candle (which reads and dequantises GGUF). It does not know corpus, store or
//! ranking.

mod attention;
mod cache;
mod config;
mod decoder;
mod error;
mod gguf;
mod head;
mod kernel;
mod language_model;
mod pull;
mod tokenizer;
mod workspace;

pub mod tiny;

pub use cache::{CATALOG, ModelCache, NamedModel, NamedModelSource};
pub use config::Config;
pub use decoder::CpuModel;
pub use error::LoadError;
pub use gguf::ModelFile;
pub use kernel::{KERNEL_ID, Kernel};
pub use tokenizer::GgufTokenizer;
