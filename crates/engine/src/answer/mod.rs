//! A question and ranked passages in, an answer in the generator's words out.

use std::ops::ControlFlow;
use std::time::Instant;

use hyperrag_kv::{Failover, Generate, LanguageModel, ModelError, Sampling, Stop, Tokenize};
use hyperrag_rerank::Damage;
use serde::Serialize;

use crate::error::PipelineError;
use crate::search::session::{Answer, Query, Session, Stats};

const INSTRUCTION: &str = "Answer the question from the passages, in as few words as possible.";
const INSTRUCTION_ALONE: &str = "Answer the question in as few words as possible.";

/// Where the passages of an answer come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassageOrder {
    /// The best of the reranked candidates, as in [`Session::answer`].
    Reranked {
        /// Candidates.
        depth: usize,
        /// Without stored blocks.
        recompute: bool,
    },
    /// The retriever's best.
    Retrieved,
}

/// How a question is answered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AnswerSettings<'a> {
    /// What the generator is told to do, between passages and question; without it to answer in few
    /// words, from the passages if there are any.
    pub instruction: Option<&'a str>,
    /// Passages at most.
    pub passages: usize,
    /// Which.
    pub order: PassageOrder,
    /// How tokens are chosen.
    pub sampling: Sampling,
}

/// A passage that the generator read.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Passage {
    /// Its number in the prompt, from 1.
    pub rank: usize,
    /// The document.
    pub id: String,
    /// Its title.
    pub title: String,
    /// What it is ranked by.
    pub score: f32,
    /// The reranker's score, if it was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_score: Option<f32>,
    /// The retriever's score.
    pub retriever_score: f32,
    /// Tokens of its text that were in the prompt.
    pub tokens: usize,
    /// Tokens at its end for which there was no room.
    pub cut_tokens: usize,
    /// The document's text.
    #[serde(skip)]
    pub text: String,
}

/// What an answer took.
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
    /// What the generator was given, in the order of the prompt.
    pub passages: Vec<Passage>,
    /// Passages for which there was no room.
    pub passages_left_out: usize,
    /// Documents whose numbers the answer names, as `[1]`, in the order of the answer.
    pub cited: Vec<String>,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the answer.
    pub generated_tokens: usize,
    /// Why it ended.
    pub stop: Stop,
    /// What it took.
    pub stats: AnswerStats,
    /// Blocks that were damaged.
    #[serde(skip)]
    pub damages: Vec<Damage>,
    /// What was read from replicas.
    #[serde(skip)]
    pub failovers: Vec<Failover>,
}

impl<M: LanguageModel, T: Tokenize> Session<'_, M, T> {
    /// Finds passages and has `generator` answer from them. `each` gets the answer piece by piece, and
    /// may end it.
    ///
    /// # Errors
    /// [`PipelineError`].
    pub fn generate_answer(
        &self,
        generator: &impl Generate,
        settings: &AnswerSettings<'_>,
        query: &Query,
        each: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<GeneratedAnswer, PipelineError> {
        if query.text.trim().is_empty() {
            return Err(PipelineError::EmptyQuery);
        }
        let Found { passages, stats, damages, failovers } = self.passages(settings, query)?;
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
            prompt_tokens: tokens.len(),
            generated_tokens: generated.tokens,
            stop: generated.stop,
            stats: AnswerStats { ranking, generate_seconds },
            damages,
            failovers,
        })
    }

    fn passages(
        &self,
        settings: &AnswerSettings<'_>,
        query: &Query,
    ) -> Result<Found, PipelineError> {
        let count = settings.passages;
        match settings.order {
            _ if count == 0 => Ok(Found::default()),
            PassageOrder::Reranked { depth, recompute } => {
                let Answer { hits, stats, damages, failovers, .. } =
                    self.answer(query, depth, recompute)?;
                let passages = hits.into_iter().take(count).map(|hit| Passage {
                    rank: hit.rank,
                    id: hit.id,
                    title: hit.title,
                    score: hit.score,
                    model_score: Some(hit.model_score),
                    retriever_score: hit.retriever_score,
                    tokens: 0,
                    cut_tokens: 0,
                    text: hit.text,
                });
                Ok(Found { passages: passages.collect(), stats, damages, failovers })
            }
            PassageOrder::Retrieved => {
                let start = Instant::now();
                let hits = self.retrieve(query, count)?;
                let passages = (1..).zip(hits).map(|(rank, hit)| Passage {
                    rank,
                    id: hit.document.id.as_str().to_owned(),
                    title: hit.document.title,
                    score: hit.score,
                    model_score: None,
                    retriever_score: hit.score,
                    tokens: 0,
                    cut_tokens: 0,
                    text: hit.document.text,
                });
                let (passages, failovers) = (passages.collect(), self.take_failovers());
                let retrieve_seconds = start.elapsed().as_secs_f64();
                let stats =
                    Stats { retrieve_seconds, failovers: failovers.len(), ..Stats::default() };
                Ok(Found { passages, stats, damages: Vec::new(), failovers })
            }
        }
    }
}

#[derive(Default)]
struct Found {
    passages: Vec<Passage>,
    stats: Stats,
    damages: Vec<Damage>,
    failovers: Vec<Failover>,
}

/// What the generator reads: passages, instruction and question, in the model's own turn if it knows
/// turns. Only the turn is parsed for special tokens.
struct Prompt {
    tokens: Vec<u32>,
    passages: Vec<Passage>,
    /// Passages for which there was no room.
    left_out: usize,
}

impl Prompt {
    fn new(
        generator: &impl Generate,
        settings: &AnswerSettings<'_>,
        question: &str,
        mut passages: Vec<Passage>,
    ) -> Result<Self, PipelineError> {
        let (mut tokens, turn) = (Vec::new(), generator.turn());
        if let Some(turn) = turn {
            tokens = generator.encode_template(&turn.before)?;
        }
        let instruction = settings.instruction.unwrap_or(match passages.is_empty() {
            true => INSTRUCTION_ALONE,
            false => INSTRUCTION,
        });
        let mut words = format!("{instruction}\nQuestion: {question}");
        if turn.is_none() {
            words.push_str("\nAnswer:");
        }
        let mut end = generator.encode_text(words.trim_start())?;
        if let Some(turn) = turn {
            end.extend(generator.encode_template(&turn.after)?);
        }
        let needed = tokens.len() + end.len() + settings.sampling.tokens_max;
        let max = generator.context_tokens();
        let Some(room) = max.checked_sub(needed) else {
            return Err(PipelineError::PromptTooLong { needed, max });
        };
        let parts = passages.iter().map(|passage| PassageTokens::new(generator, passage));
        let mut parts = parts.collect::<Result<Vec<_>, _>>()?;
        fit(&mut parts, room);
        for (part, passage) in parts.iter().zip(&mut passages) {
            tokens.extend([&part.head[..], &part.text, &part.end].into_iter().flatten());
            (passage.tokens, passage.cut_tokens) = (part.text.len(), part.cut);
        }
        tokens.extend(end);
        let left_out = passages.len() - parts.len();
        passages.truncate(parts.len());
        Ok(Self { tokens, passages, left_out })
    }
}

/// A passage as the prompt has it.
struct PassageTokens {
    /// Number and title.
    head: Vec<u32>,
    text: Vec<u32>,
    end: Vec<u32>,
    /// Tokens cut from the text.
    cut: usize,
}

impl PassageTokens {
    fn new(tokenizer: &impl Tokenize, passage: &Passage) -> Result<Self, ModelError> {
        let Passage { rank, title, text, .. } = passage;
        let head = match title.trim() {
            "" => format!("[{rank}] "),
            title => format!("[{rank}] {title}\n"),
        };
        let (head, text) = (tokenizer.encode_text(&head)?, tokenizer.encode_text(text.trim())?);
        Ok(Self { head, text, end: tokenizer.encode_text("\n\n")?, cut: 0 })
    }

    fn tokens(&self) -> usize {
        self.head.len() + self.text.len() + self.end.len()
    }
}

/// Cuts passages to `room` tokens, the last one first; one without any of its text goes.
fn fit(parts: &mut Vec<PassageTokens>, room: usize) {
    let mut over = parts.iter().map(PassageTokens::tokens).sum::<usize>().saturating_sub(room);
    while let Some(last) = parts.last_mut().filter(|_| over > 0) {
        if last.text.len() > over {
            last.text.truncate(last.text.len() - over);
            last.cut = over;
            return;
        }
        over = over.saturating_sub(last.tokens());
        parts.pop();
    }
}

/// An answer's text as its bytes come: whole characters only, without blanks around it.
#[derive(Default)]
struct AnswerText {
    /// Bytes of a character that is not complete.
    rest: Vec<u8>,
    text: String,
    /// Bytes of `text` that were handed out.
    told: usize,
}

impl AnswerText {
    /// Takes the bytes of a token. Whether the first line is complete, if no more is wanted.
    fn push(&mut self, bytes: &[u8], one_line: bool) -> bool {
        self.rest.extend_from_slice(bytes);
        take_characters(&mut self.rest, &mut self.text);
        if self.told == 0 {
            self.text.drain(..self.text.len() - self.text.trim_start().len());
        }
        match self.text.find('\n').filter(|_| one_line) {
            Some(end) => {
                self.text.truncate(end);
                true
            }
            None => false,
        }
    }

    /// What can be handed out now: blanks wait for what comes after them.
    fn untold(&mut self) -> &str {
        let first = self.told;
        self.told = self.text.trim_end().len();
        &self.text[first..self.told]
    }

    fn finish(mut self) -> String {
        self.text.truncate(self.text.trim_end().len());
        self.text
    }
}

/// Moves complete characters from `bytes` to `text`; what can be none becomes U+FFFD.
fn take_characters(bytes: &mut Vec<u8>, text: &mut String) {
    let mut done = 0;
    while done < bytes.len() {
        let rest = &bytes[done..];
        let error = std::str::from_utf8(rest).err();
        let valid = error.map_or(rest.len(), |error| error.valid_up_to());
        text.push_str(&String::from_utf8_lossy(&rest[..valid]));
        done += valid;
        match error.map(|error| error.error_len()) {
            Some(Some(wrong)) => {
                text.push(char::REPLACEMENT_CHARACTER);
                done += wrong;
            }
            Some(None) | None => break,
        }
    }
    bytes.drain(..done);
}

/// The numbers in brackets, as in `[1]` or `[1, 2]`, each once.
fn cited(answer: &str) -> Vec<usize> {
    let mut found = Vec::new();
    for piece in answer.split('[').skip(1) {
        let Some((numbers, _)) = piece.split_once(']') else { continue };
        let numbers: Result<Vec<usize>, _> = numbers.split(',').map(|n| n.trim().parse()).collect();
        for number in numbers.unwrap_or_default() {
            if !found.contains(&number) {
                found.push(number);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_comes_in_whole_characters_and_without_blanks_around_it() {
        let told = |tokens: &[&[u8]], one_line| {
            let (mut text, mut told, mut complete) = (AnswerText::default(), Vec::new(), false);
            for token in tokens {
                complete = text.push(token, one_line);
                told.push(text.untold().to_owned());
            }
            (told, text.finish(), complete)
        };
        let euro = "€".as_bytes();
        let tokens: [&[u8]; 6] = [b" \n", &euro[..1], &euro[1..], b"1 ", b"\xff\xe2", b"x\n"];
        let (pieces, answer, _) = told(&tokens, false);
        assert_eq!(pieces, ["", "", "€", "1", " \u{fffd}", "\u{fffd}x"]);
        assert_eq!(answer, pieces.concat());
        // A character that is cut off at the end is left out.
        assert_eq!(told(&[b"a", &euro[..2]], false).1, "a");
        let (pieces, answer, complete) = told(&[b"\na", b" b\nc"], true);
        assert_eq!((pieces.concat().as_str(), answer.as_str(), complete), ("a b", "a b", true));
    }

    #[test]
    fn numbers_in_brackets_are_cited() {
        assert_eq!(cited("As [2] says, and [1, 2][3]. [x] [ 4 ] [5"), [2, 1, 3, 4]);
        assert_eq!(cited("[-1] [99999999999999999999] none"), [0; 0]);
    }

    #[test]
    fn the_last_passage_is_cut_first() {
        let fitted = |lengths: &[usize], room| {
            let part = |n: &usize| PassageTokens {
                head: vec![0; 2],
                text: vec![1; *n],
                end: vec![2],
                cut: 0,
            };
            let mut parts: Vec<_> = lengths.iter().map(part).collect();
            fit(&mut parts, room);
            assert!(parts.iter().map(PassageTokens::tokens).sum::<usize>() <= room);
            parts.iter().map(|part| (part.text.len(), part.cut)).collect::<Vec<_>>()
        };
        assert_eq!(fitted(&[5, 5], 16), [(5, 0), (5, 0)]);
        assert_eq!(fitted(&[5, 5], 15), [(5, 0), (4, 1)]);
        assert_eq!(fitted(&[5, 5], 12), [(5, 0), (1, 4)]);
        assert_eq!(fitted(&[5, 5], 11), [(5, 0)]);
        assert_eq!(fitted(&[5, 5], 5), [(2, 3)]);
        assert_eq!(fitted(&[5, 5], 0), []);
        assert_eq!(fitted(&[0, 1], 3), [(0, 0)], "a document may have a title only");
    }
}
