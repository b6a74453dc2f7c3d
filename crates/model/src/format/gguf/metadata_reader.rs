//! Metadata of a GGUF by key and type. It does not know what the keys mean.

use crate::error::LoadError;
use crate::format::gguf::header::{Metadata, MetadataValue};

/// Looks up metadata by key. Errors name the key that is missing or out of range.
pub(crate) struct MetadataReader<'a>(pub(crate) &'a Metadata);

impl<'a> MetadataReader<'a> {
    pub(crate) fn get(&self, key: &str) -> Result<&'a MetadataValue, LoadError> {
        self.0.get(key).ok_or_else(|| LoadError::Metadata {
            key: key.to_owned(),
            what: "is missing".to_owned(),
        })
    }

    pub(crate) fn wrong(key: &str, what: impl std::fmt::Display) -> LoadError {
        LoadError::Metadata { key: key.to_owned(), what: what.to_string() }
    }

    pub(crate) fn size(&self, key: &str, max: usize) -> Result<usize, LoadError> {
        let what = "is not a positive whole number";
        let size = self.get(key)?.size().ok_or_else(|| Self::wrong(key, what))?;
        match usize::try_from(size) {
            Ok(size) if (1..=max).contains(&size) => Ok(size),
            _ => Err(Self::wrong(key, format_args!("is {size}, outside 1 to {max}"))),
        }
    }

    /// Returns a token id, if the key is there.
    pub(crate) fn token(&self, key: &str) -> Result<Option<u32>, LoadError> {
        let Some(value) = self.0.get(key) else { return Ok(None) };
        let token = value.size().and_then(|token| u32::try_from(token).ok());
        token.map(Some).ok_or_else(|| Self::wrong(key, "is not a token id"))
    }

    pub(crate) fn float(&self, key: &str) -> Result<f32, LoadError> {
        self.get(key)?.float().ok_or_else(|| Self::wrong(key, "is not an f32"))
    }

    pub(crate) fn text(&self, key: &str) -> Result<String, LoadError> {
        let text = self.get(key)?.text().ok_or_else(|| Self::wrong(key, "is not text"))?;
        Ok(text.to_owned())
    }

    pub(crate) fn array(&self, key: &str) -> Result<&'a [MetadataValue], LoadError> {
        self.get(key)?.array().ok_or_else(|| Self::wrong(key, "is not an array"))
    }

    pub(crate) fn texts(&self, key: &str) -> Result<Vec<String>, LoadError> {
        let texts = self.array(key)?.iter().map(|value| value.text().map(str::to_owned));
        let what = "holds a value that is not text";
        texts.collect::<Option<_>>().ok_or_else(|| Self::wrong(key, what))
    }
}
