//! The functions that templates call.

use minijinja::State;
use minijinja::value::{Kwargs, Value, ValueOrKwargs};

use super::arguments::Arguments;
use super::operators::insert;
use super::value::{Data, Dict, View, ViewKind, check, check_plain, data, invalid, items, pay_items, text};
use super::{Builtin, MAX_ATTRIBUTES, Outcome};

pub(super) const FUNCTIONS: [(&str, Builtin); 4] =
    [("dict", dict), ("namespace", namespace), ("raise_exception", raise_exception), ("range", range)];

fn raise_exception(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let [message] = arguments.bind(["message"], 1)?;
    Err(invalid(text(state, &message.unwrap_or_default())?))
}

fn range(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let numbers: Outcome<Vec<i64>> = arguments.positional.iter().map(|value| arguments.integer(value)).collect();
    let (start, stop, step) = match numbers?.as_slice() {
        [stop] => (0, *stop, 1),
        [start, stop] => (*start, *stop, 1),
        [start, stop, step] if *step != 0 => (*start, *stop, *step),
        _ => return Err(arguments.error("needs one to three integers, the third not 0")),
    };
    let distance =
        if step > 0 { i128::from(stop) - i128::from(start) } else { i128::from(start) - i128::from(stop) };
    let len =
        usize::try_from((distance.max(0) + i128::from(step.unsigned_abs()) - 1) / i128::from(step.unsigned_abs()));
    let len = len.map_err(|_| arguments.error("the range is too long"))?;
    pay_items(state, len)?;
    let items = (0..len).map(|index| Value::from(start + index as i64 * step)).collect();
    Ok(Value::from_object(View { kind: ViewKind::Range, items }))
}

/// The pairs of a mapping, or of a list of pairs, and of named arguments.
fn pairs(state: &State<'_, '_>, arguments: &Arguments) -> Outcome<Dict> {
    let mut found = Dict::default();
    match arguments.positional.as_slice() {
        [] => {}
        [source] => match data(source) {
            Data::Dict(source) => {
                pay_items(state, source.0.len())?;
                found.0.extend(source.0.iter().map(|(key, value)| (key.clone(), value.clone())));
            }
            _ => {
                for pair in items(state, source)? {
                    let pair = items(state, &pair)?;
                    let [key, value] = pair.as_slice() else { return Err(arguments.error("needs pairs")) };
                    insert(&mut found, key, value)?;
                }
            }
        },
        _ => return Err(arguments.error("takes at most one positional argument")),
    }
    for (name, value) in &arguments.named {
        found.0.insert(Value::from(name.as_str()), value.clone());
    }
    Ok(found)
}

fn dict(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let dict = Value::from_object(pairs(state, &arguments)?);
    check(state, &dict)?;
    Ok(dict)
}

/// The engine's own namespace, the only object whose attributes can be set.
fn namespace(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let pairs = pairs(state, &arguments)?;
    if pairs.0.len() > MAX_ATTRIBUTES {
        return Err(arguments.error(format_args!("takes at most {MAX_ATTRIBUTES} names, got {}", pairs.0.len())));
    }
    let mut named = Vec::new();
    for (name, value) in pairs.0 {
        check_plain(state, &value)?;
        let name = name.as_str().ok_or_else(|| arguments.error("needs names"))?.to_owned();
        named.push((name, value));
    }
    let named = Value::from(named.into_iter().collect::<Kwargs>());
    minijinja::functions::namespace(Some(ValueOrKwargs::from(named)))
}
