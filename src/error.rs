//! Errors of the program, and the class of any error: an error comes in, its kind and its remedy go out.
//! Knows neither exit codes nor words.

use std::error::Error;

use hyperrag_core::{Classified, ErrorKind, Hint, ModelError};
use hyperrag_corpus::{ChunkError, CorpusError};
use hyperrag_engine::build::memory_budget::TooLittleMemory;
use hyperrag_engine::{EngineError, OpenError, ShareError};
use hyperrag_model::LoadError;
use hyperrag_store::StoreError;

/// An error of the command line or the settings.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// Damage of a store, in words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Damaged(pub(crate) String);

impl Classified for Usage {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Usage
    }
}

impl Classified for Damaged {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Damaged
    }
}

/// Kind of an error, and its remedy.
type Class = (ErrorKind, Option<Hint>);

/// Types that tell their class. An error of another crate that the program meets by itself is listed here.
const KNOWN: [fn(&(dyn Error + 'static)) -> Option<Class>; 11] = [
    class_as::<Usage>,
    class_as::<Damaged>,
    class_as::<TooLittleMemory>,
    class_as::<EngineError>,
    class_as::<OpenError>,
    class_as::<ShareError>,
    class_as::<CorpusError>,
    class_as::<ChunkError>,
    class_as::<ModelError>,
    class_as::<StoreError>,
    class_as::<LoadError>,
];

fn class_as<E: Classified + 'static>(cause: &(dyn Error + 'static)) -> Option<Class> {
    cause.downcast_ref::<E>().map(|error| (error.kind(), error.hint()))
}

/// Returns the class of the outermost cause that tells one.
pub(crate) fn class(error: &anyhow::Error) -> Class {
    let mut told = error.chain().flat_map(|cause| KNOWN.iter().find_map(|class| class(cause)));
    told.next().unwrap_or((ErrorKind::Failed, None))
}
