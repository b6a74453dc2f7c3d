//! The decoder-only language model. Weights and tokenizer come from a GGUF file or a folder with
//! safetensors.
//!
//! In: token ids and blocks. Out: blocks, log-probabilities, token ids of text. This is the only crate
//! that names candle; the decoder on a GPU uses its tensors. It does not know corpus, store or ranking.
//!
//! ```
//! use hyperrag_model::Config;
//!
//! let config = Config::shape("smollm2-135m").expect("a known model");
//! assert_eq!((config.layers, config.hidden), (30, 576));
//! ```

mod cache;
mod chat;
mod config;
mod config_json;
mod cpu;
mod device;
mod digest;
mod digest_memory;
mod dtype_choice;
mod error;
#[doc(hidden)]
pub mod fuzz;
mod generator;
mod gguf;
mod hub;
mod json;
mod metadata;
mod model;
mod model_file;
mod model_folder;
mod pull;
mod random;
mod rope;
mod sample;
mod shapes;
mod tokenizer;
mod weights;

#[cfg(feature = "candle")]
pub mod tiny;

pub use cache::{CATALOG, ModelCache, ModelPart, NamedModel};
pub use config::{Architecture, Config, Sizes, Window};
pub use cpu::CpuModel;
#[doc(hidden)]
pub use cpu::bench;
pub use device::{DeviceBlock, DeviceChoice, DeviceInfo, DeviceModel, DeviceSettings};
pub use dtype_choice::DtypeChoice;
pub use error::LoadError;
pub use generator::Generator;
pub use hyperrag_kernels::activation::Activation;
pub use hyperrag_kernels::dtype::ComputeDtype;
pub use hyperrag_kernels::isa::{
    KERNEL_ID, KERNEL_ID_BF16, KERNEL_ID_BF16_AMX, KERNEL_ID_BF16_PAIRS, KERNEL_ID_INT8,
    KERNEL_ID_INT8_AMX, KERNEL_ID_INT8_PAIRS, Kernel,
};
pub use model::{LoadSettings, Model, ResidentBlock};
pub use model_file::ModelFile;
pub use rope::{Llama3Scaling, Rope, Scaling};
pub use tokenizer::Tokenizer;
