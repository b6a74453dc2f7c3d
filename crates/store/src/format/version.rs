//! Versions of the format: a number comes in, whether this program reads it goes out.

/// Format version of new stores. Stores of earlier versions are read, and written in their own version.
pub const FORMAT_VERSION: u32 = 2;

/// Whether this program reads stores of this format version.
pub(crate) fn is_known(version: u32) -> bool {
    (1..=FORMAT_VERSION).contains(&version)
}
