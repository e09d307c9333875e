//! Reading tensors that a model is made of, with their shapes checked.

use candle_phi_kernels::dequantize_row;

use crate::gguf::{Gguf, TensorInfo};
use crate::{Error, Result};

/// The tensor `name`, of a type that can be computed with, or an error that names the type or both shapes.
pub(super) fn tensor_of_shape<'a>(gguf: &'a Gguf, name: &str, shape: &[usize]) -> Result<&'a TensorInfo> {
    let info = gguf.required_tensor(name)?;
    if info.shape != shape {
        return Err(Error::invalid_model(format!(
            "{}: tensor {name} has shape {:?}, but the metadata says {shape:?}",
            gguf.path().display(),
            info.shape
        )));
    }
    info.tensor_type().map_err(|error| Error::unsupported_model(format!("{}: {error}", gguf.path().display())))?;
    Ok(info)
}

/// A vector of `len` values as f32.
pub(super) fn vector(gguf: &Gguf, name: &str, len: usize) -> Result<Vec<f32>> {
    let info = tensor_of_shape(gguf, name, &[len])?;
    let mut values = vec![0.0; len];
    dequantize_row(info.tensor_type()?, gguf.tensor_bytes(info), &mut values)
        .map_err(|error| Error::invalid_model(format!("{}: tensor {name}: {error}", gguf.path().display())))?;
    Ok(values)
}

/// The bias of the layer `name`, where the file has one.
pub(super) fn optional_bias(gguf: &Gguf, name: &str, len: usize) -> Result<Option<Vec<f32>>> {
    let bias = format!("{name}.bias");
    gguf.tensor(&bias).map(|_| vector(gguf, &bias, len)).transpose()
}

/// A norm's parameters.
pub(crate) enum NormWeights {
    /// `x / sqrt(mean(x²) + ε) · w`
    Rms { weight: Vec<f32>, epsilon: f32 }, // (embedding)
    /// `(x - mean(x)) / sqrt(var(x) + ε) · w + b`
    Layer { weight: Vec<f32>, bias: Vec<f32>, epsilon: f32 }, // (embedding)
}

impl NormWeights {
    /// Reads the norm `{name}.weight` and, where the architecture has one, `{name}.bias`.
    pub(super) fn load(gguf: &Gguf, name: &str, config: &crate::PhiConfig) -> Result<Self> {
        let vector = |part: &str| vector(gguf, &format!("{name}.{part}"), config.embedding_length);
        let epsilon = config.norm_epsilon;
        Ok(match config.architecture {
            crate::Architecture::Phi3 => Self::Rms { weight: vector("weight")?, epsilon },
            crate::Architecture::Phi2 => Self::Layer { weight: vector("weight")?, bias: vector("bias")?, epsilon },
        })
    }
}
