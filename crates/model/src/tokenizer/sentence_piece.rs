//! BPE as in SentencePiece (Kudo and Richardson 2018): among all neighbours that form a piece together,
//! the pair with the best score is joined, until there is none.
//!
//! In: text, and a vocabulary with scores. Out: token ids.

use std::cmp::Ordering;
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet};
use std::sync::OnceLock;

use hyperrag_core::ModelError;

use crate::tokenizer::pieces::{PIECE_BYTES, PIECE_BYTES_MAX, cut, place, unbroken};
use crate::tokenizer::spelling::{BLANK, byte_of, spelled};
use crate::tokenizer::vocabulary::{Vocabulary, kind, marks_turn_of_pieces};

pub(super) struct SentencePiece {
    names: Vec<TokenName>,
    /// Token ids of pieces to which text is joined.
    pieces: HashMap<String, u32>,
    scores: Vec<f32>,
    /// Pieces that the user defined: taken from text whole, before all others.
    whole: Literals,
    /// The pieces that the user defined and the special ones, for templates.
    template: Literals,
    pub(super) special: HashMap<String, u32>,
    /// Token ids of bytes, for text that is in no piece.
    bytes: HashMap<u8, u32>,
    unknown: Option<u32>,
    /// Whether a blank is put before text.
    blank_first: bool,
    /// Characters that stand side by side in a piece.
    neighbours: OnceLock<HashSet<(char, char)>>,
}

/// The meaning of a token's name.
enum TokenName {
    Text(String),
    Byte(u8),
    /// A token that no text contains.
    Special,
}

impl SentencePiece {
    pub(super) fn new(vocabulary: &Vocabulary, scores: Vec<f32>, blank_first: bool) -> Self {
        let (mut pieces, mut special) = (HashMap::new(), HashMap::new());
        let (mut whole, mut bytes) = (HashMap::new(), HashMap::new());
        let mut unknown = None;
        let mut names = Vec::with_capacity(vocabulary.tokens.len());
        for (id, token, kind) in vocabulary.with_types() {
            let text = || TokenName::Text(token.replace(BLANK, " "));
            names.push(match kind {
                kind::NORMAL => {
                    pieces.insert(token.clone(), id);
                    text()
                }
                kind::USER_DEFINED if !marks_turn_of_pieces(token) => {
                    whole.insert(spelled(token), id);
                    text()
                }
                kind::BYTE => match byte_of(token) {
                    Some(byte) => {
                        bytes.insert(byte, id);
                        TokenName::Byte(byte)
                    }
                    None => TokenName::Special,
                },
                _ => {
                    if kind == kind::UNKNOWN {
                        unknown = Some(id);
                    }
                    special.insert(token.clone(), id);
                    TokenName::Special
                }
            });
        }
        let template = whole.iter().chain(&special).map(|(t, id)| (spelled(t), *id)).collect();
        let (whole, template) = (Literals::new(whole), Literals::new(template));
        let neighbours = OnceLock::new();
        Self {
            names,
            pieces,
            scores,
            whole,
            template,
            special,
            bytes,
            unknown,
            blank_first,
            neighbours,
        }
    }

    pub(super) fn special_token(&self, name: &str) -> Option<u32> {
        self.special.get(name).copied()
    }

    pub(super) fn bytes_of(&self, token: u32) -> Vec<u8> {
        match self.names.get(token as usize) {
            Some(TokenName::Text(text)) => text.clone().into_bytes(),
            Some(TokenName::Byte(byte)) => vec![*byte],
            Some(TokenName::Special) | None => Vec::new(),
        }
    }

    /// Encodes a text; the rest may be left out after `max` tokens.
    pub(super) fn encode_text(&self, text: &str, max: usize) -> Result<Vec<u32>, ModelError> {
        self.encode(text, &self.whole, max)
    }

    pub(super) fn encode_template(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        self.encode(text, &self.template, usize::MAX)
    }

    fn encode(&self, text: &str, literals: &Literals, max: usize) -> Result<Vec<u32>, ModelError> {
        let mut tokens = Vec::with_capacity(max.min(text.len() / 3 + 1));
        let text = spelled(text);
        let mut rest = text.as_str();
        // A blank is put before the start of the text and after a special token.
        let mut blank = self.blank_first;
        while !rest.is_empty() && tokens.len() < max {
            let found = literals.find(rest);
            let (before, literal) =
                found.map_or((rest.len(), None), |(at, len, id)| (at, Some((len, id))));
            let special = literal
                .is_some_and(|(_, id)| matches!(self.names[id as usize], TokenName::Special));
            // SentencePiece puts a blank before the user's pieces as well.
            if before > 0 || blank && !special {
                self.encode_run(&rest[..before], blank, max, &mut tokens)?;
                blank = false;
            }
            let length = literal.map_or(0, |(length, id)| {
                tokens.push(id);
                blank = self.blank_first && special;
                length
            });
            rest = &rest[before + length..];
        }
        Ok(tokens)
    }

    /// Appends the tokens of a run without literals.
    fn encode_run(
        &self,
        text: &str,
        blank: bool,
        max: usize,
        tokens: &mut Vec<u32>,
    ) -> Result<(), ModelError> {
        let first = if blank { BLANK } else { "" };
        let run = [first, text].concat();
        for run in self.runs(&run, PIECE_BYTES, PIECE_BYTES_MAX) {
            for symbol in self.join(run?) {
                match self.pieces.get(symbol) {
                    Some(id) => tokens.push(*id),
                    None => self.encode_bytes(symbol, tokens),
                }
            }
            if tokens.len() >= max {
                break;
            }
        }
        Ok(())
    }

    /// Cuts a run between characters that no piece has side by side: nothing is joined there.
    fn runs<'a>(
        &'a self,
        run: &'a str,
        bytes: usize,
        bytes_max: usize,
    ) -> impl Iterator<Item = Result<&'a str, ModelError>> {
        let place = move |run: &str| {
            let neighbours = self.neighbours.get_or_init(|| {
                let pairs =
                    |piece: &String| piece.chars().zip(piece.chars().skip(1)).collect::<Vec<_>>();
                self.pieces.keys().flat_map(pairs).collect()
            });
            place(run, bytes, bytes_max, |_, before, after| !neighbours.contains(&(before, after)))
        };
        cut(run, [bytes, bytes_max], 0, place, move |_| unbroken(bytes_max))
    }

    fn encode_bytes(&self, symbol: &str, tokens: &mut Vec<u32>) {
        let bytes: Option<Vec<u32>> =
            symbol.bytes().map(|byte| self.bytes.get(&byte).copied()).collect();
        match bytes {
            Some(bytes) => tokens.extend(bytes),
            None => tokens.extend(self.unknown),
        }
    }

    fn join<'a>(&self, run: &'a str) -> impl Iterator<Item = &'a str> {
        let ends = run.char_indices().map(|(start, c)| (start, start + c.len_utf8()));
        // What is left of symbol `i` after joins: empty once it is part of an earlier one.
        let mut symbols: Vec<(usize, usize)> = ends.collect();
        let count = symbols.len();
        let mut next: Vec<usize> = (1..=count).collect();
        let mut previous: Vec<Option<usize>> = (0..count).map(|i| i.checked_sub(1)).collect();
        let mut pairs = BinaryHeap::new();
        let pair = |symbols: &[(usize, usize)], left: usize, right: usize| {
            let (start, end) = (symbols.get(left)?.0, symbols.get(right)?.1);
            let score = self.scores[*self.pieces.get(&run[start..end])? as usize];
            Some(SymbolPair { score, left, right, length: end - start })
        };
        pairs.extend((1..count).filter_map(|right| pair(&symbols, right - 1, right)));
        while let Some(SymbolPair { left, right, length, .. }) = pairs.pop() {
            let (a, b) = (symbols[left], symbols[right]);
            // One of the two was joined to another symbol meanwhile.
            if a.0 == a.1 || b.0 == b.1 || a.1 != b.0 || b.1 - a.0 != length {
                continue;
            }
            symbols[left].1 = b.1;
            symbols[right].1 = b.0;
            next[left] = next[right];
            if let Some(after) = previous.get_mut(next[left]) {
                *after = Some(left);
            }
            pairs.extend(previous[left].and_then(|before| pair(&symbols, before, left)));
            pairs.extend(pair(&symbols, left, next[left]));
        }
        symbols.into_iter().filter(|(start, end)| start < end).map(|(start, end)| &run[start..end])
    }
}

/// Neighbours that form a piece together.
struct SymbolPair {
    score: f32,
    left: usize,
    right: usize,
    /// Size of both when the pair was found, in bytes.
    length: usize,
}

impl Ord for SymbolPair {
    /// Orders by score, best first, then by place. Scores are never NaN.
    fn cmp(&self, other: &Self) -> Ordering {
        let score = self.score.partial_cmp(&other.score).unwrap_or(Ordering::Equal);
        score.then(other.left.cmp(&self.left))
    }
}

impl PartialOrd for SymbolPair {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for SymbolPair {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for SymbolPair {}

/// Tokens that are found in text as they are, the longest one first.
struct Literals {
    ids: HashMap<String, u32>,
    starts: HashSet<char>,
    lengths: BTreeSet<usize>,
}

impl Literals {
    fn new(mut ids: HashMap<String, u32>) -> Self {
        ids.retain(|literal, _| !literal.is_empty());
        let starts = ids.keys().filter_map(|literal| literal.chars().next()).collect();
        let lengths = ids.keys().map(String::len).collect();
        Self { ids, starts, lengths }
    }

    /// Finds the first literal in `text`. Returns its place, length and token.
    fn find(&self, text: &str) -> Option<(usize, usize, u32)> {
        let starts = text.char_indices().filter(|(_, c)| self.starts.contains(c));
        let mut found = starts.filter_map(|(at, _)| {
            let fits = self.lengths.iter().rev().filter_map(|len| {
                let literal = text.get(at..at + len)?;
                Some((at, *len, *self.ids.get(literal)?))
            });
            fits.into_iter().next()
        });
        found.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::spelling::bytes_of_name;

    /// Makes pieces of a small model, with scores and types.
    fn pieces(blank_first: bool) -> SentencePiece {
        let entries = [
            ("<unk>", 0.0, kind::UNKNOWN),
            ("<s>", 0.0, kind::CONTROL),
            ("<0xC3>", 0.0, kind::BYTE),
            ("<0xA4>", 0.0, kind::BYTE),
            ("<|user|>", 0.0, kind::USER_DEFINED),
            ("  ", 0.0, kind::USER_DEFINED),
            ("<b>", 0.0, kind::USER_DEFINED),
            ("ab", -1.0, kind::NORMAL),
            ("bc", -2.0, kind::NORMAL),
            ("abc", -3.0, kind::NORMAL),
            ("aa", -4.0, kind::NORMAL),
            ("\u{2581}a", -5.0, kind::NORMAL),
            ("a", -6.0, kind::NORMAL),
            ("b", -7.0, kind::NORMAL),
            ("c", -8.0, kind::NORMAL),
            ("\u{2581}", -9.0, kind::NORMAL),
        ];
        let vocabulary = Vocabulary {
            tokens: entries.iter().map(|(token, ..)| (*token).to_owned()).collect(),
            types: entries.iter().map(|(.., kind)| *kind).collect(),
        };
        SentencePiece::new(&vocabulary, entries.map(|(_, score, _)| score).to_vec(), blank_first)
    }

    #[test]
    fn the_best_pair_is_joined_first() {
        let pieces = pieces(false);
        let check = |text: &str, expected: &[u32]| {
            assert_eq!(pieces.encode_text(text, usize::MAX).unwrap(), expected, "{text:?}");
        };
        check("", &[]);
        check("abc", &[9]);
        check("bcab", &[8, 7]);
        // Of equal pairs the first is joined.
        check("aaa", &[10, 12]);
        check("aaaa", &[10, 10]);
        // `ab` is better than the blank's piece.
        check(" ab a", &[15, 7, 11]);
        check("  a   b", &[5, 12, 5, 15, 13]);
        check("a<b>c", &[12, 6, 14]);
        // Bytes, one of which has no token.
        check("äx", &[2, 3, 0]);
        // Marks of turns are text, and none of their characters is a piece.
        check("<s>", &[0, 0, 0]);
        assert_eq!(pieces.encode_text("<|user|>", usize::MAX).unwrap().len(), 8);
    }

    #[test]
    fn templates_have_special_tokens() {
        let plain = pieces(false);
        assert_eq!(plain.encode_template("<s>a<|user|> a").unwrap(), [1, 12, 4, 11]);
        let blank_first = pieces(true);
        assert_eq!(blank_first.encode_text("a", usize::MAX).unwrap(), [11]);
        assert_eq!(blank_first.encode_text("<b>a", usize::MAX).unwrap(), [15, 6, 12]);
        assert_eq!(blank_first.encode_template("<s>a<s><s>b").unwrap(), [1, 11, 1, 1, 15, 13]);
        assert!(blank_first.encode_text("", usize::MAX).unwrap().is_empty());
    }

    #[test]
    fn tokens_stand_for_bytes() {
        let pieces = pieces(false);
        let tokens = pieces.encode_text("  ab äc", usize::MAX).unwrap();
        let bytes: Vec<u8> = tokens.iter().flat_map(|token| pieces.bytes_of(*token)).collect();
        assert_eq!(bytes, "  ab äc".as_bytes());
        assert!(pieces.bytes_of(1).is_empty() && pieces.bytes_of(99).is_empty());
        assert_eq!(bytes_of_name("\u{2581}a"), b" a");
        assert_eq!(bytes_of_name("<0xC3>"), [0xc3]);
    }

    #[test]
    fn runs_are_cut_where_nothing_is_joined() {
        let pieces = pieces(false);
        let joined = |run: &str, bytes| {
            let runs: Result<Vec<_>, _> = pieces.runs(run, bytes, usize::MAX).collect();
            let runs = runs.unwrap();
            assert_eq!(runs.concat(), run);
            let symbols = runs.iter().flat_map(|run| pieces.join(run)).map(str::to_owned);
            (runs.len(), symbols.collect::<Vec<_>>())
        };
        // Every text of six of these.
        let characters = ["a", "b", "c", BLANK, "x"];
        for text in 0..characters.len().pow(6) {
            let part =
                |place: u32| characters[text / characters.len().pow(place) % characters.len()];
            let run: String = (0..6).map(part).collect();
            assert_eq!(joined(&run, 1).1, joined(&run, usize::MAX).1, "{run}");
        }
        assert_eq!(joined("abcxabc", 1).0, 3);
        assert_eq!(joined("aaaaa", 1).0, 1);
        let long = pieces.encode_text(&"abc ".repeat(PIECE_BYTES), usize::MAX).unwrap();
        assert_eq!(long, [9, 15].repeat(PIECE_BYTES));
        let error = pieces.encode_text(&"a".repeat(PIECE_BYTES_MAX + 1), usize::MAX).unwrap_err();
        assert!(error.to_string().contains("put blanks into it"), "{error}");
    }
}
