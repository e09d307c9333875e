//! Operators as filters: [`lower`](super::lower) writes each operator that makes, compares or reads a container as a call of
//! one of these, so that the engine's own operators, whose work is not bounded, never see one.

use std::cmp::Ordering;

use minijinja::State;
use minijinja::value::{Tuple, Value};

use super::arguments::Arguments;
use super::compare::{contains, equal, order};
use super::value::{
    Data, Dict, View, ViewKind, check, check_plain, data, invalid, is_key, items, pay_bytes, pay_items, text,
    type_name,
};
use super::{Builtin, Outcome, methods, printf};

pub(super) const OPERATORS: [(&str, Builtin); 13] = [
    ("__add", add),
    ("__mul", multiply),
    ("__rem", remainder),
    ("__concat", concatenate),
    ("__compare", compare),
    ("__slice", slice),
    ("__item", item),
    ("__attr", attribute),
    ("__method", methods::call),
    ("__iter", iterate),
    ("__store", store),
    ("__list", list),
    ("__dict", dictionary),
];

fn unsupported(operator: &str, a: &Value, b: &Value) -> minijinja::Error {
    invalid(format!("unsupported operand types for {operator}: {} and {}", type_name(a), type_name(b)))
}

/// Escaped text escapes what is added to it in Jinja.
fn refuse_escaped(operator: &str, a: &Value, b: &Value) -> Outcome<()> {
    if a.is_safe() != b.is_safe() && a.as_str().is_some() && b.as_str().is_some() {
        return Err(invalid(format!("{operator} of escaped text and other text is not supported")));
    }
    Ok(())
}

fn two(arguments: &Arguments) -> Outcome<(Value, Value)> {
    match arguments.positional.as_slice() {
        [a, b] => Ok((a.clone(), b.clone())),
        _ => Err(arguments.error("needs two operands")),
    }
}

fn int_of(value: &Value) -> Option<i128> {
    match data(value) {
        Data::Bool(value) => Some(i128::from(value)),
        Data::Int(number) => Some(number),
        _ => None,
    }
}

fn float_of(value: &Value) -> Option<f64> {
    match data(value) {
        Data::Float(number) => Some(number),
        _ => int_of(value).map(|number| number as f64),
    }
}

/// The number that an operation on two numbers gives.
fn arithmetic(
    operator: &str,
    a: &Value,
    b: &Value,
    ints: impl FnOnce(i128, i128) -> Option<i128>,
    floats: impl FnOnce(f64, f64) -> Option<f64>,
) -> Outcome {
    if let (Some(a), Some(b)) = (int_of(a), int_of(b)) {
        return ints(a, b)
            .map(Value::from)
            .ok_or_else(|| invalid(format!("{a} {operator} {b} is not an integer of at most 127 bits")));
    }
    match (float_of(a), float_of(b)) {
        (Some(x), Some(y)) => {
            floats(x, y).map(Value::from).ok_or_else(|| invalid(format!("{x} {operator} {y} is undefined")))
        }
        _ => Err(unsupported(operator, a, b)),
    }
}

/// `a + b`
pub(super) fn sum_of(state: &State<'_, '_>, a: &Value, b: &Value) -> Outcome {
    refuse_escaped("+", a, b)?;
    match (data(a), data(b)) {
        (Data::Text(left), Data::Text(right)) => {
            pay_bytes(state, left.len() + right.len())?;
            let sum = [left, right].concat();
            Ok(if a.is_safe() { Value::from_safe_string(sum) } else { Value::from(sum) })
        }
        (Data::List(left), Data::List(right)) => {
            pay_items(state, left.len() + right.len())?;
            Ok(Value::from([left, right].concat()))
        }
        (Data::Tuple(left), Data::Tuple(right)) => {
            pay_items(state, left.len() + right.len())?;
            Ok(Value::from(Tuple::from([left, right].concat())))
        }
        _ => arithmetic("+", a, b, i128::checked_add, |a, b| Some(a + b)),
    }
}

fn add(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let (a, b) = two(&arguments)?;
    sum_of(state, &a, &b)
}

fn multiply(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let (a, b) = two(&arguments)?;
    let is_repeated = |value: &Value| matches!(data(value), Data::Text(_) | Data::List(_) | Data::Tuple(_));
    let (repeated, times) = if is_repeated(&a) { (&a, &b) } else { (&b, &a) };
    let (true, Some(times)) = (is_repeated(repeated), int_of(times)) else {
        return arithmetic("*", &a, &b, i128::checked_mul, |a, b| Some(a * b));
    };
    let times = usize::try_from(times.max(0)).unwrap_or(usize::MAX);
    match data(repeated) {
        Data::Text(text) => {
            pay_bytes(state, text.len().saturating_mul(times))?;
            Ok(Value::from(text.repeat(times)))
        }
        Data::List(items) => {
            pay_items(state, items.len().saturating_mul(times))?;
            Ok(Value::from(repeated_items(items, times)))
        }
        Data::Tuple(items) => {
            pay_items(state, items.len().saturating_mul(times))?;
            Ok(Value::from(Tuple::from(repeated_items(items, times))))
        }
        _ => Err(unsupported("*", &a, &b)),
    }
}

fn repeated_items(items: &[Value], times: usize) -> Vec<Value> {
    std::iter::repeat_n(items, if items.is_empty() { 0 } else { times }).flatten().cloned().collect()
}

fn remainder(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let (a, b) = two(&arguments)?;
    if let Data::Text(format) = data(&a) {
        let values = match data(&b) {
            Data::Tuple(values) => values.to_vec(),
            _ => vec![b.clone()],
        };
        return printf::percent(state, format, &values, &b).map(Value::from);
    }
    let floor = |a: f64, b: f64| match a % b {
        0.0 => 0.0_f64.copysign(b),
        remainder if (remainder < 0.0) != (b < 0.0) => remainder + b,
        remainder => remainder,
    };
    arithmetic(
        "%",
        &a,
        &b,
        |a, b| {
            let remainder = a.checked_rem(b)?;
            Some(if remainder != 0 && (remainder < 0) != (b < 0) { remainder + b } else { remainder })
        },
        |a, b| (b != 0.0).then(|| floor(a, b)),
    )
}

/// `a ~ b ~ c`
fn concatenate(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let mut out = String::new();
    for value in &arguments.positional {
        out.push_str(&text(state, value)?);
    }
    Ok(Value::from(out))
}

/// Whether a comparison holds, by its operator.
pub(super) fn holds(state: &State<'_, '_>, operator: &str, a: &Value, b: &Value) -> Outcome<bool> {
    let order = |accepted: &[Ordering]| Ok(order(state, a, b)?.is_some_and(|found| accepted.contains(&found)));
    match operator {
        "==" => equal(state, a, b),
        "!=" => equal(state, a, b).map(|equal| !equal),
        "<" => order(&[Ordering::Less]),
        "<=" => order(&[Ordering::Less, Ordering::Equal]),
        ">" => order(&[Ordering::Greater]),
        ">=" => order(&[Ordering::Greater, Ordering::Equal]),
        "in" => contains(state, b, a),
        _ => contains(state, b, a).map(|contains| !contains),
    }
}

/// `a < b <= c`: operators and operands by turns after the first operand.
fn compare(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let Some((first, rest)) = arguments.positional.split_first() else {
        return Err(arguments.error("needs two operands"));
    };
    let mut left = first;
    for pair in rest.chunks(2) {
        let [operator, right] = pair else { return Err(arguments.error("needs two operands")) };
        if !holds(state, operator.as_str().unwrap_or_default(), left, right)? {
            return Ok(Value::from(false));
        }
        left = right;
    }
    Ok(Value::from(true))
}

/// The indexes of `[start:stop:step]` in a sequence of `len` items.
fn indexes(start: Option<i64>, stop: Option<i64>, step: i64, len: usize) -> Vec<usize> {
    let len = len as i64;
    let (lowest, highest) = if step > 0 { (0, len) } else { (-1, len - 1) };
    let clamp = |index: i64| {
        let index = if index < 0 { index.saturating_add(len) } else { index };
        index.clamp(lowest, highest)
    };
    let start = start.map_or(if step > 0 { lowest } else { highest }, clamp);
    let stop = stop.map_or(if step > 0 { highest } else { lowest }, clamp);
    let mut found = Vec::new();
    let mut index = start;
    while if step > 0 { index < stop } else { index > stop } {
        found.push(index as usize);
        index = index.saturating_add(step);
    }
    found
}

fn slice(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let [sliced, start, stop, step] = arguments.bind(["value", "start", "stop", "step"], 1)?;
    let number = |value: &Option<Value>| match value {
        Some(value) if !value.is_none() => arguments.integer(value).map(Some),
        _ => Ok(None),
    };
    let step = number(&step)?.unwrap_or(1);
    if step == 0 {
        return Err(invalid("slice step cannot be zero"));
    }
    let (start, stop) = (number(&start)?, number(&stop)?);
    let pick = |values: &[Value]| -> Outcome<Vec<Value>> {
        pay_items(state, values.len())?;
        Ok(indexes(start, stop, step, values.len())
            .into_iter()
            .filter_map(|index| values.get(index).cloned())
            .collect())
    };
    match sliced.as_ref().map(data) {
        Some(Data::Text(text)) => {
            pay_items(state, text.len() / 8)?;
            let characters: Vec<char> = text.chars().collect();
            let picked = indexes(start, stop, step, characters.len());
            Ok(Value::from(picked.into_iter().filter_map(|index| characters.get(index)).collect::<String>()))
        }
        Some(Data::List(values)) => pick(values).map(Value::from),
        Some(Data::Tuple(values)) => pick(values).map(|picked| Value::from(Tuple::from(picked))),
        // As Jinja's: an attribute that does not exist.
        Some(Data::None | Data::Dict(_)) => Ok(Value::UNDEFINED),
        Some(Data::Undefined) => Err(minijinja::ErrorKind::UndefinedError.into()),
        other => Err(invalid(format!("{} cannot be sliced", other.map_or("nothing", |other| other.type_name())))),
    }
}

/// `value[key]` as Jinja reads it: an item, or else an attribute.
pub(super) fn item_of(state: &State<'_, '_>, value: &Value, key: &Value) -> Outcome {
    let sequence = |values: &[Value]| {
        let index = int_of(key)?;
        let index = if index < 0 { index + values.len() as i128 } else { index };
        values.get(usize::try_from(index).ok()?).cloned()
    };
    let found = match data(value) {
        Data::Undefined => return Err(minijinja::ErrorKind::UndefinedError.into()),
        // A group's items have names.
        Data::Tuple(_) if key.as_str().is_some() => key.as_str().and_then(|name| value.get_attr(name).ok()),
        Data::Text(text) => {
            let Some(index) = int_of(key) else { return Ok(Value::UNDEFINED) };
            pay_bytes(state, text.len())?;
            let found = if index < 0 {
                usize::try_from(-1 - index).ok().and_then(|index| text.chars().nth_back(index))
            } else {
                usize::try_from(index).ok().and_then(|index| text.chars().nth(index))
            };
            found.map(Value::from)
        }
        Data::List(values) | Data::Tuple(values) => sequence(values),
        Data::View(View { kind: ViewKind::Range, items }) => sequence(items),
        Data::Dict(Dict(pairs)) => {
            if !is_key(key) {
                return Err(invalid(format!("{} is not supported as the key of a dict", type_name(key))));
            }
            pairs.get(key).cloned()
        }
        Data::Opaque => key.as_str().and_then(|name| value.get_attr(name).ok()),
        _ => None,
    };
    Ok(found.unwrap_or_default())
}

fn item(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let (value, key) = two(&arguments)?;
    item_of(state, &value, &key)
}

/// `value.name`, where a type of Python has a method of this name.
fn attribute(_: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let (value, name) = two(&arguments)?;
    let name = arguments.text(&name)?;
    if methods::exists(&value, name) {
        return Err(invalid(format!("the method {name} of {} must be called", type_name(&value))));
    }
    value.get_attr(name)
}

/// What a loop iterates over.
fn iterate(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let value = arguments.subject();
    match data(&value) {
        Data::Opaque => Err(invalid("a namespace, a loop or a macro is not iterable")),
        Data::List(_) | Data::Tuple(_) => Ok(value),
        _ => items(state, &value).map(Value::from),
    }
}

/// What is assigned to an attribute of a namespace.
fn store(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let value = arguments.subject();
    check_plain(state, &value)?;
    Ok(value)
}

/// A list or tuple that was written.
fn list(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let value = arguments.subject();
    check(state, &value)?;
    Ok(value)
}

/// A dictionary that was written, from a list of keys and values by turns.
fn dictionary(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let pairs = items(state, &arguments.subject())?;
    let mut dict = Dict::default();
    for pair in pairs.chunks(2) {
        let [key, value] = pair else { return Err(arguments.error("needs a value for each key")) };
        insert(&mut dict, key, value)?;
    }
    let dict = Value::from_object(dict);
    check(state, &dict)?;
    Ok(dict)
}

pub(super) fn insert(dict: &mut Dict, key: &Value, value: &Value) -> Outcome<()> {
    if !is_key(key) {
        return Err(invalid(format!("{} is not supported as the key of a dict", type_name(key))));
    }
    dict.0.insert(key.clone(), value.clone());
    Ok(())
}
