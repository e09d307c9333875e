//! Text to the words that a byte-level BPE merges within.
//!
//! The vocabularies of the family give a regex whose matches are the words. All of them end in the same two
//! alternatives for white space, of which one looks ahead. A regex engine that can look ahead can't promise an
//! answer: it gives up on long runs of white space, and the words would be others. So these two are written out
//! here, and what is before them is matched in linear time.

use regex::{Regex, RegexBuilder};

use super::VocabularyKind;
use crate::{Error, Result};

/// What the time for a character is a multiple of; the family's regexes take less than half of it.
const MAX_PROGRAM_BYTES: usize = 1 << 20;

/// White space up to the last character before a word, or else white space.
const WHITE_SPACE: &str = r"|\s+(?!\S)|\s+";

/// GPT-2's, which Phi-1.5 and Phi-2 have.
pub(super) const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// Phi-4's.
const CL100K: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|",
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// Phi-4-mini's: it tells capital letters from small ones.
const O200K: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// A way to split text into words that GGUF files name.
pub(super) struct PreTokenizer {
    /// `tokenizer.ggml.pre`
    pub(super) name: &'static str,
    /// The models that have it, for messages.
    pub(super) models: &'static str,
    /// The vocabulary that it belongs to.
    pub(super) kind: VocabularyKind,
    pub(super) pattern: &'static str,
}

/// The pre-tokenizers of the family.
pub(super) static PRE_TOKENIZERS: [PreTokenizer; 4] = [
    PreTokenizer { name: "phi-2", models: "phi-1.5, phi-2", kind: VocabularyKind::Gpt2, pattern: GPT2 },
    // What converters write for vocabularies that split as GPT-2's does.
    PreTokenizer { name: "gpt-2", models: "phi-2", kind: VocabularyKind::Gpt2, pattern: GPT2 },
    PreTokenizer { name: "dbrx", models: "Phi-4", kind: VocabularyKind::ByteLevel, pattern: CL100K },
    PreTokenizer { name: "gpt-4o", models: "Phi-4-mini", kind: VocabularyKind::ByteLevel, pattern: O200K },
];

/// Splits text as a regex with these ends does.
#[derive(Debug)]
pub(super) struct Splitter {
    /// The regex without its alternatives for white space.
    words: Regex,
}

impl Splitter {
    /// # Errors
    /// [`UnsupportedModel`](crate::ErrorKind::UnsupportedModel) for a regex that does not end as the family's do, or
    /// that looks around elsewhere too.
    pub(super) fn new(pattern: &str) -> Result<Self> {
        let unsupported = |requirement: &str| {
            Error::unsupported_model(format!(
                "the regex of the pre-tokenizer must {requirement}, got {pattern:?}; use the tokenizer of a Phi model"
            ))
        };
        let words = pattern.strip_suffix(WHITE_SPACE).filter(|words| !words.is_empty());
        let words = words.ok_or_else(|| unsupported(r"end with |\s+(?!\S)|\s+"))?;
        let words = RegexBuilder::new(words).size_limit(MAX_PROGRAM_BYTES).build().map_err(|error| {
            unsupported("be of moderate size and look ahead only after white space").with_source(error)
        })?;
        if words.is_match("") {
            return Err(unsupported("never match an empty text"));
        }
        Ok(Self { words })
    }

    /// The words of a text: put together, they are the text.
    pub(super) fn split<'t>(&self, text: &'t str) -> impl Iterator<Item = &'t str> {
        let mut start = 0;
        let mut ahead = self.find(text, 0);
        std::iter::from_fn(move || {
            let rest = text.get(start..).filter(|rest| !rest.is_empty())?;
            if ahead.is_some_and(|(from, _)| from < start) {
                ahead = self.find(text, start);
            }
            let len = match ahead {
                Some((from, to)) if from == start => to - from,
                _ => {
                    let next = ahead.map_or(rest.len(), |(from, _)| from - start);
                    white_space(rest).unwrap_or_else(|| next.min(rest.find(char::is_whitespace).unwrap_or(next)))
                }
            };
            start += len;
            rest.get(..len)
        })
    }

    /// Where the next word is that is no white space.
    fn find(&self, text: &str, mut start: usize) -> Option<(usize, usize)> {
        loop {
            let found = self.words.find_at(text, start)?;
            if !found.is_empty() {
                return Some((found.start(), found.end()));
            }
            start = found.end() + text.get(found.end()..)?.chars().next()?.len_utf8();
        }
    }
}

/// The bytes of the white space that `text` begins with and that are one word.
fn white_space(text: &str) -> Option<usize> {
    let run = text.len() - text.trim_start().len();
    let mut spaces = text.get(..run)?.chars();
    let last = spaces.next_back()?;
    // The last one belongs to the word behind it.
    let leaves_last = run < text.len() && spaces.next().is_some();
    Some(if leaves_last { run - last.len_utf8() } else { run })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokenizers::pattern::Pattern as _;
    use tokenizers::utils::SysRegex;

    use super::*;

    fn split<'t>(pattern: &str, text: &'t str) -> Vec<&'t str> {
        Splitter::new(pattern).expect("is one of the family's").split(text).collect()
    }

    #[test]
    fn white_space_leaves_its_last_character_to_the_word_behind_it() {
        for pattern in [GPT2, CL100K, O200K] {
            assert_eq!(split(pattern, "a   b  "), ["a", "  ", " b", "  "]);
            assert_eq!(split(pattern, ""), [""; 0]);
        }
        assert_eq!(split(GPT2, "a \n\n1"), ["a", " \n", "\n", "1"]);
        assert_eq!(split(CL100K, "a \n\n 1"), ["a", " \n\n", " ", "1"]);
        assert_eq!(split(CL100K, "\n\u{a0} "), ["\n", "\u{a0} "]);
    }

    #[test]
    fn capital_and_small_letters_and_apostrophes() {
        assert_eq!(split(GPT2, "We'll WE'LL 12345"), ["We", "'ll", " WE", "'", "LL", " 12345"]);
        assert_eq!(split(CL100K, "We'll WE'LLx 12345"), ["We", "'ll", " WE", "'LL", "x", " ", "123", "45"]);
        assert_eq!(
            split(O200K, "We'll camelCase HTTPServer //\n"),
            ["We'll", " camel", "Case", " HTTPServer", " //\n"]
        );
        // The long s is a small s to a regex that does not tell capital letters from small ones.
        assert_eq!(split(CL100K, "it'\u{17f}a"), ["it", "'\u{17f}", "a"]);
    }

    #[test]
    fn long_runs_of_anything_are_split_in_linear_time() {
        let start = std::time::Instant::now();
        for pattern in [GPT2, CL100K, O200K] {
            let spaces = " ".repeat(3_000_000) + "x";
            assert_eq!(split(pattern, &spaces).len(), 2);
            let capitals = "A".repeat(1_000_000);
            assert_eq!(split(pattern, &capitals).len(), 1);
            let mixed = " \u{3000}\t".repeat(300_000) + "'" + &"\u{301}".repeat(300_000);
            assert!(split(pattern, &mixed).len() < 5);
        }
        // It takes a fraction of a second; a quadratic one takes hours.
        assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
    }

    #[test]
    fn regex_that_is_none_of_the_family_s_is_refused() {
        for pattern in
            ["", r"\w+", r"|\s+(?!\S)|\s+", r"a(?=b)|\s+(?!\S)|\s+", r"x*|\s+(?!\S)|\s+", r"(|\s+(?!\S)|\s+"]
        {
            let error = Splitter::new(pattern).expect_err(pattern);
            assert_eq!(error.kind(), crate::ErrorKind::UnsupportedModel);
            assert!(error.to_string().contains(&format!("{pattern:?}")), "{error}");
        }
    }

    #[test]
    fn words_are_those_of_the_whole_regex() {
        let config = ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() };
        let text = prop::collection::vec(
            prop_oneof![
                "[ \n\r\t\u{a0}\u{3000}]{0,4}",
                "[a-zA-Z'.,/]{0,6}",
                "\\PC{0,4}",
                "[0-9\u{660}½]{0,5}",
                "[aA\u{301}ǅʰª你ſK'sS]{0,6}"
            ],
            0..8,
        );
        for pattern in [GPT2, CL100K, O200K, r"[a-z]+|\s+(?!\S)|\s+"] {
            let whole = SysRegex::new(pattern).expect("is a regex");
            let splitter = Splitter::new(pattern).expect("is one of the family's");
            let mut runner = proptest::test_runner::TestRunner::new(config.clone());
            runner
                .run(&text, |parts| {
                    let text = parts.concat();
                    let expected = (&whole).find_matches(&text).expect("matches");
                    let words = expected.into_iter().filter_map(|((from, to), _)| text.get(from..to));
                    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
                    prop_assert_eq!(splitter.split(&text).collect::<Vec<_>>(), words);
                    Ok(())
                })
                .expect("are the same");
        }
    }
}
