//! One segment of an index, open for search.
//!
//! In: terms, and numbers of documents. Out: postings, words, rows, ids, locations and stored texts. It does
//! not know which documents are the best.

use std::sync::Arc;

use hyperrag_core::{DocId, ShardId, Slot};
use tantivy::columnar::{Column, StrColumn};
use tantivy::error::DataCorruption;
use tantivy::fieldnorm::FieldNormReader;
use tantivy::index::{InvertedIndexReader, SegmentReader};
use tantivy::postings::SegmentPostings;
use tantivy::query::{Bm25Weight, FuzzyTermQuery};
use tantivy::schema::IndexRecordOption;
use tantivy::store::StoreReader;
use tantivy::{TantivyDocument, TantivyError, Term};

use crate::hit::Location;
use crate::rank::Cursor;
use crate::schema::{CHUNKS, Fields, ID, Layout, ROW, SHARD, SLOT};

/// Number of blocks of stored text (16 KiB, or one document) that a segment keeps decompressed.
const STORE_CACHE_BLOCKS: usize = 16;

/// A distinct word of a query.
pub(crate) struct QueryWord {
    pub(crate) term: Term,
    pub(crate) repeats: f32,
    pub(crate) weight: Bm25Weight,
}

/// A segment whose files are open.
pub(crate) struct Segment {
    reader: SegmentReader,
    ids: Arc<InvertedIndexReader>,
    words: Arc<InvertedIndexReader>,
    norms: FieldNormReader,
    rows: Column<u64>,
    /// Columns of ids and locations, in [`Layout::Columns`].
    columns: Option<LocationColumns>,
    store: StoreReader,
}

struct LocationColumns {
    ids: StrColumn,
    shards: Column<u64>,
    slots: Column<u64>,
    chunks: Column<u64>,
}

impl Segment {
    pub(crate) fn open(fields: &Fields, reader: SegmentReader) -> Result<Self, TantivyError> {
        let columns = match fields.layout {
            Layout::Stored => None,
            Layout::Columns => Some(LocationColumns::open(&reader)?),
        };
        Ok(Self {
            ids: reader.inverted_index(fields.id)?,
            words: reader.inverted_index(fields.body)?,
            norms: reader.get_fieldnorms_reader(fields.body)?,
            rows: column(&reader, ROW)?,
            columns,
            store: reader.get_store_reader(STORE_CACHE_BLOCKS)?,
            reader,
        })
    }

    /// Number of documents.
    pub(crate) fn documents(&self) -> u32 {
        self.reader.max_doc()
    }

    /// Number of words in all documents.
    pub(crate) fn tokens(&self) -> u64 {
        self.words.total_num_tokens()
    }

    /// Number of documents that have a word.
    pub(crate) fn documents_with(&self, word: &Term) -> Result<u32, TantivyError> {
        Ok(self.words.doc_freq(word)?)
    }

    /// Calls `found` for each word that the automaton of `fuzzy` takes, with its number of documents.
    pub(crate) fn words_like(
        &self,
        fuzzy: &FuzzyTermQuery,
        found: &mut dyn FnMut(&str, u64),
    ) -> Result<(), TantivyError> {
        let automaton = fuzzy.automaton()?;
        let mut words = self.words.terms().search(&automaton).into_stream()?;
        while let Some((word, info)) = words.next() {
            tell(word, info.doc_freq, found);
        }
        Ok(())
    }

    /// Calls `found` for each word that begins with these letters, with its number of documents.
    pub(crate) fn words_from(
        &self,
        letters: &str,
        found: &mut dyn FnMut(&str, u64),
    ) -> Result<(), TantivyError> {
        let mut words = self.words.terms().range().ge(letters).into_stream()?;
        while let Some((word, info)) = words.next() {
            if !word.starts_with(letters.as_bytes()) {
                break;
            }
            tell(word, info.doc_freq, found);
        }
        Ok(())
    }

    pub(crate) fn norms(&self) -> &FieldNormReader {
        &self.norms
    }

    /// Returns the row of a document; every document has one.
    pub(crate) fn row(&self, doc: tantivy::DocId) -> u64 {
        self.rows.first(doc).unwrap_or(u64::MAX)
    }

    /// Returns the largest row, or more.
    pub(crate) fn row_max(&self) -> u64 {
        match self.rows.get_cardinality().is_full() {
            true => self.rows.max_value(),
            false => u64::MAX,
        }
    }

    /// Returns the postings of an id.
    pub(crate) fn of_id(&self, id: &Term) -> Result<Option<SegmentPostings>, TantivyError> {
        Ok(self.ids.read_postings(id, IndexRecordOption::Basic)?)
    }

    /// Returns the postings of the query's words that the segment has.
    pub(crate) fn cursors<'a>(
        &self,
        words: &'a [QueryWord],
    ) -> Result<Vec<Cursor<'a>>, TantivyError> {
        let mut cursors = Vec::with_capacity(words.len());
        for QueryWord { term, repeats, weight } in words {
            if let Some(postings) = self.words.read_postings(term, IndexRecordOption::WithFreqs)? {
                cursors.push(Cursor { postings, weight, repeats: *repeats });
            }
        }
        Ok(cursors)
    }

    /// Returns the id and the location of a document; `None` for values that no writer wrote.
    pub(crate) fn place(
        &self,
        fields: &Fields,
        doc: tantivy::DocId,
    ) -> Result<Option<(DocId, Location)>, TantivyError> {
        match &self.columns {
            Some(columns) => columns.place(doc),
            None => Ok(fields.decode_location(&self.stored(doc)?)),
        }
    }

    /// Reads the stored document.
    pub(crate) fn stored(&self, doc: tantivy::DocId) -> Result<TantivyDocument, TantivyError> {
        self.store.get(doc)
    }
}

impl LocationColumns {
    fn open(reader: &SegmentReader) -> Result<Self, TantivyError> {
        let ids = reader.fast_fields().str(ID)?;
        let ids = ids.ok_or_else(|| DataCorruption::comment_only("it has no column of ids"))?;
        let (shards, slots) = (column(reader, SHARD)?, column(reader, SLOT)?);
        Ok(Self { ids, shards, slots, chunks: column(reader, CHUNKS)? })
    }

    fn place(&self, doc: tantivy::DocId) -> Result<Option<(DocId, Location)>, TantivyError> {
        let number = |column: &Column<u64>| u32::try_from(column.first(doc)?).ok();
        let location = || {
            Some(Location {
                shard: ShardId(number(&self.shards)?),
                first_slot: Slot(number(&self.slots)?),
                chunks: number(&self.chunks)?,
            })
        };
        let mut id = String::new();
        let known = match self.ids.ords().first(doc) {
            Some(ordinal) => self.ids.ord_to_str(ordinal, &mut id)?,
            None => false,
        };
        Ok(DocId::stored(&id).ok().filter(|_| known).zip(location()))
    }
}

fn tell(word: &[u8], documents: u32, found: &mut dyn FnMut(&str, u64)) {
    if let Ok(word) = std::str::from_utf8(word) {
        found(word, documents.into());
    }
}

/// Opens a column, which must have a value for each document.
fn column(reader: &SegmentReader, name: &str) -> Result<Column<u64>, TantivyError> {
    let column = reader.fast_fields().u64(name)?;
    match (column.num_docs(), reader.max_doc()) {
        (found, documents) if found == documents => Ok(column),
        (found, documents) => {
            let what = format!("{found} values of {name} for {documents} documents");
            Err(DataCorruption::comment_only(what).into())
        }
    }
}
