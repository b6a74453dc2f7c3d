//! Reads any bytes as a corpus; `make fuzz` uses it too.

use std::fs;

use hyperrag_corpus::{Columns, Corpus};

/// Whether `bytes`, as a file with this extension, can be read to the end as a corpus.
#[must_use]
pub(crate) fn corpus(extension: &str, bytes: &[u8]) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(format!("c.{extension}"));
    fs::write(&path, bytes).unwrap();
    let Ok(corpus) = Corpus::open(&[path.to_str().unwrap().to_owned()], Columns::default()) else {
        return false;
    };
    for row in corpus.rows() {
        let Ok(row) = row else { return false };
        assert!(!row.document.id.as_str().is_empty());
    }
    true
}
