//! Sessions on the embedded model: it is trained, so a wrong mask, rope or cache shows in its answers.
#![allow(clippy::unwrap_used, reason = "a test stops where it is wrong")]

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use candle_phi_engine::{
    CancelToken, ErrorKind, FinishReason, GenerationOptions, HalfStep, KvDtype, LoadOptions, Message, OnOverflow,
    Phi3Model, SamplingOptions, Session, SessionOptions, StopReason,
};

static MODEL: LazyLock<Arc<Phi3Model>> = LazyLock::new(|| {
    let options = LoadOptions::default();
    Arc::new(Phi3Model::load(&demo_path(), &options, &CancelToken::new()).unwrap())
});

fn demo_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python/candle_phi/demo/candle-phi-demo.gguf")
}

fn session() -> Session {
    Session::new(Arc::clone(&MODEL), &SessionOptions::default()).unwrap()
}

fn exact_session() -> Session {
    Session::new(Arc::clone(&MODEL), &SessionOptions { kv_dtype: KvDtype::F32, ..SessionOptions::default() })
        .unwrap()
}

fn greedy(max_tokens: usize) -> GenerationOptions {
    GenerationOptions {
        max_tokens: Some(max_tokens),
        sampling: SamplingOptions::greedy(),
        ..GenerationOptions::default()
    }
}

fn prompt(text: &str) -> Vec<u32> {
    let text = format!("<|user|>\n{text}<|end|>\n<|assistant|>\n");
    MODEL.tokenizer().encode(&text, true, true).unwrap()
}

fn close(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn chunks_joined_are_the_text_and_the_model_ends_by_itself() {
    let mut session = session();
    let mut generation = session.start_chat(&[Message::user("Count from 3 to 7")], &greedy(100)).unwrap();
    let mut text = String::new();
    while let Some(chunk) = session.step(&mut generation, &CancelToken::new()).unwrap() {
        text.push_str(&chunk.text);
    }
    let completion = generation.completion();
    assert_eq!(text, completion.text);
    assert_eq!(completion.finish_reason, Some(FinishReason::Stop));
    let end = MODEL.tokenizer().token_id("<|end|>").unwrap();
    assert_eq!(completion.stop_reason, Some(StopReason::Token(end)));
    for number in ["3", "4", "5", "6", "7"] {
        assert!(text.contains(number), "{text}");
    }
    assert!(!text.contains("<|end|>"));
    assert_eq!(completion.usage.completion_tokens, completion.tokens.len());
    assert_eq!(MODEL.tokenizer().decode(&completion.tokens, true).unwrap(), text);
}

#[test]
fn a_conversation_continues_from_the_cache() {
    let mut session = session();
    let ask = |session: &mut Session, text: &str| {
        let mut generation = session.continue_chat(&[Message::user(text)], &greedy(60)).unwrap();
        session.run(&mut generation, &CancelToken::new()).unwrap();
        generation.completion().clone()
    };
    let first = ask(&mut session, "Remember the word lantern.");
    assert_eq!(first.usage.cached_tokens, 0);
    let second = ask(&mut session, "What was my word?");
    assert!(second.text.contains("lantern"), "{}", second.text);
    assert!(second.usage.cached_tokens >= first.usage.prompt_tokens + first.usage.completion_tokens - 1);

    let mut fresh = self::session();
    let whole = [
        Message::user("Remember the word lantern."),
        Message::assistant(&first.text),
        Message::user("What was my word?"),
    ];
    let mut generation = fresh.start_chat(&whole, &greedy(60)).unwrap();
    fresh.run(&mut generation, &CancelToken::new()).unwrap();
    assert_eq!(generation.completion().text, second.text);
}

#[test]
fn a_turn_that_was_given_up_is_no_part_of_the_conversation() {
    let mut session = session();
    let mut generation = session.start_chat(&[Message::user("Count from 1 to 9")], &greedy(60)).unwrap();
    session.step(&mut generation, &CancelToken::new()).unwrap();
    drop(generation);
    assert!(session.conversation_tokens().is_empty());
    let mut generation = session.continue_chat(&[Message::user("Count from 3 to 5")], &greedy(60)).unwrap();
    session.run(&mut generation, &CancelToken::new()).unwrap();
    assert!(generation.completion().text.contains('5'));
}

#[test]
fn a_reused_prefix_gives_the_logits_of_a_fresh_session() {
    let cancel = CancelToken::new();
    let (a, b) = (prompt("Write a haiku about ice hockey"), prompt("Write a haiku about the sea"));
    let mut used = exact_session();
    used.logits(&a, &cancel).unwrap();
    used.logits(&b, &cancel).unwrap();
    let again = used.logits(&a, &cancel).unwrap();
    let fresh = exact_session().logits(&a, &cancel).unwrap();
    assert!(close(&again, &fresh) < 2e-3, "{}", close(&again, &fresh));
    assert_eq!(used.cached_tokens(), a);
}

#[test]
fn token_by_token_gives_the_logits_of_one_pass() {
    let cancel = CancelToken::new();
    let tokens = prompt("Write a haiku about ice hockey");
    let mut stepped = exact_session();
    let mut last = Vec::new();
    for end in 1..=tokens.len() {
        last = stepped.logits(&tokens[..end], &cancel).unwrap();
    }
    let whole = exact_session().logits(&tokens, &cancel).unwrap();
    assert!(close(&last, &whole) < 5e-2, "{}", close(&last, &whole));
}

#[test]
fn a_prompt_gives_the_same_logits_however_it_is_cut() {
    let cancel = CancelToken::new();
    let tokens = prompt("Write a haiku about ice hockey");
    let cut = |prefill_chunk| {
        let options = SessionOptions { kv_dtype: KvDtype::F32, prefill_chunk, ..SessionOptions::default() };
        Session::new(Arc::clone(&MODEL), &options).unwrap().logits(&tokens, &cancel).unwrap()
    };
    let whole = cut(None);
    for prefill_chunk in [1, 2, 3, 7] {
        let difference = close(&cut(Some(prefill_chunk)), &whole);
        assert!(difference < 5e-2, "{prefill_chunk}: {difference}");
    }
    let none = SessionOptions { prefill_chunk: Some(0), ..SessionOptions::default() };
    assert_eq!(Session::new(Arc::clone(&MODEL), &none).err().unwrap().kind(), ErrorKind::InvalidOption);
}

#[test]
fn scores_are_the_log_probabilities_of_the_next_tokens_and_leave_the_session_alone() {
    let cancel = CancelToken::new();
    let tokens = prompt("Count from 3 to 7");
    let mut session = exact_session();
    session.logits(&tokens[..4], &cancel).unwrap();
    let scores = session.score(&tokens, &cancel).unwrap();
    assert_eq!(scores.len(), tokens.len() - 1);
    assert!(scores.iter().all(|score| *score <= 0.0));
    assert_eq!(session.cached_tokens(), &tokens[..4]);
    assert!(session.score(&tokens[..1], &cancel).unwrap().is_empty());
}

#[test]
fn the_same_seed_gives_the_same_tokens_and_a_random_one_is_reported() {
    let sampled = |seed| {
        let options = GenerationOptions {
            max_tokens: Some(40),
            sampling: SamplingOptions { temperature: 1.5, seed, ..SamplingOptions::default() },
            ..GenerationOptions::default()
        };
        let mut session = session();
        let mut generation = session.start(&prompt("Write a haiku about snow"), &options).unwrap();
        session.run(&mut generation, &CancelToken::new()).unwrap();
        (generation.completion().tokens.clone(), generation.completion().seed)
    };
    let (tokens, seed) = sampled(None);
    assert_eq!(sampled(Some(seed)), (tokens, seed));
}

#[test]
fn cancelling_leaves_the_session_usable() {
    let cancel = CancelToken::new();
    cancel.cancel();
    let mut session = session();
    let tokens = prompt("Count from 3 to 7");
    let mut generation = session.start(&tokens, &greedy(50)).unwrap();
    assert_eq!(session.step(&mut generation, &cancel).unwrap_err().kind(), ErrorKind::Cancelled);
    cancel.reset();
    session.run(&mut generation, &cancel).unwrap();
    let mut fresh = self::session();
    let mut expected = fresh.start(&tokens, &greedy(50)).unwrap();
    fresh.run(&mut expected, &cancel).unwrap();
    assert_eq!(generation.completion().tokens, expected.completion().tokens);
}

#[test]
fn one_generation_at_a_time() {
    let mut session = session();
    let first = session.start(&prompt("Count from 3 to 7"), &greedy(50)).unwrap();
    let busy = session.start(&prompt("Count from 3 to 7"), &greedy(50)).err().unwrap();
    assert_eq!(busy.kind(), ErrorKind::SessionBusy);
    assert_eq!(session.logits(&[1], &CancelToken::new()).unwrap_err().kind(), ErrorKind::SessionBusy);
    drop(first);
    assert!(session.start(&prompt("Count from 3 to 7"), &greedy(50)).is_ok());
}

#[test]
fn a_full_context_ends_the_generation() {
    let options = SessionOptions { n_ctx: Some(24), ..SessionOptions::default() };
    let mut session = Session::new(Arc::clone(&MODEL), &options).unwrap();
    let tokens = prompt("Write a haiku about ice hockey");
    let mut generation = session.start(&tokens, &GenerationOptions { ignore_eos: true, ..greedy(1000) }).unwrap();
    session.run(&mut generation, &CancelToken::new()).unwrap();
    assert_eq!(generation.completion().finish_reason, Some(FinishReason::Length));
    assert_eq!(tokens.len() + generation.completion().tokens.len(), 24 + 1);
}

#[test]
fn a_raw_text_goes_on_with_its_space_and_an_answer_begins_without() {
    let mut session = session();
    let ask = |session: &mut Session, prompt: &[u32]| {
        let mut generation = session.start(prompt, &greedy(50)).unwrap();
        session.run(&mut generation, &CancelToken::new()).unwrap();
        generation.completion().text.clone()
    };
    let mut tokens = prompt("Count from 3 to 7");
    assert_eq!(ask(&mut session, &tokens), "3, 4, 5, 6, 7");
    tokens.extend(MODEL.tokenizer().encode("3, 4,", false, false).unwrap());
    assert_eq!(ask(&mut session, &tokens), " 5, 6, 7");
}

#[test]
fn stop_strings_and_stop_tokens_end_the_text_in_front_of_them() {
    let mut session = session();
    let options = GenerationOptions { stop: vec!["5, 6".to_owned()], ..greedy(50) };
    let mut generation = session.start_chat(&[Message::user("Count from 3 to 7")], &options).unwrap();
    session.run(&mut generation, &CancelToken::new()).unwrap();
    assert_eq!(generation.completion().stop_reason, Some(StopReason::String("5, 6".to_owned())));
    assert!(!generation.completion().text.contains('5'), "{}", generation.completion().text);
    let third = generation.completion().tokens[2];
    let options = GenerationOptions { stop_token_ids: vec![third], ..greedy(50) };
    let mut generation = session.start_chat(&[Message::user("Count from 3 to 7")], &options).unwrap();
    session.run(&mut generation, &CancelToken::new()).unwrap();
    assert_eq!(generation.completion().stop_reason, Some(StopReason::Token(third)));
}

#[test]
fn bad_prompts_and_options_are_refused_with_the_limits() {
    let mut session = session();
    let kind = |result: candle_phi_engine::Result<candle_phi_engine::Generation>| result.err().unwrap().kind();
    assert_eq!(kind(session.start(&[], &greedy(5))), ErrorKind::InvalidOption);
    assert_eq!(kind(session.start(&[1_000_000], &greedy(5))), ErrorKind::InvalidOption);
    let length = session.n_ctx();
    let long = kind(session.start(&vec![5; length + 1], &greedy(5)));
    assert_eq!(long, ErrorKind::ContextLength { prompt_tokens: length + 1, context_length: length });
    assert_eq!(kind(session.start(&[1], &greedy(0))), ErrorKind::InvalidOption);
    let options = GenerationOptions { stop_token_ids: vec![1_000_000], ..greedy(5) };
    assert_eq!(kind(session.start(&[1], &options)), ErrorKind::InvalidOption);
    let too_long = SessionOptions { n_ctx: Some(1_000_000), ..SessionOptions::default() };
    let error = Session::new(Arc::clone(&MODEL), &too_long).err().unwrap();
    assert_eq!((error.kind(), error.option()), (ErrorKind::InvalidOption, Some("n_ctx")));
}

#[test]
fn log_probabilities_are_of_the_raw_distribution() {
    let mut session = session();
    let options = GenerationOptions { logprobs: Some(3), ..greedy(5) };
    let mut generation = session.start_chat(&[Message::user("Count from 3 to 7")], &options).unwrap();
    session.run(&mut generation, &CancelToken::new()).unwrap();
    let completion = generation.completion();
    assert_eq!(completion.logprobs.len(), completion.tokens.len());
    for (logprob, token) in completion.logprobs.iter().zip(&completion.tokens) {
        assert_eq!(logprob.token_id, *token);
        assert_eq!(logprob.top.len(), 3);
        assert_eq!(logprob.top[0], (*token, logprob.logprob));
    }
}

#[test]
fn a_step_in_halves_is_a_step_and_what_is_done_to_the_logits_between_counts() {
    let (mut whole, mut halves) = (session(), session());
    let tokens = prompt("Count from 3 to 7");
    let options = GenerationOptions { logprobs: Some(2), ..greedy(20) };
    let mut expected = whole.start(&tokens, &options).unwrap();
    whole.run(&mut expected, &CancelToken::new()).unwrap();
    let mut generation = halves.start(&tokens, &options).unwrap();
    let cancel = CancelToken::new();
    while halves.begin_step(&mut generation, &cancel).unwrap() == HalfStep::Logits {
        assert_eq!(generation.logits_mut().unwrap().len(), MODEL.config().vocabulary_size);
        halves.finish_step(&mut generation, &cancel).unwrap();
    }
    assert_eq!(generation.completion().text, expected.completion().text);
    assert_eq!(generation.completion().logprobs, expected.completion().logprobs);

    let mut forced = halves.start(&tokens, &greedy(3)).unwrap();
    while halves.begin_step(&mut forced, &cancel).unwrap() == HalfStep::Logits {
        assert_eq!(forced.tokens()[..tokens.len()], tokens);
        let logits = forced.logits_mut().unwrap();
        logits.fill(f32::NEG_INFINITY);
        logits[300] = 0.0;
        halves.finish_step(&mut forced, &cancel).unwrap();
    }
    assert_eq!(forced.completion().tokens, [300; 3]);
}

#[test]
fn a_half_step_alone_is_an_error_or_is_done_again() {
    let mut session = session();
    let tokens = prompt("Count from 3 to 7");
    let mut generation = session.start(&tokens, &greedy(5)).unwrap();
    let cancel = CancelToken::new();
    assert!(generation.logits_mut().is_none());
    assert_eq!(session.finish_step(&mut generation, &cancel).unwrap_err().kind(), ErrorKind::Inference);
    session.begin_step(&mut generation, &cancel).unwrap();
    // Cancelled between the halves: nothing is drawn, and the next step computes the logits again.
    cancel.cancel();
    assert_eq!(session.finish_step(&mut generation, &cancel).unwrap_err().kind(), ErrorKind::Cancelled);
    assert!(generation.logits_mut().is_none());
    cancel.reset();
    session.run(&mut generation, &cancel).unwrap();
    let mut fresh = self::session();
    let mut expected = fresh.start(&tokens, &greedy(5)).unwrap();
    fresh.run(&mut expected, &cancel).unwrap();
    assert_eq!(generation.completion().tokens, expected.completion().tokens);
    assert_eq!(session.finish_step(&mut generation, &cancel).unwrap_err().kind(), ErrorKind::SessionBusy);
}

#[test]
fn the_three_things_to_do_with_a_full_context() {
    let options = SessionOptions { n_ctx: Some(32), ..SessionOptions::default() };
    let mut session = Session::new(Arc::clone(&MODEL), &options).unwrap();
    let cancel = CancelToken::new();
    let tokens: Vec<u32> = std::iter::once(1).chain(300..350).collect();
    let on = |on_overflow| GenerationOptions { on_overflow, ignore_eos: true, ..greedy(40) };
    let error = session.start(&tokens, &on(OnOverflow::Error)).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::ContextLength { prompt_tokens: 51, context_length: 32 });
    let mut stopped = session.start(&tokens, &on(OnOverflow::Stop)).unwrap();
    assert_eq!(stopped.completion().finish_reason, Some(FinishReason::Length));
    assert_eq!(stopped.completion().usage.prompt_tokens, 51);
    assert_eq!(session.step(&mut stopped, &cancel).unwrap(), None);
    let mut truncated = session.start(&tokens, &on(OnOverflow::TruncateOldest)).unwrap();
    session.run(&mut truncated, &cancel).unwrap();
    let completion = truncated.completion();
    assert_eq!((completion.tokens.len(), completion.usage.prompt_tokens), (40, 24));
    // Of the prompt 27; and at 33 tokens, which is twice, all but 16.
    assert_eq!(completion.usage.truncated_tokens, 27 + 2 * (33 - 16));
    assert!(session.cached_tokens().len() <= 32);
}
