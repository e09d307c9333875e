//! The examples that the guides show do what they say, on the embedded model.
#![allow(clippy::unwrap_used, reason = "a test stops where it is wrong")]

#[allow(dead_code, reason = "its `main` reads the command line")]
#[path = "../examples/conversation.rs"]
mod conversation;

#[allow(dead_code, reason = "its `main` reads the command line")]
#[path = "../examples/first_answer.rs"]
mod first_answer;

use std::path::Path;

use candle_phi_engine::CancelToken;

#[test]
fn the_first_answer_is_written() {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python/candle_phi/demo/candle-phi-demo.gguf");
    let mut out = Vec::new();
    first_answer::answer(&demo, "Write a haiku about ice hockey", &mut out).unwrap();
    assert!(String::from_utf8(out).unwrap().lines().count() > 1);
}

#[test]
fn the_conversation_goes_on_and_forks() {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python/candle_phi/demo/candle-phi-demo.gguf");
    let mut out = Vec::new();
    conversation::converse(&demo, &CancelToken::new(), &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    let answers: Vec<&str> = text.split("\n\n").collect();
    assert_eq!(answers.len(), 3, "{text}");
    assert!(answers[0].lines().count() > 1, "{text}");
    for answer in &answers[1..] {
        let (_, cached) = answer.rsplit_once("\n(").unwrap();
        let mut counts = cached.split(' ').filter_map(|word| word.parse::<usize>().ok());
        let (cached, all) = (counts.next().unwrap(), counts.next().unwrap());
        assert!(cached > 0 && cached < all, "{text}");
    }
}
