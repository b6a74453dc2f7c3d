//! The tokenizer of a folder with its configuration, and tokenizers in files of their own.
//!
//! In: a path. Out: a [`Tokenizer`], and what `tokenizer_config.json` says. It does not know weights.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::error::LoadError;
use crate::format::gguf::Gguf;
use crate::format::json;
use crate::tokenizer::Tokenizer;

/// First bytes of a GGUF.
const GGUF: &[u8; 4] = b"GGUF";

/// A folder's `tokenizer_config.json`.
#[derive(Default, Deserialize)]
pub(super) struct TokenizerConfig {
    pub(super) add_bos_token: Option<bool>,
    pub(super) bos_token: Option<Value>,
    pub(super) eos_token: Option<Value>,
    pub(super) chat_template: Option<Value>,
}

impl TokenizerConfig {
    /// Reads the file in `folder`; all fields are absent without it.
    pub(super) fn read(folder: &Path) -> Result<Self, LoadError> {
        let path = folder.join("tokenizer_config.json");
        match json::read_json(&path)? {
            Some(text) => json::parse_json(&path, &text),
            None => Ok(Self::default()),
        }
    }
}

impl TokenizerConfig {
    /// Returns the texts of the tokens that begin and end a text.
    pub(super) fn special_texts(&self) -> [String; 2] {
        [&self.bos_token, &self.eos_token]
            .map(|token| token.as_ref().and_then(content).unwrap_or_default())
    }
}

/// Returns the text of a special token, which some files wrap in an object with details.
pub(super) fn content(token: &Value) -> Option<String> {
    token.as_str().or_else(|| token["content"].as_str()).map(str::to_owned)
}

/// Reads the tokenizer of a folder.
pub(super) fn tokenizer_in(folder: &Path) -> Result<Tokenizer, LoadError> {
    let path = folder.join("tokenizer.json");
    let Some(text) = json::read_json(&path)? else {
        return Err(LoadError::NotInFolder { path: folder.to_owned(), file: "tokenizer.json" });
    };
    let config = TokenizerConfig::read(folder)?;
    let bos = config.bos_token.as_ref().and_then(content);
    Tokenizer::from_json(&path, &text, config.add_bos_token, bos)
}

/// Reads a tokenizer in a file of its own: a `tokenizer.json`, with what lies beside it, a folder with one, or
/// a GGUF. The error names it where the cause would speak of a model.
pub(super) fn read_tokenizer(path: &Path) -> Result<Tokenizer, LoadError> {
    read_other(path).map_err(|error| match error {
        LoadError::Io { .. } => error,
        other => LoadError::OtherTokenizer { path: path.to_owned(), source: Box::new(other) },
    })
}

fn read_other(path: &Path) -> Result<Tokenizer, LoadError> {
    if path.is_dir() {
        return tokenizer_in(path);
    }
    let opened = hyperrag_files::open(path);
    let mut opened = opened.map_err(LoadError::io(path, "the tokenizer cannot be opened"))?;
    let mut magic = [0; GGUF.len()];
    let is_gguf = std::io::Read::read_exact(&mut opened, &mut magic).is_ok() && magic == *GGUF;
    if is_gguf {
        return Gguf::open(path)?.tokenizer();
    }
    let text = json::read_json(path)?.unwrap_or_default();
    let config = TokenizerConfig::read(path.parent().unwrap_or(Path::new("")))?;
    let bos = config.bos_token.as_ref().and_then(content);
    Tokenizer::from_json(path, &text, config.add_bos_token, bos)
}
