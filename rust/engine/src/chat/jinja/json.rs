//! The filter `tojson` as transformers defines it: Python's `json.dumps`, which escapes nothing for HTML.

use minijinja::State;
use minijinja::value::Value;

use super::Outcome;
use super::arguments::{Arguments, is_true};
use super::compare::order;
use super::value::{Data, data, float, invalid, pay_bytes, pay_items};

/// The largest indentation: more makes a text of any length.
const MAX_INDENT: usize = 64;
const MAX_DEPTH: usize = 64;

struct Writer<'a, 's, 't> {
    state: &'a State<'s, 't>,
    out: String,
    indent: Option<String>,
    between_items: String,
    after_key: String,
    ensure_ascii: bool,
    sort_keys: bool,
}

pub(super) fn filter(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let [value, ensure_ascii, indent, separators, sort_keys] =
        arguments.bind(["x", "ensure_ascii", "indent", "separators", "sort_keys"], 1)?;
    let indent = match indent.filter(|indent| !indent.is_none()) {
        None => None,
        Some(indent) => Some(match data(&indent) {
            Data::Text(text) if text.len() <= MAX_INDENT => text.to_owned(),
            Data::Text(_) => return Err(arguments.error("the indentation is too long")),
            _ => {
                let width = usize::try_from(arguments.integer(&indent)?).unwrap_or_default();
                if width > MAX_INDENT {
                    return Err(arguments.error(format_args!("indent must be at most {MAX_INDENT}, got {width}")));
                }
                " ".repeat(width)
            }
        }),
    };
    let mut between_items = if indent.is_some() { "," } else { ", " }.to_owned();
    let mut after_key = ": ".to_owned();
    if let Some(separators) = separators.filter(|separators| !separators.is_none()) {
        let (Data::Tuple([item, key]) | Data::List([item, key])) = data(&separators) else {
            return Err(arguments.error("separators must be two strings"));
        };
        arguments.text(item)?.clone_into(&mut between_items);
        arguments.text(key)?.clone_into(&mut after_key);
    }
    let mut writer = Writer {
        state,
        out: String::new(),
        indent,
        between_items,
        after_key,
        ensure_ascii: is_true(ensure_ascii.as_ref(), false),
        sort_keys: is_true(sort_keys.as_ref(), false),
    };
    writer.value(&value.unwrap_or_default(), 0)?;
    Ok(Value::from(writer.out))
}

impl Writer<'_, '_, '_> {
    fn value(&mut self, value: &Value, depth: usize) -> Outcome<()> {
        if depth > MAX_DEPTH {
            return Err(invalid(format!("tojson: lists nest deeper than {MAX_DEPTH}")));
        }
        self.state.consume_fuel(1)?;
        match data(value) {
            Data::None => self.out.push_str("null"),
            Data::Bool(value) => self.out.push_str(if value { "true" } else { "false" }),
            Data::Int(number) => self.out.push_str(&number.to_string()),
            Data::Float(number) => self.out.push_str(&float_text(number)),
            Data::Text(text) => self.text(text)?,
            Data::List(items) | Data::Tuple(items) => {
                self.out.push('[');
                for (index, item) in items.iter().enumerate() {
                    self.begin_item(index, depth + 1)?;
                    self.value(item, depth + 1)?;
                }
                self.end(items.is_empty(), depth)?;
                self.out.push(']');
            }
            Data::Dict(dict) => {
                let mut pairs: Vec<(&Value, &Value)> = dict.0.iter().collect();
                if self.sort_keys {
                    pairs = self.sorted(pairs)?;
                }
                self.out.push('{');
                for (index, (key, value)) in pairs.into_iter().enumerate() {
                    self.begin_item(index, depth + 1)?;
                    self.key(key)?;
                    let separator = self.after_key.clone();
                    self.out.push_str(&separator);
                    self.value(value, depth + 1)?;
                }
                self.end(dict.0.is_empty(), depth)?;
                self.out.push('}');
            }
            other => {
                return Err(invalid(format!(
                    "tojson: an object of type {} is not JSON serializable",
                    other.type_name()
                )));
            }
        }
        Ok(())
    }

    fn sorted<'v>(&self, pairs: Vec<(&'v Value, &'v Value)>) -> Outcome<Vec<(&'v Value, &'v Value)>> {
        let mut sorted: Vec<(&Value, &Value)> = Vec::with_capacity(pairs.len());
        pay_items(self.state, pairs.len())?;
        for pair in pairs {
            // From the end, where a sorted dictionary's next key belongs.
            let mut place = sorted.len();
            while let Some((before, _)) = place.checked_sub(1).and_then(|index| sorted.get(index)) {
                if order(self.state, before, pair.0)?.is_none_or(std::cmp::Ordering::is_le) {
                    break;
                }
                place -= 1;
            }
            sorted.insert(place, pair);
        }
        Ok(sorted)
    }

    fn begin_item(&mut self, index: usize, depth: usize) -> Outcome<()> {
        if index > 0 {
            self.out.push_str(&self.between_items);
        }
        self.line(depth)
    }

    fn end(&mut self, is_empty: bool, depth: usize) -> Outcome<()> {
        if is_empty { Ok(()) } else { self.line(depth) }
    }

    fn line(&mut self, depth: usize) -> Outcome<()> {
        if let Some(indent) = &self.indent {
            pay_bytes(self.state, indent.len() * depth)?;
            self.out.push('\n');
            self.out.push_str(&indent.repeat(depth));
        }
        Ok(())
    }

    fn key(&mut self, key: &Value) -> Outcome<()> {
        let text = match data(key) {
            Data::Text(text) => text.to_owned(),
            Data::None => "null".to_owned(),
            Data::Bool(value) => if value { "true" } else { "false" }.to_owned(),
            Data::Int(number) => number.to_string(),
            Data::Float(number) => float_text(number),
            other => {
                return Err(invalid(format!(
                    "tojson: keys must be strings or numbers, got {}",
                    other.type_name()
                )));
            }
        };
        self.text(&text)
    }

    fn text(&mut self, text: &str) -> Outcome<()> {
        use std::fmt::Write as _;
        pay_bytes(self.state, 2 * text.len())?;
        let failed = |_| invalid("tojson failed");
        self.out.push('"');
        for character in text.chars() {
            match character {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                _ if character < ' ' => write!(self.out, "\\u{:04x}", u32::from(character)).map_err(failed)?,
                _ if self.ensure_ascii && character > '~' => {
                    let mut units = [0; 2];
                    for unit in character.encode_utf16(&mut units) {
                        write!(self.out, "\\u{unit:04x}").map_err(failed)?;
                    }
                }
                _ => self.out.push(character),
            }
        }
        self.out.push('"');
        Ok(())
    }
}

fn float_text(number: f64) -> String {
    if number.is_nan() {
        "NaN".to_owned()
    } else if number.is_infinite() {
        if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()
    } else {
        float(number)
    }
}
