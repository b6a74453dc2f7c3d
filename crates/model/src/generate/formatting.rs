//! Puts values into texts as Python's operator `%` does.
//!
//! In: a format and values. Out: a text. Widths and precisions are checked before a text is made. It knows no
//! template.

use minijinja::formatting::{FormatStyle, format};
use minijinja::value::{Value, ValueKind};
use minijinja::{Error, State};

use crate::generate::spelling::{fraction, in_ascii, invalid, representation, text_of};

/// Largest width or precision that a template may ask for, in characters.
pub(super) const WIDTH_MAX: usize = 1 << 16;

/// Checks a width or a precision.
pub(super) fn bounded(width: usize) -> Result<usize, Error> {
    match width <= WIDTH_MAX {
        true => Ok(width),
        false => Err(invalid(format!(
            "a text of {width} characters is asked for, {WIDTH_MAX} at most are made"
        ))),
    }
}

/// Reads the characters of a format.
pub(super) struct Reader<'a>(pub(super) &'a str);

impl<'a> Reader<'a> {
    pub(super) fn next(&mut self) -> Option<char> {
        let first = self.0.chars().next()?;
        self.0 = &self.0[first.len_utf8()..];
        Some(first)
    }

    pub(super) fn next_if(&mut self, wanted: &[char]) -> Option<char> {
        let first = self.0.chars().next().filter(|first| wanted.contains(first))?;
        self.next();
        Some(first)
    }

    pub(super) fn until(&mut self, end: usize) -> &'a str {
        let (before, rest) = self.0.split_at(end);
        self.0 = rest;
        before
    }

    /// Reads a number, which is checked.
    pub(super) fn number(&mut self) -> Result<Option<usize>, Error> {
        let end = self.0.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.0.len());
        match self.until(end) {
            "" => Ok(None),
            digits => bounded(digits.parse().unwrap_or(usize::MAX)).map(Some),
        }
    }
}

/// Fills `text` up to `width` characters, where `align` says: `<` after it, `>` before it, `^` around it, `=`
/// after `start` bytes of it.
pub(super) fn filled(text: &str, start: usize, width: usize, fill: char, align: char) -> String {
    let missing = width.saturating_sub(text.chars().count());
    let fill = |count: usize| String::from(fill).repeat(count);
    match align {
        '<' => format!("{text}{}", fill(missing)),
        '^' => format!("{}{text}{}", fill(missing / 2), fill(missing - missing / 2)),
        '=' => format!("{}{}{}", &text[..start], fill(missing), &text[start..]),
        _ => format!("{}{text}", fill(missing)),
    }
}

/// Pays for a text that was made.
pub(super) fn paid(state: &State, text: String) -> Result<String, Error> {
    state.consume_fuel(1 + text.len() as u64 / 64)?;
    Ok(text)
}

/// A conversion of the operator `%`.
#[derive(Default)]
struct Conversion {
    left: bool,
    zero: bool,
    alternate: bool,
    sign: &'static str,
    width: usize,
    precision: Option<usize>,
    kind: char,
}

/// Values at the right of the operator `%`.
struct Values<'a> {
    named: &'a Value,
    ordered: Vec<Value>,
    taken: usize,
}

impl Values<'_> {
    fn next(&mut self) -> Result<Value, Error> {
        self.taken += 1;
        let value = self.ordered.get(self.taken - 1).cloned();
        value.ok_or_else(|| invalid("a format of % has more conversions than values"))
    }

    fn next_number(&mut self) -> Result<i64, Error> {
        let value = self.next()?;
        value.as_i64().ok_or_else(|| invalid("* in a format of % takes an integer"))
    }
}

/// Applies the operator `%` to a text.
pub(super) fn percent(state: &State, pattern: &str, right: &Value) -> Result<String, Error> {
    let ordered = match right.is_tuple() {
        true => right.try_iter()?.collect(),
        false => vec![right.clone()],
    };
    let mut values = Values { named: right, ordered, taken: 0 };
    let (mut text, mut pattern) = (String::new(), Reader(pattern));
    while let Some(at) = pattern.0.find('%') {
        text.push_str(pattern.until(at));
        pattern.next();
        if pattern.next_if(&['%']).is_some() {
            text.push('%');
            continue;
        }
        let named = match pattern.next_if(&['(']) {
            Some(_) => Some(named(&mut pattern, &values)?),
            None => None,
        };
        let conversion = conversion(&mut pattern, &mut values)?;
        let value = match named {
            Some(value) => value,
            None => values.next()?,
        };
        text.push_str(&paid(state, conversion.apply(state, &value)?)?);
    }
    // Python takes what has items for a mapping, of which some may not be used.
    let mapping = matches!(right.kind(), ValueKind::Map | ValueKind::Seq | ValueKind::Undefined);
    if values.taken < values.ordered.len() && (right.is_tuple() || !mapping) {
        return Err(invalid("a format of % has fewer conversions than values"));
    }
    paid(state, text + pattern.0)
}

/// Reads a name in brackets, and finds its value.
fn named(pattern: &mut Reader<'_>, values: &Values<'_>) -> Result<Value, Error> {
    let end = pattern.0.find(')').ok_or_else(|| invalid("a format of % has an open bracket"))?;
    let name = pattern.until(end);
    pattern.next();
    if values.named.kind() != ValueKind::Map {
        return Err(invalid("a format of % with names takes a mapping"));
    }
    let value = values.named.get_item(&Value::from(name))?;
    match value.is_undefined() {
        true => Err(invalid(format!("a format of % names {name}, which the mapping has not"))),
        false => Ok(value),
    }
}

/// Reads a conversion after its name.
fn conversion(pattern: &mut Reader<'_>, values: &mut Values<'_>) -> Result<Conversion, Error> {
    let mut conversion = Conversion::default();
    while let Some(flag) = pattern.next_if(&['#', '0', '-', ' ', '+']) {
        match flag {
            '#' => conversion.alternate = true,
            '0' => conversion.zero = true,
            '-' => conversion.left = true,
            '+' => conversion.sign = "+",
            _ if conversion.sign.is_empty() => conversion.sign = " ",
            _ => {}
        }
    }
    let size = |number: i64| bounded(usize::try_from(number.unsigned_abs()).unwrap_or(usize::MAX));
    if pattern.next_if(&['*']).is_some() {
        let width = values.next_number()?;
        conversion.left |= width < 0;
        conversion.width = size(width)?;
    } else {
        conversion.width = pattern.number()?.unwrap_or(0);
    }
    if pattern.next_if(&['.']).is_some() {
        conversion.precision = Some(match pattern.next_if(&['*']) {
            Some(_) => size(values.next_number()?.max(0))?,
            None => pattern.number()?.unwrap_or(0),
        });
    }
    pattern.next_if(&['h', 'l', 'L']);
    conversion.kind = pattern.next().ok_or_else(|| invalid("a format of % ends too early"))?;
    Ok(conversion)
}

impl Conversion {
    fn apply(&self, state: &State, value: &Value) -> Result<String, Error> {
        match self.kind {
            's' => Ok(self.text(&text_of(state, value)?)),
            'r' => Ok(self.text(&representation(state, value)?)),
            'a' => Ok(self.text(&in_ascii(&representation(state, value)?))),
            'c' => Ok(filled(&character(value)?, 0, self.width, ' ', self.align())),
            'd' | 'i' | 'u' | 'o' | 'x' | 'X' => self.integer(value),
            'e' | 'E' | 'f' | 'F' | 'g' | 'G' => self.float(value),
            kind => Err(invalid(format!("a format of % has no conversion {kind:?}"))),
        }
    }

    fn align(&self) -> char {
        if self.left { '<' } else { '>' }
    }

    fn text(&self, text: &str) -> String {
        let text: String = text.chars().take(self.precision.unwrap_or(usize::MAX)).collect();
        filled(&text, 0, self.width, ' ', self.align())
    }

    /// Puts a sign before the digits of a number, and fills it up.
    fn number(&self, negative: bool, prefix: &str, digits: &str) -> String {
        let sign = if negative { "-" } else { self.sign };
        let text = format!("{sign}{prefix}{digits}");
        match self.zero && !self.left {
            true => filled(&text, sign.len() + prefix.len(), self.width, '0', '='),
            false => filled(&text, 0, self.width, ' ', self.align()),
        }
    }

    fn integer(&self, value: &Value) -> Result<String, Error> {
        let wrong = || invalid(format!("%{} takes an integer", self.kind));
        let decimal = matches!(self.kind, 'd' | 'i' | 'u');
        let whole = match fraction(value) {
            // Wide enough for each integer that a float stands for exactly.
            Some(number) if decimal && number.abs() < 1e38 => whole(number),
            Some(_) => None,
            None => integer(value),
        };
        let whole = whole.ok_or_else(wrong)?;
        let size = whole.unsigned_abs();
        let (prefix, digits) = match self.kind {
            'o' => ("0o", format!("{size:o}")),
            'x' => ("0x", format!("{size:x}")),
            'X' => ("0X", format!("{size:X}")),
            _ => ("", size.to_string()),
        };
        let digits = filled(&digits, 0, self.precision.unwrap_or(0), '0', '>');
        let prefix = if self.alternate { prefix } else { "" };
        Ok(self.number(whole < 0, prefix, &digits))
    }

    fn float(&self, value: &Value) -> Result<String, Error> {
        let number =
            float(value).ok_or_else(|| invalid(format!("%{} takes a number", self.kind)))?;
        let alternate = if self.alternate { "#" } else { "" };
        let pattern = format!("%{alternate}.{}{}", self.precision.unwrap_or(6), self.kind);
        let digits = format(FormatStyle::Printf, &pattern, &[Value::from(number.abs())])?;
        Ok(self.number(number.is_sign_negative() && !number.is_nan(), "", &digits))
    }
}

/// Returns the integer that a value is; `None` if it is none, or larger than 128 bits.
pub(super) fn integer(value: &Value) -> Option<i128> {
    match value.kind() {
        ValueKind::Bool => Some(i128::from(value.is_true())),
        ValueKind::Number if value.is_integer() => i128::try_from(value.clone()).ok(),
        _ => None,
    }
}

/// Returns the integer that is left of a number without its fraction.
fn whole(number: f64) -> Option<i128> {
    format!("{:.0}", number.trunc()).parse().ok()
}

/// Returns the float that a value is, or that stands for its integer.
pub(super) fn float(value: &Value) -> Option<f64> {
    match value.kind() {
        ValueKind::Bool => Some(f64::from(u8::from(value.is_true()))),
        ValueKind::Number => f64::try_from(value.clone()).ok(),
        _ => None,
    }
}

/// Returns the character that a value is, or the one of its number.
fn character(value: &Value) -> Result<String, Error> {
    let wrong = || invalid("%c takes a character or its number");
    if let Some(text) = value.as_str() {
        let one = text.chars().count() == 1;
        return one.then(|| text.to_owned()).ok_or_else(wrong);
    }
    let number = integer(value).and_then(|number| u32::try_from(number).ok());
    number.and_then(char::from_u32).map(String::from).ok_or_else(wrong)
}
