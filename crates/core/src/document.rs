//! Documents, chunks and the ids and keys that name them: text and token ids come in, checked values go out.
//! Knows neither the files of a corpus nor the tokenizer.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::fingerprint::Digest;

/// Largest length of a document id, in bytes.
pub const ID_BYTES_MAX: usize = 512;

/// Name that the corpus gives a document, see [`check_id`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DocId(Arc<str>);

/// Reason why a string is no id of a document or of a query.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidId {
    /// The id has no characters.
    #[error("the id is empty")]
    Empty,
    /// The id is longer than [`ID_BYTES_MAX`].
    #[error("the id has {bytes} bytes, at most {ID_BYTES_MAX} are allowed")]
    TooLong {
        /// Length of the id.
        bytes: usize,
    },
    /// The id has a blank of any kind, such as that of U+0020, U+00A0 or U+3000.
    #[error("the id {id:?} contains a blank, which parts the fields of runs and judgements")]
    Blank {
        /// The id.
        id: String,
    },
    /// The id has a tab, a line end or another control character, which no run file could hold.
    #[error("the id {id:?} contains a control character")]
    Control {
        /// The id.
        id: String,
    },
}

/// Checks the id of a document, or of a query: 1 to [`ID_BYTES_MAX`] bytes without blanks, which are the
/// characters of Unicode's property White_Space, and without control characters. So runs and judgements hold
/// every id as it is.
///
/// # Errors
/// [`InvalidId`].
pub fn check_id(id: &str) -> Result<(), InvalidId> {
    check_stored(id)?;
    match id.contains(char::is_whitespace) {
        true => Err(InvalidId::Blank { id: id.to_owned() }),
        false => Ok(()),
    }
}

fn check_stored(id: &str) -> Result<(), InvalidId> {
    if id.is_empty() {
        return Err(InvalidId::Empty);
    }
    if id.len() > ID_BYTES_MAX {
        return Err(InvalidId::TooLong { bytes: id.len() });
    }
    if id.contains(char::is_control) {
        return Err(InvalidId::Control { id: id.to_owned() });
    }
    Ok(())
}

impl DocId {
    /// Checks `id` and copies it.
    ///
    /// # Errors
    /// The errors of [`check_id`].
    pub fn new(id: &str) -> Result<Self, InvalidId> {
        check_id(id)?;
        Ok(Self(id.into()))
    }

    /// Copies an id that a store has: those that were made before the rule of [`check_id`] may have blanks.
    ///
    /// # Errors
    /// [`InvalidId`] if it is empty, too long, or holds a control character.
    pub fn stored(id: &str) -> Result<Self, InvalidId> {
        check_stored(id)?;
        Ok(Self(id.into()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DocId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A document of the corpus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Name of the document, unique in the corpus.
    pub id: DocId,
    /// Title, empty if there is none.
    pub title: String,
    /// Text without the title.
    pub text: String,
}

/// Field of a document that a corpus gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DocumentField {
    /// Id of the document.
    Id,
    /// Title of the document. A corpus need not have titles.
    Title,
    /// Text of the document.
    Text,
}

impl fmt::Display for DocumentField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Id => "id",
            Self::Title => "title",
            Self::Text => "text",
        })
    }
}

/// Id of a chunk: its document and its place in that document.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChunkId {
    /// The document.
    pub document: DocId,
    /// Place of the chunk in its document, counted from 0.
    pub ordinal: u32,
}

impl fmt::Display for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chunk {} of document {}", self.ordinal, self.document)
    }
}

/// A piece of a document as token ids, prefix, title and infix included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Document and place of the piece.
    pub id: ChunkId,
    /// Token ids in order: position `i` of the block belongs to `tokens[i]`.
    pub tokens: Vec<u32>,
}

impl Chunk {
    /// Digest of fingerprint, document, ordinal and token ids, to which a block is bound. A block read from
    /// the wrong place, or made from other tokens, has another identity.
    #[must_use]
    pub fn identity(&self, fingerprint: &Digest) -> Digest {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&fingerprint.0);
        let id = self.id.document.as_str().as_bytes();
        hasher.update(&(id.len() as u64).to_le_bytes());
        hasher.update(id);
        hasher.update(&self.id.ordinal.to_le_bytes());
        for token in &self.tokens {
            hasher.update(&token.to_le_bytes());
        }
        Digest(*hasher.finalize().as_bytes())
    }
}

/// Number of a shard and of the corpus unit that it holds, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ShardId(pub u32);

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:06}", self.0)
    }
}

/// Place of a block in its shard, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

/// Place of a block and the chunk that it must belong to. A reader finds the block by its place and checks
/// the chunk.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BlockKey {
    /// Shard that holds the block.
    pub shard: ShardId,
    /// Place of the block in the shard.
    pub slot: Slot,
    /// Chunk that the block must belong to.
    pub chunk: ChunkId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_checked() {
        for id in
            ["MED-10", "<dbpedia:Caffè_(album)>", "a/b?c=%20&d", "蜜蜂", "e\u{301}", "a\u{200b}"]
        {
            assert!(DocId::new(id).is_ok(), "{id}");
        }
        for id in ["my doc", "a ", "\u{3000}", "a\u{a0}b", "a\u{2028}b", "a\u{202f}b"] {
            assert_eq!(DocId::new(id), Err(InvalidId::Blank { id: id.to_owned() }));
            assert_eq!(DocId::stored(id).unwrap().as_str(), id);
        }
        let of_both = [DocId::new, DocId::stored];
        for checked in of_both {
            assert_eq!(checked(""), Err(InvalidId::Empty));
            assert!(matches!(checked("a\tb"), Err(InvalidId::Control { .. })));
            assert!(matches!(checked("a\u{85}b"), Err(InvalidId::Control { .. })));
            assert_eq!(checked(&"x".repeat(513)), Err(InvalidId::TooLong { bytes: 513 }));
        }
    }

    #[test]
    fn identity_depends_on_every_part() {
        let chunk = |id: &str, ordinal, tokens: &[u32]| Chunk {
            id: ChunkId { document: DocId::new(id).unwrap(), ordinal },
            tokens: tokens.to_vec(),
        };
        let store = Digest([1; 32]);
        let base = chunk("a", 0, &[1, 2]).identity(&store);
        assert_eq!(base, chunk("a", 0, &[1, 2]).identity(&store));
        assert_ne!(base, chunk("b", 0, &[1, 2]).identity(&store));
        assert_ne!(base, chunk("a", 1, &[1, 2]).identity(&store));
        assert_ne!(base, chunk("a", 0, &[1, 3]).identity(&store));
        assert_ne!(base, chunk("a", 0, &[1, 2]).identity(&Digest([2; 32])));
    }
}
