//! Cuts long texts into pieces whose token ids, one after the other, are those of the whole.
//!
//! In: a tokenizer's way to find words, and the words added to it. Out: pieces. No added word, no step
//! before BPE and no token crosses the end of a piece. For some tokenizers no such place is known;
//! their texts must fit into one piece.

use std::collections::HashSet;
use std::sync::OnceLock;

use hyperrag_core::ModelError;
use serde_json::Value;
use tokenizers::Tokenizer as FastTokenizer;

use crate::tokenizer::spelling::{BLANK, spelled};
use crate::tokenizer::words::WORDS;

/// Number of bytes after which a piece ends at the next possible place.
pub(super) const PIECE_BYTES: usize = 64 << 10;

/// Largest size of a piece, in bytes.
pub(super) const PIECE_BYTES_MAX: usize = 1 << 20;

/// Largest size of a piece that goes through a pattern, in bytes. On a run of blanks, say, a pattern
/// goes back as many steps, of which expression engines take a million.
const MATCHED_BYTES_MAX: usize = 1 << 18;

/// Largest size of an added word for which text is cut, in bytes.
const WORD_BYTES_MAX: usize = 1 << 10;

/// Knows where the texts of a tokenizer can be cut.
pub(super) struct Cutter {
    places: Places,
    /// Added words, with blanks in SentencePiece's spelling.
    added: Vec<String>,
    /// Size of the longest added word, in bytes.
    reach: usize,
    /// Whether added words are looked for in composed text, so that they can be located in ASCII only.
    composed: bool,
    bytes: usize,
    bytes_max: usize,
}

enum Places {
    /// Places between a letter or digit and another kind of character. The known patterns end a word
    /// there, whatever stands further left or right. Some put a blank before a text that has none:
    /// their pieces must begin with one.
    Words { blank: bool },
    /// Places before a blank that no token joins with the character before it. If a blank is put before
    /// every text, the piece leaves out the one with which it would begin.
    Blanks { prepended: bool, neighbours: OnceLock<Neighbours> },
    /// No known place.
    None,
}

impl Cutter {
    /// Returns a cutter for a tokenizer that finds words by one of the [`WORDS`].
    pub(super) fn of_words(added: Vec<String>) -> Self {
        Self::new(Places::Words { blank: false }, added, false)
    }

    /// Returns a cutter for the definition in a `tokenizer.json`.
    pub(super) fn of_json(json: &Value) -> Self {
        let added = json["added_tokens"].as_array().map_or(&[][..], Vec::as_slice);
        let contents = added.iter().filter_map(|token| token["content"].as_str());
        let contents: Vec<String> = contents.map(str::to_owned).collect();
        let normalized = added.iter().any(|token| token["normalized"] == true);
        let Some(normalizers) = Normalizers::of(&json["normalizer"]) else {
            return Self::new(Places::None, contents, false);
        };
        let composed = normalizers.compose && normalized;
        Self::new(Places::of_json(json, &normalizers), contents, composed)
    }

    fn new(places: Places, added: Vec<String>, composed: bool) -> Self {
        let added: Vec<String> = added.iter().map(|word| spelled(word)).collect();
        let reach = added.iter().map(String::len).max().unwrap_or(0);
        let places = if reach > WORD_BYTES_MAX { Places::None } else { places };
        let bytes_max = match places {
            Places::Words { .. } => MATCHED_BYTES_MAX,
            Places::Blanks { .. } | Places::None => PIECE_BYTES_MAX,
        };
        Self { places, added, reach, composed, bytes: PIECE_BYTES, bytes_max }
    }

    /// Cuts `text` into pieces that `tokenizer` can encode one by one.
    ///
    /// # Errors
    /// [`ModelError`] if the next piece would be too long.
    pub(super) fn pieces<'a>(
        &'a self,
        text: &'a str,
        tokenizer: &'a FastTokenizer,
    ) -> impl Iterator<Item = Result<&'a str, ModelError>> {
        let skipped = usize::from(matches!(self.places, Places::Blanks { prepended: true, .. }));
        let place = move |text: &str| self.place(text, tokenizer);
        let sizes = [self.bytes, self.bytes_max];
        cut(text, sizes, skipped, place, |length| self.too_long(length))
    }

    /// Returns the end of the first piece of a text; `None` if it is the last piece.
    fn place(&self, text: &str, tokenizer: &FastTokenizer) -> Option<usize> {
        place(text, self.bytes, self.bytes_max, |at, before, after| {
            // Nothing is put before an empty text.
            let last = at + 1 == text.len();
            !last && self.places.have(before, after, tokenizer) && !self.touches_added(text, at)
        })
    }

    /// Whether an added word may end, begin or lie at this place, or after one blank.
    fn touches_added(&self, text: &str, at: usize) -> bool {
        let from = boundary(text, at.saturating_sub(self.reach));
        let to = boundary(text, at + self.reach + 4);
        if self.composed && !text[from..to].is_ascii() {
            return true;
        }
        let before = spelled(&text[from..at]);
        let window = [&before, spelled(&text[at..to]).as_str()].concat();
        let place = before.len();
        self.added.iter().filter(|word| !word.is_empty()).any(|word| {
            let found = window.match_indices(word.as_str());
            let mut found = found.map(|(start, _)| start);
            found.any(|start| start <= place + BLANK.len() && start + word.len() >= place)
        })
    }

    fn too_long(&self, length: usize) -> ModelError {
        let max = self.bytes_max;
        match self.places {
            Places::None => ModelError::Tokenizer(format!(
                "a text of {length} bytes, of which this tokenizer takes {max} at once, and it is \
                 not known where it can be cut: cut the text"
            )),
            _ => unbroken(max),
        }
    }
}

/// Cuts `text` into pieces. A piece ends at its `place`, and the next begins `skipped` bytes later. A
/// rest of at most `bytes`, or of at most `bytes_max` and without a place, is the last piece.
///
/// # Errors
/// [`ModelError`] that `too_long` makes of the length of a longer rest without a place.
pub(super) fn cut(
    text: &str,
    [bytes, bytes_max]: [usize; 2],
    skipped: usize,
    place: impl Fn(&str) -> Option<usize>,
    too_long: impl Fn(usize) -> ModelError,
) -> impl Iterator<Item = Result<&str, ModelError>> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest.take()?;
        if text.len() <= bytes {
            return Some(Ok(text));
        }
        match place(text) {
            Some(at) => {
                rest = Some(&text[at + skipped..]);
                Some(Ok(&text[..at]))
            }
            None if text.len() <= bytes_max => Some(Ok(text)),
            None => Some(Err(too_long(text.len()))),
        }
    })
}

/// Makes the error for a text with a long run of letters, of blanks or the like.
pub(super) fn unbroken(max: usize) -> ModelError {
    let what = format!("a text has {max} bytes without the end of a word: put blanks into it");
    ModelError::Tokenizer(what)
}

/// Returns the last boundary of characters up to byte `at`.
fn boundary(text: &str, at: usize) -> usize {
    let mut places = (0..=at.min(text.len())).rev();
    places.find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// Returns the first place from byte `from` on and before byte `end` that fits. `fits` gets the place
/// and the characters around it.
pub(super) fn place(
    text: &str,
    from: usize,
    end: usize,
    fits: impl Fn(usize, char, char) -> bool,
) -> Option<usize> {
    let (from, end) = (boundary(text, from), boundary(text, end));
    let mut before = text[..from].chars().next_back();
    text[from..end].char_indices().find_map(|(at, after)| {
        let before = before.replace(after)?;
        fits(from + at, before, after).then_some(from + at)
    })
}

impl Places {
    fn of_json(json: &Value, normalizers: &Normalizers) -> Self {
        let steps = steps(&json["pre_tokenizer"], "pretokenizers");
        let is = |step: &Value, kind: &str| step["type"] == kind;
        if !normalizers.spell && !normalizers.prepend {
            let known = |step: &&Value| match step["type"].as_str() {
                Some("ByteLevel" | "Digits") => true,
                Some("Split") => splits_words(step),
                _ => false,
            };
            let cuts = |step: &&Value| match is(step, "ByteLevel") {
                true => step["use_regex"] != false,
                false => is(step, "Split"),
            };
            if steps.iter().all(known) && steps.iter().any(cuts) {
                let blank =
                    |step: &&Value| is(step, "ByteLevel") && step["add_prefix_space"] != false;
                return Self::Words { blank: steps.iter().any(blank) };
            }
        }
        let metaspace = |step: &&Value| is(step, "Metaspace") && step["replacement"] == BLANK;
        let idle = |step: &&Value| {
            normalizers.spell && is(step, "Split") && step["pattern"]["String"] == " "
        };
        let spelled = normalizers.spell || steps.iter().any(metaspace);
        let once = !(normalizers.prepend && steps.iter().any(metaspace));
        let empty = |key: &str| json["model"][key].as_str().unwrap_or_default().is_empty();
        let plain = empty("continuing_subword_prefix") && empty("end_of_word_suffix");
        let known = steps.iter().all(|step| metaspace(step) || idle(step));
        match known && spelled && once && plain && json["model"]["type"] == "BPE" {
            true if !normalizers.compose => {
                Self::Blanks { prepended: normalizers.prepend, neighbours: OnceLock::new() }
            }
            _ => Self::None,
        }
    }

    /// Whether text can be cut between these two characters.
    fn have(&self, before: char, after: char, tokenizer: &FastTokenizer) -> bool {
        match self {
            Self::Words { blank } => {
                let number = !before.is_ascii_digit() && after.is_ascii_digit();
                let ends = after == ' ' || !blank && (number || ends_word(after));
                ends && is_letter_or_digit(before)
            }
            Self::Blanks { neighbours, .. } => {
                let neighbours = || neighbours.get_or_init(|| Neighbours::of(tokenizer));
                after == ' ' && neighbours().are_apart(before)
            }
            Self::None => false,
        }
    }
}

/// Whether a step of type `Split` has a known pattern and keeps words apart.
fn splits_words(step: &Value) -> bool {
    let pattern = step["pattern"]["Regex"].as_str().unwrap_or_default();
    WORDS.contains(&pattern) && (step["behavior"] == "Isolated" || step["behavior"] == "Removed")
}

/// Steps of the known normalizers.
#[derive(Default)]
struct Normalizers {
    compose: bool,
    spell: bool,
    prepend: bool,
}

impl Normalizers {
    fn of(json: &Value) -> Option<Self> {
        let mut all = Self::default();
        for step in steps(json, "normalizers") {
            match step["type"].as_str()? {
                "NFC" | "NFD" | "NFKC" | "NFKD" => all.compose = true,
                "Replace" if step["pattern"]["String"] == " " && step["content"] == BLANK => {
                    all.spell = true;
                }
                "Prepend" if step["prepend"] == BLANK && !all.prepend => all.prepend = true,
                _ => return None,
            }
        }
        Some(all)
    }
}

/// Lists the steps of a part of a tokenizer, which may be a sequence of them.
fn steps<'a>(part: &'a Value, key: &str) -> Vec<&'a Value> {
    match part {
        Value::Null => Vec::new(),
        _ if part["type"] == "Sequence" => {
            let parts = part[key].as_array().map_or(&[][..], Vec::as_slice);
            parts.iter().flat_map(|part| steps(part, key)).collect()
        }
        _ => vec![part],
    }
}

/// Characters of a vocabulary, by their neighbours in tokens.
struct Neighbours {
    /// Characters that are tokens by themselves.
    alone: HashSet<char>,
    /// Characters that stand before a blank in a token.
    joined: HashSet<char>,
}

impl Neighbours {
    fn of(tokenizer: &FastTokenizer) -> Self {
        let (mut alone, mut joined) = (HashSet::new(), HashSet::new());
        for token in tokenizer.get_vocab(false).keys() {
            let mut characters = token.chars();
            if let (Some(character), None) = (characters.next(), characters.next()) {
                alone.insert(character);
            }
            let blanks = token.match_indices(BLANK);
            joined.extend(blanks.filter_map(|(at, _)| token[..at].chars().next_back()));
        }
        Self { alone, joined }
    }

    /// Whether no token has this character and then a blank. A character that is no token becomes bytes
    /// or the unknown token, which may join with what follows.
    fn are_apart(&self, before: char) -> bool {
        let blank = BLANK.chars().all(|blank| self.alone.contains(&blank));
        blank && self.alone.contains(&before) && !self.joined.contains(&before)
    }
}

/// Whether this is a letter (`\p{L}`) or digit of a script in wide use, in every edition of Unicode.
fn is_letter_or_digit(character: char) -> bool {
    character.is_ascii_alphanumeric()
        || matches!(
            character,
            'À'..='Ö' | 'Ø'..='ö' | 'ø'..='ɏ' | 'Α'..='Ρ' | 'Σ'..='ω' | 'А'..='я'
                | 'א'..='ת' | 'ء'..='غ' | 'ف'..='ي' | 'अ'..='ह' | 'ก'..='ะ'
                | 'ぁ'..='ゖ' | 'ァ'..='ヺ' | '一'..='龥' | '가'..='힣'
        )
}

/// Whether this is neither a letter nor a digit, and never part of the character before it or of words
/// such as `it's`.
fn ends_word(character: char) -> bool {
    match character {
        '\'' | '_' => false,
        '、' | '。' | '，' | '！' | '？' | '；' | '：' => true,
        _ => character.is_ascii_punctuation() || matches!(character, '\t' | '\n' | '\r'),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::tokenizer::spelling::byte_characters;

    /// Parts of texts: all kinds of characters that patterns tell apart, and added words.
    const PARTS: [&str; 40] = [
        "a",
        "the",
        "hive",
        "Hive",
        "ß",
        "é",
        "e\u{301}",
        "ก",
        "กี่",
        "漢",
        "字",
        "가",
        "한",
        "1",
        "23",
        "x2",
        "½",
        " ",
        "  ",
        "    ",
        "\n",
        "\r\n",
        "\t",
        "\u{a0}",
        "\u{3000}",
        ",",
        ".",
        "-",
        "'s",
        "'",
        "_",
        "，",
        "。",
        "「",
        "<t>",
        "<s>",
        "hive 2",
        "\u{2581}",
        "🐝",
        "\u{338}",
    ];

    fn text() -> impl Strategy<Value = String> {
        let part =
            (prop::sample::select(PARTS.to_vec()), prop::sample::select(vec![1, 1, 1, 2, 9]));
        let part = part.prop_map(|(part, times)| part.repeat(times));
        prop::collection::vec(part, 0..60).prop_map(|parts| parts.concat())
    }

    fn word(content: &str, flags: u8, special: bool) -> Value {
        let flag = |bit: u8| flags >> bit & 1 == 1;
        json!({
            "id": 0, "content": content, "single_word": flag(0), "lstrip": flag(1),
            "rstrip": flag(2), "normalized": flag(3), "special": special,
        })
    }

    /// Makes a tokenizer with these steps, over bytes or over characters and blanks, with some merges.
    fn definition(normalizer: &Value, pre_tokenizer: &Value, flags: u8) -> Value {
        let bytes = pre_tokenizer.to_string().contains("ByteLevel");
        let (alone, merges): (Vec<char>, _) = match bytes {
            true => {
                (byte_characters().collect(), vec!["t h", "th e", "Ġ a", "Ġ Ġ", "i v", "Ġ the"])
            }
            false => {
                let alone = "\u{2581}<s>athevi12xé漢字가,.'-".chars();
                let merges =
                    vec!["t h", "th e", "\u{2581} a", "\u{2581} \u{2581}", "i v", "e \u{2581}"];
                (alone.collect(), merges)
            }
        };
        let alone = alone.iter().map(char::to_string);
        let joined = merges.iter().map(|merge| merge.replace(' ', ""));
        let tokens = ["<unk>".to_owned()].into_iter().chain(alone).chain(joined);
        let mut vocabulary = serde_json::Map::new();
        for token in tokens {
            let id = vocabulary.len();
            vocabulary.entry(token).or_insert(json!(id));
        }
        json!({
            "version": "1.0",
            "added_tokens": [
                word("hive", flags, false), word("<t>", flags, false), word("hive 2", flags, false),
                word("<s>", 0, true),
            ],
            "normalizer": normalizer, "pre_tokenizer": pre_tokenizer,
            "model": {
                "type": "BPE", "vocab": vocabulary, "merges": merges, "unk_token": "<unk>",
                "fuse_unk": true,
            },
        })
    }

    /// Lists the known tokenizers, as their files define them.
    fn known() -> Vec<(&'static str, Value, Value)> {
        let split = |pattern: &str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
        let bytes = |regex: bool, blank: bool| {
            json!({
                "type": "ByteLevel", "add_prefix_space": blank, "trim_offsets": true,
                "use_regex": regex,
            })
        };
        let both = |a: &Value, b: &Value| json!({"type": "Sequence", "pretokenizers": [a, b]});
        let digits = json!({"type": "Digits", "individual_digits": true});
        let spell = json!({"type": "Replace", "pattern": {"String": " "}, "content": BLANK});
        let prepend = json!({"type": "Prepend", "prepend": BLANK});
        let llama2 = json!({"type": "Sequence", "normalizers": [prepend, spell]});
        let meta = |scheme: &str, split: bool| json!({"type": "Metaspace", "replacement": BLANK, "prepend_scheme": scheme, "split": split});
        let idle = json!({
            "type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious",
            "invert": false,
        });
        let (nfc, none) = (json!({"type": "NFC"}), Value::Null);
        let mut all = vec![
            ("gpt-2", none.clone(), bytes(true, false)),
            ("gpt-2 with a blank", none.clone(), bytes(true, true)),
            ("smollm", none.clone(), both(&digits, &bytes(true, false))),
            ("qwen2", nfc, both(&split(WORDS[2]), &bytes(false, false))),
            ("llama-2", llama2, none.clone()),
            ("gemma", spell, idle),
            ("never", none.clone(), meta("never", false)),
            ("first", none.clone(), meta("first", false)),
            ("always", none.clone(), meta("always", false)),
            ("split", none.clone(), meta("always", true)),
        ];
        let words = ["0", "llama-3", "qwen2 without NFC", "tekken"].into_iter().zip(WORDS);
        all.extend(
            words.map(|(name, words)| {
                (name, none.clone(), both(&split(words), &bytes(false, false)))
            }),
        );
        all
    }

    #[test]
    fn pieces_have_the_tokens_of_the_whole() {
        for (name, normalizer, pre_tokenizer) in known() {
            for flags in [0, 1, 2, 4, 8, 6, 14] {
                let json = definition(&normalizer, &pre_tokenizer, flags);
                let mut cutter = Cutter::of_json(&json);
                let mut tokenizer: FastTokenizer = serde_json::from_value(json).unwrap();
                tokenizer.set_encode_special_tokens(true);
                (cutter.bytes, cutter.bytes_max) = (7, usize::MAX);
                let encode =
                    |text: &str| tokenizer.encode_fast(text, false).unwrap().get_ids().to_vec();
                let cuts = std::cell::Cell::new(0);
                let config = ProptestConfig {
                    cases: 60,
                    failure_persistence: None,
                    ..ProptestConfig::default()
                };
                let mut runner = proptest::test_runner::TestRunner::new(config);
                let run = runner.run(&text(), |text| {
                    let pieces: Vec<&str> =
                        cutter.pieces(&text, &tokenizer).collect::<Result<_, _>>().unwrap();
                    cuts.set(cuts.get() + pieces.len() - 1);
                    let ids: Vec<u32> = pieces.iter().flat_map(|piece| encode(piece)).collect();
                    prop_assert_eq!(ids, encode(&text), "{} {} {:?}", name, flags, pieces);
                    Ok(())
                });
                run.unwrap();
                assert!(cuts.get() > 5, "{name} {flags}: {} cuts", cuts.get());
            }
        }
    }

    #[test]
    fn long_runs_and_unknown_tokenizers_are_refused() {
        let refused = |json: &Value, text: &str| {
            let cutter = Cutter::of_json(json);
            let tokenizer = serde_json::from_value(json.clone()).unwrap();
            let pieces: Result<Vec<&str>, _> = cutter.pieces(text, &tokenizer).collect();
            pieces
                .map(|pieces| assert!(pieces.iter().all(|piece| piece.len() < 2 * PIECE_BYTES)))
                .err()
                .map(|error| error.to_string())
        };
        for (name, normalizer, pre_tokenizer) in known() {
            let json = definition(&normalizer, &pre_tokenizer, 0);
            let prose = "a hive, the ".repeat(PIECE_BYTES_MAX / 8);
            assert_eq!(refused(&json, &prose), None, "{name}");
            let error = refused(&json, &"a".repeat(PIECE_BYTES_MAX + 1)).unwrap();
            assert!(error.contains("put blanks into it"), "{name}: {error}");
        }
        let unknown = json!({"type": "Punctuation", "behavior": "MergedWithNext"});
        let json = definition(&Value::Null, &unknown, 0);
        assert_eq!(refused(&json, &"a b ".repeat(1000)), None);
        let error = refused(&json, &"a b ".repeat(PIECE_BYTES_MAX)).unwrap();
        assert!(error.contains("not known where it can be cut"), "{error}");
    }
}
