//! Kernels on one thread, at each level of the machine.
//!
//! `cargo bench --workspace --bench kernels`; a part of a name chooses (`-- avx2/decode`). Products with one row report the bytes
//! of weights that they read, GB/s (GiB/s in criterion's units); those with more the multiply-adds, so that a "Gelem/s" is
//! a GMAC/s.

#![allow(clippy::unwrap_used, missing_docs, reason = "a measuring tool")]

use std::sync::Arc;

use candle_phi_kernels::{
    ActivationForms, Activations, BufferPool, Isa, Kernels, KvFormat, KvPage, PAGE_TOKENS, Prepared, Queries,
    TensorType, Weight,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Values of a weight row.
const LEN: usize = 3072;
/// Weight rows: more bytes than the second-level cache holds.
const ROWS: usize = 4096;

fn weight_bytes(tensor_type: TensorType) -> Vec<u8> {
    let mut state = 1u64;
    let mut bytes = vec![0; ROWS * tensor_type.row_bytes(LEN).unwrap()];
    for chunk in bytes.as_chunks_mut::<8>().0 {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        // Every f16 in it is finite.
        *chunk = (state & 0x3bff_3bff_3bff_3bff).to_le_bytes();
    }
    bytes
}

fn activations(kernels: Kernels, rows: usize, tensor_type: TensorType) -> Activations {
    let mut x = Activations::new(rows, LEN, ActivationForms::read_by(tensor_type));
    for row in 0..rows {
        let values: Vec<f32> = (0..LEN).map(|i| ((i * 7 + row) as f32).sin()).collect();
        x.set_row(kernels, row, &values);
    }
    x
}

fn products(criterion: &mut Criterion) {
    use TensorType::{IQ4_XS, Q4_0, Q4_K, Q5_K, Q6_K, Q8_0};
    for tensor_type in [Q4_K, Q5_K, Q6_K, Q8_0, Q4_0, IQ4_XS] {
        let bytes = weight_bytes(tensor_type);
        let weight = Weight::new(tensor_type, &bytes, ROWS, LEN).unwrap();
        for isa in Isa::available() {
            let kernels = Kernels::new(isa).unwrap();
            for rows in [1, 2, 8, 64] {
                // As many weight rows as take about the same time.
                let used = if isa == Isa::Scalar { 64 } else { ROWS / rows };
                let stage = if rows == 1 { "decode" } else { "prefill" };
                let mut group = criterion.benchmark_group(format!("{isa}/{stage}"));
                group.throughput(if rows == 1 {
                    Throughput::Bytes((used * tensor_type.row_bytes(LEN).unwrap()) as u64)
                } else {
                    Throughput::Elements((used * LEN * rows) as u64)
                });
                let x = activations(kernels, rows, tensor_type);
                let prepared = Prepared::new(kernels, tensor_type, &x);
                let pool = BufferPool::default();
                group.bench_function(format!("{}x{rows}", tensor_type.name()), |bencher| {
                    bencher.iter(|| kernels.multiply(&weight, 0..used, &[(&x, &prepared)], &pool));
                });
            }
        }
    }
}

fn attention(criterion: &mut Criterion) {
    const DIM: usize = 96;
    const PAGES: usize = 32;
    for (name, format) in [("f16", KvFormat::F16), ("f32", KvFormat::F32), ("q8_0", KvFormat::Q8)] {
        let mut page = KvPage::new(format, 1, DIM).unwrap();
        for slot in 0..PAGE_TOKENS {
            let row: Vec<f32> = (0..DIM).map(|i| ((i + slot * 3) as f32).sin()).collect();
            page.write(0, slot, &row, &row);
        }
        let pages: Vec<_> = (0..PAGES).map(|_| Arc::new(page.clone())).collect();
        for isa in Isa::available() {
            let kernels = Kernels::new(isa).unwrap();
            for rows in [1, 4, 16] {
                let values = vec![0.1; rows * DIM];
                let visible = vec![0..PAGES * PAGE_TOKENS; rows];
                let mut group = criterion.benchmark_group(format!("{isa}/attention"));
                group.throughput(Throughput::Elements((2 * rows * DIM * PAGES * PAGE_TOKENS) as u64));
                group.bench_function(format!("{name}x{rows}"), |bencher| {
                    let queries = Queries { values: &values, visible: &visible };
                    bencher.iter(|| kernels.attend(queries, &pages, 0));
                });
            }
        }
    }
}

fn rows(criterion: &mut Criterion) {
    let values: Vec<f32> = (0..LEN).map(|i| (i as f32).sin()).collect();
    for isa in Isa::available() {
        let kernels = Kernels::new(isa).unwrap();
        let mut out = vec![0.0; LEN];
        let mut x = Activations::new(1, LEN, ActivationForms::read_by(TensorType::Q4_K));
        let mut group = criterion.benchmark_group(format!("{isa}/row"));
        group.throughput(Throughput::Elements(LEN as u64));
        group.bench_function("quantize", |bencher| bencher.iter(|| x.set_row(kernels, 0, &values)));
        group.bench_function("rms_norm", |bencher| {
            bencher.iter(|| kernels.rms_norm(&values, &values, 1e-5, &mut out));
        });
        group.bench_function("swiglu", |bencher| bencher.iter(|| kernels.swiglu(&mut out, &values)));
    }
}

criterion_group!(benches, products, attention, rows);
criterion_main!(benches);
