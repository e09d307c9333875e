//! What a tokenizer.json does around its model: normalizing, splitting, decoding.

use serde::de::DeserializeOwned;
use serde_json::Value;
use tokenizers::{NormalizerWrapper, PreTokenizerWrapper};

use super::super::split::{GPT2, PRE_TOKENIZERS, Splitter};
use super::super::{Joining, VocabularyKind, Words};
use crate::{Error, Result};

/// The components, which must be those of one of the family's vocabularies.
pub(super) struct Components {
    pub(super) kind: VocabularyKind,
    pub(super) normalizer: Option<NormalizerWrapper>,
    pub(super) words: Words,
    pub(super) joining: Joining,
}

impl Components {
    pub(super) fn read(
        normalizer: Option<&Value>,
        pre_tokenizer: Option<&Value>,
        decoder: Option<&Value>,
    ) -> Result<Self> {
        if decoder.is_some_and(is_byte_level) {
            let (kind, splitter) = byte_level_words(pre_tokenizer)?;
            return Ok(Self {
                kind,
                normalizer: self::normalizer(normalizer, &["Sequence", "NFC"])?,
                words: Words::ByteLevel(splitter),
                joining: Joining::ByteLevel,
            });
        }
        let known = ["Sequence", "Prepend", "Replace", "NFC"];
        let pre_tokenizer: Option<PreTokenizerWrapper> =
            component("pre_tokenizer", pre_tokenizer, &["Sequence", "Metaspace"])?;
        Ok(Self {
            kind: VocabularyKind::SentencePiece,
            normalizer: self::normalizer(normalizer, &known)?,
            words: Words::SentencePiece(pre_tokenizer),
            joining: Joining::SentencePiece { strip_first_space: spm_decoder(decoder)? },
        })
    }
}

/// A normalizer of one of the `known` types, which makes a text longer by a few characters at most.
fn normalizer(value: Option<&Value>, known: &[&str]) -> Result<Option<NormalizerWrapper>> {
    const MAX_STEPS: usize = 16;
    let normalizer = component("normalizer", value, known)?;
    let mut steps = 0;
    for step in value.into_iter().flat_map(normalizer_steps) {
        steps += 1;
        let content = step.get("content").and_then(Value::as_str).unwrap_or_default().chars().count();
        let (is_bounded, wanted) = match type_of(step) {
            "Prepend" => {
                let prepended = step.get("prepend").and_then(Value::as_str).unwrap_or_default();
                (prepended.chars().count() == 1, "a Prepend of one character")
            }
            "Replace" => {
                let pattern = step.pointer("/pattern/String").and_then(Value::as_str).unwrap_or_default();
                let is_bounded = (1..=pattern.chars().count()).contains(&content);
                (is_bounded, "a Replace of a string by one that is not longer")
            }
            _ => (true, ""),
        };
        if !is_bounded {
            return Err(Error::unsupported_model(format!(
                "normalizer must not make texts longer: it must have {wanted}, got another one; use the tokenizer of a \
                 Phi model"
            )));
        }
    }
    if steps > MAX_STEPS {
        return Err(Error::unsupported_model(format!(
            "normalizer must have at most {MAX_STEPS} steps, got {steps}; use the tokenizer of a Phi model"
        )));
    }
    Ok(normalizer)
}

/// A normalizer's steps, those of nested sequences included, or itself.
fn normalizer_steps(normalizer: &Value) -> Vec<&Value> {
    match normalizer.get("normalizers").and_then(Value::as_array) {
        Some(steps) => steps.iter().flat_map(normalizer_steps).collect(),
        None => vec![normalizer],
    }
}

/// A component that the `tokenizers` library builds, if it is of one of the `known` types.
fn component<T: DeserializeOwned>(name: &str, value: Option<&Value>, known: &[&str]) -> Result<Option<T>> {
    let Some(value) = value else { return Ok(None) };
    check_types(name, value, known)?;
    T::deserialize(value)
        .map(Some)
        .map_err(|error| Error::invalid_model(format!("{name} is damaged: {error}")).with_source(error))
}

fn check_types(name: &str, value: &Value, known: &[&str]) -> Result<()> {
    let kind = type_of(value);
    if !known.contains(&kind) {
        return Err(Error::unsupported_model(format!(
            "{name} must be one of {}, got {kind:?}; use the tokenizer of a Phi model",
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
            "decoder must be a Sequence of Replace (\"▁\" by \" \"), ByteFallback, Fuse and Strip, as for Phi-3, or \
             ByteLevel, as for Phi-4, got {found:?} of [{}]; use the tokenizer of a Phi model",
            kinds.join(", ")
        ))
    })
}

/// Whether this is a decoder of byte-level pieces, alone or as the only step of a sequence.
fn is_byte_level(decoder: &Value) -> bool {
    match decoder.get("decoders").and_then(Value::as_array).map(Vec::as_slice) {
        None => type_of(decoder) == "ByteLevel",
        Some([only]) => type_of(only) == "ByteLevel",
        Some(_) => false,
    }
}

/// How a byte-level vocabulary splits text: by GPT-2's regex, which `ByteLevel` carries, or by one in front of it.
fn byte_level_words(pre_tokenizer: Option<&Value>) -> Result<(VocabularyKind, Splitter)> {
    let steps = pre_tokenizer.map_or_else(Vec::new, steps);
    let is_set = |step: &Value, key: &str| step.get(key).and_then(Value::as_bool);
    let byte_level = |step: &Value, use_regex: bool| {
        type_of(step) == "ByteLevel"
            && is_set(step, "add_prefix_space") == Some(false)
            // Files that are older than the key split by the regex.
            && is_set(step, "use_regex").unwrap_or(true) == use_regex
    };
    // The words are what matches, or what is left when all that does not match is removed.
    let keeps_matches = |step: &Value| {
        matches!(
            (step.get("behavior").and_then(Value::as_str), is_set(step, "invert")),
            (Some("Isolated"), Some(_)) | (Some("Removed"), Some(true))
        )
    };
    let pattern = match steps.as_slice() {
        [words] if byte_level(words, true) => Some(GPT2),
        [split, words] if type_of(split) == "Split" && keeps_matches(split) && byte_level(words, false) => {
            split.pointer("/pattern/Regex").and_then(Value::as_str)
        }
        _ => None,
    };
    let Some(pattern) = pattern else {
        let found: Vec<&str> = steps.into_iter().map(type_of).collect();
        return Err(Error::unsupported_model(format!(
            "pre_tokenizer must be ByteLevel with its regex, or a Split by a regex (Isolated, or Removed and inverted) \
             and ByteLevel without its own, both with add_prefix_space false, got [{}] with other settings; use the \
             tokenizer of a Phi model",
            found.join(", ")
        )));
    };
    let known = PRE_TOKENIZERS.iter().find(|known| known.pattern == pattern);
    Ok((known.map_or(VocabularyKind::ByteLevel, |known| known.kind), Splitter::new(pattern)?))
}

/// A pre-tokenizer's steps, or itself.
fn steps(pre_tokenizer: &Value) -> Vec<&Value> {
    let steps = pre_tokenizer.get("pretokenizers").and_then(Value::as_array);
    steps.map_or_else(|| vec![pre_tokenizer], |steps| steps.iter().collect())
}

/// The token that a post-processor puts in front of a text.
pub(super) fn first_special_token(post_processor: &Value) -> Option<&str> {
    match type_of(post_processor) {
        "Sequence" => post_processor.get("processors")?.as_array()?.iter().find_map(first_special_token),
        "TemplateProcessing" => post_processor.pointer("/single/0/SpecialToken/id")?.as_str(),
        _ => None,
    }
}
