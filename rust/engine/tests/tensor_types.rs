//! A model in each type of tensor against the same values in F32.
#![allow(clippy::unwrap_used, reason = "a test stops where it is wrong")]
#![allow(clippy::print_stdout, reason = "a test may show what it measured")]

mod common;

use std::path::Path;
use std::sync::Arc;

use candle_core::quantized::GgmlDType;
use candle_phi_engine::{CancelToken, ExecutorKind, KvDtype, LoadOptions, Phi3Model, Session, SessionOptions};

use common::{Heads, Mixture, Random, write_tiny};

const TYPES: [GgmlDType; 13] = [
    GgmlDType::F32,
    GgmlDType::F16,
    GgmlDType::BF16,
    GgmlDType::Q4_0,
    GgmlDType::Q4_1,
    GgmlDType::Q5_0,
    GgmlDType::Q5_1,
    GgmlDType::Q8_0,
    GgmlDType::Q2K,
    GgmlDType::Q3K,
    GgmlDType::Q4K,
    GgmlDType::Q5K,
    GgmlDType::Q6K,
];

fn logits(directory: &Path, mixture: Mixture, executor: ExecutorKind, ids: &[u32]) -> Vec<f32> {
    let path = write_tiny(directory, Heads::GROUPED, mixture);
    let options = LoadOptions { executor, ..LoadOptions::default() };
    let model = Phi3Model::load(&path, &options, &CancelToken::new()).unwrap();
    let options = SessionOptions { kv_dtype: KvDtype::F32, ..SessionOptions::default() };
    Session::new(Arc::new(model), &options).unwrap().logits(ids, &CancelToken::new()).unwrap()
}

/// Mean square of the difference, in parts of the mean square of what is expected.
fn relative_error(found: &[f32], expected: &[f32]) -> f64 {
    let square = |x: f32| f64::from(x) * f64::from(x);
    let difference: f64 = found.iter().zip(expected).map(|(a, b)| square(a - b)).sum();
    difference / expected.iter().map(|x| square(*x)).sum::<f64>()
}

/// The weights are the same; what differs is that quantized products round activations to 8 bits, by blocks of 32 or
/// of 256 values. Through four blocks and the output that was measured at 5e-4 to 4e-3 of the logits' mean square; a layer
/// read wrongly is off by 1 and more.
#[test]
fn a_model_in_each_type_computes_what_its_values_say() {
    let directory = tempfile::tempdir().unwrap();
    let ids = Random::new(5).ids(24);
    for dtype in TYPES {
        let expected = logits(directory.path(), Mixture::Dequantized(dtype), ExecutorKind::Candle, &ids);
        let tolerance = match dtype {
            GgmlDType::F32 | GgmlDType::F16 | GgmlDType::BF16 => 1e-9,
            _ => 1e-2,
        };
        for executor in [ExecutorKind::Kernels, ExecutorKind::Candle] {
            let found = logits(directory.path(), Mixture::Uniform(dtype), executor, &ids);
            let error = relative_error(&found, &expected);
            println!("{dtype:?}, {executor}: relative error {error:.1e}");
            assert!(error < tolerance, "{dtype:?}, {executor}: {error:e}");
        }
    }
}
