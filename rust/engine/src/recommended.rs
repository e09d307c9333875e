//! The sampling options that a file recommends.

use std::fmt;

use crate::gguf::{Gguf, Value};
use crate::{Error, Result, SamplingOptions};

/// The sampling options that a file recommends in its metadata, under `general.sampling`.
///
/// The names and ranges are those of [`SamplingOptions`]. `None` means that the file does not have the key, that the
/// value switches the stage off, or that it is out of range: a value that cannot be used is logged as a warning, and
/// does not keep a file from loading. No function of this crate applies the recommendations by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RecommendedSampling {
    /// `general.sampling.temp`
    pub temperature: Option<f64>,
    /// `general.sampling.top_k`
    pub top_k: Option<usize>,
    /// `general.sampling.top_p`
    pub top_p: Option<f64>,
    /// `general.sampling.min_p`
    pub min_p: Option<f64>,
    /// `general.sampling.penalty_repeat`
    pub repetition_penalty: Option<f64>,
    /// `general.sampling.penalty_last_n`, where -1 is the length of the context
    pub repeat_last_n: Option<usize>,
}

impl RecommendedSampling {
    /// Reads the keys of a file. `context_length` is the model's, in tokens.
    pub(crate) fn read(gguf: &Gguf, context_length: usize) -> Self {
        let keys = Keys { gguf };
        keys.warn_of_unsupported_stages();
        let top_k = keys.integer("top_k").filter(|top_k| *top_k > 0);
        Self {
            temperature: keys.number("temp", |options, value| options.temperature = value),
            top_k: top_k.and_then(|top_k| keys.count("top_k", top_k)),
            top_p: keys.number("top_p", |options, value| options.top_p = Some(value)),
            min_p: keys.number("min_p", |options, value| options.min_p = Some(value)),
            repetition_penalty: keys
                .number("penalty_repeat", |options, value| options.repetition_penalty = value as f32),
            repeat_last_n: keys.integer("penalty_last_n").and_then(|last_n| match last_n {
                -1 => Some(context_length),
                _ => keys.count("penalty_last_n", last_n),
            }),
        }
    }

    /// Whether the file recommends nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The options that are set, as in `temperature=0.6 top_k=40`.
impl fmt::Display for RecommendedSampling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [("top_k", self.top_k), ("repeat_last_n", self.repeat_last_n)];
        let numbers = [
            ("temperature", self.temperature),
            ("top_p", self.top_p),
            ("min_p", self.min_p),
            ("repetition_penalty", self.repetition_penalty),
        ];
        let numbers = numbers.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", value?)));
        let counts = counts.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", value?)));
        f.write_str(&numbers.chain(counts).collect::<Vec<_>>().join(" "))
    }
}

/// The keys under `general.sampling`.
struct Keys<'a> {
    gguf: &'a Gguf,
}

impl Keys<'_> {
    /// A number in the range of the option that `set` sets.
    fn number(&self, key: &str, set: impl FnOnce(&mut SamplingOptions, f64)) -> Option<f64> {
        let value = self.usable(key, self.gguf.optional_f32(&full(key)))??;
        let value = as_written(value);
        let mut options = SamplingOptions::default();
        set(&mut options, value);
        self.usable(key, options.validate()).map(|()| value)
    }

    /// An integer, which may be negative.
    fn integer(&self, key: &str) -> Option<i64> {
        if let Some(Value::Signed(negative @ ..0)) = self.gguf.get(&full(key)) {
            return Some(*negative);
        }
        let count = self.usable(key, self.gguf.optional_usize(&full(key)))??;
        // What does not fit is too large for a count, too.
        Some(i64::try_from(count).unwrap_or(i64::MAX))
    }

    /// An integer that can be a count of tokens.
    fn count(&self, key: &str, value: i64) -> Option<usize> {
        let outcome = u32::try_from(value).map_err(|_| {
            Error::invalid_model(format!(
                "{}: metadata key {} must be from 0 to {}, got {value}",
                self.gguf.path().display(),
                full(key),
                u32::MAX
            ))
        });
        self.usable(key, outcome).and_then(|count| usize::try_from(count).ok())
    }

    fn warn_of_unsupported_stages(&self) {
        for key in ["xtc_probability", "mirostat"] {
            if self.gguf.optional_f32(&full(key)).is_ok_and(|value| value.is_some_and(|value| value != 0.0)) {
                tracing::warn!(
                    path = %self.gguf.path().display(),
                    key = full(key),
                    "the file recommends a sampling stage that is not supported; it is ignored"
                );
            }
        }
    }

    /// The value, or a warning that it cannot be used.
    fn usable<T>(&self, key: &str, outcome: Result<T>) -> Option<T> {
        outcome
            .inspect_err(|error| {
                tracing::warn!(
                    path = %self.gguf.path().display(),
                    key = full(key),
                    %error,
                    "a recommended sampling option cannot be used; it is ignored"
                );
            })
            .ok()
    }
}

fn full(key: &str) -> String {
    format!("general.sampling.{key}")
}

/// The number that an f32 was written from: 0.6, and not the nearest f64 of that f32, 0.6000000238418579.
fn as_written(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| f64::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_that_were_written() {
        assert_eq!([0.6, 0.95, 1.0, 0.0, 1e-4].map(as_written), [0.6, 0.95, 1.0, 0.0, 1e-4]);
    }

    #[test]
    fn only_what_is_set_is_displayed() {
        let sampling = RecommendedSampling { temperature: Some(0.6), top_k: Some(40), ..Default::default() };
        assert_eq!(sampling.to_string(), "temperature=0.6 top_k=40");
        assert!(!sampling.is_empty());
        assert!(RecommendedSampling::default().is_empty());
    }
}
