//! Counts by which BM25 weighs the words of a query. In: counts of indexes. Out: counts of all their documents
//! together. It opens no index.

/// Counts of the documents of an index, or of several, for one query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WordCounts {
    pub(crate) documents: u64,
    /// Words in all documents.
    pub(crate) tokens: u64,
    /// Distinct words of the query in the order of their first occurrence, each with the number of documents
    /// that have it.
    pub(crate) having: Vec<(String, u64)>,
}

impl WordCounts {
    /// Adds the counts of another index for the same query. Returns `false`, and adds nothing, if that index cuts
    /// the query into other words.
    #[must_use]
    pub fn add(&mut self, other: &Self) -> bool {
        let words = |counts: &Self| -> Vec<String> {
            counts.having.iter().map(|(word, _)| word.clone()).collect()
        };
        if words(self) != words(other) {
            return false;
        }
        self.documents += other.documents;
        self.tokens += other.tokens;
        for ((_, all), (_, more)) in self.having.iter_mut().zip(&other.having) {
            *all += more;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_the_same_words_add_up() {
        let counts = |documents, tokens, having: &[(&str, u64)]| WordCounts {
            documents,
            tokens,
            having: having.iter().map(|(word, count)| ((*word).to_owned(), *count)).collect(),
        };
        let mut all = counts(3, 40, &[("river", 2), ("bee", 0)]);
        assert!(all.add(&counts(2, 7, &[("river", 1), ("bee", 2)])));
        let sum = counts(5, 47, &[("river", 3), ("bee", 2)]);
        assert_eq!(all, sum);
        for other in [counts(1, 1, &[("river", 1)]), counts(1, 1, &[("river", 1), ("bees", 1)])] {
            assert!(!all.add(&other));
            assert_eq!(all, sum);
        }
    }
}
