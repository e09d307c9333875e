//! Python's white space, which is Unicode's and four separators of ASCII.

/// Whether Python's `str.isspace` is true for a character.
pub(super) fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

/// `str.strip()`
pub(super) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// `str.lstrip()`
pub(super) fn strip_start(text: &str) -> &str {
    text.trim_start_matches(is_space)
}

/// `str.rstrip()`
pub(super) fn strip_end(text: &str) -> &str {
    text.trim_end_matches(is_space)
}
