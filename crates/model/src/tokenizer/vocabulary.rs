//! The tokens of a GGUF with their types, and which of them mark turns. It does not know text.

use crate::error::LoadError;
use crate::format::gguf::header::MetadataValue;
use crate::format::gguf::metadata_reader::MetadataReader;

/// Values of `tokenizer.ggml.token_type` (llama.cpp's `llama.h`).
pub(super) mod kind {
    pub(crate) const NORMAL: i32 = 1;
    pub(crate) const UNKNOWN: i32 = 2;
    pub(crate) const CONTROL: i32 = 3;
    pub(crate) const USER_DEFINED: i32 = 4;
    pub(crate) const BYTE: i32 = 6;
}

/// Whether a token that files call an added word or the user's definition marks a turn, so that text
/// must not contain it. In byte-level BPE such tokens look like `<|im_end|>`, while `<think>` is a word
/// of the text.
pub(super) fn marks_turn(token: &str) -> bool {
    is_within(token, "<|", "|>") || is_within(token, "<\u{ff5c}", "\u{ff5c}>")
}

/// Whether a token of SentencePiece marks a turn, such as `[INST]` and `<start_of_turn>`.
pub(super) fn marks_turn_of_pieces(token: &str) -> bool {
    is_within(token, "[", "]") || is_within(token, "<", ">") && token.contains(['|', '_'])
}

fn is_within(token: &str, open: &str, close: &str) -> bool {
    token.starts_with(open) && token.ends_with(close)
}

/// The tokens of a GGUF with their types.
pub(super) struct Vocabulary {
    pub(super) tokens: Vec<String>,
    pub(super) types: Vec<i32>,
}

impl Vocabulary {
    pub(super) fn read(reader: &MetadataReader<'_>) -> Result<Self, LoadError> {
        let key = "tokenizer.ggml.token_type";
        let tokens = reader.texts("tokenizer.ggml.tokens")?;
        let types = reader.array(key)?;
        if types.len() != tokens.len() {
            let what = format!("has {} entries for {} tokens", types.len(), tokens.len());
            return Err(LoadError::Metadata { key: key.to_owned(), what });
        }
        let types = types.iter().map(|kind| match kind {
            MetadataValue::I32(kind) => *kind,
            _ => kind::NORMAL,
        });
        let types = types.collect();
        Ok(Self { tokens, types })
    }

    pub(super) fn with_types(&self) -> impl Iterator<Item = (u32, &String, i32)> {
        let tokens = self.tokens.iter().zip(&self.types);
        (0..).zip(tokens).map(|(id, (token, kind))| (id, token, *kind))
    }
}

pub(super) fn hash_texts(hasher: &mut blake3::Hasher, texts: &[String]) {
    hasher.update(&(texts.len() as u64).to_le_bytes());
    for text in texts {
        hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
    }
}
