//! What all cores of this machine read from memory and multiply at most, as JSON: what benchmarks are held against.
//!
//! `machine_peak [ISA] [THREADS]`; each figure is the best of several rounds, after a round that warms up.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measuring tool")]

use std::sync::Barrier;
use std::time::Instant;

use candle_phi_kernels::{Isa, Kernels, Threads};

/// Far more than any cache.
const BYTES: usize = 1 << 30;

/// Seconds of the slowest of `threads` that do `work(thread)` at once; the least of some rounds.
fn best_of(threads: usize, work: impl Fn(usize) -> u64 + Sync) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..6 {
        let barrier = Barrier::new(threads + 1);
        let seconds = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|thread| {
                    let (barrier, work) = (&barrier, &work);
                    scope.spawn(move || {
                        barrier.wait();
                        std::hint::black_box(work(thread));
                    })
                })
                .collect();
            barrier.wait();
            let started = Instant::now();
            for worker in workers {
                worker.join().unwrap();
            }
            started.elapsed().as_secs_f64()
        });
        best = best.min(seconds);
    }
    best
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let isa = arguments.next().map_or(Isa::detect(), |name| name.parse().unwrap());
    let threads = arguments.next().map_or(Threads::default_count(), |count| count.parse().unwrap());
    let kernels = Kernels::new(isa).unwrap();
    let memory: Vec<u64> = (0..BYTES as u64 / 8).collect();
    let parts: Vec<_> = memory.chunks(memory.len().div_ceil(threads)).collect();
    let seconds = best_of(threads, |thread| kernels.read_memory(parts.get(thread).copied().unwrap_or_default()));
    let stream = BYTES as f64 / seconds / 1e9;
    let rounds = 20_000_000;
    let products = kernels.multiply_in_registers(1);
    let seconds = best_of(threads, |_| kernels.multiply_in_registers(rounds).unwrap_or_default());
    let peak = products.map_or("null".to_owned(), |products| {
        format!("{:.1}", (products as usize * rounds * threads) as f64 / seconds / 1e9)
    });
    println!(
        "{{\"isa\": \"{isa}\", \"threads\": {threads}, \"stream_gb_s\": {stream:.1}, \"int8_gmac_s\": {peak}}}"
    );
}
