use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use hyperrag_kv::DocId;

/// Sets in an [`IdSet`].
const SETS: usize = 256;

/// The ids seen so far, as 64-bit hashes: at most 24 bytes a document in memory, however long the
/// ids are.
///
/// It may take a new id for a seen one (two ids in 2^64 have the same hash), never the other way
/// round, so a caller confirms a hit.
///
/// It is split into sets that grow one at a time: a single table holds its old and its new buckets
/// while it doubles, which is up to 31 bytes an id; so it stays under 21.
#[derive(Clone, Debug)]
pub struct IdSet {
    sets: Vec<HashSet<u64, BuildHasherDefault<Identity>>>,
}

impl IdSet {
    /// Adds the id. False: it may have been seen before.
    pub fn insert(&mut self, id: &DocId) -> bool {
        self.insert_hash(hash(id))
    }

    pub(crate) fn insert_hash(&mut self, hash: u64) -> bool {
        // A table picks its bucket by the lowest bits and compares the seven highest first.
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

/// The keys are hashes already.
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
            assert!(ids.insert(&DocId::new(name).unwrap()), "{name}");
        }
        assert!(!ids.insert(&DocId::new("a").unwrap()));
    }

    /// A table has a power of two of buckets, 8/7 of its capacity, each of 8 bytes and one control
    /// byte.
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
            // While a table grows, the old one is there as well.
            let peak = bytes + if after == before { 0 } else { table_bytes(before) };
            let documents = number as usize + 1;
            assert!(documents < 50_000 || peak <= 24 * documents, "{peak} bytes, {documents} ids");
        }
    }
}
