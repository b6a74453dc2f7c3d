//! Turns text into token ids, as the files of a model say: byte-level BPE, SentencePiece's BPE, or a
//! `tokenizer.json`.
//!
//! In: text. Out: token ids and their digest. It does not know chunks or prompts.

mod byte_level;
mod contents;
mod from_gguf;
mod from_json;
mod pieces;
mod sentence_piece;
pub(crate) mod spelling;
mod vocabulary;
mod words;

use hyperrag_core::{Coverage, Digest, ModelError, Tokenize, guarded};
use tokenizers::Tokenizer as FastTokenizer;

use crate::tokenizer::spelling::{Spelling, bytes_of_name};
use pieces::{Cutter, PIECE_BYTES_MAX};
use sentence_piece::SentencePiece;

/// The tokenizer of a model.
pub struct Tokenizer {
    encoder: Encoder,
    special: Vec<String>,
    /// Token with which every document part begins.
    bos: Option<String>,
    digests: Digests,
}

/// Digests of a tokenizer, by what they cover.
struct Digests {
    files: Digest,
    contents: Digest,
}

enum Encoder {
    /// A tokenizer in two versions: without special tokens, so that text that looks like one stays
    /// text, and with them, for templates.
    Fast {
        text: Box<FastTokenizer>,
        template: Box<FastTokenizer>,
        spelling: Spelling,
        cutter: Box<Cutter>,
    },
    Pieces(Box<SentencePiece>),
}

impl Tokenizer {
    /// Returns the digest of everything that decides the token ids of a text.
    #[must_use]
    pub fn digest(&self, coverage: Coverage) -> Digest {
        match coverage {
            Coverage::Files => self.digests.files,
            Coverage::Contents => self.digests.contents,
        }
    }

    /// Whether `token` is a special token of this tokenizer.
    #[must_use]
    pub fn has_special(&self, token: &str) -> bool {
        self.special.iter().any(|special| special == token)
    }

    /// Returns the special token that the model expects at the beginning of every prompt, if any.
    #[must_use]
    pub fn bos(&self) -> Option<&str> {
        self.bos.as_deref()
    }

    /// Returns the bytes that `token` stands for in a text; none for a special token.
    pub(crate) fn bytes_of(&self, token: u32) -> Vec<u8> {
        match &self.encoder {
            Encoder::Pieces(pieces) => pieces.bytes_of(token),
            Encoder::Fast { template, spelling, .. } => {
                if let Some(added) =
                    template.get_added_vocabulary().get_added_tokens_decoder().get(&token)
                {
                    let special = added.special || self.has_special(&added.content);
                    return if special { Vec::new() } else { added.content.clone().into_bytes() };
                }
                let name = template.id_to_token(token).unwrap_or_default();
                match spelling {
                    Spelling::Bytes(bytes) => name
                        .chars()
                        .filter_map(|character| bytes.get(&character).copied())
                        .collect(),
                    Spelling::Pieces => bytes_of_name(&name),
                }
            }
        }
    }

    /// Returns the special token with which `template` begins, blanks aside.
    pub(crate) fn leading_special(&self, template: &str) -> Option<u32> {
        let begins = |special: &&String| template.trim_start().starts_with(special.as_str());
        let special = self.special.iter().filter(begins).max_by_key(|special| special.len())?;
        self.token(special)
    }

    /// Looks a token up by name.
    pub(crate) fn token(&self, name: &str) -> Option<u32> {
        match &self.encoder {
            Encoder::Pieces(pieces) => pieces.special_token(name),
            Encoder::Fast { template, .. } => template.token_to_id(name),
        }
    }
}

/// Appends the token ids of a piece of text.
fn encode(tokenizer: &FastTokenizer, piece: &str, tokens: &mut Vec<u32>) -> Result<(), ModelError> {
    let encoding = guarded(|| tokenizer.encode_fast(piece, false));
    let encoding =
        encoding.map_err(|panic| ModelError::Tokenizer(format!("it stopped: {panic}")))?;
    let encoding = encoding.map_err(|error| ModelError::Tokenizer(error.to_string()))?;
    tokens.extend_from_slice(encoding.get_ids());
    Ok(())
}

impl Tokenize for Tokenizer {
    fn encode_text(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        self.encode_start(text, usize::MAX)
    }

    fn encode_parts(&self, text: &str, give: &mut dyn FnMut(&[u32])) -> Result<(), ModelError> {
        let Encoder::Fast { text: tokenizer, cutter, .. } = &self.encoder else {
            give(&self.encode_text(text)?);
            return Ok(());
        };
        let mut tokens = Vec::new();
        for piece in cutter.pieces(text, tokenizer) {
            tokens.clear();
            encode(tokenizer, piece?, &mut tokens)?;
            give(&tokens);
        }
        Ok(())
    }

    fn encode_start(&self, text: &str, max: usize) -> Result<Vec<u32>, ModelError> {
        let mut tokens = Vec::new();
        match &self.encoder {
            Encoder::Fast { text: tokenizer, cutter, .. } => {
                for piece in cutter.pieces(text, tokenizer) {
                    encode(tokenizer, piece?, &mut tokens)?;
                    if tokens.len() >= max {
                        break;
                    }
                }
            }
            Encoder::Pieces(pieces) => tokens = pieces.encode_text(text, max)?,
        }
        tokens.truncate(max);
        Ok(tokens)
    }

    fn encode_template(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        match &self.encoder {
            Encoder::Fast { .. } if text.len() > PIECE_BYTES_MAX => {
                let what = format!("a template of {} bytes, at most {PIECE_BYTES_MAX}", text.len());
                Err(ModelError::Tokenizer(what))
            }
            Encoder::Fast { template, .. } => {
                let mut tokens = Vec::new();
                encode(template, text, &mut tokens)?;
                Ok(tokens)
            }
            Encoder::Pieces(pieces) => pieces.encode_template(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_stand_for_the_bytes_of_their_text() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        crate::testing::tiny::write(0, &mut file).unwrap();
        let tokenizer = crate::ModelFile::open(file.path()).unwrap().tokenizer().unwrap();
        for text in ["the heat in winter", "Käse 12 €\n\t«…» \u{1F41D}\0", " <|im_end|>"] {
            let tokens = tokenizer.encode_text(text).unwrap();
            let bytes: Vec<u8> = tokens.iter().flat_map(|t| tokenizer.bytes_of(*t)).collect();
            assert_eq!(bytes, text.as_bytes());
        }
        assert_eq!(tokenizer.encode_template("<|im_end|>a").unwrap()[0], 2);
        assert!(tokenizer.bytes_of(2).is_empty() && tokenizer.bytes_of(u32::MAX).is_empty());
        assert_eq!(tokenizer.leading_special(" <|im_end|>\n"), Some(2));
        assert_eq!(tokenizer.leading_special("x<|im_end|>"), None);
        assert_eq!(tokenizer.bos(), None);
    }

    /// Checks that the start of a long title is encoded by no more than a piece.
    #[test]
    fn the_start_of_a_text_has_the_first_tokens_of_the_whole() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["llama3", "qwen2", "gemma3"] {
            let path = folder.path().join(name);
            let mut file = std::fs::File::create(&path).unwrap();
            crate::testing::tiny::Tiny::new(name, 0).unwrap().write_gguf(&mut file).unwrap();
            let tokenizer = crate::ModelFile::open(&path).unwrap().tokenizer().unwrap();
            let words = "Die Käse, 12 €  in the winter\n".repeat(9000);
            for max in [0, 1, 64, 65, 50_000] {
                let mut whole = tokenizer.encode_text(&words).unwrap();
                assert!(whole.len() > 50_000);
                whole.truncate(max);
                assert_eq!(tokenizer.encode_start(&words, max).unwrap(), whole, "{name} {max}");
            }
            let (mut parts, mut count) = (Vec::new(), 0);
            let give = &mut |part: &[u32]| {
                parts.extend_from_slice(part);
                count += 1;
            };
            tokenizer.encode_parts(&words, give).unwrap();
            assert_eq!(parts, tokenizer.encode_text(&words).unwrap(), "{name}");
            assert!(count > 3 || name == "gemma3", "{name}: {count} parts");
            // The rest is not looked at: no piece can end in so many letters.
            let letters = words + &"x".repeat(2 << 20);
            assert!(name == "gemma3" || tokenizer.encode_text(&letters).is_err(), "{name}");
            assert_eq!(tokenizer.encode_start(&letters, 64).unwrap().len(), 64);
        }
    }
}
