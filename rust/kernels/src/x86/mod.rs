//! Kernels for x86-64.

#![allow(clippy::wildcard_imports, reason = "the names of intrinsics say where they come from")]
#![allow(clippy::large_types_passed_by_value, reason = "vectors go from hand to hand in registers")]
#![allow(clippy::type_complexity, reason = "a table of functions says what they take")]

mod avx512;
mod avx512_dot;
mod avx512_fill;
pub(crate) mod lanes;
mod transpose;

use crate::activations::Activations;
use crate::panel::{PANEL_ROWS, Panel, Rows, Tile};
use crate::unpack::Layout;
use crate::{Isa, Kernels, TensorType};

/// Rows of activations as the dot products with single weight rows read them.
#[derive(Clone, Debug, Default)]
pub(crate) struct PreparedRows {
    /// One for each row; empty where the type or the level has no such kernel.
    rows: Vec<avx512_dot::PreparedRow>,
}

impl PreparedRows {
    pub(crate) fn new(kernels: Kernels, tensor_type: TensorType, x: &Activations) -> Self {
        let is_special = kernels.isa() == Isa::Avx512Vnni && avx512_dot::handles(tensor_type);
        let rows = if is_special { 0..x.rows() } else { 0..0 };
        Self { rows: rows.map(|row| avx512_dot::PreparedRow::new(tensor_type, x, row)).collect() }
    }
}

/// Products of weight rows with row `row` of `x`, or false if there is no kernel for them.
#[expect(clippy::too_many_arguments, reason = "a weight's parts and an activation's")]
pub(crate) fn dot_rows(
    kernels: Kernels,
    tensor_type: TensorType,
    bytes: &[u8],
    row_bytes: usize,
    x: &Activations,
    prepared: &PreparedRows,
    row: usize,
    out: &mut [f32],
) -> bool {
    match prepared.rows.get(row) {
        // A row that ends inside a block of 256 is for the general kernel.
        Some(row) if kernels.isa() == Isa::Avx512Vnni && x.row_len().is_multiple_of(256) => {
            avx512_dot::dot_rows(tensor_type, bytes, row_bytes, row, out);
            true
        }
        _ => false,
    }
}

/// Fills a panel, or returns false if there is no kernel for it.
pub(crate) fn fill(kernels: Kernels, tile: Tile<'_>, block: usize, panel: &mut Panel) -> bool {
    kernels.isa() == Isa::Avx512Vnni && avx512_fill::fill(tile, block, panel)
}

/// Adds the products of all rows with a panel to `sums`, and asks for the bytes `ahead` meanwhile.
pub(crate) fn multiply_panel(
    kernels: Kernels,
    panel: &Panel,
    layout: Layout,
    rows: Rows<'_>,
    sums: &mut [[f32; PANEL_ROWS]],
    ahead: &[u8],
) {
    debug_assert_eq!(kernels.isa(), Isa::Avx512Vnni);
    avx512::multiply(panel, layout, rows, sums, ahead);
}
