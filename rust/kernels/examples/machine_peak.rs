//! What all cores of this machine read from memory and multiply, as JSON: what benchmarks are held against.
//!
//! `machine_peak [ISA] [THREADS]`. Multiplying takes the best of several rounds. Reading takes the median: on a machine
//! that shares its memory with others, what a decoder gets is the mean of what there is while it runs, and the best moment
//! (`stream_best_gb_s`) is not there for all of that time.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::indexing_slicing, reason = "a measuring tool")]

use std::sync::Barrier;
use std::time::Instant;

use candle_phi_kernels::{Isa, Kernels, Threads};

/// Far more than any cache.
const BYTES: usize = 1 << 30;

/// Seconds of the slowest of `threads` that do `work(thread)` at once, of some rounds, the least first.
fn rounds_of(rounds: usize, threads: usize, work: impl Fn(usize) -> u64 + Sync) -> Vec<f64> {
    let round = |_| {
        let barrier = Barrier::new(threads + 1);
        std::thread::scope(|scope| {
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
        })
    };
    let mut seconds: Vec<f64> = (0..rounds).map(round).collect();
    seconds.sort_by(f64::total_cmp);
    seconds
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let isa = arguments.next().map_or(Isa::detect(), |name| name.parse().unwrap());
    let threads = arguments.next().map_or(Threads::default_count(), |count| count.parse().unwrap());
    let kernels = Kernels::new(isa).unwrap();
    let memory: Vec<u8> = (0..BYTES).map(|i| i as u8).collect();
    let parts: Vec<_> = memory.chunks(memory.len().div_ceil(threads)).collect();
    let read = |thread: usize| kernels.read_memory(parts.get(thread).copied().unwrap_or_default());
    let seconds = rounds_of(25, threads, read);
    let (median, best) = (BYTES as f64 / seconds[seconds.len() / 2] / 1e9, BYTES as f64 / seconds[0] / 1e9);
    let count = 20_000_000;
    let products = kernels.multiply_in_registers(1);
    let multiply = |_| kernels.multiply_in_registers(count).unwrap_or_default();
    let peak = products.map_or("null".to_owned(), |products| {
        let seconds = rounds_of(6, threads, multiply);
        format!("{:.1}", (products as usize * count * threads) as f64 / seconds[0] / 1e9)
    });
    println!(
        "{{\"isa\": \"{isa}\", \"threads\": {threads}, \"stream_gb_s\": {median:.1}, \"stream_best_gb_s\": {best:.1}, \
         \"int8_gmac_s\": {peak}}}"
    );
}
