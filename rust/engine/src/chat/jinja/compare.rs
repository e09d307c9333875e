//! Comparisons as Python makes them.

use std::cmp::Ordering;

use minijinja::State;
use minijinja::value::Value;

use super::Outcome;
use super::value::{Data, Dict, data, invalid, is_key, items, nested, pay_bytes};

/// `a == b`
pub(super) fn equal(state: &State<'_, '_>, a: &Value, b: &Value) -> Outcome<bool> {
    equal_at(state, a, b, 0)
}

fn equal_at(state: &State<'_, '_>, a: &Value, b: &Value, depth: usize) -> Outcome<bool> {
    nested(depth)?;
    state.consume_fuel(1)?;
    Ok(match (data(a), data(b)) {
        (Data::Undefined, Data::Undefined) | (Data::None, Data::None) => true,
        (Data::Text(a), Data::Text(b)) => {
            pay_bytes(state, a.len().min(b.len()))?;
            a == b
        }
        (Data::List(a), Data::List(b)) | (Data::Tuple(a), Data::Tuple(b)) => {
            if a.len() != b.len() {
                return Ok(false);
            }
            for (a, b) in a.iter().zip(b) {
                if !equal_at(state, a, b, depth + 1)? {
                    return Ok(false);
                }
            }
            true
        }
        (Data::Dict(Dict(a)), Data::Dict(Dict(b))) => {
            if a.len() != b.len() {
                return Ok(false);
            }
            for (key, value) in a {
                let Some(other) = b.get(key) else { return Ok(false) };
                if !equal_at(state, value, other, depth + 1)? {
                    return Ok(false);
                }
            }
            true
        }
        (Data::View(_) | Data::Opaque, Data::View(_) | Data::Opaque) => {
            return Err(invalid("namespaces, loops, macros and views of dictionaries cannot be compared"));
        }
        (a, b) => matches!(numbers(&a, &b), Ok(Some(Ordering::Equal))),
    })
}

/// One of two values is not a number.
struct NotNumbers;

/// The order of two numbers; nothing if one of them is not a number in IEEE 754 either.
fn numbers(a: &Data<'_>, b: &Data<'_>) -> std::result::Result<Option<Ordering>, NotNumbers> {
    let int = |data: &Data<'_>| match data {
        Data::Bool(value) => Some(i128::from(*value)),
        Data::Int(number) => Some(*number),
        _ => None,
    };
    let number = |data: &Data<'_>| match data {
        Data::Float(number) => Some(*number),
        other => int(other).map(|number| number as f64),
    };
    match (int(a), int(b)) {
        (Some(a), Some(b)) => Ok(Some(a.cmp(&b))),
        _ => match (number(a), number(b)) {
            (Some(a), Some(b)) => Ok(a.partial_cmp(&b)),
            _ => Err(NotNumbers),
        },
    }
}

/// The order of two values, as `a < b` needs it; nothing for numbers without an order.
pub(super) fn order(state: &State<'_, '_>, a: &Value, b: &Value) -> Outcome<Option<Ordering>> {
    order_at(state, a, b, 0)
}

fn order_at(state: &State<'_, '_>, a: &Value, b: &Value, depth: usize) -> Outcome<Option<Ordering>> {
    nested(depth)?;
    state.consume_fuel(1)?;
    match (data(a), data(b)) {
        (Data::Text(a), Data::Text(b)) => {
            pay_bytes(state, a.len().min(b.len()))?;
            Ok(Some(a.cmp(b)))
        }
        (Data::List(a), Data::List(b)) | (Data::Tuple(a), Data::Tuple(b)) => {
            for (a, b) in a.iter().zip(b) {
                if !equal_at(state, a, b, depth + 1)? {
                    return order_at(state, a, b, depth + 1);
                }
            }
            Ok(Some(a.len().cmp(&b.len())))
        }
        (first, second) => numbers(&first, &second).map_err(|NotNumbers| {
            invalid(format!("{} and {} have no order", first.type_name(), second.type_name()))
        }),
    }
}

/// `item in container`
pub(super) fn contains(state: &State<'_, '_>, container: &Value, item: &Value) -> Outcome<bool> {
    match data(container) {
        Data::Undefined => Ok(false),
        Data::Text(text) => match data(item) {
            Data::Text(part) => {
                pay_bytes(state, text.len())?;
                Ok(text.contains(part))
            }
            other => Err(invalid(format!("'in <string>' requires a string, not {}", other.type_name()))),
        },
        Data::Dict(dict) => Ok(is_key(item) && dict.get(item).is_some()),
        _ => {
            for other in items(state, container)? {
                if equal(state, &other, item)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
    }
}
