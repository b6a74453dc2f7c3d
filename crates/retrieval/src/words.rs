//! Cuts text into words.
//!
//! In: text. Out: its words in form NFKC, not yet in lower case. A word is a run of letters, digits and
//! their marks. Scripts without blanks give units (ideographs, kana, syllables) and pairs of neighbours.
//! Of languages it knows the letter I of Turkish alone. Stored indexes have words cut by this code, so a change needs another
//! number in the identifiers of analyzers.

use std::iter::{Map, Peekable};
use std::str::Chars;

use tantivy::tokenizer::{Token, TokenStream, Tokenizer};
use unicode_normalization::{
    IsNormalized, Recompositions, StreamSafe, UnicodeNormalization, is_nfkc_quick,
};

use crate::scripts::{Kind, joins, kind};

/// Cuts text into words.
#[derive(Clone, Default)]
pub(crate) struct Words {
    /// Whether I is the capital of ı, and İ that of i.
    has_dotless_i: bool,
    token: Token,
}

impl Words {
    /// Cuts text of a language that has two letters I, or of another one.
    pub(crate) fn new(has_dotless_i: bool) -> Self {
        Self { has_dotless_i, token: Token::default() }
    }
}

/// The words of a text, one after the other.
pub(crate) struct WordStream<'a> {
    /// Text that comes after `stretch`.
    rest: &'a str,
    /// Characters that may be more than one word.
    stretch: Option<Stretch<'a>>,
    has_dotless_i: bool,
    token: &'a mut Token,
}

impl Tokenizer for Words {
    type TokenStream<'a> = WordStream<'a>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> WordStream<'a> {
        self.token.reset();
        let has_dotless_i = self.has_dotless_i;
        WordStream { rest: text, stretch: None, has_dotless_i, token: &mut self.token }
    }
}

impl TokenStream for WordStream<'_> {
    fn advance(&mut self) -> bool {
        self.token.text.clear();
        self.token.position = self.token.position.wrapping_add(1);
        let is_word = self.next_word();
        if self.has_dotless_i && self.token.text.contains(['I', 'İ']) {
            self.token.text = self.token.text.replace('I', "ı").replace('İ', "i");
        }
        is_word
    }

    fn token(&self) -> &Token {
        self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        self.token
    }
}

impl<'a> WordStream<'a> {
    /// Writes the next word to the token, whose text is empty.
    fn next_word(&mut self) -> bool {
        loop {
            if let Some(stretch) = &mut self.stretch {
                if stretch.next_word(&mut self.token.text) {
                    return true;
                }
                self.stretch = None;
            }
            let Some(stretch) = self.next_stretch() else { return false };
            if stretch.is_ascii() {
                self.token.text.push_str(stretch);
                return true;
            }
            self.stretch = Some(Stretch::new(stretch));
        }
    }

    /// Takes what lies before the next ASCII character that is neither letter nor digit: these part words,
    /// and no character before them changes one after them.
    fn next_stretch(&mut self) -> Option<&'a str> {
        let parts = |byte: u8| byte.is_ascii() && !byte.is_ascii_alphanumeric();
        let start = self.rest.bytes().position(|byte| !parts(byte))?;
        let rest = &self.rest[start..];
        let end = rest.bytes().position(parts).unwrap_or(rest.len());
        let (stretch, rest) = rest.split_at(end);
        self.rest = rest;
        Some(stretch)
    }
}

/// Text in form NFKC, as it comes or made so. At most 30 marks follow each other, so memory is bounded.
enum Normal<'a> {
    Already(Signed<'a>),
    Made(Box<Recompositions<StreamSafe<Signed<'a>>>>),
}

/// Characters, with blanks in the place of signs that NFKC would make letters of the word before.
type Signed<'a> = Map<Chars<'a>, fn(char) -> char>;

fn signed(text: &str) -> Signed<'_> {
    text.chars().map(|c| if matches!(c, '™' | '℠') { ' ' } else { c })
}

impl Iterator for Normal<'_> {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        match self {
            Self::Already(chars) => chars.next(),
            Self::Made(chars) => chars.next(),
        }
    }
}

/// Characters of which some are not ASCII.
struct Stretch<'a> {
    chars: Peekable<Normal<'a>>,
    /// Unit before `unit`, if nothing parts them.
    former: String,
    /// Last unit, if a unit was last.
    unit: String,
    /// Whether `former` and `unit` are a pair that is still to come.
    has_pair: bool,
}

impl<'a> Stretch<'a> {
    fn new(text: &'a str) -> Self {
        let normal = match is_nfkc_quick(signed(text)) {
            IsNormalized::Yes => Normal::Already(signed(text)),
            _ => Normal::Made(Box::new(signed(text).stream_safe().nfkc())),
        };
        let chars = normal.peekable();
        Self { chars, former: String::new(), unit: String::new(), has_pair: false }
    }

    /// Writes the next word to `word`, which is empty.
    fn next_word(&mut self, word: &mut String) -> bool {
        if self.has_pair {
            self.has_pair = false;
            word.push_str(&self.former);
            word.push_str(&self.unit);
            return true;
        }
        while let Some(c) = self.chars.next() {
            match kind(c) {
                Kind::Letter => {
                    self.unit.clear();
                    word.push(c);
                    self.read_while(word, |_, _, kind| matches!(kind, Kind::Letter | Kind::Mark));
                    return true;
                }
                Kind::Unit => {
                    std::mem::swap(&mut self.former, &mut self.unit);
                    word.push(c);
                    self.read_while(word, |before, c, _| joins(before, c));
                    self.unit.clear();
                    self.unit.push_str(word);
                    self.has_pair = !self.former.is_empty();
                    return true;
                }
                Kind::Break => self.unit.clear(),
                Kind::Mark | Kind::Invisible => {}
            }
        }
        false
    }

    /// Adds to `word` the characters that go on with it: `goes_on` gets its last one, the next one and
    /// the kind of that.
    fn read_while(&mut self, word: &mut String, goes_on: impl Fn(char, char, Kind) -> bool) {
        let mut before = word.chars().next_back().unwrap_or_default();
        while let Some(&c) = self.chars.peek() {
            match kind(c) {
                Kind::Invisible => {}
                kind if goes_on(before, c, kind) => {
                    word.push(c);
                    before = c;
                }
                _ => return,
            }
            self.chars.next();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        let mut words = Words::default();
        let mut stream = words.token_stream(text);
        let mut found = Vec::new();
        while stream.advance() {
            found.push(stream.token().text.clone());
        }
        found
    }

    #[test]
    fn words_of_scripts_with_blanks_are_runs_of_letters_with_their_marks() {
        assert_eq!(
            words("The river's 3rd_dam, (1953)!"),
            ["The", "river", "s", "3rd", "dam", "1953"]
        );
        assert_eq!(words("β-Faltblatt Größe İzmir"), ["β", "Faltblatt", "Größe", "İzmir"]);
        assert_eq!(words("தமிழ் நூல்"), ["தமிழ்", "நூல்"]);
        assert_eq!(words("हिन्दी की क़लम").len(), 3);
        assert_eq!(
            words("שָׁלוֹם كِتَابٌ"),
            ["שָׁלוֹם", "كِتَابٌ"].map(|word| word.nfkc().collect::<String>())
        );
        assert_eq!(words("\u{301} a\u{301}"), ["á"]);
        assert!(words(" ,\u{301}\u{ad}。").is_empty() && words("").is_empty());
    }

    #[test]
    fn forms_of_a_word_are_one() {
        for forms in [
            ["résumé", "re\u{301}sume\u{301}"],
            ["Ａ１２", "A12"],
            ["ﾃﾞｰﾀ", "データ"],
            ["ﬁn", "fin"],
            ["한글", "\u{1112}\u{1161}\u{11ab}\u{1100}\u{1173}\u{11af}"],
            ["Donau\u{ad}dampf", "Donaudampf"],
            ["می\u{200c}خواهم", "میخواهم"],
            ["Bienenstock™", "Bienenstock®"],
            ["\u{feff}bee", "bee"],
            ["น\u{e49}ำ", "น\u{e49}\u{e4d}า"],
        ] {
            assert_eq!(words(forms[0]), words(forms[1]));
            assert!(!words(forms[0]).is_empty());
        }
    }

    #[test]
    fn scripts_without_blanks_give_units_and_pairs() {
        assert_eq!(words("蜜蜂冬"), ["蜜", "蜂", "蜜蜂", "冬", "蜂冬"]);
        assert_eq!(words("天气。好 茶"), ["天", "气", "天气", "好", "茶"]);
        assert_eq!(words("いい天"), ["い", "い", "いい", "天", "い天"]);
        assert_eq!(words("벌꿀을 먹"), ["벌", "꿀", "벌꿀", "을", "꿀을", "먹"]);
        assert_eq!(words("เรากิน"), ["เรา", "กิ", "เรากิ", "น", "กิน"]);
        assert_eq!(words("iPhone手机5台"), ["iPhone", "手", "机", "手机", "5", "台"]);
        assert_eq!(words("ខ្មែរ"), ["ខ្មែ", "រ", "ខ្មែរ"]);
        assert_eq!(words("𠮷野家").len(), 5);
    }

    #[test]
    fn ascii_is_cut_as_ever() {
        let text = "It's 1953: the dam_1 at 52.1N; see http://a.example/x?y=z\t~(\"b\")\0c\r\n";
        let expected =
            text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        assert_eq!(words(text), expected.collect::<Vec<_>>());
    }

    #[test]
    fn endless_marks_are_read_in_bounded_steps() {
        let marks = "\u{301}\u{316}".repeat(100_000);
        let found = words(&format!("a{marks}中{marks} b"));
        assert_eq!(found.last().map(String::as_str), Some("b"));
        assert_eq!(found.len(), 3);
        assert_eq!(words(&"\u{fdfa}".repeat(100_000)).len(), 300_001);
    }
}
