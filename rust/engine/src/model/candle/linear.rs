//! Linear layers whose weights stay quantized.

use std::borrow::Cow;

use candle_core::quantized::{GgmlDType, QMatMul, QStorage, QTensor};
use candle_core::{Device, Module, Tensor};
use candle_phi_kernels::{TensorType, iq4_as_q8_0};

use super::super::weights::{optional_bias, tensor_of_shape};
use crate::gguf::Gguf;
use crate::{Result, architecture};

/// `y = x Wᵀ + b` with a weight `(out, in)` in the file's own quantization, on Candle's quantized matrix product.
///
/// Candle multiplies quantized weights by activations that it quantizes to 8 bits; F16 and BF16 weights it
/// widens to f32 once. It has no product with IQ4_NL and IQ4_XS: these become Q8_0 when they are loaded, twice as many
/// bytes as in the file (see [`iq4_as_q8_0`]).
pub(crate) struct Linear {
    weight: QMatMul,      // (out, in)
    bias: Option<Tensor>, // (out)
}

impl Linear {
    /// Reads `{name}.weight`, which must have the shape `(out, in)`, and `{name}.bias` where the file has it.
    pub(super) fn load(gguf: &Gguf, name: &str, out: usize, r#in: usize, device: &Device) -> Result<Self> {
        let info = tensor_of_shape(gguf, &architecture::weight(name), &[out, r#in])?;
        let tensor_type = info.tensor_type()?;
        let data = gguf.tensor_data(info)?;
        let blocks = match iq4_as_q8_0(tensor_type, &data) {
            Some(blocks) => Cow::Owned(blocks),
            None => Cow::Borrowed(&*data),
        };
        let storage = QStorage::from_data(blocks, device, candle_dtype(tensor_type))?;
        let weight = QMatMul::from_qtensor(QTensor::new(storage, (out, r#in))?)?;
        let bias = optional_bias(gguf, name, out)?.map(|bias| Tensor::new(bias, device)).transpose()?;
        Ok(Self { weight, bias })
    }

    /// `(batch, seq, in)` to `(batch, seq, out)`
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = self.weight.forward(x)?;
        Ok(match &self.bias {
            Some(bias) => y.broadcast_add(bias)?,
            None => y,
        })
    }
}

/// Type of the tensor that Candle gets.
const fn candle_dtype(tensor_type: TensorType) -> GgmlDType {
    match tensor_type {
        TensorType::F32 => GgmlDType::F32,
        TensorType::F16 => GgmlDType::F16,
        TensorType::BF16 => GgmlDType::BF16,
        TensorType::Q4_0 => GgmlDType::Q4_0,
        TensorType::Q4_1 => GgmlDType::Q4_1,
        TensorType::Q5_0 => GgmlDType::Q5_0,
        TensorType::Q5_1 => GgmlDType::Q5_1,
        TensorType::Q8_0 | TensorType::IQ4_NL | TensorType::IQ4_XS => GgmlDType::Q8_0,
        TensorType::Q2_K => GgmlDType::Q2K,
        TensorType::Q3_K => GgmlDType::Q3K,
        TensorType::Q4_K => GgmlDType::Q4K,
        TensorType::Q5_K => GgmlDType::Q5K,
        TensorType::Q6_K => GgmlDType::Q6K,
    }
}
