//! Passages and a question in, the tokens that the generator reads out.

use hyperrag_core::{Generate, ModelError, Tokenize};

use crate::answer::passages::Passage;
use crate::answer::settings::AnswerSettings;
use crate::error::EngineError;

const INSTRUCTION: &str = "Answer the question from the passages, in as few words as possible.";
const INSTRUCTION_ALONE: &str = "Answer the question in as few words as possible.";

/// Text that the generator reads: passages, instruction and question, in the model's own turn if it
/// knows turns. Only the turn is parsed for special tokens.
pub(crate) struct Prompt {
    pub(crate) tokens: Vec<u32>,
    pub(crate) passages: Vec<Passage>,
    /// Passages for which there was no room.
    pub(crate) left_out: usize,
}

impl Prompt {
    /// Lays out passages, instruction and question, cut to the generator's context.
    pub(crate) fn new(
        generator: &impl Generate,
        settings: &AnswerSettings<'_>,
        question: &str,
        mut passages: Vec<Passage>,
    ) -> Result<Self, EngineError> {
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
        let Some(free_tokens) = max.checked_sub(needed) else {
            return Err(EngineError::PromptTooLong { needed, max });
        };
        let parts = passages.iter().map(|passage| PassageTokens::new(generator, passage));
        let mut parts = parts.collect::<Result<Vec<_>, _>>()?;
        fit(&mut parts, free_tokens);
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

/// Cuts passages to `free_tokens` tokens, the last one first; one without any of its text goes.
fn fit(parts: &mut Vec<PassageTokens>, free_tokens: usize) {
    let mut over =
        parts.iter().map(PassageTokens::tokens).sum::<usize>().saturating_sub(free_tokens);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_passage_is_cut_first() {
        let fitted = |lengths: &[usize], free_tokens| {
            let part = |n: &usize| PassageTokens {
                head: vec![0; 2],
                text: vec![1; *n],
                end: vec![2],
                cut: 0,
            };
            let mut parts: Vec<_> = lengths.iter().map(part).collect();
            fit(&mut parts, free_tokens);
            assert!(parts.iter().map(PassageTokens::tokens).sum::<usize>() <= free_tokens);
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
