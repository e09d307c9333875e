//! Metadata that is damaged, incomplete or of another kind.

use candle_phi_engine::{ErrorKind, Tokenizer, TokenizerOptions};

use crate::messages::mentions;
use crate::vocabulary::{Meta, NORMAL, SmallVocabulary, gguf};

#[test]
fn damaged_metadata_is_an_error_that_names_key_expected_and_found() {
    let good = SmallVocabulary::default;
    let size = good().texts.len();
    let longer = |change: fn(&mut SmallVocabulary)| {
        let mut vocabulary = good();
        change(&mut vocabulary);
        vocabulary
    };
    let all: [(SmallVocabulary, &[&str]); 12] = [
        (longer(|v| v.scores.truncate(7)), &["tokenizer.ggml.scores", &size.to_string(), "7"]),
        (longer(|v| v.types.truncate(7)), &["tokenizer.ggml.token_type", &size.to_string(), "7"]),
        (longer(|v| v.types[9] = 77), &["tokenizer.ggml.token_type", "1", "6", "77", "9"]),
        (longer(|v| v.types[9] = -1), &["tokenizer.ggml.token_type"]),
        (longer(|v| v.scores[9] = f32::NAN), &["tokenizer.ggml.scores", "NaN", "9"]),
        (longer(|v| v.texts[9] = "<0xZZ>".into()), &["tokenizer.ggml.tokens", "9", "<0xZZ>"]),
        (longer(|v| v.add(&"x".repeat(100_000), 0.0, NORMAL)), &["tokenizer.ggml.tokens", "100000"]),
        (good().with("tokenizer.ggml.bos_token_id", Meta::U32(1 << 31)), &["bos_token_id", "2147483648"]),
        (good().with("tokenizer.ggml.eos_token_id", "x"), &["eos_token_id", "\"x\""]),
        (good().with("tokenizer.ggml.scores", "x"), &["tokenizer.ggml.scores", "\"x\""]),
        (
            good().with("tokenizer.ggml.tokens", Meta::Strings(vec![])),
            &["tokenizer.ggml.tokens", "tokenizer.json"],
        ),
        (good().with("tokenizer.ggml.add_bos_token", "x"), &["add_bos_token", "\"x\""]),
    ];
    for (vocabulary, values) in all {
        let error = Tokenizer::from_gguf(&vocabulary.gguf(), &TokenizerOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidModel, "{error}");
        mentions(&error, values);
    }
}

#[test]
fn file_without_a_vocabulary_or_of_another_kind_says_so() {
    let open = |metadata: &[(&str, Meta)]| {
        Tokenizer::from_gguf(&gguf(metadata), &TokenizerOptions::default()).unwrap_err()
    };
    let error = open(&[("general.architecture", "phi3".into())]);
    assert_eq!(error.kind(), ErrorKind::InvalidModel);
    mentions(&error, &["tokenizer.ggml.model", "tokenizer.json"]);
    let error = open(&[("tokenizer.ggml.model", "llama".into())]);
    assert_eq!(error.kind(), ErrorKind::InvalidModel);
    mentions(&error, &["tokenizer.json"]);
    let error = open(&[("tokenizer.ggml.model", "rwkv".into())]);
    assert_eq!(error.kind(), ErrorKind::UnsupportedModel);
    mentions(&error, &["\"rwkv\""]);
}

#[test]
fn vocabulary_that_cannot_encode_every_text_is_refused() {
    let mut vocabulary = SmallVocabulary::default();
    vocabulary.texts[0] = "<nothing>".into();
    vocabulary.texts[9] = "other".into();
    vocabulary.types[9] = NORMAL;
    vocabulary.keys.retain(|(key, _)| !key.contains("unknown"));
    let error = Tokenizer::from_gguf(&vocabulary.gguf(), &TokenizerOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidModel);
    mentions(&error, &["256", "255"]);
}
