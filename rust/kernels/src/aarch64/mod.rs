//! Kernels for AArch64.
//!
//! They multiply signed bytes with signed ones: quants of a panel are read as signed, which is the same below 128, and
//! those that are eight bits wide stay without an offset, see [`Kernels::panel_layout`].

#![allow(clippy::wildcard_imports, reason = "instructions have names of their own")]
#![allow(clippy::needless_range_loop, reason = "an index over several arrays of registers")]

mod dot;
mod fill;
mod instructions;
mod multiply_dotprod;
mod multiply_i8mm;
mod multiply_neon;

pub(crate) use dot::dot_rows;
pub(crate) use instructions::prefetch;

use crate::activations::Activations;
use crate::panel::{PANEL_ROWS, Panel, Rows, Tile};
use crate::unpack::Layout;
use crate::{Isa, Kernels};
use multiply_i8mm::{PairedRows, Pairs};

/// Rows of activations as the products with panels read them, beside their quants.
#[derive(Clone, Debug, Default)]
pub(crate) struct PreparedRows {
    /// Only for the level that has matrix products.
    pairs: Option<PairedRows>,
}

impl PreparedRows {
    /// The rows of `x`, with their corrections `(block, row, subs)`.
    pub(crate) fn new(kernels: Kernels, x: &Activations, corrections: &[i32], subs: usize) -> Self {
        Self { pairs: (kernels.isa() == Isa::NeonI8mm).then(|| PairedRows::new(x, corrections, subs)) }
    }

    fn pairs(&self, block: usize) -> Option<Pairs<'_>> {
        self.pairs.as_ref().map(|pairs| pairs.block(block))
    }
}

/// Fills a panel, or returns false if there is no kernel for it.
pub(crate) fn fill(kernels: Kernels, tile: Tile<'_>, block: usize, panel: &mut Panel) -> bool {
    let has_kernel = kernels.isa() != Isa::Scalar;
    if has_kernel {
        fill::fill(kernels, tile, block, panel);
    }
    has_kernel
}

/// Adds the products of all rows with a panel to `sums`, or returns false if there is no kernel for them.
pub(crate) fn multiply_panel(
    kernels: Kernels,
    panel: &Panel,
    layout: Layout,
    rows: Rows<'_>,
    block: usize,
    prepared: &PreparedRows,
    sums: &mut [[f32; PANEL_ROWS]],
) -> bool {
    match (kernels.isa(), prepared.pairs(block)) {
        (Isa::NeonI8mm, Some(pairs)) => multiply_i8mm::multiply(panel, layout, pairs, rows.scales, sums),
        (Isa::NeonDotprod, _) => multiply_dotprod::multiply(panel, layout, rows, sums),
        (Isa::Neon, _) => multiply_neon::multiply(panel, layout, rows, sums),
        _ => return false,
    }
    true
}
