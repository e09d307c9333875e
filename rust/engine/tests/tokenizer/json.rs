//! tokenizer.json: what the file decides, and files that are damaged.

use candle_phi_engine::{ErrorKind, Tokenizer};
use serde_json::{Value, json};

use crate::messages::mentions;
use crate::phi3_decoder;

/// A small tokenizer.json: the letters and bytes of "the", merged.
fn small_json() -> Value {
    let mut vocab = serde_json::Map::new();
    vocab.insert("<unk>".into(), 0.into());
    for (position, piece) in ["▁", "t", "h", "e", "▁t", "he", "▁the"].iter().enumerate() {
        vocab.insert((*piece).into(), (position + 1).into());
    }
    let added = |id: u32, content: &str, rstrip: bool, special: bool| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": rstrip,
               "normalized": false, "special": special})
    };
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [added(0, "<unk>", false, true), added(8, "<s>", false, true), added(9, "</s>", true, false),
                         added(20, "<|end|>", true, true)],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": null,
        "post_processor": null,
        "decoder": phi3_decoder(),
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "vocab": vocab,
                  "merges": ["▁ t", "h e", "▁t he"]},
    })
}

fn load(json: &Value, config: Option<&Value>) -> candle_phi_engine::Result<Tokenizer> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokenizer.json");
    std::fs::write(&path, json.to_string()).unwrap();
    if let Some(config) = config {
        std::fs::write(directory.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    }
    Tokenizer::from_tokenizer_json(&path)
}

#[test]
fn tokenizer_json_decides_about_its_added_tokens() {
    let tokenizer = load(&small_json(), None).unwrap();
    assert_eq!(tokenizer.encode("<s>the<|end|> \u{a0}the</s>", false, true).unwrap(), [8, 7, 20, 7, 9]);
    assert_eq!(tokenizer.encode("the", true, false).unwrap(), [8, 7]);
    assert_eq!(tokenizer.encode("<s>", false, false).unwrap(), [1, 0]);
    // Ids 10 to 19 stand for nothing.
    assert_eq!(tokenizer.vocab_size(), 21);
    assert_eq!(tokenizer.padding_ids(), (10..20).collect::<Vec<u32>>());
    assert_eq!(tokenizer.control_ids(), [0, 8, 9, 20]);
    assert_eq!(tokenizer.end_ids(), [9, 20]);
    assert_eq!(tokenizer.decode(&[8, 7, 15, 9, 7], true).unwrap(), "the the");
    assert_eq!((tokenizer.bos_id(), tokenizer.add_bos()), (Some(8), false));
}

#[test]
fn post_processor_and_tokenizer_config_say_whether_bos_is_added() {
    let config = json!({"add_bos_token": true, "bos_token": {"content": "<s>"}, "eos_token": "<|end|>"});
    let tokenizer = load(&small_json(), Some(&config)).unwrap();
    assert_eq!((tokenizer.add_bos(), tokenizer.eos_id()), (true, Some(20)));

    let mut json = small_json();
    json["post_processor"] = json!({"type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [8], "tokens": ["<s>"]}}});
    let tokenizer = load(&json, None).unwrap();
    assert_eq!((tokenizer.bos_id(), tokenizer.add_bos()), (Some(8), true));
    // It is the caller who asks for it, also then.
    assert_eq!(tokenizer.encode("the", false, true).unwrap(), [7]);
}

#[test]
fn damaged_tokenizer_json_is_an_error_that_names_the_file() {
    let edit = |pointer: &str, value: Value| {
        let mut json = small_json();
        *json.pointer_mut(pointer).unwrap() = value;
        json
    };
    for (json, kind, mention) in [
        (edit("/model", Value::Null), ErrorKind::InvalidModel, "JSON"),
        (edit("/model/vocab", json!({})), ErrorKind::InvalidModel, "model.vocab"),
        (edit("/model/vocab", json!({"a": -1})), ErrorKind::InvalidModel, "model.vocab"),
        (edit("/model/vocab/t", json!(4_000_000_000_u32)), ErrorKind::InvalidModel, "4000000000"),
        (edit("/model/vocab/t", json!(4)), ErrorKind::InvalidModel, "4"),
        (edit("/model/merges", json!(["t e"])), ErrorKind::InvalidModel, "\"te\""),
        (edit("/model/merges", json!([["x", "e"]])), ErrorKind::InvalidModel, "\"x\""),
        (edit("/model/merges", json!(["te"])), ErrorKind::InvalidModel, "\"te\""),
        (edit("/model/unk_token", json!("none")), ErrorKind::InvalidModel, "\"none\""),
        (edit("/model/type", json!("Unigram")), ErrorKind::UnsupportedModel, "\"Unigram\""),
        (
            edit("/model/continuing_subword_prefix", json!("##")),
            ErrorKind::UnsupportedModel,
            "continuing_subword_prefix",
        ),
        (edit("/decoder", Value::Null), ErrorKind::UnsupportedModel, "decoder"),
        (edit("/decoder", json!({"type": "ByteLevel"})), ErrorKind::UnsupportedModel, "ByteLevel"),
        (edit("/normalizer", json!({"type": "Precompiled"})), ErrorKind::UnsupportedModel, "Precompiled"),
        (edit("/normalizer/normalizers/0", json!({"type": "Prepend"})), ErrorKind::InvalidModel, "normalizer"),
        (edit("/added_tokens/1/id", json!(3)), ErrorKind::InvalidModel, "\"<s>\""),
        (edit("/added_tokens/0/id", json!(30)), ErrorKind::InvalidModel, "\"<unk>\""),
    ] {
        let error = load(&json, None).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        mentions(&error, &[mention, "tokenizer.json"]);
    }
    let error = load(&small_json(), Some(&json!([]))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidModel);
    mentions(&error, &["tokenizer_config.json"]);
}

#[test]
fn tokenizer_json_that_is_missing_cut_short_or_a_directory_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokenizer.json");
    let error = Tokenizer::from_tokenizer_json(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ModelNotFound);
    let whole = small_json().to_string();
    for len in [0, 1, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole.as_bytes()[..len]).unwrap();
        let error = Tokenizer::from_tokenizer_json(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidModel);
        mentions(&error, &["tokenizer.json"]);
    }
    let error = Tokenizer::from_tokenizer_json(directory.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidModel);
}

#[test]
fn normalizers_that_can_make_a_text_longer_are_refused() {
    let replace = |from: &str, to: &str| json!({"type": "Replace", "pattern": {"String": from}, "content": to});
    for step in [
        replace("a", "aa"),
        replace("", "a"),
        json!({"type": "Replace", "pattern": {"Regex": ""}, "content": "a"}),
        json!({"type": "Prepend", "prepend": "▁▁"}),
        json!({"type": "Sequence", "normalizers": [{"type": "Sequence", "normalizers": [replace("a", "aa")]}]}),
        json!({"type": "Sequence", "normalizers": vec![json!({"type": "Prepend", "prepend": "▁"}); 100]}),
    ] {
        let mut json = small_json();
        json["normalizer"] = step;
        let error = load(&json, None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnsupportedModel, "{error}");
        mentions(&error, &["normalizer"]);
    }
    let mut json = small_json();
    json["normalizer"] = json!({"type": "Sequence", "normalizers": [replace(" ", "▁"), {"type": "NFC"}]});
    load(&json, None).unwrap();
}

#[test]
fn no_text_becomes_a_control_token_through_the_model() {
    const CONTROLS: [&str; 4] = ["<unk>", "<s>", "</s>", "<|end|>"];
    let mut json = small_json();
    for (text, id) in [("<s>", 8), ("</s>", 9), ("<|end|>", 20)] {
        json["model"]["vocab"][text] = id.into();
    }
    json["normalizer"] = Value::Null;
    let mut complete = json.clone();
    complete["model"]["ignore_merges"] = true.into();
    for byte in 0..=255 {
        complete["model"]["vocab"][format!("<0x{byte:02X}>")] = (100 + byte).into();
    }
    for unknown in [Value::Null, "<unk>".into(), "<|end|>".into()] {
        complete["model"]["unk_token"] = unknown;
        let tokenizer = load(&complete, None).unwrap();
        for text in CONTROLS.into_iter().chain(["中"]) {
            let ids = tokenizer.encode(text, false, false).unwrap();
            assert!(ids.iter().all(|id| !tokenizer.control_ids().contains(id)), "{text} {ids:?}");
            assert_eq!(tokenizer.decode(&ids, true).unwrap(), text);
        }
    }
    // Some bytes have no token: `<unk>` alone may stand for unknown text.
    load(&json, None).unwrap();
    json["model"]["unk_token"] = "<|end|>".into();
    let error = load(&json, None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidModel);
    mentions(&error, &["model.unk_token", "<|end|>"]);
    json["model"]["unk_token"] = "<unk>".into();
    json["model"]["ignore_merges"] = true.into();
    assert_eq!(load(&json, None).unwrap_err().kind(), ErrorKind::UnsupportedModel);
    json["model"]["ignore_merges"] = false.into();
    json["model"]["merges"].as_array_mut().unwrap().push("<|end|> e".into());
    assert_eq!(load(&json, None).unwrap_err().kind(), ErrorKind::InvalidModel);
}
