//! The formats of a corpus: the name of a file comes in, its format goes out. Opens no file.

use std::path::Path;

/// Format of a file by its extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Parquet,
    Jsonl,
    Tsv,
}

impl Format {
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "parquet" | "pq" => Some(Self::Parquet),
            "jsonl" | "ndjson" | "json" => Some(Self::Jsonl),
            "tsv" => Some(Self::Tsv),
            _ => None,
        }
    }
}
