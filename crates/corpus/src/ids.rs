//! A compact set of document ids: ids come in, and whether each may have been seen goes out. Keeps hashes
//! alone, so it cannot list the ids.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use hyperrag_core::DocId;

/// Number of sets in an [`IdSet`].
const SETS: usize = 256;

/// Set of the ids seen, as 64-bit hashes: at most 24 bytes a document, whatever the length of the ids.
///
/// It may take a new id for a seen one, because two ids in 2^64 share a hash, but never the other way round.
/// So a caller confirms a hit.
///
/// It is split into sets that grow one at a time, and so stays under 21 bytes an id. A single table holds its
/// old and its new buckets while it doubles, up to 31 bytes an id.
#[derive(Clone, Debug)]
pub struct IdSet {
    sets: Vec<HashSet<u64, BuildHasherDefault<Identity>>>,
}

impl IdSet {
    /// Adds the id. `false` if it may have been seen before.
    pub fn insert(&mut self, id: &DocId) -> bool {
        self.insert_hash(hash(id))
    }

    pub(crate) fn insert_hash(&mut self, hash: u64) -> bool {
        // A table picks the bucket by the lowest bits and compares the seven highest first. These bits choose
        // the set.
        let set = (hash >> 48) as usize % SETS;
        self.sets[set].insert(hash)
    }
}

impl Default for IdSet {
    fn default() -> Self {
        Self { sets: vec![HashSet::default(); SETS] }
    }
}

pub(crate) fn hash(id: &DocId) -> u64 {
    let digest = blake3::hash(id.as_str().as_bytes());
    let [a, b, c, d, e, f, g, h, ..] = *digest.as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// Hasher that passes keys through, because they are hashes already.
#[derive(Clone, Debug, Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_new_once() {
        let mut ids = IdSet::default();
        for name in ["a", "b", "A", "a "] {
            assert!(ids.insert(&DocId::stored(name).unwrap()), "{name}");
        }
        assert!(!ids.insert(&DocId::new("a").unwrap()));
    }

    /// Returns the size of a table: a power of two of buckets, 8/7 of its capacity, each of 8 bytes and one
    /// control byte.
    fn table_bytes(capacity: usize) -> usize {
        (capacity * 8).div_ceil(7) * 9 + 16
    }

    #[test]
    fn memory_is_at_most_24_bytes_a_document() {
        let mut ids = IdSet::default();
        let mut bytes = 0;
        for number in 0_u64..400_000 {
            let digest = blake3::hash(&number.to_le_bytes());
            let hash = u64::from_le_bytes(digest.as_bytes()[..8].try_into().unwrap());
            let set = (hash >> 48) as usize % SETS;
            let before = ids.sets[set].capacity();
            assert!(ids.insert_hash(hash));
            let after = ids.sets[set].capacity();
            bytes += table_bytes(after) - table_bytes(before);
            // The old table exists until the new one is filled.
            let peak = bytes + if after == before { 0 } else { table_bytes(before) };
            let documents = number as usize + 1;
            assert!(documents < 50_000 || peak <= 24 * documents, "{peak} bytes, {documents} ids");
        }
    }
}
