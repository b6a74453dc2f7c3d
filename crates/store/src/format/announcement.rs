//! The line of the file `generation`, which announces a manifest: values come in, bytes go out, and back.

use hyperrag_core::Digest;

/// Length of the longest line, in bytes: a checksum, two numbers of 20 digits, a digest.
pub(crate) const ANNOUNCEMENT_BYTES_MAX: u64 = 8 + 1 + 20 + 1 + 20 + 1 + 64 + 1;

/// A manifest that is, or is about to be, in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Announced {
    /// Generation of the manifest before it. No older one is in place from now on.
    pub(crate) previous: u64,
    /// Generation of the announced manifest.
    pub(crate) generation: u64,
    /// Checksum of the announced manifest.
    pub(crate) checksum: Digest,
}

impl Announced {
    pub(crate) fn line(&self) -> String {
        let Self { previous, generation, checksum } = self;
        let text = format!("{previous} {generation} {checksum}");
        format!("{:08x} {text}\n", crc32fast::hash(text.as_bytes()))
    }

    /// Reads a line. It has only one spelling: the values are written again and compared.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let line = std::str::from_utf8(bytes).ok()?;
        let mut words = line.trim_end().split(' ').skip(1);
        let mut number = || words.next()?.parse().ok();
        let (previous, generation) = (number()?, number()?);
        let checksum = Digest(*blake3::Hash::from_hex(words.next()?).ok()?.as_bytes());
        let announced = Self { previous, generation, checksum };
        (announced.line() == line).then_some(announced)
    }
}
