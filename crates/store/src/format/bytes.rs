//! Little-endian fields and checksums: bytes come in, numbers go out. It knows no file and no length.

use std::fmt::Display;

/// Copies a field of little-endian bytes. The caller has checked the length of `bytes`.
pub(crate) fn field<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[offset..offset + N]);
    field
}

pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(field(bytes, offset))
}

pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(field(bytes, offset))
}

/// Compares a stored checksum with the bytes.
pub(crate) fn check_crc(what: impl Display, expected: u32, bytes: &[u8]) -> Result<(), String> {
    let actual = crc32fast::hash(bytes);
    match actual == expected {
        true => Ok(()),
        false => Err(format!("{what} has checksum {actual:08x}, expected {expected:08x}")),
    }
}
