//! Saved conversations: what goes in comes out on any executor, and no file does harm.
#![allow(clippy::unwrap_used, reason = "a test stops where it is wrong")]
#![allow(clippy::indexing_slicing, reason = "a test stops where it is wrong")]

mod common;
mod messages;

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use candle_phi_engine::{
    CancelToken, ErrorKind, ExecutorKind, GenerationOptions, KvDtype, LoadOptions, Message, Phi3Model, Refusal,
    SamplingOptions, Session, SessionOptions,
};
use common::{Heads, Mixture, Random, write_tiny};
use messages::mentions;
use sha2::{Digest, Sha256};

static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());
static FILE: LazyLock<PathBuf> = LazyLock::new(|| write_tiny(FOLDER.path(), Heads::GROUPED, Mixture::F32));

fn model(executor: ExecutorKind, sliding_window: Option<usize>) -> Arc<Phi3Model> {
    let options = LoadOptions { executor, sliding_window, ..LoadOptions::default() };
    Arc::new(Phi3Model::load(&FILE, &options, &CancelToken::new()).unwrap())
}

fn session(model: &Arc<Phi3Model>, kv_dtype: KvDtype) -> Session {
    let options = SessionOptions { kv_dtype, n_ctx: Some(512), ..SessionOptions::default() };
    Session::new(Arc::clone(model), &options).unwrap()
}

fn greedy(max_tokens: usize) -> GenerationOptions {
    GenerationOptions {
        max_tokens: Some(max_tokens),
        sampling: SamplingOptions::greedy(),
        ignore_eos: true,
        ..GenerationOptions::default()
    }
}

fn chat(session: &mut Session, text: &str) -> Vec<u32> {
    let mut generation = session.continue_chat(&[Message::user(text)], &greedy(12)).unwrap();
    session.run(&mut generation, &CancelToken::new()).unwrap();
    assert!(generation.completion().usage.prompt_tokens > generation.completion().usage.cached_tokens);
    generation.completion().tokens.clone()
}

fn logits(session: &mut Session, tokens: &[u32]) -> Vec<f32> {
    session.logits(tokens, &CancelToken::new()).unwrap()
}

fn save(session: &Session, path: &Path) -> Vec<u8> {
    session.save(path, &CancelToken::new()).unwrap();
    std::fs::read(path).unwrap()
}

fn load(session: &mut Session, path: &Path) -> ErrorKind {
    let error = session.load(path, &CancelToken::new()).unwrap_err();
    mentions(&error, &[&path.to_string_lossy()]);
    error.kind()
}

/// A path in a folder of its own.
fn path() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("talk");
    (folder, path)
}

/// What a session that has `tokens` in its cache computes behind them, and what was cached of them.
fn behind(session: &mut Session, tokens: &[u32]) -> (Vec<f32>, usize) {
    let generation = session.start(&[tokens, &[7, 9]].concat(), &greedy(1)).unwrap();
    let cached = generation.completion().usage.cached_tokens;
    drop(generation);
    (logits(session, &[tokens, &[7, 9]].concat()), cached)
}

#[test]
fn what_was_computed_is_taken_up_on_either_executor() {
    let tokens = Random::new(3).ids(150);
    let executors = [ExecutorKind::Kernels, ExecutorKind::Candle];
    // 70 is no multiple of a page's 32 positions, and Candle's tensors begin where a window does.
    for window in [0, 70] {
        let models = executors.map(|executor| model(executor, Some(window)));
        for kv_dtype in KvDtype::ALL {
            for (from, saving) in models.iter().enumerate() {
                for (to, loading) in models.iter().enumerate() {
                    if kv_dtype == KvDtype::Q8_0 && from + to > 0 {
                        continue; // Candle has no such cache.
                    }
                    let (_folder, path) = path();
                    let mut saved = session(saving, kv_dtype);
                    // Bit by bit, so that what a window lets go is let go.
                    for end in [60, 61, 140, 150] {
                        logits(&mut saved, &tokens[..end]);
                    }
                    save(&saved, &path);
                    let mut loaded = session(loading, kv_dtype);
                    loaded.load(&path, &CancelToken::new()).unwrap();
                    assert_eq!(loaded.cached_tokens(), saved.cached_tokens());
                    let (expected, cached) = behind(&mut saved, &tokens);
                    let (found, cached_here) = behind(&mut loaded, &tokens);
                    assert_eq!((cached, cached_here), (150, 150));
                    let case = format!("window {window}, {kv_dtype}, executor {from} to {to}");
                    if from == to {
                        assert_eq!(found, expected, "{case}");
                    } else {
                        let apart = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                        assert!(apart < 2e-2, "{case}: {apart}");
                    }
                    // Back to before what a window let go of, everything is computed again, and rightly.
                    let fresh = logits(&mut session(loading, kv_dtype), &tokens[..40]);
                    let back = logits(&mut loaded, &tokens[..40]);
                    let apart = back.iter().zip(&fresh).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                    assert!(apart < 2e-3, "{case}: {apart}");
                }
            }
        }
    }
}

#[test]
fn a_conversation_goes_on_and_back_as_before() {
    let model = model(ExecutorKind::Kernels, None);
    let (_folder, path) = path();
    let mut saved = session(&model, KvDtype::F16);
    chat(&mut saved, "hello");
    chat(&mut saved, "there");
    save(&saved, &path);
    let mut loaded = session(&model, KvDtype::F16);
    chat(&mut loaded, "something else");
    loaded.load(&path, &CancelToken::new()).unwrap();
    assert_eq!(loaded.history(), saved.history());
    assert_eq!(loaded.conversation_tokens(), saved.conversation_tokens());
    assert_eq!(chat(&mut loaded, "again"), chat(&mut saved, "again"));
    assert_eq!(loaded.rewind(2).unwrap(), saved.rewind(2).unwrap());
    assert_eq!(chat(&mut loaded, "once more"), chat(&mut saved, "once more"));
}

#[test]
fn a_session_without_a_word_can_be_saved() {
    let (_folder, path) = path();
    for executor in [ExecutorKind::Kernels, ExecutorKind::Candle] {
        let model = model(executor, None);
        save(&session(&model, KvDtype::F16), &path);
        let mut loaded = session(&model, KvDtype::F16);
        chat(&mut loaded, "hello");
        loaded.load(&path, &CancelToken::new()).unwrap();
        assert!(loaded.history().is_empty() && loaded.cached_tokens().is_empty());
        chat(&mut loaded, "hello");
    }
}

#[test]
fn a_conversation_that_filled_its_context_can_be_loaded_into_one_as_long() {
    let model = model(ExecutorKind::Kernels, None);
    let options = SessionOptions { n_ctx: Some(40), ..SessionOptions::default() };
    let new = || Session::new(Arc::clone(&model), &options).unwrap();
    let (_folder, path) = path();
    let mut saved = new();
    let mut generation = saved.start_chat(&[Message::user("hello")], &greedy(1000)).unwrap();
    saved.run(&mut generation, &CancelToken::new()).unwrap();
    // The last drawn token needs no place. Drawn tokens without text do not stay in the conversation.
    let tokenizer = model.tokenizer();
    let is_silent = |id: &&u32| tokenizer.decode(&[**id], true).is_ok_and(|text| text.is_empty());
    let silent = generation.completion().tokens.iter().filter(is_silent).count();
    let len = saved.conversation_tokens().len();
    assert_eq!(len, 41 - silent);
    save(&saved, &path);
    let mut loaded = new();
    loaded.load(&path, &CancelToken::new()).unwrap();
    assert_eq!(loaded.conversation_tokens(), saved.conversation_tokens());
    let options = SessionOptions { n_ctx: Some(len - 2), ..SessionOptions::default() };
    let mut shorter = Session::new(Arc::clone(&model), &options).unwrap();
    assert_eq!(load(&mut shorter, &path), ErrorKind::SavedConversation(Refusal::TooLong));
}

#[test]
fn what_is_cancelled_leaves_the_old_file_and_the_session_as_they_were() {
    let model = model(ExecutorKind::Kernels, None);
    let (folder, path) = path();
    let mut first = session(&model, KvDtype::F16);
    chat(&mut first, "hello");
    let old = save(&first, &path);
    let cancelled = CancelToken::new();
    cancelled.cancel();
    let mut second = session(&model, KvDtype::F16);
    chat(&mut second, "something else");
    assert_eq!(second.save(&path, &cancelled).unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(std::fs::read(&path).unwrap(), old);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let before = second.history().to_vec();
    assert_eq!(second.load(&path, &cancelled).unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(second.history(), before);
    chat(&mut second, "again");
}

#[test]
fn a_session_at_work_is_neither_saved_nor_loaded() {
    let model = model(ExecutorKind::Kernels, None);
    let (_folder, path) = path();
    let mut busy = session(&model, KvDtype::F16);
    save(&busy, &path);
    let generation = busy.start(&[1, 5], &greedy(5)).unwrap();
    assert_eq!(busy.save(&path, &CancelToken::new()).unwrap_err().kind(), ErrorKind::SessionBusy);
    assert_eq!(busy.load(&path, &CancelToken::new()).unwrap_err().kind(), ErrorKind::SessionBusy);
    drop(generation);
    busy.load(&path, &CancelToken::new()).unwrap();
}

#[test]
fn another_window_is_another_model() {
    let (_folder, path) = path();
    let mut saved = session(&model(ExecutorKind::Kernels, None), KvDtype::F16);
    chat(&mut saved, "hello");
    save(&saved, &path);
    let mut windowed = session(&model(ExecutorKind::Kernels, Some(8)), KvDtype::F16);
    let error = windowed.load(&path, &CancelToken::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SavedConversation(Refusal::OtherModel));
    mentions(&error, &["sliding_window", "none", "8"]);
    let text = error.to_string();
    // What the file has comes first, what this model has second.
    assert!(text.find("none") < text.rfind('8'), "{text}");
}

/// A file of a head and of what follows, with checksums that are right.
fn file_of(head: &[u8], rest: &[u8]) -> Vec<u8> {
    let mut file =
        [b"phi-conv".as_slice(), &1u32.to_le_bytes(), &(head.len() as u32).to_le_bytes(), head].concat();
    file.extend(Sha256::digest(&file));
    file.extend(rest);
    file.extend(Sha256::digest(&file));
    file
}

fn head_of(file: &[u8]) -> serde_json::Value {
    let len = u32::from_le_bytes(file[12..16].try_into().unwrap()) as usize;
    serde_json::from_slice(&file[16..16 + len]).unwrap()
}

fn rest_of(file: &[u8]) -> &[u8] {
    let len = u32::from_le_bytes(file[12..16].try_into().unwrap()) as usize;
    &file[16 + len + 32..file.len() - 32]
}

#[test]
fn a_file_that_was_cut_short_or_changed_anywhere_is_refused() {
    let model = model(ExecutorKind::Kernels, None);
    let (_folder, path) = path();
    let mut saved = session(&model, KvDtype::Q8_0);
    chat(&mut saved, "hello");
    let whole = save(&saved, &path);
    let mut other = session(&model, KvDtype::Q8_0);
    chat(&mut other, "something else");
    let before = other.history().to_vec();
    let mut refused = |bytes: &[u8], what: &str| {
        std::fs::write(&path, bytes).unwrap();
        let ErrorKind::SavedConversation(refusal) = load(&mut other, &path) else { panic!("{what}") };
        assert_eq!(other.history(), before, "{what}");
        refusal
    };
    // All of the head and the ends, and samples of the rest.
    let at = |len: usize| (0..len).filter(move |at| *at < 2000 || at % 997 == 0 || len - at < 100);
    for len in at(whole.len()) {
        let expected = if len < 8 { Refusal::NotAConversation } else { Refusal::Damaged };
        assert_eq!(refused(&whole[..len], "cut"), expected, "{len}");
    }
    assert_eq!(refused(&[whole.as_slice(), b"x"].concat(), "longer"), Refusal::Damaged);
    for at in at(whole.len()) {
        let mut changed = whole.clone();
        changed[at] ^= 0x40;
        let expected = match at {
            0..8 => Refusal::NotAConversation,
            8..12 => Refusal::NewerVersion,
            _ => Refusal::Damaged,
        };
        assert_eq!(refused(&changed, "changed"), expected, "{at}");
    }
    std::fs::write(&path, &whole).unwrap();
    other.load(&path, &CancelToken::new()).unwrap();
    assert_eq!(other.history(), saved.history());
}

#[test]
fn a_file_that_does_not_name_a_hyperparameter_is_refused() {
    let model = model(ExecutorKind::Kernels, None);
    let (_folder, path) = path();
    let mut saved = session(&model, KvDtype::F16);
    chat(&mut saved, "hello");
    let whole = save(&saved, &path);
    for name in ["architecture", "head_count", "interleaved_rope", "rope_attention_factor", "sliding_window"] {
        let mut head = head_of(&whole);
        let hyperparameters = head["model"]["hyperparameters"].as_object_mut().unwrap();
        hyperparameters.remove(name).unwrap();
        std::fs::write(&path, file_of(&serde_json::to_vec(&head).unwrap(), rest_of(&whole))).unwrap();
        let refused = ErrorKind::SavedConversation(Refusal::OtherModel);
        assert_eq!(load(&mut session(&model, KvDtype::F16), &path), refused, "{name}");
    }
}

/// What is changed in a head.
type Lie<'a> = &'a dyn Fn(&mut serde_json::Value);

#[test]
fn a_file_that_lies_is_refused_though_its_checksums_are_right() {
    let model = model(ExecutorKind::Kernels, None);
    let (_folder, path) = path();
    let mut saved = session(&model, KvDtype::F16);
    chat(&mut saved, "hello");
    let whole = save(&saved, &path);
    let (head, rest) = (head_of(&whole), rest_of(&whole));
    assert_eq!(file_of(&serde_json::to_vec(&head).unwrap(), rest).len(), whole.len());
    let mut loading = session(&model, KvDtype::F16);
    let mut refusal = |change: Lie| {
        let mut head = head.clone();
        change(&mut head);
        std::fs::write(&path, file_of(&serde_json::to_vec(&head).unwrap(), rest)).unwrap();
        match loading.load(&path, &CancelToken::new()).unwrap_err().kind() {
            ErrorKind::SavedConversation(refusal) => refusal,
            kind => panic!("{kind:?}"),
        }
    };
    use Refusal::{Damaged, OtherKvDtype, OtherModel, TooLong};
    let cached = head["cached_tokens"].as_array().unwrap().len();
    let lies: [(&str, Refusal, Lie); 19] = [
        ("fewer positions", Damaged, &|head| head["cached_tokens"].as_array_mut().unwrap().truncate(3)),
        ("more positions", Damaged, &|head| head["cached_tokens"] = vec![1; cached + 1].into()),
        ("very many", TooLong, &|head| head["cached_tokens"] = vec![1; 100_000].into()),
        ("a long conversation", TooLong, &|head| head["tokens"] = vec![1; 100_000].into()),
        ("no token", Damaged, &|head| head["cached_tokens"][0] = 320.into()),
        ("no token there", Damaged, &|head| head["tokens"][0] = u32::MAX.into()),
        ("a negative token", Damaged, &|head| head["tokens"][0] = (-1).into()),
        ("let go without a window", Damaged, &|head| head["first_position"] = 1.into()),
        ("let go of all", Damaged, &|head| head["first_position"] = cached.into()),
        ("let go of more", Damaged, &|head| head["first_position"] = u64::MAX.into()),
        ("a turn beyond the tokens", Damaged, &|head| head["turns"][0]["tokens"] = 10_000.into()),
        ("a turn beyond the messages", Damaged, &|head| head["turns"][0]["messages"] = 3.into()),
        ("turns in disorder", Damaged, &|head| {
            head["turns"] = serde_json::json!([{"tokens": 2, "messages": 0}, {"tokens": 1, "messages": 0}]);
        }),
        ("a role", Damaged, &|head| head["messages"][0]["role"] = "tool".into()),
        ("another key", Damaged, &|head| head["more"] = 1.into()),
        ("no factors", Damaged, &|head| head["rope_factors"] = "middle".into()),
        ("a type", OtherKvDtype, &|head| head["kv_dtype"] = "f\u{0}64".into()),
        ("a model", OtherModel, &|head| head["model"]["weights_sha256"] = "0".into()),
        ("a new hyperparameter", OtherModel, &|head| {
            head["model"]["hyperparameters"]["expert_count"] = "16".into();
        }),
    ];
    for (what, expected, lie) in lies {
        assert_eq!(refusal(lie), expected, "{what}");
    }
    for head in ["", "null", "[]", "{}", "{\"model\":", "\u{0}", &"[".repeat(100_000), &"{\"model\":".repeat(9)] {
        std::fs::write(&path, file_of(head.as_bytes(), rest)).unwrap();
        assert_eq!(load(&mut loading, &path), ErrorKind::SavedConversation(Damaged), "{head:.20}");
    }
}

/// A sparse file says that it has a terabyte and takes none of the disk.
#[test]
fn a_file_that_claims_to_be_huge_takes_no_memory() {
    let model = model(ExecutorKind::Kernels, None);
    let (_folder, path) = path();
    let mut saved = session(&model, KvDtype::F16);
    chat(&mut saved, "hello");
    let whole = save(&saved, &path);
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(1 << 40).unwrap();
    assert_eq!(load(&mut saved, &path), ErrorKind::SavedConversation(Refusal::Damaged));
    let mut head_of_gigabytes = whole[..12].to_vec();
    head_of_gigabytes.extend(u32::MAX.to_le_bytes());
    std::fs::write(&path, head_of_gigabytes).unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
    assert_eq!(load(&mut saved, &path), ErrorKind::SavedConversation(Refusal::Damaged));
}

#[test]
fn what_is_no_file_is_an_error_of_the_system() {
    let model = model(ExecutorKind::Kernels, None);
    let mut session = session(&model, KvDtype::F16);
    let (folder, path) = path();
    assert_eq!(load(&mut session, &path), ErrorKind::ConversationNotFound);
    assert_eq!(load(&mut session, folder.path()), ErrorKind::ConversationFile);
    for path in [folder.path(), &folder.path().join("missing/talk")] {
        let error = session.save(path, &CancelToken::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConversationFile, "{error}");
    }
    assert_eq!(load(&mut session, &FILE), ErrorKind::SavedConversation(Refusal::NotAConversation));
}
