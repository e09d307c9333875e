//! Text from outside, made safe to show.
//!
//! A file's metadata, a hub's answer or a token may have control characters, which a terminal obeys: escape sequences
//! move the cursor, change the title or hide text. Directional formatting characters show a name in another order.

use std::borrow::Cow;

/// Replaces each control character and each directional formatting character by its escape sequence, such as `\u{1b}`.
/// A line feed and a tab are control characters too: `\n`, `\t`.
#[must_use]
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_hidden(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    Cow::Owned(shown)
}

/// Whether a character acts on the display instead of being shown: C0, DEL, C1, line and paragraph separators, and the
/// directional marks, embeddings, overrides and isolates.
fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Error, ErrorKind};

    #[test]
    fn control_and_directional_characters_are_escaped_and_all_other_text_is_unchanged() {
        for plain in ["", "a b", "Ärger, 日本語 🏒", "back\\slash \"quoted\"", "zero\u{200d}width joiner"] {
            assert!(matches!(visible(plain), Cow::Borrowed(same) if same == plain), "{plain:?}");
        }
        assert_eq!(visible("a\x1b[31m\n\t\r\0b\u{7f}\u{9b}2J"), "a\\u{1b}[31m\\n\\t\\r\\u{0}b\\u{7f}\\u{9b}2J");
        assert_eq!(visible("gpj.\u{202e}x\u{2066}"), "gpj.\\u{202e}x\\u{2066}");
    }

    #[test]
    fn the_message_of_an_error_has_no_control_character() {
        for code in (0..=0x1f).chain(0x7f..=0x9f).chain(0x202a..=0x202e) {
            let character = char::from_u32(code).unwrap();
            let quoted = format!("no tensor `{character}x`");
            for error in [
                Error::invalid_model(quoted.clone()),
                Error::invalid_option("top_p", &quoted),
                Error::new(ErrorKind::Inference, quoted.clone()),
            ] {
                assert!(!error.to_string().contains(is_hidden), "{code:x}");
            }
        }
    }
}
