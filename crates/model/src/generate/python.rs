//! Parts of Python that chat templates use and the engine lacks: methods of texts and lists, `%`, JSON, and the
//! date.
//!
//! In: values of a template. Out: values as Python gives them. It knows no template.

use std::fmt::Write as _;

use chrono::{DateTime, Local, Utc};
use minijinja::value::{Kwargs, Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State};

use crate::generate::format_fields;
use crate::generate::formatting::{self, bounded};
use crate::generate::spelling::{fraction, invalid, spelt};
use crate::generate::views;

/// Calls a method from here, else one that the engine's own compatibility has.
pub(super) fn method(
    state: &mut State,
    value: &Value,
    name: &str,
    args: &[Value],
) -> Result<Value, Error> {
    if let Some(view) = views::of_mapping(state, value, name, args) {
        return view;
    }
    let found = match value.as_str() {
        Some(text) => text_method(state, text, name, args),
        None if name == "index" && value.kind() == ValueKind::Seq => index(value, args),
        None if name == "copy" && value.kind() == ValueKind::Map => Ok(value.clone()),
        None => Err(Error::from(ErrorKind::UnknownMethod)),
    };
    match found {
        Err(error) if error.kind() == ErrorKind::UnknownMethod => {
            minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args)
        }
        found => found,
    }
}

fn index(value: &Value, args: &[Value]) -> Result<Value, Error> {
    let (wanted,): (Value,) = from_args(args)?;
    let found = value.try_iter()?.position(|item| item == wanted);
    found.map(Value::from).ok_or_else(|| invalid("the list does not have that"))
}

/// Calls a method of a text.
fn text_method(state: &State, text: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    match name {
        "split" | "rsplit" => split(text, name == "rsplit", args),
        "format" => Ok(format_fields::format_method(state, text, args)?.into()),
        "partition" | "rpartition" => {
            let (at,): (&str,) = from_args(args)?;
            let last = name == "rpartition";
            let parts = if last { text.rsplit_once(at) } else { text.split_once(at) };
            let parts = match parts {
                Some((before, after)) => [before, at, after],
                None if last => ["", "", text],
                None => [text, "", ""],
            };
            Ok(parts.into_iter().collect())
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Ok(text.strip_prefix(prefix).unwrap_or(text).into())
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Ok(text.strip_suffix(suffix).unwrap_or(text).into())
        }
        "index" | "rindex" => {
            let (part,): (&str,) = from_args(args)?;
            let found = if name == "index" { text.find(part) } else { text.rfind(part) };
            let found = found.ok_or_else(|| invalid("the text does not have that"))?;
            Ok(text[..found].chars().count().into())
        }
        "casefold" if text.is_ascii() => Ok(text.to_lowercase().into()),
        "casefold" => Err(invalid("casefold is not supported for letters outside ASCII")),
        "title" => Ok(title(text).into()),
        "splitlines" => {
            let (ends,): (Option<bool>,) = from_args(args)?;
            Ok(lines(text, ends.unwrap_or(false)).into_iter().collect())
        }
        "swapcase" => {
            let swapped = text.chars().flat_map(|c| -> Box<dyn Iterator<Item = char>> {
                match c.is_uppercase() {
                    true => Box::new(c.to_lowercase()),
                    false => Box::new(c.to_uppercase()),
                }
            });
            Ok(swapped.collect::<String>().into())
        }
        "zfill" | "ljust" | "rjust" | "center" => filled(state, text, name, args),
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

/// Begins each word of a text with a large letter, where Python's words have letters alone.
fn title(text: &str) -> String {
    let mut title = String::new();
    let mut inside = false;
    for character in text.chars() {
        match inside {
            true => title.extend(character.to_lowercase()),
            false => title.extend(character.to_uppercase()),
        }
        inside = character.is_alphabetic();
    }
    title
}

/// Parts a text at each end of a line that Python knows.
fn lines(text: &str, ends: bool) -> Vec<&str> {
    let marks = "\n\r\u{b}\u{c}\u{1c}\u{1d}\u{1e}\u{85}\u{2028}\u{2029}";
    let (mut lines, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find(|c| marks.contains(c)) {
        let mark = if rest[at..].starts_with("\r\n") {
            2
        } else {
            rest[at..].chars().next().map_or(0, char::len_utf8)
        };
        lines.push(&rest[..if ends { at + mark } else { at }]);
        rest = &rest[at + mark..];
    }
    lines.extend((!rest.is_empty()).then_some(rest));
    lines
}

/// Parts a text at its blanks or at another text, from its start or from its end.
fn split(text: &str, last: bool, args: &[Value]) -> Result<Value, Error> {
    let (at, most, options): (Option<&str>, Option<i64>, Kwargs) = from_args(args)?;
    let at = at.or(options.get("sep")?);
    let most = most.or(options.get("maxsplit")?).unwrap_or(-1);
    options.assert_all_used()?;
    let most = usize::try_from(most).unwrap_or(usize::MAX).saturating_add(1);
    let mut parts: Vec<&str> = match at {
        Some("") => return Err(invalid("an empty text parts nothing")),
        Some(at) if last => text.rsplitn(most, at).collect(),
        Some(at) => text.splitn(most, at).collect(),
        None => words_of(text, last, most),
    };
    if last {
        parts.reverse();
    }
    Ok(parts.into_iter().collect())
}

/// Parts a text at its blanks. The last of `most` parts keeps its blanks, but for those where it was parted.
fn words_of(text: &str, last: bool, most: usize) -> Vec<&str> {
    let (mut parts, mut rest) = (Vec::new(), text);
    loop {
        rest = if last { rest.trim_end() } else { rest.trim_start() };
        if rest.is_empty() {
            return parts;
        }
        let cut =
            if last { rest.rfind(char::is_whitespace) } else { rest.find(char::is_whitespace) };
        let Some(cut) = cut.filter(|_| parts.len() + 1 < most) else {
            parts.push(rest);
            return parts;
        };
        let after = cut + rest[cut..].chars().next().map_or(0, char::len_utf8);
        let (part, left) = match last {
            true => (&rest[after..], &rest[..cut]),
            false => (&rest[..cut], &rest[after..]),
        };
        parts.push(part);
        rest = left;
    }
}

/// Fills a text up to a width.
pub(super) fn filled(
    state: &State,
    text: &str,
    name: &str,
    args: &[Value],
) -> Result<Value, Error> {
    let (width, with): (i64, Option<&str>) = from_args(args)?;
    let width = bounded(usize::try_from(width.max(0)).unwrap_or(usize::MAX))?;
    let with = if name == "zfill" { "0" } else { with.unwrap_or(" ") };
    if with.chars().count() != 1 {
        return Err(invalid("a text is filled with one character"));
    }
    let missing = width.saturating_sub(text.chars().count());
    state.consume_fuel((missing * with.len()) as u64 / 64)?;
    // Python puts the odd character of an odd width before the text.
    let before = match name {
        "ljust" => 0,
        "center" => missing / 2 + (missing & width & 1),
        _ => missing,
    };
    let (sign, rest) = match name == "zfill" && text.starts_with(['-', '+']) {
        true => text.split_at(1),
        false => ("", text),
    };
    let (before, after) = (with.repeat(before), with.repeat(missing - before));
    Ok(format!("{sign}{before}{rest}{after}").into())
}

/// Applies the operator `%`: to a text with its values, or to numbers.
pub(super) fn percent(state: &State, left: Value, right: Value) -> Result<Value, Error> {
    if let Some(pattern) = left.as_str() {
        return Ok(formatting::percent(state, pattern, &right)?.into());
    }
    let numbers = left.as_i64().zip(right.as_i64());
    if let Some((left, right)) = numbers {
        let rest = left.checked_rem(right).ok_or_else(|| invalid("division by zero"))?;
        return Ok(Value::from(if rest != 0 && (rest < 0) != (right < 0) {
            rest + right
        } else {
            rest
        }));
    }
    let numbers = f64::try_from(left).and_then(|left| Ok((left, f64::try_from(right)?)));
    let (left, right) = numbers.map_err(|_| invalid("% takes a text or numbers"))?;
    match right == 0.0 {
        true => Err(invalid("division by zero")),
        false => Ok(Value::from(left - right * (left / right).floor())),
    }
}

/// Returns the time that `SOURCE_DATE_EPOCH` names, which programs know that give the same output again.
pub(super) fn fixed_time() -> Option<DateTime<Utc>> {
    let seconds = std::env::var("SOURCE_DATE_EPOCH").ok()?;
    DateTime::from_timestamp(seconds.trim().parse().ok()?, 0)
}

/// Formats this time, which is in UTC, or without one the local time.
pub(super) fn strftime(format: &str, fixed: Option<DateTime<Utc>>) -> Result<String, Error> {
    let mut text = String::new();
    let written = match fixed {
        Some(time) => write!(text, "{}", time.format(format)),
        None => write!(text, "{}", Local::now().format(format)),
    };
    written.map_err(|_| invalid(format!("{format:?} is no format of a date")))?;
    Ok(text)
}

/// Returns the words of a text.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    let parts = text.split(|c: char| !c.is_alphanumeric() && c != '_');
    parts.filter(|word| !word.is_empty())
}

/// Layout of JSON.
struct Json {
    ascii: bool,
    indent: Option<String>,
    between: String,
    colon: String,
    sorted: bool,
}

/// Writes a value as Python's `json.dumps` does, with the options of chat templates.
pub(super) fn tojson(state: &State, value: Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<Value> = options.get("indent")?;
    let indent = match indent.filter(|indent| !indent.is_none() && !indent.is_undefined()) {
        None => None,
        Some(indent) => Some(match indent.as_str() {
            Some(indent) => indent.to_owned(),
            None => " ".repeat(bounded(usize::try_from(indent)?)?),
        }),
    };
    let separators: Option<Value> = options.get("separators")?;
    let separators: Vec<Value> = match separators.filter(|separators| !separators.is_none()) {
        Some(separators) => separators.try_iter()?.collect(),
        None => Vec::new(),
    };
    let separator = |place: usize, usual: &str| {
        separators.get(place).and_then(Value::as_str).unwrap_or(usual).to_owned()
    };
    let json = Json {
        ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        between: separator(0, if indent.is_some() { "," } else { ", " }),
        colon: separator(1, ": "),
        indent,
        sorted: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
    };
    options.assert_all_used()?;
    let mut text = String::new();
    json.write(state, &value, 0, &mut text)?;
    Ok(text.into())
}

impl Json {
    fn write(
        &self,
        state: &State,
        value: &Value,
        depth: usize,
        text: &mut String,
    ) -> Result<(), Error> {
        let before = text.len();
        match value.kind() {
            ValueKind::None => text.push_str("null"),
            ValueKind::Bool => text.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => match fraction(value) {
                Some(number) => text.push_str(&spelt(number)),
                None => text.push_str(&value.to_string()),
            },
            ValueKind::String => self.quote(value.as_str().unwrap_or_default(), text),
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sorted {
                    keys.sort();
                }
                return self.items(
                    state,
                    keys.into_iter(),
                    ['{', '}'],
                    depth,
                    text,
                    |key, text| {
                        match key.kind() {
                            ValueKind::String => self.quote(key.as_str().unwrap_or_default(), text),
                            ValueKind::Bool => {
                                self.quote(if key.is_true() { "true" } else { "false" }, text);
                            }
                            ValueKind::None => self.quote("null", text),
                            _ => self.quote(&key.to_string(), text),
                        }
                        text.push_str(&self.colon);
                        self.write(state, &value.get_item(&key)?, depth + 1, text)
                    },
                );
            }
            ValueKind::Seq | ValueKind::Iterable => {
                let items = value.try_iter()?;
                return self.items(state, items, ['[', ']'], depth, text, |item, text| {
                    self.write(state, &item, depth + 1, text)
                });
            }
            kind => return Err(invalid(format!("a value of kind {kind} has no JSON"))),
        }
        state.consume_fuel(1 + (text.len() - before) as u64 / 64)
    }

    fn items(
        &self,
        state: &State,
        items: impl Iterator<Item = Value>,
        [open, close]: [char; 2],
        depth: usize,
        text: &mut String,
        mut write: impl FnMut(Value, &mut String) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let line = |depth: usize, text: &mut String| -> Result<(), Error> {
            if let Some(indent) = &self.indent {
                state.consume_fuel((depth * indent.len()) as u64 / 64)?;
                text.push('\n');
                text.extend(std::iter::repeat_n(indent.as_str(), depth));
            }
            Ok(())
        };
        state.consume_fuel(1)?;
        text.push(open);
        let mut any = false;
        for item in items {
            if any {
                text.push_str(&self.between);
            }
            any = true;
            line(depth + 1, text)?;
            write(item, text)?;
        }
        if any {
            line(depth, text)?;
        }
        text.push(close);
        Ok(())
    }

    fn quote(&self, value: &str, text: &mut String) {
        text.push('"');
        for character in value.chars() {
            match character {
                '"' => text.push_str("\\\""),
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                '\u{8}' => text.push_str("\\b"),
                '\u{c}' => text.push_str("\\f"),
                c if c < ' ' || self.ascii && !c.is_ascii() => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        let _ = write!(text, "\\u{unit:04x}");
                    }
                }
                c => text.push(c),
            }
        }
        text.push('"');
    }
}
