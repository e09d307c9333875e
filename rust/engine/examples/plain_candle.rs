//! Candle's own `quantized_phi3` on a GGUF file, as a worker for `benchmarks/compare.py`.
//!
//! The peer that the engine's speed and memory are measured against: nothing of this crate is used. It reads a command
//! a line and answers each with a line of JSON; `benchmarks/worker.py` says which there are. The options that other
//! workers have are passed over: Candle takes its number of threads from `RAYON_NUM_THREADS`, and its cache can only
//! be emptied, so it decodes behind the beginning of a text only.
//!
//! ```text
//! echo "open
//! prefill 64
//! decode 0 8" | cargo run --release --workspace --example plain_candle -- MODEL.gguf
//! ```
#![allow(clippy::print_stdout, reason = "a program that prints what it measured")]

use std::error::Error;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::quantized::gguf_file;
use candle_core::{D, Device, Tensor};
use candle_transformers::models::quantized_phi3::ModelWeights;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A loaded model.
struct Peer {
    model: ModelWeights,
    /// What keys and values of a token take, in Candle's f32.
    cache_bytes_per_token: u64,
    prompts: u32,
}

impl Peer {
    fn load(path: &Path) -> Result<Self> {
        let mut file = File::open(path)?;
        let content = gguf_file::Content::read(&mut file)?;
        let number = |key: &str| -> Result<u64> {
            let value = content.metadata.get(&format!("phi3.{key}")).ok_or_else(|| format!("no phi3.{key}"))?;
            Ok(u64::from(value.to_u32()?))
        };
        let head_dim = number("embedding_length")? / number("attention.head_count")?.max(1);
        let cache_bytes_per_token = 2 * 4 * number("block_count")? * number("attention.head_count_kv")? * head_dim;
        let model = ModelWeights::from_gguf(false, content, &mut file, &Device::Cpu)?;
        Ok(Self { model, cache_bytes_per_token, prompts: 0 })
    }

    /// Reads a prompt behind an empty cache; the likeliest next token. Any valid ids cost the same.
    fn read(&mut self, tokens: u32) -> Result<u32> {
        self.prompts += 1;
        let prompt: Vec<u32> = (0..tokens).map(|index| 3 + (self.prompts * 7 + index * 37) % 300).collect();
        self.forward(&prompt, 0)
    }

    fn forward(&mut self, tokens: &[u32], position: usize) -> Result<u32> {
        let input = Tensor::new(tokens, &Device::Cpu)?.unsqueeze(0)?; // (1, tokens)
        let logits = self.model.forward(&input, position)?; // (1, vocabulary)
        Ok(logits.squeeze(0)?.argmax(D::Minus1)?.to_scalar::<u32>()?)
    }

    /// Seconds for so many greedy tokens behind a prompt.
    fn decode(&mut self, prompt: u32, tokens: u32) -> Result<f64> {
        let mut next = self.read(prompt)?;
        let start = Instant::now();
        for index in 0..tokens {
            next = self.forward(&[next], (prompt + index) as usize)?;
        }
        Ok(start.elapsed().as_secs_f64())
    }
}

/// Resident memory as the fields of a JSON object; none where there is no /proc.
fn memory() -> String {
    let Ok(rollup) = std::fs::read_to_string("/proc/self/smaps_rollup") else {
        return String::new();
    };
    let bytes = |name: &str| -> u64 {
        let field =
            rollup.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok());
        field.unwrap_or(0) * 1024
    };
    let (resident, anonymous) = (bytes("Rss:"), bytes("Anonymous:"));
    format!(r#""resident": {resident}, "anonymous": {anonymous}, "file_backed": {}"#, resident - anonymous)
}

/// What a command gives, as the fields of a JSON object.
fn answer(peer: &mut Option<Peer>, path: &Path, command: &str) -> Result<String> {
    let mut words = command.split_whitespace();
    let verb = words.next().unwrap_or_default();
    let numbers: Vec<u32> = words.map(str::parse).collect::<std::result::Result<_, _>>()?;
    if verb == "memory" {
        return Ok(memory());
    }
    if verb == "open" {
        let start = Instant::now();
        let loaded = peer.insert(Peer::load(path)?);
        let load_s = start.elapsed().as_secs_f64();
        loaded.read(8)?;
        let first_s = start.elapsed().as_secs_f64();
        return Ok(format!(r#""load_s": {load_s}, "open_to_first_token_s": {first_s}"#));
    }
    let peer = peer.as_mut().ok_or("open comes first")?;
    let (tokens, seconds) = match (verb, numbers.as_slice()) {
        ("prefill", &[tokens]) => {
            let start = Instant::now();
            peer.read(tokens)?;
            (tokens, start.elapsed().as_secs_f64())
        }
        ("decode", &[0, tokens]) => (tokens, peer.decode(1, tokens)?),
        ("complete", &[prompt, tokens]) => {
            peer.decode(prompt, tokens)?;
            let bytes = peer.cache_bytes_per_token * u64::from(prompt + tokens);
            return Ok(format!(r#""cache_bytes": {bytes}"#));
        }
        _ => return Err(format!("this peer cannot do '{command}'").into()),
    };
    Ok(format!(r#""seconds": {seconds}, "tokens_per_second": {}"#, f64::from(tokens) / seconds))
}

fn main() -> Result<()> {
    let path = PathBuf::from(std::env::args().nth(1).ok_or("usage: plain_candle MODEL.gguf")?);
    let memory = memory();
    let separator = if memory.is_empty() { "" } else { ", " };
    println!(r#"{{"name": "candle", "version": "candle-transformers' quantized_phi3"{separator}{memory}}}"#);
    let mut peer = None;
    for line in std::io::stdin().lines() {
        let line = line?;
        if line.trim() == "quit" {
            break;
        }
        match answer(&mut peer, &path, line.trim()) {
            Ok(fields) => println!("{{{fields}}}"),
            Err(error) => println!(r#"{{"error": {:?}}}"#, error.to_string()),
        }
    }
    Ok(())
}
