//! The methods of Python's strings, lists, tuples and dictionaries.

use minijinja::State;
use minijinja::value::Value;

use super::arguments::{Arguments, is_true};
use super::compare::equal;
use super::text::{self, Case};
use super::value::{
    Data, Dict, LOOKUP, View, ViewKind, data, dict, invalid, is_key, is_printable, items, pay_bytes, pay_items,
    tuple, type_name,
};
use super::{Outcome, printf};
use crate::chat::python::{is_space, strip, strip_end, strip_start};

const TEXT: [&str; 47] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "encode",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "maketrans",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "translate",
    "upper",
    "zfill",
];
const LIST: [&str; 11] =
    ["append", "clear", "copy", "count", "extend", "index", "insert", "pop", "remove", "reverse", "sort"];
const DICT: [&str; 11] =
    ["clear", "copy", "fromkeys", "get", "items", "keys", "pop", "popitem", "setdefault", "update", "values"];

/// Whether a name is that of a method of some type of Python.
pub(super) fn is_method(name: &str) -> bool {
    TEXT.contains(&name) || LIST.contains(&name) || DICT.contains(&name)
}

/// Whether a value's type has a method of this name in Python.
pub(super) fn exists(value: &Value, name: &str) -> bool {
    match data(value) {
        Data::Text(_) => TEXT.contains(&name),
        Data::List(_) => LIST.contains(&name),
        Data::Tuple(_) => ["count", "index"].contains(&name),
        Data::Dict(_) => DICT.contains(&name),
        _ => false,
    }
}

/// `value.name(...)`; the first two arguments are the value and the name.
pub(super) fn call(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let mut positional = arguments.positional.into_iter();
    let (value, name) = (positional.next().unwrap_or_default(), positional.next().unwrap_or_default());
    let name = name.as_str().unwrap_or_default().to_owned();
    let arguments = Arguments { name, positional: positional.collect(), named: arguments.named };
    match data(&value) {
        Data::Text(text) => text_method(state, text, &arguments),
        Data::List(values) | Data::Tuple(values) => list_method(state, &value, values, &arguments),
        Data::Dict(found) => dict_method(state, &value, found, arguments),
        Data::Undefined => Err(minijinja::ErrorKind::UndefinedError.into()),
        Data::Opaque => object_method(state, &value, &arguments),
        _ => Err(unknown(&value, &arguments.name)),
    }
}

fn unknown(value: &Value, name: &str) -> minijinja::Error {
    invalid(if exists(value, name) {
        format!("the method {name} of {} is not supported", type_name(value))
    } else {
        format!("{} has no method named {name}", type_name(value))
    })
}

/// Methods of loops and macros of modules; `loop.cycle` and `loop.changed` are the only ones that exist.
fn object_method(state: &mut State<'_, '_>, value: &Value, arguments: &Arguments) -> Outcome {
    let name = arguments.name.as_str();
    match name {
        "cycle" if !arguments.positional.is_empty() && arguments.named.is_empty() => {
            value.call_method(state, name, &arguments.positional)
        }
        // The values are kept by the loop, and compared: as texts they are small.
        "changed" if arguments.named.is_empty() => {
            let texts: Outcome<Vec<Value>> = arguments
                .positional
                .iter()
                .map(|value| super::value::repr(state, value).map(Value::from))
                .collect();
            value.call_method(state, name, &texts?)
        }
        // A macro that a namespace, which holds plain values only, cannot have.
        _ => Err(invalid(format!("an object has no method named {name}"))),
    }
}

fn list_method(state: &State<'_, '_>, list: &Value, values: &[Value], arguments: &Arguments) -> Outcome {
    match arguments.name.as_str() {
        "count" => {
            let [wanted] = arguments.bind(["value"], 1)?;
            let mut count = 0_usize;
            for value in values {
                count += usize::from(equal(state, value, &wanted.clone().unwrap_or_default())?);
            }
            Ok(Value::from(count))
        }
        "index" => {
            let [wanted] = arguments.bind(["value"], 1)?;
            for (index, value) in values.iter().enumerate() {
                if equal(state, value, &wanted.clone().unwrap_or_default())? {
                    return Ok(Value::from(index));
                }
            }
            Err(arguments.error("the value is not in the list"))
        }
        "copy" if !list.is_tuple() => Ok(list.clone()),
        name => Err(unknown(list, name)),
    }
}

fn dict_method(state: &mut State<'_, '_>, whole: &Value, found: &Dict, arguments: Arguments) -> Outcome {
    let view = |name, items| Ok(Value::from_object(View { kind: ViewKind::OfDict(name), items }));
    pay_items(state, if arguments.name == "get" { 0 } else { found.0.len() })?;
    match arguments.name.as_str() {
        "get" => {
            let [key, default] = arguments.bind(["key", "default"], 1)?;
            let key = key.unwrap_or_default();
            if !is_key(&key) {
                return Err(arguments.error(format_args!("{} is not supported as a key", type_name(&key))));
            }
            Ok(found.get(&key).cloned().or(default).unwrap_or(Value::from(())))
        }
        "items" => {
            let [] = arguments.bind([], 0)?;
            view("dict_items", found.0.iter().map(|(key, value)| tuple([key.clone(), value.clone()])).collect())
        }
        "keys" => {
            let [] = arguments.bind([], 0)?;
            view("dict_keys", found.0.keys().cloned().collect())
        }
        "values" => {
            let [] = arguments.bind([], 0)?;
            view("dict_values", found.0.values().cloned().collect())
        }
        "copy" => Ok(dict(found.0.iter().map(|(key, value)| (key.clone(), value.clone())))),
        name => Err(unknown(whole, name)),
    }
}

fn text_method(state: &mut State<'_, '_>, text: &str, arguments: &Arguments) -> Outcome {
    let name = arguments.name.as_str();
    match name {
        "upper" | "lower" | "capitalize" | "title" | "swapcase" | "isalnum" | "isalpha" | "isascii"
        | "isdecimal" | "isdigit" | "islower" | "isnumeric" | "isprintable" | "isspace" | "istitle"
        | "isupper" => {
            let [] = arguments.bind([], 0)?;
            // Letters may become several, and those outside of ASCII are looked up.
            pay_bytes(state, if text.is_ascii() { 1 } else { LOOKUP } * text.len())?;
            simple(text, name)
        }
        "strip" | "lstrip" | "rstrip" => stripped(text, arguments),
        "split" | "rsplit" => split(state, text, arguments),
        "splitlines" => {
            let [keep] = arguments.bind(["keepends"], 0)?;
            pay_items(state, text.len() / 8)?;
            Ok(lines(text, is_true(keep.as_ref(), false)).into_iter().map(Value::from).collect())
        }
        "startswith" | "endswith" => begins_or_ends(text, arguments),
        "replace" => {
            let [old, new, count] = arguments.bind(["old", "new", "count"], 2)?;
            let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
            let count = arguments.integer_or(count.as_ref(), -1)?;
            replace(state, text, arguments.text(&old)?, arguments.text(&new)?, count).map(Value::from)
        }
        "find" | "rfind" | "index" | "rindex" | "count" => search(text, arguments),
        "join" => {
            let [parts] = arguments.bind(["iterable"], 1)?;
            let parts = items(state, &parts.unwrap_or_default())?;
            let parts: Outcome<Vec<&str>> = parts.iter().map(|part| arguments.text(part)).collect();
            joined(state, text, &parts?).map(Value::from)
        }
        "partition" | "rpartition" => {
            let [separator] = arguments.bind(["sep"], 1)?;
            let separator = separator.unwrap_or_default();
            let separator = arguments.text(&separator)?;
            if separator.is_empty() {
                return Err(arguments.error("empty separator"));
            }
            let found = if name == "partition" { text.split_once(separator) } else { text.rsplit_once(separator) };
            Ok(match found {
                Some((before, after)) => tuple([before, separator, after].map(Value::from)),
                None if name == "partition" => tuple([text, "", ""].map(Value::from)),
                None => tuple(["", "", text].map(Value::from)),
            })
        }
        "removeprefix" | "removesuffix" => {
            let [part] = arguments.bind(["part"], 1)?;
            let part = part.unwrap_or_default();
            let part = arguments.text(&part)?;
            let shorter = if name == "removeprefix" { text.strip_prefix(part) } else { text.strip_suffix(part) };
            Ok(Value::from(shorter.unwrap_or(text)))
        }
        "center" | "ljust" | "rjust" => {
            let [width, fill] = arguments.bind(["width", "fillchar"], 1)?;
            let width = arguments.integer(&width.unwrap_or_default())?;
            let fill = fill.unwrap_or_else(|| Value::from(" "));
            let fill = arguments.text(&fill)?;
            if fill.chars().count() != 1 {
                return Err(arguments.error("the fill character must be exactly one character long"));
            }
            padded(state, text, width, fill, name).map(Value::from)
        }
        "zfill" => {
            let [width] = arguments.bind(["width"], 1)?;
            let width = arguments.integer(&width.unwrap_or_default())?;
            let missing = usize::try_from(width).unwrap_or_default().saturating_sub(text.chars().count());
            pay_bytes(state, missing)?;
            let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
            let sign = text.strip_suffix(digits).unwrap_or_default();
            Ok(Value::from(format!("{sign}{}{digits}", "0".repeat(missing))))
        }
        "format" => printf::braces(state, text, arguments).map(Value::from),
        _ => Err(unknown(&Value::from(""), name)),
    }
}

fn simple(content: &str, name: &str) -> Outcome {
    let any_and_all = |is: &dyn Fn(char) -> bool| !content.is_empty() && content.chars().all(is);
    Ok(match name {
        "upper" => Value::from(content.to_uppercase()),
        "lower" => Value::from(content.to_lowercase()),
        "capitalize" => Value::from(text::capitalize(content)),
        "title" => Value::from(text::title(content)),
        "swapcase" => Value::from(text::swap_case(content)),
        "isalnum" => {
            Value::from(any_and_all(&|character| text::is_letter(character) || text::is_numeric(character)))
        }
        "isalpha" => Value::from(any_and_all(&text::is_letter)),
        "isascii" => Value::from(content.is_ascii()),
        "isdecimal" => Value::from(any_and_all(&text::is_decimal)),
        "isdigit" => Value::from(any_and_all(&text::is_digit)),
        "isnumeric" => {
            if content.chars().any(text::is_ideograph) {
                return Err(invalid("isnumeric of Chinese characters is not supported"));
            }
            Value::from(any_and_all(&text::is_numeric))
        }
        "isprintable" => Value::from(content.chars().all(is_printable)),
        "isspace" => Value::from(any_and_all(&is_space)),
        "islower" => Value::from(text::has_case(content, Case::Lower)),
        "isupper" => Value::from(text::has_case(content, Case::Upper)),
        _ => Value::from(text::is_title(content)),
    })
}

fn stripped(text: &str, arguments: &Arguments) -> Outcome {
    let [characters] = arguments.bind(["chars"], 0)?;
    let characters = characters.filter(|characters| !characters.is_none());
    let name = arguments.name.as_str();
    let stripped = match &characters {
        None if name == "strip" => strip(text),
        None if name == "lstrip" => strip_start(text),
        None => strip_end(text),
        Some(characters) => {
            let characters: Vec<char> = arguments.text(characters)?.chars().collect();
            strip_characters(text, &characters, name)
        }
    };
    Ok(Value::from(stripped))
}

/// Strips characters of a set as the method `name` does.
pub(super) fn strip_characters<'t>(text: &'t str, characters: &[char], name: &str) -> &'t str {
    let mut sorted = characters.to_vec();
    sorted.sort_unstable();
    let is_one = |character: char| sorted.binary_search(&character).is_ok();
    match name {
        "lstrip" => text.trim_start_matches(is_one),
        "rstrip" => text.trim_end_matches(is_one),
        _ => text.trim_matches(is_one),
    }
}

fn split(state: &State<'_, '_>, text: &str, arguments: &Arguments) -> Outcome {
    let [separator, most] = arguments.bind(["sep", "maxsplit"], 0)?;
    let most = usize::try_from(arguments.integer_or(most.as_ref(), -1)?).unwrap_or(usize::MAX);
    let from_start = arguments.name == "split";
    let mut parts: Vec<&str> = match separator.filter(|separator| !separator.is_none()) {
        Some(separator) => {
            let separator = arguments.text(&separator)?;
            if separator.is_empty() {
                return Err(arguments.error("empty separator"));
            }
            let pieces = most.saturating_add(1);
            if from_start {
                text.splitn(pieces, separator).collect()
            } else {
                text.rsplitn(pieces, separator).collect()
            }
        }
        None => split_at_spaces(text, most, from_start),
    };
    if !from_start {
        parts.reverse();
    }
    pay_items(state, parts.len())?;
    pay_bytes(state, text.len())?;
    Ok(parts.into_iter().map(Value::from).collect())
}

/// Words, from the end if not `from_start`; the rest after `most` splits is the last of them.
fn split_at_spaces(text: &str, most: usize, from_start: bool) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = if from_start { strip_start(text) } else { strip_end(text) };
    while !rest.is_empty() {
        if parts.len() == most {
            // White space at the far end of the rest stays.
            parts.push(rest);
            return parts;
        }
        let (word, behind) = if from_start {
            rest.split_at(rest.find(is_space).unwrap_or(rest.len()))
        } else {
            let start = rest.rfind(is_space).map_or(0, |place| {
                place + rest.get(place..).and_then(|tail| tail.chars().next()).map_or(0, char::len_utf8)
            });
            let (behind, word) = rest.split_at(start);
            (word, behind)
        };
        parts.push(word);
        rest = if from_start { strip_start(behind) } else { strip_end(behind) };
    }
    parts
}

/// `str.splitlines()`
pub(super) fn lines(text: &str, keep_ends: bool) -> Vec<&str> {
    let is_end = |character: char| {
        matches!(
            character,
            '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}'
        )
    };
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let Some(end) = rest.find(is_end) else {
            lines.push(rest);
            break;
        };
        let (line, behind) = rest.split_at(end);
        let width = if behind.starts_with("\r\n") { 2 } else { behind.chars().next().map_or(1, char::len_utf8) };
        lines.push(if keep_ends { rest.get(..end + width).unwrap_or(line) } else { line });
        rest = behind.get(width..).unwrap_or_default();
    }
    lines
}

/// The part of a text from character `start` to `stop`, and whether `start` is within the text.
fn window<'t>(
    text: &'t str,
    start: Option<&Value>,
    stop: Option<&Value>,
    arguments: &Arguments,
) -> Outcome<Option<(&'t str, usize)>> {
    let number = |value: Option<&Value>, default: i64| match value {
        Some(value) if !value.is_none() => arguments.integer(value),
        _ => Ok(default),
    };
    if start.is_none() && stop.is_none() {
        return Ok(Some((text, 0)));
    }
    let len = text.chars().count() as i64;
    let (start, stop) = (number(start, 0)?, number(stop, i64::MAX)?);
    let clamp = |index: i64| if index < 0 { index.saturating_add(len).max(0) } else { index };
    let (start, stop) = (clamp(start), clamp(stop).min(len));
    if start > len || start > stop {
        return Ok(None);
    }
    let byte = |index: i64| text.char_indices().nth(index as usize).map_or(text.len(), |(place, _)| place);
    Ok(text.get(byte(start)..byte(stop)).map(|part| (part, start as usize)))
}

fn begins_or_ends(text: &str, arguments: &Arguments) -> Outcome {
    let [parts, start, stop] = arguments.bind(["prefix", "start", "end"], 1)?;
    let parts = parts.unwrap_or_default();
    let parts = match data(&parts) {
        Data::Tuple(parts) => parts.to_vec(),
        _ => vec![parts],
    };
    let window = window(text, start.as_ref(), stop.as_ref(), arguments)?;
    let mut found = false;
    for part in &parts {
        let part = arguments.text(part)?;
        found |= window.is_some_and(|(text, _)| {
            if arguments.name == "startswith" { text.starts_with(part) } else { text.ends_with(part) }
        });
    }
    Ok(Value::from(found))
}

fn search(text: &str, arguments: &Arguments) -> Outcome {
    let [part, start, stop] = arguments.bind(["sub", "start", "end"], 1)?;
    let part = part.unwrap_or_default();
    let part = arguments.text(&part)?;
    let window = window(text, start.as_ref(), stop.as_ref(), arguments)?;
    if arguments.name == "count" {
        let count = window.map_or(0, |(text, _)| match part {
            "" => text.chars().count() + 1,
            part => text.matches(part).count(),
        });
        return Ok(Value::from(count));
    }
    let place = window.and_then(|(text, before)| {
        let place = if arguments.name.starts_with('r') { text.rfind(part) } else { text.find(part) }?;
        Some(before + text.get(..place)?.chars().count())
    });
    match place {
        Some(place) => Ok(Value::from(place)),
        None if arguments.name.ends_with("index") => Err(arguments.error("substring not found")),
        None => Ok(Value::from(-1)),
    }
}

/// `str.replace`; a negative count replaces all.
pub(super) fn replace(state: &State<'_, '_>, text: &str, old: &str, new: &str, count: i64) -> Outcome<String> {
    let most = usize::try_from(count).unwrap_or(usize::MAX);
    let places = if old.is_empty() { text.chars().count() + 1 } else { text.matches(old).count() }.min(most);
    pay_bytes(state, text.len().saturating_add(places.saturating_mul(new.len())))?;
    Ok(text.replacen(old, new, places))
}

/// `separator.join(parts)`
pub(super) fn joined(state: &State<'_, '_>, separator: &str, parts: &[&str]) -> Outcome<String> {
    let bytes = parts
        .iter()
        .map(|part| part.len())
        .fold(separator.len().saturating_mul(parts.len()), usize::saturating_add);
    pay_bytes(state, bytes)?;
    Ok(parts.join(separator))
}

/// A text of at least this many characters: `center`, `ljust` or `rjust`.
pub(super) fn padded(state: &State<'_, '_>, text: &str, width: i64, fill: &str, name: &str) -> Outcome<String> {
    let width = usize::try_from(width).unwrap_or_default();
    let missing = width.saturating_sub(text.chars().count());
    pay_bytes(state, missing.saturating_mul(fill.len()))?;
    let before = match name {
        "center" => missing / 2 + (missing & width & 1),
        "rjust" => missing,
        _ => 0,
    };
    Ok(format!("{}{text}{}", fill.repeat(before), fill.repeat(missing - before)))
}
