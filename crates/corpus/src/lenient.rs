//! Repairs of JSON that common writers make and the standard does not know: a text comes in, one of the same
//! length without the fault goes out. Knows nothing of documents.

/// Tokens that Python writes for numbers that JSON does not have, each with an empty string in its place.
const NO_NUMBERS: [(&str, &str); 3] =
    [("-Infinity", "\"\"       "), ("Infinity", "\"\"      "), ("NaN", "\"\" ")];

/// Replaces `NaN` and infinities outside of strings by empty strings; `None` if there is none.
pub(crate) fn without_no_numbers(json: &str) -> Option<String> {
    let (mut out, mut rest, mut any) = (String::with_capacity(json.len()), json, false);
    while let Some(at) = rest.find(['"', 'N', 'I', '-']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if rest.starts_with('"') {
            let end = string_end(rest);
            out.push_str(&rest[..end]);
            rest = &rest[end..];
            continue;
        }
        let token = NO_NUMBERS.iter().find(|(token, _)| rest.starts_with(token));
        let (replaced, length) = token.map_or((&rest[..1], 1), |(token, by)| (*by, token.len()));
        any |= token.is_some();
        out.push_str(replaced);
        rest = &rest[length..];
    }
    out.push_str(rest);
    any.then_some(out)
}

/// Returns the length of the string with which `text` begins, quotes included.
fn string_end(text: &str) -> usize {
    let mut escaped = false;
    let end = text.bytes().skip(1).position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |end| end + 2)
}

/// Replaces each escape of half a surrogate pair in a JSON string by that of U+FFFD; `None` if there is none.
pub(crate) fn without_lone_surrogates(string: &str) -> Option<String> {
    let (mut out, mut rest, mut any) = (String::with_capacity(string.len()), string, false);
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let taken = match (unit(rest), rest.get(6..).and_then(unit)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (Some(0xd800..=0xdfff), _) => {
                any = true;
                out.push_str("\\ufffd");
                rest = &rest[6..];
                continue;
            }
            // The character after a backslash is no backslash of its own.
            _ => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
        };
        out.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    out.push_str(rest);
    any.then_some(out)
}

/// Returns the number of the escape `\uXXXX` with which `text` begins.
fn unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then(|| u16::from_str_radix(digits, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_numbers_become_empty_strings() {
        let check = |json: &str, expected: Option<&str>| {
            assert_eq!(without_no_numbers(json).as_deref(), expected, "{json}");
        };
        check(
            r#"{"a":NaN,"b":-Infinity,"c":Infinity}"#,
            Some(r#"{"a":"" ,"b":""       ,"c":""      }"#),
        );
        check(r#"{"a":"NaN \" NaN","b":-1}"#, None);
        check(r#"{"NaN":"\\","b":[NaN]}"#, Some(r#"{"NaN":"\\","b":["" ]}"#));
        check("\"é", None);
    }

    #[test]
    fn halves_of_pairs_become_the_replacement_character() {
        let check = |string: &str, expected: Option<&str>| {
            assert_eq!(without_lone_surrogates(string).as_deref(), expected, "{string}");
        };
        check(r#""a\ud83dé""#, Some(r#""a\ufffdé""#));
        check(r#""\udc1d\ud83d\ud83d\udc1d""#, Some(r#""\ufffd\ufffd\ud83d\udc1d""#));
        check(r#""\ud83d\udc1d \\ud83d""#, None);
        check(r#""\u12""#, None);
        check(r#""\"#, None);
        check(r#""\ud83d\n""#, Some(r#""\ufffd\n""#));
    }
}
