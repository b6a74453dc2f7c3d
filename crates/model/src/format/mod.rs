//! Files of models: GGUF, and folders with safetensors, behind one [`ModelFile`](model_file::ModelFile).

pub(crate) mod config_json;
mod digest;
mod digest_memory;
mod gemma4_gguf;
mod gemma4_json;
pub(crate) mod gguf;
mod gguf_config;
mod json;
pub(crate) mod model_file;
mod model_folder;
mod raw_tensor;
mod rope_json;
pub(crate) mod safetensors;
mod sizes;
mod tokenizer_file;
pub(crate) mod weight_files;
