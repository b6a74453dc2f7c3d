//! Views of mappings, ranges and generators, which Python runs over and which are no lists.
//!
//! In: items. Out: values that loops and filters run over, and that print and count as Python's do. It knows no
//! template.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use minijinja::value::{
    Enumerator, Kwargs, Object, ObjectRepr, Rest, Value, ValueKind, ValueOrKwargs,
};
use minijinja::{Environment, Error, State, filters};

use crate::generate::spelling::{GENERATOR, representation};

/// Items that are given one after the other.
#[derive(Debug)]
struct View {
    items: Vec<Value>,
    /// Text that Python prints; `None` for a generator, which prints its address and has no length.
    printed: Option<String>,
}

impl Object for View {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        match self.printed {
            Some(_) => Enumerator::Values(self.items.clone()),
            None => Enumerator::Iter(Box::new(self.items.clone().into_iter())),
        }
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        self.printed.as_ref().map(|_| self.items.len())
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.printed.as_deref().unwrap_or(GENERATOR))
    }

    fn is_true(self: &Arc<Self>) -> bool {
        self.printed.is_none() || !self.items.is_empty()
    }
}

/// Makes a generator of items, which is true even if it gives none.
fn generator(items: Vec<Value>) -> Value {
    Value::from_object(View { items, printed: None })
}

/// Calls a method of a mapping that gives a view of it; `None` if it is another method.
pub(super) fn of_mapping(
    state: &State,
    value: &Value,
    name: &str,
    args: &[Value],
) -> Option<Result<Value, Error>> {
    let known = ["items", "keys", "values"].contains(&name);
    (known && value.kind() == ValueKind::Map && args.is_empty()).then(|| {
        let mut items = Vec::new();
        for key in value.try_iter()? {
            state.consume_fuel(1)?;
            items.push(match name {
                "keys" => key,
                "values" => value.get_item(&key)?,
                _ => {
                    Value::from(minijinja::value::Tuple::from([key.clone(), value.get_item(&key)?]))
                }
            });
        }
        let list = representation(state, &Value::from(items.clone()))?;
        let printed = Some(format!("dict_{name}({list})"));
        Ok(Value::from_object(View { items, printed }))
    })
}

/// Adds the filters that give generators, and ranges.
pub(super) fn add(environment: &mut Environment<'_>) {
    type Test<'a> = Option<Cow<'a, str>>;
    type More = Rest<ValueOrKwargs>;
    environment.add_filter("map", |state: &mut State, value: Value, more: More| {
        filters::map(state, value, more).map(generator)
    });
    environment.add_filter(
        "select",
        |state: &mut State, value: Value, test: Test<'_>, more: More| {
            filters::select(state, value, test, more).map(generator)
        },
    );
    environment.add_filter(
        "reject",
        |state: &mut State, value: Value, test: Test<'_>, more: More| {
            filters::reject(state, value, test, more).map(generator)
        },
    );
    environment.add_filter(
        "selectattr",
        |state: &mut State, value: Value, name: Cow<'_, str>, test: Test<'_>, more: More| {
            filters::selectattr(state, value, name, test, more).map(generator)
        },
    );
    environment.add_filter(
        "rejectattr",
        |state: &mut State, value: Value, name: Cow<'_, str>, test: Test<'_>, more: More| {
            filters::rejectattr(state, value, name, test, more).map(generator)
        },
    );
    environment.add_filter("unique", |state: &State, value: Value, options: Kwargs| {
        generated(filters::unique(state, value, options)?)
    });
    environment.add_filter("reverse", |value: Value| match value.kind() {
        ValueKind::String => filters::reverse(&value),
        _ => generated(filters::reverse(&value)?),
    });
    environment.add_filter("items", |state: &State, value: Value| {
        match of_mapping(state, &value, "items", &[]) {
            Some(items) => generated(items?),
            None => Ok(generator(Vec::new())),
        }
    });
    environment.add_function("range", range);
}

fn generated(items: Value) -> Result<Value, Error> {
    Ok(generator(items.try_iter()?.collect()))
}

/// Makes a range of integers.
fn range(
    state: &State,
    first: isize,
    second: Option<isize>,
    step: Option<isize>,
) -> Result<Value, Error> {
    let items = minijinja::functions::range(first, second, step)?;
    let items: Vec<Value> = items.try_iter()?.collect();
    state.consume_fuel(items.len() as u64 / 4)?;
    let (start, end) = second.map_or((0, first), |end| (first, end));
    let printed = match step {
        None | Some(1) => format!("range({start}, {end})"),
        Some(step) => format!("range({start}, {end}, {step})"),
    };
    Ok(Value::from_object(View { items, printed: Some(printed) }))
}
