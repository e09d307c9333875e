//! Finding control tokens in texts.

use std::collections::HashMap;

use aho_corasick::{AhoCorasick, MatchKind};

use super::work;
use crate::tokenizer::{Part, Tokenizer};
use crate::{Error, Result};

/// The control tokens of a vocabulary, and one automaton that finds all of them in a single pass over a text.
#[derive(Clone, Debug)]
pub(super) struct Controls {
    texts: Vec<String>,
    /// Of tokens that begin at the same place it finds the longest.
    automaton: AhoCorasick,
    /// The first and last characters of control tokens, each with a token that has it.
    edges: HashMap<char, usize>,
}

impl Controls {
    /// The control tokens of `tokenizer`.
    ///
    /// # Errors
    /// [`UnsupportedModel`](crate::ErrorKind::UnsupportedModel) if they are too large for an automaton.
    pub(super) fn new(tokenizer: &Tokenizer) -> Result<Self> {
        let texts = tokenizer.control_ids().iter().filter_map(|id| tokenizer.token_text(*id));
        Self::of(texts.map(str::to_owned).collect())
    }

    fn of(mut texts: Vec<String>) -> Result<Self> {
        texts.retain(|text| !text.is_empty());
        // Errors name the longest one with an edge: "<|user|>" rather than "<s>".
        texts.sort_by_key(|text| std::cmp::Reverse(text.len()));
        let automaton =
            AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&texts).map_err(|error| {
                Error::unsupported_model(format!(
                    "the vocabulary's control tokens are too large to search for: {error}"
                ))
                .with_source(error)
            })?;
        let mut edges = HashMap::new();
        for (index, text) in texts.iter().enumerate() {
            for edge in [text.chars().next(), text.chars().next_back()].into_iter().flatten() {
                edges.entry(edge).or_insert(index);
            }
        }
        Ok(Self { texts, automaton, edges })
    }

    fn text(&self, index: usize) -> &str {
        self.texts.get(index).map_or("", String::as_str)
    }

    /// The first control token in a text.
    pub(super) fn first_in(&self, text: &str) -> Option<&str> {
        work::count(text.len());
        self.automaton.find(text).map(|found| self.text(found.pattern().as_usize()))
    }

    /// The control tokens in a text, in order.
    pub(super) fn all_in<'a>(&'a self, text: &'a str) -> impl Iterator<Item = &'a str> {
        work::count(text.len());
        self.automaton.find_iter(text).map(|found| self.text(found.pattern().as_usize()))
    }

    /// A control token whose first or last character is in a text.
    pub(super) fn edge_in(&self, text: &str) -> Option<&str> {
        work::count(text.len());
        text.chars().find_map(|sign| self.edges.get(&sign)).map(|index| self.text(*index))
    }

    /// Splits a text into control tokens and the texts between them.
    pub(super) fn split<'a>(&self, text: &'a str, parts: &mut Vec<Part<'a>>) {
        work::count(text.len());
        let mut end = 0;
        for found in self.automaton.find_iter(text) {
            let before = text.get(end..found.start()).unwrap_or_default();
            let control = text.get(found.range()).unwrap_or_default();
            parts.extend([Part::Text(before), Part::Control(control)]);
            end = found.end();
        }
        parts.push(Part::Text(text.get(end..).unwrap_or_default()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn controls() -> Controls {
        Controls::of(["<|end|>", "<|end|><|end|>", "<s>", ""].map(str::to_owned).to_vec()).unwrap()
    }

    #[test]
    fn longest_control_token_at_a_place_is_found() {
        let controls = controls();
        assert_eq!(
            controls.all_in("a<s><|end|><|end|><|end|>b").collect::<Vec<_>>(),
            ["<s>", "<|end|><|end|>", "<|end|>"]
        );
        assert_eq!(controls.first_in("<|end|"), None);
        assert_eq!((controls.edge_in("a>b").is_some(), controls.edge_in("a|b")), (true, None));
    }

    #[test]
    fn split_keeps_all_of_a_text() {
        let mut parts = Vec::new();
        controls().split("a<s>b<|end|>", &mut parts);
        let whole: String = parts.iter().map(|(Part::Control(text) | Part::Text(text))| *text).collect();
        assert_eq!(whole, "a<s>b<|end|>");
        assert_eq!(parts.iter().filter(|part| matches!(part, Part::Control(_))).count(), 2);
    }
}
