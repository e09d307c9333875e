//! Linear layers that read their weights in the file.

use std::ops::Range;
use std::sync::Arc;

use candle_phi_kernels::{
    ActivationForms, Activations, BufferPool, Kernels, Prepared, Products, TensorType, Weight,
};

use super::super::weights::{optional_bias, tensor_of_shape};
use crate::architecture;
use crate::gguf::{Gguf, TensorInfo};
use crate::{Error, Result};

/// Fewest and most weight rows of a part of a job: enough for a thread to read in one go, few enough to share out.
const PART_WIDTHS: (usize, usize) = (64, 256);
/// Parts that a job should have at least, so that they are shared out evenly: for few rows of activations, whose parts
/// take little time, and for more.
const PARTS: (usize, usize) = (24, 96);
/// Rows of activations from which on there are more parts.
const MORE_PARTS_FROM: usize = 32;

/// `y = x Wᵀ + b` with a weight `(out, in)` that stays in the file.
///
/// Quantized weights are multiplied by activations of eight bits with a scale for 256, floats by activations as they are.
#[derive(Clone)]
pub(crate) struct Linear(Arc<Parameters>);

struct Parameters {
    gguf: Arc<Gguf>,
    weight: TensorInfo, // (out, in)
    tensor_type: TensorType,
    out: usize,
    r#in: usize,
    bias: Option<Vec<f32>>, // (out)
}

impl Linear {
    pub(super) fn load(gguf: &Arc<Gguf>, name: &str, out: usize, r#in: usize) -> Result<Self> {
        let weight = tensor_of_shape(gguf, &architecture::weight(name), &[out, r#in])?.clone();
        let tensor_type = weight.tensor_type()?;
        // Checked here too, so that a damaged file is found when it is loaded.
        Weight::new(tensor_type, gguf.tensor_bytes(&weight)?, out, r#in).map_err(|error| {
            Error::invalid_model(format!("{}: tensor {name}.weight: {error}", gguf.path().display()))
        })?;
        let bias = optional_bias(gguf, name, out)?;
        Ok(Self(Arc::new(Parameters { gguf: Arc::clone(gguf), weight, tensor_type, out, r#in, bias })))
    }

    pub(super) fn out(&self) -> usize {
        self.0.out
    }

    pub(super) fn tensor_type(&self) -> TensorType {
        self.0.tensor_type
    }

    /// Weight rows of a part of a job, for `outputs` rows in all and so many rows of activations.
    pub(super) fn part_width(outputs: usize, x_rows: usize) -> usize {
        let (fewest, most) = PART_WIDTHS;
        let parts = if x_rows < MORE_PARTS_FROM { PARTS.0 } else { PARTS.1 };
        (outputs / parts).next_multiple_of(fewest).clamp(fewest, most).min(outputs.max(1))
    }

    /// Products with the weight rows `rows`, which are their columns.
    pub(super) fn multiply(
        &self,
        kernels: Kernels,
        rows: Range<usize>,
        x: &[(&Activations, &Prepared)],
        pool: &BufferPool,
    ) -> Result<Products> {
        let Parameters { gguf, weight: info, tensor_type, out, r#in, bias } = &*self.0;
        let missing = || Error::internal(format_args!("tensor {} has no rows {rows:?}", info.name));
        let weight = Weight::new(*tensor_type, gguf.tensor_bytes(info)?, *out, *r#in).map_err(|_| missing())?;
        if rows.end > weight.rows() {
            return Err(missing());
        }
        let mut products = kernels.multiply(&weight, rows.clone(), x, pool);
        if let Some(bias) = bias {
            products.add_to_columns(bias.get(rows.clone()).ok_or_else(missing)?);
        }
        Ok(products)
    }
}

/// The forms of activations that the matrices of a file read.
pub(super) fn forms_of(gguf: &Gguf) -> ActivationForms {
    let matrices = gguf.tensors().filter(|info| info.shape.len() > 1);
    let types = matrices.filter_map(|info| info.tensor_type().ok());
    types.fold(ActivationForms::default(), |forms, tensor_type| forms.or(ActivationForms::read_by(tensor_type)))
}
