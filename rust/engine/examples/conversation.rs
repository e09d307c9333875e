//! A conversation of two turns with the embedded toy model, and a fork of it that goes its own way.
//!
//! ```text
//! cargo run --release --workspace --example conversation
//! cargo run --release --workspace --example conversation -- model.gguf
//! ```
#![allow(clippy::print_stderr, reason = "a program that prints its errors")]

use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use candle_phi_engine::{
    CancelToken, GenerationOptions, LoadOptions, Message, Phi3Model, Session, SessionOptions,
};

fn main() -> ExitCode {
    let demo = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python/candle_phi/demo/candle-phi-demo.gguf");
    let path = std::env::args_os().nth(1).map_or_else(demo, PathBuf::from);
    match converse(&path, &CancelToken::new(), &mut std::io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Asks, asks again, and asks a fork of the conversation something else.
pub(crate) fn converse(path: &Path, cancel: &CancelToken, out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let model = Arc::new(Phi3Model::load(path, &LoadOptions::default(), cancel)?);
    let mut session = Session::new(model, &SessionOptions::default())?;

    let options = GenerationOptions { max_tokens: Some(60), ..GenerationOptions::default() };
    let mut generation = session.start_chat(&[Message::user("Write a haiku about ice hockey")], &options)?;
    while let Some(chunk) = session.step(&mut generation, cancel)? {
        write!(out, "{}", chunk.text)?;
    }

    // A fork shares what was computed so far; each goes its own way from here.
    let mut fork = session.fork()?;
    for (session, said) in [(&mut session, "Write a haiku about snow"), (&mut fork, "Count from 3 to 7")] {
        let mut generation = session.start_chat(&[Message::user(said)], &options)?;
        session.run(&mut generation, cancel)?;
        let completion = generation.completion();
        let (cached, all) = (completion.usage.cached_tokens, completion.usage.prompt_tokens);
        write!(out, "\n\n{}\n({cached} of {all} tokens were there already)", completion.text)?;
    }
    writeln!(out)?;
    Ok(())
}
