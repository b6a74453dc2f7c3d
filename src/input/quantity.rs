//! Numbers with units: text comes in, a finite `f64` goes out. What is no number, negative, not finite or beyond all
//! use is refused.

/// Largest number: products of a few of them stay finite.
const LARGEST: f64 = 1e24;
/// Smallest number above 0.
const SMALLEST: f64 = 1e-24;

/// Units of counts.
const COUNTS: [(&str, f64); 6] =
    [("", 1.0), ("k", 1e3), ("M", 1e6), ("G", 1e9), ("T", 1e12), ("P", 1e15)];
/// Units of bytes: those of powers of 1000 and of 1024.
const BYTES: [(&str, f64); 12] = [
    ("", 1.0),
    ("B", 1.0),
    ("KB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("TB", 1e12),
    ("PB", 1e15),
    ("KiB", 1024.0),
    ("MiB", 1_048_576.0),
    ("GiB", 1_073_741_824.0),
    ("TiB", 1_099_511_627_776.0),
    ("PiB", 1_125_899_906_842_624.0),
];
/// Units of times, in seconds.
const TIMES: [(&str, f64); 4] = [("", 1.0), ("s", 1.0), ("ms", 1e-3), ("us", 1e-6)];

/// Parses a count above 0, as in `8.5M` or `1e6`.
pub(crate) fn parse_count(text: &str) -> Result<f64, String> {
    above_zero(parse(text, &COUNTS)?)
}

/// Parses bytes above 0, as in `40TB` or `64GiB`.
pub(crate) fn parse_bytes(text: &str) -> Result<f64, String> {
    above_zero(parse(text, &BYTES)?)
}

/// Parses a time from 0 on in seconds, as in `0.1ms`.
pub(crate) fn parse_seconds(text: &str) -> Result<f64, String> {
    parse(text, &TIMES)
}

/// Parses a number above 0 without a unit.
pub(crate) fn parse_positive(text: &str) -> Result<f64, String> {
    above_zero(parse(text, &[("", 1.0)])?)
}

/// Parses a number from 0 on without a unit.
pub(crate) fn parse_share(text: &str) -> Result<f64, String> {
    parse(text, &[("", 1.0)])
}

/// Refuses 0.
fn above_zero(number: f64) -> Result<f64, String> {
    match number > 0.0 {
        true => Ok(number),
        false => Err("give a number above 0".to_owned()),
    }
}

/// Refuses a number that no calculation can use.
pub(crate) fn checked(number: f64) -> Result<f64, String> {
    match number {
        0.0 => Ok(0.0),
        number if (SMALLEST..=LARGEST).contains(&number) => Ok(number),
        number if number < 0.0 => Err("give a number that is not negative".to_owned()),
        _ => Err(format!("give a number from {SMALLEST:e} to {LARGEST:e}")),
    }
}

fn parse(text: &str, units: &[(&str, f64)]) -> Result<f64, String> {
    let text = text.trim();
    let is_unit = |c: char| c.is_alphabetic();
    // The e of an exponent stands before a digit or a sign.
    let unit_at = text.char_indices().find(|(at, c)| {
        let after = text[at + c.len_utf8()..].chars().next();
        let exponent = matches!(c, 'e' | 'E')
            && after.is_some_and(|c| c.is_ascii_digit() || c == '-' || c == '+');
        is_unit(*c) && !exponent
    });
    let (number, unit) = text.split_at(unit_at.map_or(text.len(), |(at, _)| at));
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        let known: Vec<&str> =
            units.iter().map(|(name, _)| *name).filter(|n| !n.is_empty()).collect();
        return Err(match known.is_empty() {
            true => "give a number without a unit".to_owned(),
            false => format!("{unit:?} is no unit: use {}", known.join(", ")),
        });
    };
    let number: f64 = number.trim_end().parse().map_err(|_| "give a number".to_owned())?;
    checked(number * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_units() {
        for (text, number) in [("8.5M", 8.5e6), ("1e6", 1e6), ("2.5e-3k", 2.5), ("7", 7.0)] {
            assert_eq!(parse_count(text), Ok(number), "{text}");
        }
        assert_eq!(parse_bytes("40TB"), Ok(40e12));
        assert_eq!(parse_bytes("64 GiB"), Ok((64_u64 << 30) as f64));
        assert_eq!(parse_seconds("0.5ms"), Ok(5e-4));
        assert_eq!(parse_seconds("0"), Ok(0.0));
        assert_eq!(parse_share("730"), Ok(730.0));
        assert_eq!(parse_positive("4e-7"), Ok(4e-7));
    }

    #[test]
    fn what_nothing_can_be_computed_with_is_refused() {
        for text in
            ["", "x", "-1", "nan", "NaN", "inf", "1e999", "1e25", "1e-30", "0", "1e", "1..2", "١"]
        {
            assert!(parse_count(text).is_err(), "{text:?}");
        }
        assert!(parse_count("5 apples").unwrap_err().contains("\"apples\" is no unit: use k, M"));
        assert!(parse_bytes("5M").unwrap_err().contains("KB, MB"));
        assert!(parse_positive("5%").is_err());
        assert!(parse_share("-0.5").unwrap_err().contains("not negative"));
    }
}
