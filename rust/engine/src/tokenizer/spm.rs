//! The SentencePiece vocabulary of a GGUF, `tokenizer.ggml.model = llama`.
//!
//! The file has pieces with scores; the `tokenizers` crate wants merges in the order of their rank. Of each
//! piece every split is a merge whose halves are pieces too, and the pieces' scores rank them. This yields
//! the merges of the family's tokenizer.json exactly, in order.

use std::collections::HashSet;

use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::{Prepend, Replace, Sequence};
use tokenizers::{AddedToken, NormalizerWrapper};

use super::vocabulary::{ADD_BOS, BOS, EOS, EOT, TOKENS, TokenList, TokenType, is_padding};
use super::{
    Added, Joining, Parts, Piece, PieceKind, Pieces, TokenizerOptions, VocabularyFamily, VocabularyKind, Words,
    byte_of,
};
use crate::gguf::Gguf;
use crate::{Error, Result};

/// The token for text that has no other.
pub(super) const UNKNOWN: &str = "<unk>";
const SCORES: &str = "tokenizer.ggml.scores";

/// The longest piece of the family has 48 bytes. The number of a piece's splits, and so the time and memory that
/// the merges take, grows with its square: a hostile file's must not.
const MAX_PIECE_BYTES: usize = 256;
const MAX_MERGES: usize = 1_000_000;

pub(super) fn parts(gguf: &Gguf, options: TokenizerOptions) -> Result<Parts> {
    let vocabulary = Vocabulary::read(gguf)?;
    let tokens = &vocabulary.tokens;
    let model = vocabulary.model().map_err(|error| tokens.invalid(&error))?;
    let add_space_prefix = gguf.optional_bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let bos_id = tokens.id(BOS, &["<s>"])?;
    let eos_id = tokens.id(EOS, &["<|endoftext|>", "</s>"])?;
    let add_bos = gguf.optional_bool(ADD_BOS)?.unwrap_or(true);
    Ok(Parts {
        kind: VocabularyKind::SentencePiece,
        model,
        normalizer: Some(normalizer(add_space_prefix)?),
        words: Words::SentencePiece(None),
        added: vocabulary.added(options),
        pieces: Pieces::new(vocabulary.pieces(), Joining::SentencePiece { strip_first_space: add_space_prefix }),
        bos_id,
        eos_id,
        add_bos,
        eot_id: tokens.id(EOT, &[])?,
    })
}

/// What SentencePiece does to a text first: a space in front, and `▁` for each space.
fn normalizer(add_space_prefix: bool) -> Result<NormalizerWrapper> {
    let replace = Replace::new(" ", "▁").map_err(|error| {
        Error::invalid_model(format!("the normalizer of the tokenizer cannot be built: {error}"))
    })?;
    let mut steps = vec![NormalizerWrapper::from(replace)];
    if add_space_prefix {
        steps.insert(0, Prepend::new("▁".to_owned()).into());
    }
    Ok(Sequence::new(steps).into())
}

/// The lists of the metadata, checked to belong together.
struct Vocabulary<'a> {
    tokens: TokenList<'a>,
    scores: &'a [f32],
    /// The token for characters that no piece and no byte token stands for.
    unknown_id: Option<u32>,
}

impl<'a> Vocabulary<'a> {
    fn read(gguf: &'a Gguf) -> Result<Self> {
        let tokens = TokenList::read(gguf, VocabularyKind::SentencePiece, MAX_PIECE_BYTES)?;
        let scores = tokens.one_for_each(SCORES, gguf.optional_f32s(SCORES)?, |scores| scores.len())?;
        if let Some(id) = scores.iter().position(|score| score.is_nan()) {
            let message = format!("metadata key {SCORES} must have numbers, got NaN for token id {id}");
            return Err(tokens.invalid(&message));
        }
        let unknown_id = tokens.id("tokenizer.ggml.unknown_token_id", &[UNKNOWN])?;
        let vocabulary = Self { tokens, scores, unknown_id };
        vocabulary.check_pieces().map_err(|error| vocabulary.tokens.invalid(&error))?;
        vocabulary.check_coverage().map_err(|error| vocabulary.tokens.invalid(&error))?;
        Ok(vocabulary)
    }

    fn check_pieces(&self) -> Result<()> {
        for (id, text, token_type) in self.tokens.iter() {
            if token_type == TokenType::Byte && byte_of(text).is_none() {
                return Err(Error::invalid_model(format!(
                    "metadata key {TOKENS} must have a byte such as \"<0x0A>\" for token id {id}, got {text:?}"
                )));
            }
        }
        Ok(())
    }

    /// The number of bytes that have a token. With all 256 every text has an encoding without the unknown token.
    fn byte_count(&self) -> usize {
        let tokens = self.tokens.iter();
        let bytes: HashSet<u8> = tokens
            .filter_map(|(id, text, token_type)| match Self::kind(id, text, token_type) {
                PieceKind::Byte(byte) => Some(byte),
                _ => None,
            })
            .collect();
        bytes.len()
    }

    /// Every text must have an encoding, or characters would vanish from prompts; and unknown text must not become a
    /// control token that means something.
    fn check_coverage(&self) -> Result<()> {
        let byte_count = self.byte_count();
        if byte_count == 256 {
            return Ok(());
        }
        let found = match self.unknown_id.and_then(|id| self.tokens.iter().find(|(other, ..)| *other == id)) {
            None => "no unknown token".to_owned(),
            Some((id, text, token_type)) => {
                if text == UNKNOWN || Self::kind(id, text, token_type) != PieceKind::Control {
                    return Ok(());
                }
                format!("the control token {text:?} for unknown text")
            }
        };
        Err(Error::invalid_model(format!(
            "metadata key {TOKENS} must have a token for each of the 256 bytes, or {UNKNOWN:?} for unknown text, got \
             {byte_count} bytes and {found}"
        )))
    }

    fn kind(id: u32, text: &str, token_type: TokenType) -> PieceKind {
        if is_padding(id, text) {
            return PieceKind::Padding;
        }
        match token_type {
            TokenType::Unused => PieceKind::Padding,
            TokenType::Control | TokenType::Unknown => PieceKind::Control,
            TokenType::Normal | TokenType::Byte | TokenType::UserDefined => {
                byte_of(text).map_or(PieceKind::Text, PieceKind::Byte)
            }
        }
    }

    fn pieces(&self) -> Vec<Piece> {
        let piece = |(id, text, token_type): (u32, &str, _)| Piece {
            text: text.into(),
            kind: Self::kind(id, text, token_type),
        };
        self.tokens.iter().map(piece).collect()
    }

    /// The tokens that are matched in a text as a whole.
    fn added(&self, options: TokenizerOptions) -> Vec<Added> {
        let mut seen = HashSet::new();
        self.tokens
            .iter()
            .filter_map(|(id, text, token_type)| {
                let control = match Self::kind(id, text, token_type) {
                    PieceKind::Control => true,
                    PieceKind::Text if token_type == TokenType::UserDefined => false,
                    _ => return None,
                };
                if text.is_empty() || !seen.insert(text) {
                    return None;
                }
                let rstrip = options.rstrip_control_tokens && control && VocabularyFamily::Phi3.strips(text).1;
                let token = AddedToken::from(text, control).normalized(false).rstrip(rstrip);
                Some(Added { id, token, control })
            })
            .collect()
    }

    /// The pieces that text is made of, by text, and the same with the best first.
    fn ranked_pieces(&self) -> (Vocab, Vec<(f32, &'a str)>) {
        let mut vocabulary = Vocab::default();
        let mut ranked = Vec::new();
        for ((id, text, token_type), score) in self.tokens.iter().zip(self.scores) {
            let piece = token_type == TokenType::Normal && Self::kind(id, text, token_type) == PieceKind::Text;
            if piece && !text.is_empty() && !vocabulary.contains_key(text) {
                vocabulary.insert(text.to_owned(), id);
                ranked.push((*score, text));
            }
        }
        // Stable: pieces of the same score stay in the order of their ids.
        ranked.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        (vocabulary, ranked)
    }

    /// The BPE model of the pieces.
    fn model(&self) -> Result<BPE> {
        let (mut vocabulary, ranked) = self.ranked_pieces();
        let merges = merges(&vocabulary, &ranked)?;

        // Only now: a merge must not reach a byte's or the unknown token.
        for (id, text, token_type) in self.tokens.iter() {
            if matches!(Self::kind(id, text, token_type), PieceKind::Byte(_)) {
                vocabulary.entry(text.to_owned()).or_insert(id);
            }
        }
        let mut builder = BPE::builder().fuse_unk(true).byte_fallback(true).cache_capacity(0);
        let unknown_id = self.unknown_id.filter(|_| self.byte_count() < 256);
        if let Some((id, text)) = unknown_id.and_then(|id| Some((id, self.tokens.text(id)?))) {
            vocabulary.entry(text.to_owned()).or_insert(id);
            builder = builder.unk_token(text.to_owned());
        }
        builder.vocab_and_merges(vocabulary, merges).build().map_err(|error| {
            Error::invalid_model(format!("metadata key {TOKENS} does not make a vocabulary: {error}"))
        })
    }
}

/// The merges of pieces that are sorted by rank.
fn merges(vocabulary: &Vocab, ranked: &[(f32, &str)]) -> Result<Merges> {
    let mut merges = Merges::with_capacity(2 * ranked.len());
    let mut splits = Vec::new();
    for (_, text) in ranked {
        splits.clear();
        for (position, _) in text.char_indices().skip(1) {
            let (left, right) = text.split_at(position);
            if let (Some(left_id), Some(right_id)) = (vocabulary.get(left), vocabulary.get(right)) {
                splits.push((*left_id, *right_id, left, right));
            }
        }
        splits.sort_unstable();
        merges.extend(splits.iter().map(|(_, _, left, right)| ((*left).to_owned(), (*right).to_owned())));
        if merges.len() > MAX_MERGES {
            return Err(Error::invalid_model(format!(
                "metadata key {TOKENS} must have pieces that can be merged in at most {MAX_MERGES} ways, got more"
            )));
        }
    }
    Ok(merges)
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    /// The rule in one sentence, executed as written: it is what reproduces the family's file.
    #[test]
    fn merges_are_those_of_the_family_s_tokenizer_json_in_order() {
        let root = std::env::var_os("CANDLE_PHI_TEST_DATA")
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from);
        let (gguf, json) = (root.join("ggml-vocab-phi-3.gguf"), root.join("tokenizers/phi-3-mini/tokenizer.json"));
        if !gguf.exists() || !json.exists() {
            #[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
            {
                eprintln!("skipped: no {} (set CANDLE_PHI_TEST_DATA to the shared test data)", gguf.display());
            }
            return;
        }
        let gguf = Gguf::open(&gguf, true, &crate::CancelToken::new()).expect("opens");
        let vocabulary = Vocabulary::read(&gguf).expect("is a vocabulary");
        let (pieces, ranked) = vocabulary.ranked_pieces();
        let derived = merges(&pieces, &ranked).expect("has merges");
        let json: serde_json::Value =
            serde_json::from_slice(&std::fs::read(json).expect("is readable")).expect("is JSON");
        let expected: Vec<&str> = json["model"]["merges"]
            .as_array()
            .expect("is a list")
            .iter()
            .filter_map(serde_json::Value::as_str)
            .collect();
        assert_eq!(expected.len(), 61_249);
        assert_eq!(derived.len(), expected.len());
        for ((left, right), expected) in derived.iter().zip(expected) {
            assert_eq!(format!("{left} {right}"), expected);
        }
    }

    #[test]
    fn pieces_that_can_be_put_together_in_millions_of_ways_are_refused() {
        let texts: Vec<String> = ('a'..='z')
            .chain('A'..='Z')
            .flat_map(|letter| (1..=256).map(move |len| String::from(letter).repeat(len)))
            .collect();
        let vocabulary: Vocab = (0_u32..).zip(&texts).map(|(id, text)| (text.clone(), id)).collect();
        let ranked: Vec<(f32, &str)> = texts.iter().map(|text| (0.0, text.as_str())).collect();
        let error = merges(&vocabulary, &ranked).expect_err("1.7 million merges");
        assert!(error.to_string().contains(TOKENS), "{error}");
    }
}
