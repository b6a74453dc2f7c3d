//! The error of opening: why a store and its model cannot be opened together. Causes come in, messages, kinds
//! and remedies go out.

use std::path::PathBuf;

use hyperrag_core::{Classified, ErrorKind, Hint, NotedPart, ProfileError};
use hyperrag_model::LoadError;
use hyperrag_store::StoreError;

use crate::open::collection_list::NoCollection;
use crate::open::tiers::TierOpenError;
use crate::profile::NoProfile;

/// Tells why a store and its model cannot be opened together.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The model's files.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A profile that cannot be read.
    #[error(transparent)]
    Profile(#[from] NoProfile),
    /// A profile whose words are no tokens of the model.
    #[error("{name}: not a profile for this model")]
    OtherProfile {
        /// Name of the profile.
        name: String,
        /// Cause.
        #[source]
        source: ProfileError,
    },
    /// A list of stores.
    #[error(transparent)]
    Collection(#[from] NoCollection),
    /// A tier that blocks were to come from.
    #[error(transparent)]
    Tier(#[from] TierOpenError),
    /// A part that the store notes and that is not to be used here.
    #[error("the store was made with the {part} {name}")]
    Noted {
        /// The part.
        part: NotedPart,
        /// Name by which the store notes it.
        name: String,
        /// Cause.
        #[source]
        source: Box<OpenError>,
    },
    /// A model that cannot generate.
    #[error("{}: cannot answer", path.display())]
    Generator {
        /// The model.
        path: PathBuf,
        /// Cause.
        #[source]
        source: LoadError,
    },
}

impl Classified for OpenError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Load(error) | Self::Generator { source: error, .. } => error.kind(),
            Self::Profile(error) => error.kind(),
            Self::Collection(error) => error.kind(),
            Self::Tier(error) => error.kind(),
            Self::OtherProfile { source, .. } => source.kind(),
            Self::Noted { source, .. } => source.kind(),
        }
    }

    fn hint(&self) -> Option<Hint> {
        match self {
            Self::Store(error) => error.hint(),
            Self::Load(error) | Self::Generator { source: error, .. } => error.hint(),
            Self::Profile(error) => error.hint(),
            Self::Collection(error) => error.hint(),
            Self::Tier(error) => error.hint(),
            Self::OtherProfile { source, .. } => source.hint(),
            Self::Noted { part, source, .. } => source.hint().or(Some(Hint::NameAnew(*part))),
        }
    }
}
