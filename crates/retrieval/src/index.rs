//! A commit of an index, open for search.
//!
//! In: a folder, then queries as bags of words. Out: hits, and the documents of hits. It does not know how documents are added.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use hyperrag_core::{DocId, Document};
use tantivy::query::{Bm25Weight, FuzzyTermQuery};
use tantivy::tokenizer::TextAnalyzer;
use tantivy::{DocSet, TERMINATED, TantivyError, Term};

use crate::error::RetrievalError;
use crate::hit::{Hit, Retrieved};
use crate::near::{Dictionary, NearWords, Way};
use crate::open::{OpenCommit, guarded, open_commit};
use crate::rank::{Best, Match, score_segment};
use crate::schema::Fields;
use crate::segment::{QueryWord, Segment};
use crate::snapshot::{Check, Snapshot};
use crate::word_counts::WordCounts;

/// The documents of one commit, open for search. Later documents are not seen.
pub struct Index {
    dir: PathBuf,
    fields: Fields,
    analyzer: TextAnalyzer,
    segments: Vec<Segment>,
    snapshot: Snapshot,
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

    pub(crate) fn of(dir: &Path, opened: OpenCommit) -> Result<Self, RetrievalError> {
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
        self.segments.iter().map(|segment| u64::from(segment.documents())).sum()
    }

    /// Number of documents whose rows are below `end`: those of a store that the index may be ahead of.
    #[must_use]
    pub fn documents_before(&self, end: u64) -> u64 {
        let before = |segment: &Segment| {
            if segment.row_max() < end {
                return u64::from(segment.documents());
            }
            (0..segment.documents()).filter(|doc| segment.row(*doc) < end).count() as u64
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
        self.guarded(|| self.ranked(self.query_words(query), depth, &live))
    }

    /// Counts the documents, and those that have each word of the query.
    ///
    /// # Errors
    /// [`RetrievalError::Io`] or [`RetrievalError::Damaged`] if the files fail under the reader.
    pub fn word_counts(&self, query: &str) -> Result<WordCounts, RetrievalError> {
        self.guarded(|| self.counts(&self.query_words(query)).map_err(|error| self.error(error)))
    }

    /// Returns what [`Index::search`] finds, with words weighed by `counts`: those of this query in several
    /// indexes, this one among them. Scores are then those of one index over all their documents.
    ///
    /// # Errors
    /// [`RetrievalError::Io`] or [`RetrievalError::Damaged`] if the files fail under the reader.
    pub fn search_among(
        &self,
        query: &str,
        counts: &WordCounts,
        depth: usize,
        live: impl Fn(u64) -> bool,
    ) -> Result<Vec<Hit>, RetrievalError> {
        self.guarded(|| {
            let best = self.rank(self.query_words(query), counts, depth, &live);
            let best = best.map_err(|error| self.error(error))?;
            best.into_iter().map(|found| self.hit(found)).collect()
        })
    }

    /// Returns what [`Index::search`] finds. If that is nothing, returns documents with near words: parts of
    /// compounds, words that differ in a letter or two, words of the same beginning, and at last stop words.
    /// The first of these ways that finds a document counts.
    ///
    /// # Errors
    /// [`RetrievalError::Io`] or [`RetrievalError::Damaged`] if the files fail under the reader.
    pub fn retrieve(
        &self,
        query: &str,
        depth: usize,
        live: impl Fn(u64) -> bool,
    ) -> Result<Retrieved, RetrievalError> {
        let hits = self.search(query, depth, &live)?;
        if depth == 0 || !hits.is_empty() {
            return Ok(Retrieved { hits, near_words: Vec::new() });
        }
        self.guarded(|| {
            let mut words = NearWords::new(self.fields.analyzer, query);
            for way in Way::ALL {
                let near = words.by(way, self).map_err(|error| self.error(error))?;
                let terms = near.iter().map(|word| (word.term.clone(), 1)).collect();
                let hits = self.ranked(terms, depth, &live)?;
                if !hits.is_empty() {
                    let near_words = near.into_iter().map(|word| word.shown).collect();
                    return Ok(Retrieved { hits, near_words });
                }
            }
            Ok(Retrieved::default())
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
        self.guarded(|| self.find(id, live)?.map(|found| self.hit(found)).transpose())
    }

    /// Returns the documents of these hits, which may be those of another copy of the index.
    ///
    /// # Errors
    /// [`RetrievalError::Damaged`] if the index lacks one; [`RetrievalError::Io`] or
    /// [`RetrievalError::Damaged`] if the files fail under the reader.
    pub fn read_documents(&self, hits: &[Hit]) -> Result<Vec<Document>, RetrievalError> {
        self.guarded(|| hits.iter().map(|hit| self.document(hit)).collect())
    }

    fn document(&self, hit: &Hit) -> Result<Document, RetrievalError> {
        let damaged = |fault: &str| {
            RetrievalError::damaged(
                &self.dir,
                None,
                format!("the document of row {} {fault}", hit.row),
            )
        };
        let found = self.find(&hit.id, |row| row == hit.row)?;
        let Match { segment, doc, .. } = found.ok_or_else(|| damaged("is missing"))?;
        let stored = self.segments[segment].stored(doc).map_err(|error| self.error(error))?;
        self.fields.decode(&hit.id, &stored).ok_or_else(|| damaged("is malformed"))
    }

    fn find(
        &self,
        id: &DocId,
        live: impl Fn(u64) -> bool,
    ) -> Result<Option<Match>, RetrievalError> {
        let term = Term::from_field_text(self.fields.id, id.as_str());
        let mut best = Best::new(1);
        for (number, segment) in self.segments.iter().enumerate() {
            let postings = segment.of_id(&term).map_err(|error| self.error(error))?;
            let Some(mut postings) = postings else { continue };
            while postings.doc() != TERMINATED {
                let (doc, score) = (postings.doc(), 0.0);
                let row = segment.row(doc);
                if live(row) {
                    best.offer(Match { score, row, segment: number, doc });
                }
                postings.advance();
            }
        }
        Ok(best.into_ranking().pop())
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
        let last_row = self.segments.iter().map(|segment| segment.row_max()).max();
        let (Some(last_row), 1..) = (last_row, count) else { return Ok(Vec::new()) };
        // First document of each of `count` equal ranges of rows.
        let mut firsts: HashMap<u128, Match> = HashMap::new();
        for (number, segment) in self.segments.iter().enumerate() {
            for doc in 0..segment.documents() {
                let row = segment.row(doc);
                if !live(row) {
                    continue;
                }
                let stretch = u128::from(row) * count as u128 / (u128::from(last_row) + 1);
                let found = Match { score: 0.0, row, segment: number, doc };
                let first = firsts.entry(stretch).or_insert(found);
                *first = (*first).max(found);
            }
        }
        let mut sample: Vec<Match> = firsts.into_values().collect();
        sample.sort_unstable_by(|a, b| b.cmp(a));
        sample.into_iter().map(|found| self.hit(found)).collect()
    }

    /// Ranks the documents that have a word of `words`, each given with its number of repeats.
    fn ranked(
        &self,
        words: Vec<(String, u32)>,
        depth: usize,
        live: impl Fn(u64) -> bool,
    ) -> Result<Vec<Hit>, RetrievalError> {
        let counts = self.counts(&words).map_err(|error| self.error(error))?;
        let best = self.rank(words, &counts, depth, live).map_err(|error| self.error(error))?;
        best.into_iter().map(|found| self.hit(found)).collect()
    }

    fn rank(
        &self,
        words: Vec<(String, u32)>,
        counts: &WordCounts,
        depth: usize,
        live: impl Fn(u64) -> bool,
    ) -> Result<Vec<Match>, TantivyError> {
        let words = self.weighed(words, counts);
        let mut best = Best::new(depth);
        for (number, segment) in self.segments.iter().enumerate() {
            let mut cursors = segment.cursors(&words)?;
            score_segment(&mut cursors, segment.norms(), |doc, score| {
                if best.may_admit(score) {
                    let row = segment.row(doc);
                    if live(row) {
                        best.offer(Match { score, row, segment: number, doc });
                    }
                }
            });
        }
        Ok(best.into_ranking())
    }

    /// Returns the query's distinct words in the order of their first occurrence, each with its number of
    /// repeats.
    fn query_words(&self, query: &str) -> Vec<(String, u32)> {
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
        repeats
    }

    /// Counts the documents, and those that have each of these words.
    fn counts(&self, words: &[(String, u32)]) -> Result<WordCounts, TantivyError> {
        let mut counts = WordCounts {
            documents: self.documents(),
            tokens: self.segments.iter().map(Segment::tokens).sum(),
            having: Vec::with_capacity(words.len()),
        };
        for (word, _) in words {
            let having = self.documents_with(&Term::from_field_text(self.fields.body, word))?;
            counts.having.push((word.clone(), having));
        }
        Ok(counts)
    }

    /// Returns the words that a document has, with their weights by `counts`, which are of these words.
    fn weighed(&self, repeats: Vec<(String, u32)>, counts: &WordCounts) -> Vec<QueryWord> {
        let tokens_mean = counts.tokens as f32 / counts.documents as f32;
        let words = repeats.into_iter().zip(&counts.having);
        let words = words.filter(|(_, (_, having))| *having > 0);
        let weigh = |((word, repeats), (_, having)): ((String, u32), &(String, u64))| {
            let term = Term::from_field_text(self.fields.body, &word);
            let weight =
                Bm25Weight::for_one_term_without_explain(*having, counts.documents, tokens_mean);
            QueryWord { term, repeats: repeats as f32, weight }
        };
        words.map(weigh).collect()
    }

    /// Returns the number of documents that have a word.
    fn documents_with(&self, word: &Term) -> Result<u64, TantivyError> {
        let having = self.segments.iter().map(|segment| segment.documents_with(word));
        having.map(|having| Ok(u64::from(having?))).sum()
    }

    fn hit(&self, found: Match) -> Result<Hit, RetrievalError> {
        let Match { score, row, segment, doc } = found;
        let place = self.segments[segment].place(&self.fields, doc);
        let (id, location) = place.map_err(|error| self.error(error))?.ok_or_else(|| {
            let what = format!("the location of row {row} is malformed");
            RetrievalError::damaged(&self.dir, None, what)
        })?;
        Ok(Hit { id, row, score, location })
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

impl Dictionary for Index {
    fn has(&self, word: &str) -> Result<bool, TantivyError> {
        Ok(self.documents_with(&Term::from_field_text(self.fields.body, word))? > 0)
    }

    fn within(
        &self,
        word: &str,
        distance: u8,
        found: &mut dyn FnMut(&str, u64),
    ) -> Result<(), TantivyError> {
        let term = Term::from_field_text(self.fields.body, word);
        let fuzzy = FuzzyTermQuery::new(term, distance, true);
        self.segments.iter().try_for_each(|segment| segment.words_like(&fuzzy, found))
    }

    fn beginning(
        &self,
        letters: &str,
        found: &mut dyn FnMut(&str, u64),
    ) -> Result<(), TantivyError> {
        self.segments.iter().try_for_each(|segment| segment.words_from(letters, found))
    }
}
