//! Spells values as Python's `str` and `repr` do.
//!
//! In: values of a template. Out: their texts, paid for with the steps that a template may take. It knows no
//! template, and no format.

use std::fmt::Write as _;

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

/// Text of a generator, which Python prints with its address.
pub(super) const GENERATOR: &str = "<generator object>";

/// Makes the error of a value or an argument that does not fit.
pub(super) fn invalid(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, what.into())
}

/// Returns the text that Python's `str` makes of a value.
pub(super) fn text_of(state: &State, value: &Value) -> Result<String, Error> {
    match value.kind() {
        ValueKind::String => Ok(value.as_str().unwrap_or_default().to_owned()),
        ValueKind::Undefined => Ok(String::new()),
        _ => representation(state, value),
    }
}

/// Returns the text that Python's `repr` makes of a value.
pub(super) fn representation(state: &State, value: &Value) -> Result<String, Error> {
    let mut text = String::new();
    represent(state, value, &mut text)?;
    Ok(text)
}

fn represent(state: &State, value: &Value, text: &mut String) -> Result<(), Error> {
    state.consume_fuel(1)?;
    match value.kind() {
        ValueKind::Undefined => text.push_str("Undefined"),
        ValueKind::None | ValueKind::Bool => text.push_str(&value.to_string()),
        ValueKind::Number => match fraction(value) {
            Some(number) => text.push_str(&spelt(number)),
            None => text.push_str(&value.to_string()),
        },
        ValueKind::String => {
            let value = value.as_str().unwrap_or_default();
            state.consume_fuel(value.len() as u64 / 16)?;
            quote(value, text);
        }
        ValueKind::Iterable if is_a(value, &["View"]) => match value.to_string() {
            view if view == GENERATOR => {
                return Err(invalid("a generator cannot be printed: make a list of it"));
            }
            view => text.push_str(&view),
        },
        // Sums and parts of lists are lists.
        ValueKind::Seq | ValueKind::Iterable => {
            let tuple = value.is_tuple();
            text.push(if tuple { '(' } else { '[' });
            for (place, item) in value.try_iter()?.enumerate() {
                text.push_str(if place > 0 { ", " } else { "" });
                represent(state, &item, text)?;
            }
            if tuple && value.len() == Some(1) {
                text.push(',');
            }
            text.push(if tuple { ')' } else { ']' });
        }
        ValueKind::Map if !is_a(value, &["Macro", "Namespace", "Loop", "Module"]) => {
            text.push('{');
            for (place, key) in value.try_iter()?.enumerate() {
                text.push_str(if place > 0 { ", " } else { "" });
                represent(state, &key, text)?;
                text.push_str(": ");
                represent(state, &value.get_item(&key)?, text)?;
            }
            text.push('}');
        }
        kind => {
            let what = match kind {
                ValueKind::Map | ValueKind::Plain => "an object of the engine",
                _ => "such a value",
            };
            return Err(invalid(format!("{what} cannot be printed as Python prints it")));
        }
    }
    Ok(())
}

/// Whether a value is an object of a type with one of these names.
fn is_a(value: &Value, names: &[&str]) -> bool {
    let object = value.as_object();
    object.is_some_and(|object| names.iter().any(|name| object.type_name().ends_with(name)))
}

/// Writes a text between quotes.
fn quote(value: &str, text: &mut String) {
    let mark = if value.contains('\'') && !value.contains('"') { '"' } else { '\'' };
    text.push(mark);
    for character in value.chars() {
        match character {
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\\' => text.push_str("\\\\"),
            c if c == mark => text.extend(['\\', c]),
            c if is_printed(c) => text.push(c),
            c => escape(c, text),
        }
    }
    text.push(mark);
}

/// Whether Python prints a character as it is. Rust does so with what follows a letter.
fn is_printed(character: char) -> bool {
    match character {
        ' '..='~' => true,
        c => !String::from_iter(['a', c]).escape_debug().any(|escaped| escaped == '\\'),
    }
}

/// Writes the number of a character.
fn escape(character: char, text: &mut String) {
    let number = u32::from(character);
    let written = match number {
        0..=0xff => write!(text, "\\x{number:02x}"),
        0x100..=0xffff => write!(text, "\\u{number:04x}"),
        _ => write!(text, "\\U{number:08x}"),
    };
    debug_assert!(written.is_ok(), "a text takes all that is written");
}

/// Returns a representation with the numbers of what is not ASCII.
pub(super) fn in_ascii(representation: &str) -> String {
    let mut text = String::new();
    for character in representation.chars() {
        match character.is_ascii() {
            true => text.push(character),
            false => escape(character, &mut text),
        }
    }
    text
}

/// Returns a number that is no integer.
pub(super) fn fraction(value: &Value) -> Option<f64> {
    let number = value.kind() == ValueKind::Number && !value.is_integer();
    number.then(|| f64::try_from(value.clone()).ok()).flatten()
}

/// Spells a float: the fewest digits that stand for it, with an exponent where it is large or small.
pub(super) fn spelt(number: f64) -> String {
    let size = number.abs();
    if number.is_nan() {
        return "nan".to_owned();
    }
    if !number.is_finite() || size == 0.0 || (1e-4..1e16).contains(&size) {
        return format!("{number:?}");
    }
    let text = format!("{number:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |e| ('-', e));
    format!("{digits}e{sign}{exponent:0>2}")
}
