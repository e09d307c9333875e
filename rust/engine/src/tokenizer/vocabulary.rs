//! The lists of tokens that every vocabulary in a GGUF's metadata has.

use std::fmt;

use crate::gguf::{CONVERTED, Gguf};
use crate::{Error, Result};

use super::family::{VocabularyKind, is_control_text};
use super::{END_TEXTS, no_vocabulary};

/// More than any vocabulary of the family has: ids are positions in a table, and a damaged file must not ask for one
/// of gigabytes.
pub(super) const MAX_TOKENS: u32 = 1 << 20;

pub(super) const TOKENS: &str = "tokenizer.ggml.tokens";
pub(super) const TOKEN_TYPE: &str = "tokenizer.ggml.token_type";
pub(super) const BOS: &str = "tokenizer.ggml.bos_token_id";
pub(super) const EOS: &str = "tokenizer.ggml.eos_token_id";
/// The token that ends a turn, in newer files.
pub(super) const EOT: &str = "tokenizer.ggml.eot_token_id";
pub(super) const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";

/// Values of `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenType {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

impl TokenType {
    pub(super) fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => return None,
        })
    }
}

/// The tokens' texts and types, checked to belong together.
pub(super) struct TokenList<'a> {
    gguf: &'a Gguf,
    texts: &'a [String],
    types: Vec<TokenType>,
}

impl<'a> TokenList<'a> {
    /// Reads the lists of a vocabulary of this kind; a token has at most `max_bytes`.
    pub(super) fn read(gguf: &'a Gguf, kind: VocabularyKind, max_bytes: usize) -> Result<Self> {
        let texts = gguf.optional_strings(TOKENS)?.filter(|texts| !texts.is_empty());
        let texts = texts.ok_or_else(|| no_vocabulary(gguf, TOKENS))?;
        let list = Self { gguf, texts, types: vec![] };
        if u32::try_from(texts.len()).map_or(true, |len| len > MAX_TOKENS) {
            let found = texts.len();
            return Err(
                list.invalid(&format!("metadata key {TOKENS} must have at most {MAX_TOKENS} tokens, got {found}"))
            );
        }
        for (id, text) in texts.iter().enumerate() {
            if text.len() > max_bytes {
                return Err(list.invalid(&format!(
                    "metadata key {TOKENS} must have tokens of at most {max_bytes} bytes, got {} for token id {id}",
                    text.len()
                )));
            }
        }
        let numbers = list.one_for_each(TOKEN_TYPE, gguf.optional_u32s(TOKEN_TYPE)?, Vec::len)?;
        let types = numbers.iter().enumerate().map(|(id, number)| {
            TokenType::from_number(*number).ok_or_else(|| {
                list.invalid(&format!(
                    "metadata key {TOKEN_TYPE} must have values from 1 to 6, got {number} for token id {id}"
                ))
            })
        });
        let mut list = Self { gguf, texts, types: types.collect::<Result<_>>()? };
        list.correct_types(kind);
        Ok(list)
    }

    /// Makes the tokens that are control tokens whatever their type says into ones: those of Microsoft's
    /// vocabularies, and user-defined ones that begin a text or end one or a turn.
    ///
    /// In a byte-level vocabulary only texts such as `<|end|>` are certain not to be a piece of text.
    fn correct_types(&mut self, kind: VocabularyKind) {
        let named = [BOS, EOS, EOT].map(|key| self.gguf.optional_usize(key).ok().flatten());
        let is_byte_level = kind != VocabularyKind::SentencePiece;
        for (id, (text, token_type)) in self.texts.iter().zip(&mut self.types).enumerate() {
            let is_known = is_control_text(text) && (text.starts_with("<|") || !is_byte_level);
            let is_control = match token_type {
                TokenType::Normal => is_known,
                TokenType::UserDefined => {
                    is_known
                        || (named.contains(&Some(id)) && !u32::try_from(id).is_ok_and(|id| is_padding(id, text)))
                }
                TokenType::Unused => END_TEXTS.contains(&text.as_str()),
                TokenType::Unknown | TokenType::Control | TokenType::Byte => false,
            };
            if is_control {
                *token_type = TokenType::Control;
            }
        }
    }

    /// A list that must have one value for each token.
    pub(super) fn one_for_each<T>(&self, key: &str, values: Option<T>, len: impl Fn(&T) -> usize) -> Result<T> {
        let size = self.len();
        let values = values.ok_or_else(|| {
            self.invalid(&format!(
                "metadata key {key} is missing, and must have {size} values, one for each token"
            ))
        })?;
        let found = len(&values);
        if found != size {
            return Err(self.invalid(&format!(
                "metadata key {key} must have {size} values, one for each token of {TOKENS}, got {found}"
            )));
        }
        Ok(values)
    }

    pub(super) fn len(&self) -> usize {
        self.texts.len()
    }

    /// The tokens by id.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &'a str, TokenType)> {
        let tokens = self.texts.iter().map(String::as_str).zip(self.types.iter().copied());
        (0_u32..).zip(tokens).map(|(id, (text, token_type))| (id, text, token_type))
    }

    pub(super) fn text(&self, id: u32) -> Option<&'a str> {
        self.texts.get(usize::try_from(id).ok()?).map(String::as_str)
    }

    /// The id under a metadata key, or else of the first of `texts` that is a token and no piece of text.
    pub(super) fn id(&self, key: &str, texts: &[&str]) -> Result<Option<u32>> {
        if let Some(id) = self.gguf.optional_usize(key)? {
            let known = u32::try_from(id).ok().filter(|_| id < self.len());
            return known.map(Some).ok_or_else(|| {
                let size = self.len();
                self.invalid(&format!("metadata key {key} must be a token id below {size}, got {id}"))
            });
        }
        let find = |wanted: &&str| {
            self.iter().find(|(_, text, token_type)| text == wanted && *token_type != TokenType::Normal)
        };
        Ok(texts.iter().find_map(find).map(|(id, ..)| id))
    }

    pub(super) fn invalid(&self, message: &dyn fmt::Display) -> Error {
        Error::invalid_model(format!("{}: {message}; {CONVERTED}", self.gguf.path().display()))
    }
}

/// Whether a token's text is one that converters fill a vocabulary up with.
pub(super) fn is_padding(id: u32, text: &str) -> bool {
    text.strip_prefix("[PAD")
        .and_then(|rest| rest.strip_suffix(']'))
        .is_some_and(|number| number.parse() == Ok(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_known_by_its_text_and_id() {
        assert!(is_padding(32011, "[PAD32011]"));
        assert!(!is_padding(7, "[PAD32011]"));
        assert!(!is_padding(7, "[PAD]"));
        assert!(!is_padding(7, "PAD7"));
    }
}
