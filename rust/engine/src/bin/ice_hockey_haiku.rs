//! The tutorial's program: downloads Phi-3-mini and prints a haiku about ice hockey as it is generated.
//!
//! ```text
//! cargo run --release                       # downloads 2.4 GB the first time
//! cargo run --release -- --model x.gguf     # a file that you have
//! cargo run --release -- --demo             # the embedded toy model
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints")]

use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use candle_phi_engine::hub::{HubOptions, Progress, download, resolve};
use candle_phi_engine::{
    CancelToken, GenerationOptions, LoadOptions, Phi3Model, SamplingOptions, Session, SessionOptions,
};

const REPO: &str = "microsoft/Phi-3-mini-4k-instruct-gguf";
const FILE: &str = "Phi-3-mini-4k-instruct-q4.gguf";
const REVISION: &str = "main";
const PROMPT: &str = "<|user|>\nWrite a haiku about ice hockey<|end|>\n<|assistant|>";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let cancel = CancelToken::new();
    let (path, tokenizer) = model_files(&cancel)?;
    let load_options = LoadOptions { tokenizer, ..LoadOptions::default() };
    let model = Arc::new(Phi3Model::load(&path, &load_options, &cancel)?);

    let options = GenerationOptions {
        max_tokens: Some(100),
        sampling: SamplingOptions {
            temperature: 1.0,
            repetition_penalty: 1.2,
            repeat_last_n: 64,
            ..SamplingOptions::default()
        },
        ..GenerationOptions::default()
    };
    let tokenizer = model.tokenizer();
    let prompt = tokenizer.encode(PROMPT, tokenizer.add_bos(), true)?;
    let mut session = Session::new(model, &SessionOptions::default())?;
    let mut generation = session.start(&prompt, &options)?;
    let mut stdout = std::io::stdout().lock();
    while let Some(chunk) = session.step(&mut generation, &cancel)? {
        write!(stdout, "{}", chunk.text)?;
        stdout.flush()?;
    }
    writeln!(stdout)?;
    Ok(())
}

/// The file that the command line names, with its own vocabulary; or the tutorial's from the hub, with its tokenizer.
fn model_files(cancel: &CancelToken) -> Result<(PathBuf, Option<PathBuf>), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--model", path] => Ok((path.into(), None)),
        ["--demo"] => {
            let root = Path::new(env!("CARGO_MANIFEST_DIR"));
            Ok((root.join("../../python/candle_phi/demo/candle-phi-demo.gguf"), None))
        }
        [] => {
            let request = resolve(REPO, Some(FILE), None, Some(REVISION))?;
            let mut progress = |progress: Progress<'_>| {
                let total = progress.bytes_total.unwrap_or_default() >> 20;
                eprint!("\r{}: {} of {total} MiB", progress.file, progress.bytes_done >> 20);
            };
            let downloaded = download(&request, &HubOptions::default(), &mut progress, cancel)?;
            eprintln!();
            Ok((downloaded.model_path, downloaded.tokenizer_path))
        }
        _ => Err("usage: ice_hockey_haiku [--model FILE.gguf | --demo]".into()),
    }
}
