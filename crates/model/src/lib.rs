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

mod arch;
mod backend;
mod error;
mod fetch;
mod format;
mod generate;
mod random;
#[cfg(feature = "testing")]
pub mod testing;
mod tokenizer;

pub use arch::config::{Architecture, Config, DecoderSizes, QkNorm, Window};
pub use arch::mixed::{HeadSizes, MixedLayers};
pub use arch::rope::{Llama3Scaling, Rope, Scaling, YarnScaling};
pub use backend::candle::choice::{DeviceChoice, DeviceInfo, DeviceSettings};
pub use backend::candle::decoder::{DeviceBlock, DeviceModel};
pub use backend::cpu::model::CpuModel;
pub use backend::dtype_choice::DtypeChoice;
pub use backend::model::{LoadSettings, Model, ResidentBlock};
pub use error::LoadError;
pub use fetch::cache::ModelCache;
pub use fetch::catalogue::{CATALOG, ModelPart, NamedModel};
pub use format::model_file::ModelFile;
pub use generate::generator::Generator;
pub use hyperrag_kernels::activation::Activation;
pub use hyperrag_kernels::dtype::ComputeDtype;
pub use hyperrag_kernels::isa::{
    KERNEL_ID, KERNEL_ID_BF16, KERNEL_ID_BF16_AMX, KERNEL_ID_BF16_PAIRS, KERNEL_ID_INT8,
    KERNEL_ID_INT8_AMX, KERNEL_ID_INT8_PAIRS, Kernel,
};
pub use tokenizer::Tokenizer;
