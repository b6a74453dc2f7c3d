//! The checksum at the end of `meta.json`, as one more field of its object. tantivy neither writes nor
//! reads it, and older versions wrote none.

/// Bytes before a field's name.
const SEPARATOR: &[u8] = b",\n  \"";

/// Bytes at the end of the object.
const END: &[u8] = b"\n}\n";

/// Adds a checksum to the bytes of a list.
pub(crate) fn seal(list: &[u8]) -> Vec<u8> {
    let Some(fields) = list.strip_suffix(END) else { return list.to_vec() };
    let head = [fields, SEPARATOR].concat();
    let tail = tail(&head);
    [head, tail].concat()
}

/// Whether the bytes of a list are unchanged. A list without a checksum counts as unchanged.
pub(crate) fn is_intact(list: &[u8]) -> bool {
    let Some(last) = list.windows(SEPARATOR.len()).rposition(|at| at == SEPARATOR) else {
        return true;
    };
    let (head, found) = list.split_at(last + SEPARATOR.len());
    let expected = tail(head);
    found == expected || found.len() != expected.len()
}

fn tail(head: &[u8]) -> Vec<u8> {
    let checksum = crc32fast::hash(head);
    [format!("crc32\": \"{checksum:08x}\"").as_bytes(), END].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_list_is_noticed_and_an_older_one_is_read() {
        let list =
            b"{\n  \"segments\": [],\n  \"opstamp\": 12,\n  \"payload\": \"a b crc32 0\"\n}\n";
        assert!(is_intact(list));
        let sealed = seal(list);
        assert!(is_intact(&sealed));
        let text = str::from_utf8(&sealed).unwrap();
        assert!(text.contains("\"a b crc32 0\",\n  \"crc32\": \""), "{text}");
        let separator = text.rfind(",\n  \"").unwrap();
        for at in 0..sealed.len() {
            for bit in 0..8 {
                let mut changed = sealed.clone();
                changed[at] ^= 1 << bit;
                // Without its separator it is no JSON.
                let is_separator = (separator..separator + SEPARATOR.len()).contains(&at);
                assert!(!is_intact(&changed) || is_separator, "{at}");
            }
        }
    }
}
