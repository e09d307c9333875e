//! Compares token ids by the text that they stand for, and cuts them where a text is cut.

use super::{PieceKind, Tokenizer, byte_level};
use crate::Result;

/// A byte of text, or a token that stands for no text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Byte(u8),
    Silent(u32),
}

/// Token ids as units, and after how many of them each id ends; `None` within bytes that are not UTF-8.
struct Read {
    units: Vec<Unit>,
    ends: Vec<Option<usize>>,
}

impl Read {
    /// Writes U+FFFD for bytes that are not UTF-8, as the text has it.
    fn new(units: &[Unit], ends: &[usize]) -> Self {
        let mut written = Vec::with_capacity(units.len());
        // After how many written units each place between units is.
        let mut places = vec![Some(0)];
        for run in units.chunk_by(|left, right| matches!((left, right), (Unit::Byte(_), Unit::Byte(_)))) {
            let mut bytes = Vec::with_capacity(run.len());
            for unit in run {
                match unit {
                    Unit::Byte(byte) => bytes.push(*byte),
                    Unit::Silent(_) => {
                        written.push(*unit);
                        places.push(Some(written.len()));
                    }
                }
            }
            for chunk in bytes.utf8_chunks() {
                for byte in chunk.valid().bytes() {
                    written.push(Unit::Byte(byte));
                    places.push(Some(written.len()));
                }
                if let Some(inner) = chunk.invalid().len().checked_sub(1) {
                    written.extend("\u{FFFD}".bytes().map(Unit::Byte));
                    places.extend(std::iter::repeat_n(None, inner));
                    places.push(Some(written.len()));
                }
            }
        }
        let ends = ends.iter().map(|end| places.get(*end).copied().flatten()).collect();
        Self { units: written, ends }
    }

    /// The ids that end within the first `common` units and not within a character: their index and end.
    fn ends_up_to(&self, common: usize) -> impl Iterator<Item = (usize, usize)> {
        let ends = self.ends.iter().enumerate().filter_map(|(index, end)| Some((index, (*end)?)));
        ends.take_while(move |(_, end)| *end <= common)
    }
}

impl Tokenizer {
    /// `encoded`, with the ids of `known` in place of its own for as long as both stand for the same text.
    ///
    /// A text can be tokenized in more than one way. The ids that a model drew stay, so that what was computed of them can
    /// be reused. The result stands for the same text as `encoded`.
    pub(crate) fn keep_known(&self, known: &[u32], encoded: &[u32]) -> Vec<u32> {
        let (left, right) = (self.read(known), self.read(encoded));
        let common = left.units.iter().zip(&right.units).take_while(|(left, right)| left == right).count();
        let mut places = right.ends_up_to(common).peekable();
        let mut found = (0, 0);
        let mut last_end = None;
        for (index, end) in left.ends_up_to(common) {
            // Of ids that end at the same place the first counts: the others are spaces that encoding added.
            if last_end.replace(end) == Some(end) {
                continue;
            }
            while places.next_if(|(_, place)| *place < end).is_some() {}
            if let Some((place, _)) = places.next_if(|(_, place)| *place == end) {
                found = (index + 1, place + 1);
            }
        }
        let (known, encoded) = (known.get(..found.0), encoded.get(found.1..));
        [known.unwrap_or_default(), encoded.unwrap_or_default()].concat()
    }

    /// The ids of `text`, the text of `drawn` or its beginning, which follows `prompt`: the drawn ids that stand for text,
    /// up to the last one that `text` holds whole, and then the encoded rest of `text`.
    pub(crate) fn cut_to(&self, drawn: &[u32], text: &str, prompt: &[u32]) -> Result<Vec<u32>> {
        // If nothing was cut, the drawn ids stay, also those of bytes that are not UTF-8.
        let is_text = |id: &u32| !self.is_silent(*id);
        let visible: Vec<u32> = drawn.iter().copied().filter(is_text).collect();
        let mut decoder = self.decoder_behind(prompt);
        let mut decoded = String::new();
        for id in &visible {
            decoded.push_str(&decoder.push(*id)?);
        }
        decoded.push_str(&decoder.finish());
        if decoded == text {
            return Ok(visible);
        }
        let begins_a_text = prompt.last().is_none_or(|last| self.0.control_ids.binary_search(last).is_ok());
        let mut strip_space = begins_a_text && self.0.pieces.strips_first_space();
        let mut kept = Vec::with_capacity(drawn.len());
        let (mut end, mut whole) = (0, (0, 0));
        let mut units = Vec::new();
        for id in drawn {
            units.clear();
            self.push_units(*id, &mut units);
            let mut bytes: Vec<u8> = Vec::with_capacity(units.len());
            for unit in &units {
                if let Unit::Byte(byte) = unit {
                    bytes.push(*byte);
                }
            }
            if bytes.is_empty() {
                continue;
            }
            let written = bytes.strip_prefix(b" ").filter(|_| strip_space).unwrap_or(&bytes);
            if !text.as_bytes().get(end..).is_some_and(|rest| !rest.is_empty() && rest.starts_with(written)) {
                break;
            }
            strip_space = false;
            end += written.len();
            kept.push(*id);
            if text.is_char_boundary(end) {
                whole = (kept.len(), end);
            }
        }
        kept.truncate(whole.0);
        let rest = text.get(whole.1..).unwrap_or_default();
        if !rest.is_empty() {
            let follows_text = !kept.is_empty() || !begins_a_text;
            kept.extend(self.encode_rest(rest, follows_text)?);
        }
        Ok(kept)
    }

    /// The ids of a text that begins a segment, or that follows text.
    fn encode_rest(&self, rest: &str, follows_text: bool) -> Result<Vec<u32>> {
        // Encoding a segment adds a space to its start in some vocabularies, so the rest is encoded after another text.
        // One of these does not merge with it.
        const BEFORE: [&str; 3] = ["0", "\n", "a"];
        if follows_text && self.0.pieces.strips_first_space() {
            for before in BEFORE {
                let ids = self.encode_with(&self.0.plain, before)?;
                let whole = self.encode_with(&self.0.plain, &[before, rest].concat())?;
                if let Some(ids) = whole.strip_prefix(ids.as_slice()) {
                    return Ok(ids.to_vec());
                }
            }
        }
        self.encode_with(&self.0.plain, rest)
    }

    fn is_silent(&self, id: u32) -> bool {
        let kind = self.0.pieces.get(id).map(|piece| piece.kind);
        kind.is_none_or(|kind| matches!(kind, PieceKind::Control | PieceKind::Padding))
    }

    fn read(&self, ids: &[u32]) -> Read {
        let (mut units, mut ends) = (Vec::new(), Vec::with_capacity(ids.len()));
        let strips = self.0.pieces.strips_first_space();
        for id in ids {
            let start = units.len();
            let begins_a_text = units.last().is_none_or(|unit| matches!(unit, Unit::Silent(_)));
            self.push_units(*id, &mut units);
            // The space that encoding adds is not part of the text.
            if strips && begins_a_text && units.get(start) == Some(&Unit::Byte(b' ')) {
                units.remove(start);
            }
            ends.push(units.len());
        }
        Read::new(&units, &ends)
    }

    fn push_units(&self, id: u32, units: &mut Vec<Unit>) {
        let Some(piece) = self.0.pieces.get(id) else {
            units.push(Unit::Silent(id));
            return;
        };
        match piece.kind {
            PieceKind::Control | PieceKind::Padding => units.push(Unit::Silent(id)),
            PieceKind::Byte(byte) => units.push(Unit::Byte(byte)),
            PieceKind::ByteLevel => {
                let mut bytes = Vec::new();
                byte_level::decode(&piece.text, &mut bytes);
                units.extend(bytes.into_iter().map(Unit::Byte));
            }
            _ if self.0.pieces.is_byte_level() => units.extend(piece.text.bytes().map(Unit::Byte)),
            PieceKind::Text => units.extend(piece.text.replace('▁', " ").bytes().map(Unit::Byte)),
        }
    }
}
