//! Candle's own `quantized_phi3` on a GGUF file: load, prefill, decode, and what they cost.
//!
//! The peer that the engine's speed and memory are measured against: nothing of this crate is used.
//!
//! ```text
//! cargo run --release -p candle-phi-engine --example plain_candle -- MODEL.gguf [PREFILL_TOKENS] [DECODE_TOKENS]
//! ```
#![allow(clippy::print_stdout, reason = "a program that prints what it measured")]

use std::error::Error;
use std::fs::File;
use std::time::Instant;

use candle_core::quantized::gguf_file;
use candle_core::{D, Device, Tensor};
use candle_transformers::models::quantized_phi3::ModelWeights;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: plain_candle MODEL.gguf [PREFILL_TOKENS] [DECODE_TOKENS]")?;
    let prefill_tokens: u32 = arguments.next().map_or(Ok(64), |text| text.parse())?;
    let decode_tokens: usize = arguments.next().map_or(Ok(8), |text| text.parse())?;
    let device = Device::Cpu;

    let start = Instant::now();
    let mut file = File::open(&path)?;
    let content = gguf_file::Content::read(&mut file)?;
    let mut model = ModelWeights::from_gguf(false, content, &mut file, &device)?;
    println!("load_s {:.2}", start.elapsed().as_secs_f64());

    // Any valid ids cost the same.
    let prompt: Vec<u32> = (0..prefill_tokens).map(|index| 1 + index * 37 % 300).collect();
    // The first call repacks the weights; a second one shows the steady rate.
    let mut logits = Tensor::zeros(1, candle_core::DType::F32, &device)?;
    for name in ["first_prefill_tokens_per_second", "prefill_tokens_per_second"] {
        let start = Instant::now();
        logits = model.forward(&Tensor::new(prompt.as_slice(), &device)?.unsqueeze(0)?, 0)?;
        println!("{name} {:.2}", f64::from(prefill_tokens) / start.elapsed().as_secs_f64());
    }

    let start = Instant::now();
    for index in 0..decode_tokens {
        let next = logits.argmax(D::Minus1)?; // (1)
        logits = model.forward(&next.unsqueeze(0)?, prompt.len() + index)?; // (1, vocabulary)
    }
    logits.sum_all()?.to_scalar::<f32>()?;
    println!("decode_tokens_per_second {:.2}", decode_tokens as f64 / start.elapsed().as_secs_f64());

    // Where there is no /proc, only the times are printed.
    if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
        for (key, name) in [("VmHWM:", "peak_rss_mb"), ("RssAnon:", "rss_anon_mb"), ("RssFile:", "rss_file_mb")] {
            let kilobytes =
                status.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse().ok());
            println!("{name} {:.0}", kilobytes.unwrap_or(f64::NAN) / 1e3);
        }
    }
    Ok(())
}
