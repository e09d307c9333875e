//! A tokenizer.json, as the `tokenizers` library writes it.
//!
//! The file is read by its parts, and each is checked before the library builds it: the library takes
//! more than the engine can decode, and panics at some files that are damaged.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::{AddedToken, NormalizerWrapper, PreTokenizerWrapper};

use super::{Added, Parts, Piece, PieceKind, Pieces, byte_of, is_control_text};
use crate::file::read_regular;
use crate::{Error, Result};

/// Ids are positions in a table: a damaged file must not ask for one of gigabytes.
const MAX_ID: u32 = 1 << 20;

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
        Error::model_not_found(format!("no such file: {shown}; expected the path of a model's tokenizer.json"))
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
        let message = format!("{}: expected {expected}, found damaged JSON: {error}", path.display());
        Error::invalid_model(message).with_source(error)
    })
}

fn build(file: TokenizerFile, config: &ConfigFile) -> Result<Parts> {
    let normalizer: Option<NormalizerWrapper> =
        component("normalizer", file.normalizer.as_ref(), &["Sequence", "Prepend", "Replace", "NFC"])?;
    let pre_tokenizer: Option<PreTokenizerWrapper> =
        component("pre_tokenizer", file.pre_tokenizer.as_ref(), &["Sequence", "Metaspace"])?;
    let strip_first_space = spm_decoder(file.decoder.as_ref())?;

    let vocab = vocab(&file.model.vocab)?;
    let added = added(file.added_tokens, &vocab)?;
    let eos_texts: Vec<&str> = config.eos.iter().map(ConfigToken::text).chain(["<|endoftext|>", "</s>"]).collect();
    let id_of = |text: &str| {
        let added = added.iter().find(|added| added.token.content == text).map(|added| added.id);
        added.or_else(|| vocab.get(text).copied())
    };
    let eos_id = eos_texts.into_iter().find_map(id_of);
    let template_bos = file.post_processor.as_ref().and_then(first_special_token);
    let bos_texts = template_bos.into_iter().chain(config.bos.as_ref().map(ConfigToken::text)).chain(["<s>"]);
    let bos_id = bos_texts.into_iter().find_map(id_of);
    let add_bos = template_bos.is_some() || config.add_bos.unwrap_or(false);

    let pieces = Pieces::new(pieces(&vocab, &added, eos_id, file.model.byte_fallback)?, strip_first_space);
    let model = model(file.model, vocab)?;
    Ok(Parts { model, normalizer, pre_tokenizer, pieces, added, bos_id, eos_id, add_bos })
}

/// A component that the `tokenizers` library builds, if it is of one of the `known` types.
fn component<T: DeserializeOwned>(name: &str, value: Option<&Value>, known: &[&str]) -> Result<Option<T>> {
    let Some(value) = value else { return Ok(None) };
    check_types(name, value, known)?;
    T::deserialize(value)
        .map(Some)
        .map_err(|error| Error::invalid_model(format!("damaged {name}: {error}")).with_source(error))
}

fn check_types(name: &str, value: &Value, known: &[&str]) -> Result<()> {
    let kind = type_of(value);
    if !known.contains(&kind) {
        return Err(Error::unsupported_model(format!(
            "{name}: expected one of {}, found {kind:?}, which is not supported",
            known.join(", ")
        )));
    }
    let steps = ["normalizers", "pretokenizers"].iter().filter_map(|key| value.get(key)?.as_array()).flatten();
    // Nesting is bounded: the JSON parser refuses what is nested deeper than 128.
    steps.into_iter().try_for_each(|step| check_types(name, step, known))
}

fn type_of(component: &Value) -> &str {
    component.get("type").and_then(Value::as_str).unwrap_or_default()
}

/// Checks that the file decodes as a SentencePiece vocabulary does; true if it strips the first space.
fn spm_decoder(decoder: Option<&Value>) -> Result<bool> {
    let steps = decoder.and_then(|decoder| decoder.get("decoders")?.as_array()).map_or(&[][..], Vec::as_slice);
    let kinds: Vec<&str> = steps.iter().map(type_of).collect();
    let replaces_marks = steps.first().is_some_and(|step| {
        step.pointer("/pattern/String").and_then(Value::as_str) == Some("▁")
            && step.get("content").and_then(Value::as_str) == Some(" ")
    });
    let strips_first = steps.get(3).is_none_or(|step| {
        step.get("content").and_then(Value::as_str) == Some(" ")
            && step.get("start").and_then(Value::as_u64) == Some(1)
            && step.get("stop").and_then(Value::as_u64) == Some(0)
    });
    match kinds.as_slice() {
        ["Replace", "ByteFallback", "Fuse", rest @ ..] if replaces_marks && strips_first => match rest {
            [] => Some(false),
            ["Strip"] => Some(true),
            _ => None,
        },
        _ => None,
    }
    .ok_or_else(|| {
        let found = decoder.map_or("none", type_of);
        Error::unsupported_model(format!(
            "decoder: expected a Sequence of Replace (\"▁\" by \" \"), ByteFallback, Fuse and Strip, as Phi-3's, \
             found {found:?} of [{}]",
            kinds.join(", ")
        ))
    })
}

fn vocab(value: &Value) -> Result<HashMap<String, u32>> {
    HashMap::deserialize(value).map_err(|error| {
        Error::invalid_model(format!("model.vocab: expected token ids by text: {error}")).with_source(error)
    })
}

fn added(entries: Vec<AddedEntry>, vocab: &HashMap<String, u32>) -> Result<Vec<Added>> {
    let mut texts: HashMap<u32, String> = HashMap::new();
    for AddedEntry { id, token } in &entries {
        let other = vocab.get(&token.content).filter(|known| *known != id).map(|known| format!("id {known}"));
        let other = other.or_else(|| texts.insert(*id, token.content.clone()));
        if let Some(other) = other {
            return Err(Error::invalid_model(format!(
                "added_tokens: {:?} has id {id}, which contradicts {other} of the same file",
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
    byte_fallback: bool,
) -> Result<Vec<Piece>> {
    let last = vocab.values().copied().chain(added.iter().map(|added| added.id)).max();
    let Some(last) = last.filter(|last| *last < MAX_ID) else {
        let found = last.map_or_else(|| "no tokens".to_owned(), |last| format!("id {last}"));
        return Err(Error::invalid_model(format!(
            "model.vocab: expected token ids below {MAX_ID}, found {found}"
        )));
    };
    let mut table: Vec<Option<Piece>> = (0..=last).map(|_| None).collect();
    let mut place = |id: u32, piece: Piece| -> Result<()> {
        let Some(slot) = usize::try_from(id).ok().and_then(|id| table.get_mut(id)) else { return Ok(()) };
        match slot {
            Some(other) if other.text != piece.text => Err(Error::invalid_model(format!(
                "model.vocab: {:?} and {:?} have the same token id {id}",
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
        let kind = byte.map_or(PieceKind::Text, PieceKind::Byte);
        place(*id, Piece { text: text.as_str().into(), kind })?;
    }
    for Added { id, token, .. } in added {
        // Phi-3's `</s>` is no special token in the file, but it ends a text all the same.
        let hidden = token.special || Some(*id) == eos_id || super::END_TEXTS.contains(&token.content.as_str());
        let kind = if hidden { PieceKind::Control } else { PieceKind::Text };
        place(*id, Piece { text: token.content.as_str().into(), kind })?;
    }
    let gap = || Piece { text: "".into(), kind: PieceKind::Padding };
    Ok(table.into_iter().map(|piece| piece.unwrap_or_else(gap)).collect())
}

fn model(entry: ModelEntry, vocab: HashMap<String, u32>) -> Result<BPE> {
    let kind = entry.kind.as_deref().unwrap_or("BPE");
    if kind != "BPE" {
        return Err(Error::unsupported_model(format!("model.type: expected \"BPE\", found {kind:?}")));
    }
    let affixes = [&entry.continuing_subword_prefix, &entry.end_of_word_suffix];
    if affixes.iter().any(|affix| affix.as_deref().is_some_and(|affix| !affix.is_empty())) {
        return Err(Error::unsupported_model(
            "model: expected no continuing_subword_prefix and no end_of_word_suffix, found one",
        ));
    }
    let merges = merges(entry.merges, &vocab)?;
    let mut builder = BPE::builder()
        .fuse_unk(entry.fuse_unk)
        .byte_fallback(entry.byte_fallback)
        .ignore_merges(entry.ignore_merges)
        .cache_capacity(0);
    if let Some(unknown) = entry.unk_token {
        if !vocab.contains_key(&unknown) {
            return Err(Error::invalid_model(format!("model.unk_token: {unknown:?} is not in model.vocab")));
        }
        builder = builder.unk_token(unknown);
    }
    builder
        .vocab_and_merges(vocab.into_iter().collect::<Vocab>(), merges)
        .build()
        .map_err(|error| Error::invalid_model(format!("model: {error}")))
}

fn merges(entries: Vec<MergeEntry>, vocab: &HashMap<String, u32>) -> Result<Merges> {
    let mut merged = String::new();
    let merges = entries.into_iter().enumerate().map(|(position, entry)| {
        let (left, right) = match entry {
            MergeEntry::Pair(left, right) => (left, right),
            MergeEntry::Line(line) => match line.split_once(' ') {
                Some((left, right)) => (left.to_owned(), right.to_owned()),
                None => {
                    return Err(Error::invalid_model(format!(
                        "model.merges: expected two pieces at position {position}, found {line:?}"
                    )));
                }
            },
        };
        merged.clear();
        merged.extend([left.as_str(), right.as_str()]);
        if let Some(missing) = [&left, &right, &merged].into_iter().find(|text| !vocab.contains_key(*text)) {
            return Err(Error::invalid_model(format!(
                "model.merges: {missing:?} at position {position} is not in model.vocab"
            )));
        }
        Ok((left, right))
    });
    merges.collect()
}

/// The token that a post-processor puts in front of a text.
fn first_special_token(post_processor: &Value) -> Option<&str> {
    match type_of(post_processor) {
        "Sequence" => post_processor.get("processors")?.as_array()?.iter().find_map(first_special_token),
        "TemplateProcessing" => post_processor.pointer("/single/0/SpecialToken/id")?.as_str(),
        _ => None,
    }
}
