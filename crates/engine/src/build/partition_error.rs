//! Errors of a build that many processes share: places and differences come in, messages and kinds go out. It
//! names no flag.

use hyperrag_core::{Classified, ErrorKind, Hint, agreeing, counted};
use hyperrag_store::{StoreError, UnitsDigest};

use crate::shared::error::ShareError;

/// Reason why a build that many processes share does not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PartitionError {
    /// A place of single blocks.
    #[error(
        "{place}: it holds single blocks, and many processes build whole shards: name a folder, file:// or s3://"
    )]
    NoShards {
        /// Name of the place.
        place: String,
    },
    /// The place does not give or take what is asked of it.
    #[error(transparent)]
    Place(#[from] ShareError),
    /// The place has another store, or one of another input.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The plan is that of another input.
    #[error(
        "{place}: it is being built from another input: that one has {}, this one {}{}",
        sizes(theirs),
        sizes(ours),
        difference(ours, theirs)
    )]
    OtherInput {
        /// Name of the place.
        place: String,
        /// Units of the input here.
        ours: UnitsDigest,
        /// Units of the plan.
        theirs: UnitsDigest,
    },
    /// An object of the input is another one than when the plan was made.
    #[error(
        "{place}: it is being built from another version of the input{}: put the objects back as they were, or build in another place",
        named(object.as_deref())
    )]
    OtherObject {
        /// Name of the place.
        place: String,
        /// Name of the first object that differs, if it is known.
        object: Option<String>,
    },
    /// The input is another one than it was a while ago.
    #[error(
        "unit {unit} of the input has other rows than when it was counted: it must not change meanwhile"
    )]
    Changed {
        /// The unit.
        unit: u32,
    },
    /// Nobody has begun to build.
    #[error("{place}: nothing was begun here that could be merged")]
    NoPlan {
        /// Name of the place.
        place: String,
    },
    /// Not all spans are built.
    #[error(
        "{place}: {} of {spans} {} not done, the first is span {first}: start more workers, or wait for those that \
         are at it", counted(*missing, "span"), agreeing(*missing, "is", "are")
    )]
    NotDone {
        /// Name of the place.
        place: String,
        /// Spans in all.
        spans: u32,
        /// Spans that are not done.
        missing: u32,
        /// Number of the first of these.
        first: u32,
    },
    /// Two workers got different shards from one span.
    #[error(
        "{place}: span {span} was built twice, with different bytes: this machine computes in another way than \
         the one that was faster"
    )]
    Different {
        /// Name of the place.
        place: String,
        /// The span.
        span: u32,
    },
    /// The place has other bytes than were written.
    #[error("{place}: {what}")]
    Damaged {
        /// Name of the place.
        place: String,
        /// Object and fault.
        what: String,
    },
    /// The place lets several writers make one file.
    #[error(
        "{place}: {winners} of {writers} writers made one file at the same time, where one should: workers \
         cannot divide the work there"
    )]
    ManyWinners {
        /// Name of the place.
        place: String,
        /// Writers who were told that they made it.
        winners: usize,
        /// Writers in all.
        writers: usize,
    },
    /// Other processes build a store in the folder.
    #[error(
        "{place}: other processes share the build of a store there: join them with the same share of work, or build in \
         another folder; if they are gone for good, remove its folder `build`"
    )]
    BeingBuilt {
        /// Name of the folder.
        place: String,
    },
    /// A store was exported to the place.
    #[error("{place}: it holds a store already; build in another folder or below another prefix")]
    Occupied {
        /// Name of the place.
        place: String,
    },
    /// The folder has a store with other shards.
    #[error(
        "{place}: the folder has a store already, with other shards than those that were built"
    )]
    OtherShards {
        /// Name of the place.
        place: String,
    },
}

/// Says how large an input is.
fn sizes(units: &UnitsDigest) -> String {
    format!("{} in {}", counted(units.rows, "row"), counted(units.units, "unit"))
}

/// Names the object that differs.
fn named(object: Option<&str>) -> String {
    object.map_or_else(String::new, |object| {
        format!(": {object} has changed, or is not one of that build")
    })
}

/// Says what differs between inputs of one size.
fn difference(ours: &UnitsDigest, theirs: &UnitsDigest) -> &'static str {
    match (ours.units, ours.rows) == (theirs.units, theirs.rows) {
        true => ", with other ids, titles or texts, or in another order",
        false => "",
    }
}

impl Classified for PartitionError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoShards { .. } => ErrorKind::Usage,
            Self::Place(error) => error.kind(),
            Self::Store(error) => error.kind(),
            Self::OtherInput { .. }
            | Self::OtherObject { .. }
            | Self::Changed { .. }
            | Self::NoPlan { .. }
            | Self::BeingBuilt { .. }
            | Self::Occupied { .. }
            | Self::OtherShards { .. } => ErrorKind::Input,
            Self::NotDone { .. } => ErrorKind::Busy,
            Self::Different { .. } => ErrorKind::Mismatch,
            Self::Damaged { .. } => ErrorKind::Damaged,
            Self::ManyWinners { .. } => ErrorKind::Refused,
        }
    }

    fn hint(&self) -> Option<Hint> {
        match self {
            Self::Place(error) => error.hint(),
            Self::Store(error) => error.hint(),
            _ => None,
        }
    }
}
