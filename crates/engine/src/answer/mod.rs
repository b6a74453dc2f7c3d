//! A question and ranked passages in, an answer in the generator's words out.

pub mod passages;
mod prompt;
pub mod settings;
mod text;

use std::ops::ControlFlow;
use std::time::Instant;

use hyperrag_core::{Failover, Generate, LanguageModel, Stop, Tokenize};
use hyperrag_rerank::DamagedBlock;
use serde::Serialize;

use crate::answer::passages::{Found, Passage};
use crate::answer::prompt::Prompt;
use crate::answer::settings::AnswerSettings;
use crate::answer::text::{AnswerText, cited};
use crate::error::EngineError;
use crate::search::session::{Query, Session, Stats};

/// Cost of an answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct AnswerStats {
    /// Retrieval and reranking.
    #[serde(flatten)]
    pub ranking: Stats,
    /// Seconds of generation, the prompt included.
    pub generate_seconds: f64,
}

/// An answer in the generator's words.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GeneratedAnswer {
    /// The question's name.
    pub query_id: String,
    /// The question.
    pub query: String,
    /// The answer, without blanks around it.
    pub answer: String,
    /// Passages that the generator was given, in the order of the prompt.
    pub passages: Vec<Passage>,
    /// Passages for which there was no room.
    pub passages_left_out: usize,
    /// Words of the index by which the passages were found, where no document has a word of the question; else
    /// empty.
    pub near_words: Vec<String>,
    /// Documents whose numbers the answer names, as `[1]`, in the order of the answer.
    pub cited: Vec<String>,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the answer.
    pub generated_tokens: usize,
    /// Why it ended.
    pub stop: Stop,
    /// Work that it took.
    pub stats: AnswerStats,
    /// Blocks that were damaged.
    #[serde(skip)]
    pub damages: Vec<DamagedBlock>,
    /// Readings from replicas.
    #[serde(skip)]
    pub failovers: Vec<Failover>,
}

impl<M: LanguageModel, T: Tokenize> Session<'_, M, T> {
    /// Finds passages and has `generator` answer from them. `each` gets the answer piece by piece, and
    /// may end it.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn generate_answer(
        &self,
        generator: &impl Generate,
        settings: &AnswerSettings<'_>,
        query: &Query,
        each: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<GeneratedAnswer, EngineError> {
        if query.text.trim().is_empty() {
            return Err(EngineError::EmptyQuery);
        }
        let Found { passages, near_words, stats, damages, failovers } =
            self.passages(settings, query)?;
        let start = Instant::now();
        let Prompt { tokens, passages, left_out } =
            Prompt::new(generator, settings, &query.text, passages)?;
        let one_line = generator.turn().is_none();
        let mut text = AnswerText::default();
        let generated = generator.generate(&tokens, &settings.sampling, &mut |_, bytes| {
            let complete = text.push(bytes, one_line);
            let new = text.untold();
            let wanted = if new.is_empty() { ControlFlow::Continue(()) } else { each(new) };
            if complete { ControlFlow::Break(()) } else { wanted }
        })?;
        let answer = text.finish();
        let numbers = cited(&answer).into_iter();
        let ids = numbers.filter_map(|n| passages.iter().find(|passage| passage.rank == n));
        let (ranking, generate_seconds) = (stats, start.elapsed().as_secs_f64());
        Ok(GeneratedAnswer {
            query_id: query.id.clone(),
            query: query.text.clone(),
            cited: ids.map(|passage| passage.id.clone()).collect(),
            answer,
            passages,
            passages_left_out: left_out,
            near_words,
            prompt_tokens: tokens.len(),
            generated_tokens: generated.tokens,
            stop: generated.stop,
            stats: AnswerStats { ranking, generate_seconds },
            damages,
            failovers,
        })
    }
}
