//! Ways to cut text into words before byte-level BPE, and their patterns. It does not know tokens.

use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{PreTokenizerWrapper, SplitDelimiterBehavior};

/// Pattern by which Llama 3 and Qwen cut text into words. They differ in `numbers` alone.
macro_rules! words_pattern {
    ($numbers:literal) => {
        concat!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|",
            $numbers,
            r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        )
    };
}

/// Patterns that end a word between a letter or digit and any other character, and between a letter and
/// a digit, whatever stands further left or right. They are those of GPT-2, Llama 3, Qwen and Mistral's
/// Tekken.
pub(super) const WORDS: [&str; 4] = [
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    words_pattern!(r"\p{N}{1,3}"),
    words_pattern!(r"\p{N}"),
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
];

/// Ways to cut text into words before BPE, with llama.cpp's names.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Words {
    Gpt2,
    /// Every digit by itself, then as in GPT-2.
    SmolLm,
    /// Numbers by up to three digits. A word that is a token needs no merges.
    Llama3,
    /// Numbers by up to three digits.
    Dbrx,
    /// Every digit by itself; text is composed first.
    Qwen2,
}

impl Words {
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "gpt-2" | "gpt2" => Some(Self::Gpt2),
            // Granite 3 calls itself a Refact, OLMo 2 and Phi-4 a DBRX.
            "smollm" | "refact" => Some(Self::SmolLm),
            "dbrx" => Some(Self::Dbrx),
            "llama-bpe" | "llama3" | "llama-v3" => Some(Self::Llama3),
            "qwen2" | "deepseek-r1-qwen" => Some(Self::Qwen2),
            _ => None,
        }
    }

    /// Returns one of the names.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Gpt2 => "gpt-2",
            Self::SmolLm => "smollm",
            Self::Llama3 => "llama-bpe",
            Self::Dbrx => "dbrx",
            Self::Qwen2 => "qwen2",
        }
    }

    pub(super) fn pre_tokenizer(self) -> Result<Sequence, String> {
        let split = |pattern: &str| -> Result<PreTokenizerWrapper, String> {
            let pattern = SplitPattern::Regex(pattern.to_owned());
            let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false);
            Ok(split.map_err(|error| error.to_string())?.into())
        };
        let bytes = |words| PreTokenizerWrapper::from(ByteLevel::new(false, true, words));
        Ok(Sequence::new(match self {
            Self::Gpt2 => vec![bytes(true)],
            Self::SmolLm => vec![Digits::new(true).into(), bytes(true)],
            Self::Llama3 | Self::Dbrx => vec![split(WORDS[1])?, bytes(false)],
            Self::Qwen2 => vec![split(WORDS[2])?, bytes(false)],
        }))
    }
}
