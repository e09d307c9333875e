//! The scalar dequantization against Candle's, on random blocks of every type that Candle has. The others are in the
//! kernels' own tests.

use std::borrow::Cow;

use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{Device, Tensor};
use candle_phi_kernels::{TensorType, dequantize_row};

fn candle_type(tensor_type: TensorType) -> Option<GgmlDType> {
    Some(match tensor_type {
        TensorType::F32 => GgmlDType::F32,
        TensorType::F16 => GgmlDType::F16,
        TensorType::BF16 => GgmlDType::BF16,
        TensorType::Q4_0 => GgmlDType::Q4_0,
        TensorType::Q4_1 => GgmlDType::Q4_1,
        TensorType::Q5_0 => GgmlDType::Q5_0,
        TensorType::Q5_1 => GgmlDType::Q5_1,
        TensorType::Q8_0 => GgmlDType::Q8_0,
        TensorType::Q2_K => GgmlDType::Q2K,
        TensorType::Q3_K => GgmlDType::Q3K,
        TensorType::Q4_K => GgmlDType::Q4K,
        TensorType::Q5_K => GgmlDType::Q5K,
        TensorType::Q6_K => GgmlDType::Q6K,
        TensorType::IQ4_NL | TensorType::IQ4_XS => return None,
    })
}

#[test]
fn every_type_gives_the_values_that_candle_gives() {
    const LEN: usize = 4 * 256;
    let device = Device::Cpu;
    for tensor_type in TensorType::ALL {
        let Some(candle_type) = candle_type(tensor_type) else { continue };
        let source = Tensor::randn(0f32, 1.0, (4, 256), &device).unwrap();
        let quantized = QTensor::quantize(&source, candle_type).unwrap();
        let bytes = quantized.data().unwrap().into_owned();
        let storage = QStorage::from_data(Cow::Borrowed(&bytes), &device, candle_type).unwrap();
        let expected: Vec<f32> = QTensor::new(storage, (4, 256))
            .and_then(|tensor| tensor.dequantize(&device))
            .and_then(|tensor| tensor.flatten_all())
            .and_then(|tensor| tensor.to_vec1())
            .unwrap();

        let mut values = vec![0.0; LEN];
        dequantize_row(tensor_type, &bytes, &mut values).unwrap();

        for (found, expected) in values.iter().zip(&expected) {
            assert!(
                (found - expected).abs() <= 1e-6 * expected.abs().max(1e-3),
                "{tensor_type:?}: {found} {expected}"
            );
        }
    }
}
