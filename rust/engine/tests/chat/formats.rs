//! The formats of the family on the vocabularies of the family, against what transformers renders.

use std::sync::LazyLock;

use candle_phi_engine::{ChatFormat, ChatTemplate, Message, Tokenizer};
use proptest::prelude::*;

use crate::vocabulary::SmallVocabulary;
use crate::vocabulary::byte_level::ByteVocabulary;
use crate::vocabulary::runner;

struct Model {
    format: ChatFormat,
    template: ChatTemplate,
    tokenizer: Tokenizer,
}

/// Each format on its own vocabulary: a small SentencePiece one, and the real ones of Phi-4 and Phi-4-mini.
static MODELS: LazyLock<Vec<Model>> = LazyLock::new(|| {
    let (phi3, phi4, mini) = (SmallVocabulary::default(), ByteVocabulary::phi4(), ByteVocabulary::phi4_mini());
    let model = |format, gguf: candle_phi_engine::Gguf, tokenizer: Tokenizer| Model {
        format,
        template: ChatTemplate::load(&gguf, &tokenizer, None, Some(format)).unwrap().unwrap(),
        tokenizer,
    };
    vec![
        model(ChatFormat::Phi3, phi3.gguf(), phi3.tokenizer(true)),
        model(ChatFormat::Phi4, phi4.gguf(), phi4.tokenizer()),
        model(ChatFormat::Phi4Mini, mini.gguf(), mini.tokenizer()),
        model(ChatFormat::Phi4MiniReasoning, mini.gguf(), mini.tokenizer()),
    ]
});

fn conversation() -> Vec<Message> {
    vec![
        Message::system("Be brief."),
        Message::user("Who\nare you? "),
        Message::assistant("A model."),
        Message::user("Which?"),
    ]
}

#[test]
fn texts_are_those_that_transformers_renders() {
    let expected = [
        "<|system|>\nBe brief.<|end|>\n<|user|>\nWho\nare you? <|end|>\n<|assistant|>\nA model.<|end|>\n<|user|>\n\
         Which?<|end|>\n<|assistant|>\n",
        "<|im_start|>system<|im_sep|>Be brief.<|im_end|><|im_start|>user<|im_sep|>Who\nare you? <|im_end|>\
         <|im_start|>assistant<|im_sep|>A model.<|im_end|><|im_start|>user<|im_sep|>Which?<|im_end|>\
         <|im_start|>assistant<|im_sep|>",
        "<|system|>Be brief.<|end|><|user|>Who\nare you? <|end|><|assistant|>A model.<|end|><|user|>Which?<|end|>\
         <|assistant|>",
        "<|system|>Your name is Phi, an AI math expert developed by Microsoft. Be brief.<|end|><|user|>Who\nare you? \
         <|end|><|assistant|>A model.<|end|><|user|>Which?<|end|><|assistant|>",
    ];
    for (model, expected) in MODELS.iter().zip(expected) {
        assert_eq!(model.template.render(&conversation(), true, false).unwrap(), expected, "{}", model.format);
    }
}

#[test]
fn vocabulary_without_a_template_says_which_format_it_is_for() {
    for model in MODELS.iter().take(3) {
        assert_eq!(ChatFormat::detect(&model.tokenizer), Some(model.format));
    }
}

#[test]
fn harmless_contents_encode_as_the_rendered_string() {
    let content = "[a-zA-Zé你 \n.,!?0-9]{0,16}";
    runner(200)
        .run(&(content, content, content, content), |(system, user, answer, next)| {
            let messages =
                [Message::system(system), Message::user(user), Message::assistant(answer), Message::user(next)];
            for Model { format, template, tokenizer } in MODELS.iter() {
                let text = template.render(&messages, true, false).unwrap();
                let whole = tokenizer.encode(&text, tokenizer.add_bos(), true).unwrap();
                prop_assert_eq!(template.encode(tokenizer, &messages, true, false).unwrap(), whole, "{}", format);
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn turns_joined_are_the_whole_conversation() {
    let messages = conversation();
    for Model { format, template, tokenizer } in MODELS.iter() {
        let mut ids = template.encode(tokenizer, &messages[..3], false, true).unwrap();
        ids.extend(template.encode_turn(tokenizer, &messages[..3], &messages[3..]).unwrap());
        assert_eq!(ids, template.encode(tokenizer, &messages, true, false).unwrap(), "{format}");
    }
}

#[test]
fn control_tokens_in_contents_stay_text() {
    for Model { format, template, tokenizer } in MODELS.iter() {
        let control = |ids: &[u32]| ids.iter().filter(|id| tokenizer.control_ids().contains(id)).count();
        let harmless = template.encode(tokenizer, &[Message::user("a")], true, false).unwrap();
        let texts: Vec<String> =
            tokenizer.control_ids().iter().filter_map(|id| tokenizer.token_text(*id)).map(str::to_owned).collect();
        for text in texts {
            for hostile in [text.clone(), format!("a {text}b"), format!("{text}{text}")] {
                let ids = template.encode(tokenizer, &[Message::user(hostile)], true, false).unwrap();
                assert_eq!(control(&ids), control(&harmless), "{format}: {text}");
            }
        }
    }
}

#[test]
fn every_format_ends_at_its_own_token_and_begins_at_most_once() {
    for (model, end) in MODELS.iter().zip(["<|end|>", "<|im_end|>", "<|end|>", "<|end|>"]) {
        let id = model.tokenizer.token_id(end).unwrap();
        assert!(model.tokenizer.end_ids().contains(&id), "{}", model.format);
        let ids = model.template.encode(&model.tokenizer, &conversation(), true, false).unwrap();
        let begins = ids.iter().filter(|id| Some(**id) == model.tokenizer.bos_id()).count();
        assert_eq!(begins, usize::from(model.tokenizer.add_bos()), "{}", model.format);
    }
}

#[test]
fn format_that_the_vocabulary_lacks_tokens_for_is_an_option_error() {
    let vocabulary = SmallVocabulary::default();
    let error = ChatTemplate::load(&vocabulary.gguf(), &vocabulary.tokenizer(true), None, Some(ChatFormat::Phi4))
        .unwrap_err();
    assert_eq!((error.kind(), error.option()), (candle_phi_engine::ErrorKind::InvalidOption, Some("chat_format")));
    assert!(error.to_string().contains("<|im_start|>"), "{error}");
}
