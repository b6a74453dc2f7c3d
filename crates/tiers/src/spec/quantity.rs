//! Sizes and times. In: text. Out: bytes and durations, and text that is read back as them.

use std::fmt;
use std::time::Duration;

use super::error::{SpecError, shown};

/// Units of sizes, the largest first. The short ones are those of other options of the program.
const BYTE_UNITS: [(&str, u64); 14] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1000),
    ("T", 1 << 40),
    ("G", 1 << 30),
    ("M", 1 << 20),
    ("K", 1 << 10),
    ("B", 1),
    ("", 1),
];

/// Units of times in milliseconds, the largest first.
const TIME_UNITS: [(&str, u64); 6] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1), ("", 1000)];

/// Parses a number of bytes, as in `4GiB`, `500MB` or `1048576`.
///
/// # Errors
/// [`SpecError::Size`] for what is no number, has another unit, or is 0 or larger than a disk can be.
pub fn parse_bytes(text: &str) -> Result<u64, SpecError> {
    let wrong = || SpecError::Size { text: shown(text) };
    parse(text.trim(), &BYTE_UNITS).filter(|bytes| (1..1 << 60).contains(bytes)).ok_or_else(wrong)
}

/// Parses a time, as in `400ms`, `15s`, `90m`, `12h` or `30d`. A bare number is seconds.
pub(super) fn parse_time(text: &str) -> Option<Duration> {
    const MS_MAX: u64 = 100 * 366 * 86_400_000;
    let ms = parse(text, &TIME_UNITS).filter(|ms| (1..=MS_MAX).contains(ms))?;
    Some(Duration::from_millis(ms))
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start();
    let (_, factor) = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// Writes with the first unit that divides the number.
fn write(f: &mut fmt::Formatter<'_>, number: u64, units: &[(&str, u64)]) -> fmt::Result {
    match units.iter().find(|(_, factor)| number.is_multiple_of(*factor)) {
        Some((unit, factor)) => write!(f, "{}{unit}", number / factor),
        None => write!(f, "{number}"),
    }
}

/// A number of bytes, written with its unit.
pub(super) struct Amount(pub(super) u64);

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &BYTE_UNITS[..8].iter().any(|(_, factor)| self.0.is_multiple_of(*factor)) {
            true => write(f, self.0, &BYTE_UNITS[..8]),
            false => write!(f, "{}", self.0),
        }
    }
}

/// A time, written with its unit.
pub(super) struct Time(pub(super) Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        write(f, ms, &TIME_UNITS[..5])
    }
}
