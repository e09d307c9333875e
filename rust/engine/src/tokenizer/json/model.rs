//! The BPE model of a tokenizer.json.

use std::collections::HashMap;

use tokenizers::models::bpe::{BPE, Merges, Vocab};

use super::super::spm::UNKNOWN;
use super::{Added, Joining, MergeEntry, ModelEntry};
use crate::{Error, Result};

/// The model that makes tokens of text.
///
/// Text must not become a control token, so the model does not have these: neither as a word (`ignore_merges`), nor by
/// a merge, nor for unknown text. Only `<unk>` stands for unknown text, if some bytes have no token.
pub(super) fn model(
    entry: ModelEntry,
    mut vocab: HashMap<String, u32>,
    added: &[Added],
    joining: Joining,
) -> Result<BPE> {
    let kind = entry.kind.as_deref().unwrap_or("BPE");
    if kind != "BPE" {
        return Err(Error::unsupported_model(format!("model.type must be \"BPE\", got {kind:?}")));
    }
    let affixes = [&entry.continuing_subword_prefix, &entry.end_of_word_suffix];
    if affixes.iter().any(|affix| affix.as_deref().is_some_and(|affix| !affix.is_empty())) {
        return Err(Error::unsupported_model(
            "model must have neither continuing_subword_prefix nor end_of_word_suffix, got one of them",
        ));
    }
    let unknown = unknown_token(&entry, &vocab, added, joining)?;
    let is_control = |text: &str| added.iter().any(|added| added.control && added.token.content == text);
    vocab.retain(|text, _| unknown.as_ref() == Some(text) || !is_control(text));
    let merges = merges(entry.merges, &vocab)?;
    let mut builder = BPE::builder()
        .fuse_unk(entry.fuse_unk)
        .byte_fallback(entry.byte_fallback)
        .ignore_merges(entry.ignore_merges)
        .cache_capacity(0);
    if let Some(unknown) = unknown {
        builder = builder.unk_token(unknown);
    }
    builder
        .vocab_and_merges(vocab.into_iter().collect::<Vocab>(), merges)
        .build()
        .map_err(|error| Error::invalid_model(format!("model: {error}")))
}

/// The token for unknown text, if there can be any.
fn unknown_token(
    entry: &ModelEntry,
    vocab: &HashMap<String, u32>,
    added: &[Added],
    joining: Joining,
) -> Result<Option<String>> {
    if let Some(unknown) = entry.unk_token.as_ref().filter(|unknown| !vocab.contains_key(*unknown)) {
        return Err(Error::invalid_model(format!("model.unk_token must be in model.vocab, got {unknown:?}")));
    }
    let bytes = || (0..=u8::MAX).all(|byte| vocab.contains_key(&format!("<0x{byte:02X}>")));
    if joining == Joining::ByteLevel || (entry.byte_fallback && bytes()) {
        return Ok(None);
    }
    let is_control = |text: &String| added.iter().any(|added| added.control && added.token.content == *text);
    match &entry.unk_token {
        Some(unknown) if unknown == UNKNOWN && entry.ignore_merges => Err(Error::unsupported_model(format!(
            "model.vocab must have a token for each of the 256 bytes if ignore_merges is set, got fewer and {UNKNOWN:?} for \
             unknown text"
        ))),
        Some(unknown) if unknown == UNKNOWN || !is_control(unknown) => Ok(Some(unknown.clone())),
        found => Err(Error::invalid_model(format!(
            "model.unk_token must be {UNKNOWN:?} if model.vocab does not have a token for each of the 256 bytes, got {}",
            found.as_ref().map_or_else(|| "none".to_owned(), |unknown| format!("the control token {unknown:?}"))
        ))),
    }
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
                        "model.merges must have two pieces at position {position}, got {line:?}"
                    )));
                }
            },
        };
        merged.clear();
        merged.extend([left.as_str(), right.as_str()]);
        if let Some(missing) = [&left, &right, &merged].into_iter().find(|text| !vocab.contains_key(*text)) {
            return Err(Error::invalid_model(format!(
                "model.merges must have pieces of model.vocab at position {position}, got {missing:?}"
            )));
        }
        Ok((left, right))
    });
    merges.collect()
}
