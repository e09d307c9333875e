//! The small vocabulary and the embedded model's: tests that need no other data.

use candle_phi_engine::{ErrorKind, Tokenizer, TokenizerOptions};
use proptest::prelude::*;

use crate::messages::mentions;
use crate::vocabulary::{self, CONTROL, Meta, NORMAL, SmallVocabulary, USER_DEFINED, demo, runner};
use crate::{decoded, reference_decode, streamed};

#[test]
fn control_tokens_are_parsed_only_where_asked() {
    let vocabulary = SmallVocabulary::default();
    let tokenizer = vocabulary.tokenizer(true);
    let text = "the<|end|></s>";
    assert_eq!(tokenizer.encode(text, false, true).unwrap(), vocabulary.ids(&["▁the", "<|end|>", "</s>"]));
    let plain = tokenizer.encode(text, false, false).unwrap();
    assert_eq!(plain, vocabulary.ids(&["▁the", "<|en", "d", "|>", "</", "s>"]));
    assert_eq!(decoded(&tokenizer, &plain), text);
}

#[test]
fn control_tokens_swallow_whitespace_where_the_revision_does() {
    let vocabulary = SmallVocabulary::default();
    let text = "<|user|>\n\u{a0} the<|end|> he</s> he<|endoftext|> he<s> he<unk> he";
    let stripped = vocabulary.ids(&[
        "<|user|>",
        "▁the",
        "<|end|>",
        "▁he",
        "</s>",
        "▁he",
        "<|endoftext|>",
        "▁",
        "▁he",
        "<s>",
        "▁",
        "▁he",
        "<unk>",
        "▁",
        "▁he",
    ]);
    assert_eq!(vocabulary.tokenizer(true).encode(text, false, true).unwrap(), stripped);
    let kept = vocabulary.tokenizer(false).encode("<|end|> the</s>\n", false, true).unwrap();
    assert_eq!(kept, vocabulary.ids(&["<|end|>", "▁", "▁the", "</s>", "▁", "<0x0A>"]));
}

#[test]
fn bos_is_added_once() {
    let vocabulary = SmallVocabulary::default();
    let tokenizer = vocabulary.tokenizer(true);
    let bos = vocabulary.ids(&["<s>", "▁the"]);
    assert!(tokenizer.add_bos());
    assert_eq!(tokenizer.encode("the", true, true).unwrap(), bos);
    assert_eq!(tokenizer.encode("<s>the", true, true).unwrap(), bos);
    assert_eq!(tokenizer.encode("the", false, true).unwrap(), bos[1..]);
    assert_eq!(tokenizer.encode("", true, false).unwrap(), bos[..1]);
    assert!(tokenizer.encode("", false, false).unwrap().is_empty());
    let without = vocabulary.with("tokenizer.ggml.add_bos_token", Meta::Bool(false));
    assert!(!without.tokenizer(true).add_bos());
}

#[test]
fn metadata_and_texts_say_which_ids_end_and_fill() {
    let vocabulary = SmallVocabulary::default();
    let tokenizer = vocabulary.tokenizer(true);
    assert_eq!(tokenizer.end_ids(), vocabulary.ids(&["</s>", "<|endoftext|>", "<|assistant|>", "<|end|>"]));
    let size = u32::try_from(tokenizer.vocab_size()).unwrap();
    assert_eq!(tokenizer.padding_ids(), [size - 2, size - 1]);
    let mut control = vocabulary.ids(&["<unk>", "<s>", "</s>"]);
    control.extend(vocabulary::CONTROLS.map(|(text, _)| vocabulary.id(text)));
    assert_eq!(tokenizer.control_ids(), control);
    // Without the keys the texts say it.
    let mut bare = vocabulary.clone();
    bare.keys.truncate(1);
    let bare = bare.tokenizer(true);
    assert_eq!((bare.bos_id(), bare.eos_id()), (tokenizer.bos_id(), tokenizer.eos_id()));
    // An end token of its own counts, whatever its text.
    let own = vocabulary.with("tokenizer.ggml.eos_token_id", Meta::U32(vocabulary::BYTE as u32));
    assert!(own.tokenizer(true).end_ids().contains(&(vocabulary::BYTE as u32)));
}

#[test]
fn space_in_front_is_put_and_taken_off_only_where_the_vocabulary_says() {
    let vocabulary = SmallVocabulary::default();
    let with = vocabulary.tokenizer(true);
    let without = vocabulary.clone().with("tokenizer.ggml.add_space_prefix", Meta::Bool(false)).tokenizer(true);
    let the = vocabulary.ids(&["▁the"]);
    assert_eq!(with.encode("the", false, false).unwrap(), the);
    assert_eq!(without.encode(" the", false, false).unwrap(), the);
    assert_eq!(decoded(&with, &the), "the");
    assert_eq!(decoded(&without, &the), " the");
    // Only the first space of the whole text, also behind control tokens and after nothing.
    let ids = vocabulary.ids(&["<s>", "▁the", "<|end|>", "▁the"]);
    assert_eq!(decoded(&with, &ids), "the the");
    assert_eq!(decoded(&with, &vocabulary.ids(&["▁", "▁", "▁the"])), "  the");
}

#[test]
fn special_tokens_are_shown_only_where_asked() {
    let vocabulary = SmallVocabulary::default();
    let tokenizer = vocabulary.tokenizer(true);
    let ids = vocabulary.ids(&["<s>", "▁the", "<|end|>", "</s>", "unused"]);
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), "the");
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), "<s> the<|end|></s>unused");
}

#[test]
fn user_defined_texts_that_are_no_control_tokens_are_matched_in_plain_text_and_shown() {
    let mut vocabulary = SmallVocabulary::default();
    vocabulary.add("thee", 0.0, USER_DEFINED);
    let tokenizer = vocabulary.tokenizer(true);
    let ids = tokenizer.encode("a thee", false, false).unwrap();
    assert_eq!(ids.last(), Some(&vocabulary.id("thee")));
    assert_eq!(decoded(&tokenizer, &ids), "a thee");
    assert!(!tokenizer.control_ids().contains(&vocabulary.id("thee")));
}

#[test]
fn piece_with_a_control_token_s_text_is_a_piece() {
    let mut vocabulary = SmallVocabulary::default();
    vocabulary.add("<|end|>", -1.0, NORMAL);
    vocabulary.add("a", 0.0, CONTROL);
    let tokenizer = vocabulary.tokenizer(true);
    for text in ["<|end|>", "a", "a<|end|>a"] {
        let ids = tokenizer.encode(text, false, false).unwrap();
        assert!(ids.iter().all(|id| !tokenizer.control_ids().contains(id)), "{text:?}: {ids:?}");
    }
}

#[test]
fn emoji_streams_whole_and_broken_bytes_become_replacement_characters() {
    let vocabulary = SmallVocabulary::default();
    let tokenizer = vocabulary.tokenizer(true);
    let emoji = tokenizer.encode("\u{1F600}", false, false).unwrap();
    assert_eq!(emoji.len(), 5, "the space in front and four bytes");
    let mut decoder = tokenizer.decoder();
    let shown: Vec<String> = emoji.iter().map(|id| decoder.push(*id).unwrap()).collect();
    assert_eq!(shown, ["", "", "", "", "\u{1F600}"], "a character comes with its last byte");
    assert_eq!(decoder.push(vocabulary.id("he")).unwrap(), "he");
    assert_eq!(decoder.push(emoji[1]).unwrap(), "");
    assert_eq!(decoder.finish(), "\u{FFFD}");
    assert_eq!(decoded(&tokenizer, &emoji[..4]), "\u{FFFD}");
    let twice_and_a_half = [&emoji[..], &emoji[1..], &emoji[1..3]].concat();
    assert_eq!(decoded(&tokenizer, &twice_and_a_half), "\u{1F600}\u{1F600}\u{FFFD}");
    assert_eq!(decoder.push(vocabulary.id("<0x0A>")).unwrap(), "\n");
}

#[test]
fn a_file_decides_which_tokens_are_text() {
    let mut vocabulary = SmallVocabulary::default();
    for text in ["<think>", "<|function|>", "<tag>"] {
        vocabulary.add(text, -1.0, USER_DEFINED);
    }
    let tokenizer = vocabulary.tokenizer(true);
    let ids = vocabulary.ids(&["<think>", "▁the", "<|function|>", "▁", "▁he", "<tag>"]);
    assert_eq!(decoded(&tokenizer, &ids), "<think> the<|function|>  he<tag>");
    assert_eq!(tokenizer.encode("<think>the<|function|> he<tag>", false, false).unwrap(), ids);
    assert!(ids.iter().all(|id| !tokenizer.control_ids().contains(id)));
}

#[test]
fn control_tokens_of_the_family_are_control_tokens_whatever_their_type() {
    for token_type in [NORMAL, CONTROL, USER_DEFINED] {
        let mut vocabulary = SmallVocabulary::default();
        for text in ["<|end|>", "<|user|>", "<|assistant|>", "<|endoftext|>"] {
            let id = vocabulary.id(text) as usize;
            vocabulary.types[id] = token_type;
        }
        let tokenizer = vocabulary.tokenizer(true);
        let end = vocabulary.id("<|end|>");
        assert!(tokenizer.end_ids().contains(&end), "{token_type}");
        assert_eq!(decoded(&tokenizer, &[end]), "");
        assert!(!tokenizer.encode("<|end|>", false, false).unwrap().contains(&end));
        assert_eq!(tokenizer.encode("<|end|> \n", false, true).unwrap(), [end]);
        assert!(tokenizer.family().is_some());
    }
}

#[test]
fn a_named_end_token_is_never_padding() {
    let mut vocabulary = SmallVocabulary::default();
    let id = vocabulary.texts.len() as u32;
    vocabulary.add(&format!("[PAD{id}]"), 0.0, USER_DEFINED);
    assert!(vocabulary.tokenizer(true).padding_ids().contains(&id));
    for key in ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"] {
        let mut named = vocabulary.clone();
        named.keys.retain(|(found, _)| *found != key);
        named.keys.push((key, Meta::U32(id)));
        let tokenizer = named.tokenizer(true);
        assert!(!tokenizer.padding_ids().contains(&id), "{key}");
        assert!(tokenizer.end_ids().contains(&id), "{key}");
        assert_eq!(decoded(&tokenizer, &[id]), "");
    }
}

#[test]
fn unknown_text_never_becomes_a_control_token() {
    let mut vocabulary = SmallVocabulary::default();
    let end = vocabulary.id("<|end|>");
    vocabulary.keys.retain(|(key, _)| !key.contains("unknown"));
    vocabulary.keys.push(("tokenizer.ggml.unknown_token_id", Meta::U32(end)));
    let ids = vocabulary.tokenizer(true).encode("中", false, false).unwrap();
    assert!(!ids.contains(&end));
    let byte = vocabulary.id("<0xE4>") as usize;
    vocabulary.texts[byte] = "other".into();
    vocabulary.types[byte] = NORMAL;
    let error = Tokenizer::from_gguf(&vocabulary.gguf(), &TokenizerOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidModel);
    mentions(&error, &["255", "<|end|>"]);
}

#[test]
fn unknown_id_is_an_error_and_leaves_the_decoder_as_it_was() {
    let vocabulary = SmallVocabulary::default();
    let tokenizer = vocabulary.tokenizer(true);
    let size = tokenizer.vocab_size();
    let error = tokenizer.decode(&[size as u32], true).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidOption);
    mentions(&error, &[&size.to_string()]);
    let mut decoder = tokenizer.decoder();
    decoder.push(vocabulary.id("<0xC3>")).unwrap();
    assert!(decoder.push(u32::MAX).is_err());
    assert_eq!(decoder.push(vocabulary.id("<0xA9>")).unwrap(), "é");
    assert_eq!(decoder.finish(), "");
    assert_eq!(tokenizer.token_text(u32::MAX), None);
}

#[test]
fn random_ids_stream_as_they_decode() {
    let tokenizer = SmallVocabulary::default().tokenizer(true);
    let ids = prop::collection::vec(0..tokenizer.vocab_size() as u32, 0..24);
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
fn random_text_survives_encoding_and_decoding() {
    let tokenizer = SmallVocabulary::default().tokenizer(true);
    let text = prop_oneof!["\\PC{0,20}", "[ the\n<|nd>/s\u{1F600}]{0,24}"]
        .prop_filter("a mark is a space", |text| !text.contains('▁'));
    runner(2000)
        .run(&text, |text| {
            let ids = tokenizer.encode(&text, false, false).unwrap();
            prop_assert!(ids.iter().all(|id| !tokenizer.control_ids().contains(id)));
            prop_assert_eq!(decoded(&tokenizer, &ids), text);
            Ok(())
        })
        .unwrap();
}

#[test]
fn embedded_model_s_vocabulary_encodes_decodes_and_streams() {
    let gguf = demo();
    let tokenizer = Tokenizer::from_gguf(&gguf, &TokenizerOptions::default()).unwrap();
    let id = |text: &str| tokenizer.token_id(text).unwrap();
    for text in ["<|end|>", "<|endoftext|>"] {
        assert!(tokenizer.end_ids().contains(&id(text)), "{text}");
    }
    let ids = tokenizer.encode("<|user|>\nWrite a haiku<|end|>\n<|assistant|>", false, true).unwrap();
    assert_eq!((ids.first(), ids.last()), (Some(&id("<|user|>")), Some(&id("<|assistant|>"))));
    assert_eq!(decoded(&tokenizer, &ids), "Write a haiku");
    let size = u32::try_from(tokenizer.vocab_size()).unwrap();
    runner(2000)
        .run(&("\\PC{0,16}", prop::collection::vec(0..size, 0..24)), |(text, ids)| {
            prop_assume!(!text.contains('▁'));
            let encoded = tokenizer.encode(&text, false, false).unwrap();
            prop_assert_eq!(decoded(&tokenizer, &encoded), text);
            prop_assert_eq!(&streamed(&tokenizer, &ids), &reference_decode(&tokenizer, &ids));
            Ok(())
        })
        .unwrap();
}

#[test]
fn renamed_placeholders_are_the_same_vocabulary_and_renamed_turns_are_another() {
    let vocabulary = SmallVocabulary::default();
    let tokenizer = vocabulary.tokenizer(true);
    let renamed = |from: &str, to: &str| {
        let mut other = vocabulary.clone();
        let id = vocabulary.id(from) as usize;
        other.texts[id] = to.to_owned();
        tokenizer.check_same_vocabulary(&other.gguf())
    };
    renamed("<|placeholder1|>", "<|step|>").unwrap();
    for (from, to) in
        [("<|end|>", "<|stop|>"), ("<|placeholder1|>", "<|im_end|>"), ("end", "ends"), ("us", "<us>")]
    {
        mentions(&renamed(from, to).unwrap_err(), &[from, to]);
    }
}
