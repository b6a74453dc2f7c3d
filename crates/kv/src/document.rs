use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Digest;

/// The longest document id accepted, in bytes.
pub const ID_BYTES_MAX: usize = 512;

/// A document's name as the corpus gives it: 1 to [`ID_BYTES_MAX`] bytes, no control characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DocId(Arc<str>);

/// Why a string is no document id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidId {
    /// The id has no characters.
    #[error("the document id is empty")]
    Empty,
    /// The id is longer than [`ID_BYTES_MAX`].
    #[error("the document id has {bytes} bytes, at most {ID_BYTES_MAX} are allowed")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// A tab, a line end or another control character: no run file could hold it.
    #[error("the document id {id:?} contains a control character")]
    Control {
        /// The id.
        id: String,
    },
}

impl DocId {
    /// Checks `id` and takes it.
    ///
    /// # Errors
    /// [`InvalidId`] says what is wrong with it.
    pub fn new(id: &str) -> Result<Self, InvalidId> {
        if id.is_empty() {
            return Err(InvalidId::Empty);
        }
        if id.len() > ID_BYTES_MAX {
            return Err(InvalidId::TooLong { bytes: id.len() });
        }
        if id.chars().any(char::is_control) {
            return Err(InvalidId::Control { id: id.to_owned() });
        }
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

/// One document of the corpus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Its name, unique in the corpus.
    pub id: DocId,
    /// Its title; empty where it has none.
    pub title: String,
    /// Its text.
    pub text: String,
}

/// A piece of a document: the document and the piece's place in it, counted from 0.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChunkId {
    /// The document.
    pub document: DocId,
    /// The piece, from 0.
    pub ordinal: u32,
}

impl fmt::Display for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chunk {} of document {}", self.ordinal, self.document)
    }
}

/// The token ids of one piece of a document, prefix, title and infix included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Which piece.
    pub id: ChunkId,
    /// Its token ids, in order: position `i` of the block belongs to `tokens[i]`.
    pub tokens: Vec<u32>,
}

impl Chunk {
    /// What a block of this chunk is bound to: fingerprint, document, ordinal and token ids. A
    /// block read from the wrong place, or made from other tokens, has another identity.
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

/// The number of a shard: the unit of the corpus that it holds, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ShardId(pub u32);

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:06}", self.0)
    }
}

/// A block's place in its shard, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

/// What block is wanted and where it lies. A reader finds it by place and checks that it is the
/// one meant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BlockKey {
    /// The shard that holds the block.
    pub shard: ShardId,
    /// The block's place in it.
    pub slot: Slot,
    /// The chunk whose block this must be.
    pub chunk: ChunkId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_checked() {
        assert!(DocId::new("MED-10 a").is_ok());
        assert_eq!(DocId::new(""), Err(InvalidId::Empty));
        assert!(matches!(DocId::new("a\tb"), Err(InvalidId::Control { .. })));
        assert_eq!(DocId::new(&"x".repeat(513)), Err(InvalidId::TooLong { bytes: 513 }));
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
