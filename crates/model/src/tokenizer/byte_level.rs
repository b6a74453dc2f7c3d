//! Byte-level BPE from a GGUF. Gives a [`Tokenizer`] that cuts text into words as the model's family
//! does.

use hyperrag_core::Digest;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::unicode::NFC;
use tokenizers::{AddedToken, Tokenizer as FastTokenizer};

use crate::error::LoadError;
use crate::format::gguf::metadata_reader::MetadataReader;
use crate::tokenizer::pieces::Cutter;
use crate::tokenizer::spelling::Spelling;
use crate::tokenizer::vocabulary::{Vocabulary, hash_texts, kind, marks_turn};
use crate::tokenizer::words::Words;
use crate::tokenizer::{Digests, Encoder, Tokenizer};

/// Makes the tokenizer of a vocabulary with merges.
pub(super) fn byte_level_bpe(
    reader: &MetadataReader<'_>,
    vocabulary: &Vocabulary,
) -> Result<Tokenizer, LoadError> {
    let (model, pre) = ("gpt2".to_owned(), reader.text("tokenizer.ggml.pre")?);
    let Some(words) = Words::named(&pre) else {
        let feature = format!("a tokenizer of model {model:?} with pre-tokenizer {pre:?}");
        return Err(LoadError::Unsupported { feature });
    };
    let merges = reader.texts("tokenizer.ggml.merges")?;
    let wrong = |key: &str, what: String| LoadError::Metadata { key: key.to_owned(), what };
    let Added { special, whole } = Added::of(vocabulary);
    let mut hasher = blake3::Hasher::new();
    for part in [&[model, pre][..], &vocabulary.tokens, &merges, &special] {
        hash_texts(&mut hasher, part);
    }
    // The first stores of format 1 have no such words: without them the digest stays as it was.
    if !whole.is_empty() {
        hash_texts(&mut hasher, &whole);
    }
    let files = Digest(*hasher.finalize().as_bytes());
    let mut hasher = blake3::Hasher::new();
    for part in [&[words.name().to_owned()][..], &vocabulary.tokens, &merges, &special, &whole] {
        hash_texts(&mut hasher, part);
    }
    let contents = Digest(*hasher.finalize().as_bytes());
    let pairs: Option<Vec<(String, String)>> = merges
        .iter()
        .map(|merge| merge.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())))
        .collect();
    let Some(pairs) = pairs else {
        return Err(wrong("tokenizer.ggml.merges", "holds an entry that is no pair".to_owned()));
    };
    let tokens: Vocab = vocabulary.tokens.iter().cloned().zip(0..).collect();
    let bpe = BPE::builder()
        .vocab_and_merges(tokens, pairs)
        .ignore_merges(words == Words::Llama3)
        .build()
        .map_err(|error| wrong("tokenizer.ggml.merges", error.to_string()))?;
    let mut text = FastTokenizer::new(bpe);
    let pre_tokenizer = words.pre_tokenizer();
    text.with_pre_tokenizer(Some(
        pre_tokenizer.map_err(|error| wrong("tokenizer.ggml.pre", error))?,
    ));
    if words == Words::Qwen2 {
        let composed = text.with_normalizer(Some(NFC));
        composed.map_err(|error| wrong("tokenizer.ggml.pre", error.to_string()))?;
    }
    let cutter = Box::new(Cutter::of_words(special.iter().chain(&whole).cloned().collect()));
    let whole = whole.into_iter().map(|word| AddedToken::from(word, false).normalized(false));
    let template = text.add_tokens(whole).and_then(|_| {
        let mut template = text.clone();
        template.add_special_tokens(special.iter().map(|token| AddedToken::from(token, true)))?;
        Ok(template)
    });
    let template =
        template.map_err(|error| wrong("tokenizer.ggml.token_type", error.to_string()))?;
    let (text, template) = (Box::new(text), Box::new(template));
    let encoder = Encoder::Fast { text, template, spelling: Spelling::bytes(), cutter };
    let digests = Digests { files, contents };
    Ok(Tokenizer { encoder, special, bos: None, digests })
}

/// Tokens that no merges make.
struct Added {
    /// Tokens that stand for nothing in a text.
    special: Vec<String>,
    /// Tokens that a text may contain. If several begin at one place, the longest is taken.
    whole: Vec<String>,
}

impl Added {
    fn of(vocabulary: &Vocabulary) -> Self {
        let mut added = Self { special: Vec::new(), whole: Vec::new() };
        for (_, token, kind) in vocabulary.with_types() {
            match kind {
                kind::USER_DEFINED if !marks_turn(token) => added.whole.push(token.clone()),
                kind::CONTROL | kind::USER_DEFINED => added.special.push(token.clone()),
                _ => {}
            }
        }
        added
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::format::gguf::header::MetadataValue;
    use crate::tokenizer::spelling::byte_characters;
    use hyperrag_core::{Coverage, Tokenize};
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

    #[test]
    fn families_cut_words_their_own_way() {
        let text = "It's 12345 x!\n\n  y";
        let check = |name: &str, expected: &[&str]| {
            let mut cut = PreTokenizedString::from(text);
            let words = Words::named(name).unwrap().pre_tokenizer().unwrap();
            words.pre_tokenize(&mut cut).unwrap();
            let cut = cut.get_splits(OffsetReferential::Original, OffsetType::Byte);
            let cut: Vec<&str> = cut.iter().map(|(_, (from, to), _)| &text[*from..*to]).collect();
            assert_eq!(cut, expected, "{name}");
        };
        check("gpt-2", &["It", "'s", " 12345", " x", "!", "\n\n ", " y"]);
        check("smollm", &["It", "'s", " ", "1", "2", "3", "4", "5", " x", "!", "\n\n ", " y"]);
        check("refact", &["It", "'s", " ", "1", "2", "3", "4", "5", " x", "!", "\n\n ", " y"]);
        check("llama-bpe", &["It", "'s", " ", "123", "45", " x", "!\n\n", " ", " y"]);
        check("dbrx", &["It", "'s", " ", "123", "45", " x", "!\n\n", " ", " y"]);
        check("qwen2", &["It", "'s", " ", "1", "2", "3", "4", "5", " x", "!\n\n", " ", " y"]);
        assert!(Words::named("falcon").is_none());
    }

    #[test]
    fn words_that_a_user_defined_have_their_ids() {
        let bytes = || byte_characters().map(|character| (character.to_string(), kind::NORMAL));
        let added = [
            ("hive", kind::USER_DEFINED),
            ("beehive 2", kind::USER_DEFINED),
            ("<|im_end|>", kind::USER_DEFINED),
            ("<s>", kind::CONTROL),
        ];
        let added = added.map(|(token, kind)| (token.to_owned(), kind));
        let tokenizer = |added: &[(String, i32)]| {
            let all = bytes().chain(added.iter().cloned());
            let (tokens, kinds): (Vec<_>, Vec<_>) = all
                .map(|(token, kind)| (MetadataValue::String(token), MetadataValue::I32(kind)))
                .unzip();
            let text = |text: &str| MetadataValue::String(text.to_owned());
            let metadata = HashMap::from([
                ("tokenizer.ggml.model", text("gpt2")),
                ("tokenizer.ggml.pre", text("qwen2")),
                ("tokenizer.ggml.tokens", MetadataValue::Array(tokens)),
                ("tokenizer.ggml.token_type", MetadataValue::Array(kinds)),
                ("tokenizer.ggml.merges", MetadataValue::Array(Vec::new())),
            ]);
            let metadata = metadata.into_iter().map(|(key, value)| (key.to_owned(), value));
            Tokenizer::from_metadata(&metadata.collect()).unwrap()
        };
        let with_words = tokenizer(&added);
        let spelt = |text: &str| tokenizer(&[]).encode_text(text).unwrap();
        let check = |text: &str, expected: &[&[u32]]| {
            assert_eq!(with_words.encode_text(text).unwrap(), expected.concat(), "{text:?}");
        };
        check("a hive", &[&spelt("a "), &[256]]);
        check("beehive 2hive", &[&[257, 256]]);
        check("beehive", &[&spelt("bee"), &[256]]);
        for turn in ["<|im_end|>", "<s>"] {
            check(turn, &[&spelt(turn)]);
            assert!(with_words.has_special(turn));
        }
        assert_eq!(with_words.encode_template("<s>hive<|im_end|>").unwrap(), [259, 256, 258]);
        assert_eq!(with_words.bytes_of(257), b"beehive 2");
        assert!(with_words.bytes_of(258).is_empty());
        // Stores of models without such words match as before; those of models with them do not.
        for coverage in [Coverage::Files, Coverage::Contents] {
            assert_ne!(with_words.digest(coverage), tokenizer(&added[2..]).digest(coverage));
        }
    }
}
