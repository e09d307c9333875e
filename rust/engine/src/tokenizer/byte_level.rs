//! The byte-level alphabet: a printable character for each of the 256 bytes.
//!
//! Bytes that are printable in Latin-1 stand for themselves. The others, in order, are the characters from
//! U+0100 on: a space is `Ġ`.

use std::sync::LazyLock;

/// The characters of the bytes.
static CHARACTERS: LazyLock<[char; 256]> = LazyLock::new(|| {
    let mut characters = ['\0'; 256];
    let mut others = '\u{100}'..;
    for (byte, character) in (0..=u8::MAX).zip(&mut characters) {
        *character = if stands_for_itself(byte) { char::from(byte) } else { others.next().unwrap_or_default() };
    }
    characters
});

/// The bytes of the characters that stand for another one, from U+0100 on.
static OTHERS: LazyLock<Vec<u8>> =
    LazyLock::new(|| (0..=u8::MAX).filter(|byte| !stands_for_itself(*byte)).collect());

fn stands_for_itself(byte: u8) -> bool {
    // U+00AD is the soft hyphen, which nobody sees.
    byte.is_ascii_graphic() || (byte >= 0xA1 && byte != 0xAD)
}

/// The characters of all bytes.
pub(super) fn alphabet() -> &'static [char] {
    &*CHARACTERS
}

/// Writes the bytes of a text in the alphabet.
pub(super) fn encode(text: &str, out: &mut String) {
    out.clear();
    out.extend(text.bytes().filter_map(|byte| CHARACTERS.get(usize::from(byte))));
}

/// Appends the bytes that a token's text stands for; a text outside the alphabet stands for its own.
pub(super) fn decode(text: &str, out: &mut Vec<u8>) {
    let len = out.len();
    for character in text.chars() {
        let Some(byte) = byte_of(character) else {
            out.truncate(len);
            out.extend(text.bytes());
            return;
        };
        out.push(byte);
    }
}

fn byte_of(character: char) -> Option<u8> {
    match u8::try_from(character) {
        Ok(byte) => Some(byte).filter(|byte| stands_for_itself(*byte)),
        Err(_) => OTHERS.get(usize::try_from(u32::from(character).checked_sub(0x100)?).ok()?).copied(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alphabet_is_the_library_s() {
        let mut ours = alphabet().to_vec();
        let mut theirs: Vec<char> =
            tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet().into_iter().collect();
        ours.sort_unstable();
        theirs.sort_unstable();
        assert_eq!(ours, theirs);
    }

    #[test]
    fn every_byte_has_a_character_of_its_own() {
        for (byte, character) in (0..=u8::MAX).zip(alphabet()) {
            let mut bytes = vec![];
            decode(&character.to_string(), &mut bytes);
            assert_eq!(bytes, [byte], "{character:?}");
        }
        let mut text = String::new();
        encode(" é\n", &mut text);
        assert_eq!(text, "ĠÃ©Ċ");
    }

    #[test]
    fn text_outside_the_alphabet_stands_for_itself() {
        for text in ["a b", "Ġ你", "\u{ad}", "ń"] {
            let mut bytes = b"x".to_vec();
            decode(text, &mut bytes);
            assert_eq!(bytes, [b"x", text.as_bytes()].concat());
        }
    }
}
