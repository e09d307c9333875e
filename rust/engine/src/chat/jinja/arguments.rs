//! Arguments of filters, tests and methods, bound as Python binds them.

use minijinja::value::{Kwargs, Value};

use super::Outcome;
use super::value::{Data, data, invalid, type_name};

/// The arguments of one call.
#[derive(Clone)]
pub(super) struct Arguments {
    /// The name of what is called, for errors.
    pub(super) name: String,
    pub(super) positional: Vec<Value>,
    pub(super) named: Vec<(String, Value)>,
}

impl Arguments {
    pub(super) fn new(name: &str, mut values: Vec<Value>) -> Outcome<Self> {
        let mut named = Vec::new();
        if values.last().is_some_and(Value::is_kwargs)
            && let Some(last) = values.pop()
        {
            let arguments = Kwargs::try_from(last)?;
            for name in arguments.args() {
                named.push((name.to_owned(), arguments.get::<Value>(name)?));
            }
        }
        Ok(Self { name: name.to_owned(), positional: values, named })
    }

    /// An error about this call.
    pub(super) fn error(&self, problem: impl std::fmt::Display) -> minijinja::Error {
        invalid(format!("{}: {problem}", self.name))
    }

    /// The arguments by their names in Python; the first `required` must be given.
    pub(super) fn bind<const N: usize>(&self, names: [&str; N], required: usize) -> Outcome<Bound<N>> {
        let mut bound = [const { None }; N];
        if self.positional.len() > N {
            return Err(self.error(format_args!("takes at most {N} arguments, got {}", self.positional.len())));
        }
        for (place, value) in bound.iter_mut().zip(&self.positional) {
            *place = Some(value.clone());
        }
        for (name, value) in &self.named {
            let place = names.iter().position(|known| known == name).and_then(|index| bound.get_mut(index));
            match place {
                Some(place @ None) => *place = Some(value.clone()),
                Some(_) => return Err(self.error(format_args!("got two values for the argument {name:?}"))),
                None => return Err(self.error(format_args!("does not take the argument {name:?}"))),
            }
        }
        if let Some((name, _)) = names.iter().zip(&bound).take(required).find(|(_, value)| value.is_none()) {
            return Err(self.error(format_args!("needs the argument {name:?}")));
        }
        Ok(bound)
    }

    /// The first argument.
    pub(super) fn subject(&self) -> Value {
        self.positional.first().cloned().unwrap_or_default()
    }

    pub(super) fn text<'v>(&self, value: &'v Value) -> Outcome<&'v str> {
        match data(value) {
            Data::Text(text) => Ok(text),
            other => Err(self.error(format_args!("needs a string, got {}", other.type_name()))),
        }
    }

    pub(super) fn integer(&self, value: &Value) -> Outcome<i64> {
        let number = match data(value) {
            Data::Int(number) => i64::try_from(number).ok(),
            Data::Bool(value) => Some(i64::from(value)),
            _ => None,
        };
        number.ok_or_else(|| self.error(format_args!("needs an integer, got {}", type_name(value))))
    }

    /// An integer, or the default where none is given.
    pub(super) fn integer_or(&self, value: Option<&Value>, default: i64) -> Outcome<i64> {
        value.map_or(Ok(default), |value| self.integer(value))
    }
}

/// Arguments in the order of their names.
pub(super) type Bound<const N: usize> = [Option<Value>; N];

/// Whether an optional argument is given and true.
pub(super) fn is_true(value: Option<&Value>, default: bool) -> bool {
    value.map_or(default, Value::is_true)
}
