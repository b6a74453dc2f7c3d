//! Reasons why a text names no tier. In: what stands there. Out: sentences that say what would be right, without
//! secrets.

use hyperrag_core::{Classified, ErrorKind};

/// Reason why a text names no tier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// Nothing where a tier should be.
    #[error("a tier is missing: {KINDS}")]
    Empty,
    /// No kind of tier.
    #[error("{tier:?} is no tier: {KINDS}")]
    Unknown {
        /// The text, without what may be a secret.
        tier: String,
    },
    /// A character that no name has.
    #[error("the name of a tier has a control character")]
    Control,
    /// No size.
    #[error(
        "{text:?} is no size: use a number with KiB, MiB, GiB or TiB, with KB, MB, GB or TB, or bytes"
    )]
    Size {
        /// The text.
        text: String,
    },
    /// No folder, or no size after it.
    #[error("{text:?} names no folder: use {usage}")]
    Folder {
        /// The text.
        text: String,
        /// Right form.
        usage: &'static str,
    },
    /// No server.
    #[error(
        "{text:?} is no server: use HOST, HOST:PORT or [ADDRESS]:PORT, several with commas between them"
    )]
    Host {
        /// The text.
        text: String,
    },
    /// No bucket or prefix.
    #[error(
        "{text:?} is no place in an object store: use s3://BUCKET/PREFIX, a bucket of 3 to 63 small letters, \
         digits, dots and dashes, and a prefix of letters, digits, dots, dashes, underscores and slashes"
    )]
    Bucket {
        /// The text.
        text: String,
    },
    /// A name or a password in a URL.
    #[error(
        "a URL must hold no user and no password, which others can read there: put them in {variables}"
    )]
    Secret {
        /// Variables of the environment for them.
        variables: &'static str,
    },
    /// An option that the tier does not have.
    #[error("{name:?} is no option of {tier}: it has {known}")]
    UnknownOption {
        /// Kind of the tier.
        tier: &'static str,
        /// Name of the option.
        name: String,
        /// Options that it has.
        known: &'static str,
    },
    /// An option without a value.
    #[error("an option of {tier} has no value: write NAME=VALUE, with & between options")]
    NoValue {
        /// Kind of the tier.
        tier: &'static str,
    },
    /// An option that stands twice.
    #[error("the option {name} stands twice")]
    Twice {
        /// Name of the option.
        name: &'static str,
    },
    /// A value that the option does not take.
    #[error("{name} cannot be {value:?}: use {allowed}")]
    Value {
        /// Name of the option.
        name: &'static str,
        /// Value of the option.
        value: String,
        /// Values that it takes.
        allowed: &'static str,
    },
}

impl Classified for SpecError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Usage
    }
}

/// Kinds of tiers, for messages.
const KINDS: &str = "use device:SIZE, ram:SIZE, cache:FOLDER:SIZE, store, folder:FOLDER, file:///FOLDER, \
                     redis://HOST:PORT, rediss://HOST:PORT or s3://BUCKET/PREFIX";

/// Returns the start of a text without what may be a secret, for messages.
pub(super) fn shown(text: &str) -> String {
    let text = match text.rsplit_once('@') {
        Some(_) => text.split_once(':').map_or("", |(kind, _)| kind),
        None => text,
    };
    text.chars().take(60).collect()
}
