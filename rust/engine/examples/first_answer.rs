//! Streams one answer of the embedded toy model, or of a file that the command line names.
//!
//! ```text
//! cargo run --release --workspace --example first_answer
//! cargo run --release --workspace --example first_answer -- model.gguf
//! ```
#![allow(clippy::print_stderr, reason = "a program that prints its errors")]

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use candle_phi_engine::{
    CancelToken, GenerationOptions, LoadOptions, Message, Phi3Model, Session, SessionOptions,
};

/// Writes the answer of the model at `path` while it is generated.
pub(crate) fn answer(path: &Path, question: &str, out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let cancel = CancelToken::new();
    let model = Arc::new(Phi3Model::load(path, &LoadOptions::default(), &cancel)?);
    let mut session = Session::new(model, &SessionOptions::default())?;

    let options = GenerationOptions { max_tokens: Some(60), ..GenerationOptions::default() };
    let mut generation = session.start_chat(&[Message::user(question)], &options)?;
    while let Some(chunk) = session.step(&mut generation, &cancel)? {
        write!(out, "{}", chunk.text)?;
        out.flush()?;
    }
    Ok(())
}

fn main() -> std::process::ExitCode {
    let demo = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python/candle_phi/demo/candle-phi-demo.gguf");
    let path = std::env::args_os().nth(1).map_or_else(demo, std::path::PathBuf::from);
    match answer(&path, "Write a haiku about ice hockey", &mut std::io::stdout().lock()) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
