//! A `tokenizer.json`, as the tokenizers library writes it.

use std::path::Path;

use hyperrag_kv::Digest;
use serde_json::Value;
use tokenizers::Tokenizer as FastTokenizer;

use super::{Encoder, Spelling, Tokenizer};
use crate::LoadError;

impl Tokenizer {
    /// The tokenizer of a `tokenizer.json`. `begins` says whether prompts begin with `bos`; without
    /// it the file does.
    pub(crate) fn from_json(
        path: &Path,
        text: &[u8],
        begins: Option<bool>,
        bos: Option<String>,
    ) -> Result<Self, LoadError> {
        let wrong = |what: String| LoadError::Json { path: path.to_owned(), what };
        let mut json: Value =
            serde_json::from_slice(text).map_err(|error| wrong(error.to_string()))?;
        let bytes = mentions(&json["decoder"], "ByteLevel");
        let mut special = Vec::new();
        let added = json.get_mut("added_tokens").and_then(Value::as_array_mut);
        for token in added.into_iter().flatten().filter_map(Value::as_object_mut) {
            // Byte-level BPE spells all text without them. SentencePiece has runs of blanks and
            // line ends among them, which text has as well.
            if bytes {
                token.insert("special".to_owned(), Value::Bool(true));
            }
            if token.get("special") == Some(&Value::Bool(true)) {
                special.extend(token.get("content").and_then(Value::as_str).map(str::to_owned));
            }
        }
        let read = serde_json::from_value(json);
        let mut template: FastTokenizer = read.map_err(|error| wrong(error.to_string()))?;
        let plain = template.with_padding(None).with_truncation(None);
        plain.map_err(|error| wrong(error.to_string()))?;
        let mut text_tokenizer = template.clone();
        text_tokenizer.set_encode_special_tokens(true);
        let bos = match begins {
            Some(begins) => bos.filter(|_| begins),
            None => first_token(&template).filter(|token| special.contains(token)),
        };
        let spelling = if bytes { Spelling::bytes() } else { Spelling::Pieces };
        let (text_tokenizer, template) = (Box::new(text_tokenizer), Box::new(template));
        let encoder = Encoder::Fast { text: text_tokenizer, template, spelling };
        Ok(Self { encoder, special, bos, digest: Digest::of(text) })
    }
}

/// Whether a part of a tokenizer, or one of its parts, is of type `kind`.
fn mentions(part: &Value, kind: &str) -> bool {
    match part {
        Value::Object(fields) => {
            fields.get("type").is_some_and(|t| t == kind)
                || fields.values().any(|field| mentions(field, kind))
        }
        Value::Array(parts) => parts.iter().any(|part| mentions(part, kind)),
        _ => false,
    }
}

/// What the tokenizer puts before a text by itself.
fn first_token(tokenizer: &FastTokenizer) -> Option<String> {
    let encoding = tokenizer.encode_fast("", true).ok()?;
    encoding.get_tokens().first().cloned()
}
