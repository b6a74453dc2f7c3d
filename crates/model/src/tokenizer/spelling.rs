//! Spellings of bytes and blanks in the names of tokens. It does not know token ids.

use std::collections::HashMap;

/// Spelling of a blank in pieces.
pub(super) const BLANK: &str = "\u{2581}";

/// Spelling of bytes and blanks in the names of tokens.
pub(super) enum Spelling {
    /// A character for each byte.
    Bytes(HashMap<char, u8>),
    /// The spelling of SentencePiece.
    Pieces,
}

impl Spelling {
    pub(super) fn bytes() -> Self {
        Self::Bytes(byte_characters().zip(0..=u8::MAX).collect())
    }
}

/// Characters by which byte-level BPE spells each byte in the names of its tokens (GPT-2, Radford et
/// al. 2019).
pub(crate) fn byte_characters() -> impl Iterator<Item = char> {
    let printable = |byte: u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let mut shifted = 256..;
    (0..256).map(move |byte| {
        let code = if printable(byte) { byte } else { shifted.next().unwrap_or(byte) };
        char::from_u32(code).unwrap_or(' ')
    })
}

/// Spells text as pieces do.
pub(super) fn spelled(text: &str) -> String {
    text.replace(' ', BLANK)
}

/// Returns the byte that a name like `<0x0A>` stands for.
pub(super) fn byte_of(name: &str) -> Option<u8> {
    let digits = name.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

/// Returns the bytes that a token stands for, by a name that is not special.
pub(super) fn bytes_of_name(name: &str) -> Vec<u8> {
    byte_of(name).map_or_else(|| name.replace(BLANK, " ").into_bytes(), |byte| vec![byte])
}
