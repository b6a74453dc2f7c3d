//! Money, bytes and times of a plan, for people: numbers in, short words out.

/// Returns dollars: whole ones from 100 on, cents from 1 on, below that three digits.
pub(crate) fn dollars(amount: f64) -> String {
    match amount {
        0.0 => "$0".to_owned(),
        a if a >= 1e9 => format!("${a:.3e}"),
        a if a >= 100.0 => format!("${}", grouped(a)),
        a if a >= 0.01 => format!("${a:.2}"),
        a => format!("${a:.2e}"),
    }
}

/// Returns a number in whole ones with commas.
fn grouped(amount: f64) -> String {
    let digits = format!("{amount:.0}");
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns bytes with a unit of powers of 1000, as prices have it.
pub(crate) fn decimal_bytes(bytes: f64) -> String {
    with_unit(bytes, &["B", "KB", "MB", "GB", "TB", "PB", "EB"], " ")
}

/// Returns a count, with a unit of powers of 1000 from a million on.
pub(crate) fn count(number: f64) -> String {
    match number {
        n if n >= 1e6 => with_unit(number, &["", "k", "M", "G", "T", "P", "E"], ""),
        n if n >= 100.0 => grouped(n),
        n => digits(n),
    }
}

fn with_unit(mut number: f64, units: &[&str], between: &str) -> String {
    let mut at = 0;
    while number >= 999.5 && at + 1 < units.len() {
        number /= 1000.0;
        at += 1;
    }
    format!("{}{between}{}", digits(number), units[at])
}

/// Returns a number in three digits.
pub(crate) fn digits(number: f64) -> String {
    match number {
        0.0 => "0".to_owned(),
        n if n >= 1e6 => format!("{n:.2e}"),
        n if n >= 99.95 => format!("{n:.0}"),
        n if n >= 9.995 => format!("{n:.1}"),
        n if n >= 0.01 => format!("{n:.2}"),
        n => format!("{n:.1e}"),
    }
}

/// Returns a time in the unit in which it is short.
pub(crate) fn time(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{} us", digits(1e6 * s)),
        s if s < 1.0 => format!("{} ms", digits(1e3 * s)),
        s if s < 120.0 => format!("{} s", digits(s)),
        s if s < 7200.0 => format!("{} min", digits(s / 60.0)),
        s if s < 96.0 * 3600.0 => format!("{} h", digits(s / 3600.0)),
        s if s < 730.0 * 86_400.0 => format!("{} days", digits(s / 86_400.0)),
        s => format!("{} years", digits(s / (8760.0 * 3600.0))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let money = [0.0, 4.6e-5, 0.05, 49.9, 2289.0, 1_234_567.0].map(dollars);
        assert_eq!(money, ["$0", "$4.60e-5", "$0.05", "$49.90", "$2,289", "$1,234,567"]);
        assert_eq!(
            [40e12, 999.0, 1e3, 4_726_784.0].map(decimal_bytes),
            ["40.0 TB", "999 B", "1.00 KB", "4.73 MB"]
        );
        assert_eq!([8_462_413.0, 160.0, 2.5, 1e10].map(count), ["8.46M", "160", "2.50", "10.0G"]);
        assert_eq!(
            [2e-4, 0.89, 19.0, 600.0, 69_883.0].map(time),
            ["200 us", "890 ms", "19.0 s", "10.0 min", "19.4 h"]
        );
        assert_eq!(grouped(100.0), "100");
    }
}
