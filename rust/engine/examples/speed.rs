//! Prefill and decode of a GGUF file, without Python: `speed MODEL [PREFILL] [DECODE] [THREADS] [ROUNDS]`.

#![allow(clippy::print_stdout, reason = "a measuring tool")]

use std::path::PathBuf;
use std::sync::Arc;

use candle_phi_engine::{CancelToken, GenerationOptions, LoadOptions, Phi3Model, Session, SessionOptions};

fn main() -> candle_phi_engine::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = PathBuf::from(arguments.next().unwrap_or_default());
    let mut number = |default: usize| arguments.next().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (prefill, decode, threads, rounds) = (number(64), number(16), number(0), number(3));
    let cancel = CancelToken::new();
    let model = Arc::new(Phi3Model::load(&path, &LoadOptions::default(), &cancel)?);
    let options = SessionOptions { n_threads: (threads > 0).then_some(threads), ..SessionOptions::default() };
    let mut session = Session::new(Arc::clone(&model), &options)?;
    for round in 0..rounds as u32 {
        session.reset();
        let prompt: Vec<u32> = (0..prefill as u32).map(|i| 3 + (i * 37 + round * 11) % 300).collect();
        let options =
            GenerationOptions { max_tokens: Some(decode + 1), ignore_eos: true, ..GenerationOptions::default() };
        let mut generation = session.start(&prompt, &options)?;
        session.run(&mut generation, &cancel)?;
        let timings = &generation.completion().timings;
        println!("{timings:?}");
    }
    Ok(())
}
