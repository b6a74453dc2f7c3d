//! Puts values into texts as Python's method `format` does.
//!
//! In: a format and values. Out: a text. Widths and precisions are checked before a text is made. It knows no
//! template.

use minijinja::formatting::{FormatStyle, format};
use minijinja::value::{Kwargs, Value, from_args};
use minijinja::{Error, State};

use crate::generate::formatting::{Reader, filled, float, integer, paid};
use crate::generate::spelling::{in_ascii, invalid, representation, text_of};

/// Values that the method `format` puts into a text.
struct Given<'a> {
    ordered: &'a [Value],
    named: Kwargs,
    /// Number of fields without a name so far.
    counted: usize,
    /// Whether a field with a number was read.
    numbered: bool,
}

/// Calls the method `format` of a text.
pub(super) fn format_method(state: &State, pattern: &str, args: &[Value]) -> Result<String, Error> {
    let (ordered, named): (&[Value], Kwargs) = from_args(args)?;
    let mut given = Given { ordered, named, counted: 0, numbered: false };
    expand(state, pattern, &mut given, true)
}

/// Puts values in the place of fields, which may hold fields once.
fn expand(
    state: &State,
    pattern: &str,
    given: &mut Given<'_>,
    nests: bool,
) -> Result<String, Error> {
    let (mut text, mut pattern) = (String::new(), Reader(pattern));
    while let Some(at) = pattern.0.find(['{', '}']) {
        text.push_str(pattern.until(at));
        let mark = pattern.next().unwrap_or('{');
        if pattern.next_if(&[mark]).is_some() {
            text.push(mark);
            continue;
        }
        let end = if mark == '{' { end_of_field(pattern.0) } else { None };
        let end = end.ok_or_else(|| invalid("a format has a single { or }"))?;
        let field = pattern.until(end);
        pattern.next();
        text.push_str(&paid(state, field_text(state, field, given, nests)?)?);
    }
    paid(state, text + pattern.0)
}

fn end_of_field(text: &str) -> Option<usize> {
    let mut depth = 1;
    let end = text.char_indices().find(|(_, character)| {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        depth == 0
    });
    end.map(|(at, _)| at)
}

fn field_text(
    state: &State,
    field: &str,
    given: &mut Given<'_>,
    nests: bool,
) -> Result<String, Error> {
    let (head, spec) = field.split_once(':').unwrap_or((field, ""));
    let (name, conversion) = match head.split_once('!') {
        Some((name, conversion)) => (name, Some(conversion)),
        None => (head, None),
    };
    let value = given.value(name)?;
    let value = match conversion {
        None => value,
        Some("s") => text_of(state, &value)?.into(),
        Some("r") => representation(state, &value)?.into(),
        Some("a") => in_ascii(&representation(state, &value)?).into(),
        Some(other) => return Err(invalid(format!("a format has no conversion !{other}"))),
    };
    let spec = match spec.contains(['{', '}']) {
        true if !nests => return Err(invalid("a format has fields within fields of fields")),
        true => &expand(state, spec, given, false)?,
        false => spec,
    };
    formatted(state, &value, spec)
}

impl Given<'_> {
    /// Finds the value of a field: a number, a name or nothing, then attributes and items.
    fn value(&mut self, name: &str) -> Result<Value, Error> {
        let end = name.find(['.', '[']).unwrap_or(name.len());
        let (first, mut rest) = name.split_at(end);
        let missing = || invalid(format!("a format has no value for {{{name}}}"));
        let mut value = match first.parse::<usize>() {
            _ if first.is_empty() => {
                self.counted += 1;
                let value = self.ordered.get(self.counted - 1).filter(|_| !self.numbered);
                value.cloned().ok_or_else(missing)?
            }
            Ok(place) => {
                self.numbered = true;
                let value = self.ordered.get(place).filter(|_| self.counted == 0);
                value.cloned().ok_or_else(missing)?
            }
            Err(_) => self.named.get::<Value>(first).map_err(|_| missing())?,
        };
        while !rest.is_empty() {
            let (part, dotted);
            (part, dotted, rest) = match rest.strip_prefix('.') {
                Some(after) => {
                    let end = after.find(['.', '[']).unwrap_or(after.len());
                    (&after[..end], true, &after[end..])
                }
                None => {
                    let (part, rest) = rest[1..].split_once(']').ok_or_else(missing)?;
                    (part, false, rest)
                }
            };
            if dotted && part.starts_with('_') {
                return Err(invalid(format!("a format reads {part}, which is not allowed")));
            }
            value = match part.parse::<usize>() {
                Ok(place) if !dotted => value.get_item(&Value::from(place))?,
                _ => value.get_item(&Value::from(part))?,
            };
            if value.is_undefined() {
                return Err(missing());
            }
        }
        Ok(value)
    }
}

/// Options of a field of the method `format`.
#[derive(Default)]
struct Options<'a> {
    fill: Option<char>,
    align: Option<char>,
    sign: &'a str,
    alternate: bool,
    zero: bool,
    width: usize,
    grouping: &'a str,
    precision: Option<usize>,
    kind: &'a str,
}

impl<'a> Options<'a> {
    fn parse(spec: &'a str) -> Result<Self, Error> {
        let mut options = Self::default();
        let mut spec = Reader(spec);
        let aligns = ['<', '>', '^', '='];
        let mut start = spec.0.chars();
        let (first, second) = (start.next(), start.next());
        if second.is_some_and(|second| aligns.contains(&second)) {
            (options.fill, options.align) = (first, second);
            spec = Reader(start.as_str());
        } else {
            options.align = spec.next_if(&aligns);
        }
        let one = |spec: &mut Reader<'a>, wanted: &[char]| -> &'a str {
            let whole = spec.0;
            spec.next_if(wanted).map_or("", |found| &whole[..found.len_utf8()])
        };
        options.sign = one(&mut spec, &['+', '-', ' ']);
        options.alternate = spec.next_if(&['#']).is_some();
        options.zero = spec.next_if(&['0']).is_some();
        options.width = spec.number()?.unwrap_or(0);
        options.grouping = one(&mut spec, &[',', '_']);
        if spec.next_if(&['.']).is_some() {
            let precision = spec.number()?;
            options.precision =
                Some(precision.ok_or_else(|| invalid("a format has no precision"))?);
        }
        options.kind = spec.0;
        Ok(options)
    }
}

/// Formats a value as one field of the method `format`.
fn formatted(state: &State, value: &Value, spec: &str) -> Result<String, Error> {
    if spec.is_empty() {
        return text_of(state, value);
    }
    let options = Options::parse(spec)?;
    let wrong = || invalid(format!("a format cannot apply {spec:?} to a {}", value.kind()));
    if let Some(text) = value.as_str() {
        let fill = options.fill.unwrap_or(if options.zero { '0' } else { ' ' });
        let align = options.align.unwrap_or('<');
        let plain = options.sign.is_empty() && options.grouping.is_empty() && !options.alternate;
        if !plain || align == '=' || !["", "s"].contains(&options.kind) {
            return Err(wrong());
        }
        let text: String = text.chars().take(options.precision.unwrap_or(usize::MAX)).collect();
        return Ok(filled(&text, 0, options.width, fill, align));
    }
    let (whole, float) = (integer(value), float(value).ok_or_else(wrong)?);
    let (number, kind) = match (whole, options.kind) {
        (Some(whole), "" | "b" | "c" | "d" | "o" | "x" | "X") if options.precision.is_none() => {
            (Value::from(whole), options.kind)
        }
        (Some(_), "e" | "E" | "f" | "F" | "g" | "G") => (Value::from(float), options.kind),
        (None, "" | "e" | "E" | "f" | "F" | "g" | "G") => (Value::from(float), options.kind),
        (_, "%") => (Value::from(float * 100.0), "f"),
        _ => return Err(wrong()),
    };
    let end = if options.kind == "%" { "%" } else { "" };
    let (zero, align) = match options.align {
        None if options.zero => (true, '='),
        Some('=') if options.fill == Some('0') => (true, '='),
        align => (false, align.unwrap_or('>')),
    };
    // Zeros before a number are grouped with its digits, so the engine puts them there.
    let width = if zero { options.width.saturating_sub(end.len()) } else { 0 };
    let zeros = if width > 0 { format!("0{width}") } else { String::new() };
    let precision = options.precision.map_or_else(String::new, |digits| format!(".{digits}"));
    let (sign, grouping) = (options.sign, options.grouping);
    let alternate = if options.alternate { "#" } else { "" };
    let pattern = format!("{{:{sign}{alternate}{zeros}{grouping}{precision}{kind}}}");
    let text = format(FormatStyle::StrFormat, &pattern, &[number])? + end;
    let sign = text.len() - text.trim_start_matches(['+', '-', ' ']).len();
    let prefix = if options.alternate && ["b", "o", "x", "X"].contains(&kind) { 2 } else { 0 };
    let fill = options.fill.unwrap_or(if options.zero { '0' } else { ' ' });
    Ok(filled(&text, sign + prefix, options.width, fill, align))
}
