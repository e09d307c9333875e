//! Jinja's filters of lists and dictionaries.

use std::cmp::Ordering;

use indexmap::IndexSet;
use minijinja::State;
use minijinja::value::{Kwargs, Value};

use super::arguments::{Arguments, is_true};
use super::compare::{equal, order};
use super::operators::{item_of, sum_of};
use super::value::{Data, Group, data, generator, invalid, is_key, items, pay_items, text, tuple, type_name};
use super::{Builtin, Outcome, methods};

pub(super) const FILTERS: [(&str, Builtin); 20] = [
    ("batch", batch),
    ("dictsort", dict_sort),
    ("first", first),
    ("groupby", group_by),
    ("items", pairs),
    ("join", join),
    ("last", last),
    ("list", list),
    ("map", map),
    ("max", extreme),
    ("min", extreme),
    ("reject", select),
    ("rejectattr", select_attribute),
    ("reverse", reverse),
    ("select", select),
    ("selectattr", select_attribute),
    ("slice", slice),
    ("sort", sort),
    ("sum", sum),
    ("unique", unique),
];

/// What an item is ordered by, and the item.
type Keyed = (Vec<Value>, Value);

/// Reads an attribute of each item, as `attribute="a.b.0"` names it.
struct Getter<'a> {
    /// Several for `sort(attribute="a,b")`; none reads the item itself.
    paths: Vec<Vec<Value>>,
    default: Option<&'a Value>,
    case_sensitive: bool,
}

impl<'a> Getter<'a> {
    fn new(attribute: Option<&Value>, several: bool, case_sensitive: bool) -> Outcome<Self> {
        let part = |part: &str| match part.parse::<u32>() {
            Ok(index) => Value::from(index),
            Err(_) => Value::from(part),
        };
        let path = |path: &str| path.split('.').map(part).collect();
        let paths = match attribute.filter(|attribute| !attribute.is_none()) {
            None => Vec::new(),
            Some(attribute) => match data(attribute) {
                Data::Text(text) if several => text.split(',').map(path).collect(),
                Data::Text(text) => vec![path(text)],
                Data::Int(_) => vec![vec![attribute.clone()]],
                other => {
                    return Err(invalid(format!(
                        "attribute must be a string or an integer, got {}",
                        other.type_name()
                    )));
                }
            },
        };
        Ok(Self { paths, default: None, case_sensitive })
    }

    fn with_default(self, default: Option<&'a Value>) -> Self {
        Self { default: default.filter(|default| !default.is_none()), ..self }
    }

    /// The attribute as it is.
    fn plain(&self, state: &State<'_, '_>, item: &Value) -> Outcome<Vec<Value>> {
        let mut found = Vec::new();
        for path in &self.paths {
            let mut value = item.clone();
            for part in path {
                value = item_of(state, &value, part)?;
                if value.is_undefined()
                    && let Some(default) = self.default
                {
                    value = default.clone();
                }
            }
            found.push(value);
        }
        if self.paths.is_empty() {
            found.push(item.clone());
        }
        Ok(found)
    }

    fn first(&self, state: &State<'_, '_>, item: &Value) -> Outcome {
        Ok(self.plain(state, item)?.into_iter().next().unwrap_or_default())
    }

    /// The attributes by which items are ordered: lowercase, unless case counts.
    fn keys(&self, state: &State<'_, '_>, item: &Value) -> Outcome<Vec<Value>> {
        let lowered = |value: Value| match value.as_str() {
            Some(text) if !self.case_sensitive => Value::from(text.to_lowercase()),
            _ => value,
        };
        Ok(self.plain(state, item)?.into_iter().map(lowered).collect())
    }
}

/// Sorts by keys, stably also in reverse. Not the standard library's: comparing costs fuel and may fail.
fn sorted(state: &State<'_, '_>, mut keyed: Vec<Keyed>, reverse: bool) -> Outcome<Vec<Keyed>> {
    if keyed.len() < 2 {
        return Ok(keyed);
    }
    let right = sorted(state, keyed.split_off(keyed.len() / 2), reverse)?;
    let left = sorted(state, keyed, reverse)?;
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    let mut merged = Vec::with_capacity(left.len() + right.len());
    while let (Some((first, _)), Some((second, _))) = (left.peek(), right.peek()) {
        let wanted = if reverse { Ordering::Greater } else { Ordering::Less };
        let from_right = order_of_keys(state, second, first)? == wanted;
        merged.extend(if from_right { right.next() } else { left.next() });
    }
    merged.extend(left);
    merged.extend(right);
    Ok(merged)
}

fn order_of_keys(state: &State<'_, '_>, a: &[Value], b: &[Value]) -> Outcome<Ordering> {
    for (a, b) in a.iter().zip(b) {
        match order(state, a, b)? {
            Some(Ordering::Equal) | None => {}
            Some(order) => return Ok(order),
        }
    }
    Ok(Ordering::Equal)
}

fn keyed(state: &State<'_, '_>, values: Vec<Value>, getter: &Getter<'_>) -> Outcome<Vec<Keyed>> {
    values.into_iter().map(|value| Ok((getter.keys(state, &value)?, value))).collect()
}

fn values_of(keyed: Vec<Keyed>) -> Vec<Value> {
    keyed.into_iter().map(|(_, value)| value).collect()
}

fn sort(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let [value, reverse, case_sensitive, attribute] =
        arguments.bind(["value", "reverse", "case_sensitive", "attribute"], 1)?;
    let getter = Getter::new(attribute.as_ref(), true, is_true(case_sensitive.as_ref(), false))?;
    let keyed = keyed(state, items(state, &value.unwrap_or_default())?, &getter)?;
    Ok(Value::from(values_of(sorted(state, keyed, is_true(reverse.as_ref(), false))?)))
}

fn dict_sort(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let [value, case_sensitive, by, reverse] = arguments.bind(["value", "case_sensitive", "by", "reverse"], 1)?;
    let by = by.unwrap_or_else(|| Value::from("key"));
    let index = match arguments.text(&by)? {
        "key" => 0,
        "value" => 1,
        _ => return Err(arguments.error("by must be \"key\" or \"value\"")),
    };
    let value = value.unwrap_or_default();
    let getter = Getter::new(Some(&Value::from(index)), false, is_true(case_sensitive.as_ref(), false))?;
    let keyed = keyed(state, dict_pairs(state, &value)?, &getter)?;
    Ok(Value::from(values_of(sorted(state, keyed, is_true(reverse.as_ref(), false))?)))
}

fn dict_pairs(state: &State<'_, '_>, value: &Value) -> Outcome<Vec<Value>> {
    match data(value) {
        Data::Undefined => Ok(Vec::new()),
        Data::Dict(dict) => {
            pay_items(state, 2 * dict.0.len())?;
            Ok(dict.0.iter().map(|(key, value)| tuple([key.clone(), value.clone()])).collect())
        }
        other => Err(invalid(format!("can only get the pairs of a dict, not of {}", other.type_name()))),
    }
}

fn pairs(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let [value] = arguments.bind(["value"], 1)?;
    dict_pairs(state, &value.unwrap_or_default()).map(generator)
}

fn group_by(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let [value, attribute, default, case_sensitive] =
        arguments.bind(["value", "attribute", "default", "case_sensitive"], 2)?;
    let getter = Getter::new(attribute.as_ref(), false, is_true(case_sensitive.as_ref(), false))?
        .with_default(default.as_ref());
    let keyed = keyed(state, items(state, &value.unwrap_or_default())?, &getter)?;
    let mut groups: Vec<(Vec<Value>, Vec<Value>)> = Vec::new();
    for (key, value) in sorted(state, keyed, false)? {
        let belongs = match (groups.last(), key.first()) {
            (Some((last, _)), Some(key)) => equal(state, last.first().unwrap_or(&Value::UNDEFINED), key)?,
            _ => false,
        };
        match groups.last_mut().filter(|_| belongs) {
            Some((_, group)) => group.push(value),
            None => groups.push((key, vec![value])),
        }
    }
    let group = |(_, group): (Vec<Value>, Vec<Value>)| {
        let key = getter.first(state, group.first().unwrap_or(&Value::UNDEFINED))?;
        Ok(Value::from_object(Group([key, Value::from(group)])))
    };
    groups.into_iter().map(group).collect::<Outcome<Vec<Value>>>().map(Value::from)
}

fn unique(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let [value, case_sensitive, attribute] = arguments.bind(["value", "case_sensitive", "attribute"], 1)?;
    let getter = Getter::new(attribute.as_ref(), false, is_true(case_sensitive.as_ref(), false))?;
    let mut seen = IndexSet::new();
    let mut kept = Vec::new();
    for item in items(state, &value.unwrap_or_default())? {
        let key = getter.keys(state, &item)?.into_iter().next().unwrap_or_default();
        if !is_key(&key) {
            return Err(arguments.error(format_args!("{} is not supported as a key", type_name(&key))));
        }
        if seen.insert(key) {
            kept.push(item);
        }
    }
    Ok(generator(kept))
}

/// `min` and `max`: the first of those that are equal.
fn extreme(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let [value, case_sensitive, attribute] = arguments.bind(["value", "case_sensitive", "attribute"], 1)?;
    let getter = Getter::new(attribute.as_ref(), false, is_true(case_sensitive.as_ref(), false))?;
    let better = if arguments.name == "max" { Ordering::Greater } else { Ordering::Less };
    let mut best: Option<(Vec<Value>, Value)> = None;
    for (keys, item) in keyed(state, items(state, &value.unwrap_or_default())?, &getter)? {
        let wins = match (&best, keys.first()) {
            (Some((best, _)), Some(key)) => {
                order(state, key, best.first().unwrap_or(&Value::UNDEFINED))? == Some(better)
            }
            _ => true,
        };
        if wins {
            best = Some((keys, item));
        }
    }
    Ok(best.map(|(_, item)| item).unwrap_or_default())
}

fn sum(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let [value, attribute, start] = arguments.bind(["iterable", "attribute", "start"], 1)?;
    let getter = Getter::new(attribute.as_ref(), false, true)?;
    let mut total = start.unwrap_or_else(|| Value::from(0));
    if total.as_str().is_some() {
        return Err(arguments.error("cannot sum strings"));
    }
    for item in items(state, &value.unwrap_or_default())? {
        total = sum_of(state, &total, &getter.first(state, &item)?)?;
    }
    Ok(total)
}

fn first(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let [value] = arguments.bind(["seq"], 1)?;
    let value = value.unwrap_or_default();
    match data(&value) {
        Data::Text(text) => Ok(text.chars().next().map(Value::from).unwrap_or_default()),
        _ => Ok(items(state, &value)?.into_iter().next().unwrap_or_default()),
    }
}

fn last(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let [value] = arguments.bind(["seq"], 1)?;
    let value = value.unwrap_or_default();
    match data(&value) {
        Data::Text(text) => Ok(text.chars().next_back().map(Value::from).unwrap_or_default()),
        _ => Ok(items(state, &value)?.pop().unwrap_or_default()),
    }
}

fn list(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let [value] = arguments.bind(["value"], 1)?;
    items(state, &value.unwrap_or_default()).map(Value::from)
}

fn reverse(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let [value] = arguments.bind(["value"], 1)?;
    let value = value.unwrap_or_default();
    if let Data::Text(text) = data(&value) {
        return Ok(Value::from(text.chars().rev().collect::<String>()));
    }
    let mut reversed = items(state, &value)?;
    reversed.reverse();
    Ok(generator(reversed))
}

fn join(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let [value, separator, attribute] = arguments.bind(["value", "d", "attribute"], 1)?;
    let separator = separator.map_or(Ok(String::new()), |separator| text(state, &separator))?;
    let getter = Getter::new(attribute.as_ref(), false, true)?;
    let mut parts = Vec::new();
    for item in items(state, &value.unwrap_or_default())? {
        parts.push(text(state, &getter.first(state, &item)?)?);
    }
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    methods::joined(state, &separator, &parts).map(Value::from)
}

fn batch(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let [value, count, fill] = arguments.bind(["value", "linecount", "fill_with"], 2)?;
    let count = arguments.integer(&count.unwrap_or_default())?;
    let count = usize::try_from(count).ok().filter(|count| *count > 0);
    let count = count.ok_or_else(|| arguments.error("needs at least one item in a batch"))?;
    let mut batches: Vec<Vec<Value>> =
        items(state, &value.unwrap_or_default())?.chunks(count).map(<[Value]>::to_vec).collect();
    if let (Some(last), Some(fill)) = (batches.last_mut(), fill.filter(|fill| !fill.is_none())) {
        pay_items(state, count)?;
        last.resize(count, fill);
    }
    Ok(generator(batches.into_iter().map(Value::from).collect()))
}

fn slice(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let [value, slices, fill] = arguments.bind(["value", "slices", "fill_with"], 2)?;
    let slices =
        usize::try_from(arguments.integer(&slices.unwrap_or_default())?).ok().filter(|slices| *slices > 0);
    let slices = slices.ok_or_else(|| arguments.error("needs at least one slice"))?;
    let values = items(state, &value.unwrap_or_default())?;
    pay_items(state, slices)?;
    let (each, longer) = (values.len() / slices, values.len() % slices);
    let fill = fill.filter(|fill| !fill.is_none());
    let mut rest = values.as_slice();
    let mut made = Vec::new();
    for index in 0..slices {
        let (slice, behind) = rest.split_at(if index < longer { each + 1 } else { each });
        rest = behind;
        let mut slice = slice.to_vec();
        if index >= longer {
            slice.extend(fill.clone());
        }
        made.push(Value::from(slice));
    }
    Ok(generator(made))
}

/// The values to pass to a filter or test: an item, and what follows the name.
fn call_values(item: Value, rest: &[Value], named: &[(String, Value)]) -> Vec<Value> {
    let mut values = vec![item];
    values.extend_from_slice(rest);
    if !named.is_empty() {
        values.push(Value::from(named.iter().cloned().collect::<Kwargs>()));
    }
    values
}

/// The items of what `map`, `select` and the like are given; none of whatever is false, none included.
fn items_if_true(state: &State<'_, '_>, value: &Value) -> Outcome<Vec<Value>> {
    if value.is_true() { items(state, value) } else { Ok(Vec::new()) }
}

fn map(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let values = items_if_true(state, &arguments.subject())?;
    let mut mapped = Vec::with_capacity(values.len());
    match arguments.positional.get(1..) {
        Some([name, rest @ ..]) => {
            let name = arguments.text(name)?;
            if !super::is_filter(name) {
                return Err(arguments.error(format_args!("unknown filter {name:?}")));
            }
            for value in values {
                mapped.push(state.apply_filter(name, &call_values(value, rest, &arguments.named))?);
            }
        }
        _ => {
            let named = Arguments { positional: Vec::new(), ..arguments.clone() };
            let [attribute, default] = named.bind(["attribute", "default"], 1)?;
            let getter = Getter::new(attribute.as_ref(), false, true)?.with_default(default.as_ref());
            for value in values {
                mapped.push(getter.first(state, &value)?);
            }
        }
    }
    Ok(generator(mapped))
}

fn passes(state: &mut State<'_, '_>, value: Value, arguments: &Arguments, test: usize) -> Outcome<bool> {
    match arguments.positional.get(test..) {
        Some([name, rest @ ..]) => {
            let name = arguments.text(name)?;
            if !super::is_test(name) {
                return Err(arguments.error(format_args!("unknown test {name:?}")));
            }
            state.perform_test(name, &call_values(value, rest, &arguments.named))
        }
        _ => Ok(value.is_true()),
    }
}

fn select(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let wanted = arguments.name == "select";
    let mut kept = Vec::new();
    for value in items_if_true(state, &arguments.subject())? {
        if passes(state, value.clone(), &arguments, 1)? == wanted {
            kept.push(value);
        }
    }
    Ok(generator(kept))
}

fn select_attribute(state: &mut State<'_, '_>, arguments: Arguments) -> Outcome {
    let wanted = arguments.name == "selectattr";
    let attribute =
        arguments.positional.get(1).ok_or_else(|| arguments.error("needs the name of an attribute"))?;
    let getter = Getter::new(Some(attribute), false, true)?;
    let mut kept = Vec::new();
    for value in items_if_true(state, &arguments.subject())? {
        let attribute = getter.first(state, &value)?;
        if passes(state, attribute, &arguments, 2)? == wanted {
            kept.push(value);
        }
    }
    Ok(generator(kept))
}
