//! IQ4_NL and IQ4_XS against the gguf package's values; `tools/make_iq4_golden.py` made the files.
#![allow(clippy::unwrap_used, reason = "a test stops where it is wrong")]

use candle_phi_kernels::{TensorType, dequantize_row};

#[test]
fn blocks_have_the_values_that_the_gguf_package_gives_them() {
    for (tensor_type, golden) in [
        (TensorType::IQ4_NL, include_str!("golden/iq4_nl.txt")),
        (TensorType::IQ4_XS, include_str!("golden/iq4_xs.txt")),
    ] {
        let (hex, values) = golden.split_once('\n').unwrap();
        let bytes: Vec<u8> = (0..hex.len() / 2)
            .map(|at| u8::from_str_radix(hex.get(2 * at..2 * at + 2).unwrap(), 16).unwrap())
            .collect();
        let expected: Vec<f32> = values.split_whitespace().map(|value| value.parse().unwrap()).collect();

        let mut found = vec![0.0; expected.len()];
        dequantize_row(tensor_type, &bytes, &mut found).unwrap();

        assert_eq!(found, expected, "{tensor_type:?}");
    }
}
