//! Names of files in places. In: names. Out: those that stay within the place. It opens nothing.

use hyperrag_core::TierError;

/// Longest name, in bytes: with a prefix of usual length it is a key of an object store.
const NAME_MAX: usize = 900;

/// Refuses what is no relative path of ASCII letters, digits, `.`, `-`, `_` and `/`, or leads elsewhere.
///
/// # Errors
/// [`TierError::Refused`].
pub fn check_file_name(name: &str) -> Result<(), TierError> {
    let usual = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    let part = |part: &str| !matches!(part, "" | "." | "..") && part.bytes().all(usual);
    if name.len() <= NAME_MAX && name.split('/').all(part) {
        return Ok(());
    }
    Err(TierError::Refused(format!(
        "{name:?} is no name of a file: at most {NAME_MAX} letters, digits, '.', '-', '_', '/'"
    )))
}
