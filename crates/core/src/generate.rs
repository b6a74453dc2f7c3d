//! Text generation behind a trait: a prompt and sampling settings come in, tokens go out one by one. Knows no
//! model and no chat template's syntax.

use std::ops::ControlFlow;

use serde::Serialize;

use crate::error::ModelError;
use crate::model::Tokenize;

/// Template text around the words of a user: from the start of the prompt, and up to where the model answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Template text before the user's words.
    pub before: String,
    /// Template text after the user's words.
    pub after: String,
}

/// Settings that decide how tokens are chosen. Equal settings, prompt and model give equal tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Largest number of tokens.
    pub tokens_max: usize,
    /// Divisor of the logits before a token is drawn. With 0 the most probable token is taken.
    pub temperature: f32,
    /// Probability that the tokens to draw from have together, the most probable ones first.
    pub top_p: f32,
    /// Seed of the draws. They depend on it alone, not on what was generated before.
    pub seed: u64,
}

/// Reason for the end of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stop {
    /// The model ended its turn.
    Eos,
    /// The limit on tokens was reached.
    Length,
    /// The caller ended it. Answers of a model without a chat template end so after their first line.
    Line,
}

/// Result of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation {
    /// Number of tokens generated, without the one that ended it.
    pub tokens: usize,
    /// Reason for the end.
    pub stop: Stop,
}

/// A model that continues a prompt.
pub trait Generate: Tokenize {
    /// Largest number of positions of prompt and answer together.
    fn context_tokens(&self) -> usize;

    /// Template text around a user's words; `None` for a model without a chat template.
    fn turn(&self) -> Option<&Turn>;

    /// Continues `prompt`. `each` receives every token with its bytes, which need not be whole characters,
    /// and may end the generation.
    ///
    /// # Errors
    /// [`ModelError`] for a prompt that is empty, leaves no room for the tokens asked for, or has tokens
    /// outside the vocabulary.
    fn generate(
        &self,
        prompt: &[u32],
        sampling: &Sampling,
        each: &mut dyn FnMut(u32, &[u8]) -> ControlFlow<()>,
    ) -> Result<Generation, ModelError>;
}
