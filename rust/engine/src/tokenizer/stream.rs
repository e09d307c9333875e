//! Token ids to text, one by one.

use std::sync::Arc;

use super::byte_level;
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
    /// Its text: in a SentencePiece vocabulary with a space for each `▁`.
    Text,
    /// The bytes that its text stands for in the byte-level alphabet.
    ByteLevel,
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
    joining: Joining,
}

/// How the pieces of a vocabulary become one text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Joining {
    SentencePiece {
        /// Whether encoding puts a space in front of a text, so that decoding takes it off.
        strip_first_space: bool,
    },
    /// All pieces are bytes of one UTF-8 text.
    ByteLevel,
}

impl Pieces {
    pub(super) fn new(pieces: Vec<Piece>, joining: Joining) -> Self {
        Self { pieces, joining }
    }

    pub(super) fn len(&self) -> usize {
        self.pieces.len()
    }

    /// Whether encoding puts a space in front of a text, which decoding takes off.
    pub(super) fn strips_first_space(&self) -> bool {
        self.joining == Joining::SentencePiece { strip_first_space: true }
    }

    pub(super) fn is_byte_level(&self) -> bool {
        self.joining == Joining::ByteLevel
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Piece> {
        self.pieces.iter()
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
/// A character is written as soon as its last byte is known; only the beginning of a character that the next id may
/// complete is held back. Bytes that are not UTF-8 become U+FFFD, one for each sequence that `String::from_utf8_lossy`
/// replaces.
///
/// A byte-level vocabulary decodes as the `tokenizers` crate's `ByteLevel` decoder does: everything is one run of bytes.
/// A SentencePiece vocabulary decodes as that crate's `ByteFallback` and `Strip` decoders do, except for a run of byte
/// tokens that is partly UTF-8. The crate replaces each byte of such a run, because it sees the whole run; here its
/// characters are kept.
#[derive(Clone, Debug)]
pub(super) struct Detokenizer {
    skip_special: bool,
    joining: Joining,
    /// Bytes that may go on with the next id.
    run: Vec<u8>,
    /// A space that comes next is the one that encoding put in front of the text.
    strip_space: bool,
}

impl Detokenizer {
    pub(super) fn new(pieces: &Pieces, skip_special: bool) -> Self {
        let joining = pieces.joining;
        let strip_space = joining == Joining::SentencePiece { strip_first_space: true };
        Self { skip_special, joining, run: Vec::new(), strip_space }
    }

    /// Appends to `out` what is certain with this id.
    pub(super) fn push(&mut self, pieces: &Pieces, id: u32, out: &mut String) -> Result<()> {
        let Some(piece) = pieces.get(id) else {
            let size = pieces.len();
            return Err(Error::invalid_input(format!(
                "token ids must be below {size}, the size of the vocabulary, got {id}"
            )));
        };
        match (piece.kind, self.joining) {
            (PieceKind::Control | PieceKind::Padding, _) if self.skip_special => {}
            (PieceKind::Byte(byte), _) => self.run.push(byte),
            (PieceKind::ByteLevel, _) => byte_level::decode(&piece.text, &mut self.run),
            (_, Joining::ByteLevel) => self.run.extend(piece.text.bytes()),
            (_, Joining::SentencePiece { .. }) => {
                self.finish(out);
                self.write(&piece.text.replace('▁', " "), out);
            }
        }
        self.write_characters(out);
        Ok(())
    }

    /// Appends the characters of the run to `out`, all but the beginning of one at its end.
    fn write_characters(&mut self, out: &mut String) {
        if self.run.is_empty() {
            return;
        }
        let run = std::mem::take(&mut self.run);
        let mut done = 0;
        for chunk in run.utf8_chunks() {
            self.write(chunk.valid(), out);
            done += chunk.valid().len();
            let is_last = done + chunk.invalid().len() == run.len();
            if is_last && (chunk.invalid().is_empty() || is_beginning(chunk.invalid())) {
                break;
            }
            self.write("\u{FFFD}", out);
            done += chunk.invalid().len();
        }
        self.run = run;
        self.run.drain(..done.min(self.run.len()));
    }

    /// Appends the rest to `out`: the ids end here.
    pub(super) fn finish(&mut self, out: &mut String) {
        // All whole characters are written already.
        if !std::mem::take(&mut self.run).is_empty() {
            self.write("\u{FFFD}", out);
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

/// Whether bytes that are no UTF-8 can become a character with more behind them.
fn is_beginning(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
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
