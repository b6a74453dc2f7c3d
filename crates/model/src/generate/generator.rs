//! Generation of text on the CPU, with tokenizer and chat template.
//!
//! In: a model file, or a loaded model to share. Out: tokens of an answer. It does not know documents.

use std::ops::ControlFlow;

use hyperrag_core::{Generate, Generation, KvDtype, ModelError, Sampling, Tokenize, Turn};
use hyperrag_kernels::dtype::ComputeDtype;
use hyperrag_kernels::isa::Kernel;

use crate::backend::cpu::model::CpuModel;
use crate::backend::model::Model;
use crate::error::LoadError;
use crate::format::model_file::ModelFile;
use crate::tokenizer::Tokenizer;

/// A model that generates answers on the CPU, with its tokenizer and its chat template. K and V of
/// prompt and answer are f32.
pub struct Generator {
    model: CpuModel,
    tokenizer: Tokenizer,
    turn: Option<Turn>,
    stops: Vec<u32>,
}

impl Generator {
    /// Loads the model of `file`.
    ///
    /// # Errors
    /// [`LoadError`], also if the chat template cannot be rendered.
    pub fn load(
        file: &mut ModelFile,
        dtype: ComputeDtype,
        kernel: Kernel,
        threads: usize,
    ) -> Result<Self, LoadError> {
        let model = CpuModel::load(file, KvDtype::F32, dtype, kernel, threads)?;
        Self::new(model, file)
    }

    /// Generates with the loaded `model`, which must be that of `file`. On a CPU the weights are
    /// shared.
    ///
    /// # Errors
    /// The errors of [`Generator::load`].
    pub fn sharing(model: &Model, file: &mut ModelFile, threads: usize) -> Result<Self, LoadError> {
        match model {
            Model::Cpu(model) => Self::new(model.clone().with_kv_dtype(KvDtype::F32), file),
            Model::Gpu(..) => Self::load(file, ComputeDtype::F32, Kernel::best(), threads),
        }
    }

    fn new(model: CpuModel, file: &ModelFile) -> Result<Self, LoadError> {
        let (tokenizer, chat) = (file.tokenizer()?, file.chat()?);
        let mut stops = file.end_tokens()?;
        let (turn, end) = chat.map(|chat| (chat.turn, chat.end)).unzip();
        stops.extend(tokenizer.leading_special(&end.unwrap_or_default()));
        Ok(Self { model, tokenizer, turn, stops })
    }
}

impl Tokenize for Generator {
    fn encode_text(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        self.tokenizer.encode_text(text)
    }

    fn encode_start(&self, text: &str, max: usize) -> Result<Vec<u32>, ModelError> {
        self.tokenizer.encode_start(text, max)
    }

    fn encode_template(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        self.tokenizer.encode_template(text)
    }
}

impl Generate for Generator {
    fn context_tokens(&self) -> usize {
        self.model.config().context
    }

    fn turn(&self) -> Option<&Turn> {
        self.turn.as_ref()
    }

    fn generate(
        &self,
        prompt: &[u32],
        sampling: &Sampling,
        each: &mut dyn FnMut(u32, &[u8]) -> ControlFlow<()>,
    ) -> Result<Generation, ModelError> {
        let mut each = |token| each(token, &self.tokenizer.bytes_of(token));
        self.model.generate(prompt, &self.stops, sampling, &mut each)
    }
}
