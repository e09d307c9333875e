//! Jinja's tests: what follows `is`.

use minijinja::State;
use minijinja::value::Value;

use super::arguments::Arguments;
use super::operators::holds;
use super::value::{Data, View, ViewKind, data, text};
use super::{Outcome, is_filter, is_test, text as letters};

/// A test of a value.
pub(super) type Predicate = fn(&mut State<'_, '_>, &Arguments) -> Outcome<bool>;

pub(super) const TESTS: [(&str, Predicate); 38] = [
    ("==", compared),
    ("!=", compared),
    ("<", compared),
    ("<=", compared),
    (">", compared),
    (">=", compared),
    ("boolean", |_, arguments| Ok(matches!(data(&only(arguments)?), Data::Bool(_)))),
    ("defined", |_, arguments| Ok(!only(arguments)?.is_undefined())),
    ("divisibleby", |_, arguments| divisible(arguments, &argument(arguments)?)),
    ("eq", compared),
    ("equalto", compared),
    ("escaped", |_, arguments| Ok(only(arguments)?.is_safe())),
    ("even", |_, arguments| divisible(arguments, &Value::from(2))),
    ("false", |_, arguments| Ok(matches!(data(&only(arguments)?), Data::Bool(false)))),
    ("filter", |_, arguments| Ok(only(arguments)?.as_str().is_some_and(is_filter))),
    ("float", |_, arguments| Ok(matches!(data(&only(arguments)?), Data::Float(_)))),
    ("ge", compared),
    ("greaterthan", compared),
    ("gt", compared),
    ("in", compared),
    ("integer", |_, arguments| Ok(matches!(data(&only(arguments)?), Data::Int(_)))),
    ("iterable", |_, arguments| Ok(is_iterable(&only(arguments)?))),
    ("le", compared),
    ("lessthan", compared),
    ("lower", |state, arguments| Ok(letters::has_case(&text(state, &only(arguments)?)?, letters::Case::Lower))),
    ("lt", compared),
    ("mapping", |_, arguments| Ok(matches!(data(&only(arguments)?), Data::Dict(_)))),
    ("ne", compared),
    ("none", |_, arguments| Ok(only(arguments)?.is_none())),
    ("number", |_, arguments| {
        Ok(matches!(data(&only(arguments)?), Data::Int(_) | Data::Float(_) | Data::Bool(_)))
    }),
    ("odd", odd),
    ("sameas", same),
    ("sequence", |_, arguments| Ok(is_sequence(&only(arguments)?))),
    ("string", |_, arguments| Ok(only(arguments)?.as_str().is_some())),
    ("test", |_, arguments| Ok(only(arguments)?.as_str().is_some_and(is_test))),
    ("true", |_, arguments| Ok(matches!(data(&only(arguments)?), Data::Bool(true)))),
    ("undefined", |_, arguments| Ok(only(arguments)?.is_undefined())),
    ("upper", |state, arguments| Ok(letters::has_case(&text(state, &only(arguments)?)?, letters::Case::Upper))),
];

/// The value of a test without arguments.
fn only(arguments: &Arguments) -> Outcome {
    let [value] = arguments.bind(["value"], 1)?;
    Ok(value.unwrap_or_default())
}

/// The argument of a test with one.
fn argument(arguments: &Arguments) -> Outcome {
    let [_, other] = arguments.bind(["value", "other"], 2)?;
    Ok(other.unwrap_or_default())
}

fn is_iterable(value: &Value) -> bool {
    matches!(
        data(value),
        Data::Undefined | Data::Text(_) | Data::List(_) | Data::Tuple(_) | Data::Dict(_) | Data::View(_)
    )
}

fn is_sequence(value: &Value) -> bool {
    matches!(
        data(value),
        Data::Undefined
            | Data::Text(_)
            | Data::List(_)
            | Data::Tuple(_)
            | Data::Dict(_)
            | Data::View(View { kind: ViewKind::Range, .. })
    )
}

fn compared(state: &mut State<'_, '_>, arguments: &Arguments) -> Outcome<bool> {
    let other = argument(arguments)?;
    let operator = match arguments.name.as_str() {
        "eq" | "equalto" => "==",
        "ne" => "!=",
        "lt" | "lessthan" => "<",
        "le" => "<=",
        "gt" | "greaterthan" => ">",
        "ge" => ">=",
        name => name,
    };
    holds(state, operator, &arguments.subject(), &other)
}

fn remainder(arguments: &Arguments, value: &Value, divisor: &Value) -> Outcome<f64> {
    let number = |value: &Value| match data(value) {
        Data::Int(number) => Ok(number),
        Data::Bool(value) => Ok(i128::from(value)),
        other => Err(arguments.error(format_args!("supports integers only, got {}", other.type_name()))),
    };
    let (value, divisor) = (number(value)?, number(divisor)?);
    value.checked_rem(divisor).map(|rest| rest as f64).ok_or_else(|| arguments.error("division by zero"))
}

fn divisible(arguments: &Arguments, divisor: &Value) -> Outcome<bool> {
    Ok(remainder(arguments, &arguments.subject(), divisor)? == 0.0)
}

fn odd(_: &mut State<'_, '_>, arguments: &Arguments) -> Outcome<bool> {
    Ok(remainder(arguments, &only(arguments)?, &Value::from(2))? != 0.0)
}

/// Whether two values are one object, which is known of what exists once only.
fn same(_: &mut State<'_, '_>, arguments: &Arguments) -> Outcome<bool> {
    let other = argument(arguments)?;
    match (data(&arguments.subject()), data(&other)) {
        (Data::None, Data::None) => Ok(true),
        (Data::Bool(a), Data::Bool(b)) => Ok(a == b),
        (Data::None | Data::Bool(_), _) | (_, Data::None | Data::Bool(_)) => Ok(false),
        _ => Err(arguments.error("is supported for none, true and false only")),
    }
}
