//! The byte-level vocabularies against `tiktoken-rs` and the `tokenizers` library.
#![allow(clippy::indexing_slicing, reason = "fixtures are of known size")]

use std::collections::HashMap;
use std::sync::LazyLock;

use candle_phi_engine::{Tokenizer, TokenizerOptions, VocabularyFamily};
use proptest::prelude::*;
use serde_json::Value;
use tiktoken_rs::CoreBPE;

use crate::texts::texts;
use crate::vocabulary::byte_level::{ByteVocabulary, CL100K, GPT2, O200K};
use crate::vocabulary::{Meta, runner, test_data};
use crate::{decoded, streamed};

static PHI4: LazyLock<ByteVocabulary> = LazyLock::new(ByteVocabulary::phi4);
static PHI4_MINI: LazyLock<ByteVocabulary> = LazyLock::new(ByteVocabulary::phi4_mini);

/// Ids are the oracle's, and become the same text again, at once and one by one.
fn encodes_as(tokenizer: &Tokenizer, cases: u32, expected: impl Fn(&str) -> Option<Vec<u32>>) {
    runner(cases)
        .run(&texts(), |text| {
            let ids = tokenizer.encode(&text, false, false).unwrap();
            if let Some(expected) = expected(&text) {
                prop_assert_eq!(&ids, &expected);
            }
            prop_assert_eq!(&decoded(tokenizer, &ids), &text);
            prop_assert_eq!(streamed(tokenizer, &ids), text);
            Ok(())
        })
        .unwrap();
}

/// tiktoken takes white space at the end of a text for one word even where a line ends in it; the models'
/// tokenizer.json files end a word with the line.
fn ends_in_white_space_behind_a_line(text: &str) -> bool {
    let white_space = &text[text.trim_end().len()..];
    white_space.contains(['\r', '\n']) && !white_space.ends_with(['\r', '\n'])
}

#[test]
fn ids_of_phi_4_are_tiktoken_s() {
    let bpe: CoreBPE = tiktoken_rs::cl100k_base().unwrap();
    let tokenizer = PHI4.tokenizer();
    assert_eq!(PHI4.merges.len(), 100_000);
    encodes_as(&tokenizer, 10_000, |text| {
        (!ends_in_white_space_behind_a_line(text)).then(|| bpe.encode_ordinary(text))
    });
}

#[test]
fn ids_of_phi_4_mini_are_tiktoken_s() {
    let bpe: CoreBPE = tiktoken_rs::o200k_base().unwrap();
    let tokenizer = PHI4_MINI.tokenizer();
    assert_eq!(PHI4_MINI.merges.len(), 199_742);
    encodes_as(&tokenizer, 10_000, |text| Some(bpe.encode_ordinary(text)));
}

fn library(json: &Value) -> tokenizers::Tokenizer {
    serde_json::from_value(json.clone()).unwrap()
}

fn from_json(json: &Value) -> Tokenizer {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokenizer.json");
    std::fs::write(&path, json.to_string()).unwrap();
    Tokenizer::from_tokenizer_json(&path).unwrap()
}

/// What a tokenizer_config.json says of the added tokens: `(lstrip, rstrip, special)` by id.
fn added_tokens(name: &str) -> Option<HashMap<u32, (bool, bool, bool)>> {
    let path = test_data(&format!("tokenizers/{name}/tokenizer_config.json"))?;
    let config: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let added = config["added_tokens_decoder"].as_object().unwrap().iter();
    let flag = |token: &Value, name: &str| token[name].as_bool().unwrap();
    Some(
        added
            .map(|(id, token)| {
                (id.parse().unwrap(), (flag(token, "lstrip"), flag(token, "rstrip"), flag(token, "special")))
            })
            .collect(),
    )
}

/// Texts with the control tokens of a vocabulary in them, and white space beside these.
fn texts_with_controls(
    vocabulary: &ByteVocabulary,
    added: &HashMap<u32, (bool, bool, bool)>,
) -> BoxedStrategy<String> {
    let controls: Vec<String> = added.keys().map(|id| vocabulary.texts[*id as usize].clone()).collect();
    let part = prop_oneof![
        3 => prop::sample::select(controls),
        2 => texts(),
        3 => "[ \n\u{a0}\u{3000}\t]{0,4}",
    ];
    prop::collection::vec(part, 0..8).prop_map(|parts| parts.concat()).boxed()
}

#[test]
fn control_tokens_strip_and_show_as_the_models_tokenizer_configs_say() {
    assert_eq!(added_tokens("phi-4-mini"), added_tokens("phi-4-mini-reasoning"));
    for (vocabulary, name, pattern, family) in [
        (&PHI4, "phi-4-base", CL100K, VocabularyFamily::Phi4),
        (&PHI4_MINI, "phi-4-mini", O200K, VocabularyFamily::Phi4Mini),
    ] {
        let Some(added) = added_tokens(name) else { return };
        let json = vocabulary.json(pattern, &added);
        let library = library(&json);
        for tokenizer in [vocabulary.tokenizer(), from_json(&json)] {
            assert_eq!(tokenizer.family(), Some(family));
            tokenizer.check_same_vocabulary(&vocabulary.gguf()).unwrap();
            runner(1500)
                .run(&texts_with_controls(vocabulary, &added), |text| {
                    let expected = library.encode(text.as_str(), false).unwrap();
                    let ids = tokenizer.encode(&text, false, true).unwrap();
                    prop_assert_eq!(&ids, expected.get_ids());
                    prop_assert_eq!(&decoded(&tokenizer, &ids), &library.decode(&ids, true).unwrap());
                    prop_assert_eq!(streamed(&tokenizer, &ids), decoded(&tokenizer, &ids));
                    let shown = tokenizer.decode(&ids, false).unwrap();
                    prop_assert_eq!(shown, library.decode(&ids, false).unwrap());
                    let plain = tokenizer.encode(&text, false, false).unwrap();
                    prop_assert!(plain.iter().all(|id| !tokenizer.control_ids().contains(id)));
                    prop_assert_eq!(decoded(&tokenizer, &plain), text);
                    Ok(())
                })
                .unwrap();
        }
    }
}

/// Any ids that stand for something, or halves of characters more often than not.
fn ids_of(tokenizer: &Tokenizer) -> BoxedStrategy<Vec<u32>> {
    let size = tokenizer.vocab_size() as u32;
    let halves = tokenizer.encode("é你😀👩‍👧", false, false).unwrap();
    prop::collection::vec(prop_oneof![2 => 0..size, 2 => 0_u32..256, 1 => prop::sample::select(halves)], 0..24)
        .boxed()
}

#[test]
fn random_ids_decode_and_stream_as_the_library_decodes_them() {
    let Some(phi2) = ByteVocabulary::phi2() else { return };
    let added: HashMap<_, _> = (50_256..50_295).map(|id| (id, (false, false, id == 50_256))).collect();
    for (tokenizer, library) in [
        (phi2.tokenizer(), library(&phi2.json(GPT2, &added))),
        (PHI4.tokenizer(), library(&PHI4.json(CL100K, &HashMap::from([(100_265, (true, true, true))])))),
    ] {
        let known = library.get_vocab_size(true);
        runner(5000)
            .run(&ids_of(&tokenizer), |ids| {
                let text = decoded(&tokenizer, &ids);
                prop_assert_eq!(&streamed(&tokenizer, &ids), &text);
                if ids.iter().all(|id| (*id as usize) < known) {
                    prop_assert_eq!(&text, &library.decode(&ids, true).unwrap());
                }
                Ok(())
            })
            .unwrap();
    }
}

#[test]
fn ids_of_phi_2_are_the_library_s_from_gguf_and_tokenizer_json() {
    let (Some(path), Some(vocabulary)) = (test_data("tokenizers/phi-2/tokenizer.json"), ByteVocabulary::phi2())
    else {
        return;
    };
    let library = tokenizers::Tokenizer::from_file(&path).unwrap();
    let expected = |text: &str| library.encode(text, false).unwrap().get_ids().to_vec();
    let json = Tokenizer::from_tokenizer_json(&path).unwrap();
    // Files that are older than the key of the pre-tokenizer.
    let old = vocabulary.clone().without("tokenizer.ggml.pre").with("general.architecture", "phi2").tokenizer();
    json.check_same_vocabulary(&vocabulary.gguf()).unwrap();
    for (tokenizer, cases) in [(&json, 10_000), (&old, 1_000), (&vocabulary.tokenizer(), 10_000)] {
        assert_eq!(tokenizer.family(), Some(VocabularyFamily::Phi2));
        assert_eq!((tokenizer.bos_id(), tokenizer.add_bos()), (Some(50_256), false));
        assert_eq!((tokenizer.end_ids(), tokenizer.control_ids()), (&[50_256][..], &[50_256][..]));
        if let Some(inputs) = test_data("ggml-vocab-phi-3.gguf.inp") {
            for text in std::fs::read_to_string(inputs).unwrap().split("\n__ggml_vocab_test__\n") {
                let ids = tokenizer.encode(text, false, false).unwrap();
                assert_eq!(ids, expected(text), "{text:?}");
                assert_eq!(
                    (decoded(tokenizer, &ids), streamed(tokenizer, &ids)),
                    (text.to_owned(), text.to_owned())
                );
            }
        }
        // The library knows no other way than to parse control tokens.
        encodes_as(tokenizer, cases, |text| (!text.contains("<|endoftext|>")).then(|| expected(text)));
    }
    assert_eq!(old.vocab_size(), 51_200);
    assert_eq!(old.padding_ids(), (50_295..51_200).collect::<Vec<u32>>());
}

#[test]
fn runs_of_white_space_of_phi_2_are_tokens_of_plain_text_and_are_shown() {
    let Some(vocabulary) = ByteVocabulary::phi2() else { return };
    let tokenizer = vocabulary.tokenizer();
    let text = "def f():\n    return\t\t1\n                                  x";
    let ids = tokenizer.encode(text, false, false).unwrap();
    for id in [50_284, 50_294, 50_257, 50_285] {
        assert!(ids.contains(&id), "{id} in {ids:?}");
    }
    assert_eq!((decoded(&tokenizer, &ids), streamed(&tokenizer, &ids)), (text.to_owned(), text.to_owned()));
}

#[test]
fn ids_that_end_fill_and_begin_are_those_of_the_family() {
    // The first files of Phi-4 name another end than the one of its turns.
    let tokenizer = PHI4.tokenizer();
    assert_eq!(tokenizer.eos_id(), Some(100_257));
    assert_eq!(tokenizer.end_ids(), [100_257, 100_265]);
    assert_eq!((tokenizer.bos_id(), tokenizer.add_bos()), (Some(100_257), false));
    assert_eq!(tokenizer.padding_ids().len(), 88);
    assert!(tokenizer.padding_ids().contains(&100_349), "the padding token is a dummy");
    assert_eq!(tokenizer.control_ids(), (100_256..100_352).collect::<Vec<u32>>());

    let tokenizer = PHI4_MINI.tokenizer();
    assert_eq!(tokenizer.end_ids(), [199_999, 200_020]);
    assert_eq!(tokenizer.padding_ids().len(), 54);
    assert_eq!(tokenizer.padding_ids()[..2], [199_998, 200_000]);
    assert_eq!(tokenizer.control_ids().len(), 12);
    // Another end of the turn, by its key.
    let own = PHI4_MINI.clone().with("tokenizer.ggml.eot_token_id", Meta::U32(200_028)).tokenizer();
    assert_eq!(own.end_ids(), [199_999, 200_020, 200_028]);
}

#[test]
fn vocabulary_of_200_thousand_tokens_loads_and_encodes_quickly() {
    let gguf = PHI4_MINI.gguf();
    let start = std::time::Instant::now();
    let tokenizer = Tokenizer::from_gguf(&gguf, &TokenizerOptions::default()).unwrap();
    let load = start.elapsed();
    let start = std::time::Instant::now();
    let text = "The quick brown fox jumps over the lazy dog, again and again. ".repeat(2000);
    let words = tokenizer.encode(&text, true, true).unwrap().len();
    // One word, and white space that no word ends.
    let word = tokenizer.encode(&"a".repeat(200_000), true, true).unwrap().len();
    let spaces = tokenizer.encode(&" \n\t".repeat(100_000), true, true).unwrap().len();
    let encode = start.elapsed();
    println!("load {load:?}; to {words}, {word} and {spaces} ids in {encode:?}");
    // Far above what it takes, for machines that are busy: quadratic work shows all the same.
    assert!(load.as_secs() < 5, "{load:?}");
    assert!(encode.as_secs() < 5, "{encode:?}");
}
