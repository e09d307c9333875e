//! Text to token ids and back.
//!
//! A tokenizer comes out of the GGUF's own vocabulary or out of a tokenizer.json. Both become the same
//! thing: the `tokenizers` crate's BPE model with its normalizer, the added tokens beside it, and a table of
//! pieces to decode with.

mod added;
mod bpe;
mod byte_level;
mod compare;
mod family;
mod json;
mod split;
mod spm;
mod stream;
mod units;
mod vocabulary;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use tokenizers::models::bpe::BPE;
use tokenizers::{
    AddedToken, AddedVocabulary, Model as _, NormalizerWrapper, OffsetReferential, OffsetType, PreTokenizedString,
    PreTokenizer as _, PreTokenizerWrapper,
};
use tracing::debug_span;

use crate::gguf::Gguf;
use crate::{Error, Result};

use added::Added;
pub use family::VocabularyFamily;
use family::VocabularyKind;
use split::Splitter;
pub use stream::StreamDecoder;
use stream::{Detokenizer, Joining, Piece, PieceKind, Pieces};

/// Tokens that end a text or a turn, whatever the metadata's one end token says.
const END_TEXTS: [&str; 4] = ["<|end|>", "<|endoftext|>", "<|im_end|>", "</s>"];

/// How to read a GGUF's vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenizerOptions {
    /// Whether control tokens swallow the whitespace beside them as the family's do: behind them since the July
    /// 2024 revision of Phi-3, in Phi-3.5 and in Phi-4-mini, on both sides in Phi-4; `false` for the April 2024
    /// revision of Phi-3. A GGUF cannot say it. A tokenizer.json does, and this option does not touch it.
    pub rstrip_control_tokens: bool,
}

impl Default for TokenizerOptions {
    fn default() -> Self {
        Self { rstrip_control_tokens: true }
    }
}

/// A model's tokenizer. Immutable, cheap to clone, and shared between threads.
#[derive(Clone)]
pub struct Tokenizer(Arc<Inner>);

struct Inner {
    model: BPE,
    normalizer: Option<NormalizerWrapper>,
    words: Words,
    /// Matches the added tokens that plain text may contain: Phi-2's runs of white space.
    plain: AddedVocabulary,
    /// Matches all added tokens.
    special: AddedVocabulary,
    pieces: Arc<Pieces>,
    bos_id: Option<u32>,
    eos_id: Option<u32>,
    add_bos: bool,
    family: Option<VocabularyFamily>,
    end_ids: Vec<u32>,
    control_ids: Vec<u32>,
    padding_ids: Vec<u32>,
}

/// A part of a prompt made of a template and of texts; see [`Tokenizer::encode_parts`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part<'a> {
    /// A control token of the template, by its text.
    Control(&'a str),
    /// Text, in which nothing is a control token.
    Text(&'a str),
}

/// What a vocabulary is made into a [`Tokenizer`] from.
struct Parts {
    kind: VocabularyKind,
    model: BPE,
    normalizer: Option<NormalizerWrapper>,
    words: Words,
    pieces: Pieces,
    added: Vec<Added>,
    bos_id: Option<u32>,
    eos_id: Option<u32>,
    /// Ends a turn, beside what ends one by its text.
    eot_id: Option<u32>,
    add_bos: bool,
}

/// How the text between added tokens becomes what the model merges.
enum Words {
    /// It is left as it is, or as the library's pre-tokenizer splits it.
    SentencePiece(Option<PreTokenizerWrapper>),
    /// It is split into words, and these are written in the byte-level alphabet.
    ByteLevel(Splitter),
}

/// The byte that a byte token's text, `<0x0A>`, stands for.
fn byte_of(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    let hexadecimal = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    hexadecimal.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

impl Tokenizer {
    /// The tokenizer in a GGUF's metadata.
    ///
    /// # Errors
    /// [`InvalidModel`](crate::ErrorKind::InvalidModel) if the file has no vocabulary or a damaged one,
    /// [`UnsupportedModel`](crate::ErrorKind::UnsupportedModel) if it is of a kind that is not supported.
    pub fn from_gguf(gguf: &Gguf, options: &TokenizerOptions) -> Result<Self> {
        const MODEL: &str = "tokenizer.ggml.model";
        let path = gguf.path().display();
        match gguf.optional_str(MODEL)? {
            Some("llama") => Self::new(spm::parts(gguf, *options)?).map_err(|error| at(&path, &error)),
            Some("gpt2") => Self::new(bpe::parts(gguf, *options)?).map_err(|error| at(&path, &error)),
            None | Some("none" | "no_vocab") => Err(no_vocabulary(gguf, MODEL)),
            Some(other) => Err(Error::unsupported_model(format!(
                "{path}: metadata key {MODEL} must be \"llama\" (the SentencePiece vocabulary of Phi-3 and Phi-3.5) or \
                 \"gpt2\" (the byte-level vocabularies of Phi-2 and Phi-4), got {other:?}; use a file of a Phi model"
            ))),
        }
    }

    /// The tokenizer in a tokenizer.json. Where that does not say it, a tokenizer_config.json beside it says
    /// whether a prompt begins with BOS, and which token ends a text.
    ///
    /// # Errors
    /// [`ModelNotFound`](crate::ErrorKind::ModelNotFound) if there is no such file,
    /// [`InvalidModel`](crate::ErrorKind::InvalidModel) if it is damaged,
    /// [`UnsupportedModel`](crate::ErrorKind::UnsupportedModel) if it is of a kind that is not supported.
    pub fn from_tokenizer_json(path: &Path) -> Result<Self> {
        Self::new(json::parts(path)?).map_err(|error| at(&path.display(), &error))
    }

    fn new(parts: Parts) -> Result<Self> {
        let Parts { kind, mut model, normalizer, words, pieces, added, bos_id, eos_id, eot_id, add_bos } = parts;
        // The model's cache is keyed by whole segments of text and never freed: it would keep prompts in memory.
        model.resize_cache(0);
        let plain = added::vocabulary(&added, normalizer.as_ref(), |added| !added.control)?;
        let special = added::vocabulary(&added, normalizer.as_ref(), |_| true)?;

        let mut control_ids: Vec<u32> = added.iter().filter(|added| added.control).map(|added| added.id).collect();
        control_ids.sort_unstable();
        let family = VocabularyFamily::detect(kind, |text| {
            added.iter().any(|added| added.control && added.token.content == text)
        });
        let own_end_texts = family.map_or(&[][..], VocabularyFamily::end_texts);
        let mut end_ids: Vec<u32> = added
            .iter()
            .filter(|added| {
                let text = added.token.content.as_str();
                END_TEXTS.contains(&text) || own_end_texts.contains(&text)
            })
            .map(|added| added.id)
            .chain(eos_id)
            .chain(eot_id)
            .collect();
        end_ids.sort_unstable();
        end_ids.dedup();
        // A file may name one of the tokens that fill the vocabulary up as the one that ends a text.
        let mut padding_ids = pieces.padding_ids();
        padding_ids.retain(|id| end_ids.binary_search(id).is_err());
        Ok(Self(Arc::new(Inner {
            model,
            normalizer,
            words,
            plain,
            special,
            pieces: Arc::new(pieces),
            bos_id,
            eos_id,
            add_bos: add_bos && bos_id.is_some(),
            family,
            end_ids,
            control_ids,
            padding_ids,
        })))
    }

    /// The ids of a text.
    ///
    /// With `add_bos` they begin with BOS, once, if the vocabulary has it. With `parse_special` the texts of
    /// control tokens in `text` become these tokens; without it they are text as any other.
    pub fn encode(&self, text: &str, add_bos: bool, parse_special: bool) -> Result<Vec<u32>> {
        let ids = self.encode_with(if parse_special { &self.0.special } else { &self.0.plain }, text)?;
        match self.0.bos_id {
            Some(bos) if add_bos && ids.first() != Some(&bos) => Ok(std::iter::once(bos).chain(ids).collect()),
            _ => Ok(ids),
        }
    }

    fn encode_with(&self, added: &AddedVocabulary, text: &str) -> Result<Vec<u32>> {
        let _span = debug_span!("tokenize", bytes = text.len()).entered();
        let splits = added.extract_and_normalize(self.0.normalizer.as_ref(), text);
        let ids = match &self.0.words {
            Words::SentencePiece(pre_tokenizer) => self.encode_pieces(pre_tokenizer.as_ref(), splits),
            Words::ByteLevel(splitter) => self.encode_words(splitter, &splits),
        };
        ids.map_err(|error| {
            Error::invalid_model(format!("the tokenizer cannot encode {} bytes of text: {error}", text.len()))
        })
    }

    fn encode_pieces(
        &self,
        pre_tokenizer: Option<&PreTokenizerWrapper>,
        mut splits: PreTokenizedString,
    ) -> tokenizers::Result<Vec<u32>> {
        if let Some(pre_tokenizer) = pre_tokenizer {
            pre_tokenizer.pre_tokenize(&mut splits)?;
        }
        splits.tokenize(|split| self.0.model.tokenize(split.get()))?;
        let splits = splits.get_splits(OffsetReferential::Normalized, OffsetType::None);
        Ok(splits.into_iter().flat_map(|(_, _, tokens)| tokens).flatten().map(|token| token.id).collect())
    }

    fn encode_words(&self, splitter: &Splitter, splits: &PreTokenizedString) -> tokenizers::Result<Vec<u32>> {
        let mut ids = Vec::new();
        let mut word = String::new();
        for (text, _, tokens) in splits.get_splits(OffsetReferential::Normalized, OffsetType::None) {
            if let Some(tokens) = tokens {
                ids.extend(tokens.iter().map(|token| token.id));
                continue;
            }
            for bytes in splitter.split(text) {
                byte_level::encode(bytes, &mut word);
                ids.extend(self.0.model.tokenize(&word)?.into_iter().map(|token| token.id));
            }
        }
        Ok(ids)
    }

    /// The ids of control tokens and of texts, in which nothing is a control token.
    ///
    /// Texts that stand side by side are one segment of text. A control token strips the whitespace beside
    /// it as it does in a string, also where that belongs to a message's content.
    pub(crate) fn encode_parts(&self, parts: &[Part<'_>]) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        let mut text = String::new();
        let mut strip_start = false;
        for part in parts {
            match part {
                Part::Text(more) => text.push_str(more),
                Part::Control(name) => {
                    let (id, token) = self.control(name).ok_or_else(|| {
                        Error::unsupported_model(format!(
                            "the chat template needs the control token {name}, which is not in the vocabulary of {} \
                             tokens; set tokenizer to the model's own tokenizer.json",
                            self.vocab_size()
                        ))
                    })?;
                    let segment = if strip_start { text.trim_start() } else { &text };
                    let segment = if token.lstrip { segment.trim_end() } else { segment };
                    ids.extend(self.encode_with(&self.0.plain, segment)?);
                    ids.push(id);
                    text.clear();
                    strip_start = token.rstrip;
                }
            }
        }
        let segment = if strip_start { text.trim_start() } else { &text };
        ids.extend(self.encode_with(&self.0.plain, segment)?);
        Ok(ids)
    }

    /// A control token by its text.
    pub(crate) fn control(&self, text: &str) -> Option<(u32, &AddedToken)> {
        let id = *self.0.special.get_vocab().get(text)?;
        self.0.control_ids.binary_search(&id).ok()?;
        Some((id, self.0.special.get_added_tokens_decoder().get(&id)?))
    }

    /// The text of ids. With `skip_special` control tokens and padding are left out.
    ///
    /// The space that encoding with a SentencePiece vocabulary puts in front of a text is taken off again. Bytes that
    /// are no UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// [`InvalidOption`](crate::ErrorKind::InvalidOption) for an id that the vocabulary does not have.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        let mut detokenizer = Detokenizer::new(&self.0.pieces, skip_special);
        let mut text = String::new();
        for id in ids {
            detokenizer.push(&self.0.pieces, *id, &mut text)?;
        }
        detokenizer.finish(&mut text);
        Ok(text)
    }

    /// A decoder for ids that come one by one. What it gives out, joined, is what
    /// [`decode`](Self::decode)`(ids, true)` gives.
    #[must_use]
    pub fn decoder(&self) -> StreamDecoder {
        StreamDecoder::new(Arc::clone(&self.0.pieces), true)
    }

    /// A decoder for ids that continue `prompt`.
    ///
    /// Behind a control token, or behind nothing, a text begins, and its first space is the one that encoding puts
    /// there. Behind text the space is a space: "Once upon a" goes on with " time".
    #[must_use]
    pub fn decoder_behind(&self, prompt: &[u32]) -> StreamDecoder {
        let begins_a_text = prompt.last().is_none_or(|last| self.0.control_ids.binary_search(last).is_ok());
        StreamDecoder::new(Arc::clone(&self.0.pieces), begins_a_text)
    }

    /// Which vocabulary of the family this is, if it is one of them.
    #[must_use]
    pub fn family(&self) -> Option<VocabularyFamily> {
        self.0.family
    }

    /// Number of ids: they go from 0 to one less.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.0.pieces.len()
    }

    /// A token's text as it stands in the vocabulary: with `▁` for a space in a SentencePiece vocabulary, and in
    /// the byte-level alphabet, with `Ġ` for a space, in the others.
    #[must_use]
    pub fn token_text(&self, id: u32) -> Option<&str> {
        self.0.pieces.get(id).map(|piece| &*piece.text)
    }

    /// The id of a token by its text as it stands in the vocabulary.
    #[must_use]
    pub fn token_id(&self, text: &str) -> Option<u32> {
        self.0.special.get_vocab().get(text).copied().or_else(|| self.0.model.token_to_id(text))
    }

    /// The token that begins a text.
    #[must_use]
    pub fn bos_id(&self) -> Option<u32> {
        self.0.bos_id
    }

    /// Whether a raw prompt begins with BOS, by the metadata.
    #[must_use]
    pub fn add_bos(&self) -> bool {
        self.0.add_bos
    }

    /// The token that ends a text, by the metadata. [`end_ids`](Self::end_ids) are all that end a generation.
    #[must_use]
    pub fn eos_id(&self) -> Option<u32> {
        self.0.eos_id
    }

    /// The tokens that end a text or a turn, sorted.
    #[must_use]
    pub fn end_ids(&self) -> &[u32] {
        &self.0.end_ids
    }

    /// The tokens that stand for no text and never come out of plain text, sorted.
    #[must_use]
    pub fn control_ids(&self) -> &[u32] {
        &self.0.control_ids
    }

    /// The ids that stand for nothing and must never be sampled, sorted.
    #[must_use]
    pub fn padding_ids(&self) -> &[u32] {
        &self.0.padding_ids
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size())
            .field("bos_id", &self.bos_id())
            .field("end_ids", &self.end_ids())
            .field("add_bos", &self.add_bos())
            .finish_non_exhaustive()
    }
}

fn no_vocabulary(gguf: &Gguf, key: &str) -> Error {
    Error::invalid_model(format!(
        "{}: the file has no vocabulary (metadata key {key}); set tokenizer to the path of the model's tokenizer.json",
        gguf.path().display()
    ))
}

/// The error with the file that it is about in front.
fn at(path: &dyn fmt::Display, error: &Error) -> Error {
    Error::new(error.kind(), format!("{path}: {error}"))
}
