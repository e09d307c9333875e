//! The byte-level BPE vocabularies of a GGUF, `tokenizer.ggml.model = gpt2`.

use std::collections::HashSet;

use tokenizers::AddedToken;
use tokenizers::models::bpe::{BPE, Merges, Vocab};

use super::family::is_reserved;
use super::split::{PRE_TOKENIZERS, PreTokenizer, Splitter};
use super::vocabulary::{ADD_BOS, BOS, EOS, EOT, TOKEN_TYPE, TOKENS, TokenList, TokenType, is_padding};
use super::{
    Added, Joining, Parts, Piece, PieceKind, Pieces, TokenizerOptions, VocabularyFamily, Words, byte_level,
};
use crate::architecture::Conversion;
use crate::gguf::Gguf;
use crate::{Error, Result};

const MERGES: &str = "tokenizer.ggml.merges";
const PRE: &str = "tokenizer.ggml.pre";

/// The longest token of the family has 256 bytes: 128 spaces.
const MAX_TOKEN_BYTES: usize = 2048;
/// The family's vocabularies have up to 199,742.
const MAX_MERGES: usize = 1 << 20;

pub(super) fn parts(gguf: &Gguf, options: TokenizerOptions) -> Result<Parts> {
    let &PreTokenizer { kind, pattern, .. } = pre_tokenizer(gguf)?;
    let tokens = TokenList::read(gguf, kind, MAX_TOKEN_BYTES)?;
    let controls: HashSet<&str> = tokens
        .iter()
        .filter(|(_, _, token_type)| *token_type != TokenType::Normal)
        .map(|(_, text, _)| text)
        .collect();
    let family = VocabularyFamily::detect(kind, |text| controls.contains(text));
    let vocabulary = Vocabulary { tokens, family };
    let tokens = &vocabulary.tokens;
    let model = vocabulary.model(gguf).map_err(|error| tokens.invalid(&error))?;
    Ok(Parts {
        kind,
        model,
        normalizer: None,
        words: Words::ByteLevel(Splitter::new(pattern)?),
        added: vocabulary.added(options),
        pieces: Pieces::new(vocabulary.pieces(), Joining::ByteLevel),
        bos_id: tokens.id(BOS, &["<|endoftext|>"])?,
        eos_id: tokens.id(EOS, &["<|endoftext|>"])?,
        eot_id: tokens.id(EOT, &[])?,
        add_bos: gguf.optional_bool(ADD_BOS)?.unwrap_or(false),
    })
}

/// How the vocabulary splits text into words.
fn pre_tokenizer(gguf: &Gguf) -> Result<&'static PreTokenizer> {
    // A vocabulary can also be read from a file whose architecture is not supported; that has no default.
    let default = || Conversion::of(gguf).ok()?.default_pre_tokenizer;
    let found = gguf.optional_str(PRE)?.or_else(default);
    PRE_TOKENIZERS.iter().find(|known| Some(known.name) == found).ok_or_else(|| {
        let known = PRE_TOKENIZERS.each_ref().map(|known| format!("{:?} ({})", known.name, known.models));
        let found = found.map_or_else(|| "none".to_owned(), |found| format!("{found:?}"));
        Error::unsupported_model(format!(
            "{}: metadata key {PRE} must be one of {}, got {found}; it is required to split text: convert the model \
             again, or set tokenizer to the path of its tokenizer.json",
            gguf.path().display(),
            known.join(", ")
        ))
    })
}

struct Vocabulary<'a> {
    tokens: TokenList<'a>,
    family: Option<VocabularyFamily>,
}

impl Vocabulary<'_> {
    fn kind(&self, id: u32, text: &str, token_type: TokenType) -> PieceKind {
        if is_padding(id, text) || is_reserved(text) {
            return PieceKind::Padding;
        }
        match token_type {
            TokenType::Unused => PieceKind::Padding,
            TokenType::Normal | TokenType::Byte => PieceKind::ByteLevel,
            TokenType::UserDefined => PieceKind::Text,
            TokenType::Control | TokenType::Unknown => {
                let shows = self.family.is_some_and(|family| family.shows(text));
                if shows { PieceKind::Text } else { PieceKind::Control }
            }
        }
    }

    fn pieces(&self) -> Vec<Piece> {
        let tokens = self.tokens.iter();
        tokens
            .map(|(id, text, token_type)| Piece { text: text.into(), kind: self.kind(id, text, token_type) })
            .collect()
    }

    /// The tokens that are matched in a text as a whole.
    fn added(&self, options: TokenizerOptions) -> Vec<Added> {
        let added = self.tokens.iter().filter_map(|(id, text, token_type)| {
            let matched = match token_type {
                TokenType::Normal | TokenType::Byte | TokenType::Unused => false,
                TokenType::Control | TokenType::Unknown | TokenType::UserDefined => !is_padding(id, text),
            };
            if !matched || text.is_empty() {
                return None;
            }
            let control = token_type != TokenType::UserDefined;
            let family = self.family.filter(|_| control && options.rstrip_control_tokens);
            let (lstrip, rstrip) = family.map_or((false, false), |family| family.strips(text));
            let special = self.kind(id, text, token_type) == PieceKind::Control;
            let token = AddedToken::from(text, special).normalized(false).lstrip(lstrip).rstrip(rstrip);
            Some(Added { id, token, control })
        });
        added.collect()
    }

    fn model(&self, gguf: &Gguf) -> Result<BPE> {
        let vocabulary = self.vocabulary()?;
        let merges = merges(gguf, &vocabulary)?;
        BPE::builder().cache_capacity(0).vocab_and_merges(vocabulary, merges).build().map_err(|error| {
            Error::invalid_model(format!("metadata keys {TOKENS} and {MERGES} do not make a vocabulary: {error}"))
        })
    }

    /// The pieces that text is made of, by text.
    fn vocabulary(&self) -> Result<Vocab> {
        let mut vocabulary = Vocab::default();
        let mut texts = HashSet::new();
        for (id, text, token_type) in self.tokens.iter() {
            if token_type == TokenType::Byte {
                return Err(Error::invalid_model(format!(
                    "metadata key {TOKEN_TYPE} must not have the type 6 (byte) in a byte-level vocabulary, got it for \
                     token id {id}, {text:?}"
                )));
            }
            if self.kind(id, text, token_type) != PieceKind::Padding && !texts.insert(text) {
                let first =
                    self.tokens.iter().find(|(_, other, _)| *other == text).map_or(id, |(first, ..)| first);
                return Err(Error::invalid_model(format!(
                    "metadata key {TOKENS} must have each text once, got {text:?} for the token ids {first} and {id}"
                )));
            }
            if token_type == TokenType::Normal {
                vocabulary.insert(text.to_owned(), id);
            }
        }
        check_coverage(&format!("metadata key {TOKENS}"), |character| vocabulary.contains_key(character))?;
        Ok(vocabulary)
    }
}

/// Every text must have an encoding, or characters would vanish from prompts.
pub(super) fn check_coverage(name: &str, has: impl Fn(&str) -> bool) -> Result<()> {
    let mut buffer = [0; 4];
    let missing = byte_level::alphabet().iter().filter(|character| !has(character.encode_utf8(&mut buffer)));
    let missing: Vec<char> = missing.copied().collect();
    match missing.first() {
        None => Ok(()),
        Some(first) => Err(Error::invalid_model(format!(
            "{name} must have a token for each of the 256 bytes, got {} of them and none for {first:?}",
            byte_level::alphabet().len() - missing.len()
        ))),
    }
}

fn merges(gguf: &Gguf, vocabulary: &Vocab) -> Result<Merges> {
    let lines = gguf.optional_strings(MERGES)?;
    let lines = lines.ok_or_else(|| {
        Error::invalid_model(format!("metadata key {MERGES} is missing, and must be a list of pairs of tokens"))
    })?;
    if lines.len() > MAX_MERGES {
        let found = lines.len();
        return Err(Error::invalid_model(format!(
            "metadata key {MERGES} must have at most {MAX_MERGES} merges, got {found}"
        )));
    }
    let mut seen = HashSet::with_capacity(lines.len());
    let mut merges = Merges::with_capacity(lines.len());
    for (position, line) in lines.iter().enumerate() {
        let (left, right) = pair(MERGES, position, line, |text| vocabulary.contains_key(text))?;
        if !seen.insert(line) {
            return Err(Error::invalid_model(format!(
                "metadata key {MERGES} must have each merge once, got {line:?} again at position {position}"
            )));
        }
        merges.push((left.to_owned(), right.to_owned()));
    }
    Ok(merges)
}

/// The two halves of a merge, which are tokens, and are one together.
fn pair<'a>(key: &str, position: usize, line: &'a str, has: impl Fn(&str) -> bool) -> Result<(&'a str, &'a str)> {
    let halves = line.split_once(' ').filter(|(left, right)| !left.is_empty() && !right.is_empty());
    let Some((left, right)) = halves else {
        return Err(Error::invalid_model(format!(
            "metadata key {key} must have two tokens separated by a space at position {position}, got {line:?}"
        )));
    };
    let merged = [left, right].concat();
    match [left, right, &merged].into_iter().find(|text| !has(text)) {
        None => Ok((left, right)),
        Some(missing) => Err(Error::invalid_model(format!(
            "metadata key {key} must merge tokens into tokens, got {line:?} at position {position}, for which {missing:?} is \
             not in {TOKENS}"
        ))),
    }
}
