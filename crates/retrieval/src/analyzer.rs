//! Turns text into index words, in documents and queries alike.
//!
//! In: the name of a language. Out: an analyzer, and its identifier in an index. It does not know
//! documents.

use std::fmt;
use std::str::FromStr;

use tantivy::tokenizer::{
    Language, LowerCaser, RemoveLongFilter, SimpleTokenizer, Stemmer, StopWordFilter, TextAnalyzer,
};

/// Size from which on a word is not indexed, in bytes.
const WORD_BYTES: usize = 40;

/// Rules that turn text into index words, in documents and queries alike. Text is cut where letters and
/// digits end, and put into lower case. In a language, stop words are left out (where tantivy has a
/// list) and words are stemmed (Snowball).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Analyzer(Option<Language>);

const LANGUAGES: [(&str, Language); 18] = [
    ("arabic", Language::Arabic),
    ("danish", Language::Danish),
    ("dutch", Language::Dutch),
    ("english", Language::English),
    ("finnish", Language::Finnish),
    ("french", Language::French),
    ("german", Language::German),
    ("greek", Language::Greek),
    ("hungarian", Language::Hungarian),
    ("italian", Language::Italian),
    ("norwegian", Language::Norwegian),
    ("portuguese", Language::Portuguese),
    ("romanian", Language::Romanian),
    ("russian", Language::Russian),
    ("spanish", Language::Spanish),
    ("swedish", Language::Swedish),
    ("tamil", Language::Tamil),
    ("turkish", Language::Turkish),
];

/// A name that is no language.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown language {0:?}: use none or one of {names}", names = LANGUAGES.map(|l| l.0).join(", "))]
pub struct UnknownLanguage(String);

impl Analyzer {
    /// English words, stemmed and without stop words.
    pub const ENGLISH: Self = Self(Some(Language::English));
    /// Words of any language, in lower case only.
    pub const NONE: Self = Self(None);

    /// Returns the language's name, or `none`.
    #[must_use]
    pub fn name(self) -> &'static str {
        let named = LANGUAGES.iter().find(|(_, language)| Some(*language) == self.0);
        named.map_or("none", |(name, _)| name)
    }

    /// Returns the identifier that stands in the schema and in the commits of every index. An analyzer
    /// that cuts words in another way must get another identifier, so that an older index is refused
    /// rather than searched with the wrong words.
    pub(crate) fn id(self) -> String {
        format!("hyperrag_{}_1", self.name())
    }

    pub(crate) fn of_id(id: &str) -> Option<Self> {
        let name = id.strip_prefix("hyperrag_")?.strip_suffix("_1")?;
        name.parse().ok()
    }

    pub(crate) fn text_analyzer(self) -> TextAnalyzer {
        let words = TextAnalyzer::builder(SimpleTokenizer::default())
            .filter(LowerCaser)
            .filter(RemoveLongFilter::limit(WORD_BYTES))
            .dynamic();
        let Some(language) = self.0 else { return words.build() };
        let words = match StopWordFilter::new(language) {
            Some(stop_words) => words.filter_dynamic(stop_words),
            None => words,
        };
        words.filter_dynamic(Stemmer::new(language)).build()
    }
}

impl fmt::Display for Analyzer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Analyzer {
    type Err = UnknownLanguage;

    fn from_str(name: &str) -> Result<Self, UnknownLanguage> {
        if name == "none" {
            return Ok(Self::NONE);
        }
        let named = LANGUAGES.iter().find(|(language, _)| *language == name);
        named.map(|(_, language)| Self(Some(*language))).ok_or(UnknownLanguage(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(language: &str, text: &str) -> Vec<String> {
        let mut analyzer = language.parse::<Analyzer>().unwrap().text_analyzer();
        let mut stream = analyzer.token_stream(text);
        let mut words = Vec::new();
        while stream.advance() {
            words.push(stream.token().text.clone());
        }
        words
    }

    #[test]
    fn words_are_folded_and_stemmed() {
        assert_eq!(words("english", "The Rivers are FLOODING, 1953!"), ["river", "flood", "1953"]);
        assert_eq!(words("english", &"x".repeat(39)), ["x".repeat(39)]);
        assert!(words("english", &"x".repeat(40)).is_empty());
        assert_eq!(words("german", "Die Flüsse fluten"), ["fluss", "flut"]);
        assert_eq!(words("none", "The Rivers ARE"), ["the", "rivers", "are"]);
    }

    #[test]
    fn every_language_has_its_own_id() {
        for name in LANGUAGES.iter().map(|(name, _)| *name).chain(["none"]) {
            let analyzer: Analyzer = name.parse().unwrap();
            assert_eq!((analyzer.name(), Analyzer::of_id(&analyzer.id())), (name, Some(analyzer)));
        }
        assert_eq!(Analyzer::ENGLISH.id(), "hyperrag_english_1", "that of stores made before");
        assert_eq!(Analyzer::of_id("hyperrag_english_2"), None);
        let unknown = "klingon".parse::<Analyzer>().unwrap_err().to_string();
        assert!(unknown.contains("klingon") && unknown.contains("german"), "{unknown}");
    }
}
