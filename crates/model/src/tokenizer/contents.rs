//! The digest of the parts of a `tokenizer.json` that decide token ids. Spelling of the file and parts
//! with other uses do not change it.

use hyperrag_core::Digest;
use serde_json::Value;

/// Parts that decide token ids.
const PARTS: [&str; 4] = ["added_tokens", "normalizer", "pre_tokenizer", "model"];
/// Switches of BPE that later versions of the library write, and that are off if missing.
const OFF: [&str; 3] = ["fuse_unk", "byte_fallback", "ignore_merges"];

/// Hashes a tokenizer that is [`plain`], and the tokens that were found to be special.
pub(super) fn contents_digest(json: &Value, special: &[String]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hash(&mut hasher, &special.into(), None);
    for part in PARTS {
        hash(&mut hasher, &part.into(), None);
        // Offsets of words in a text do not matter.
        let left_out = (part == "pre_tokenizer").then_some("trim_offsets");
        hash(&mut hasher, &json[part], left_out);
    }
    Digest(*hasher.finalize().as_bytes())
}

/// Brings the spellings of different versions of the library to one.
pub(super) fn plain(json: &mut Value) {
    let Some(model) = json.get_mut("model").and_then(Value::as_object_mut) else { return };
    model.retain(|key, value| !OFF.contains(&key.as_str()) || *value != Value::Bool(false));
    if let Some(merges) = model.get_mut("merges").and_then(Value::as_array_mut) {
        merges.retain(|merge| !merge.as_str().is_some_and(|merge| merge.starts_with("#version")));
        for merge in merges {
            let pair = merge.as_str().and_then(|merge| merge.split_once(' '));
            if let Some((left, right)) = pair.filter(|(_, right)| !right.contains(' ')) {
                *merge = vec![left, right].into();
            }
        }
    }
}

/// Hashes a value so that no two have the same bytes: fields by name, without those that are null,
/// numbers as f64.
fn hash(hasher: &mut blake3::Hasher, value: &Value, left_out: Option<&str>) {
    match value {
        Value::Null => sized(hasher, b"n", 0),
        Value::Bool(flag) => sized(hasher, b"b", usize::from(*flag)),
        Value::Number(number) => {
            let number = number.as_f64().unwrap_or(f64::NAN);
            hasher.update(b"#").update(&number.to_le_bytes());
        }
        Value::String(text) => {
            sized(hasher, b"s", text.len());
            hasher.update(text.as_bytes());
        }
        Value::Array(values) => {
            sized(hasher, b"a", values.len());
            values.iter().for_each(|value| hash(hasher, value, left_out));
        }
        Value::Object(fields) => {
            let counts = |(key, value): &(&String, &Value)| {
                !value.is_null() && left_out != Some(key.as_str())
            };
            let mut fields: Vec<_> = fields.iter().filter(counts).collect();
            fields.sort_unstable_by_key(|(key, _)| *key);
            sized(hasher, b"o", fields.len());
            for (key, value) in fields {
                sized(hasher, b"s", key.len());
                hasher.update(key.as_bytes());
                hash(hasher, value, left_out);
            }
        }
    }
}

fn sized(hasher: &mut blake3::Hasher, kind: &[u8; 1], length: usize) {
    hasher.update(kind).update(&(length as u64).to_le_bytes());
}
