//! Reading tensors that a model is made of, with their shapes checked.

use candle_phi_kernels::dequantize_row;

use crate::architecture::{self, NormKind};
use crate::gguf::{CONVERTED, Gguf, TensorInfo};
use crate::{Error, PhiConfig, Result};

/// The tensor `name`, of a type that can be computed with, or an error that names the type or both shapes.
pub(super) fn tensor_of_shape<'a>(gguf: &'a Gguf, name: &str, shape: &[usize]) -> Result<&'a TensorInfo> {
    let info = gguf.required_tensor(name)?;
    if info.shape != shape {
        return Err(Error::invalid_model(format!(
            "{}: tensor {name} must have the shape {shape:?} by the metadata, got {:?}; {CONVERTED}",
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
    dequantize_row(info.tensor_type()?, gguf.tensor_bytes(info)?, &mut values)
        .map_err(|error| Error::invalid_model(format!("{}: tensor {name}: {error}", gguf.path().display())))?;
    Ok(values)
}

/// The bias of the layer `name`, if the file has one.
pub(super) fn optional_bias(gguf: &Gguf, name: &str, len: usize) -> Result<Option<Vec<f32>>> {
    let bias = architecture::bias(name);
    gguf.tensor(&bias).map(|_| vector(gguf, &bias, len)).transpose()
}

/// The parameters of a norm of each [kind](NormKind).
pub(crate) enum NormWeights {
    Rms { weight: Vec<f32>, epsilon: f32 },                   // (embedding)
    Layer { weight: Vec<f32>, bias: Vec<f32>, epsilon: f32 }, // (embedding)
}

impl NormWeights {
    /// Values that it is a norm of.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Rms { weight, .. } | Self::Layer { weight, .. } => weight.len(),
        }
    }

    /// Reads the norm `{name}.weight` and, if the architecture has one, `{name}.bias`.
    pub(super) fn load(gguf: &Gguf, name: &str, config: &PhiConfig) -> Result<Self> {
        let len = config.embedding_length;
        let (weight, epsilon) = (vector(gguf, &architecture::weight(name), len)?, config.norm_epsilon);
        Ok(match config.architecture.facts().norm {
            NormKind::Rms => Self::Rms { weight, epsilon },
            NormKind::Layer => {
                Self::Layer { weight, bias: vector(gguf, &architecture::bias(name), len)?, epsilon }
            }
        })
    }
}
