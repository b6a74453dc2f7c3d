//! Mends metadata that say in an unusual way that a file has no row group: the bytes come in, and the bytes
//! that the decoder understands go out.

use crate::pages::{Compact, DEPTH_MAX, LIST, STRUCT};

/// Number of the field `row_groups` in Parquet's `FileMetaData`.
const ROW_GROUPS: i64 = 4;

/// Gives the empty list of row groups its type. fastparquet writes an empty list without one, which Thrift
/// allows and the decoder refuses. `None` if the metadata have no such list.
pub(crate) fn with_typed_groups(metadata: &[u8]) -> Option<Vec<u8>> {
    let (mut input, mut field) = (Compact::new(metadata), 0);
    while let Some(kind) = input.field(&mut field).ok()? {
        if (field, kind) != (ROW_GROUPS, LIST) {
            input.skip(kind, DEPTH_MAX).ok()?;
            continue;
        }
        let at = usize::try_from(input.read).ok()?;
        let mut mended = metadata.to_vec();
        let header = mended.get_mut(at).filter(|header| **header == 0)?;
        *header = STRUCT;
        return Some(mended);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::columns::Columns;
    use crate::testing::{Folder, parquet_bytes, strings};

    #[test]
    fn a_list_without_a_type_is_mended() {
        // Version 1, no schema, no rows, no row groups, no more.
        let typed = [0x15, 2, 0x19, 0x0c, 0x16, 0, 0x19, 0x0c, 0];
        let mut untyped = typed;
        untyped[7] = 0;
        assert_eq!(with_typed_groups(&untyped).as_deref(), Some(&typed[..]));
        assert_eq!(with_typed_groups(&typed), None);
        for length in 0..7 {
            assert_eq!(with_typed_groups(&untyped[..length]), None);
        }
    }

    #[test]
    fn a_file_without_row_groups_has_no_documents() {
        let folder = Folder::new();
        let mut bytes = parquet_bytes(vec![("id", strings(&[])), ("text", strings(&[]))], 1, false);
        let typed = [0x16, 0, 0x19, 0x0c];
        let found = bytes.windows(4).position(|window| window == typed).unwrap();
        folder.write("a.parquet", &bytes);
        bytes[found + 3] = 0;
        folder.write("b.parquet", &bytes);
        let corpus = folder.corpus(&[""], Columns::default()).unwrap();
        assert_eq!(folder.read(&corpus), [""; 0]);
    }
}
