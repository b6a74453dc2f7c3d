//! Bounds on what reading may hold in memory.

/// Bytes that reading may hold at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a document's title and text together, at most.
    pub document_bytes: u64,
    /// Bytes of what a document is read from: a line with its values, or the pages and rows of a
    /// Parquet file that are decoded together.
    pub reader_bytes: u64,
}

impl Limits {
    /// The longest line of a text file that is read, its line end aside. Its values take as much
    /// again, and the buffers that grow to them.
    pub(crate) fn line_bytes(&self) -> usize {
        usize::try_from(self.reader_bytes / 4).unwrap_or(usize::MAX)
    }

    /// Bytes of a Parquet file's metadata: decoded, they take several times as much.
    pub(crate) fn metadata_bytes(&self) -> u64 {
        self.reader_bytes / 16
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { document_bytes: 16 << 20, reader_bytes: 256 << 20 }
    }
}
