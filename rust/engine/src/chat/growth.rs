//! The work that contents, templates and histories take grows with their length, and not with its square.

use std::path::Path;

use super::control::Controls;
use super::jinja::{Clock, Jinja, pairs};
use super::work::counted;
use super::{ChatTemplate, Message, marked};
use crate::gguf::Gguf;
use crate::tokenizer::{Tokenizer, TokenizerOptions};
use crate::{CancelToken, Error};

/// Twice the input may take this many times the work.
const MOST: f64 = 2.5;
const SIZE: usize = 2_000;

const TOLD_APART: &str = "{% for m in messages %}<|{{ m.role }}|>{{ m.content.strip() }}<|end|>{% endfor %}\
                          {% if add_generation_prompt %}<|assistant|>{% endif %}";
const REWRITES: &str = "{% for m in messages %}<|{{ m.role }}|>{{ m.content|lower }}<|end|>{% endfor %}\
                        {% if add_generation_prompt %}<|assistant|>{% endif %}";

fn tokenizer() -> Tokenizer {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python/candle_phi/demo/candle-phi-demo.gguf");
    let gguf = Gguf::open(&path, true, &CancelToken::new()).unwrap();
    Tokenizer::from_gguf(&gguf, &TokenizerOptions::default()).unwrap()
}

fn jinja(template: &str) -> Jinja {
    Jinja::compile(template, "<s>", "</s>", "use a raw prompt").unwrap()
}

fn conversation(turns: usize) -> Vec<Message> {
    (0..turns).flat_map(|_| [Message::user(" Hello, World"), Message::assistant("An answer")]).collect()
}

/// Holds the work of twice the size against that of the size.
fn grows_in_proportion(name: &str, work: impl Fn(usize)) {
    let (once, twice) = (counted::of(|| work(SIZE)), counted::of(|| work(2 * SIZE)));
    let ratio = twice as f64 / once as f64;
    assert!(once > 0 && ratio <= MOST, "{name}: {once} and {twice}, {ratio} times");
}

#[test]
fn contents_with_control_tokens_are_refused_in_proportion_to_their_length() {
    let (jinja, controls) = (jinja(REWRITES), Controls::new(&tokenizer()).unwrap());
    grows_in_proportion("control tokens in a content", |size| {
        let messages = [Message::user("A <|end|>".repeat(size))];
        let error: Error = marked::pieces(&jinja, &controls, &messages, true, None).unwrap_err();
        assert_eq!(error.option(), Some("messages"));
    });
    grows_in_proportion("signs of control tokens in a content", |size| {
        let messages = [Message::user("A <| ".repeat(size))];
        drop(marked::pieces(&jinja, &controls, &messages, true, None));
    });
}

#[test]
fn control_tokens_of_a_template_are_found_in_proportion_to_its_text() {
    let controls = Controls::new(&tokenizer()).unwrap();
    grows_in_proportion("a template of control tokens", |size| {
        let jinja = jinja(&format!("{{{{ '<|end|>a' * {size} }}}}{{{{ messages[0].content|upper }}}}"));
        let pieces = marked::pieces(&jinja, &controls, &[Message::user("b")], true, None).unwrap();
        assert!(marked::parts(&pieces, &controls).len() > size);
    });
}

#[test]
fn templates_take_work_in_proportion_to_the_messages() {
    for template in [
        TOLD_APART,
        REWRITES,
        "{% for m in messages %}{{ loop.index }}{{ m.content.split(' ')[-1] ~ m['role'] }}{% endfor %}",
        "{% for m in messages[1:] %}{{ {'r': m.role, 'c': [m.content]}|tojson }}{% endfor %}",
        "{{ messages|selectattr('role', 'equalto', 'user')|map(attribute='content')|join(',') }}",
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
        "{{ messages }}",
        "{{ messages|groupby('role')|length }}{{ messages == messages }}{{ {'a': 1} in messages }}",
    ] {
        let jinja = jinja(template);
        grows_in_proportion(template, |size| {
            jinja.render(&pairs(&conversation(size)), true, &Clock::default()).unwrap();
        });
        grows_in_proportion(template, |size| {
            let messages = [Message::user("long content ".repeat(8 * size))];
            jinja.render(&pairs(&messages), true, &Clock::default()).unwrap();
        });
    }
}

#[test]
fn a_turn_takes_work_in_proportion_to_its_history() {
    let tokenizer = tokenizer();
    for template in [TOLD_APART, REWRITES] {
        let template = ChatTemplate::custom(template, &tokenizer).unwrap();
        grows_in_proportion("a long history", |size| {
            template.encode_turn(&tokenizer, &conversation(size / 4), &[Message::user("more")]).unwrap();
        });
        grows_in_proportion("many new messages", |size| {
            let new: Vec<Message> = (0..size / 4).map(|index| Message::user(format!("more {index}"))).collect();
            template.encode_turn(&tokenizer, &conversation(1), &new).unwrap();
        });
        grows_in_proportion("a whole conversation", |size| {
            template.encode(&tokenizer, &conversation(size / 4), true, false).unwrap();
        });
    }
}
