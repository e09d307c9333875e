//! Speed of attention on one core.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measuring tool")]
use candle_phi_kernels::{Isa, Kernels, KvFormat, KvPage, PAGE_TOKENS, Queries};
use std::sync::Arc;
use std::time::Instant;
fn main() {
    let isa = std::env::args().nth(1).map_or(Isa::detect(), |name| name.parse().unwrap());
    let kernels = Kernels::new(isa).unwrap();
    let (heads, dim, pages) = (32, 96, 32);
    for format in [KvFormat::F16, KvFormat::F32, KvFormat::Q8] {
        let mut all = Vec::new();
        for p in 0..pages {
            let mut page = KvPage::new(format, heads, dim);
            for head in 0..heads {
                for slot in 0..PAGE_TOKENS {
                    let row: Vec<f32> = (0..dim).map(|i| ((i + slot * 3 + p) as f32).sin()).collect();
                    page.write(head, slot, &row, &row);
                }
            }
            all.push(Arc::new(page));
        }
        for rows in [1, 3, 4, 8, 16] {
            let q: Vec<f32> = (0..rows * dim).map(|i| (i as f32).cos() * 0.1).collect();
            let visible = vec![0..pages * PAGE_TOKENS; rows];
            let mut best = f64::INFINITY;
            for _ in 0..5 {
                let t = Instant::now();
                for head in 0..heads {
                    let _ = kernels.attend(Queries { values: &q, visible: &visible }, &all, head);
                }
                best = best.min(t.elapsed().as_secs_f64());
            }
            let macs = (2 * rows * dim * pages * PAGE_TOKENS * heads) as f64;
            let bytes: usize = all.iter().map(|p| p.size_bytes()).sum();
            println!(
                "{isa} {format:?} rows {rows}: {:.1} GMAC/s {:.1} GB/s",
                macs / best / 1e9,
                bytes as f64 / best / 1e9
            );
        }
    }
}
