use std::collections::HashMap;

use candle_core::quantized::gguf_file::Value;
use hyperrag_kv::{Digest, ModelError, Tokenize};
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::{AddedToken, Tokenizer};

use crate::LoadError;
use crate::metadata::Reader;

/// The GGUF's own tokenizer: byte-level BPE.
pub struct GgufTokenizer {
    /// Without special tokens: text that looks like one stays text.
    text: Tokenizer,
    /// With special tokens, for templates.
    template: Tokenizer,
    special: Vec<String>,
    /// The byte that each character of a token's name stands for.
    bytes: HashMap<char, u8>,
    digest: Digest,
}

/// `tokenizer.ggml.token_type` of control and user-defined tokens (llama.cpp's `llama.h`).
const SPECIAL_TYPES: [i32; 2] = [3, 4];

impl GgufTokenizer {
    pub(crate) fn from_metadata(metadata: &HashMap<String, Value>) -> Result<Self, LoadError> {
        let reader = Reader(metadata);
        let kind = reader.text("tokenizer.ggml.model")?;
        let pre = reader.text("tokenizer.ggml.pre")?;
        if kind != "gpt2" || pre != "smollm" {
            let feature = format!("a tokenizer of model {kind:?} with pre-tokenizer {pre:?}");
            return Err(LoadError::Unsupported { feature });
        }
        let tokens = reader.texts("tokenizer.ggml.tokens")?;
        let merges = reader.texts("tokenizer.ggml.merges")?;
        let types = reader.array("tokenizer.ggml.token_type")?;
        let wrong = |key: &str, what: String| LoadError::Metadata { key: key.to_owned(), what };
        if types.len() != tokens.len() {
            let what = format!("has {} entries for {} tokens", types.len(), tokens.len());
            return Err(wrong("tokenizer.ggml.token_type", what));
        }
        let special: Vec<String> = tokens
            .iter()
            .zip(types)
            .filter(|(_, kind)| kind.to_i32().is_ok_and(|kind| SPECIAL_TYPES.contains(&kind)))
            .map(|(token, _)| token.clone())
            .collect();
        let mut hasher = blake3::Hasher::new();
        for part in [&[kind, pre][..], &tokens, &merges, &special] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            for text in part {
                hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
            }
        }
        let pairs: Option<Vec<(String, String)>> = merges
            .iter()
            .map(|merge| merge.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())))
            .collect();
        let Some(pairs) = pairs else {
            return Err(wrong(
                "tokenizer.ggml.merges",
                "holds an entry that is no pair".to_owned(),
            ));
        };
        let vocabulary = tokens.into_iter().zip(0..).collect::<HashMap<String, u32>>();
        let bpe = BPE::builder()
            .vocab_and_merges(
                vocabulary.into_iter().collect::<tokenizers::models::bpe::Vocab>(),
                pairs,
            )
            .build()
            .map_err(|error| wrong("tokenizer.ggml.merges", error.to_string()))?;
        let mut text = Tokenizer::new(bpe);
        // llama.cpp's `smollm`: every digit by itself, then GPT-2's words.
        let words = ByteLevel::new(false, true, true);
        text.with_pre_tokenizer(Some(Sequence::new(vec![Digits::new(true).into(), words.into()])));
        let mut template = text.clone();
        template
            .add_special_tokens(special.iter().map(|token| AddedToken::from(token.clone(), true)))
            .map_err(|error| wrong("tokenizer.ggml.token_type", error.to_string()))?;
        let digest = Digest(*hasher.finalize().as_bytes());
        let bytes = byte_characters().zip(0..=u8::MAX).collect();
        Ok(Self { text, template, special, bytes, digest })
    }

    /// Digest of everything that decides the token ids.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Whether `token` is a special token of this tokenizer.
    #[must_use]
    pub fn has_special(&self, token: &str) -> bool {
        self.special.iter().any(|special| special == token)
    }

    /// The bytes that `token` stands for in a text: none for a special one.
    pub(crate) fn bytes_of(&self, token: u32) -> Vec<u8> {
        let name = self.text.id_to_token(token).filter(|name| !self.has_special(name));
        let characters = name.iter().flat_map(|name| name.chars());
        characters.filter_map(|character| self.bytes.get(&character).copied()).collect()
    }

    /// The special token that `template` begins with, blanks aside.
    pub(crate) fn leading_special(&self, template: &str) -> Option<u32> {
        let begins = |special: &&String| template.trim_start().starts_with(special.as_str());
        let special = self.special.iter().filter(begins).max_by_key(|special| special.len())?;
        self.template.token_to_id(special)
    }
}

/// How byte-level BPE spells each byte in the names of its tokens (GPT-2, Radford et al. 2019).
pub(crate) fn byte_characters() -> impl Iterator<Item = char> {
    let printable = |byte: u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let mut shifted = 256..;
    (0..256).map(move |byte| {
        let code = if printable(byte) { byte } else { shifted.next().unwrap_or(byte) };
        char::from_u32(code).unwrap_or(' ')
    })
}

fn encode(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, ModelError> {
    let encoding = tokenizer.encode_fast(text, false);
    let encoding = encoding.map_err(|error| ModelError::Tokenizer(error.to_string()))?;
    Ok(encoding.get_ids().to_vec())
}

impl Tokenize for GgufTokenizer {
    fn encode_text(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        encode(&self.text, text)
    }

    fn encode_template(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        encode(&self.template, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_stand_for_the_bytes_of_their_text() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        crate::tiny::write(0, &mut file).unwrap();
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
    }
}
