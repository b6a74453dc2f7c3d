use std::ops::ControlFlow;

use serde::Serialize;

use crate::{ModelError, Tokenize};

/// What a model's chat template puts around the words of a user: from the start of the prompt, and
/// up to where the model answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Template text before the user's words.
    pub before: String,
    /// Template text after them.
    pub after: String,
}

/// How tokens are chosen. The same settings, prompt and model give the same tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Tokens at most.
    pub tokens_max: usize,
    /// What logits are divided by before one token is drawn; 0 takes the most probable one.
    pub temperature: f32,
    /// Draw from the most probable tokens that together have this probability.
    pub top_p: f32,
    /// What is drawn depends on it alone, not on what was generated before.
    pub seed: u64,
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stop {
    /// The model ended its turn.
    Eos,
    /// It has the most tokens that it may have.
    Length,
    /// The caller wanted no more: answers end so with their first line, where a model knows no turns.
    Line,
}

/// What a generation came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation {
    /// Tokens generated, the one that ended it not counted.
    pub tokens: usize,
    /// Why it ended.
    pub stop: Stop,
}

/// A model that goes on with a prompt.
pub trait Generate: Tokenize {
    /// Positions that prompt and answer may have together.
    fn context_tokens(&self) -> usize;

    /// What stands around a user's words; `None` for a model that knows no turns.
    fn turn(&self) -> Option<&Turn>;

    /// Goes on with `prompt`. `each` gets every token as it comes, with its bytes, which need not be
    /// whole characters, and may end it.
    ///
    /// # Errors
    /// [`ModelError`] for an empty prompt, one that leaves no room for the tokens asked for, or one
    /// with tokens out of the vocabulary.
    fn generate(
        &self,
        prompt: &[u32],
        sampling: &Sampling,
        each: &mut dyn FnMut(u32, &[u8]) -> ControlFlow<()>,
    ) -> Result<Generation, ModelError>;
}
