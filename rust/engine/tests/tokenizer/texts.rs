//! Random texts of many kinds.

use proptest::prelude::*;

/// Alone, joined, with a skin colour, with variation selectors, and flags.
const EMOJI: [&str; 8] = [
    "\u{1F600}",
    "\u{1F469}\u{200D}\u{1F469}\u{200D}\u{1F467}\u{200D}\u{1F466}",
    "\u{1F44D}\u{1F3FD}",
    "\u{1F1E9}\u{1F1EA}",
    "\u{2764}\u{FE0F}",
    "\u{2603}",
    "\u{1F3F4}\u{E0067}\u{E0062}\u{E0073}\u{E0063}\u{E0074}\u{E007F}",
    "1\u{FE0F}\u{20E3}",
];
/// Texts that are tokens of one vocabulary or the other.
const CONTROLS: [&str; 9] =
    ["<|end|>", "<|user|>", "<|im_start|>", "<|im_sep|>", "<|endoftext|>", "</s>", "<s>", "<unk>", "<0x0A>"];

/// Mixed scripts, digits, white space, apostrophes, emoji, combining marks, code, and bytes that are no text.
pub(crate) fn texts() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        6 => "[ ]?[a-zA-Z]{1,10}('(s|S|t|T|ll|LL|Ll|ve|VE|re|m|M|d|D|x|\u{17f}))?",
        1 => "[ ]?'[a-zA-Z]{0,4}",
        2 => "[ ]?[0-9]{1,8}",
        1 => "[0-9\u{660}-\u{669}½²Ⅷ一๓]{1,5}",
        3 => "[ \t\n\r\u{a0}\u{3000}\u{2028}\u{85}\u{b}\u{200b}]{1,6}",
        1 => " {1,40}",
        1 => "\t{1,12}",
        1 => "(\r\n){1,3}[ ]{0,3}",
        1 => "[ ]?\\p{Cyrillic}{1,8}",
        1 => "[ ]?\\p{Greek}{1,8}",
        1 => "[ ]?\\p{Arabic}{1,8}",
        1 => "[ ]?\\p{Hebrew}{1,6}",
        1 => "[ ]?\\p{Devanagari}{1,8}",
        1 => "\\p{Thai}{1,8}",
        2 => "[一-龥]{1,8}",
        1 => "[ぁ-ヶー]{1,8}",
        1 => "[가-힣]{1,6}",
        1 => "[ǅǈǲʰªºᴬDžaAſKßİıŉ]{1,5}",
        1 => "[a-zA-Z]\\p{M}{1,3}[a-zA-Z]{0,3}",
        3 => "[ ]?[!-/:-@\\[-`{-~]{1,6}[\r\n/]{0,2}",
        2 => prop::sample::select(&EMOJI[..]).prop_map(str::to_owned),
        1 => prop::sample::select(&CONTROLS[..]).prop_map(str::to_owned),
        1 => "\\PC{1,6}",
        1 => prop::collection::vec(any::<u8>(), 1..10)
            .prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
        1 => prop::collection::vec(any::<char>(), 1..4).prop_map(String::from_iter),
    ];
    prop::collection::vec(part, 0..10).prop_map(|parts| parts.concat())
}
