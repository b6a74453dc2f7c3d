//! Numbers with their nouns and verbs, for sentences: a number and a noun come in, words go out.

use std::fmt::Display;

/// Returns a number with its noun: `1 document`, `2 documents`.
///
/// ```
/// use hyperrag_core::counted;
///
/// assert_eq!(counted(1_u64, "document"), "1 document");
/// assert_eq!(counted(2_usize, "query"), "2 queries");
/// ```
pub fn counted(number: impl Display + PartialEq + From<u8>, noun: &str) -> String {
    match noun.strip_suffix('y') {
        _ if is_one(&number) => format!("{number} {noun}"),
        Some(stem) => format!("{number} {stem}ies"),
        None => format!("{number} {noun}s"),
    }
}

/// Returns the one of two verbs that goes with a number of things: `is` or `are`.
pub fn agreeing<'a>(number: impl PartialEq + From<u8>, one: &'a str, many: &'a str) -> &'a str {
    if is_one(&number) { one } else { many }
}

fn is_one(number: &(impl PartialEq + From<u8>)) -> bool {
    *number == 1.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nouns_and_verbs_agree_with_their_number() {
        assert_eq!(counted(0_u64, "document"), "0 documents");
        assert_eq!(counted(1_u32, "query"), "1 query");
        assert_eq!(counted(7_usize, "query"), "7 queries");
        assert_eq!((agreeing(1_u64, "is", "are"), agreeing(0_u64, "is", "are")), ("is", "are"));
    }
}
