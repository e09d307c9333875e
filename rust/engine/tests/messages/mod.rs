//! What tests may ask of an error's message: that it has names, keys, paths and numbers. Its English may change.

use candle_phi_engine::Error;

/// Asserts that the message has each of the values, a number not within a longer one.
#[track_caller]
pub(crate) fn mentions(error: &Error, values: &[&str]) {
    let message = error.to_string();
    for value in values {
        assert!(has(&message, value), "{value:?} is missing in: {message}");
    }
}

fn has(message: &str, value: &str) -> bool {
    let is_digit = |character: Option<char>| character.is_some_and(|character| character.is_ascii_digit());
    message.match_indices(value).any(|(start, found)| {
        let before = message.get(..start).and_then(|before| before.chars().next_back());
        let after = message.get(start + found.len()..).and_then(|after| after.chars().next());
        let begins_within_a_number = is_digit(found.chars().next()) && is_digit(before);
        let ends_within_a_number = is_digit(found.chars().next_back()) && is_digit(after);
        !begins_within_a_number && !ends_within_a_number
    })
}
