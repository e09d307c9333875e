//! The BPE model of a tokenizer.json.

use std::collections::HashMap;

use tokenizers::models::bpe::{BPE, Merges, Vocab};

use super::{MergeEntry, ModelEntry};
use crate::{Error, Result};

pub(super) fn model(entry: ModelEntry, vocab: HashMap<String, u32>) -> Result<BPE> {
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
    let merges = merges(entry.merges, &vocab)?;
    let mut builder = BPE::builder()
        .fuse_unk(entry.fuse_unk)
        .byte_fallback(entry.byte_fallback)
        .ignore_merges(entry.ignore_merges)
        .cache_capacity(0);
    if let Some(unknown) = entry.unk_token {
        if !vocab.contains_key(&unknown) {
            return Err(Error::invalid_model(format!("model.unk_token must be in model.vocab, got {unknown:?}")));
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
