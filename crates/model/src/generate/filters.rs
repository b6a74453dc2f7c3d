//! Filters and functions of jinja2 that the engine lacks, or does otherwise.
//!
//! In: values of a template. Out: values as jinja2 gives them. It knows no template.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use minijinja::value::{
    Kwargs, Object, ObjectRepr, Rest, Value, ValueKind, ValueOrKwargs, from_args,
};
use minijinja::{Environment, Error, ErrorKind, Output, State};

use crate::generate::formatting::{self, bounded};
use crate::generate::python;
use crate::generate::spelling::{invalid, text_of};
use crate::generate::views;

/// Name of the filter that makes a list of what a loop runs over.
pub(super) const EACH: &str = "each__";

/// Adds the filters and functions to an environment, in the place of those that it has.
pub(super) fn add(environment: &mut Environment<'_>) {
    environment.add_filter(EACH, each);
    environment.add_filter("center", center);
    environment.add_filter("truncate", truncate);
    environment.add_filter("format", format);
    environment.add_filter("indent", indent);
    environment.add_filter("string", |state: &State, value: Value| text_of(state, &value));
    environment.add_filter("join", join);
    environment.add_filter("int", int);
    environment.add_filter("float", float);
    environment.add_function("cycler", cycler);
    views::add(environment);
    // jinja2 has none of these, or prints another text.
    for name in ["split", "lines", "zip", "chain", "bool", "pluralize", "pprint", "attr"] {
        environment.remove_filter(name);
    }
}

/// Prints a value.
pub(super) fn print(out: &mut Output<'_>, state: &mut State, value: &Value) -> Result<(), Error> {
    match value.as_str() {
        Some(_) => minijinja::escape_formatter(out, state, value),
        None => Ok(out.write_str(&text_of(state, value)?)?),
    }
}

/// Makes a list of the characters of a text, and of what has no length, so that a loop knows its end.
fn each(state: &State, value: Value) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::String | ValueKind::Iterable => {}
        _ => return Ok(value),
    }
    let mut items = Vec::new();
    for item in value.try_iter()? {
        state.consume_fuel(1)?;
        items.push(item);
    }
    Ok(Value::from(items))
}

/// Joins the texts of values.
fn join(
    state: &mut State,
    value: Value,
    between: Option<&str>,
    attribute: Option<&str>,
    options: Kwargs,
) -> Result<String, Error> {
    let between = between.or(options.get("d")?).unwrap_or_default();
    let attribute = attribute.or(options.get("attribute")?);
    options.assert_all_used()?;
    let values = match attribute {
        Some(name) => {
            let name = Kwargs::from_iter([("attribute", Value::from(name))]);
            state.apply_filter("map", &[value, name.into()])?
        }
        None => value,
    };
    let mut joined = String::new();
    for (place, value) in values.try_iter()?.enumerate() {
        joined.push_str(if place > 0 { between } else { "" });
        let text = text_of(state, &value)?;
        state.consume_fuel(1 + (text.len() + between.len()) as u64 / 64)?;
        joined.push_str(&text);
    }
    Ok(joined)
}

/// Makes an integer of a value, or of what is no number the default.
fn int(
    state: &State,
    value: Value,
    default: Option<Value>,
    base: Option<u32>,
    options: Kwargs,
) -> Result<Value, Error> {
    let default = default.or(options.get("default")?).unwrap_or_else(|| Value::from(0));
    let base = base.or(options.get("base")?);
    options.assert_all_used()?;
    let none = Kwargs::from_iter(Vec::<(&str, Value)>::new());
    Ok(minijinja::filters::int(state, &value, None, base, none).unwrap_or(default))
}

/// Makes a float of a value, or of what is no number the default.
fn float(
    state: &State,
    value: Value,
    default: Option<Value>,
    options: Kwargs,
) -> Result<Value, Error> {
    let default = default.or(options.get("default")?).unwrap_or_else(|| Value::from(0.0));
    options.assert_all_used()?;
    let none = Kwargs::from_iter(Vec::<(&str, Value)>::new());
    Ok(minijinja::filters::float(state, &value, None, none).unwrap_or(default))
}

/// Puts blanks around a text.
fn center(
    state: &State,
    value: Value,
    width: Option<i64>,
    options: Kwargs,
) -> Result<Value, Error> {
    let width = width.or(options.get("width")?).unwrap_or(80);
    options.assert_all_used()?;
    python::filled(state, &text_of(state, &value)?, "center", &[Value::from(width)])
}

/// Cuts a text that is too long, by default behind a word.
fn truncate(text: &str, args: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let args = args.into_values();
    let (length, kills, end, leeway, options): (
        Option<i64>,
        Option<bool>,
        Option<&str>,
        Option<i64>,
        Kwargs,
    ) = from_args(&args)?;
    let length = length.or(options.get("length")?).unwrap_or(255);
    let kills = kills.or(options.get("killwords")?).unwrap_or(false);
    let end = end.or(options.get("end")?).unwrap_or("...");
    let leeway = leeway.or(options.get("leeway")?).unwrap_or(5);
    options.assert_all_used()?;
    let size = |number: i64| usize::try_from(number).ok();
    let kept = size(length).and_then(|length| length.checked_sub(end.chars().count()));
    let Some((kept, most)) = kept.zip(size(leeway).and(size(length.saturating_add(leeway)))) else {
        return Err(invalid(format!("truncate({length}) leaves no room for {end:?}")));
    };
    if text.chars().count() <= most {
        return Ok(text.to_owned());
    }
    let cut: String = text.chars().take(kept).collect();
    let whole = cut.rsplit_once(' ').filter(|_| !kills);
    Ok(whole.map_or(cut.as_str(), |(whole, _)| whole).to_owned() + end)
}

/// Applies the operator `%` to a text, with values in a row or with names.
fn format(state: &State, pattern: &str, args: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let args = args.into_values();
    let (ordered, named): (&[Value], Kwargs) = from_args(&args)?;
    let names: Vec<&str> = named.args().collect();
    let values = match (names.is_empty(), ordered.is_empty()) {
        (true, _) => Value::from(minijinja::value::Tuple::from(ordered.to_vec())),
        (false, true) => {
            let pairs = names.iter().map(|name| Ok((*name, named.get::<Value>(name)?)));
            Value::from_pairs(pairs.collect::<Result<Vec<_>, Error>>()?)
        }
        (false, false) => return Err(invalid("format takes values in a row or with names")),
    };
    formatting::percent(state, pattern, &values)
}

/// Puts blanks or a text before each line, the first and blank ones left out.
fn indent(state: &State, value: Value, args: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let args = args.into_values();
    let text = text_of(state, &value)?;
    let (width, first, blank, options): (Option<Value>, Option<bool>, Option<bool>, Kwargs) =
        from_args(&args)?;
    let width = match width.or(options.get("width")?) {
        None => " ".repeat(4),
        Some(width) => match width.as_str() {
            Some(text) => text.to_owned(),
            None => " ".repeat(bounded(usize::try_from(width)?)?),
        },
    };
    let first = first.or(options.get("first")?).unwrap_or(false);
    let blank = blank.or(options.get("blank")?).unwrap_or(false);
    options.assert_all_used()?;
    let lines: Vec<&str> = text.split('\n').collect();
    state.consume_fuel((lines.len() * (width.len() + 1) + text.len()) as u64 / 64)?;
    let mut indented = String::new();
    for (place, line) in lines.into_iter().enumerate() {
        let before = match place {
            0 => first,
            _ => blank || !line.is_empty(),
        };
        indented.push_str(if place > 0 { "\n" } else { "" });
        indented.push_str(if before { &width } else { "" });
        indented.push_str(line);
    }
    Ok(indented)
}

/// Gives its values in turn.
#[derive(Debug)]
struct Cycler {
    items: Vec<Value>,
    place: AtomicUsize,
}

impl Cycler {
    fn current(&self) -> Value {
        self.items[self.place.load(Ordering::Relaxed) % self.items.len()].clone()
    }
}

impl Object for Cycler {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match key.as_str()? {
            "current" => Some(self.current()),
            "items" => Some(Value::from(self.items.clone())),
            "pos" => Some(Value::from(self.place.load(Ordering::Relaxed) % self.items.len())),
            _ => None,
        }
    }

    fn call_method(
        self: &Arc<Self>,
        _state: &mut State<'_, '_>,
        name: &str,
        args: &[Value],
    ) -> Result<Value, Error> {
        let () = from_args(args)?;
        match name {
            "next" => {
                let current = self.current();
                self.place.fetch_add(1, Ordering::Relaxed);
                Ok(current)
            }
            "reset" => {
                self.place.store(0, Ordering::Relaxed);
                Ok(Value::from(()))
            }
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }
}

/// Makes an object that gives these values in turn, again and again.
fn cycler(items: Rest<Value>) -> Result<Value, Error> {
    match items.is_empty() {
        true => Err(invalid("cycler takes a value at least")),
        false => Ok(Value::from_object(Cycler { items: items.0, place: AtomicUsize::new(0) })),
    }
}
