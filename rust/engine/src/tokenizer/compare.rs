//! Whether a tokenizer is the one that a model was made with.

use super::family::is_reserved;
use super::stream::PieceKind;
use super::vocabulary::{TOKEN_TYPE, TOKENS, TokenType, is_padding};
use super::{Tokenizer, byte_of};
use crate::gguf::Gguf;
use crate::{Error, Result};

/// Control tokens that prompts are made of, or that end an answer.
const CONTROL_TEXTS: [&str; 11] = [
    "<unk>",
    "<s>",
    "</s>",
    "<|endoftext|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|end|>",
    "<|im_start|>",
    "<|im_sep|>",
    "<|im_end|>",
];

/// Whether a token may be a control token that a revision renamed: `<|placeholder1|>`.
fn looks_like_control(text: &str) -> bool {
    text.len() > 2 && text.starts_with('<') && text.ends_with('>') && byte_of(text).is_none()
}

fn matters(text: Option<&str>) -> bool {
    text.is_some_and(|text| !looks_like_control(text) || CONTROL_TEXTS.contains(&text))
}

impl Tokenizer {
    /// Checks that ids mean here what they mean to the model in `gguf`. A file without a list of tokens passes.
    ///
    /// Ids that fill a vocabulary up may be missing, and control tokens that no prompt of the family has in it
    /// (`<|placeholder1|>`, `<|dummy_0|>`) may have another text: the family's revisions renamed some.
    ///
    /// # Errors
    /// [`InvalidModel`](crate::ErrorKind::InvalidModel) naming the first id whose text differs, with both texts.
    pub fn check_same_vocabulary(&self, gguf: &Gguf) -> Result<()> {
        let Some(texts) = gguf.optional_strings(TOKENS)?.filter(|texts| !texts.is_empty()) else { return Ok(()) };
        let types = gguf.optional_u32s(TOKEN_TYPE)?.unwrap_or_default();
        let types = types.into_iter().map(TokenType::from_number).chain(std::iter::repeat(None));
        let mut theirs = (0_u32..).zip(texts).zip(types).map(|((id, text), token_type)| {
            Some(text.as_str()).filter(|_| token_type != Some(TokenType::Unused) && !is_padding(id, text))
        });
        let mut ours = (0_u32..).zip(self.0.pieces.iter()).map(|(id, piece)| {
            Some(&*piece.text)
                .filter(|text| is_reserved(text) || piece.kind != PieceKind::Padding && !is_padding(id, text))
        });
        for id in 0..texts.len().max(self.vocab_size()) {
            let (their, our) = (theirs.next().flatten(), ours.next().flatten());
            if their != our && (matters(their) || matters(our)) {
                let shown =
                    |text: Option<&str>| text.map_or_else(|| "unused".to_owned(), |text| format!("{text:?}"));
                return Err(Error::invalid_model(format!(
                    "the tokenizer does not belong to {}: token id {id} is {} in the file's metadata key {TOKENS}, but \
                     {} in the tokenizer; set tokenizer to the tokenizer.json of the same model",
                    gguf.path().display(),
                    shown(their),
                    shown(our)
                )));
            }
        }
        Ok(())
    }
}
