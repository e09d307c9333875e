//! A small byte-level vocabulary: what its metadata and its tokenizer.json decide, and files that are damaged.

use std::collections::HashMap;

use candle_phi_engine::{ErrorKind, Result, Tokenizer, TokenizerOptions, VocabularyFamily};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::messages::mentions;
use crate::vocabulary::byte_level::{ByteVocabulary, CL100K, GPT2};
use crate::vocabulary::{BYTE, CONTROL, Meta, NORMAL, UNUSED, USER_DEFINED, runner};
use crate::{decoded, streamed};

/// A small one with the control tokens of Phi-4.
fn phi4() -> ByteVocabulary {
    let mut vocabulary = ByteVocabulary::small("dbrx");
    for text in ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im_sep|>", "<|dummy_0|>"] {
        vocabulary.add(text, CONTROL);
    }
    vocabulary
}

/// A small one with the control tokens of Phi-4-mini, some of them typed as the official Phi-3 file types them.
fn phi4_mini() -> ByteVocabulary {
    let mut vocabulary = ByteVocabulary::small("gpt-4o");
    for (text, token_type) in [
        ("<|endoftext|>", CONTROL),
        ("<|user|>", USER_DEFINED),
        ("<|assistant|>", CONTROL),
        ("<|end|>", USER_DEFINED),
        ("<|tool_call|>", CONTROL),
        ("<|/tool_call|>", USER_DEFINED),
    ] {
        vocabulary.add(text, token_type);
    }
    vocabulary
}

fn open(vocabulary: &ByteVocabulary) -> Result<Tokenizer> {
    Tokenizer::from_gguf(&vocabulary.gguf(), &TokenizerOptions::default())
}

#[test]
fn control_tokens_strip_white_space_unless_asked_not_to() {
    let vocabulary = phi4();
    let text = "the \n<|im_end|>\u{a0} the<|im_sep|>the";
    let ids = vocabulary.tokenizer().encode(text, false, true).unwrap();
    assert_eq!(ids, vocabulary.ids(&["the", "<|im_end|>", "the", "<|im_sep|>", "the"]));
    let keeping = TokenizerOptions { rstrip_control_tokens: false };
    let keeping = Tokenizer::from_gguf(&vocabulary.gguf(), &keeping).unwrap();
    let ids = keeping.encode(text, false, true).unwrap();
    let parts = ["the", "Ġ", "Ċ", "<|im_end|>", "Â", "ł", "Ġthe", "<|im_sep|>", "the"];
    assert_eq!(ids, vocabulary.ids(&parts));

    let vocabulary = phi4_mini();
    let ids = vocabulary.tokenizer().encode("the <|end|> the<|endoftext|> the", false, true).unwrap();
    assert_eq!(ids, vocabulary.ids(&["the", "Ġ", "<|end|>", "the", "<|endoftext|>", "Ġthe"]));
}

#[test]
fn control_tokens_are_parsed_only_where_asked_whatever_their_type() {
    for vocabulary in [phi4(), phi4_mini()] {
        let tokenizer = vocabulary.tokenizer();
        for text in ["<|end|>", "<|user|>the", "<|im_end|>", "<|endoftext|>", "<|tool_call|>", "<|/tool_call|>"] {
            let plain = tokenizer.encode(text, false, false).unwrap();
            assert!(plain.iter().all(|id| !tokenizer.control_ids().contains(id)), "{text}: {plain:?}");
            assert_eq!((decoded(&tokenizer, &plain), streamed(&tokenizer, &plain)), (text.into(), text.into()));
        }
    }
}

#[test]
fn control_tokens_that_a_converter_took_for_pieces_of_text_are_control_tokens() {
    let mut vocabulary = phi4();
    vocabulary.types = vec![NORMAL; vocabulary.types.len()];
    let (tokenizer, expected) = (vocabulary.tokenizer(), phi4().tokenizer());
    assert_eq!(tokenizer.family(), Some(VocabularyFamily::Phi4));
    assert_eq!(tokenizer.control_ids(), expected.control_ids());
    assert_eq!(tokenizer.end_ids(), expected.end_ids());
    assert_eq!(decoded(&tokenizer, &vocabulary.ids(&["the", "<|im_end|>"])), "the");
    // Also not where merges make one.
    for (left, right) in [("<|", "t"), ("<|t", "a"), ("<|ta", "g"), ("<|tag", "|>")] {
        vocabulary.add(&[left, right].concat(), NORMAL);
        vocabulary.merges.push(format!("{left} {right}"));
    }
    let error = open(&vocabulary).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidModel);
    mentions(&error, &["\"<|tag|>\""]);
}

#[test]
fn calls_of_tools_are_shown_and_other_control_tokens_are_not() {
    let vocabulary = phi4_mini();
    let tokenizer = vocabulary.tokenizer();
    let ids = vocabulary.ids(&["<|assistant|>", "<|tool_call|>", "the", "<|/tool_call|>", "<|end|>"]);
    assert_eq!(decoded(&tokenizer, &ids), "<|tool_call|>the<|/tool_call|>");
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), "<|assistant|><|tool_call|>the<|/tool_call|><|end|>");
}

#[test]
fn families_are_known_by_their_kind_and_control_tokens() {
    assert_eq!(phi4().tokenizer().family(), Some(VocabularyFamily::Phi4));
    assert_eq!(phi4_mini().tokenizer().family(), Some(VocabularyFamily::Phi4Mini));
    assert_eq!(ByteVocabulary::small("phi-2").tokenizer().family(), Some(VocabularyFamily::Phi2));
    assert_eq!(ByteVocabulary::small("dbrx").tokenizer().family(), None);
    // The end of Phi-3's turns by their beginning is no end of Phi-4-mini's.
    let vocabulary = phi4_mini();
    assert_eq!(vocabulary.tokenizer().end_ids(), vocabulary.ids(&["<|endoftext|>", "<|end|>"]));
}

#[test]
fn bos_is_added_once_and_only_where_asked() {
    let vocabulary = phi4();
    let [bos, the] = [vocabulary.id("<|endoftext|>"), vocabulary.id("the")];
    let tokenizer = vocabulary.tokenizer();
    assert_eq!((tokenizer.bos_id(), tokenizer.add_bos()), (Some(bos), false));
    assert!(vocabulary.clone().with("tokenizer.ggml.add_bos_token", Meta::Bool(true)).tokenizer().add_bos());
    assert_eq!(tokenizer.encode("the", true, true).unwrap(), [bos, the]);
    assert_eq!(tokenizer.encode("<|endoftext|>the", true, true).unwrap(), [bos, the]);
    assert_eq!(tokenizer.encode("\n<|endoftext|>the", true, true).unwrap(), [bos, the]);
    assert_eq!(tokenizer.encode("<|endoftext|>the", false, true).unwrap(), [bos, the]);
}

#[test]
fn ids_that_stand_for_nothing_are_padding_and_decode() {
    let mut vocabulary = phi4();
    let padding = format!("[PAD{}]", vocabulary.texts.len());
    vocabulary.add(&padding, USER_DEFINED);
    vocabulary.add("anything", UNUSED);
    let tokenizer = vocabulary.tokenizer();
    let ids = vocabulary.ids(&["<|dummy_0|>", &padding, "anything"]);
    assert_eq!(tokenizer.padding_ids(), ids);
    assert_eq!(decoded(&tokenizer, &ids), "");
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), format!("<|dummy_0|>{padding}anything"));
    // They never come out of text, but a reserved token is one.
    assert!(!tokenizer.encode(&padding, false, true).unwrap().contains(&ids[1]));
    assert_eq!(tokenizer.encode("<|dummy_0|>", false, true).unwrap(), ids[..1]);
}

#[test]
fn a_stream_holds_back_no_more_than_the_beginning_of_a_character() {
    let vocabulary = phi4();
    let tokenizer = vocabulary.tokenizer();
    let mut decoder = tokenizer.decoder();
    let mut push = |id: u32| decoder.push(id).unwrap();
    let emoji = tokenizer.encode("\u{1F600}", false, false).unwrap();
    assert_eq!(emoji.len(), 4);
    assert_eq!([push(emoji[0]), push(emoji[1]), push(emoji[2])].concat(), "");
    assert_eq!(push(emoji[3]), "\u{1F600}");
    // A character that was begun and is never whole, as soon as that is certain.
    assert_eq!(push(emoji[0]), "");
    assert_eq!(push(emoji[0]), "\u{FFFD}");
    assert_eq!(push(vocabulary.id("the")), "\u{FFFD}the");
    assert_eq!(push(emoji[1]), "\u{FFFD}");
    // A control token is nothing, not an end.
    assert_eq!([push(emoji[0]), push(emoji[1]), push(vocabulary.id("<|im_end|>")), push(emoji[2])].concat(), "");
    assert_eq!(push(emoji[3]), "\u{1F600}");
    assert_eq!(push(emoji[0]), "");
    assert_eq!(decoder.finish(), "\u{FFFD}");
    assert_eq!(decoder.finish(), "");
    // Spaces in front of a text are its own.
    assert_eq!(streamed(&tokenizer, &vocabulary.ids(&["Ġthe", "Ġthe"])), " the the");
}

#[test]
fn damaged_metadata_is_an_error_that_names_key_and_values() {
    let edit = |change: fn(&mut ByteVocabulary)| {
        let mut vocabulary = phi4();
        change(&mut vocabulary);
        vocabulary
    };
    let all: [(ByteVocabulary, &[&str]); 17] = [
        (edit(|v| v.types.truncate(7)), &["tokenizer.ggml.token_type", "268", "7"]),
        (edit(|v| v.types[9] = 0), &["tokenizer.ggml.token_type", "1", "6", "0", "9"]),
        (edit(|v| v.types[9] = BYTE), &["tokenizer.ggml.token_type", "6", "9"]),
        (edit(|v| v.types[0] = CONTROL), &["tokenizer.ggml.tokens", "256", "255", "'Ā'"]),
        (edit(|v| v.texts[65] = "xx".into()), &["tokenizer.ggml.tokens", "256", "255", "'A'"]),
        (edit(|v| v.add("the", NORMAL)), &["tokenizer.ggml.tokens", "\"the\"", "257", "268"]),
        (edit(|v| v.add("<|im_end|>", USER_DEFINED)), &["tokenizer.ggml.tokens", "<|im_end|>", "265", "268"]),
        (edit(|v| v.add(&"x".repeat(100_000), NORMAL)), &["tokenizer.ggml.tokens", "100000", "268"]),
        (edit(|v| v.merges.push("x y".into())), &["tokenizer.ggml.merges", "\"x y\"", "\"xy\"", "7"]),
        (edit(|v| v.merges.push("xx y".into())), &["tokenizer.ggml.merges", "\"xx\"", "7"]),
        (edit(|v| v.merges.push("<|im_ end|>".into())), &["tokenizer.ggml.merges", "\"<|im_\"", "7"]),
        (edit(|v| v.merges.push("the".into())), &["tokenizer.ggml.merges", "\"the\"", "7"]),
        (edit(|v| v.merges.push(" the".into())), &["tokenizer.ggml.merges", "\" the\"", "7"]),
        (edit(|v| v.merges.push("h e".into())), &["tokenizer.ggml.merges", "\"h e\"", "7"]),
        (phi4().with("tokenizer.ggml.merges", "x"), &["tokenizer.ggml.merges", "\"x\""]),
        (phi4().with("tokenizer.ggml.bos_token_id", Meta::U32(9_999)), &["bos_token_id", "9999", "268"]),
        (phi4().with("tokenizer.ggml.eot_token_id", Meta::U32(268)), &["eot_token_id", "268"]),
    ];
    for (vocabulary, values) in all {
        let error = open(&vocabulary).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidModel, "{error}");
        mentions(&error, values);
    }
    let too_many = edit(|v| (0..1_100_000).for_each(|id| v.add(&format!("<|{id}|>"), CONTROL)));
    let many = edit(|v| (0..100_000).for_each(|id| v.add(&format!("<|{id:0>20}|>"), CONTROL)));
    for (vocabulary, mention) in [(too_many, "1048576"), (many, "2400056")] {
        let error = open(&vocabulary).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidModel, "{error}");
        mentions(&error, &[mention]);
    }
}

#[test]
fn unknown_pre_tokenizer_is_refused_with_the_known_ones() {
    for vocabulary in [
        phi4().with("tokenizer.ggml.pre", "llama-bpe"),
        phi4().with("tokenizer.ggml.pre", "default"),
        phi4().with("tokenizer.ggml.pre", ""),
        phi4().with("tokenizer.ggml.pre", "llama-bpe").with("general.architecture", "phi2"),
        phi4().without("tokenizer.ggml.pre"),
        phi4().without("tokenizer.ggml.pre").with("general.architecture", "phi3"),
    ] {
        let error = open(&vocabulary).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnsupportedModel, "{error}");
        let found = vocabulary.keys.iter().find_map(|(key, value)| match value {
            Meta::Str(text) if *key == "tokenizer.ggml.pre" => Some(format!("{text:?}")),
            _ => None,
        });
        let found = found.unwrap_or_default();
        let known = ["tokenizer.ggml.pre", "\"phi-2\"", "\"dbrx\"", "\"gpt-4o\"", "tokenizer.json"];
        mentions(&error, &[known.as_slice(), &[found.as_str()]].concat());
    }
    let error = open(&phi4().with("tokenizer.ggml.pre", Meta::U32(1))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidModel, "{error}");
}

fn json() -> Value {
    let vocabulary = phi4();
    let control = |text: &str| (vocabulary.id(text), (true, true, true));
    let added = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im_sep|>", "<|dummy_0|>"].map(control);
    vocabulary.json(CL100K, &HashMap::from(added))
}

fn load(json: &Value) -> Result<Tokenizer> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokenizer.json");
    std::fs::write(&path, json.to_string()).unwrap();
    Tokenizer::from_tokenizer_json(&path)
}

fn edited(pointer: &str, value: Value) -> Value {
    let mut json = json();
    *json.pointer_mut(pointer).unwrap() = value;
    json
}

#[test]
fn tokenizer_json_decides_about_splitting_and_merging() {
    let vocabulary = phi4();
    let plain = |json: &Value, text: &str| {
        let tokenizer = load(json).unwrap();
        let ids = tokenizer.encode(text, false, false).unwrap();
        assert_eq!(decoded(&tokenizer, &ids), text);
        ids.iter().map(|id| tokenizer.token_text(*id).unwrap().to_owned()).collect::<Vec<_>>()
    };
    let tokenizer = load(&json()).unwrap();
    assert_eq!(tokenizer.family(), Some(VocabularyFamily::Phi4));
    assert_eq!(tokenizer.padding_ids(), vocabulary.ids(&["<|dummy_0|>"]));
    assert_eq!(tokenizer.end_ids(), vocabulary.ids(&["<|endoftext|>", "<|im_end|>"]));
    assert_eq!(tokenizer.bos_id(), Some(vocabulary.id("<|endoftext|>")));
    let isolated = edited("/pre_tokenizer/pretokenizers/0/behavior", "Isolated".into());
    let gpt2 =
        edited("/pre_tokenizer", json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true}));
    assert_eq!(load(&gpt2).unwrap().family(), Some(VocabularyFamily::Phi2));
    let split_gpt2 = edited("/pre_tokenizer/pretokenizers/0/pattern/Regex", GPT2.into());
    for (json, words) in [
        (json(), ["the", "Ġthe", "!", "Ċ"]),
        (isolated, ["the", "Ġthe", "!", "Ċ"]),
        (gpt2, ["the", "Ġthe", "!", "Ċ"]),
        (split_gpt2, ["the", "Ġthe", "!", "Ċ"]),
    ] {
        assert_eq!(plain(&json, "the the!\n"), words);
    }
    // A token that no merges make.
    let mut unreachable = edited("/model/vocab/ll", 900.into());
    unreachable["model"]["vocab"]["hello"] = 901.into();
    assert_eq!(plain(&unreachable, "hello"), ["he", "ll", "o"]);
    unreachable["model"]["ignore_merges"] = true.into();
    assert_eq!(plain(&unreachable, "hello"), ["hello"]);
    assert_eq!(plain(&unreachable, "hellox"), ["he", "ll", "o", "x"]);
}

#[test]
fn tokenizer_json_that_cannot_be_split_or_decoded_right_is_refused() {
    let byte_level = |add_prefix_space: bool, use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": true, "use_regex": use_regex});
    let unsupported = ErrorKind::UnsupportedModel;
    for (json, kind, mention) in [
        (edited("/pre_tokenizer", Value::Null), unsupported, "pre_tokenizer"),
        (edited("/pre_tokenizer", byte_level(true, true)), unsupported, "add_prefix_space"),
        (edited("/pre_tokenizer", byte_level(false, false)), unsupported, "ByteLevel"),
        (edited("/pre_tokenizer", json!({"type": "Whitespace"})), unsupported, "Whitespace"),
        (edited("/pre_tokenizer/pretokenizers", json!([])), unsupported, "pre_tokenizer"),
        (edited("/pre_tokenizer/pretokenizers/1", byte_level(false, true)), unsupported, "ByteLevel"),
        (edited("/pre_tokenizer/pretokenizers/1", byte_level(true, false)), unsupported, "ByteLevel"),
        (edited("/pre_tokenizer/pretokenizers/0/invert", false.into()), unsupported, "Isolated"),
        (edited("/pre_tokenizer/pretokenizers/0/behavior", "Contiguous".into()), unsupported, "Isolated"),
        (edited("/pre_tokenizer/pretokenizers/0/pattern", json!({"String": " "})), unsupported, "regex"),
        (edited("/pre_tokenizer/pretokenizers/0/pattern/Regex", r"\w+|\s".into()), unsupported, r"\\w+|\\s"),
        (edited("/normalizer", json!({"type": "Lowercase"})), unsupported, "Lowercase"),
        (edited("/normalizer", json!({"type": "Prepend", "prepend": "x"})), unsupported, "Prepend"),
        (edited("/decoder", json!({"type": "WordPiece"})), unsupported, "Split"),
        (edited("/decoder", Value::Null), unsupported, "Split"),
        (edited("/model/vocab", json!({"a": 1})), ErrorKind::InvalidModel, "256"),
        (edited("/model/merges/1", "t xx".into()), ErrorKind::InvalidModel, "\"xx\""),
    ] {
        let error = load(&json).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        mentions(&error, &[mention]);
    }
}

#[test]
fn randomly_damaged_files_are_errors_or_tokenizers_that_work() {
    let text = "the <|im_end|> hello\r\n \u{1F600}";
    let works = |tokenizer: Tokenizer| {
        let ids = tokenizer.encode(text, true, true).unwrap();
        assert_eq!(streamed(&tokenizer, &ids), decoded(&tokenizer, &ids));
        let plain = tokenizer.encode(text, false, false).unwrap();
        assert_eq!(decoded(&tokenizer, &plain), text);
    };
    let entry =
        prop::sample::select(vec!["", " ", "the", "<|im_end|>", "h e", "\u{120} the", "\u{1F600}", "[PAD3]"]);
    let change = (0_usize..3, 0_usize..270, entry, -1_i32..8);
    runner(400)
        .run(&prop::collection::vec(change, 1..3), |changes| {
            let mut vocabulary = phi4();
            for (list, at, text, token_type) in changes {
                let text = text.to_owned();
                match list {
                    0 if at < vocabulary.texts.len() => vocabulary.texts[at] = text,
                    1 if at < vocabulary.types.len() => vocabulary.types[at] = token_type,
                    2 => vocabulary.merges.insert(at % (vocabulary.merges.len() + 1), text),
                    _ => vocabulary.add(&text, token_type),
                }
            }
            match open(&vocabulary) {
                Ok(tokenizer) => works(tokenizer),
                Err(error) => assert!(error.to_string().contains("tokenizer.ggml"), "{error}"),
            }
            Ok(())
        })
        .unwrap();
    let good = json().to_string().into_bytes();
    let byte = prop_oneof![any::<u8>(), prop::sample::select(b"0123456789\"[]{},:.|+*()".to_vec())];
    runner(1500)
        .run(&prop::collection::vec((0..good.len(), byte), 1..4), |changes| {
            let mut bytes = good.clone();
            for (at, byte) in changes {
                bytes[at] = byte;
            }
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("tokenizer.json");
            std::fs::write(&path, bytes).unwrap();
            if let Ok(tokenizer) = Tokenizer::from_tokenizer_json(&path) {
                let ids = tokenizer.encode(text, true, true).unwrap();
                assert_eq!(streamed(&tokenizer, &ids), decoded(&tokenizer, &ids));
            }
            Ok(())
        })
        .unwrap();
}
