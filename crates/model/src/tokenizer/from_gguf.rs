//! The tokenizer in a GGUF, of whichever kind. Gives a [`Tokenizer`].

use hyperrag_core::{Digest, guarded};

use crate::error::LoadError;
use crate::format::gguf::header::{Metadata, MetadataValue};
use crate::format::gguf::metadata_reader::MetadataReader;
use crate::tokenizer::sentence_piece::SentencePiece;
use crate::tokenizer::vocabulary::{Vocabulary, hash_texts};
use crate::tokenizer::{Digests, Encoder, Tokenizer, byte_level};

impl Tokenizer {
    /// Reads the tokenizer in a GGUF.
    pub(crate) fn from_metadata(metadata: &Metadata) -> Result<Self, LoadError> {
        let reader = MetadataReader(metadata);
        let model = reader.text("tokenizer.ggml.model")?;
        let vocabulary = Vocabulary::read(&reader)?;
        let mut tokenizer = match model.as_str() {
            "gpt2" => {
                let read = guarded(|| byte_level::byte_level_bpe(&reader, &vocabulary));
                let what = |panic| format!("cannot be made a tokenizer: {panic}");
                let key = "tokenizer.ggml.tokens".to_owned();
                read.map_err(|panic| LoadError::Metadata { key, what: what(panic) })??
            }
            "llama" => sentence_piece(&reader, &vocabulary)?,
            _ => {
                let feature = format!("a tokenizer of model {model:?}");
                return Err(LoadError::Unsupported { feature });
            }
        };
        let begins = match metadata.get("tokenizer.ggml.add_bos_token") {
            Some(MetadataValue::Bool(begins)) => *begins,
            // llama.cpp's choice for files that do not say.
            _ => model == "llama" || reader.text("tokenizer.ggml.pre")? == "llama-bpe",
        };
        let token = reader.token("tokenizer.ggml.bos_token_id")?.filter(|_| begins);
        tokenizer.bos = token.and_then(|token| vocabulary.tokens.get(token as usize).cloned());
        Ok(tokenizer)
    }
}

fn sentence_piece(
    reader: &MetadataReader<'_>,
    vocabulary: &Vocabulary,
) -> Result<Tokenizer, LoadError> {
    let metadata = reader.0;
    let flag = |key: &str, default: bool| match metadata.get(key) {
        Some(MetadataValue::Bool(flag)) => *flag,
        _ => default,
    };
    let blank_first = flag("tokenizer.ggml.add_space_prefix", true);
    let normalizes = metadata.contains_key("tokenizer.ggml.precompiled_charsmap");
    if normalizes || flag("tokenizer.ggml.remove_extra_whitespaces", false) {
        let feature = "a SentencePiece tokenizer that changes the text before".to_owned();
        return Err(LoadError::Unsupported { feature });
    }
    let key = "tokenizer.ggml.scores";
    let scores = reader.array(key)?;
    let wrong = |what: &str| LoadError::Metadata { key: key.to_owned(), what: what.to_owned() };
    let scores: Option<Vec<f32>> = scores.iter().map(MetadataValue::float).collect();
    let scores = scores.ok_or_else(|| wrong("holds a value that is no f32"))?;
    if scores.len() != vocabulary.tokens.len() || scores.iter().any(|score| score.is_nan()) {
        return Err(wrong("is not one number a token"));
    }
    let mut hasher = blake3::Hasher::new();
    hash_texts(&mut hasher, &["llama".to_owned(), format!("blank_first={blank_first}")]);
    hash_texts(&mut hasher, &vocabulary.tokens);
    for (score, kind) in scores.iter().zip(&vocabulary.types) {
        hasher.update(&score.to_le_bytes()).update(&kind.to_le_bytes());
    }
    let pieces = SentencePiece::new(vocabulary, scores, blank_first);
    let mut special: Vec<String> = pieces.special.keys().cloned().collect();
    special.sort_unstable();
    let digest = Digest(*hasher.finalize().as_bytes());
    let digests = Digests { files: digest, contents: digest };
    let encoder = Encoder::Pieces(Box::new(pieces));
    Ok(Tokenizer { encoder, special, bos: None, digests })
}
