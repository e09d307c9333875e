//! The engine against `candle_transformers::models::quantized_phi3`.
#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test stops where it is wrong")]
#![allow(clippy::print_stdout, reason = "a test may show what it measured")]

mod common;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use candle_core::quantized::gguf_file;
use candle_core::{Device, Tensor};
use candle_phi_engine::{
    CancelToken, ExecutorKind, GenerationOptions, KvDtype, LoadOptions, Phi3Model, SamplingOptions, Session,
    SessionOptions,
};
use candle_transformers::generation::LogitsProcessor;
use candle_transformers::models::quantized_phi3::ModelWeights;
use candle_transformers::utils::apply_repeat_penalty;

use common::{Heads, Mixture, Random, write_tiny};

/// How far two logits may lie apart; they spread over about ±6.
const TOLERANCE: f32 = 1e-4;

fn reference(path: &Path) -> ModelWeights {
    let mut file = File::open(path).unwrap();
    let content = gguf_file::Content::read(&mut file).unwrap();
    ModelWeights::from_gguf(false, content, &mut file, &Device::Cpu).unwrap()
}

fn reference_logits(model: &mut ModelWeights, ids: &[u32], position: usize) -> Vec<f32> {
    let ids = Tensor::new(ids, &Device::Cpu).unwrap().unsqueeze(0).unwrap(); // (1, seq)
    model.forward(&ids, position).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

const BOTH: [ExecutorKind; 2] = [ExecutorKind::Kernels, ExecutorKind::Candle];

fn session(path: &Path, executor: ExecutorKind) -> Session {
    let options = LoadOptions { executor, ..LoadOptions::default() };
    let model = Phi3Model::load(path, &options, &CancelToken::new()).unwrap();
    let options = SessionOptions { kv_dtype: KvDtype::F32, ..SessionOptions::default() };
    Session::new(Arc::new(model), &options).unwrap()
}

fn logits(session: &mut Session, ids: &[u32]) -> Vec<f32> {
    session.logits(ids, &CancelToken::new()).unwrap()
}

fn greedy(max_tokens: usize) -> GenerationOptions {
    GenerationOptions {
        max_tokens: Some(max_tokens),
        sampling: SamplingOptions { temperature: 0.0, ..SamplingOptions::default() },
        ignore_eos: true,
        ..GenerationOptions::default()
    }
}

fn max_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn argmax(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap();
    best.0 as u32
}

/// The prompt at once, then 64 tokens one by one: every position's logits, then the greedy ids.
fn agrees_with_candle(heads: Heads, mixture: Mixture, executor: ExecutorKind) {
    let directory = tempfile::tempdir().unwrap();
    let path = write_tiny(directory.path(), heads, mixture);
    let (mut reference, mut session) = (reference(&path), session(&path, executor));
    for (prompt_tokens, seed) in [(1, 1), (2, 2), (40, 3)] {
        let prompt = Random::new(seed).ids(prompt_tokens);
        let mut ids = prompt.clone();
        let mut expected = reference_logits(&mut reference, &ids, 0);
        let mut worst = 0f32;
        for _ in 0..64 {
            worst = worst.max(max_difference(&expected, &logits(&mut session, &ids)));
            ids.push(argmax(&expected));
            expected = reference_logits(&mut reference, &ids[ids.len() - 1..], ids.len() - 1);
        }
        println!("{executor}, {mixture:?}, {prompt_tokens} prompt tokens: largest difference {worst:e}");
        assert!(worst < TOLERANCE, "{executor}, {mixture:?}: logits differ by {worst}");

        session.reset();
        let mut generation = session.start(&prompt, &greedy(64)).unwrap();
        while session.step(&mut generation, &CancelToken::new()).unwrap().is_some() {}
        assert_eq!(
            generation.completion().tokens,
            ids[prompt_tokens..],
            "greedy ids after {prompt_tokens} tokens"
        );
    }
}

#[test]
fn f32_logits_and_greedy_ids_equal_candles() {
    for executor in BOTH {
        agrees_with_candle(Heads::MINI, Mixture::F32, executor);
    }
}

#[test]
fn f32_logits_and_greedy_ids_of_grouped_heads_equal_candles() {
    for executor in BOTH {
        agrees_with_candle(Heads::GROUPED, Mixture::F32, executor);
    }
}

/// Activations are rounded to eight bits before each product, so that a difference in the last bit of one may grow to a
/// hundredth of a logit. Agreement within the tolerance means the same operations in the same order; the kernels have
/// others, and `a_model_in_each_type_computes_what_its_values_say` holds them.
#[test]
fn q4_k_m_logits_and_greedy_ids_equal_candles() {
    agrees_with_candle(Heads::MINI, Mixture::Q4KM, ExecutorKind::Candle);
}

/// A prompt that the engine takes in several pieces, against Candle's taking it token by token.
#[test]
fn a_long_prompt_in_chunks_equals_candle_token_by_token() {
    let directory = tempfile::tempdir().unwrap();
    let path = write_tiny(directory.path(), Heads::GROUPED, Mixture::F32);
    let mut reference = reference(&path);
    let ids = Random::new(4).ids(900);
    let mut expected = Vec::new();
    for (position, id) in ids.iter().enumerate() {
        expected = reference_logits(&mut reference, &[*id], position);
    }
    for executor in BOTH {
        let model = Arc::clone(session(&path, executor).model());
        for prefill_chunk in [1, 7, 256, 900] {
            let options = SessionOptions {
                kv_dtype: KvDtype::F32,
                prefill_chunk: Some(prefill_chunk),
                ..SessionOptions::default()
            };
            let mut session = Session::new(Arc::clone(&model), &options).unwrap();
            let worst = max_difference(&expected, &logits(&mut session, &ids));
            println!("{executor}, {} tokens by {prefill_chunk}: largest difference {worst:e}", ids.len());
            assert!(worst < TOLERANCE, "{executor}, {prefill_chunk} at a time: logits differ by {worst}");
        }
    }
}

/// What was computed for one prompt must not show in another that shares only its beginning.
#[test]
fn a_shared_prefix_equals_a_fresh_session() {
    let directory = tempfile::tempdir().unwrap();
    let path = write_tiny(directory.path(), Heads::GROUPED, Mixture::F32);
    let (first, second) = (Random::new(5).ids(60), Random::new(6).ids(60));
    let mut crossed = first.clone();
    crossed.splice(30.., second[30..].iter().copied());
    for executor in BOTH {
        let mut session = session(&path, executor);
        logits(&mut session, &first);
        let reused = logits(&mut session, &crossed);
        let expected = reference_logits(&mut reference(&path), &crossed, 0);
        let worst = max_difference(&expected, &reused);
        assert!(worst < TOLERANCE, "{executor}: logits differ by {worst}");
        let again = logits(&mut session, &first[..20]);
        let expected = reference_logits(&mut reference(&path), &first[..20], 0);
        assert!(max_difference(&expected, &again) < TOLERANCE);
    }
}

/// The loop of Candle's tutorial: the prompt token by token, then one draw after each token. The penalty sees the generated
/// tokens only, and not before the first draw.
fn tutorial_ids(model: &mut ModelWeights, prompt: &[u32], sampling: &SamplingOptions) -> Vec<u32> {
    let mut step = |id: u32, position: usize| {
        let ids = Tensor::new(&[id], &Device::Cpu).unwrap().unsqueeze(0).unwrap(); // (1, 1)
        model.forward(&ids, position).unwrap().squeeze(0).unwrap() // (vocabulary,)
    };
    let mut processor = LogitsProcessor::new(sampling.seed.unwrap(), Some(sampling.temperature), sampling.top_p);
    let mut logits = None;
    for (position, id) in prompt.iter().enumerate() {
        logits = Some(step(*id, position));
    }
    let mut ids = vec![processor.sample(&logits.unwrap()).unwrap()];
    while ids.len() < 100 {
        let logits = step(*ids.last().unwrap(), prompt.len() + ids.len() - 1);
        let recent = &ids[ids.len().saturating_sub(sampling.repeat_last_n)..];
        let logits = apply_repeat_penalty(&logits, sampling.repetition_penalty, recent).unwrap();
        ids.push(processor.sample(&logits).unwrap());
    }
    ids
}

/// With an f32 cache and the prompt token by token, as `GenerationConfig.tutorial()` documents.
#[test]
fn seeded_draws_equal_those_of_candles_tutorial() {
    let directory = tempfile::tempdir().unwrap();
    let path = write_tiny(directory.path(), Heads::GROUPED, Mixture::F32);
    let prompt = Random::new(8).ids(9);
    let tutorial = SamplingOptions { repetition_penalty: 1.2, ..SamplingOptions::default() };
    let settings = [
        SamplingOptions { seed: Some(1), ..tutorial.clone() },
        SamplingOptions { seed: Some(u64::MAX), ..tutorial.clone() },
        SamplingOptions { seed: Some(42), top_p: Some(0.9), ..tutorial.clone() },
        SamplingOptions {
            seed: Some(7),
            temperature: 0.7,
            top_p: Some(0.5),
            repeat_last_n: 5,
            ..tutorial.clone()
        },
        SamplingOptions { seed: Some(3), repetition_penalty: 1.0, ..tutorial },
    ];
    let mut reference = reference(&path);
    let expected = settings.each_ref().map(|sampling| tutorial_ids(&mut reference, &prompt, sampling));
    let distinct: std::collections::BTreeSet<_> = expected.iter().collect();
    assert_eq!(distinct.len(), settings.len(), "each setting and seed draws other tokens");
    for executor in BOTH {
        let options =
            SessionOptions { kv_dtype: KvDtype::F32, prefill_chunk: Some(1), ..SessionOptions::default() };
        let mut session = Session::new(Arc::clone(session(&path, executor).model()), &options).unwrap();
        for (sampling, expected) in settings.iter().zip(&expected) {
            session.reset();
            let options = GenerationOptions { sampling: sampling.clone(), ..greedy(100) };
            let mut generation = session.start(&prompt, &options).unwrap();
            session.run(&mut generation, &CancelToken::new()).unwrap();
            assert_eq!(generation.completion().tokens, *expected, "{executor}, {sampling:?}");
        }
    }
}
