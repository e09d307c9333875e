//! Python's formatting: `'%s' % value`, and `'{}'.format(value)` without format specifications.

use minijinja::State;
use minijinja::value::Value;

use super::Outcome;
use super::arguments::Arguments;
use super::value::{Data, data, invalid, pay_bytes, repr, text, type_name};

/// One specification of a `%` format.
#[derive(Default)]
struct Spec {
    left: bool,
    sign: bool,
    space: bool,
    zeros: bool,
    width: usize,
    precision: Option<usize>,
}

/// `format % values`; `whole` is the right side, from which `%(name)s` reads.
pub(super) fn percent(state: &State<'_, '_>, format: &str, values: &[Value], whole: &Value) -> Outcome<String> {
    let mut out = String::new();
    let mut values = values.iter();
    let mut reads_names = false;
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        let mut after = after;
        let mut named = None;
        if let Some(inner) = after.strip_prefix('(') {
            let (name, behind) = inner.split_once(')').ok_or_else(|| invalid("%: incomplete format key"))?;
            let Data::Dict(dict) = data(whole) else { return Err(invalid("%: format requires a mapping")) };
            let value = dict.get(&Value::from(name)).ok_or_else(|| invalid(format!("%: no value {name:?}")))?;
            named = Some(value.clone());
            reads_names = true;
            after = behind;
        }
        let (spec, conversion, behind) = specification(after)?;
        rest = behind;
        let value = match named {
            Some(value) => value,
            None => values.next().cloned().ok_or_else(|| invalid("%: not enough arguments for format string"))?,
        };
        pay_bytes(state, spec.width)?;
        out.push_str(&padded(&spec, conversion, converted(state, &spec, conversion, &value)?));
    }
    out.push_str(rest);
    if !reads_names && values.next().is_some() && !matches!(data(whole), Data::Dict(_) | Data::List(_)) {
        return Err(invalid("%: not all arguments converted during string formatting"));
    }
    Ok(out)
}

/// The flags, width and precision of a specification, its conversion, and the rest of the format.
fn specification(format: &str) -> Outcome<(Spec, char, &str)> {
    let mut spec = Spec::default();
    let mut rest = format;
    while let Some(flag) = rest.chars().next().filter(|flag| "-+ 0".contains(*flag)) {
        match flag {
            '-' => spec.left = true,
            '+' => spec.sign = true,
            ' ' => spec.space = true,
            _ => spec.zeros = true,
        }
        rest = rest.get(1..).unwrap_or_default();
    }
    let number = |rest: &mut &str| {
        let end = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
        let (digits, behind) = rest.split_at(end);
        *rest = behind;
        if digits.is_empty() { Ok(0) } else { digits.parse().map_err(|_| invalid("%: the width is too large")) }
    };
    spec.width = number(&mut rest)?;
    if let Some(behind) = rest.strip_prefix('.') {
        rest = behind;
        spec.precision = Some(number(&mut rest)?);
    }
    let mut characters = rest.chars();
    let conversion = characters.next().ok_or_else(|| invalid("%: incomplete format"))?;
    Ok((spec, conversion, characters.as_str()))
}

fn converted(state: &State<'_, '_>, spec: &Spec, conversion: char, value: &Value) -> Outcome<String> {
    /// Digits that Python writes without a precision.
    const PRECISION: usize = 6;
    /// A double has no more digits after its point that are not 0.
    const MAX_DIGITS: usize = 1_100;
    let number = || -> Outcome<f64> {
        match data(value) {
            Data::Float(number) => Ok(number),
            Data::Int(number) => Ok(number as f64),
            Data::Bool(value) => Ok(f64::from(u8::from(value))),
            other => Err(invalid(format!("%{conversion}: a number is required, not {}", other.type_name()))),
        }
    };
    let integer = || -> Outcome<i128> {
        match data(value) {
            Data::Int(number) => Ok(number),
            Data::Bool(value) => Ok(i128::from(value)),
            _ => {
                let number = number()?.trunc();
                if number.abs() < 1e30 { Ok(number as i128) } else { Err(invalid("%d: the number is too large")) }
            }
        }
    };
    let signed = |is_negative: bool, digits: String| {
        let sign = match (is_negative, spec.sign, spec.space) {
            (true, ..) => "-",
            (false, true, _) => "+",
            (false, false, true) => " ",
            _ => "",
        };
        format!("{sign}{digits}")
    };
    let cut = |text: String| match spec.precision {
        Some(precision) => text.chars().take(precision).collect(),
        None => text,
    };
    let whole_numbers_only = || match (data(value), spec.precision) {
        (Data::Int(_) | Data::Bool(_), None) => Ok(()),
        _ => Err(invalid(format!("the format %{conversion} is supported for integers without a precision only"))),
    };
    match conversion {
        's' => text(state, value).map(cut),
        'r' => repr(state, value).map(cut),
        'd' | 'i' | 'u' if spec.precision.is_none() => {
            let number = integer()?;
            Ok(signed(number < 0, number.unsigned_abs().to_string()))
        }
        'f' | 'F' => {
            let number = number()?;
            if spec.precision.is_some_and(|precision| precision > MAX_DIGITS) {
                return Err(invalid(format!("%f: a precision above {MAX_DIGITS} is not supported")));
            }
            if !number.is_finite() {
                return Err(invalid("the format %f of a number that is not finite is not supported"));
            }
            let digits = format!("{:.*}", spec.precision.unwrap_or(PRECISION), number.abs());
            Ok(signed(number.is_sign_negative(), digits))
        }
        'x' | 'X' | 'o' => {
            whole_numbers_only()?;
            let number = integer()?;
            let digits = match conversion {
                'x' => format!("{:x}", number.unsigned_abs()),
                'X' => format!("{:X}", number.unsigned_abs()),
                _ => format!("{:o}", number.unsigned_abs()),
            };
            Ok(signed(number < 0, digits))
        }
        'c' => match data(value) {
            Data::Text(text) if text.chars().count() == 1 => Ok(text.to_owned()),
            _ => Err(invalid("the format %c is supported for a string of one character only")),
        },
        other => Err(invalid(format!("the format %{other} is not supported"))),
    }
}

fn padded(spec: &Spec, conversion: char, text: String) -> String {
    let missing = spec.width.saturating_sub(text.chars().count());
    if missing == 0 {
        return text;
    }
    if spec.left {
        return text + &" ".repeat(missing);
    }
    if spec.zeros && !matches!(conversion, 's' | 'r' | 'c') {
        let digits = text.trim_start_matches(['-', '+', ' ']);
        let sign = text.strip_suffix(digits).unwrap_or_default();
        return format!("{sign}{}{digits}", "0".repeat(missing));
    }
    " ".repeat(missing) + &text
}

/// `format.format(*values, **named)`
pub(super) fn braces(state: &State<'_, '_>, format: &str, arguments: &Arguments) -> Outcome<String> {
    let mut out = String::new();
    let mut next = 0;
    let mut rest = format;
    while let Some(start) = rest.find(['{', '}']) {
        let (before, after) = rest.split_at(start);
        out.push_str(before);
        if let Some(after) = after.strip_prefix("{{") {
            out.push('{');
            rest = after;
            continue;
        }
        if let Some(after) = after.strip_prefix("}}") {
            out.push('}');
            rest = after;
            continue;
        }
        let field = after.strip_prefix('{').and_then(|after| after.split_once('}'));
        let (field, behind) = field.ok_or_else(|| arguments.error("a brace has no counterpart"))?;
        rest = behind;
        let value = if field.is_empty() {
            next += 1;
            arguments.positional.get(next - 1)
        } else if let Ok(index) = field.parse::<usize>() {
            arguments.positional.get(index)
        } else if field.chars().all(|character| character.is_alphanumeric() || character == '_') {
            arguments.named.iter().find(|(name, _)| name == field).map(|(_, value)| value)
        } else {
            return Err(
                arguments.error(format_args!("the field {field:?} is not supported; use a name or a number"))
            );
        };
        let value = value.ok_or_else(|| arguments.error(format_args!("no value for the field {field:?}")))?;
        if matches!(data(value), Data::Undefined) {
            return Err(arguments.error(format_args!("no text of {}", type_name(value))));
        }
        out.push_str(&text(state, value)?);
    }
    out.push_str(rest);
    pay_bytes(state, out.len())?;
    Ok(out)
}
