//! A build's terms: what goes in, how it is added, and what it came to. Nothing is done here.

use std::sync::atomic::AtomicBool;

use hyperrag_core::{Calibration, Fingerprint, QueryTemplate, Warning};
use hyperrag_corpus::{Chunker, Corpus};
use hyperrag_store::StoreNotes;
use serde::Serialize;

use crate::build::memory_budget::Memory;
use crate::error::EngineError;
use crate::progress::BuildProgress;

/// Input and limits of a build.
pub struct BuildInput<'a, M> {
    /// The model.
    pub model: &'a M,
    /// The corpus.
    pub corpus: &'a Corpus,
    /// Cuts documents into chunks.
    pub chunker: &'a Chunker<'a>,
    /// Fingerprint that the store will carry.
    pub fingerprint: &'a Fingerprint,
    /// The calibration of the fingerprint, if it has one.
    pub calibration: Option<&'a Calibration>,
    /// Names that the store notes, if any.
    pub notes: Option<&'a StoreNotes>,
    /// Whether the corpus is added to what a complete store holds.
    pub add: Option<Add>,
    /// Rows of the corpus to take at most.
    pub limit: Option<u64>,
    /// Bytes that the store may take.
    pub max_bytes: Option<u64>,
    /// Memory that the build may hold.
    pub memory: Memory,
    /// Called with each warning.
    pub warn: fn(&Warning),
    /// Counters for whoever watches.
    pub progress: &'a BuildProgress,
    /// Set from outside to stop.
    pub stop: &'a AtomicBool,
}

/// Positions that a query has to have room for beside the profile's words: a question of twenty words.
pub const QUERY_TOKENS_MIN: usize = 32;

/// Checks that a model with `context` positions has room for queries beside chunks of `chunk_tokens`.
///
/// # Errors
/// [`EngineError::NoQueryRoom`] with the numbers.
pub fn check_query_room(
    context: usize,
    chunk_tokens: usize,
    template: &QueryTemplate,
) -> Result<(), EngineError> {
    let (fixed, least) = (template.fixed_tokens(), QUERY_TOKENS_MIN);
    match chunk_tokens + fixed + least > context {
        true => Err(EngineError::NoQueryRoom { chunk_tokens, context, fixed, least }),
        false => Ok(()),
    }
}

/// Way in which a corpus is added to a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Add {
    /// An earlier, unfinished one is gone on with.
    Resume,
    /// Units that an earlier, unfinished one has sealed are forgotten.
    Restart,
}

/// Report of a build, and totals of the store.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct BuildSummary {
    /// Documents in the store.
    pub documents: u64,
    /// Rows left out because they have no text.
    pub empty_rows: u64,
    /// Rows left out because they cannot be read.
    pub bad_rows: u64,
    /// Rows in which half a surrogate pair was replaced by U+FFFD.
    pub lossy_rows: u64,
    /// Documents left out because the store has them as they are.
    pub unchanged: u64,
    /// Documents that count no longer because the input has them without text.
    pub emptied: u64,
    /// Documents in the shards that count no longer.
    pub dead: u64,
    /// Chunks in the store.
    pub chunks: u64,
    /// Positions in the store.
    pub tokens: u64,
    /// Bytes of all shards.
    pub bytes: u64,
    /// Shards in the store.
    pub shards: u64,
    /// Shards that were there before.
    pub shards_before: u64,
    /// Positions computed now.
    pub tokens_computed: u64,
    /// Seconds taken.
    pub seconds: f64,
}

#[cfg(test)]
mod tests {
    use hyperrag_core::{Classified, Hint, ModelError, Profile, Tokenize};

    use super::*;

    /// Tokenizer that makes a token of each character.
    struct Characters;

    impl Tokenize for Characters {
        fn encode_text(&self, text: &str) -> Result<Vec<u32>, ModelError> {
            Ok(text.chars().map(u32::from).collect())
        }

        fn encode_template(&self, text: &str) -> Result<Vec<u32>, ModelError> {
            self.encode_text(text)
        }
    }

    #[test]
    fn chunks_leave_room_for_a_query_and_its_words() {
        let profile = Profile {
            query_prefix: "question:".into(),
            query_suffix: "!".into(),
            ..Profile::built_in("plain").unwrap()
        };
        let template = profile.query_template(&Characters).unwrap();
        let fixed = template.fixed_tokens();
        assert!(fixed >= 9, "{fixed}");
        let most = 512 - fixed - QUERY_TOKENS_MIN;
        assert!(check_query_room(512, most, &template).is_ok());
        let error = check_query_room(512, most + 1, &template).unwrap_err();
        assert_eq!(error.hint(), Some(Hint::ShorterChunks { most }));
        for part in [format!("chunks of {} positions", most + 1), "the model has 512".into()] {
            assert!(error.to_string().contains(&part), "{error}");
        }
    }
}
