//! Letters as Python's strings treat them.

use std::sync::LazyLock;

use regex::Regex;

/// The case that `str.isupper` or `str.islower` asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    Upper,
    Lower,
}

/// Letters that are titlecase, by Unicode's category Lt.
fn is_titlecase(character: char) -> bool {
    matches!(character, '\u{1c5}' | '\u{1c8}' | '\u{1cb}' | '\u{1f2}' | '\u{1f88}'..='\u{1f8f}' | '\u{1f98}'..='\u{1f9f}'
        | '\u{1fa8}'..='\u{1faf}' | '\u{1fbc}' | '\u{1fcc}' | '\u{1ffc}')
}

fn is_cased(character: char) -> bool {
    character.is_uppercase() || character.is_lowercase() || is_titlecase(character)
}

/// The titlecase of a letter, where it differs from the uppercase: digraphs, Greek letters with an iota below, and
/// Georgian.
fn push_title(out: &mut String, character: char) {
    match character {
        '\u{1c4}'..='\u{1c6}' => out.push('\u{1c5}'),
        '\u{1c7}'..='\u{1c9}' => out.push('\u{1c8}'),
        '\u{1ca}'..='\u{1cc}' => out.push('\u{1cb}'),
        '\u{1f1}'..='\u{1f3}' => out.push('\u{1f2}'),
        '\u{10d0}'..='\u{10ff}' => out.push(character),
        _ if is_titlecase(character) => out.push(character),
        '\u{1f80}'..='\u{1faf}' => out.extend(char::from_u32(u32::from(character) + 8)),
        '\u{1fb3}' => out.push('\u{1fbc}'),
        '\u{1fc3}' => out.push('\u{1fcc}'),
        '\u{1ff3}' => out.push('\u{1ffc}'),
        // A letter that becomes several, as in "Ss", has only the first in uppercase.
        _ => {
            let mut upper = character.to_uppercase();
            let first = upper.next();
            out.extend(first);
            for letter in upper {
                if first.is_some_and(is_cased) { out.extend(letter.to_lowercase()) } else { out.push(letter) }
            }
        }
    }
}

/// Lowercase in its context, from the byte `start` of a text: a sigma at the end of a word has a form of its own.
fn lower_from(text: &str, start: usize) -> String {
    let before = text.get(..start).unwrap_or_default().to_lowercase();
    let whole = text.to_lowercase();
    whole.get(before.len()..).unwrap_or_default().to_owned()
}

/// `str.capitalize()`
pub(super) fn capitalize(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    if let Some(first) = text.chars().next() {
        push_title(&mut out, first);
        out.push_str(&lower_from(text, first.len_utf8()));
    }
    out
}

/// `str.title()`
pub(super) fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut follows_letter = false;
    let mut word = String::new();
    for character in text.chars() {
        let cased = is_cased(character);
        if cased && follows_letter {
            word.push(character);
        } else {
            flush(&mut out, &mut word);
            if cased { push_title(&mut out, character) } else { out.push(character) }
        }
        follows_letter = cased;
    }
    flush(&mut out, &mut word);
    out
}

/// Writes what follows the first letter of a word.
fn flush(out: &mut String, word: &mut String) {
    if !word.is_empty() {
        // A letter before it, so that a sigma at the end is one that ends a word.
        let lower = format!("a{word}").to_lowercase();
        out.push_str(lower.strip_prefix('a').unwrap_or_default());
        word.clear();
    }
}

/// `str.swapcase()`
pub(super) fn swap_case(text: &str) -> String {
    // Lowercase depends on the letters around.
    let lowercase = text.to_lowercase();
    let mut lowercase = lowercase.chars();
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        let lower = lowercase.by_ref().take(character.to_lowercase().count());
        if character.is_uppercase() {
            out.extend(lower);
        } else {
            // Consumed all the same.
            lower.for_each(drop);
            if character.is_lowercase() { out.extend(character.to_uppercase()) } else { out.push(character) }
        }
    }
    out
}

/// `str.isupper()` and `str.islower()`
pub(super) fn has_case(text: &str, case: Case) -> bool {
    let is_right = |character: char| match case {
        Case::Upper => character.is_uppercase(),
        Case::Lower => character.is_lowercase(),
    };
    text.chars().any(is_right) && text.chars().all(|character| is_right(character) || !is_cased(character))
}

/// `str.istitle()`
pub(super) fn is_title(text: &str) -> bool {
    let (mut follows_letter, mut has_letters) = (false, false);
    for character in text.chars() {
        let begins = character.is_uppercase() || is_titlecase(character);
        if (begins && follows_letter) || (character.is_lowercase() && !follows_letter) {
            return false;
        }
        follows_letter = is_cased(character);
        has_letters |= follows_letter;
    }
    has_letters
}

fn has_category(pattern: &LazyLock<Option<Regex>>, character: char) -> bool {
    let mut bytes = [0; 4];
    pattern.as_ref().is_some_and(|pattern| pattern.is_match(character.encode_utf8(&mut bytes)))
}

/// `str.isalpha()` of a character
pub(super) fn is_letter(character: char) -> bool {
    static LETTER: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^\p{L}$").ok());
    if character.is_ascii() { character.is_ascii_alphabetic() } else { has_category(&LETTER, character) }
}

/// `str.isdecimal()` of a character
pub(super) fn is_decimal(character: char) -> bool {
    static DECIMAL: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^\p{Nd}$").ok());
    if character.is_ascii() { character.is_ascii_digit() } else { has_category(&DECIMAL, character) }
}

/// `str.isdigit()` of a character: decimal, or Unicode's Numeric_Type=Digit
pub(super) fn is_digit(character: char) -> bool {
    is_decimal(character)
        || matches!(character, '\u{b2}' | '\u{b3}' | '\u{b9}' | '\u{1369}'..='\u{1371}' | '\u{19da}' | '\u{2070}'
            | '\u{2074}'..='\u{2079}' | '\u{2080}'..='\u{2089}' | '\u{2460}'..='\u{2468}' | '\u{2474}'..='\u{247c}'
            | '\u{2488}'..='\u{2490}' | '\u{24ea}' | '\u{24f5}'..='\u{24fd}' | '\u{24ff}' | '\u{2776}'..='\u{277e}'
            | '\u{2780}'..='\u{2788}' | '\u{278a}'..='\u{2792}' | '\u{10a40}'..='\u{10a43}' | '\u{10e60}'..='\u{10e68}'
            | '\u{11052}'..='\u{1105a}' | '\u{1f100}'..='\u{1f10a}')
}

/// `str.isnumeric()` of a character that is not an ideograph
pub(super) fn is_numeric(character: char) -> bool {
    static NUMBER: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^\p{N}$").ok());
    if character.is_ascii() { character.is_ascii_digit() } else { has_category(&NUMBER, character) }
}

/// Some Chinese characters are numbers, by a table that is not here.
pub(super) fn is_ideograph(character: char) -> bool {
    static HAN: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^\p{Han}$").ok());
    !character.is_ascii() && !is_numeric(character) && has_category(&HAN, character)
}
