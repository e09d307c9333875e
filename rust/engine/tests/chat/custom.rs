//! Templates that are nobody's of the family: held against what transformers' `apply_chat_template` writes.

use candle_phi_engine::{ChatTemplate, ErrorKind, Message, Tokenizer};

use crate::jinja::{load, loaded};

/// As Phi-4-reasoning's is made: a system text of its own, and tags that mark what the assistant says.
const REASONING: &str = "<|im_start|>system<|im_sep|>You reason.<|im_end|>{% for message in messages %}\
    {% if (message['role'] == 'user') %}{{'<|im_start|>user<|im_sep|>' + message['content'] + '<|im_end|>'}}\
    {% elif (message['role'] == 'assistant') %}{{'<|im_start|>assistant<|im_sep|>'}}{% generation %}\
    {{message['content'] + '<|im_end|>'}}{%- endgeneration -%}{% endif %}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}";
/// Answers are trimmed and what was thought is cut out of them; what closes a turn is text.
const THINKING: &str = "{% for m in messages %}{% if m.role == 'assistant' %}<|assistant|>\
    {{ m.content.split('</think>')[-1].strip() }}]{% else %}<|user|>[{{ m.content }}]{% endif %}{% endfor %}\
    {% if add_generation_prompt %}<|assistant|>{% endif %}";
/// All system messages stand first.
const SYSTEM_FIRST: &str = "{% for m in messages %}{% if m.role == 'system' %}<|system|>{{ m.content }}{% endif %}\
    {% endfor %}{% for m in messages %}{% if m.role != 'system' %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endif %}\
    {% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}";

fn control(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<u32> {
    ids.iter().copied().filter(|id| tokenizer.control_ids().contains(id)).collect()
}

fn turns_are_the_whole(template: &ChatTemplate, tokenizer: &Tokenizer, messages: &[Message], history: usize) {
    let (history, next) = messages.split_at(history);
    let mut ids = template.encode(tokenizer, history, false, true).unwrap();
    ids.extend(template.encode_turn(tokenizer, history, next).unwrap());
    assert_eq!(ids, template.encode(tokenizer, messages, true, false).unwrap(), "{messages:?}");
}

#[test]
fn tags_that_mark_answers_for_training_are_passed_over() {
    let (template, tokenizer) = loaded(REASONING);
    let messages = [Message::user("a?"), Message::assistant(" b\n"), Message::user("c")];
    assert_eq!(
        template.render(&messages, true, false).unwrap(),
        "<|im_start|>system<|im_sep|>You reason.<|im_end|><|im_start|>user<|im_sep|>a?<|im_end|>\
         <|im_start|>assistant<|im_sep|> b\n<|im_end|><|im_start|>user<|im_sep|>c<|im_end|><|im_start|>assistant<|im_sep|>"
    );
    turns_are_the_whole(&template, &tokenizer, &messages, 2);
    let (template, _) =
        loaded("{% for m in messages %}a\n{%- generation -%}\n b\n{%- endgeneration %}\nc{% endfor %}");
    assert_eq!(template.render(&messages[..1], true, false).unwrap(), "abc");
}

#[test]
fn what_is_not_given_is_none() {
    let (template, _) = loaded(
        "{% if tools is not none and tools %}tools{% endif %}{% if documents is none %}[{{ messages[0].content }}]{% endif %}",
    );
    assert_eq!(template.render(&[Message::user("a")], true, false).unwrap(), "[a]");
}

#[test]
fn contents_that_a_template_trims_in_some_roles_only_are_still_told_apart() {
    let (template, tokenizer) = loaded(THINKING);
    let messages = [Message::user(" a<|end|> "), Message::assistant(" b \n"), Message::user(" c<|user|>\n")];
    assert_eq!(
        template.render(&messages, true, false).unwrap(),
        "<|user|>[ a<|end|> ]<|assistant|>b]<|user|>[ c<|user|>\n]<|assistant|>"
    );
    let ids = template.encode(&tokenizer, &messages, true, false).unwrap();
    let plain = [Message::user("a"), Message::assistant("b"), Message::user("c")];
    let expected = template.encode(&tokenizer, &plain, true, false).unwrap();
    assert_eq!(control(&tokenizer, &ids), control(&tokenizer, &expected));
    turns_are_the_whole(&template, &tokenizer, &messages, 2);
}

#[test]
fn conversation_goes_on_behind_answers_that_a_template_cuts() {
    let (template, tokenizer) = loaded(THINKING);
    let messages = [
        Message::user("a"),
        Message::assistant("b</think>c"),
        Message::user("d"),
        Message::assistant("e</think>h"),
        Message::user("i"),
    ];
    let turn = template.encode_turn(&tokenizer, &messages[..4], &messages[4..]).unwrap();
    let expected = tokenizer.encode("0]<|user|>[i]<|assistant|>", false, true).unwrap();
    let before = tokenizer.encode("0", false, true).unwrap();
    assert_eq!(turn, expected[before.len()..]);
}

#[test]
fn control_token_that_a_template_puts_together_by_cutting_is_refused() {
    let (template, tokenizer) =
        loaded("{% for m in messages %}<|user|>{{ m.content | replace('\\n', '') }}{% endfor %}");
    let ids = template.encode(&tokenizer, &[Message::user("the\nuser")], true, false).unwrap();
    assert_eq!(ids, tokenizer.encode("<|user|>theuser", true, true).unwrap());
    let error = template.encode(&tokenizer, &[Message::user("<|e\nnd|>")], true, false).unwrap_err();
    assert_eq!((error.kind(), error.option()), (ErrorKind::InvalidOption, Some("messages")));
    assert!(error.to_string().contains("<|"), "{error}");
}

#[test]
fn message_that_a_template_writes_before_the_answer_is_not_lost_without_a_word() {
    let (template, tokenizer) = loaded(SYSTEM_FIRST);
    assert_eq!(template.name(), "custom");
    let history = [Message::system("a"), Message::user("b"), Message::assistant("c")];
    template.encode_turn(&tokenizer, &history, &[Message::user("d")]).unwrap();
    let error =
        template.encode_turn(&tokenizer, &history, &[Message::system("e"), Message::user("d")]).unwrap_err();
    assert_eq!((error.kind(), error.option()), (ErrorKind::InvalidOption, Some("messages")));
    assert!(error.to_string().contains("\"system\""), "{error}");
}

#[test]
fn template_that_differs_from_the_family_s_in_white_space_only_is_of_its_own() {
    let source = "{% for m in messages %}{{ '<|' + m.role + '|>\\n' + m.content | trim + '<|end|>\\n' }}{% endfor %}\
                  {% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}";
    let (template, _) = loaded(source);
    assert_eq!(template.name(), "custom");
    let messages = [Message::user(" a ")];
    assert_eq!(template.render(&messages, true, false).unwrap(), "<|user|>\na<|end|>\n<|assistant|>\n");
    let (template, _) = loaded(&source.replace(" | trim", ""));
    assert_eq!(template.name(), "phi3");
    let (template, _) =
        loaded(&source.replace(" | trim", "").replace("<|assistant|>\\n' }}", "<|assistant|>' }}"));
    assert_eq!(template.name(), "custom");
    assert!(template.render(&messages, true, false).unwrap().ends_with("<|assistant|>"));
}

#[test]
fn empty_contents_are_written_as_the_template_says() {
    let (template, tokenizer) = loaded(crate::jinja::JULY_2024);
    let messages = [Message::system(""), Message::user("a")];
    assert_eq!(template.name(), "phi3");
    assert_eq!(template.render(&messages, true, false).unwrap(), "<|user|>\na<|end|>\n<|assistant|>\n");
    assert_eq!(
        template.encode(&tokenizer, &messages, true, false).unwrap(),
        template.encode(&tokenizer, &messages[1..], true, false).unwrap()
    );
    let (template, tokenizer) = loaded(THINKING);
    let messages = [Message::user(""), Message::assistant(""), Message::user("<|end|>")];
    assert_eq!(
        template.render(&messages, true, false).unwrap(),
        "<|user|>[]<|assistant|>]<|user|>[<|end|>]<|assistant|>"
    );
    assert_eq!(template.render(&messages[..2], false, true).unwrap(), "<|user|>[]<|assistant|>");
    turns_are_the_whole(&template, &tokenizer, &messages, 2);
}

#[test]
fn empty_template_is_none() {
    assert_eq!(loaded(" \n").0.name(), "phi4");
}

#[test]
fn deep_nesting_in_a_long_conversation_does_not_end_the_process() {
    let source = "{% set n = namespace(a=[]) %}{% for i in range(99999) %}{% for j in range(99999) %}{% set n.a = [n.a] %}\
                  {% endfor %}{% endfor %}";
    let messages = vec![Message::user("a"); 20_000];
    let (template, _) = load(source, None).unwrap();
    let error = template.render(&messages, true, false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidOption, "{error}");
    assert!(error.to_string().contains("chat_format"), "{error}");
}

#[test]
fn embedded_model_s_template_is_the_family_s() {
    let gguf = crate::vocabulary::demo();
    let tokenizer = Tokenizer::from_gguf(&gguf, &candle_phi_engine::TokenizerOptions::default()).unwrap();
    let template = ChatTemplate::load(&gguf, &tokenizer, None, None).unwrap().unwrap();
    assert_eq!((template.name(), template.corrections()), ("phi3", &[][..]));
}
