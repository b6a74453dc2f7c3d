//! Cuts documents into chunks of a fixed length: a document, a profile and a tokenizer come in, token ids go
//! out. Knows neither files nor the model.

use std::borrow::Cow;

use hyperrag_core::{
    Chunk, ChunkId, Classified, DocId, Document, ErrorKind, FixedPositions, Hint, ModelError,
    Profile, TITLE_TOKENS_MAX, Tokenize,
};

/// Smallest number of text tokens that must fit into a chunk after the longest title.
pub const TEXT_TOKENS_MIN: usize = 16;

/// Largest number of tokens that a byte of text becomes. A tokenizer has at most one a byte; Unicode's composed
/// forms (NFC) may be three times as long as the text.
const TOKENS_A_BYTE_MAX: u64 = 4;

/// Cuts documents into chunks of at most a fixed number of positions.
///
/// A chunk is `prefix title separator text infix`, or `prefix text infix` if the profile has no title. The
/// text is tokenised as a whole and cut on token boundaries, without overlap. Each piece is as long as fits.
/// The other parts are equal in all chunks of a document.
pub struct Chunker<'a> {
    tokenizer: &'a dyn Tokenize,
    prefix: Vec<u32>,
    /// A blank, or nothing, that is tokenised with the text after the prefix.
    prefix_blank: &'static str,
    /// `None` if the title is left out.
    separator: Option<Vec<u32>>,
    separator_blank: &'static str,
    infix: Vec<u32>,
    chunk_tokens: usize,
}

/// Reason why a profile does not suit a chunk length or a tokenizer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChunkError {
    /// Too little is left for text.
    #[error(
        "all but the text may take {pieces} of {chunk_tokens} positions, which leaves fewer than \
         {TEXT_TOKENS_MIN} for it"
    )]
    NoRoom {
        /// Positions of the profile's pieces and the longest title.
        pieces: usize,
        /// Positions of a chunk.
        chunk_tokens: usize,
    },
    /// A piece of the profile cannot be tokenised.
    #[error("the profile's {piece} {text:?} cannot be tokenised: change it in the profile")]
    Template {
        /// `prefix`, `separator` or `infix`.
        piece: &'static str,
        /// Text of the piece.
        text: String,
        /// Cause.
        #[source]
        source: ModelError,
    },
}

impl Classified for ChunkError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoRoom { .. } => ErrorKind::Input,
            Self::Template { source, .. } => source.kind(),
        }
    }

    fn hint(&self) -> Option<Hint> {
        match self {
            Self::NoRoom { .. } => Some(Hint::LongerChunks),
            Self::Template { source, .. } => source.hint(),
        }
    }
}

impl<'a> Chunker<'a> {
    /// Tokenises the profile's pieces, once for all documents.
    ///
    /// # Errors
    /// [`ChunkError`] if the pieces leave less than [`TEXT_TOKENS_MIN`] positions for text.
    pub fn new(
        tokenizer: &'a dyn Tokenize,
        profile: &Profile,
        chunk_tokens: usize,
    ) -> Result<Self, ChunkError> {
        let encode = |piece, text: &str| {
            tokenizer.encode_template(text).map_err(|source| ChunkError::Template {
                piece,
                text: text.to_owned(),
                source,
            })
        };
        let (prefix, prefix_blank) = profile.piece(&profile.prefix);
        let prefix = encode("prefix", prefix)?;
        let separator = profile.separator.as_deref().map(|text| profile.piece(text));
        let separator_blank = separator.map_or("", |(_, blank)| blank);
        let separator = separator.map(|(text, _)| encode("separator", text)).transpose()?;
        let infix = encode("infix", &profile.infix)?;
        let title = separator.as_ref().map_or(0, |separator| TITLE_TOKENS_MAX + separator.len());
        let pieces = prefix.len() + title + infix.len();
        if pieces + TEXT_TOKENS_MIN > chunk_tokens {
            return Err(ChunkError::NoRoom { pieces, chunk_tokens });
        }
        Ok(Self {
            tokenizer,
            prefix,
            prefix_blank,
            separator,
            separator_blank,
            infix,
            chunk_tokens,
        })
    }

    /// Returns the numbers of positions at both ends of a chunk that hold the profile's own words.
    #[must_use]
    pub fn fixed(&self) -> FixedPositions {
        FixedPositions { first: self.prefix.len() as u32, last: self.infix.len() as u32 }
    }

    /// Cuts a document into chunks. A document with only a title has one chunk. One with neither title nor
    /// text has none; blanks do not count, nor does a title that the profile leaves out.
    ///
    /// # Errors
    /// [`ModelError`] if the tokenizer fails.
    pub fn chunks(&self, document: &Document) -> Result<Vec<Chunk>, ModelError> {
        let mut title = Vec::new();
        if let Some(separator) = &self.separator {
            if !document.title.trim().is_empty() {
                let words = [self.prefix_blank, &document.title].concat();
                title = self.tokenizer.encode_start(&words, TITLE_TOKENS_MAX)?;
            }
            if !title.is_empty() {
                title.extend_from_slice(separator);
            }
        }
        let blank = if title.is_empty() { self.prefix_blank } else { self.separator_blank };
        let start = [self.prefix.as_slice(), &title].concat();
        let mut cut = Cut {
            start: &start,
            infix: &self.infix,
            chunk_tokens: self.chunk_tokens,
            chunks: Vec::new(),
        };
        if !document.text.trim().is_empty() {
            let text = with_blank(blank, &document.text);
            self.tokenizer.encode_parts(&text, &mut |part| cut.add(part))?;
        }
        if cut.chunks.is_empty() && !title.is_empty() {
            cut.begin();
        }
        Ok(cut.finish(&document.id))
    }

    /// Tokenises a document without keeping anything of it. Returns whether it has a chunk.
    ///
    /// # Errors
    /// The errors of [`Chunker::chunks`].
    pub fn check(&self, document: &Document) -> Result<bool, ModelError> {
        if !document.text.trim().is_empty() {
            let text = with_blank(self.prefix_blank, &document.text);
            self.tokenizer.encode_parts(&text, &mut |_| ())?;
        }
        Ok(!self.is_blank(document))
    }

    /// Returns more positions than the chunks of a document have, without tokenising it.
    #[must_use]
    pub fn tokens_bound(&self, document: &Document) -> u64 {
        let title = self.separator.as_ref().map_or(0, |words| TITLE_TOKENS_MAX + words.len());
        let around = self.prefix.len() + title + self.infix.len();
        let text = (document.text.len() as u64 + 1).saturating_mul(TOKENS_A_BYTE_MAX);
        let chunks = text / (self.chunk_tokens - around).max(1) as u64 + 1;
        text.saturating_add(chunks.saturating_mul(around as u64))
    }

    /// Whether the document has neither text nor a title that the profile uses.
    #[must_use]
    pub fn is_blank(&self, document: &Document) -> bool {
        let title = if self.separator.is_some() { document.title.as_str() } else { "" };
        title.trim().is_empty() && document.text.trim().is_empty()
    }
}

/// Puts a blank, or nothing, before a text. A long text is copied only for a blank.
fn with_blank<'a>(blank: &str, text: &'a str) -> Cow<'a, str> {
    if blank.is_empty() { Cow::Borrowed(text) } else { Cow::Owned([blank, text].concat()) }
}

/// Chunks of a document that are being cut. Its token ids are held once, in the chunks.
struct Cut<'a> {
    start: &'a [u32],
    infix: &'a [u32],
    chunk_tokens: usize,
    chunks: Vec<Vec<u32>>,
}

impl Cut<'_> {
    /// Adds token ids of the text.
    fn add(&mut self, mut part: &[u32]) {
        let end = self.chunk_tokens - self.infix.len();
        while !part.is_empty() {
            let full = self.chunks.last().is_none_or(|chunk| chunk.len() == end);
            if full {
                self.begin();
            }
            let Some(chunk) = self.chunks.last_mut() else { return };
            let (taken, rest) = part.split_at(part.len().min(end - chunk.len()));
            chunk.extend_from_slice(taken);
            part = rest;
        }
    }

    /// Begins the next chunk.
    fn begin(&mut self) {
        let mut chunk = Vec::with_capacity(self.chunk_tokens);
        chunk.extend_from_slice(self.start);
        self.chunks.push(chunk);
    }

    fn finish(self, document: &DocId) -> Vec<Chunk> {
        let chunks = (0_u32..).zip(self.chunks).map(|(ordinal, mut tokens)| {
            tokens.extend_from_slice(self.infix);
            // The last one of a short document would keep room for the longest.
            tokens.shrink_to_fit();
            Chunk { id: ChunkId { document: document.clone(), ordinal }, tokens }
        });
        chunks.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Tokenizer with one token a character. Template tokens differ from text tokens.
    struct Characters;

    const TEMPLATE: u32 = 1 << 24;

    impl Tokenize for Characters {
        fn encode_text(&self, text: &str) -> Result<Vec<u32>, ModelError> {
            Ok(text.chars().map(u32::from).collect())
        }

        fn encode_parts(&self, text: &str, give: &mut dyn FnMut(&[u32])) -> Result<(), ModelError> {
            // Parts of all sizes, an empty one too.
            let (tokens, mut from) = (self.encode_text(text)?, 0);
            for size in (0..).map(|round: usize| round * round * 7 % 101) {
                let to = tokens.len().min(from + size);
                give(&tokens[from..to]);
                from = to;
                if from == tokens.len() {
                    return Ok(());
                }
            }
            Ok(())
        }

        fn encode_template(&self, text: &str) -> Result<Vec<u32>, ModelError> {
            if text.contains('!') {
                return Err(ModelError::Tokenizer("no exclamation".into()));
            }
            Ok(text.chars().map(|c| u32::from(c) + TEMPLATE).collect())
        }
    }

    fn profile(prefix: &str, separator: &str, infix: &str) -> Profile {
        Profile {
            bos: false,
            lead: None,
            join_blanks: false,
            name: "test".into(),
            prefix: prefix.into(),
            separator: Some(separator.into()),
            infix: infix.into(),
            query_prefix: String::new(),
            query_suffix: String::new(),
            scorer: hyperrag_core::ScorerSpec::QueryLikelihood,
        }
    }

    fn document(title: &str, text: &str) -> Document {
        Document { id: DocId::new("d").unwrap(), title: title.into(), text: text.into() }
    }

    /// Turns tokens back into text.
    fn text_of(chunk: &Chunk) -> String {
        chunk.tokens.iter().map(|token| char::from_u32(token % TEMPLATE).unwrap()).collect()
    }

    #[test]
    fn chunks_have_all_parts() {
        let profile = profile("<P>", ": ", "<I>");
        let chunker = Chunker::new(&Characters, &profile, 100).unwrap();
        let check = |title: &str, text: &str, expected: &[&str]| {
            let chunks = chunker.chunks(&document(title, text)).unwrap();
            let texts: Vec<String> = chunks.iter().map(text_of).collect();
            assert_eq!(texts, expected, "{title:?} {text:?}");
        };
        check("", "", &[]);
        check(" \n", "\t", &[]);
        check("T", "", &["<P>T: <I>"]);
        check("T", "  ", &["<P>T: <I>"]);
        check("", "text", &["<P>text<I>"]);
        check(" ", " text ", &["<P> text <I>"]);
        check(" T ", "text", &["<P> T : text<I>"]);
        let (a, b) = ("a".repeat(94), "b".repeat(94));
        check("", &a, &[&format!("<P>{a}<I>")]);
        check("", &format!("{a}{b}c"), &[&format!("<P>{a}<I>"), &format!("<P>{b}<I>"), "<P>c<I>"]);
        let title = "t".repeat(64);
        let (c, d) = ("c".repeat(28), "d".repeat(3));
        check(
            &format!("{title}uvw"),
            &format!("{c}{d}"),
            &[&format!("<P>{title}: {c}<I>"), &format!("<P>{title}: {d}<I>")],
        );
    }

    #[test]
    fn the_bound_is_more_than_the_chunks_have() {
        let profile = profile("<P>", ": ", "<I>");
        for chunk_tokens in [88, 100, 1000] {
            let chunker = Chunker::new(&Characters, &profile, chunk_tokens).unwrap();
            for (title, text) in [("", 0), ("", 1), ("T", 30), ("a title", 5000), ("t", 90_000)] {
                let document = document(title, &"x".repeat(text));
                let chunks = chunker.chunks(&document).unwrap();
                let tokens: usize = chunks.iter().map(|chunk| chunk.tokens.len()).sum();
                let bound = chunker.tokens_bound(&document);
                assert!(bound >= tokens as u64, "{chunk_tokens} {text}: {bound} {tokens}");
            }
        }
    }

    #[test]
    fn a_profile_without_a_title_leaves_it_out() {
        let profile = Profile { separator: None, ..profile("<P>", "", "<I>") };
        // The text gets the room of the title.
        let chunker = Chunker::new(&Characters, &profile, 22).unwrap();
        let check = |title: &str, text: &str, expected: &[&str]| {
            let chunks = chunker.chunks(&document(title, text)).unwrap();
            assert_eq!(chunks.iter().map(text_of).collect::<Vec<_>>(), expected, "{title:?}");
        };
        check("T", "text", &["<P>text<I>"]);
        check("T", "", &[]);
        assert!(chunker.is_blank(&document("T", " ")) && !chunker.is_blank(&document("", "a")));
        let a = "a".repeat(16);
        check("T", &format!("{a}b"), &[&format!("<P>{a}<I>"), "<P>b<I>"]);
    }

    #[test]
    fn a_profile_without_room_is_refused() {
        let check = |chunk_tokens, fits| {
            let profile = profile("<P>", ": ", "<I>");
            let error = Chunker::new(&Characters, &profile, chunk_tokens).err();
            assert_eq!(error.is_none(), fits, "{chunk_tokens}");
            if let Some(error) = error {
                let message = error.to_string();
                assert!(
                    message.contains(&format!("may take 72 of {chunk_tokens} positions")),
                    "{message}"
                );
                assert_eq!(error.hint(), Some(Hint::LongerChunks));
            }
        };
        check(0, false);
        check(87, false);
        check(88, true);
    }

    #[test]
    fn a_template_that_is_not_tokenised_is_named() {
        let error = Chunker::new(&Characters, &profile("a", "b", "c!"), 256).err().unwrap();
        assert!(error.to_string().contains("infix \"c!\""), "{error}");
    }

    #[test]
    fn built_in_profiles_have_room() {
        for name in Profile::BUILT_IN {
            assert!(Chunker::new(&Characters, &Profile::built_in(name).unwrap(), 256).is_ok());
        }
    }

    proptest! {
        #[test]
        fn pieces_are_the_whole_text(
            title in "\\PC{0,80}",
            text in "\\PC{0,600}",
            prefix in "\\PC{0,9}",
            separator in "\\PC{0,9}",
            infix in "\\PC{0,9}",
            chunk_tokens in 107_usize..200,
        ) {
            let template = |text: &str| text.replace('!', "");
            let profile = profile(&template(&prefix), &template(&separator), &template(&infix));
            let chunker = Chunker::new(&Characters, &profile, chunk_tokens).unwrap();
            let document = document(&title, &text);
            let chunks = chunker.chunks(&document).unwrap();
            let mut title_tokens = Vec::new();
            if !title.trim().is_empty() {
                title_tokens = Characters.encode_text(&title).unwrap();
                title_tokens.truncate(TITLE_TOKENS_MAX);
                let separator = profile.separator.as_deref().unwrap();
                title_tokens.extend(Characters.encode_template(separator).unwrap());
            }
            let start = [Characters.encode_template(&profile.prefix).unwrap(), title_tokens.clone()].concat();
            let end = Characters.encode_template(&profile.infix).unwrap();
            let mut pieces = Vec::new();
            for (index, chunk) in chunks.iter().enumerate() {
                prop_assert_eq!(chunk.id.ordinal as usize, index);
                prop_assert_eq!(&chunk.id.document, &document.id);
                prop_assert!(chunk.tokens.len() <= chunk_tokens);
                prop_assert!(chunk.tokens.len() == chunk_tokens || index + 1 == chunks.len());
                prop_assert!(chunk.tokens.starts_with(&start));
                prop_assert!(chunk.tokens.ends_with(&end));
                pieces.extend_from_slice(&chunk.tokens[start.len()..chunk.tokens.len() - end.len()]);
            }
            let mut expected = Vec::new();
            if !text.trim().is_empty() {
                expected = Characters.encode_text(&text).unwrap();
            }
            prop_assert_eq!(pieces, expected);
            prop_assert_eq!(chunks.is_empty(), chunker.is_blank(&document));
            prop_assert_eq!(chunker.check(&document).unwrap(), !chunks.is_empty());
        }
    }
}
