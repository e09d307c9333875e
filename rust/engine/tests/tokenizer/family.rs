//! The family's own vocabulary, where the shared test data is there.

use std::path::Path;

use candle_phi_engine::{CancelToken, ErrorKind, Gguf, Tokenizer, TokenizerOptions, VocabularyFamily};
use proptest::prelude::*;
use serde_json::Value;

use crate::messages::mentions;
use crate::texts::texts;
use crate::vocabulary::{SmallVocabulary, runner, test_data};
use crate::{decoded, reference_decode, streamed};

fn from_gguf(path: &Path, rstrip_control_tokens: bool) -> Tokenizer {
    let gguf = Gguf::open(path, true, &CancelToken::new()).unwrap();
    Tokenizer::from_gguf(&gguf, &TokenizerOptions { rstrip_control_tokens }).unwrap()
}

/// The real vocabulary from its GGUF, with and without the July 2024 revision's stripping.
fn phi3(rstrip_control_tokens: bool) -> Option<Tokenizer> {
    Some(from_gguf(&test_data("ggml-vocab-phi-3.gguf")?, rstrip_control_tokens))
}

fn phi3_json(name: &str) -> Option<Tokenizer> {
    let path = test_data(&format!("tokenizers/{name}/tokenizer.json"))?;
    Some(Tokenizer::from_tokenizer_json(&path).unwrap())
}

#[test]
fn llama_cpp_vectors_from_gguf_and_tokenizer_json() {
    let (Some(inputs), Some(outputs)) =
        (test_data("ggml-vocab-phi-3.gguf.inp"), test_data("ggml-vocab-phi-3.gguf.out"))
    else {
        return;
    };
    let inputs = std::fs::read_to_string(inputs).unwrap();
    let outputs = std::fs::read_to_string(outputs).unwrap();
    let cases: Vec<(&str, Vec<u32>)> = inputs
        .split("\n__ggml_vocab_test__\n")
        .zip(outputs.lines())
        .map(|(text, ids)| (text, ids.split_whitespace().map(|id| id.parse().unwrap()).collect()))
        .collect();
    assert_eq!(cases.len(), 46);
    for tokenizer in
        [phi3(true), phi3(false), phi3_json("phi-3-mini"), phi3_json("phi-3"), phi3_json("phi-3-medium")]
    {
        let tokenizer = tokenizer.unwrap();
        for (text, ids) in &cases {
            assert_eq!(&tokenizer.encode(text, false, false).unwrap(), ids, "{text:?}");
            // There is no control token in these texts.
            assert_eq!(&tokenizer.encode(text, false, true).unwrap(), ids, "{text:?}");
            assert_eq!(&decoded(&tokenizer, ids), text);
            assert_eq!(&streamed(&tokenizer, ids), text);
        }
    }
}

#[test]
fn golden_ids_of_texts_with_control_tokens_in_both_revisions() {
    let Some(path) = test_data("golden_tokens_phi3.json") else { return };
    let golden: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let stripping = "rstrip_rev (Phi-3-mini Jul-2024, Phi-3.5)";
    let keeping = "no_rstrip_rev (Apr-2024)";
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 15);
    for (revision, tokenizer) in [
        (stripping, phi3(true)),
        (stripping, phi3_json("phi-3-mini")),
        (stripping, phi3_json("phi-3-medium")),
        (keeping, phi3(false)),
        (keeping, phi3_json("phi-3")),
    ] {
        let tokenizer = tokenizer.unwrap();
        for case in cases {
            let text = case["text"].as_str().unwrap();
            let ids: Vec<u32> = serde_json::from_value(case[revision].clone()).unwrap();
            assert_eq!(tokenizer.encode(text, false, true).unwrap(), ids, "{text:?} in {revision}");
        }
    }
}

#[test]
fn ids_of_the_family_are_known_from_every_file() {
    let Some(from_gguf) = phi3(true) else { return };
    let family: Vec<u32> = (0..3).chain(32000..32011).collect();
    assert_eq!(from_gguf.vocab_size(), 32064);
    assert_eq!(from_gguf.padding_ids(), (32011..32064).collect::<Vec<u32>>());
    assert!(from_gguf.add_bos());
    for (name, add_bos) in [("phi-3-mini", false), ("phi-3-medium", false), ("phi-3", true)] {
        let from_json = phi3_json(name).unwrap();
        assert_eq!(from_json.vocab_size(), 32011);
        assert!(from_json.padding_ids().is_empty());
        assert_eq!(from_json.add_bos(), add_bos, "{name}");
        for tokenizer in [&from_gguf, &from_json] {
            assert_eq!(tokenizer.bos_id(), Some(1));
            assert_eq!(tokenizer.eos_id(), Some(32000));
            assert_eq!(tokenizer.end_ids(), [2, 32000, 32001, 32007]);
            assert_eq!(tokenizer.control_ids(), family);
            assert_eq!(tokenizer.token_id("<|user|>"), Some(32010));
            assert_eq!(tokenizer.token_id("▁Hello"), Some(15043));
            assert_eq!(tokenizer.token_text(15043), Some("▁Hello"));
            assert_eq!(tokenizer.token_id("no such piece"), None);
            assert_eq!(decoded(tokenizer, &[1, 15043, 2, 32007, 3186, 32000]), "Hello world");
        }
    }
}

#[test]
fn tokenizer_json_of_the_family_passes_for_its_gguf_and_another_one_does_not() {
    let Some(path) = test_data("ggml-vocab-phi-3.gguf") else { return };
    let gguf = Gguf::open(&path, true, &CancelToken::new()).unwrap();
    assert_eq!(from_gguf(&path, true).family(), Some(VocabularyFamily::Phi3));
    from_gguf(&path, true).check_same_vocabulary(&gguf).unwrap();
    for name in ["phi-3-mini", "phi-3-medium", "phi-3"] {
        let tokenizer = phi3_json(name).unwrap();
        assert_eq!(tokenizer.family(), Some(VocabularyFamily::Phi3));
        tokenizer.check_same_vocabulary(&gguf).unwrap();
    }
    let other = SmallVocabulary::default().tokenizer(true);
    let error = other.check_same_vocabulary(&gguf).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidModel);
    mentions(&error, &["259", "\"▁▁\"", "\"▁t\"", "ggml-vocab-phi-3.gguf"]);
}

#[test]
fn random_texts_encode_as_the_library_encodes_them() {
    for (name, from_gguf, cases) in [("phi-3-mini", phi3(true), 10_000), ("phi-3", phi3(false), 2_000)] {
        let Some(path) = test_data(&format!("tokenizers/{name}/tokenizer.json")) else { return };
        let library = tokenizers::Tokenizer::from_file(path).unwrap();
        for tokenizer in [from_gguf.unwrap(), phi3_json(name).unwrap()] {
            runner(cases)
                .run(&texts(), |text| {
                    let ids = tokenizer.encode(&text, false, true).unwrap();
                    let expected = library.encode(text.as_str(), false).unwrap();
                    prop_assert_eq!(&ids, expected.get_ids());
                    prop_assert_eq!(streamed(&tokenizer, &ids), decoded(&tokenizer, &ids));
                    let plain = tokenizer.encode(&text, false, false).unwrap();
                    prop_assert_eq!(&streamed(&tokenizer, &plain), &decoded(&tokenizer, &plain));
                    if !text.contains('▁') {
                        prop_assert_eq!(decoded(&tokenizer, &plain), text);
                    }
                    Ok(())
                })
                .unwrap();
        }
    }
}

#[test]
fn random_ids_of_the_family_decode_and_stream_as_the_library_decodes_them() {
    let Some(tokenizer) = phi3(true) else { return };
    let ids = prop::collection::vec(
        prop_oneof![3 => 0_u32..32064, 3 => 3_u32..259, 1 => Just(29871_u32), 1 => 32000_u32..32064],
        0..20,
    );
    runner(3000)
        .run(&ids, |ids| {
            let text = decoded(&tokenizer, &ids);
            prop_assert_eq!(&text, &reference_decode(&tokenizer, &ids));
            prop_assert_eq!(streamed(&tokenizer, &ids), text);
            Ok(())
        })
        .unwrap();
}

#[test]
fn vocabulary_of_32_thousand_pieces_loads_and_encodes_quickly() {
    let Some(path) = test_data("ggml-vocab-phi-3.gguf") else { return };
    let gguf = Gguf::open(&path, true, &CancelToken::new()).unwrap();
    let start = std::time::Instant::now();
    let tokenizer = Tokenizer::from_gguf(&gguf, &TokenizerOptions::default()).unwrap();
    let load = start.elapsed();
    let text = "The quick brown fox jumps over the lazy dog, again and again. ".repeat(2000);
    let start = std::time::Instant::now();
    let ids = tokenizer.encode(&text, true, true).unwrap();
    let encode = start.elapsed();
    println!("load {load:?}; {} bytes to {} ids in {encode:?}", text.len(), ids.len());
    // Far above what it takes, for machines that are busy: quadratic work shows all the same.
    assert!(load.as_secs() < 3, "{load:?}");
    assert!(encode.as_secs() < 3, "{encode:?}");
}
