//! How much of the speed at which memory is read decoding reaches: `decode_of_stream MODEL [ROUNDS]`.
//!
//! In each round all weights are read once, and then some tokens are decoded: the same bytes, in the same seconds, so that
//! what else goes on on the machine falls on both. `CANDLE_PHI_ISA` picks a lower level for decoding.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::indexing_slicing, reason = "a measuring tool")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use candle_phi_engine::{
    CancelToken, GenerationOptions, Gguf, LoadOptions, Phi3Model, Result, Session, SessionOptions,
};
use candle_phi_kernels::{Isa, Kernels};

/// Gigabytes a second, the least first, as JSON: median, least and most.
fn summary(values: &mut [f64]) -> String {
    values.sort_by(f64::total_cmp);
    format!("[{:.2}, {:.2}, {:.2}]", values[values.len() / 2], values[0], values[values.len() - 1])
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = PathBuf::from(arguments.next().unwrap_or_default());
    let rounds = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(9);
    let cancel = CancelToken::new();
    let model = Arc::new(Phi3Model::load(&path, &LoadOptions::default(), &cancel)?);
    let mut session = Session::new(Arc::clone(&model), &SessionOptions::default())?;
    let threads = session.n_threads();
    let kernels = Kernels::new(Isa::detect()).unwrap();

    let gguf = Gguf::open(&path, true, &cancel)?;
    let own_output = gguf.tensor("output.weight").is_some();
    let read: Vec<&[u8]> = gguf
        .tensors()
        .filter(|info| !(own_output && info.name == "token_embd.weight"))
        .map(|info| gguf.tensor_bytes(info))
        .collect::<Result<_>>()?;
    let bytes: usize = read.iter().map(|bytes| bytes.len()).sum();

    let options = GenerationOptions { max_tokens: Some(5), ignore_eos: true, ..GenerationOptions::default() };
    let (mut streams, mut decodes, mut ratios) = (vec![], vec![], vec![]);
    for round in 0..=rounds {
        let started = Instant::now();
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let read = &read;
                scope.spawn(move || {
                    for bytes in read {
                        let part = bytes.len().div_ceil(threads).max(1);
                        let part = bytes.chunks(part).nth(thread).unwrap_or_default();
                        std::hint::black_box(kernels.read_memory(part));
                    }
                });
            }
        });
        let stream = bytes as f64 / started.elapsed().as_secs_f64() / 1e9;
        session.reset();
        let mut generation = session.start(&[3 + round as u32], &options)?;
        session.run(&mut generation, &cancel)?;
        let timings = &generation.completion().timings;
        let decode = (bytes * timings.decode_tokens) as f64 / timings.decode.as_secs_f64() / 1e9;
        // The first one brings the file into memory.
        if round > 0 {
            streams.push(stream);
            decodes.push(decode);
            ratios.push(decode / stream);
        }
    }
    println!(
        "{{\"isa\": \"{}\", \"threads\": {threads}, \"rounds\": {rounds}, \"stream_gb_s\": {}, \"decode_gb_s\": {}, \
         \"decode_of_stream\": {}}}",
        session.isa(),
        summary(&mut streams),
        summary(&mut decodes),
        summary(&mut ratios)
    );
    Ok(())
}
