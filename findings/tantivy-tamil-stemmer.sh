#!/usr/bin/env bash
# tantivy 0.27.0 (crates.io, features `stemmer`): the library has a stemmer for Tamil, but its usual tokenizer
# cuts Tamil words at the sign that takes a consonant's vowel away (U+0BCD, which most words have), so the
# stemmer only ever gets pieces. SimpleTokenizer keeps `char::is_alphanumeric` and cuts everywhere else, and
# that sign is a mark, not a letter. A decomposed accent cuts a word in the same way.
#
# Seen: the word for "books" (one word) becomes three tokens before the stemmer, and the three pieces stay
# as they are; "re\u0301sume\u0301" becomes "re", "sume"; composed it is one token.
#
# Fails if that changes. Needs cargo; compiles tantivy (about two minutes on two cores).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cargo init -q --name words
cat >> Cargo.toml <<'TOML'
tantivy = { version = "=0.27.0", default-features = false, features = ["stemmer"] }
TOML
cat > src/main.rs <<'RUST'
use tantivy::tokenizer::{Language, LowerCaser, SimpleTokenizer, Stemmer, TextAnalyzer};

fn words(text: &str, language: Language) -> Vec<String> {
    let mut analyzer = TextAnalyzer::builder(SimpleTokenizer::default())
        .filter(LowerCaser)
        .filter(Stemmer::new(language))
        .build();
    let (mut stream, mut words) = (analyzer.token_stream(text), Vec::new());
    while stream.advance() {
        words.push(stream.token().text.clone());
    }
    words
}

fn main() {
    let books = "\u{0baa}\u{0bc1}\u{0ba4}\u{0bcd}\u{0ba4}\u{0b95}\u{0b99}\u{0bcd}\u{0b95}\u{0bb3}\u{0bcd}";
    let pieces: Vec<&str> = books.split('\u{0bcd}').filter(|piece| !piece.is_empty()).collect();
    let found = words(books, Language::Tamil);
    println!("{books}: {found:?}");
    assert_eq!(found, pieces);
    assert_eq!(found.len(), 3);
    let [composed, decomposed] = ["r\u{e9}sum\u{e9}", "re\u{301}sume\u{301}"];
    let (one, two) = (words(composed, Language::English), words(decomposed, Language::English));
    println!("{composed}: {one:?}; decomposed: {two:?}");
    assert_eq!((one.len(), two.len()), (1, 2));
}
RUST
cargo run -q
