//! Texts that are read whole: bytes and a limit come in, a text without its byte order mark goes out. It knows
//! nothing of what a text means.

use std::io::{self, ErrorKind, Read};

use hyperrag_files::lines::BYTE_ORDER_MARK;

/// Reads a text of at most `bytes_max` bytes to its end.
///
/// # Errors
/// [`ErrorKind::InvalidData`] if it is longer, or not UTF-8, with the number of the first such line, counted
/// from 1; else the error of the system.
///
/// ```
/// let error = hyperrag_engine::text::read(&b"a\n\xe9"[..], 80).unwrap_err();
/// assert_eq!(error.to_string(), "line 2 is not UTF-8; convert the file to UTF-8");
/// ```
pub fn read(reader: impl Read, bytes_max: u64) -> io::Result<String> {
    let invalid = |what| io::Error::new(ErrorKind::InvalidData, what);
    let mut bytes = Vec::new();
    let read = reader.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    if read as u64 > bytes_max {
        return Err(invalid(format!("more than {bytes_max} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let before = error.as_bytes().get(..valid).unwrap_or_default();
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        invalid(format!("line {line} is not UTF-8; convert the file to UTF-8"))
    })?;
    Ok(text.strip_prefix(BYTE_ORDER_MARK).map(str::to_owned).unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_whole_or_its_line_is_named() {
        let said = |bytes: &[u8]| read(bytes, 8).map_err(|error| error.to_string());
        assert_eq!(said(b"12345678"), Ok("12345678".to_owned()));
        assert_eq!(said("\u{feff}a\r\n".as_bytes()), Ok("a\r\n".to_owned()));
        assert_eq!(said(b"123456789"), Err("more than 8 bytes".to_owned()));
        for (bytes, line) in [(&b"\xff"[..], 1), (b"a\n\nb\xe9c", 3), (b"\xc3\xa9\n\xc3\n", 2)] {
            let expected = format!("line {line} is not UTF-8; convert the file to UTF-8");
            assert_eq!(said(bytes), Err(expected));
        }
    }
}
