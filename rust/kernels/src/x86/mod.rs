//! Kernels for x86-64.

#![allow(clippy::wildcard_imports, reason = "the names of intrinsics say where they come from")]
#![allow(clippy::large_types_passed_by_value, reason = "vectors go from hand to hand in registers")]
#![allow(clippy::cast_ptr_alignment, reason = "loads say themselves whether they need it, and panels have it")]
#![allow(clippy::type_complexity, reason = "a table of functions says what they take")]

mod avx2;
mod avx2_blocks;
mod avx2_dot;
mod avx2_fill;
mod avx2_level;
mod avx512;
mod avx512_bits;
mod avx512_blocks;
mod avx512_dot;
mod avx512_few;
mod avx512_few_types;
mod avx512_fill;
mod avx512_many;
mod avx512_panel;
mod avx512_quantize;
mod avx512_run;
pub(crate) mod lanes;
#[cfg(test)]
mod tests;

use std::ops::Range;

use avx2_level::Level;

use crate::activations::{Activations, SUMS};
use crate::matmul::{Prepared, Weight};
use crate::panel::{PANEL_ROWS, Panel, Rows, Tile};
use crate::products::Products;
use crate::tensor_type::SUPER_BLOCK;
use crate::unpack::Layout;
use crate::{Isa, Kernels, TensorType};

/// Rows of activations as the dot products with single weight rows read them.
#[derive(Clone, Debug, Default)]
pub(crate) struct PreparedRows(PreparedFor);

#[derive(Clone, Debug, Default)]
enum PreparedFor {
    /// The type or the level has no such kernel.
    #[default]
    None,
    Avx2(Vec<avx2_dot::PreparedRow>),
    Avx512(Vec<avx512_dot::PreparedRow>),
}

impl PreparedRows {
    pub(crate) fn new(kernels: Kernels, tensor_type: TensorType, x: &Activations) -> Self {
        let rows = 0..x.rows();
        Self(if kernels.isa() == Isa::Avx512Vnni && avx512_dot::handles(tensor_type) {
            PreparedFor::Avx512(rows.map(|row| avx512_dot::PreparedRow::new(tensor_type, x, row)).collect())
        } else if Level::of(kernels).is_some() && avx2_dot::handles(tensor_type) {
            PreparedFor::Avx2(rows.map(|row| avx2_dot::PreparedRow::new(tensor_type, x, row)).collect())
        } else {
            PreparedFor::None
        })
    }
}

/// Products of weight rows with all rows of `x`, `(x rows, weight rows)`, or false if there is no kernel for them.
pub(crate) fn dot_rows(
    kernels: Kernels,
    tensor_type: TensorType,
    bytes: &[u8],
    row_bytes: usize,
    x: &Activations,
    prepared: &PreparedRows,
    out: &mut [f32],
) -> bool {
    // A row that ends inside a block of 256 is for the general kernel.
    if !x.row_len().is_multiple_of(256) {
        return false;
    }
    match (&prepared.0, kernels.isa(), Level::of(kernels)) {
        (PreparedFor::Avx512(rows), Isa::Avx512Vnni, _) if rows.len() == x.rows() => {
            for (row, out) in rows.iter().zip(out.chunks_exact_mut(bytes.len() / row_bytes)) {
                avx512_dot::dot_rows(tensor_type, bytes, row_bytes, row, out);
            }
        }
        (PreparedFor::Avx2(rows), _, Some(level)) if rows.len() == x.rows() => {
            avx2_dot::dot_rows(level, tensor_type, bytes, row_bytes, rows, out);
        }
        _ => return false,
    }
    true
}

/// Quantizes a block of activations and returns its scale, or nothing if the level has no kernel of its own for that.
pub(crate) fn quantize(
    kernels: Kernels,
    values: &[f32; SUPER_BLOCK],
    q: &mut [i8; SUPER_BLOCK],
    sums: &mut [i16; SUMS],
) -> Option<f32> {
    (kernels.isa() == Isa::Avx512Vnni).then(|| avx512_quantize::quantize(values, q, sums))
}

/// What the products of a type need of activations beside their quants, where the level has a form of its own for it.
pub(crate) fn corrections(
    kernels: Kernels,
    tensor_type: TensorType,
    layout: Layout,
    activations: &Activations,
) -> Option<Vec<i32>> {
    if kernels.isa() == Isa::Avx512Vnni { avx512::corrections(tensor_type, layout, activations) } else { None }
}

/// Products of weight rows with all rows of all parts of `x`, or false if the level has panels only.
pub(crate) fn multiply(
    kernels: Kernels,
    weight: &Weight<'_>,
    layout: Layout,
    rows: &Range<usize>,
    x: &[(&Activations, &Prepared)],
    products: &mut Products,
) -> bool {
    if kernels.isa() != Isa::Avx512Vnni {
        return false;
    }
    avx512::multiply(weight, layout, rows, x, products);
    true
}

/// Fills a panel, or returns false if there is no kernel for it.
pub(crate) fn fill(kernels: Kernels, tile: Tile<'_>, block: usize, panel: &mut Panel) -> bool {
    Level::of(kernels).is_some() && avx2_fill::fill(tile, block, panel)
}

/// Adds the products of all rows with a panel to `sums`, or returns false if there is no kernel for it.
pub(crate) fn multiply_panel(
    kernels: Kernels,
    panel: &Panel,
    layout: Layout,
    rows: Rows<'_>,
    sums: &mut [[f32; PANEL_ROWS]],
) -> bool {
    let Some(level) = Level::of(kernels) else { return false };
    avx2::multiply(level, panel, layout, rows, sums);
    true
}
