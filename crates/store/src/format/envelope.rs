//! The envelope of a store's JSON files: `{"checksum": digest, NAME: body}`. A body comes in, checksummed bytes
//! go out, and back. It knows no body.

use std::collections::HashMap;

use hyperrag_core::Digest;
use serde::de::Error;
use serde_json::value::RawValue;

/// A body with the checksum that stands before it.
pub(crate) struct Envelope<'a> {
    pub(crate) checksum: Digest,
    body: &'a str,
}

impl<'a> Envelope<'a> {
    /// Parses the envelope of a body with this name. The checksum is not compared yet.
    pub(crate) fn parse(name: &'static str, text: &'a [u8]) -> serde_json::Result<Self> {
        let fields: HashMap<String, &'a RawValue> = serde_json::from_slice(text)?;
        let field = |name| {
            let field = fields.get(name).ok_or_else(|| serde_json::Error::missing_field(name));
            field.map(|field| field.get())
        };
        Ok(Self { checksum: serde_json::from_str(field("checksum")?)?, body: field(name)? })
    }

    /// Returns the body if its bytes have the checksum.
    pub(crate) fn checked(&self) -> Result<&'a str, String> {
        match Digest::of(self.body.as_bytes()) == self.checksum {
            true => Ok(self.body),
            false => Err("its checksum does not fit".to_owned()),
        }
    }
}

/// Returns a body, which is JSON, in its envelope.
pub(crate) fn encode(name: &str, body: &str) -> Vec<u8> {
    let checksum = Digest::of(body.as_bytes());
    format!("{{\"checksum\":\"{checksum}\",\"{name}\":{body}}}\n").into_bytes()
}
