use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use hyperrag_corpus::{Chunker, Row, Rows};
use hyperrag_kv::{Digest, Document, ShardId, Slot};
use hyperrag_store::{
    Dead, IndexedDocument, Manifest, ShardChunks, ShardRecord, Unit, rows_digest,
};

use crate::existing::Existing;
use crate::{BuildInput, BuildProgress, PipelineError};

/// Reads the corpus unit by unit and cuts it into chunks. Where it is added to a store, documents that
/// the store has as they are, are left out.
pub(crate) struct Units<'a> {
    rows: Rows,
    limit: u64,
    unit_rows: u64,
    chunker: &'a Chunker<'a>,
    progress: &'a BuildProgress,
    stop: &'a AtomicBool,
    existing: Option<Existing>,
    /// Rows of the input that were read.
    rows_read: u64,
    /// The row of the next document in the store.
    next_row: u64,
    next_shard: ShardId,
    /// Rows without any text, which have no chunks.
    pub(crate) empty_rows: u64,
    /// Documents that the store has as they are.
    pub(crate) unchanged: u64,
}

/// The rows of one unit.
pub(crate) struct RowsOfUnit {
    pub(crate) shard: ShardId,
    first_row: u64,
    documents: Vec<Document>,
    /// For each document its former version, where there is one.
    replaces: Vec<Option<(ShardId, u64)>>,
    /// Where the rows stand in the input, from 1.
    first: u64,
    last: u64,
}

impl<'a> Units<'a> {
    /// The units of an input that is, or was, the first: their numbers start with 0.
    pub(crate) fn new<M>(input: &BuildInput<'a, M>) -> Self {
        Self {
            rows: input.corpus.rows(),
            limit: input.limit.unwrap_or(u64::MAX),
            unit_rows: u64::from(input.fingerprint.unit_rows),
            chunker: input.chunker,
            progress: input.progress,
            stop: input.stop,
            existing: None,
            rows_read: 0,
            next_row: 0,
            next_shard: ShardId(0),
            empty_rows: 0,
            unchanged: 0,
        }
    }

    /// The units of an input that goes into a store after others.
    pub(crate) fn added<M>(
        input: &BuildInput<'a, M>,
        store: &Manifest,
        existing: Existing,
    ) -> Self {
        let (next_row, next_shard) = (store.first_row, store.first_shard);
        Self { existing: Some(existing), next_row, next_shard, ..Self::new(input) }
    }

    pub(crate) fn rows_read(&self) -> u64 {
        self.rows_read
    }

    /// The rows of the next unit; `None` at the end of the corpus.
    pub(crate) fn next_rows(&mut self) -> Result<Option<RowsOfUnit>, PipelineError> {
        let (mut documents, mut replaces, mut first) = (Vec::new(), Vec::new(), 0);
        while (documents.len() as u64) < self.unit_rows && self.rows_read < self.limit {
            if self.stop.load(Ordering::Relaxed) {
                return Err(PipelineError::Interrupted);
            }
            let Some(row) = self.rows.next() else { break };
            let Row { document, bytes, .. } = row?;
            self.rows_read += 1;
            BuildProgress::add(&self.progress.rows_read, 1);
            BuildProgress::add(&self.progress.bytes_read, bytes);
            let former = self.existing.as_ref().map(|existing| existing.former(&document));
            let former = former.transpose()?.flatten();
            if former.as_ref().is_some_and(|former| former.document == document) {
                self.unchanged += 1;
                BuildProgress::add(&self.progress.rows_done, 1);
                continue;
            }
            if documents.is_empty() {
                first = self.rows_read;
            }
            documents.push(document);
            replaces.push(former.map(|former| (former.location.shard, former.row)));
        }
        if documents.is_empty() {
            return Ok(None);
        }
        let (shard, first_row, last) = (self.next_shard, self.next_row, self.rows_read);
        self.next_shard.0 += 1;
        self.next_row += documents.len() as u64;
        Ok(Some(RowsOfUnit { shard, first_row, documents, replaces, first, last }))
    }

    /// Cuts the rows of a unit into chunks.
    pub(crate) fn chunks(&mut self, rows: RowsOfUnit) -> Result<Unit, PipelineError> {
        let (count, rows_digest) = (rows.len(), rows.digest());
        let mut contents = ShardChunks { chunks: Vec::new(), documents: Vec::new() };
        let mut replaced: BTreeMap<ShardId, Vec<u64>> = BTreeMap::new();
        let numbered = (rows.first_row..).zip(rows.documents).zip(rows.replaces);
        for ((row, document), former) in numbered {
            let chunks = self.chunker.chunks(&document)?;
            if chunks.is_empty() {
                self.empty_rows += 1;
                continue;
            }
            if let Some((shard, row)) = former {
                replaced.entry(shard).or_default().push(row);
            }
            let first_slot = Slot(contents.chunks.len() as u32);
            let indexed =
                IndexedDocument { row, document, first_slot, chunks: chunks.len() as u32 };
            contents.documents.push(indexed);
            contents.chunks.extend(chunks);
        }
        let dead = |(shard, mut rows): (ShardId, Vec<u64>)| {
            rows.sort_unstable();
            Dead { shard, rows }
        };
        let replaces = replaced.into_iter().map(dead).collect();
        Ok(Unit { shard: rows.shard, rows: count, rows_digest, contents, replaces })
    }
}

impl RowsOfUnit {
    pub(crate) fn len(&self) -> u64 {
        self.documents.len() as u64
    }

    /// Whether a sealed unit was made from these rows; else the first and the last row that differ.
    pub(crate) fn check(&self, sealed: &ShardRecord) -> Result<(), (u64, u64)> {
        if (sealed.rows, sealed.rows_digest) == (self.len(), self.digest()) {
            return Ok(());
        }
        Err((self.first, self.last.max(self.first + sealed.rows - 1)))
    }

    fn digest(&self) -> Digest {
        rows_digest(&self.documents)
    }
}
