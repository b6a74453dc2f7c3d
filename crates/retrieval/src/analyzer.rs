//! Turns text into index words, in documents and queries alike.
//!
//! In: the name of a language. Out: an analyzer, and its identifier in an index. It does not know
//! documents.

use std::fmt;
use std::str::FromStr;

use tantivy::tokenizer::{
    Language, LowerCaser, RemoveLongFilter, SimpleTokenizer, Stemmer, StopWordFilter, TextAnalyzer,
};

use crate::words::Words;

/// Rules by which text is cut. An index keeps those that it was made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rules {
    /// Runs of letters and digits below 40 bytes. Older versions wrote indexes so.
    First,
    /// Words in form NFKC with their marks, up to 255 bytes, and units and pairs of scripts without blanks.
    Second,
    /// Rules of Turkish, in which I is the capital of ı, and İ that of i. Other languages have no third ones.
    Third,
}

impl Rules {
    const ALL: [Self; 3] = [Self::First, Self::Second, Self::Third];

    /// Returns the rules by which indexes of a language are made.
    fn present(language: &str) -> Self {
        if language == "turkish" { Self::Third } else { Self::Second }
    }

    /// Number at the end of an analyzer's identifier.
    fn number(self) -> u32 {
        match self {
            Self::First => 1,
            Self::Second => 2,
            Self::Third => 3,
        }
    }

    /// Size from which on a word is not indexed, in bytes.
    fn word_bytes(self) -> usize {
        match self {
            Self::First => 40,
            Self::Second | Self::Third => 256,
        }
    }
}

/// Rules that turn text into index words, in documents and queries alike. Text is brought to form NFKC,
/// cut into words, and put into lower case; where a script has no blanks, each character and each pair
/// of neighbours is a word. In a language, stop words are left out (where tantivy has a list) and words
/// are stemmed (Snowball). An index of an older version keeps the rules that it was made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Analyzer {
    name: &'static str,
    stemmer: Option<Language>,
    pub(crate) rules: Rules,
}

/// Names of languages, in their order. None of those without a stemmer has a list of stop words.
const LANGUAGES: [(&str, Option<Language>); 22] = [
    ("arabic", Some(Language::Arabic)),
    ("chinese", None),
    ("danish", Some(Language::Danish)),
    ("dutch", Some(Language::Dutch)),
    ("english", Some(Language::English)),
    ("finnish", Some(Language::Finnish)),
    ("french", Some(Language::French)),
    ("german", Some(Language::German)),
    ("greek", Some(Language::Greek)),
    ("hungarian", Some(Language::Hungarian)),
    ("italian", Some(Language::Italian)),
    ("japanese", None),
    ("korean", None),
    ("norwegian", Some(Language::Norwegian)),
    ("portuguese", Some(Language::Portuguese)),
    ("romanian", Some(Language::Romanian)),
    ("russian", Some(Language::Russian)),
    ("spanish", Some(Language::Spanish)),
    ("swedish", Some(Language::Swedish)),
    ("tamil", Some(Language::Tamil)),
    ("thai", None),
    ("turkish", Some(Language::Turkish)),
];

/// A name that is no language.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown language {0:?}: use none or one of {names}", names = LANGUAGES.map(|l| l.0).join(", "))]
pub struct UnknownLanguage(String);

impl Analyzer {
    /// English words, stemmed and without stop words.
    pub const ENGLISH: Self =
        Self { name: "english", stemmer: Some(Language::English), rules: Rules::Second };
    /// Words of any language, in lower case only.
    pub const NONE: Self = Self { name: "none", stemmer: None, rules: Rules::Second };

    /// Returns the language's name, or `none`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.name
    }

    /// Whether words are cut by the rules of an older version, which find none in scripts without blanks.
    #[must_use]
    pub fn is_former(self) -> bool {
        self.rules == Rules::First
    }

    /// Returns the analyzer of the language by other rules.
    pub(crate) fn by(self, rules: Rules) -> Self {
        Self { rules, ..self }
    }

    /// Returns the identifier that stands in the schema and in the commits of every index. An analyzer
    /// that cuts words in another way must get another identifier, so that an older index is refused
    /// rather than searched with the wrong words.
    pub(crate) fn id(self) -> String {
        format!("hyperrag_{}_{}", self.name, self.rules.number())
    }

    pub(crate) fn of_id(id: &str) -> Option<Self> {
        let (name, number) = id.strip_prefix("hyperrag_")?.rsplit_once('_')?;
        let rules = Rules::ALL.into_iter().find(|rules| rules.number().to_string() == number)?;
        let present = name.parse::<Self>().ok()?;
        (rules.number() <= present.rules.number()).then(|| present.by(rules))
    }

    /// Returns the analyzer of this language whose identifier stands in the bytes of an index's list,
    /// be they damaged.
    pub(crate) fn named_in(self, list: &[u8]) -> Option<Self> {
        let names = |analyzer: &Self| {
            let id = analyzer.id();
            list.windows(id.len()).any(|found| found == id.as_bytes())
        };
        Rules::ALL.into_iter().map(|rules| self.by(rules)).find(names)
    }

    /// Returns the rules that leave words as they are written, but for their case.
    pub(crate) fn unstemmed(self) -> TextAnalyzer {
        Self { stemmer: None, ..self }.text_analyzer()
    }

    /// Returns the rules by which documents and queries are cut.
    pub(crate) fn text_analyzer(self) -> TextAnalyzer {
        self.stemming(self.stemmer.and_then(StopWordFilter::new))
    }

    /// Returns the rules without those for stop words.
    pub(crate) fn with_stop_words(self) -> TextAnalyzer {
        self.stemming(None)
    }

    fn stemming(self, stop_words: Option<StopWordFilter>) -> TextAnalyzer {
        let long = RemoveLongFilter::limit(self.rules.word_bytes());
        let words = match self.rules {
            Rules::First => {
                let words = TextAnalyzer::builder(SimpleTokenizer::default());
                words.filter(LowerCaser).filter(long).dynamic()
            }
            rules @ (Rules::Second | Rules::Third) => {
                let words = TextAnalyzer::builder(Words::new(rules == Rules::Third));
                words.filter(LowerCaser).filter(long).dynamic()
            }
        };
        let Some(language) = self.stemmer else { return words.build() };
        let words = match stop_words {
            Some(stop_words) => words.filter_dynamic(stop_words),
            None => words,
        };
        words.filter_dynamic(Stemmer::new(language)).build()
    }
}

impl fmt::Display for Analyzer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl FromStr for Analyzer {
    type Err = UnknownLanguage;

    fn from_str(name: &str) -> Result<Self, UnknownLanguage> {
        if name == Self::NONE.name {
            return Ok(Self::NONE);
        }
        let named = LANGUAGES.into_iter().find(|(language, _)| *language == name);
        let (name, stemmer) = named.ok_or_else(|| UnknownLanguage(name.to_owned()))?;
        Ok(Self { name, stemmer, rules: Rules::present(name) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words_by(analyzer: Analyzer, text: &str) -> Vec<String> {
        let mut analyzer = analyzer.text_analyzer();
        let mut stream = analyzer.token_stream(text);
        let mut words = Vec::new();
        while stream.advance() {
            words.push(stream.token().text.clone());
        }
        words
    }

    fn words(language: &str, text: &str) -> Vec<String> {
        words_by(language.parse().unwrap(), text)
    }

    #[test]
    fn words_are_folded_and_stemmed() {
        assert_eq!(words("english", "The Rivers are FLOODING, 1953!"), ["river", "flood", "1953"]);
        assert_eq!(words("german", "Die Flüsse fluten"), ["fluss", "flut"]);
        assert_eq!(words("german", "Die Flu\u{308}sse fluten"), ["fluss", "flut"]);
        assert_eq!(words("none", "The Rivers ARE"), ["the", "rivers", "are"]);
        assert_eq!(words("tamil", "மரங்கள்"), ["மரங்"], "its stemmer gets whole words");
    }

    #[test]
    fn turkish_has_two_letters_i() {
        for forms in [["İZMİR", "izmir"], ["ISPARTA", "ısparta"], ["I\u{307}zmir", "İzmir"]] {
            assert_eq!(words("turkish", forms[0]), words("turkish", forms[1]), "{forms:?}");
        }
        assert_ne!(words("turkish", "KIZ"), words("turkish", "kiz"));
        assert_eq!(words("turkish", "Bir kız, İKİ KIZ")[1], words("turkish", "KIZ")[0]);
        let second = "turkish".parse::<Analyzer>().unwrap().by(Rules::Second);
        assert_eq!(words_by(second, "İz KIZ"), ["i\u{307}z", "kiz"], "as in indexes made before");
        assert_eq!(words("english", "IT"), ["it"; 0]);
    }

    #[test]
    fn every_language_cuts_scripts_without_blanks_alike() {
        let expected = words("none", "蜜蜂 天気 벌꿀 อากาศ");
        assert_eq!(expected.len(), 14);
        for (name, _) in LANGUAGES {
            assert_eq!(words(name, "蜜蜂 天気 벌꿀 อากาศ"), expected, "{name}");
        }
    }

    #[test]
    fn a_long_word_is_kept_up_to_255_bytes() {
        let long = "x".repeat(255);
        assert_eq!(words("english", &format!("{long} y")), [&long, "y"]);
        assert_eq!(words("english", &format!("{long}x y")), ["y"]);
        let digest = "3f786850e387550fdab836ed7e6dc881de23001b";
        assert_eq!(words("english", digest), [digest]);
    }

    #[test]
    fn the_first_rules_cut_as_they_did() {
        let first = |text: &str| words_by(Analyzer::ENGLISH.by(Rules::First), text);
        assert_eq!(first("The Rivers are FLOODING, 1953!"), ["river", "flood", "1953"]);
        assert_eq!(first(&"x".repeat(39)), ["x".repeat(39)]);
        assert!(first(&"x".repeat(40)).is_empty());
        assert_eq!(first("蜜蜂冬天 re\u{301}sume"), ["蜜蜂冬天", "re", "sume"]);
    }

    #[test]
    fn every_language_has_its_own_id() {
        for name in LANGUAGES.iter().map(|(name, _)| *name).chain(["none"]) {
            let analyzer: Analyzer = name.parse().unwrap();
            let former = Rules::ALL.into_iter().take_while(|rules| *rules != analyzer.rules);
            for analyzer in former.map(|rules| analyzer.by(rules)).chain([analyzer]) {
                assert_eq!(
                    (analyzer.name(), Analyzer::of_id(&analyzer.id())),
                    (name, Some(analyzer))
                );
            }
        }
        let former = Analyzer::ENGLISH.by(Rules::First);
        assert_eq!(former.id(), "hyperrag_english_1", "that of stores made before");
        assert_eq!(Analyzer::ENGLISH.id(), "hyperrag_english_2");
        assert_eq!(Analyzer::of_id("hyperrag_english_3"), None);
        assert_eq!(Analyzer::of_id("hyperrag_turkish_4"), None);
        assert_eq!("turkish".parse::<Analyzer>().unwrap().id(), "hyperrag_turkish_3");
        let unknown = "klingon".parse::<Analyzer>().unwrap_err().to_string();
        assert!(unknown.contains("klingon") && unknown.contains("german"), "{unknown}");
    }
}
