//! Values of templates: what they are in Python, and their text, order and size. Every walk through a value costs fuel.

use std::sync::{Arc, LazyLock};

use indexmap::IndexMap;
use minijinja::value::{Enumerator, Object, ObjectRepr, Tuple, Value, ValueKind};
use minijinja::{ErrorKind, State};
use regex::Regex;

use super::Outcome;
use crate::chat::python::is_space;

/// Containers may nest this deep: they are walked and freed recursively.
const MAX_DEPTH: usize = 64;
/// Bytes that one unit of fuel pays for.
const BYTES_PER_FUEL: usize = 64;
/// How many times the price of a byte its letter costs where it is looked up in Unicode's tables.
pub(super) const LOOKUP: usize = 8;
/// Values that one unit of fuel visits.
const NODES_PER_FUEL: usize = 2;

/// A dictionary, in the order in which its keys were added.
#[derive(Debug, Default)]
pub(super) struct Dict(pub(super) IndexMap<Value, Value>);

impl Dict {
    pub(super) fn get(&self, key: &Value) -> Option<&Value> {
        self.0.get(key)
    }
}

impl Object for Dict {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        // Other keys are hashed all the way down.
        if is_key(key) { self.0.get(key).cloned() } else { None }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.0.keys().cloned().collect())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.0.len())
    }
}

/// What a [`View`] is in Python.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ViewKind {
    /// The keys, values or items of a dictionary, by the name in their text: `dict_keys([...])`.
    OfDict(&'static str),
    Range,
    /// The result of a filter such as `map`.
    Generator,
}

/// Items that are not a list in Python.
#[derive(Debug)]
pub(super) struct View {
    pub(super) kind: ViewKind,
    pub(super) items: Vec<Value>,
}

impl Object for View {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.items.clone())
    }

    fn is_true(self: &Arc<Self>) -> bool {
        self.kind == ViewKind::Generator || !self.items.is_empty()
    }
}

/// A group of `groupby`: a tuple whose items have names.
#[derive(Debug)]
pub(super) struct Group(pub(super) [Value; 2]);

impl Object for Group {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let [grouper, list] = &self.0;
        match (key.as_str(), key.as_usize()) {
            (Some("grouper"), _) | (None, Some(0)) => Some(grouper.clone()),
            (Some("list"), _) | (None, Some(1)) => Some(list.clone()),
            _ => None,
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.0.to_vec())
    }
}

/// A value as Python sees it.
pub(super) enum Data<'a> {
    Undefined,
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(&'a str),
    List(&'a [Value]),
    Tuple(&'a [Value]),
    Dict(&'a Dict),
    View(&'a View),
    /// A namespace, a loop, a macro, or another object of the engine's.
    Opaque,
}

impl Data<'_> {
    /// The name of the type in Python.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Undefined => "undefined",
            Self::None => "None",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Text(_) => "str",
            Self::List(_) => "list",
            Self::Tuple(_) => "tuple",
            Self::Dict(_) => "dict",
            Self::View(View { kind: ViewKind::OfDict(name), .. }) => name,
            Self::View(View { kind: ViewKind::Range, .. }) => "range",
            Self::View(_) => "generator",
            Self::Opaque => "object",
        }
    }
}

pub(super) fn data(value: &Value) -> Data<'_> {
    match value.kind() {
        ValueKind::Undefined => Data::Undefined,
        ValueKind::None => Data::None,
        ValueKind::Bool => Data::Bool(value.is_true()),
        ValueKind::Number if value.is_integer() => i128::try_from(value.clone()).map_or(Data::Opaque, Data::Int),
        ValueKind::Number => f64::try_from(value.clone()).map_or(Data::Opaque, Data::Float),
        _ => {
            if let Some(text) = value.as_str() {
                Data::Text(text)
            } else if let Some(items) = value.downcast_object_ref::<Vec<Value>>() {
                Data::List(items)
            } else if let Some(items) = value.downcast_object_ref::<Tuple>() {
                Data::Tuple(items)
            } else if let Some(Group(items)) = value.downcast_object_ref::<Group>() {
                Data::Tuple(items)
            } else if let Some(dict) = value.downcast_object_ref::<Dict>() {
                Data::Dict(dict)
            } else if let Some(view) = value.downcast_object_ref::<View>() {
                Data::View(view)
            } else {
                Data::Opaque
            }
        }
    }
}

pub(super) fn type_name(value: &Value) -> &'static str {
    data(value).type_name()
}

/// Whether a value can be a key of a dictionary; Python allows tuples of keys too.
pub(super) fn is_key(value: &Value) -> bool {
    matches!(data(value), Data::None | Data::Bool(_) | Data::Int(_) | Data::Float(_) | Data::Text(_))
}

pub(super) fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> minijinja::Error {
    minijinja::Error::new(ErrorKind::InvalidOperation, message)
}

pub(super) fn dict(pairs: impl IntoIterator<Item = (Value, Value)>) -> Value {
    Value::from_object(Dict(pairs.into_iter().collect()))
}

pub(super) fn tuple<const N: usize>(items: [Value; N]) -> Value {
    Value::from(Tuple::from(items))
}

/// The result of a filter that makes a generator in Python.
pub(super) fn generator(items: Vec<Value>) -> Value {
    Value::from_object(View { kind: ViewKind::Generator, items })
}

/// Pays for this many bytes before they are made.
pub(super) fn pay_bytes(state: &State<'_, '_>, bytes: usize) -> Outcome<()> {
    state.consume_fuel((bytes / BYTES_PER_FUEL) as u64)
}

/// Pays for this many values before they are visited or made.
pub(super) fn pay_items(state: &State<'_, '_>, items: usize) -> Outcome<()> {
    state.consume_fuel((items / NODES_PER_FUEL) as u64 + 1)
}

/// Refuses a depth that no container may have.
pub(super) fn nested(depth: usize) -> Outcome<()> {
    if depth > MAX_DEPTH { Err(invalid(format!("lists nest deeper than {MAX_DEPTH}"))) } else { Ok(()) }
}

/// Walks through a new container and pays for all in it, so that no container becomes larger than the fuel.
pub(super) fn check(state: &State<'_, '_>, value: &Value) -> Outcome<()> {
    walk(state, value, 0, false)
}

/// As [`check`], and refuses namespaces, loops and macros: two that hold each other are never freed.
pub(super) fn check_plain(state: &State<'_, '_>, value: &Value) -> Outcome<()> {
    walk(state, value, 0, true)
}

fn walk(state: &State<'_, '_>, value: &Value, depth: usize, plain: bool) -> Outcome<()> {
    let (items, len): (Box<dyn Iterator<Item = &Value>>, usize) = match data(value) {
        Data::List(items) | Data::Tuple(items) => (Box::new(items.iter()), items.len()),
        Data::View(view) => (Box::new(view.items.iter()), view.items.len()),
        Data::Dict(dict) => (Box::new(dict.0.values()), dict.0.len()),
        Data::Opaque if plain => {
            return Err(invalid("a namespace holds texts, numbers, lists and dictionaries only"));
        }
        _ => return Ok(()),
    };
    nested(depth)?;
    pay_items(state, len)?;
    for item in items {
        walk(state, item, depth + 1, plain)?;
    }
    Ok(())
}

/// The items that Python iterates over.
pub(super) fn items(state: &State<'_, '_>, value: &Value) -> Outcome<Vec<Value>> {
    let found = match data(value) {
        Data::Undefined => Vec::new(),
        Data::Text(text) => {
            pay_items(state, text.len())?;
            return Ok(text.chars().map(Value::from).collect());
        }
        Data::List(items) | Data::Tuple(items) => items.to_vec(),
        Data::View(view) => view.items.clone(),
        Data::Dict(dict) => dict.0.keys().cloned().collect(),
        other => return Err(invalid(format!("{} is not iterable", other.type_name()))),
    };
    pay_items(state, found.len())?;
    Ok(found)
}

/// `str(value)`
pub(super) fn text(state: &State<'_, '_>, value: &Value) -> Outcome<String> {
    let mut out = String::new();
    write(state, &mut out, value, 0, false)?;
    Ok(out)
}

/// `repr(value)`
pub(super) fn repr(state: &State<'_, '_>, value: &Value) -> Outcome<String> {
    let mut out = String::new();
    write(state, &mut out, value, 0, true)?;
    Ok(out)
}

fn write(state: &State<'_, '_>, out: &mut String, value: &Value, depth: usize, quoted: bool) -> Outcome<()> {
    nested(depth)?;
    let list = |out: &mut String, items: &[Value]| -> Outcome<()> {
        pay_items(state, 2 * items.len())?;
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                out.push_str(", ");
            }
            write(state, out, item, depth + 1, true)?;
        }
        Ok(())
    };
    match data(value) {
        Data::Undefined if quoted => out.push_str("Undefined"),
        Data::Undefined => {}
        Data::None => out.push_str("None"),
        Data::Bool(true) => out.push_str("True"),
        Data::Bool(false) => out.push_str("False"),
        Data::Int(number) => out.push_str(&number.to_string()),
        Data::Float(number) => out.push_str(&float(number)),
        Data::Text(text) => {
            pay_bytes(state, if quoted && !text.is_ascii() { LOOKUP } else { 1 } * text.len())?;
            if quoted { push_quoted(out, text) } else { out.push_str(text) }
        }
        Data::List(items) => {
            out.push('[');
            list(out, items)?;
            out.push(']');
        }
        Data::Tuple(items) => {
            out.push('(');
            list(out, items)?;
            out.push_str(if items.len() == 1 { ",)" } else { ")" });
        }
        Data::View(View { kind: ViewKind::OfDict(name), items }) => {
            out.push_str(name);
            out.push_str("([");
            list(out, items)?;
            out.push_str("])");
        }
        Data::Dict(Dict(pairs)) => {
            pay_items(state, 4 * pairs.len())?;
            out.push('{');
            for (index, (key, value)) in pairs.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                write(state, out, key, depth + 1, true)?;
                out.push_str(": ");
                write(state, out, value, depth + 1, true)?;
            }
            out.push('}');
        }
        Data::View(_) => {
            return Err(invalid("the text of a generator or range is not supported; make it a list first"));
        }
        Data::Opaque => {
            return Err(invalid(
                "the text of a namespace, a loop, a macro or an integer of more than 127 bits is not supported",
            ));
        }
    }
    Ok(())
}

/// `repr(number)`
pub(super) fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..16).contains(&exponent) {
        return format!("{number:?}");
    }
    format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// `repr(text)`
fn push_quoted(out: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if character == quote => out.extend(['\\', character]),
            _ if is_printable(character) => out.push(character),
            _ => {
                let (prefix, width) = match u32::from(character) {
                    ..=0xff => ("\\x", 2),
                    0x100..=0xffff => ("\\u", 4),
                    _ => ("\\U", 8),
                };
                let digits = format!("{:0width$x}", u32::from(character));
                out.extend([prefix, &digits]);
            }
        }
    }
    out.push(quote);
}

/// `str.isprintable` of a character
pub(super) fn is_printable(character: char) -> bool {
    // Control, format and private characters, those that are not assigned, and white space other than the space.
    static OTHER: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^[\p{C}\p{Z}]$").ok());
    match character {
        ' '..='~' => true,
        _ if character.is_ascii() || is_space(character) => false,
        _ => {
            let mut bytes = [0; 4];
            OTHER.as_ref().is_some_and(|other| !other.is_match(character.encode_utf8(&mut bytes)))
        }
    }
}
