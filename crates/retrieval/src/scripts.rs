//! Characters as the words of an index see them.
//!
//! In: a character in form NFKC. Out: its part in a word, and whether it belongs to the unit before it. It
//! knows no word. Blocks of Unicode never move, so the words of an index stay what they are.

use unicode_normalization::char::is_combining_mark;

/// Part of a character in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Letter or digit of a script whose words are parted by blanks or signs.
    Letter,
    /// Letter of a script without blanks, or of Hangul, whose words carry endings.
    Unit,
    /// Mark that goes on with the word before it, whatever the script.
    Mark,
    /// Character without width that neither parts words nor counts in them.
    Invisible,
    /// Anything else.
    Break,
}

/// Returns the part of a character in a word.
pub(crate) fn kind(c: char) -> Kind {
    match c {
        _ if c.is_ascii() => {
            if c.is_ascii_alphanumeric() {
                Kind::Letter
            } else {
                Kind::Break
            }
        }
        _ if is_invisible(c) => Kind::Invisible,
        _ if c.is_alphanumeric() => {
            if has_units(c) {
                Kind::Unit
            } else {
                Kind::Letter
            }
        }
        _ if is_combining_mark(c) => Kind::Mark,
        _ => Kind::Break,
    }
}

/// Whether the character `c` belongs to the unit whose last character is `before`: marks, Thai and Lao
/// vowels that are written after or before their consonant, Khmer and Burmese letters below another.
pub(crate) fn joins(before: char, c: char) -> bool {
    let follows = matches!(
        c,
        '\u{e30}' | '\u{e32}' | '\u{e33}' | '\u{e45}' | '\u{eb0}' | '\u{eb2}' | '\u{eb3}'
    );
    let leads = matches!(before, '\u{e40}'..='\u{e44}' | '\u{ec0}'..='\u{ec4}');
    let stacks = matches!(before, '\u{17d2}' | '\u{1039}');
    is_combining_mark(c) || has_units(c) && (follows || leads || stacks)
}

/// Soft hyphens, joiners, marks of direction and variants. Written or not, a word is the same.
fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200c}'..='\u{200f}'
            | '\u{2060}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{e0100}'..='\u{e01ef}'
    )
}

/// Whether letters of this one's script are units: Thai, Lao, Burmese, Khmer; kana, Bopomofo and Hangul;
/// ideographs.
fn has_units(c: char) -> bool {
    c >= '\u{e00}'
        && matches!(
            c,
            '\u{e00}'..='\u{eff}'
                | '\u{1000}'..='\u{109f}'
                | '\u{1100}'..='\u{11ff}'
                | '\u{1780}'..='\u{17ff}'
                | '\u{2e80}'..='\u{2fdf}'
                | '\u{3005}'..='\u{3007}'
                | '\u{3021}'..='\u{3029}'
                | '\u{3031}'..='\u{318f}'
                | '\u{31a0}'..='\u{31ff}'
                | '\u{3400}'..='\u{4dbf}'
                | '\u{4e00}'..='\u{9fff}'
                | '\u{a9e0}'..='\u{a9ff}'
                | '\u{aa60}'..='\u{aa7f}'
                | '\u{ac00}'..='\u{d7ff}'
                | '\u{f900}'..='\u{faff}'
                | '\u{1aff0}'..='\u{1b16f}'
                | '\u{20000}'..='\u{3ffff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_character_has_its_part() {
        let expected = [
            ("aZ9éßжक्षதமிழ", Kind::Letter),
            ("中々あアー한กກကក𠮷", Kind::Unit),
            (" -_。、・…\u{200b}\u{a0}", Kind::Break),
            ("\u{301}\u{94d}\u{bcd}\u{e48}", Kind::Mark),
            ("\u{ad}\u{200c}\u{feff}", Kind::Invisible),
        ];
        for (text, expected) in expected {
            for c in text.chars().filter(|c| expected == Kind::Mark || !is_combining_mark(*c)) {
                assert_eq!(kind(c), expected, "{c:?}");
            }
        }
    }

    #[test]
    fn vowels_belong_to_their_consonants() {
        assert!(
            joins('เ', 'ร') && joins('ก', 'า') && joins('ก', '\u{e35}') && joins('\u{17d2}', 'ក')
        );
        assert!(!joins('ก', 'ร') && !joins('า', 'ก') && !joins('เ', 'a') && !joins('中', '国'));
    }
}
