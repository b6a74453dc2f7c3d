use std::sync::atomic::{AtomicBool, Ordering};

use hyperrag_corpus::{Chunker, Row, Rows};
use hyperrag_kv::{Digest, Document, ShardId, Slot};
use hyperrag_store::{IndexedDocument, ShardChunks, ShardRecord, Unit};

use crate::{BuildInput, BuildProgress, PipelineError};

/// Reads the corpus unit by unit and cuts it into chunks.
pub(crate) struct Units<'a> {
    rows: Rows,
    limit: u64,
    unit_rows: u64,
    chunker: &'a Chunker<'a>,
    progress: &'a BuildProgress,
    stop: &'a AtomicBool,
    rows_read: u64,
    next: u32,
    /// Rows without any text, which have no chunks.
    pub(crate) empty_rows: u64,
}

/// The rows of one unit.
pub(crate) struct RowsOfUnit {
    pub(crate) shard: ShardId,
    first_row: u64,
    documents: Vec<Document>,
    digest: Digest,
}

impl<'a> Units<'a> {
    pub(crate) fn new<M>(input: &BuildInput<'a, M>) -> Self {
        Self {
            rows: input.corpus.rows(),
            limit: input.limit.unwrap_or(u64::MAX),
            unit_rows: u64::from(input.fingerprint.unit_rows),
            chunker: input.chunker,
            progress: input.progress,
            stop: input.stop,
            rows_read: 0,
            next: 0,
            empty_rows: 0,
        }
    }

    pub(crate) fn rows_read(&self) -> u64 {
        self.rows_read
    }

    /// The rows of the next unit; `None` at the end of the corpus.
    pub(crate) fn next_rows(&mut self) -> Result<Option<RowsOfUnit>, PipelineError> {
        let first_row = self.rows_read;
        let mut documents = Vec::new();
        let mut hasher = blake3::Hasher::new();
        while (documents.len() as u64) < self.unit_rows && self.rows_read < self.limit {
            if self.stop.load(Ordering::Relaxed) {
                return Err(PipelineError::Interrupted);
            }
            let Some(row) = self.rows.next() else { break };
            let Row { document, bytes, .. } = row?;
            for part in [document.id.as_str(), &document.title, &document.text] {
                hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
            }
            self.rows_read += 1;
            BuildProgress::add(&self.progress.rows_read, 1);
            BuildProgress::add(&self.progress.bytes_read, bytes);
            documents.push(document);
        }
        if documents.is_empty() {
            return Ok(None);
        }
        let (shard, digest) = (ShardId(self.next), Digest(*hasher.finalize().as_bytes()));
        self.next += 1;
        Ok(Some(RowsOfUnit { shard, first_row, documents, digest }))
    }

    /// Cuts the rows of a unit into chunks.
    pub(crate) fn chunks(&mut self, rows: RowsOfUnit) -> Result<Unit, PipelineError> {
        let count = rows.documents.len() as u64;
        let mut contents = ShardChunks { chunks: Vec::new(), documents: Vec::new() };
        for (row, document) in (rows.first_row..).zip(rows.documents) {
            let chunks = self.chunker.chunks(&document)?;
            if chunks.is_empty() {
                self.empty_rows += 1;
                continue;
            }
            let first_slot = Slot(contents.chunks.len() as u32);
            let indexed =
                IndexedDocument { row, document, first_slot, chunks: chunks.len() as u32 };
            contents.documents.push(indexed);
            contents.chunks.extend(chunks);
        }
        Ok(Unit { shard: rows.shard, rows: count, rows_digest: rows.digest, contents })
    }
}

impl RowsOfUnit {
    pub(crate) fn len(&self) -> u64 {
        self.documents.len() as u64
    }

    /// Whether a sealed unit was made from these rows.
    pub(crate) fn check(&self, sealed: &ShardRecord) -> Result<(), PipelineError> {
        if (sealed.rows, sealed.rows_digest) == (self.len(), self.digest) {
            return Ok(());
        }
        let (first, last) = (self.first_row + 1, self.first_row + self.len().max(sealed.rows));
        Err(PipelineError::Changed { first, last })
    }
}
