//! Flags of the model, which most commands have, and `model`.

use clap::builder::RangedU64ValueParser;
use clap::{Args, Subcommand};
use hyperrag_model::{DeviceChoice, DtypeChoice};

#[derive(Debug, Subcommand)]
pub(crate) enum ModelCommand {
    /// Fetch a model by name, and check it; or one of the Hugging Face hub, into the hub's cache.
    Pull {
        /// Name that `model list` shows, or an id of the hub: `ORG/NAME[@REVISION]`, or
        /// `ORG/NAME/FILE.gguf[@REVISION]`.
        name: String,
    },
    /// List the models that can be fetched, and which are here.
    List,
    /// Describe a model: sizes, KV heads, bytes a token.
    Info {
        /// Name, the path of a GGUF file or of a folder with safetensors, or an id of the hub.
        #[arg(default_value = "smollm2-135m")]
        name: String,
    },
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ModelArgs {
    /// Model: a name of `model list`, the path of a GGUF file or of a folder with config.json and
    /// safetensors, or an id of the Hugging Face hub, `ORG/NAME[@REVISION]`. Without it: the one that the
    /// store notes; for a new one smollm2-135m.
    #[arg(long, env = "HYPERRAG_MODEL", value_name = "NAME|PATH|ID")]
    pub(crate) model: Option<String>,
    /// Tokenizer in the place of the model's own: a tokenizer.json, a folder with one, or a GGUF file. It
    /// must give the token ids that the model was trained with.
    #[arg(long, env = "HYPERRAG_TOKENIZER", value_name = "PATH")]
    pub(crate) tokenizer: Option<String>,
    /// Profile: plain, chat, chat-gemma, chat-llama3, ctxl-rerank-v2, or a TOML file. Without it: that
    /// of the store; for a new one the chat whose turns the model knows, else plain.
    #[arg(long, env = "HYPERRAG_PROFILE", value_name = "NAME|FILE")]
    pub(crate) profile: Option<String>,
    /// Device that computes: cpu, cuda, cuda:N, or auto for the GPU if one answers, else the CPU.
    #[arg(long, env = "HYPERRAG_DEVICE", default_value_t = DeviceChoice::Auto, value_name = "DEVICE")]
    pub(crate) device: DeviceChoice,
    /// Type of weights and products: f16, bf16 or f32 on a GPU, int8, bf16 or f32 on a CPU, where
    /// bf16 halves the weights and is faster if the machine has instructions for it, and int8 is
    /// faster still and less exact. auto on a CPU is that of the store, and for a new one bf16 where
    /// AMX or AVX-512 BF16 multiplies it, else f32, which is the most exact; on a GPU it is f16.
    #[arg(
        long = "dtype",
        alias = "compute",
        env = "HYPERRAG_COMPUTE",
        default_value = "auto",
        value_name = "TYPE"
    )]
    pub(crate) dtype: DtypeChoice,
    /// Threads that compute on the CPU, at most 1024; 0 is one a core.
    #[arg(
        long,
        env = "HYPERRAG_THREADS",
        default_value_t = 0,
        value_name = "N",
        value_parser = RangedU64ValueParser::<usize>::new().range(..=1024)
    )]
    pub(crate) threads: usize,
}
