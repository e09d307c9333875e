//! Where a generation ends: stop strings across token edges, and why it ended.

use std::cmp::Reverse;
use std::fmt;

use crate::{Error, Result};

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended its answer, or a stop string or stop token came.
    Stop,
    /// `max_tokens` were generated, or the context is full.
    Length,
    /// The caller cancelled.
    Cancelled,
    /// The time that the caller gave it was over.
    Timeout,
}

impl FinishReason {
    /// `"stop"`, `"length"`, `"cancelled"` or `"timeout"`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Cancelled => "cancelled",
            Self::Timeout => "timeout",
        }
    }
}

impl fmt::Display for FinishReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Looks for stop strings in text that arrives in pieces.
///
/// The text is cut in front of the stop string that is complete first; of several that end at the same
/// character the longest counts. So the result depends on the text alone, not on how it was cut into
/// pieces. Of text that no stop string is found in, only what may still become one is held back.
#[derive(Clone, Debug, Default)]
pub struct StopStrings {
    stops: Vec<Matcher>,
    /// Text that was pushed, but not shown: the longest beginning of a stop string that it ends with.
    held: String,
    matched: Option<usize>,
}

/// What may be shown after a piece of text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StopOutcome {
    /// Text that is certain to be shown; may be empty.
    pub text: String,
    /// The stop string that was found. Nothing that comes after it is ever shown.
    pub matched: Option<String>,
}

impl StopStrings {
    /// Looks for any of `stops`.
    ///
    /// # Errors
    /// [`InvalidOption`](crate::ErrorKind::InvalidOption) for an empty stop string: it would end every text at once.
    pub fn new(stops: &[String]) -> Result<Self> {
        if let Some(position) = stops.iter().position(String::is_empty) {
            return Err(Error::invalid_option(
                "stop",
                format_args!("must have texts of at least one character, got an empty one at position {position}"),
            ));
        }
        let mut stops: Vec<Matcher> = stops.iter().map(|stop| Matcher::new(stop)).collect();
        // The longest first, so that the first one that matches is the longest.
        stops.sort_by_key(|matcher| Reverse(matcher.stop.len()));
        Ok(Self { stops, held: String::new(), matched: None })
    }

    /// Takes the next piece of text.
    pub fn push(&mut self, piece: &str) -> StopOutcome {
        if let Some(index) = self.matched {
            return StopOutcome { text: String::new(), matched: self.stop_at(index) };
        }
        let held_bytes = self.held.len();
        self.held.push_str(piece);
        for (position, byte) in piece.bytes().enumerate() {
            let mut found = None;
            for (index, stop) in self.stops.iter_mut().enumerate() {
                if stop.advance(byte) && found.is_none() {
                    found = Some((index, stop.stop.len()));
                }
            }
            if let Some((index, len)) = found {
                self.matched = Some(index);
                // A stop string's first byte starts a character, so the cut is between characters.
                let mut text = std::mem::take(&mut self.held);
                text.truncate(held_bytes + position + 1 - len);
                return StopOutcome { text, matched: self.stop_at(index) };
            }
        }
        let begun_bytes = self.stops.iter().map(|stop| stop.matched_bytes).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - begun_bytes);
        StopOutcome { text: std::mem::replace(&mut self.held, rest), matched: None }
    }

    /// The text that was held back and did not become a stop string, at the end of everything.
    pub fn finish(&mut self) -> String {
        for stop in &mut self.stops {
            stop.matched_bytes = 0;
        }
        std::mem::take(&mut self.held)
    }

    fn stop_at(&self, index: usize) -> Option<String> {
        self.stops.get(index).map(|matcher| matcher.stop.clone())
    }
}

/// One stop string, searched for byte by byte (Knuth, Morris and Pratt).
#[derive(Clone, Debug)]
struct Matcher {
    stop: String,
    /// For each length of a beginning of the stop string: the length of the longest shorter beginning that it ends with.
    fallback: Vec<usize>,
    /// Length of the longest beginning of the stop string that the text so far ends with.
    matched_bytes: usize,
}

impl Matcher {
    fn new(stop: &str) -> Self {
        let mut matcher = Self { stop: stop.to_owned(), fallback: vec![0, 0], matched_bytes: 0 };
        for byte in stop.bytes().skip(1) {
            matcher.advance(byte);
            matcher.fallback.push(matcher.matched_bytes);
        }
        matcher.matched_bytes = 0;
        matcher
    }

    /// Takes the next byte; true if the text now ends with the stop string.
    fn advance(&mut self, byte: u8) -> bool {
        let stop = self.stop.as_bytes();
        while self.matched_bytes > 0 && stop.get(self.matched_bytes) != Some(&byte) {
            self.matched_bytes = self.fallback.get(self.matched_bytes).copied().unwrap_or(0);
        }
        if stop.get(self.matched_bytes) == Some(&byte) {
            self.matched_bytes += 1;
        }
        self.matched_bytes == stop.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use proptest::prelude::*;

    fn strings(stops: &[&str]) -> StopStrings {
        let stops: Vec<String> = stops.iter().map(|stop| (*stop).to_owned()).collect();
        StopStrings::new(&stops).expect("stops are not empty")
    }

    fn show(stops: &mut StopStrings, pieces: &[&str]) -> (String, Option<String>) {
        let mut shown = String::new();
        for piece in pieces {
            let outcome = stops.push(piece);
            shown.push_str(&outcome.text);
            if outcome.matched.is_some() {
                return (shown, outcome.matched);
            }
        }
        shown.push_str(&stops.finish());
        (shown, None)
    }

    /// The same by definition: the earliest end at which the text ends with a stop string, the longest one there.
    fn expected(text: &str, stops: &[String]) -> (String, Option<String>) {
        for end in 1..=text.len() {
            let ending = stops.iter().filter(|stop| text.as_bytes()[..end].ends_with(stop.as_bytes()));
            if let Some(stop) = ending.max_by_key(|stop| stop.len()) {
                return (text[..end - stop.len()].to_owned(), Some(stop.clone()));
            }
        }
        (text.to_owned(), None)
    }

    #[test]
    fn stop_string_across_pieces_is_found_and_not_shown() {
        let mut stops = strings(&["\nUser:"]);
        assert_eq!(
            show(&mut stops, &["Hello", "\n", "Us", "er", ": more"]),
            ("Hello".into(), Some("\nUser:".into()))
        );
        assert_eq!(stops.push("later"), StopOutcome { text: String::new(), matched: Some("\nUser:".into()) });
        assert_eq!(stops.finish(), "");
    }

    #[test]
    fn only_what_may_become_a_stop_string_is_held_back() {
        let mut stops = strings(&["aab", "\n\n"]);
        assert_eq!(stops.push("x\na").text, "x\n");
        assert_eq!(stops.push("a").text, "");
        assert_eq!(stops.push("a").text, "a");
        assert_eq!(stops.push("c\n").text, "aac");
        assert_eq!(stops.finish(), "\n");
    }

    #[test]
    fn empty_stop_string_is_refused() {
        let error = StopStrings::new(&["x".into(), String::new()]).expect_err("empty");
        assert_eq!((error.kind(), error.option()), (ErrorKind::InvalidOption, Some("stop")));
        assert!(error.to_string().contains('1'), "{error}");
    }

    #[test]
    fn no_stop_strings_hold_nothing_back() {
        assert_eq!(strings(&[]).push("text").text, "text");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn shown_text_is_the_text_cut_at_the_earliest_stop(
            pieces in prop::collection::vec("[abé\u{1F600}]{0,4}", 0..12),
            stops in prop::collection::vec("[abé\u{1F600}]{1,4}", 0..4),
        ) {
            let text = pieces.concat();
            let mut searched = StopStrings::new(&stops).expect("stops are not empty");
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            prop_assert_eq!(show(&mut searched, &pieces), expected(&text, &stops));
        }

        #[test]
        fn held_back_text_is_the_beginning_of_a_stop_string(
            pieces in prop::collection::vec("[ab]{0,3}", 1..12),
            stops in prop::collection::vec("[ab]{1,5}", 1..4),
        ) {
            let mut searched = StopStrings::new(&stops).expect("stops are not empty");
            for piece in &pieces {
                if searched.push(piece).matched.is_some() {
                    break;
                }
                let held = &searched.held;
                prop_assert!(held.is_empty() || stops.iter().any(|stop| stop.starts_with(held.as_str())));
            }
        }
    }
}
