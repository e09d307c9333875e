//! Speed of the products, in GB/s of weights and GMAC/s, on all cores: `kernel_speed [ISA] [ROWS_OF_X...]`.
//!
//! `HOT=1` takes weights that are in the cache, and goes over them for long enough that starting threads does not count.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::indexing_slicing, reason = "a measuring tool")]

use std::time::Instant;

use candle_phi_kernels::{ActivationForms, Activations, BufferPool, Isa, Kernels, Prepared, TensorType, Weight};

/// Processor time of this thread; wall time where the system does not say.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or_default() / 1e9
}

fn main() {
    let mut args = std::env::args().skip(1);
    let isa = args.next().map_or(Isa::detect(), |name| name.parse().unwrap());
    let kernels = Kernels::new(isa).unwrap();
    let counts: Vec<usize> = args.map(|count| count.parse().unwrap()).collect();
    let counts = if counts.is_empty() { vec![1, 2, 3, 4, 8, 16, 64, 512] } else { counts };
    // Weights out of the cache, to tell what memory costs.
    let hot = std::env::var_os("HOT").is_some();
    let (threads, len) = (std::thread::available_parallelism().unwrap().get(), 3072);
    for tensor_type in [TensorType::Q4_K, TensorType::Q5_K, TensorType::Q6_K, TensorType::Q8_0, TensorType::Q4_0] {
        let row_bytes = tensor_type.row_bytes(len).unwrap();
        let rows = (1 << 29) / row_bytes / 128 * 128;
        let mut state = 1u64;
        let mut bytes = vec![0u8; rows * row_bytes];
        for chunk in bytes.as_chunks_mut::<8>().0 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            *chunk = (state & 0x3bff_3bff_3bff_3bff).to_le_bytes();
        }
        let weight = Weight::new(tensor_type, &bytes, rows, len).unwrap();
        for x_rows in &counts {
            let mut x = Activations::new(*x_rows, len, ActivationForms::read_by(tensor_type));
            for row in 0..*x_rows {
                let values: Vec<f32> = (0..len).map(|i| ((i * 7 + row) as f32).sin()).collect();
                x.set_row(kernels, row, &values);
            }
            let prepared = Prepared::new(kernels, tensor_type, &x);
            let used = if *x_rows >= 64 { rows * 8 / x_rows / 128 * 128 } else { rows } * if hot { 16 } else { 1 };
            let (mut best, mut best_cpu) = (f64::INFINITY, f64::INFINITY);
            for _ in 0..5 {
                let cpu = std::sync::Mutex::new(0.0);
                let started = Instant::now();
                std::thread::scope(|scope| {
                    for thread in 0..threads {
                        let (cpu, weight, x, prepared) = (&cpu, &weight, &x, &prepared);
                        scope.spawn(move || {
                            let pool = BufferPool::default();
                            let before = cpu_seconds();
                            // Each thread goes over rows that stand together, as in a pass.
                            let bound = |thread: usize| used / 128 * thread / threads * 128;
                            for first in (bound(thread)..bound(thread + 1)).step_by(128) {
                                let first = if hot { first % 128 } else { first };
                                let _ = kernels.multiply(weight, first..first + 128, &[(x, prepared)], &pool);
                            }
                            *cpu.lock().unwrap() += cpu_seconds() - before;
                        });
                    }
                });
                best = best.min(started.elapsed().as_secs_f64());
                best_cpu = best_cpu.min(cpu.into_inner().unwrap() / threads as f64);
            }
            println!(
                "{isa} {:5} M={x_rows:3}: {:6.1} GB/s {:7.1} GMAC/s; of processor time {:6.1} GB/s {:7.1} GMAC/s",
                tensor_type.name(),
                (used * row_bytes) as f64 / best / 1e9,
                (used * len * x_rows) as f64 / best / 1e9,
                (used * row_bytes) as f64 / best_cpu / 1e9,
                (used * len * x_rows) as f64 / best_cpu / 1e9
            );
        }
    }
}
