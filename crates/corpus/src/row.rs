//! A row of the corpus, with the checks that every format makes. Reads nothing.

use hyperrag_core::{DocId, Document};

use crate::error::CorpusError;
use crate::limits::Limits;
use crate::place::Place;

/// A document and the place that it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The document.
    pub document: Document,
    /// File and row.
    pub place: Place,
    /// Bytes of the file that this row stands for, for progress: the line and the blank lines before it, or
    /// an even share of a Parquet file.
    pub bytes: u64,
}

/// Checks the id that stands at `place`.
pub(crate) fn document_id(id: &str, place: &Place) -> Result<DocId, CorpusError> {
    DocId::new(id).map_err(|reason| CorpusError::Id { place: place.clone(), reason })
}

/// Refuses a document at `place` that has more bytes than `limits` allow.
pub(crate) fn check_length(
    title: &str,
    text: &str,
    place: &Place,
    limits: &Limits,
) -> Result<(), CorpusError> {
    let (bytes, max) = (title.len() as u64 + text.len() as u64, limits.document_bytes);
    match bytes <= max {
        true => Ok(()),
        false => Err(CorpusError::DocumentTooLong { place: place.clone(), bytes, max }),
    }
}
