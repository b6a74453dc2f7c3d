//! Entry points for fuzzers, one a parser. Any bytes may come in; none may panic or take much memory.
//! Each returns whether it accepted the bytes, so that a test can tell that its seeds get through.

use std::path::Path;

use hyperrag_core::Tokenize;

use crate::arch::config::Config;
use crate::format::config_json::ModelJson;
use crate::format::gguf::header::GgufHeader;
use crate::format::safetensors;
use crate::generate::chat_template::ChatTemplate;
use crate::tokenizer::Tokenizer;

/// Number of bytes after the header of a safetensors file.
const DATA_BYTES: u64 = 1 << 30;

/// Text that every tokenizer encodes.
const TEXT: &str = "It's  12 bees,\r\n\u{e9}\u{6f22}\u{1f41d} <|im_end|>\u{2581}";

/// Parses the header of a GGUF file into sizes, turns and a tokenizer, or refuses it.
#[must_use]
pub fn gguf(bytes: &[u8]) -> bool {
    let Ok(GgufHeader { metadata, .. }) = GgufHeader::read(bytes, bytes.len() as u64) else {
        return false;
    };
    let config = Config::from_metadata(&metadata).is_ok();
    let chat = ChatTemplate::from_metadata(&metadata).is_ok();
    let tokenizer = Tokenizer::from_metadata(&metadata);
    tokenizer.is_ok_and(|tokenizer| encodes(&tokenizer)) && config && chat
}

/// Parses the header of a safetensors file into tensors within the file, or refuses it.
#[must_use]
pub fn safetensors(bytes: &[u8]) -> bool {
    safetensors::entries(bytes, DATA_BYTES).is_ok()
}

/// Parses a `config.json` into sizes that a model can have, or refuses it.
#[must_use]
pub fn config(bytes: &[u8]) -> bool {
    let model = ModelJson::read(Path::new("config.json"), bytes);
    model.is_ok_and(|model| model.config.checked().is_ok())
}

/// Parses a `tokenizer.json` into a tokenizer whose token ids stand for bytes, or refuses it.
#[must_use]
pub fn tokenizer(bytes: &[u8]) -> bool {
    let tokenizer = Tokenizer::from_json(Path::new("tokenizer.json"), bytes, None, None);
    tokenizer.is_ok_and(|tokenizer| encodes(&tokenizer))
}

/// Whether a tokenizer encodes a text, as text and as template.
fn encodes(tokenizer: &Tokenizer) -> bool {
    let tokens = tokenizer.encode_text(TEXT).and_then(|tokens| {
        tokenizer.encode_template(TEXT)?;
        Ok(tokens)
    });
    tokens.is_ok_and(|tokens| {
        tokens.iter().for_each(|token| drop(tokenizer.bytes_of(*token)));
        true
    })
}

/// Renders a chat template into the text around a user's words, or refuses it.
#[must_use]
pub fn chat(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| ChatTemplate::new(text, "<s>", "</s>").is_ok())
}
