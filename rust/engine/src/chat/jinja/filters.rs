//! Jinja's filters of texts, numbers and single values.

use minijinja::State;
use minijinja::value::Value;

use super::arguments::{Arguments, is_true};
use super::value::{Data, LOOKUP, View, ViewKind, data, invalid, items, pay_bytes, text, type_name};
use super::{Builtin, Outcome, json, methods, printf, text as letters};
use crate::chat::python::{is_space, strip};

pub(super) const FILTERS: [(&str, Builtin); 27] = [
    ("abs", absolute),
    ("capitalize", capitalize),
    ("center", center),
    ("count", length),
    ("d", default),
    ("default", default),
    ("e", escape),
    ("escape", escape),
    ("float", float),
    ("forceescape", escape),
    ("format", format),
    ("indent", indent),
    ("int", integer),
    ("length", length),
    ("lower", lower),
    ("replace", replace),
    ("round", round),
    ("safe", safe),
    ("string", string),
    ("striptags", strip_tags),
    ("title", title),
    ("tojson", json::filter),
    ("trim", trim),
    ("truncate", truncate),
    ("upper", upper),
    ("urlencode", url_encode),
    ("wordcount", word_count),
];

/// The text of the first argument.
fn subject(state: &State<'_, '_>, arguments: &Arguments) -> Outcome<String> {
    text(state, &arguments.subject())
}

/// The text of the only argument.
fn only(state: &State<'_, '_>, arguments: &Arguments) -> Outcome<String> {
    let [_] = arguments.bind(["value"], 1)?;
    let content = subject(state, arguments)?;
    // Letters may become several, and those outside of ASCII are looked up.
    pay_bytes(state, if content.is_ascii() { 1 } else { LOOKUP } * content.len())?;
    Ok(content)
}

fn upper(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    Ok(Value::from(only(state, &arguments)?.to_uppercase()))
}

fn lower(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    Ok(Value::from(only(state, &arguments)?.to_lowercase()))
}

fn capitalize(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    Ok(Value::from(letters::capitalize(&only(state, &arguments)?)))
}

/// Jinja's own title case: a word begins after white space, a hyphen or an opening bracket.
fn title(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let content = only(state, &arguments)?;
    let begins = |character: char| is_space(character) || "-({[<".contains(character);
    let mut out = String::with_capacity(content.len());
    let mut rest = content.as_str();
    while let Some(first) = rest.chars().next() {
        let is_gap = begins(first);
        let end = rest.find(|character| begins(character) != is_gap).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        out.extend(first.to_uppercase());
        out.push_str(&word.get(first.len_utf8()..).unwrap_or_default().to_lowercase());
        rest = behind;
    }
    Ok(Value::from(out))
}

fn string(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let [_] = arguments.bind(["value"], 1)?;
    subject(state, &arguments).map(Value::from)
}

fn safe(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let [_] = arguments.bind(["value"], 1)?;
    subject(state, &arguments).map(Value::from_safe_string)
}

fn escape(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let [value] = arguments.bind(["value"], 1)?;
    let content = subject(state, &arguments)?;
    if arguments.name != "forceescape" && value.is_some_and(|value| value.is_safe()) {
        return Ok(Value::from_safe_string(content));
    }
    let escaped = content.matches(['&', '<', '>', '\'', '"']).count();
    pay_bytes(state, content.len() + 5 * escaped)?;
    let mut out = String::with_capacity(content.len());
    for character in content.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' => out.push_str("&#39;"),
            '"' => out.push_str("&#34;"),
            _ => out.push(character),
        }
    }
    Ok(Value::from_safe_string(out))
}

fn trim(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let [_, characters] = arguments.bind(["value", "chars"], 1)?;
    let content = subject(state, &arguments)?;
    let stripped = match characters.filter(|characters| !characters.is_none()) {
        None => strip(&content),
        Some(characters) => {
            let characters: Vec<char> = arguments.text(&characters)?.chars().collect();
            methods::strip_characters(&content, &characters, "strip")
        }
    };
    Ok(Value::from(stripped))
}

fn center(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let [_, width] = arguments.bind(["value", "width"], 1)?;
    let width = arguments.integer_or(width.as_ref(), 80)?;
    let content = subject(state, &arguments)?;
    methods::padded(state, &content, width, " ", "center").map(Value::from)
}

fn replace(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let [_, old, new, count] = arguments.bind(["s", "old", "new", "count"], 3)?;
    let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
    let count = arguments.integer_or(count.as_ref().filter(|count| !count.is_none()), -1)?;
    let content = subject(state, &arguments)?;
    methods::replace(state, &content, arguments.text(&old)?, arguments.text(&new)?, count).map(Value::from)
}

fn format(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let content = subject(state, &arguments)?;
    let values = arguments.positional.get(1..).unwrap_or_default();
    if arguments.named.is_empty() {
        return printf::percent(state, &content, values, &Value::UNDEFINED).map(Value::from);
    }
    if !values.is_empty() {
        return Err(arguments.error("takes positional or keyword arguments, not both"));
    }
    let named = super::value::dict(
        arguments.named.iter().map(|(name, value)| (Value::from(name.as_str()), value.clone())),
    );
    printf::percent(state, &content, &[], &named).map(Value::from)
}

fn indent(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let [_, width, first, blank] = arguments.bind(["s", "width", "first", "blank"], 1)?;
    let content = subject(state, &arguments)? + "\n";
    let lines = methods::lines(&content, false);
    let indentation = match width {
        Some(width) if width.as_str().is_some() => width.as_str().unwrap_or_default().to_owned(),
        width => {
            let width = usize::try_from(arguments.integer_or(width.as_ref(), 4)?).unwrap_or_default();
            pay_bytes(state, width)?;
            " ".repeat(width)
        }
    };
    pay_bytes(state, content.len().saturating_add(indentation.len().saturating_mul(lines.len())))?;
    let (first, blank) = (is_true(first.as_ref(), false), is_true(blank.as_ref(), false));
    let mut out = String::with_capacity(content.len());
    for (index, line) in lines.iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        if if index == 0 { first } else { blank || !line.is_empty() } {
            out.push_str(&indentation);
        }
        out.push_str(line);
    }
    Ok(Value::from(out))
}

fn truncate(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let [_, length, kill_words, end, leeway] = arguments.bind(["s", "length", "killwords", "end", "leeway"], 1)?;
    let length = arguments.integer_or(length.as_ref(), 255)?;
    let leeway = arguments.integer_or(leeway.as_ref().filter(|leeway| !leeway.is_none()), 5)?;
    let end = end.unwrap_or_else(|| Value::from("..."));
    let end = arguments.text(&end)?;
    let end_length = end.chars().count() as i64;
    if length < end_length || leeway < 0 {
        return Err(arguments.error(format_args!("expected length >= {end_length} and leeway >= 0")));
    }
    let content = subject(state, &arguments)?;
    if content.chars().count() as i64 <= length.saturating_add(leeway) {
        return Ok(Value::from(content));
    }
    let kept: String = content.chars().take((length - end_length) as usize).collect();
    let kept = if is_true(kill_words.as_ref(), false) {
        kept.as_str()
    } else {
        kept.rsplit_once(' ').map_or(kept.as_str(), |(kept, _)| kept)
    };
    Ok(Value::from(format!("{kept}{end}")))
}

fn word_count(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let content = only(state, &arguments)?;
    let is_word =
        |character: char| character == '_' || letters::is_letter(character) || letters::is_numeric(character);
    Ok(Value::from(content.split(|character| !is_word(character)).filter(|word| !word.is_empty()).count()))
}

fn strip_tags(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let mut content = only(state, &arguments)?;
    if content.contains('&') {
        return Err(invalid("striptags of a text with \"&\" is not supported"));
    }
    for (open, close) in [("<!--", "-->"), ("<", ">")] {
        let mut out = String::with_capacity(content.len());
        let mut rest = content.as_str();
        while let Some((before, after)) = rest.split_once(open) {
            let Some((_, behind)) = after.split_once(close) else { break };
            out.push_str(before);
            rest = behind;
        }
        out.push_str(rest);
        content = out;
    }
    Ok(Value::from(content.split(is_space).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")))
}

fn url_encode(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let [value] = arguments.bind(["value"], 1)?;
    let value = value.unwrap_or_default();
    let pairs: Vec<Value> = match data(&value) {
        Data::Dict(dict) => {
            dict.0.iter().map(|(key, value)| super::value::tuple([key.clone(), value.clone()])).collect()
        }
        Data::List(_) | Data::Tuple(_) | Data::View(_) => items(state, &value)?,
        _ => return text(state, &value).and_then(|text| quoted(state, &text, false)).map(Value::from),
    };
    let mut parts = Vec::new();
    for pair in &pairs {
        let (Data::Tuple(pair) | Data::List(pair)) = data(pair) else {
            return Err(arguments.error("needs pairs"));
        };
        let [key, value] = pair else { return Err(arguments.error("needs pairs")) };
        let (key, value) = (text(state, key)?, text(state, value)?);
        parts.push(format!("{}={}", quoted(state, &key, true)?, quoted(state, &value, true)?));
    }
    Ok(Value::from(parts.join("&")))
}

/// `urllib.parse.quote`; in a query a slash is quoted too, and a space is a plus.
fn quoted(state: &State<'_, '_>, text: &str, in_query: bool) -> Outcome<String> {
    use std::fmt::Write as _;
    pay_bytes(state, 3 * text.len())?;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'/' if !in_query => out.push('/'),
            b' ' if in_query => out.push('+'),
            b'_' | b'.' | b'-' | b'~' => out.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
            _ => write!(out, "%{byte:02X}").map_err(|_| invalid("urlencode failed"))?,
        }
    }
    Ok(out)
}

fn length(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let [value] = arguments.bind(["value"], 1)?;
    let value = value.unwrap_or_default();
    Ok(Value::from(match data(&value) {
        Data::Undefined => 0,
        Data::Text(text) => {
            pay_bytes(state, text.len())?;
            text.chars().count()
        }
        Data::List(items) | Data::Tuple(items) => items.len(),
        Data::Dict(dict) => dict.0.len(),
        Data::View(View { kind: ViewKind::OfDict(_) | ViewKind::Range, items }) => items.len(),
        other => return Err(arguments.error(format_args!("{} has no length", other.type_name()))),
    }))
}

fn default(_: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let [value, default, boolean] = arguments.bind(["value", "default_value", "boolean"], 1)?;
    let value = value.unwrap_or_default();
    let is_missing = value.is_undefined() || (is_true(boolean.as_ref(), false) && !value.is_true());
    Ok(if is_missing { default.unwrap_or_else(|| Value::from("")) } else { value })
}

fn absolute(_: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let [value] = arguments.bind(["x"], 1)?;
    match value.as_ref().map(data) {
        Some(Data::Int(number)) => {
            number.checked_abs().map(Value::from).ok_or_else(|| arguments.error("too large"))
        }
        Some(Data::Bool(value)) => Ok(Value::from(u8::from(value))),
        Some(Data::Float(number)) => Ok(Value::from(number.abs())),
        _ => Err(arguments.error("needs a number")),
    }
}

/// `float(text)`
fn parsed_float(text: &str) -> Option<f64> {
    let digits = without_underscores(strip(text))?;
    digits.parse().ok()
}

/// Underscores between digits mean nothing to Python.
fn without_underscores(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let is_digit =
        |index: Option<usize>| index.and_then(|index| bytes.get(index)).is_some_and(u8::is_ascii_alphanumeric);
    let is_wrong = |(index, byte): (usize, &u8)| {
        *byte == b'_' && !(is_digit(index.checked_sub(1)) && is_digit(index.checked_add(1)))
    };
    if bytes.iter().enumerate().any(is_wrong) { None } else { Some(text.replace('_', "")) }
}

/// `int(text, base)`
fn parsed_int(text: &str, base: u32) -> Option<i128> {
    let text = strip(text).to_ascii_lowercase();
    let digits = text.strip_prefix(['+', '-']).unwrap_or(&text);
    let prefix = match base {
        16 => "0x",
        8 => "0o",
        2 => "0b",
        _ => "",
    };
    let digits = without_underscores(digits.strip_prefix(prefix).unwrap_or(digits))?;
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let number = i128::from_str_radix(&digits, base).ok()?;
    Some(if text.starts_with('-') { -number } else { number })
}

fn integer(_: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    /// Above, numbers have more digits than this software keeps.
    const MOST: f64 = 1e38;
    let [value, default, base] = arguments.bind(["value", "default", "base"], 1)?;
    let value = value.unwrap_or_default();
    let default = default.unwrap_or_else(|| Value::from(0));
    let base = arguments.integer_or(base.as_ref(), 10)?;
    let whole = |number: f64| {
        if number.abs() < MOST {
            Ok(Value::from(number as i128))
        } else if number.is_finite() {
            Err(arguments.error("the number is too large"))
        } else {
            Ok(default.clone())
        }
    };
    match data(&value) {
        Data::Undefined => Err(minijinja::ErrorKind::UndefinedError.into()),
        Data::Int(_) => Ok(value),
        Data::Bool(value) => Ok(Value::from(u8::from(value))),
        Data::Float(number) if number.is_infinite() => {
            Err(arguments.error("cannot convert infinity to an integer"))
        }
        Data::Float(number) => whole(number),
        Data::Text(text) => {
            let base = u32::try_from(base).ok().filter(|base| (2..=36).contains(base));
            let base = base.ok_or_else(|| arguments.error("a base outside of 2 to 36 is not supported"))?;
            if let Some(number) = parsed_int(text, base) {
                return Ok(Value::from(number));
            }
            let is_number = |character: char| letters::is_decimal(character) || "+-._eE".contains(character);
            if !text.is_ascii() && strip(text).chars().all(is_number) {
                return Err(arguments.error("digits outside of ASCII are not supported"));
            }
            match parsed_float(text) {
                Some(number) => whole(number),
                None => Ok(default),
            }
        }
        _ => Ok(default),
    }
}

fn float(_: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let [value, default] = arguments.bind(["value", "default"], 1)?;
    let value = value.unwrap_or_default();
    let default = default.unwrap_or_else(|| Value::from(0.0));
    match data(&value) {
        Data::Undefined => Err(minijinja::ErrorKind::UndefinedError.into()),
        Data::Int(number) => Ok(Value::from(number as f64)),
        Data::Bool(value) => Ok(Value::from(f64::from(u8::from(value)))),
        Data::Float(_) => Ok(value),
        Data::Text(text) => Ok(parsed_float(text).map_or(default, Value::from)),
        _ => Ok(default),
    }
}

fn round(_: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    /// Doubles have no more digits than this.
    const MAX_DIGITS: i64 = 300;
    let [value, precision, method] = arguments.bind(["value", "precision", "method"], 1)?;
    let value = value.unwrap_or_default();
    let precision = arguments.integer_or(precision.as_ref(), 0)?;
    let method = method.unwrap_or_else(|| Value::from("common"));
    let method = arguments.text(&method)?;
    if !["common", "ceil", "floor"].contains(&method) {
        return Err(arguments.error("method must be common, ceil or floor"));
    }
    if !(0..=MAX_DIGITS).contains(&precision) {
        return Err(arguments.error("a precision below 0 or above 300 is not supported"));
    }
    let number = match data(&value) {
        Data::Int(_) if method == "common" => return Ok(value),
        Data::Bool(value) if method == "common" => return Ok(Value::from(u8::from(value))),
        Data::Int(number) => number as f64,
        Data::Bool(value) => f64::from(u8::from(value)),
        Data::Float(number) => number,
        _ => return Err(arguments.error(format_args!("needs a number, got {}", type_name(&value)))),
    };
    if !number.is_finite() {
        return if method == "common" { Ok(value) } else { Err(arguments.error("the number is not finite")) };
    }
    if method == "common" {
        // Decimal digits of the exact value, rounded half to even, as Python does.
        let digits = format!("{number:.*}", precision as usize);
        return digits.parse::<f64>().map(Value::from).map_err(|_| arguments.error("cannot round the number"));
    }
    let scale = 10_f64.powi(precision as i32);
    let scaled = number * scale;
    Ok(Value::from(if method == "ceil" { scaled.ceil() } else { scaled.floor() } / scale))
}
