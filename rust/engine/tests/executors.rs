//! What sessions promise on either executor: forks, cancelled prompts, memory, and a file that is cut short.
#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test stops where it is wrong")]
#![allow(clippy::print_stdout, reason = "a test may show what it measured")]

mod common;
mod messages;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use candle_phi_engine::{
    CancelToken, ErrorKind, ExecutorKind, GenerationOptions, KvDtype, LoadOptions, Message, Phi3Model,
    SamplingOptions, Session, SessionOptions,
};

use common::{Heads, Mixture, Random, write_tiny};
use messages::mentions;

const BOTH: [ExecutorKind; 2] = [ExecutorKind::Kernels, ExecutorKind::Candle];
/// Positions of a page of the kernels' cache.
const PAGE_TOKENS: usize = 32;

fn load(path: &Path, executor: ExecutorKind) -> Arc<Phi3Model> {
    let options = LoadOptions { executor, ..LoadOptions::default() };
    Arc::new(Phi3Model::load(path, &options, &CancelToken::new()).unwrap())
}

fn demo(executor: ExecutorKind) -> Arc<Phi3Model> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python/candle_phi/demo/candle-phi-demo.gguf");
    load(&path, executor)
}

fn session(model: &Arc<Phi3Model>) -> Session {
    Session::new(Arc::clone(model), &SessionOptions::default()).unwrap()
}

fn greedy(max_tokens: usize) -> GenerationOptions {
    GenerationOptions {
        max_tokens: Some(max_tokens),
        sampling: SamplingOptions::greedy(),
        ..GenerationOptions::default()
    }
}

fn logits(session: &mut Session, ids: &[u32]) -> Vec<f32> {
    session.logits(ids, &CancelToken::new()).unwrap()
}

fn generate(session: &mut Session, prompt: &[u32], max_tokens: usize) -> Vec<u32> {
    let options = GenerationOptions { ignore_eos: true, ..greedy(max_tokens) };
    let mut generation = session.start(prompt, &options).unwrap();
    session.run(&mut generation, &CancelToken::new()).unwrap();
    generation.completion().tokens.clone()
}

/// Both write into the page that they share; what one writes must not show in the other.
#[test]
fn a_fork_and_its_parent_go_on_as_fresh_sessions_would() {
    for executor in BOTH {
        let model = demo(executor);
        let mut random = Random::new(1);
        // Into a page, at its end, at its beginning, and pages before it.
        for shared in [7, PAGE_TOKENS - 1, PAGE_TOKENS, PAGE_TOKENS + 1, 3 * PAGE_TOKENS + 20] {
            let [common, left, right] = [random.ids(shared), random.ids(5), random.ids(40)];
            let joined = |tail: &[u32]| [&common, tail].concat();
            // A fresh session takes the same steps, since products of one row add up in another order than those of more.
            let fresh = |tail: &[u32]| {
                let mut session = session(&model);
                logits(&mut session, &common);
                let logits = logits(&mut session, &joined(tail));
                (logits, generate(&mut session, &joined(tail), 40))
            };
            let mut parent = session(&model);
            let before = logits(&mut parent, &common);
            let mut fork = parent.fork().unwrap();
            assert_eq!(fork.cached_tokens(), common);
            let of_fork = logits(&mut fork, &joined(&right));
            // The parent's cache is what it was: the last token again, on all the others.
            assert_eq!(parent.cached_tokens(), common);
            let again = logits(&mut parent, &common);
            let mut stepped = session(&model);
            logits(&mut stepped, &common);
            assert_eq!(logits(&mut stepped, &common), again, "{executor}: the parent behind {shared}");
            assert!(again.iter().zip(&before).all(|(a, b)| (a - b).abs() < 0.1));

            let of_parent = logits(&mut parent, &joined(&left));
            assert_eq!((of_fork, generate(&mut fork, &joined(&right), 40)), fresh(&right), "{executor}: {shared}");
            let mut second = parent.fork().unwrap();
            let expected = fresh(&left);
            assert_eq!((of_parent, generate(&mut parent, &joined(&left), 40)), expected, "{executor}: {shared}");
            drop((parent, fork));
            assert_eq!(
                generate(&mut second, &joined(&left), 40),
                expected.1,
                "{executor}: {shared}, its parent gone"
            );
        }
    }
}

#[test]
fn a_fork_has_the_conversation_and_takes_it_another_way() {
    for executor in BOTH {
        let model = demo(executor);
        let ask = |session: &mut Session, text: &str| {
            let mut generation = session.continue_chat(&[Message::user(text)], &greedy(60)).unwrap();
            session.run(&mut generation, &CancelToken::new()).unwrap();
            (generation.completion().text.clone(), generation.completion().usage.cached_tokens)
        };
        let mut parent = session(&model);
        ask(&mut parent, "Remember the word lantern.");
        let mut fork = parent.fork().unwrap();
        assert_eq!(fork.conversation_tokens(), parent.conversation_tokens());
        let told = parent.conversation_tokens().to_vec();
        let (answer, cached) = ask(&mut fork, "What was my word?");
        assert!(answer.contains("lantern"), "{executor}: {answer}");
        assert!(cached >= told.len() - 1, "{executor}: {cached}");
        assert_eq!(parent.conversation_tokens(), told);
        let (counted, _) = ask(&mut parent, "Count from 3 to 7");
        assert!(counted.contains("3, 4, 5, 6, 7"), "{executor}: {counted}");
        let (answer, _) = ask(&mut parent, "What was my word?");
        assert!(answer.contains("lantern"), "{executor}: {answer}");
        let generation = parent.start(&told, &greedy(5)).unwrap();
        assert_eq!(parent.fork().err().unwrap().kind(), ErrorKind::SessionBusy);
        drop(generation);
    }
}

/// Set at many moments, the flag stops the pass in products, in attention and between; what was half written must not
/// show.
#[test]
fn a_prompt_that_is_cancelled_half_way_leaves_the_session_right() {
    let directory = tempfile::tempdir().unwrap();
    let path = write_tiny(directory.path(), Heads::MINI, Mixture::Q4KM);
    for (executor, tokens, moments) in [(ExecutorKind::Kernels, 512, 12), (ExecutorKind::Candle, 128, 6)] {
        let ids = Random::new(3).ids(tokens);
        let model = load(&path, executor);
        for prefill_chunk in [512, 96] {
            let options = SessionOptions { prefill_chunk: Some(prefill_chunk), ..SessionOptions::default() };
            let fresh = || Session::new(Arc::clone(&model), &options).unwrap();
            let started = Instant::now();
            let expected = logits(&mut fresh(), &ids);
            let whole = started.elapsed();
            let mut stopped = 0;
            let mut used = fresh();
            logits(&mut used, &ids[..40]);
            for moment in 0..moments {
                // One session from the beginning, and one that is stopped again and again.
                for session in [&mut fresh(), &mut used] {
                    let cancel = CancelToken::new();
                    let result = std::thread::scope(|scope| {
                        scope.spawn(|| {
                            std::thread::sleep(whole * moment / moments);
                            cancel.cancel();
                        });
                        session.logits(&ids, &cancel)
                    });
                    match result {
                        Ok(found) => assert_eq!(found.len(), expected.len()),
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::Cancelled);
                            stopped += 1;
                        }
                    }
                    assert!(ids.starts_with(session.cached_tokens()));
                }
                used.logits(&ids[..1], &CancelToken::new()).unwrap();
            }
            assert!(stopped >= moments / 2, "{executor}: stopped {stopped} times of {}", 2 * moments);
            // From the first token on, pieces are cut as in a fresh session.
            let cancel = CancelToken::new();
            cancel.cancel();
            assert!(used.logits(&ids[..100], &cancel).is_err());
            logits(&mut used, &ids[1..3]);
            assert_eq!(logits(&mut used, &ids), expected, "{executor}, {prefill_chunk} at once");
            let mut fresh = fresh();
            logits(&mut fresh, &ids);
            assert_eq!(used.kv_cache_bytes(), fresh.kv_cache_bytes());
            assert_eq!(generate(&mut used, &ids, 20), generate(&mut fresh, &ids, 20));
        }
    }
}

/// A cancelled pass over a page that is partly filled writes into it.
#[test]
fn what_was_cached_stands_after_a_cancelled_pass_behind_it() {
    let directory = tempfile::tempdir().unwrap();
    let model = load(&write_tiny(directory.path(), Heads::MINI, Mixture::Q4KM), ExecutorKind::Kernels);
    let (ids, others) = (Random::new(4).ids(45), Random::new(5).ids(512));
    let crossed = [&ids, &others[..]].concat();
    let mut expected = session(&model);
    logits(&mut expected, &ids);
    let expected = logits(&mut expected, &[&ids[..], &[7]].concat());
    for delay_ms in [0, 1, 3, 10, 30, 60] {
        let mut session = session(&model);
        logits(&mut session, &ids);
        let cancel = CancelToken::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(delay_ms));
                cancel.cancel();
            });
            let _ = session.logits(&crossed, &cancel);
        });
        assert_eq!(logits(&mut session, &[&ids[..], &[7]].concat()), expected, "cancelled after {delay_ms} ms");
    }
}

#[test]
fn the_cache_takes_what_its_tokens_need() {
    let directory = tempfile::tempdir().unwrap();
    let model = load(&write_tiny(directory.path(), Heads::GROUPED, Mixture::F32), ExecutorKind::Kernels);
    let ids = Random::new(6).ids(300);
    for kv_dtype in KvDtype::ALL {
        let mut session =
            Session::new(Arc::clone(&model), &SessionOptions { kv_dtype, ..SessionOptions::default() }).unwrap();
        assert_eq!(session.kv_cache_bytes(), 0);
        let needed = |tokens: usize| {
            let bytes = model.info().kv_cache_bytes(tokens.next_multiple_of(PAGE_TOKENS), kv_dtype);
            usize::try_from(bytes).unwrap()
        };
        for tokens in [1, 31, 32, 33, 64, 200, 300] {
            logits(&mut session, &ids[..tokens]);
            assert_eq!(session.kv_cache_bytes(), needed(tokens), "{kv_dtype}, {tokens} tokens");
        }
        // Going back gives pages back, and a fork takes those that it shares for its own too.
        logits(&mut session, &ids[..40]);
        assert_eq!(session.kv_cache_bytes(), needed(40));
        assert_eq!(session.fork().unwrap().kv_cache_bytes(), needed(40));
        generate(&mut session, &ids[..40], 100);
        assert_eq!(session.kv_cache_bytes(), needed(40 + 100 - 1));
        session.score(&ids, &CancelToken::new()).unwrap();
        assert_eq!(session.kv_cache_bytes(), needed(40 + 100 - 1));
        session.reset();
        assert_eq!(session.kv_cache_bytes(), 0);
    }
}

/// Without the check, reading behind the new end would end the process.
#[cfg(unix)]
#[test]
fn a_file_that_is_cut_short_after_loading_is_an_error_and_not_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = write_tiny(directory.path(), Heads::GROUPED, Mixture::Q4KM);
    let bytes = std::fs::read(&path).unwrap();
    let ids = Random::new(8).ids(40);
    let cut =
        |len: usize| std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(len as u64).unwrap();
    let whole_again = || {
        use std::io::Write;
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().write_all(&bytes).unwrap();
    };
    for executor in BOTH {
        let mut session = session(&load(&path, executor));
        let expected = logits(&mut session, &ids);
        let tokens = generate(&mut session, &ids, 8);
        session.reset();
        for len in [bytes.len() - 1, bytes.len() / 2, 4096, 0] {
            let mut generation = session.start(&ids, &greedy(8)).unwrap();
            session.step(&mut generation, &CancelToken::new()).unwrap();
            cut(len);
            let in_decode = session.step(&mut generation, &CancelToken::new()).unwrap_err();
            drop(generation);
            let in_prefill = session.logits(&ids[..10], &CancelToken::new()).unwrap_err();
            let in_score = session.score(&ids, &CancelToken::new()).unwrap_err();
            for error in [in_decode, in_prefill, in_score] {
                assert_eq!(error.kind(), ErrorKind::InvalidModel, "{executor}, {len} bytes");
                let sizes = [bytes.len().to_string(), len.to_string()];
                mentions(&error, &[&path.to_string_lossy(), &sizes[0], &sizes[1], "mmap"]);
            }
            // Whole again, it serves again.
            whole_again();
            session.reset();
            assert_eq!(logits(&mut session, &ids), expected, "{executor}");
            assert_eq!(generate(&mut session, &ids, 8), tokens, "{executor}");
            session.reset();
        }
    }
    let options = LoadOptions { mmap: false, ..LoadOptions::default() };
    let model = Phi3Model::load(&path, &options, &CancelToken::new()).unwrap();
    let mut session = session(&Arc::new(model));
    let expected = logits(&mut session, &ids);
    session.reset();
    cut(0);
    assert_eq!(logits(&mut session, &ids), expected, "a file that was read may go");
}

#[test]
fn what_only_the_kernels_can_do_is_refused_on_candle() {
    let directory = tempfile::tempdir().unwrap();
    let model = load(&write_tiny(directory.path(), Heads::GROUPED, Mixture::F32), ExecutorKind::Candle);
    let defaults = SessionOptions::default;
    for (options, name) in [
        (SessionOptions { kv_dtype: KvDtype::Q8_0, ..defaults() }, "kv_dtype"),
        (SessionOptions { isa: Some("scalar".to_owned()), ..defaults() }, "isa"),
        (SessionOptions { n_threads: Some(777), ..defaults() }, "n_threads"),
    ] {
        let refused = Session::new(Arc::clone(&model), &options).err().unwrap();
        let before = options.check(candle_phi_engine::DeviceSpec::Cpu, ExecutorKind::Candle).unwrap_err();
        assert_eq!((refused.kind(), before.kind()), (ErrorKind::InvalidOption, ErrorKind::InvalidOption));
        assert_eq!((refused.option(), before.option()), (Some(name), Some(name)));
        assert_eq!(refused.to_string(), before.to_string());
        options.check(candle_phi_engine::DeviceSpec::Cpu, ExecutorKind::Kernels).unwrap();
    }
    for n_threads in [0, 1025, usize::MAX] {
        let options = SessionOptions { n_threads: Some(n_threads), ..defaults() };
        let error = options.check(candle_phi_engine::DeviceSpec::Cpu, ExecutorKind::Kernels).unwrap_err();
        assert_eq!(error.option(), Some("n_threads"));
    }
}
