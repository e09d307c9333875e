//! A tokenizer.json, as the `tokenizers` library writes it.
//!
//! The file is read by its parts, and each is checked before the library builds it: the library takes
//! more than the engine can decode, and panics at some files that are damaged.

mod components;
mod model;

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokenizers::AddedToken;

use super::bpe::check_coverage;
use super::family::{is_control_text, is_reserved};
use super::vocabulary::MAX_TOKENS;
use super::{Added, Joining, Parts, Piece, PieceKind, Pieces, byte_of};
use crate::file::read_regular;
use crate::{Error, Result};
use components::{Components, first_special_token};
use model::model;

#[derive(Deserialize)]
struct TokenizerFile {
    #[serde(default)]
    added_tokens: Vec<AddedEntry>,
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    post_processor: Option<Value>,
    decoder: Option<Value>,
    model: ModelEntry,
}

#[derive(Deserialize)]
struct AddedEntry {
    id: u32,
    #[serde(flatten)]
    token: AddedToken,
}

#[derive(Deserialize)]
struct ModelEntry {
    #[serde(rename = "type")]
    kind: Option<String>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    fuse_unk: bool,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
    vocab: Value,
    #[serde(default)]
    merges: Vec<MergeEntry>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum MergeEntry {
    Line(String),
    Pair(String, String),
}

/// What a tokenizer_config.json says that a tokenizer.json may leave open.
#[derive(Default, Deserialize)]
struct ConfigFile {
    #[serde(rename = "add_bos_token")]
    add_bos: Option<bool>,
    #[serde(rename = "bos_token")]
    bos: Option<ConfigToken>,
    #[serde(rename = "eos_token")]
    eos: Option<ConfigToken>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ConfigToken {
    Text(String),
    Entry { content: String },
}

impl ConfigToken {
    fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Entry { content: text } => text,
        }
    }
}

/// More than any tokenizer.json has: those of the family have 2 to 16 MB.
const MAX_BYTES: u64 = 256 << 20;

pub(super) fn parts(path: &Path) -> Result<Parts> {
    let shown = path.display();
    let file = read_regular(path, "a tokenizer.json", MAX_BYTES)?.ok_or_else(|| {
        Error::model_not_found(format!("no such file: {shown}; give the path of the model's tokenizer.json"))
    })?;
    let file: TokenizerFile = parse(&file, path, "a tokenizer.json")?;
    let config_path = path.with_file_name("tokenizer_config.json");
    let config: ConfigFile = match read_regular(&config_path, "a tokenizer_config.json", MAX_BYTES)? {
        Some(bytes) => parse(&bytes, &config_path, "a tokenizer_config.json")?,
        None => ConfigFile::default(),
    };
    build(file, &config).map_err(|error| super::at(&shown, &error))
}

fn parse<T: DeserializeOwned>(bytes: &[u8], path: &Path, expected: &str) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| {
        let message =
            format!("{} must be {expected}, got invalid JSON: {error}; download it again", path.display());
        Error::invalid_model(message).with_source(error)
    })
}

fn build(file: TokenizerFile, config: &ConfigFile) -> Result<Parts> {
    let components =
        Components::read(file.normalizer.as_ref(), file.pre_tokenizer.as_ref(), file.decoder.as_ref())?;
    let Components { kind, normalizer, words, joining } = components;

    let vocab = vocab(&file.model.vocab)?;
    if joining == Joining::ByteLevel {
        check_coverage("model.vocab", |text| vocab.contains_key(text))?;
    }
    let mut added = added(file.added_tokens, &vocab)?;
    let eos_texts: Vec<&str> = config.eos.iter().map(ConfigToken::text).chain(["<|endoftext|>", "</s>"]).collect();
    let id_of = |text: &str| {
        let id = added.iter().find(|added| added.token.content == text).map(|added| added.id);
        id.or_else(|| vocab.get(text).copied())
    };
    let eos_id = eos_texts.into_iter().find_map(id_of);
    let template_bos = file.post_processor.as_ref().and_then(first_special_token);
    let bos_fallback = if joining == Joining::ByteLevel { ["<|endoftext|>"] } else { ["<s>"] };
    let bos_texts = template_bos.into_iter().chain(config.bos.as_ref().map(ConfigToken::text)).chain(bos_fallback);
    let bos_id = bos_texts.into_iter().find_map(id_of);
    for token in &mut added {
        token.control |= [bos_id, eos_id].contains(&Some(token.id));
    }
    let add_bos = template_bos.is_some() || config.add_bos.unwrap_or(false);

    let byte_fallback = file.model.byte_fallback;
    let pieces = Pieces::new(pieces(&vocab, &added, eos_id, joining, byte_fallback)?, joining);
    let model = model(file.model, vocab, &added, joining)?;
    Ok(Parts { kind, model, normalizer, words, pieces, added, bos_id, eos_id, eot_id: None, add_bos })
}

fn vocab(value: &Value) -> Result<HashMap<String, u32>> {
    HashMap::deserialize(value).map_err(|error| {
        Error::invalid_model(format!("model.vocab must map texts to token ids: {error}")).with_source(error)
    })
}

fn added(entries: Vec<AddedEntry>, vocab: &HashMap<String, u32>) -> Result<Vec<Added>> {
    let mut texts: HashMap<u32, String> = HashMap::new();
    for AddedEntry { id, token } in &entries {
        let other = vocab.get(&token.content).filter(|known| *known != id).map(|known| format!("id {known}"));
        let other = other.or_else(|| texts.insert(*id, token.content.clone()));
        if let Some(other) = other {
            return Err(Error::invalid_model(format!(
                "added_tokens must agree with the rest of the file, got {:?} with the id {id}, and {other} elsewhere",
                token.content
            )));
        }
    }
    let added = entries.into_iter().map(|AddedEntry { id, token }| {
        let control = token.special || is_control_text(&token.content);
        Added { id, token, control }
    });
    Ok(added.collect())
}

fn pieces(
    vocab: &HashMap<String, u32>,
    added: &[Added],
    eos_id: Option<u32>,
    joining: Joining,
    byte_fallback: bool,
) -> Result<Vec<Piece>> {
    let last = vocab.values().copied().chain(added.iter().map(|added| added.id)).max();
    let Some(last) = last.filter(|last| *last < MAX_TOKENS) else {
        let found = last.map_or_else(|| "no tokens".to_owned(), |last| last.to_string());
        return Err(Error::invalid_model(format!(
            "model.vocab must have token ids below {MAX_TOKENS}, got {found}"
        )));
    };
    let mut table: Vec<Option<Piece>> = (0..=last).map(|_| None).collect();
    let mut place = |id: u32, piece: Piece| -> Result<()> {
        let Some(slot) = usize::try_from(id).ok().and_then(|id| table.get_mut(id)) else { return Ok(()) };
        match slot {
            Some(other) if other.text != piece.text => Err(Error::invalid_model(format!(
                "model.vocab must have different token ids, got {:?} and {:?} with the token id {id}",
                other.text, piece.text
            ))),
            _ => {
                *slot = Some(piece);
                Ok(())
            }
        }
    };
    for (text, id) in vocab {
        let byte = byte_of(text).filter(|_| byte_fallback);
        let kind = match joining {
            Joining::ByteLevel => PieceKind::ByteLevel,
            Joining::SentencePiece { .. } => byte.map_or(PieceKind::Text, PieceKind::Byte),
        };
        place(*id, Piece { text: text.as_str().into(), kind })?;
    }
    for Added { id, token, .. } in added {
        // Phi-3's `</s>` is no special token in the file, but it ends a text all the same.
        let hidden = token.special || Some(*id) == eos_id || super::END_TEXTS.contains(&token.content.as_str());
        let kind = match hidden {
            _ if is_reserved(&token.content) => PieceKind::Padding,
            true => PieceKind::Control,
            false => PieceKind::Text,
        };
        place(*id, Piece { text: token.content.as_str().into(), kind })?;
    }
    let gap = || Piece { text: "".into(), kind: PieceKind::Padding };
    Ok(table.into_iter().map(|piece| piece.unwrap_or_else(gap)).collect())
}
