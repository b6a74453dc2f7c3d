//! Limits on the memory of reading, with the smaller limits derived from them.

/// Limits on the bytes that reading holds at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest size of a document's title and text together, in bytes.
    pub document_bytes: u64,
    /// Largest size of the source of a document, in bytes: a line with its values, or the pages and rows of a
    /// Parquet file that are decoded together.
    pub reader_bytes: u64,
}

impl Limits {
    /// Largest length of a line without its end, in bytes. The values of a line take as much again, as do the
    /// buffers that grow to them.
    pub(crate) fn line_bytes(&self) -> usize {
        usize::try_from(self.reader_bytes / 4).unwrap_or(usize::MAX)
    }

    /// Largest window of a zstd frame, as a power of two: at most half of the reader's bytes.
    pub(crate) fn window_log(&self) -> u32 {
        (self.reader_bytes / 2).checked_ilog2().unwrap_or(0).clamp(10, 31)
    }

    /// Largest size of a Parquet file's metadata, in bytes. Decoded, they take several times as much.
    pub(crate) fn metadata_bytes(&self) -> u64 {
        self.reader_bytes / 16
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { document_bytes: 16 << 20, reader_bytes: 256 << 20 }
    }
}
