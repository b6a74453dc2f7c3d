//! Words of an index that stand for the words of a query which no document has.
//!
//! In: the words of a query, and the dictionary of an index. Out: words of the dictionary, kind by kind, the
//! most similar first. It does not know documents.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use tantivy::TantivyError;
use tantivy::tokenizer::TextAnalyzer;

use crate::analyzer::Analyzer;
use crate::compounds::{self, PART_LETTERS};
use crate::scripts::{Kind, kind};

/// Words of a query that are looked at.
const WORDS_MAX: usize = 32;

/// Letters of a word from which on two of them may differ, else one.
const LONG_LETTERS: usize = 8;

/// Letters that a word has at least, and at most.
const LETTERS: std::ops::RangeInclusive<usize> = PART_LETTERS..=64;

/// Letters that the beginning of a word has at least, and no less than half of its letters.
const BEGINNING_LETTERS: usize = 3;

/// Words that stand for one word of a query.
const NEAR_MAX: usize = 8;

/// Words of an index.
pub(crate) trait Dictionary {
    /// Whether a document has the word.
    fn has(&self, word: &str) -> Result<bool, TantivyError>;

    /// Calls `found` for each word that differs in at most `distance` letters, with the number of documents
    /// that have it. Two neighbours that are exchanged count once. A word may come repeatedly.
    fn within(
        &self,
        word: &str,
        distance: u8,
        found: &mut dyn FnMut(&str, u64),
    ) -> Result<(), TantivyError>;

    /// Calls `found` for each word that begins so, with the number of documents that have it. A word may
    /// come repeatedly.
    fn beginning(
        &self,
        letters: &str,
        found: &mut dyn FnMut(&str, u64),
    ) -> Result<(), TantivyError>;
}

/// A way from a word of a query to words of the dictionary, in the order in which they are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Parts of a compound.
    Parts,
    /// Words that differ in one letter, and have the first one in common.
    OneLetter,
    /// Long words that differ in two letters, and have the first one in common.
    TwoLetters,
    /// Words that have the most letters at their beginning in common.
    Beginning,
    /// Words that differ in one letter.
    AnyLetter,
    /// Long words that differ in two letters.
    AnyTwoLetters,
    /// Words of the query that are left out otherwise.
    StopWords,
}

impl Way {
    pub(crate) const ALL: [Self; 7] = [
        Self::Parts,
        Self::OneLetter,
        Self::TwoLetters,
        Self::Beginning,
        Self::AnyLetter,
        Self::AnyTwoLetters,
        Self::StopWords,
    ];
}

/// A word of the dictionary that stands for one of a query.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NearWord {
    /// Word as the index has it.
    pub(crate) term: String,
    /// Word as it is told: a part of a compound is not stemmed.
    pub(crate) shown: String,
}

impl NearWord {
    fn of_term(term: String) -> Self {
        Self { shown: term.clone(), term }
    }
}

/// Words of a query that no document has.
pub(crate) struct NearWords {
    language: Analyzer,
    /// Cuts and stems a word; stop words are left out.
    stemming: TextAnalyzer,
    /// Words of letters as the query has them, each with its term.
    words: Vec<(String, String)>,
    /// Terms of the query's stop words.
    stop_words: Vec<String>,
}

impl NearWords {
    /// Takes a query's words, the first of them if there are many, each once.
    pub(crate) fn new(language: Analyzer, query: &str) -> Self {
        let (mut plain, mut every) = (language.unstemmed(), language.with_stop_words());
        let mut made = Self {
            language,
            stemming: language.text_analyzer(),
            words: Vec::new(),
            stop_words: Vec::new(),
        };
        let mut stream = plain.token_stream(query);
        while stream.advance() && made.words.len() + made.stop_words.len() < WORDS_MAX {
            let word = &stream.token().text;
            if made.words.iter().any(|(known, _)| known == word) {
                continue;
            }
            match (only_term(&mut made.stemming, word), only_term(&mut every, word)) {
                (Some(term), _) if is_of_letters(word) => made.words.push((word.clone(), term)),
                (None, Some(term)) if !made.stop_words.contains(&term) => {
                    made.stop_words.push(term);
                }
                _ => {}
            }
        }
        made
    }

    /// Returns words of the dictionary by one way, each once.
    pub(crate) fn by(
        &mut self,
        way: Way,
        dictionary: &impl Dictionary,
    ) -> Result<Vec<NearWord>, TantivyError> {
        let mut near = Vec::new();
        if way == Way::StopWords {
            near.extend(self.stop_words.iter().cloned().map(NearWord::of_term));
        }
        for (word, term) in self.words.iter().filter(|_| way != Way::StopWords) {
            let found = match way {
                Way::Parts => parts(self.language, &mut self.stemming, word, dictionary)?,
                Way::Beginning => beginning(term, dictionary)?,
                Way::OneLetter => within(term, 1, true, dictionary)?,
                Way::TwoLetters => within(term, 2, true, dictionary)?,
                Way::AnyLetter => within(term, 1, false, dictionary)?,
                Way::AnyTwoLetters | Way::StopWords => within(term, 2, false, dictionary)?,
            };
            near.extend(found);
        }
        let mut distinct: Vec<NearWord> = Vec::with_capacity(near.len());
        for word in near {
            if !distinct.iter().any(|known| known.term == word.term) {
                distinct.push(word);
            }
        }
        Ok(distinct)
    }
}

/// Returns the term of a word; `None` if it is left out, or is more than one.
fn only_term(analyzer: &mut TextAnalyzer, word: &str) -> Option<String> {
    let mut stream = analyzer.token_stream(word);
    let term = stream.advance().then(|| stream.token().text.clone())?;
    (!stream.advance()).then_some(term)
}

/// Whether a word has letters of a script with blanks alone, not too few of them and not too many. Numbers
/// that differ in a figure are not similar.
fn is_of_letters(word: &str) -> bool {
    let is_letter = |c: char| match kind(c) {
        Kind::Letter => !c.is_numeric(),
        Kind::Mark => true,
        _ => false,
    };
    LETTERS.contains(&word.chars().count()) && word.chars().all(is_letter)
}

/// Cuts a word that is not in the dictionary into parts that are.
fn parts(
    language: Analyzer,
    stemming: &mut TextAnalyzer,
    word: &str,
    dictionary: &impl Dictionary,
) -> Result<Vec<NearWord>, TantivyError> {
    let Some(links) = compounds::links(language.name()) else { return Ok(Vec::new()) };
    let mut has = |part: &str| match only_term(stemming, part) {
        Some(term) => dictionary.has(&term),
        None => Ok(false),
    };
    let parts = compounds::cut(word, links, &mut has)?;
    let near = |shown: String| Some(NearWord { term: only_term(stemming, &shown)?, shown });
    Ok(parts.into_iter().filter_map(near).collect())
}

/// Returns the words that differ in `distance` letters at most.
fn within(
    term: &str,
    distance: u8,
    same_first: bool,
    dictionary: &impl Dictionary,
) -> Result<Vec<NearWord>, TantivyError> {
    if distance > 1 && term.chars().count() < LONG_LETTERS {
        return Ok(Vec::new());
    }
    let mut found = BTreeMap::new();
    dictionary.within(term, distance, &mut |word, documents| {
        if !same_first || word.chars().next() == term.chars().next() {
            count(&mut found, word, documents);
        }
    })?;
    Ok(nearest(term, found))
}

/// Returns the words whose beginnings have the most letters in common with this one.
fn beginning(term: &str, dictionary: &impl Dictionary) -> Result<Vec<NearWord>, TantivyError> {
    let ends: Vec<usize> = term.char_indices().map(|(at, c)| at + c.len_utf8()).collect();
    let fewest = BEGINNING_LETTERS.max(ends.len().div_ceil(2));
    let mut found = BTreeMap::new();
    for end in ends.iter().skip(fewest - 1).rev() {
        dictionary
            .beginning(&term[..*end], &mut |word, documents| count(&mut found, word, documents))?;
        if !found.is_empty() {
            break;
        }
    }
    Ok(nearest(term, found))
}

fn count(found: &mut BTreeMap<String, u64>, word: &str, documents: u64) {
    match found.get_mut(word) {
        Some(count) => *count += documents,
        None => drop(found.insert(word.to_owned(), documents)),
    }
}

/// Returns the words that are most like `term` in length, and of equal ones those that most documents have.
fn nearest(term: &str, found: BTreeMap<String, u64>) -> Vec<NearWord> {
    let letters = term.chars().count();
    let mut words: Vec<(usize, Reverse<u64>, String)> = found
        .into_iter()
        .map(|(word, documents)| (word.chars().count().abs_diff(letters), Reverse(documents), word))
        .collect();
    words.sort_unstable();
    words.truncate(NEAR_MAX);
    words.into_iter().map(|(_, _, word)| NearWord::of_term(word)).collect()
}

#[cfg(test)]
mod tests {
    use hyperrag_core::{DocId, Document};
    use tempfile::TempDir;

    use super::*;
    use crate::hit::Retrieved;
    use crate::index::Index;
    use crate::tests::location;
    use crate::writer::IndexWriter;

    fn index(language: &str, texts: &[&str], commit_each: bool) -> (TempDir, Index) {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = IndexWriter::open(dir.path(), language.parse().unwrap()).unwrap();
        for (row, text) in (0..).zip(texts) {
            let id = DocId::new(&format!("d{row}")).unwrap();
            let document = Document { id, title: String::new(), text: (*text).to_owned() };
            writer.add(row, &document, location(row)).unwrap();
            if commit_each {
                writer.commit(0).unwrap();
            }
        }
        match commit_each {
            true => drop(writer),
            false => writer.finish(1).unwrap(),
        }
        let index = Index::open(dir.path()).unwrap();
        (dir, index)
    }

    const GERMAN: [&str; 6] = [
        "Ein Fehler im Bericht.",
        "Die Quelle der Donau liegt im Schwarzwald.",
        "Septische Wunden heilen schlecht.",
        "Honigbienen sammeln Nektar.",
        "Der Bericht nennt eine Quelle.",
        "Im September 1953 kam die Flut.",
    ];

    /// Checks the rows found for each query, and the words that they were found by.
    #[track_caller]
    fn check(language: &str, texts: &[&str], expected: &[(&str, &[u64], &str)]) {
        for commit_each in [false, true] {
            let (_dir, index) = index(language, texts, commit_each);
            for (query, rows, words) in expected {
                let Retrieved { hits, near_words } = index.retrieve(query, 9, |_| true).unwrap();
                let found: Vec<u64> = hits.iter().map(|hit| hit.row).collect();
                assert_eq!((&found[..], &near_words.join(" ")[..]), (*rows, *words), "{query}");
                assert!(hits.iter().all(|hit| hit.score > 0.0), "{query}");
            }
        }
    }

    #[test]
    fn a_query_without_a_known_word_finds_what_is_near() {
        check(
            "german",
            &GERMAN,
            &[
                ("Was war die Fehlerquelle?", &[0, 4, 1], "fehler quelle"),
                ("Berichtsfehlern", &[0, 4], "berichts fehlern"),
                ("Donauquellen", &[1, 4], "donau quellen"),
                ("berict", &[0, 4], "bericht"),
                ("honogbienen", &[3], "honigbi"),
                ("Was ist Sepsis?", &[2, 5], "septemb septisch"),
                ("Lonau", &[1], "donau"),
                ("1954", &[], ""),
                ("Xylophonist", &[], ""),
                ("Was ist das?", &[], ""),
                ("", &[], ""),
            ],
        );
    }

    #[test]
    fn only_languages_that_join_words_have_compounds() {
        let texts = ["A source of light.", "An error was found."];
        check("english", &texts, &[("errorsource", &[1], "error"), ("lightsource", &[0], "light")]);
        check("dutch", &["een bron van licht"], &[("lichtbron", &[0], "licht bron")]);
        check("none", &["fehler", "quelle"], &[("fehlerquelle", &[0], "fehler")]);
    }

    #[test]
    fn stop_words_come_last() {
        let texts = ["She is willing.", "A will of iron."];
        check("english", &texts, &[("will", &[0], "will"), ("will irony", &[1], "iron")]);
    }

    #[test]
    fn scripts_without_blanks_have_no_near_words() {
        let texts = ["蜜蜂在冬天聚集在一起取暖。"];
        check("chinese", &texts, &[("河水", &[], ""), ("蜜蜂", &[0], "")]);
    }

    #[test]
    fn what_is_found_does_not_change() {
        let (_dir, index) = index("german", &GERMAN, false);
        for query in ["Quelle", "Bericht Fehlerquelle", "der Quell", "sammeln 1953", ""] {
            let hits = index.search(query, 9, |_| true).unwrap();
            let near_words = Vec::new();
            assert_eq!(index.retrieve(query, 9, |_| true).unwrap(), Retrieved { hits, near_words });
        }
        assert_eq!(index.retrieve("Fehlerquelle", 0, |_| true).unwrap(), Retrieved::default());
    }

    #[test]
    fn a_way_whose_documents_are_deleted_leads_on() {
        let (_dir, index) = index("german", &GERMAN, false);
        let Retrieved { hits, near_words } = index.retrieve("Sepsis", 9, |row| row == 2).unwrap();
        assert_eq!((hits.len(), near_words.len()), (1, 2));
        let none = index.retrieve("Fehlerquelle", 9, |row| row == 5).unwrap();
        assert_eq!(none, Retrieved::default());
    }

    #[test]
    fn endless_queries_are_looked_at_in_part() {
        let (_dir, index) = index("german", &GERMAN, false);
        let query: String =
            (0..10_000).map(|number| format!("wort{number}x fehlerquell ")).collect();
        assert!(
            index.retrieve(&query, 9, |_| true).unwrap().near_words.len() <= WORDS_MAX * NEAR_MAX
        );
        let long = "fehlerquelle".repeat(10_000);
        assert_eq!(index.retrieve(&long, 9, |_| true).unwrap(), Retrieved::default());
    }
}
