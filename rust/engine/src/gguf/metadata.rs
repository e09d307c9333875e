//! Metadata values and the typed questions that are asked of them.

use super::{CONVERTED, Gguf};
use crate::{Error, Result};

/// A metadata value. Integers and floats of all widths are kept as the widest.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Any unsigned integer.
    Unsigned(u64),
    /// Any signed integer.
    Signed(i64),
    /// f32 or f64.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// UTF-8 text.
    String(String),
    /// A list of values of one type.
    Array(Array),
    /// A value that the engine cannot represent, such as a list of lists. An error only for a key that is needed.
    Unreadable(&'static str),
}

/// A list in the metadata.
#[derive(Clone, Debug, PartialEq)]
pub enum Array {
    /// Texts, a vocabulary for example.
    Strings(Vec<String>),
    /// Integers of one byte without a sign.
    Bytes(Vec<u8>),
    /// Integers of any other width.
    Integers(Vec<i64>),
    /// f32 or f64 values.
    Floats(Vec<f32>),
    /// Booleans.
    Bools(Vec<bool>),
}

impl Value {
    /// What the value is, for an error message.
    pub(super) fn describe(&self) -> String {
        const SHOWN: usize = 60;
        match self {
            Self::Unsigned(value) => format!("the integer {value}"),
            Self::Signed(value) => format!("the integer {value}"),
            Self::Float(value) => format!("the number {value}"),
            Self::Bool(value) => format!("the boolean {value}"),
            Self::String(value) if value.chars().count() > SHOWN => {
                format!("the string {:?}...", value.chars().take(SHOWN).collect::<String>())
            }
            Self::String(value) => format!("the string {value:?}"),
            Self::Array(Array::Strings(items)) => format!("a list of {} strings", items.len()),
            Self::Unreadable(description) => (*description).to_owned(),
            Self::Array(Array::Bytes(items)) => format!("a list of {} integers", items.len()),
            Self::Array(Array::Integers(items)) => format!("a list of {} integers", items.len()),
            Self::Array(Array::Floats(items)) => format!("a list of {} numbers", items.len()),
            Self::Array(Array::Bools(items)) => format!("a list of {} booleans", items.len()),
        }
    }
}

impl Gguf {
    /// The value of a metadata key, if the file has it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.get(key)
    }

    /// All metadata keys, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.metadata.keys().map(String::as_str)
    }

    /// The name that the file gives its model, for people; nothing depends on it.
    #[must_use]
    pub fn model_name(&self) -> Option<&str> {
        self.optional_str("general.name").ok().flatten()
    }

    fn wrong_type(&self, key: &str, expected: &str, found: &Value) -> Error {
        Error::invalid_model(format!(
            "{}: metadata key {key} must be {expected}, got {}; {CONVERTED}",
            self.path().display(),
            found.describe()
        ))
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        convert(value).map(Some).ok_or_else(|| self.wrong_type(key, expected, value))
    }

    fn required<T>(&self, key: &str, expected: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| {
            Error::invalid_model(format!(
                "{}: metadata key {key} is missing, and must be {expected}; {CONVERTED}",
                self.path().display()
            ))
        })
    }

    /// A text.
    pub fn optional_str(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "a string", |value| match value {
            Value::String(value) => Some(value.as_str()),
            _ => None,
        })
    }

    /// A text that must be there.
    pub fn required_str(&self, key: &str) -> Result<&str> {
        self.required(key, "a string", self.optional_str(key)?)
    }

    /// A boolean.
    pub fn optional_bool(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "a boolean", |value| match value {
            Value::Bool(value) => Some(*value),
            _ => None,
        })
    }

    /// A count: an integer of any width that is not negative, or a list with one for each layer, all equal.
    pub fn optional_usize(&self, key: &str) -> Result<Option<usize>> {
        self.typed(key, "a non-negative integer, or a list of equal ones", |value| match value {
            Value::Unsigned(value) => usize::try_from(*value).ok(),
            Value::Signed(value) => usize::try_from(*value).ok(),
            Value::Array(Array::Bytes(items)) => all_equal(items).map(usize::from),
            Value::Array(Array::Integers(items)) => usize::try_from(all_equal(items)?).ok(),
            _ => None,
        })
    }

    /// A count that must be there.
    pub fn required_usize(&self, key: &str) -> Result<usize> {
        self.required(key, "a non-negative integer", self.optional_usize(key)?)
    }

    /// A finite number, which may be an integer, or a list with one for each layer, all equal.
    pub fn optional_f32(&self, key: &str) -> Result<Option<f32>> {
        self.typed(key, "a finite number, or a list of equal ones", |value| {
            let number = match value {
                Value::Float(value) => *value as f32,
                Value::Unsigned(value) => *value as f32,
                Value::Signed(value) => *value as f32,
                Value::Array(Array::Bytes(items)) => f32::from(all_equal(items)?),
                Value::Array(Array::Integers(items)) => all_equal(items)? as f32,
                Value::Array(Array::Floats(items)) => all_equal(items)?,
                _ => return None,
            };
            number.is_finite().then_some(number)
        })
    }

    /// A finite number that must be there.
    pub fn required_f32(&self, key: &str) -> Result<f32> {
        self.required(key, "a finite number", self.optional_f32(key)?)
    }

    /// A list of texts.
    pub fn optional_strings(&self, key: &str) -> Result<Option<&[String]>> {
        self.typed(key, "a list of strings", |value| match value {
            Value::Array(Array::Strings(items)) => Some(items.as_slice()),
            _ => None,
        })
    }

    /// A list of numbers.
    pub fn optional_f32s(&self, key: &str) -> Result<Option<&[f32]>> {
        self.typed(key, "a list of numbers", |value| match value {
            Value::Array(Array::Floats(items)) => Some(items.as_slice()),
            _ => None,
        })
    }

    /// A list of integers from 0 to 2^32-1.
    pub fn optional_u32s(&self, key: &str) -> Result<Option<Vec<u32>>> {
        self.typed(key, "a list of non-negative integers", |value| match value {
            Value::Array(Array::Bytes(items)) => Some(items.iter().copied().map(u32::from).collect()),
            Value::Array(Array::Integers(items)) => items.iter().map(|item| u32::try_from(*item).ok()).collect(),
            _ => None,
        })
    }
}

/// The value that all items of a list have.
fn all_equal<T: Copy + PartialEq>(items: &[T]) -> Option<T> {
    let first = *items.first()?;
    items.iter().all(|item| *item == first).then_some(first)
}
