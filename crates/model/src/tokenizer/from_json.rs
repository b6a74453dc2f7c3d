//! A `tokenizer.json`, as the tokenizers library writes it. Gives a [`Tokenizer`].

use std::path::Path;

use hyperrag_core::{Digest, guarded};
use serde_json::Value;
use tokenizers::Tokenizer as FastTokenizer;

use crate::error::LoadError;
use crate::tokenizer::pieces::Cutter;
use crate::tokenizer::spelling::Spelling;
use crate::tokenizer::vocabulary::marks_turn;
use crate::tokenizer::{Digests, Encoder, Tokenizer, contents};

impl Tokenizer {
    /// Reads the tokenizer of a `tokenizer.json`. `begins` says whether prompts begin with `bos`; if it
    /// is `None`, the file decides.
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
        let Definition { special, changed } = Definition::mend(&mut json, bytes);
        bound_patterns(&json).map_err(wrong)?;
        let cutter = Box::new(Cutter::of_json(&json));
        contents::plain(&mut json);
        let contents = contents::contents_digest(&json, &special);
        let read = guarded(|| serde_json::from_value::<FastTokenizer>(json));
        let read = read.map_err(|panic| wrong(format!("its tokenizer cannot be made: {panic}")))?;
        let mut template = read.map_err(|error| wrong(error.to_string()))?;
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
        let encoder = Encoder::Fast { text: text_tokenizer, template, spelling, cutter };
        let files = match changed {
            false => Digest::of(text),
            true => Digest::of(&[text, READ_OTHERWISE].concat()),
        };
        let digests = Digests { files, contents };
        Ok(Self { encoder, special, bos, digests })
    }
}

/// Marks files whose token ids differ from those of the first stores of format 1.
const READ_OTHERWISE: &[u8] = b"\0without dropout, with added words";

/// Facts about the file beside the library's own fields.
struct Definition {
    special: Vec<String>,
    /// Whether earlier versions gave other token ids.
    changed: bool,
}

impl Definition {
    /// Makes tokens special that look so, and switches off the dropout of merges, which is for
    /// training.
    fn mend(json: &mut Value, bytes: bool) -> Self {
        let mut mended = Self { special: Vec::new(), changed: false };
        let added = json.get_mut("added_tokens").and_then(Value::as_array_mut);
        for token in added.into_iter().flatten().filter_map(Value::as_object_mut) {
            let content = token.get("content").and_then(Value::as_str).unwrap_or_default();
            let (content, special) =
                (content.to_owned(), token.get("special") == Some(&true.into()));
            if special || marks_turn(&content) {
                token.insert("special".to_owned(), true.into());
                mended.special.push(content);
                mended.changed |= !special && !bytes;
            } else {
                mended.changed |= bytes;
            }
        }
        let dropout = json.get_mut("model").and_then(|model| model.get_mut("dropout"));
        let dropout = dropout.map(Value::take).unwrap_or_default();
        mended.changed |= dropout.as_f64().is_some_and(|share| share != 0.0);
        mended
    }
}

/// Largest size of a regular expression in bytes, and largest product of all its counts of repetitions.
const PATTERN_BYTES_MAX: usize = 1 << 12;
const REPEATS_MAX: u64 = 1000;

/// Refuses regular expressions that take much memory to compile, for which an engine may end the
/// program.
fn bound_patterns(part: &Value) -> Result<(), String> {
    match part {
        Value::Object(fields) => {
            if let Some(Value::String(pattern)) = fields.get("Regex") {
                let counts = pattern.split('{').skip(1).filter_map(|after| {
                    let digits = after.split_once('}')?.0.split(',');
                    digits.filter_map(|digits| digits.parse::<u64>().ok()).max()
                });
                let repeats = counts.fold(1, |all: u64, count| all.saturating_mul(count.max(1)));
                if pattern.len() > PATTERN_BYTES_MAX || repeats > REPEATS_MAX {
                    return Err(format!(
                        "a regular expression of {} bytes that repeats a part {repeats} times is \
                         too large",
                        pattern.len()
                    ));
                }
            }
            fields.values().try_for_each(bound_patterns)
        }
        Value::Array(parts) => parts.iter().try_for_each(bound_patterns),
        _ => Ok(()),
    }
}

/// Whether a part of a tokenizer, or a part inside it, is of type `kind`.
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

/// Returns the token that the tokenizer puts before a text by itself.
fn first_token(tokenizer: &FastTokenizer) -> Option<String> {
    let encoding = guarded(|| tokenizer.encode_fast("", true)).ok()?.ok()?;
    encoding.get_tokens().first().cloned()
}
