//! A commit of an index, open for search.
//!
//! In: a folder, then queries as bags of words. Out: hits. It does not know how documents are added.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyperrag_core::DocId;
use tantivy::columnar::Column;
use tantivy::error::DataCorruption;
use tantivy::fieldnorm::FieldNormReader;
use tantivy::index::{InvertedIndexReader, SegmentReader};
use tantivy::query::Bm25Weight;
use tantivy::schema::IndexRecordOption;
use tantivy::store::StoreReader;
use tantivy::tokenizer::TextAnalyzer;
use tantivy::{DocSet, TERMINATED, TantivyDocument, TantivyError, Term};

use crate::open::{OpenCommit, guarded, open_commit};
use crate::rank::{Best, Candidate, Cursor, score_segment};
use crate::schema::{Fields, ROW};
use crate::snapshot::{Check, Snapshot};
use crate::{Hit, RetrievalError};

/// Number of blocks of stored text (16 KiB, or one document) that a segment keeps decompressed.
const STORE_CACHE_BLOCKS: usize = 16;

/// The documents of one commit, open for search. Later documents are not seen.
pub struct Index {
    dir: PathBuf,
    fields: Fields,
    analyzer: TextAnalyzer,
    segments: Vec<Segment>,
    snapshot: Snapshot,
}

struct Segment {
    reader: SegmentReader,
    ids: Arc<InvertedIndexReader>,
    words: Arc<InvertedIndexReader>,
    norms: FieldNormReader,
    rows: Column<u64>,
    store: StoreReader,
}

/// A distinct word of a query.
struct QueryWord {
    term: Term,
    repeats: f32,
    weight: Bm25Weight,
}

impl Index {
    /// Opens the last commit. Bytes that tantivy keeps in memory are read and checked (dictionaries,
    /// lengths and rows, and short files). Postings and stored texts are checked page by page whenever
    /// they are read. The folder may be read-only, and a writer may be at work.
    ///
    /// # Errors
    /// [`RetrievalError::Missing`] if nothing was committed, [`RetrievalError::Damaged`] if bytes have
    /// changed, [`RetrievalError::Unsupported`] for another version's index, and
    /// [`RetrievalError::Io`].
    pub fn open(dir: &Path) -> Result<Self, RetrievalError> {
        Self::of(dir, open_commit(dir, Check::Opening)?)
    }

    /// Opens the last commit and checks every byte of it, which reads the whole index once.
    ///
    /// # Errors
    /// The errors of [`Index::open`].
    pub fn open_verified(dir: &Path) -> Result<Self, RetrievalError> {
        Self::of(dir, open_commit(dir, Check::All)?)
    }

    fn of(dir: &Path, opened: OpenCommit) -> Result<Self, RetrievalError> {
        let OpenCommit { fields, segments, snapshot, .. } = opened;
        let open = |reader| Segment::open(&fields, reader);
        let segments = guarded(dir, snapshot.failures(), || {
            let segments: Result<_, _> = segments.into_iter().map(open).collect();
            segments.map_err(|error| RetrievalError::from_tantivy(dir, error))
        })?;
        let analyzer = fields.analyzer.text_analyzer();
        Ok(Self { dir: dir.to_owned(), fields, analyzer, segments, snapshot })
    }

    /// Number of documents in the index.
    #[must_use]
    pub fn documents(&self) -> u64 {
        self.segments.iter().map(|segment| u64::from(segment.reader.max_doc())).sum()
    }

    /// Number of documents whose rows are below `end`: those of a store that the index may be ahead of.
    #[must_use]
    pub fn documents_before(&self, end: u64) -> u64 {
        let before = |segment: &Segment| {
            let (documents, rows) = (0..segment.reader.max_doc(), &segment.rows);
            if rows.get_cardinality().is_full() && rows.max_value() < end {
                return u64::from(documents.end);
            }
            documents.filter(|document| segment.row(*document) < end).count() as u64
        };
        self.segments.iter().map(before).sum()
    }

    /// Returns the `depth` documents of the highest BM25 score, best first, equal scores by row.
    ///
    /// The query is a bag of words: case, stop words and punctuation do not matter, nothing in it is an
    /// operator, and a repeated word counts repeatedly. Documents without any of its words are not
    /// returned, nor are those whose row is not `live`; the latter still count for the frequency of
    /// words.
    ///
    /// # Errors
    /// [`RetrievalError::Io`] or [`RetrievalError::Damaged`] if the files fail under the reader.
    pub fn search(
        &self,
        query: &str,
        depth: usize,
        live: impl Fn(u64) -> bool,
    ) -> Result<Vec<Hit>, RetrievalError> {
        self.guarded(|| {
            let best = self.rank(query, depth, live).map_err(|error| self.error(error))?;
            best.into_iter().map(|candidate| self.hit(candidate)).collect()
        })
    }

    /// Returns the document of this id whose row is `live`, with score 0. If there are several, the one
    /// with the smallest row is returned.
    ///
    /// # Errors
    /// [`RetrievalError::Io`] or [`RetrievalError::Damaged`] if the files fail under the reader.
    pub fn get(
        &self,
        id: &DocId,
        live: impl Fn(u64) -> bool,
    ) -> Result<Option<Hit>, RetrievalError> {
        self.guarded(|| self.find(id, live))
    }

    fn find(&self, id: &DocId, live: impl Fn(u64) -> bool) -> Result<Option<Hit>, RetrievalError> {
        let term = Term::from_field_text(self.fields.id, id.as_str());
        let mut best = Best::new(1);
        for (number, segment) in self.segments.iter().enumerate() {
            let postings = segment
                .ids
                .read_postings(&term, IndexRecordOption::Basic)
                .map_err(|error| self.error(error.into()))?;
            let Some(mut postings) = postings else { continue };
            while postings.doc() != TERMINATED {
                let (doc, score) = (postings.doc(), 0.0);
                let row = segment.row(doc);
                if live(row) {
                    best.offer(Candidate { score, row, segment: number, doc });
                }
                postings.advance();
            }
        }
        best.into_ranking().pop().map(|candidate| self.hit(candidate)).transpose()
    }

    /// Returns at most `count` documents whose rows are `live`, evenly spaced over the rows and in
    /// their order, with score 0. The same corpus gives the same documents.
    ///
    /// # Errors
    /// [`RetrievalError::Io`] or [`RetrievalError::Damaged`] if the files fail under the reader.
    pub fn sample(
        &self,
        count: usize,
        live: impl Fn(u64) -> bool,
    ) -> Result<Vec<Hit>, RetrievalError> {
        self.guarded(|| self.spaced(count, live))
    }

    fn spaced(&self, count: usize, live: impl Fn(u64) -> bool) -> Result<Vec<Hit>, RetrievalError> {
        let last_row = self.segments.iter().map(|segment| segment.rows.max_value()).max();
        let (Some(last_row), 1..) = (last_row, count) else { return Ok(Vec::new()) };
        // First document of each of `count` equal ranges of rows.
        let mut firsts: HashMap<u128, Candidate> = HashMap::new();
        for (number, segment) in self.segments.iter().enumerate() {
            for doc in 0..segment.reader.max_doc() {
                let row = segment.row(doc);
                if !live(row) {
                    continue;
                }
                let stretch = u128::from(row) * count as u128 / (u128::from(last_row) + 1);
                let candidate = Candidate { score: 0.0, row, segment: number, doc };
                let first = firsts.entry(stretch).or_insert(candidate);
                *first = (*first).max(candidate);
            }
        }
        let mut sample: Vec<Candidate> = firsts.into_values().collect();
        sample.sort_unstable_by(|a, b| b.cmp(a));
        sample.into_iter().map(|candidate| self.hit(candidate)).collect()
    }

    fn rank(
        &self,
        query: &str,
        depth: usize,
        live: impl Fn(u64) -> bool,
    ) -> Result<Vec<Candidate>, TantivyError> {
        let words = self.query_words(query)?;
        let mut best = Best::new(depth);
        for (number, segment) in self.segments.iter().enumerate() {
            let mut cursors = segment.cursors(&words)?;
            score_segment(&mut cursors, &segment.norms, |doc, score| {
                if best.may_admit(score) {
                    let row = segment.row(doc);
                    if live(row) {
                        best.offer(Candidate { score, row, segment: number, doc });
                    }
                }
            });
        }
        Ok(best.into_ranking())
    }

    /// Returns the query's distinct words that the index has, in the order of their first occurrence.
    fn query_words(&self, query: &str) -> Result<Vec<QueryWord>, TantivyError> {
        let mut repeats: Vec<(String, u32)> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        let mut analyzer = self.analyzer.clone();
        let mut stream = analyzer.token_stream(query);
        while stream.advance() {
            let word = &stream.token().text;
            if let Some(&place) = places.get(word) {
                repeats[place].1 += 1;
            } else {
                places.insert(word.clone(), repeats.len());
                repeats.push((word.clone(), 1));
            }
        }
        let documents = self.documents();
        let tokens: u64 = self.segments.iter().map(|s| s.words.total_num_tokens()).sum();
        let tokens_mean = tokens as f32 / documents as f32;
        let mut words = Vec::with_capacity(repeats.len());
        for (word, repeats) in repeats {
            let term = Term::from_field_text(self.fields.body, &word);
            let mut having = 0;
            for segment in &self.segments {
                having += u64::from(segment.words.doc_freq(&term)?);
            }
            if having > 0 {
                let weight =
                    Bm25Weight::for_one_term_without_explain(having, documents, tokens_mean);
                words.push(QueryWord { term, repeats: repeats as f32, weight });
            }
        }
        Ok(words)
    }

    fn hit(&self, candidate: Candidate) -> Result<Hit, RetrievalError> {
        let stored: TantivyDocument = self.segments[candidate.segment]
            .store
            .get(candidate.doc)
            .map_err(|error| self.error(error))?;
        let (document, location) = self.fields.decode(&stored).ok_or_else(|| {
            let what = format!("the stored document of row {} is malformed", candidate.row);
            RetrievalError::damaged(&self.dir, None, what)
        })?;
        Ok(Hit { document, row: candidate.row, score: candidate.score, location })
    }

    fn guarded<T>(
        &self,
        action: impl FnOnce() -> Result<T, RetrievalError>,
    ) -> Result<T, RetrievalError> {
        guarded(&self.dir, self.snapshot.failures(), action)
    }

    fn error(&self, error: TantivyError) -> RetrievalError {
        RetrievalError::from_tantivy(&self.dir, error)
    }
}

impl Segment {
    fn open(fields: &Fields, reader: SegmentReader) -> Result<Self, TantivyError> {
        let rows = reader.fast_fields().u64(ROW)?;
        if rows.num_docs() != reader.max_doc() {
            let what = format!("{} rows for {} documents", rows.num_docs(), reader.max_doc());
            return Err(DataCorruption::comment_only(what).into());
        }
        Ok(Self {
            ids: reader.inverted_index(fields.id)?,
            words: reader.inverted_index(fields.body)?,
            norms: reader.get_fieldnorms_reader(fields.body)?,
            rows,
            store: reader.get_store_reader(STORE_CACHE_BLOCKS)?,
            reader,
        })
    }

    /// Returns the row of a document; every document has one.
    fn row(&self, doc: tantivy::DocId) -> u64 {
        self.rows.first(doc).unwrap_or(u64::MAX)
    }

    fn cursors<'a>(&self, words: &'a [QueryWord]) -> Result<Vec<Cursor<'a>>, TantivyError> {
        let mut cursors = Vec::with_capacity(words.len());
        for QueryWord { term, repeats, weight } in words {
            if let Some(postings) = self.words.read_postings(term, IndexRecordOption::WithFreqs)? {
                cursors.push(Cursor { postings, weight, repeats: *repeats });
            }
        }
        Ok(cursors)
    }
}
