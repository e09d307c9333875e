//! Token ids to text, one by one.

use std::sync::Arc;

use crate::{Error, Result};

/// A token of the vocabulary.
#[derive(Debug)]
pub(super) struct Piece {
    /// As it stands in the vocabulary.
    pub(super) text: Box<str>,
    pub(super) kind: PieceKind,
}

/// What a token stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PieceKind {
    /// Its text, with a space for each `▁`.
    Text,
    /// One byte of a character's UTF-8.
    Byte(u8),
    /// Nothing that a reader should see.
    Control,
    /// Nothing: the id fills the vocabulary up to a round size.
    Padding,
}

/// The vocabulary as decoding needs it, by id.
#[derive(Debug)]
pub(super) struct Pieces {
    pieces: Vec<Piece>,
    /// Whether encoding puts a space in front of a text, so that decoding takes it off.
    strip_first_space: bool,
}

impl Pieces {
    pub(super) fn new(pieces: Vec<Piece>, strip_first_space: bool) -> Self {
        Self { pieces, strip_first_space }
    }

    pub(super) fn len(&self) -> usize {
        self.pieces.len()
    }

    pub(super) fn get(&self, id: u32) -> Option<&Piece> {
        self.pieces.get(usize::try_from(id).ok()?)
    }

    pub(super) fn padding_ids(&self) -> Vec<u32> {
        let ids = (0_u32..).zip(&self.pieces).filter(|(_, piece)| piece.kind == PieceKind::Padding);
        ids.map(|(id, _)| id).collect()
    }
}

/// The state of decoding: what was read of the ids so far, and not written yet.
///
/// Decodes as the `tokenizers` crate's `ByteFallback` and `Strip` decoders do. A run of byte tokens is text if
/// all of it is UTF-8; if not, each of its bytes becomes U+FFFD. So a run is held back until it is over.
#[derive(Clone, Debug)]
pub(super) struct Detokenizer {
    skip_special: bool,
    /// Bytes of the run of byte tokens that may go on with the next id.
    run: Vec<u8>,
    /// A space that comes next is the one that encoding put in front of the text.
    strip_space: bool,
}

impl Detokenizer {
    pub(super) fn new(pieces: &Pieces, skip_special: bool) -> Self {
        Self { skip_special, run: Vec::new(), strip_space: pieces.strip_first_space }
    }

    /// Appends to `out` what is certain with this id.
    pub(super) fn push(&mut self, pieces: &Pieces, id: u32, out: &mut String) -> Result<()> {
        let Some(piece) = pieces.get(id) else {
            let size = pieces.len();
            return Err(Error::invalid_option(format!(
                "token id {id} is not in the vocabulary of {size} tokens; expected 0 to {}",
                size.saturating_sub(1)
            )));
        };
        match piece.kind {
            PieceKind::Byte(byte) => self.run.push(byte),
            PieceKind::Control | PieceKind::Padding if self.skip_special => {}
            PieceKind::Text | PieceKind::Control | PieceKind::Padding => {
                self.finish(out);
                self.write(&piece.text.replace('▁', " "), out);
            }
        }
        Ok(())
    }

    /// Appends the rest to `out`: the ids end here.
    pub(super) fn finish(&mut self, out: &mut String) {
        match String::from_utf8(std::mem::take(&mut self.run)) {
            Ok(text) => self.write(&text, out),
            Err(error) => self.write(&"\u{FFFD}".repeat(error.as_bytes().len()), out),
        }
    }

    fn write(&mut self, text: &str, out: &mut String) {
        if text.is_empty() {
            return;
        }
        let strip = std::mem::take(&mut self.strip_space);
        out.push_str(text.strip_prefix(' ').filter(|_| strip).unwrap_or(text));
    }
}

/// Decodes ids that come one by one; see [`Tokenizer::decoder`](super::Tokenizer::decoder).
///
/// Holds the vocabulary alive on its own, and never gives out half a character.
#[derive(Clone, Debug)]
pub struct StreamDecoder {
    pieces: Arc<Pieces>,
    state: Detokenizer,
}

impl StreamDecoder {
    pub(super) fn new(pieces: Arc<Pieces>, begins_a_text: bool) -> Self {
        let mut state = Detokenizer::new(&pieces, true);
        state.strip_space &= begins_a_text;
        Self { pieces, state }
    }

    /// The text that is certain with this id; may be empty.
    ///
    /// # Errors
    /// [`InvalidOption`](crate::ErrorKind::InvalidOption) for an id that the vocabulary does not have; the
    /// decoder is as it was before.
    pub fn push(&mut self, id: u32) -> Result<String> {
        let mut text = String::new();
        self.state.push(&self.pieces, id, &mut text)?;
        Ok(text)
    }

    /// The rest of the text, at the end of the ids; a character that is not whole becomes U+FFFD.
    pub fn finish(&mut self) -> String {
        let mut text = String::new();
        self.state.finish(&mut text);
        text
    }
}
