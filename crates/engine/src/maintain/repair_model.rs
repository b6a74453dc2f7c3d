//! The model that a repair may need: chunks come in, blocks go out, or why there are none. The program
//! loads it, for it knows its name.

use hyperrag_core::{
    Calibration, Chunk, Classified, ErrorKind, Fingerprint, Hint, KvBlock, Mismatch, ModelError,
};
use hyperrag_corpus::ChunkError;

use crate::open::error::OpenError;

/// Reason why no model computes for a repair.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecomputeError {
    /// A model that cannot be loaded.
    #[error("the model is needed for it")]
    Load(#[source] Box<OpenError>),
    /// A model whose fingerprint cannot be computed.
    #[error(transparent)]
    Fingerprint(Box<OpenError>),
    /// A model, or a setting, that is not the one of the store.
    #[error("the store was made with {} {}, in use is {}", .0.field, .0.stored, .0.current)]
    OtherModel(Box<Mismatch>),
    /// A profile without room in the chunks of the store.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// A model that does not compute.
    #[error(transparent)]
    Model(#[from] ModelError),
}

impl Classified for RecomputeError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Load(error) | Self::Fingerprint(error) => error.kind(),
            Self::OtherModel(_) => ErrorKind::Mismatch,
            Self::Chunk(error) => error.kind(),
            Self::Model(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<Hint> {
        match self {
            Self::Load(error) | Self::Fingerprint(error) => error.hint(),
            Self::OtherModel(_) => Some(Hint::GiveStoreModel),
            Self::Chunk(error) => error.hint(),
            Self::Model(error) => error.hint(),
        }
    }
}

/// A model, loaded only when it is needed.
pub trait Recompute {
    /// Fingerprints that the store may have been made with, by what the user says, where the store
    /// itself tells its format version alone.
    ///
    /// # Errors
    /// Why that is not known.
    fn fingerprints(&mut self, format_version: u32) -> Result<Vec<Fingerprint>, RecomputeError>;

    /// The calibration that `chunks` give the model of a store with this fingerprint.
    ///
    /// # Errors
    /// Why that model is not at hand, or fails.
    fn calibrate(
        &mut self,
        stored: &Fingerprint,
        chunks: &[Chunk],
    ) -> Result<Calibration, RecomputeError>;

    /// The kernel that would compute, where it is not the one that made the store: its blocks
    /// have other bits.
    ///
    /// # Errors
    /// Why the store's model is not at hand.
    fn other_kernel(&mut self, stored: &Fingerprint) -> Result<Option<String>, RecomputeError>;

    /// The blocks of `chunks`, as the model of a store with this fingerprint makes them.
    ///
    /// # Errors
    /// Why that model is not at hand, or fails.
    fn compute(
        &mut self,
        stored: &Fingerprint,
        chunks: &[Chunk],
    ) -> Result<Vec<KvBlock>, RecomputeError>;
}
