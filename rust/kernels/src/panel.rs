//! Sixteen weight rows side by side, in the order in which dot products read them.

#![allow(
    clippy::indexing_slicing,
    reason = "a panel is made of arrays, and every index is a function of constants"
)]

use crate::TensorType;
use crate::multiversion::multiversion;
use crate::tensor_type::SUPER_BLOCK;
use crate::unpack::{MAX_SUBS, Unpacked, unpack};

/// Weight rows of a panel: as many as a 512-bit vector has 32-bit lanes.
pub(crate) const PANEL_ROWS: usize = 16;
/// Quants of a row that stand together: what one lane of a dot product instruction takes.
pub(crate) const GROUP: usize = 4;
/// Groups of a row in a panel.
pub(crate) const GROUPS: usize = SUPER_BLOCK / GROUP;

/// 256 columns of sixteen weight rows: small enough to stay in the first-level cache while all rows of activations go
/// over it. Values are `scale · (q - offset) - min`, see [`Unpacked`].
#[repr(C, align(64))]
pub(crate) struct Panel {
    pub(crate) q: [[[u8; GROUP]; PANEL_ROWS]; GROUPS],
    pub(crate) scale: [[f32; PANEL_ROWS]; MAX_SUBS],
    pub(crate) min: [[f32; PANEL_ROWS]; MAX_SUBS],
}

impl Panel {
    pub(crate) const ZERO: Self = Self {
        q: [[[0; GROUP]; PANEL_ROWS]; GROUPS],
        scale: [[0.0; PANEL_ROWS]; MAX_SUBS],
        min: [[0.0; PANEL_ROWS]; MAX_SUBS],
    };
}

/// What sixteen weight rows, or the last ones that are fewer, are filled from.
#[derive(Clone, Copy)]
pub(crate) struct Tile<'a> {
    pub(crate) tensor_type: TensorType,
    /// The rows, one behind the other.
    pub(crate) bytes: &'a [u8],
    /// Bytes of a row.
    pub(crate) row_bytes: usize,
}

/// Fills a panel with the columns from `256 · block` on; of rows that are not there it keeps what it had, and their
/// products are never read.
pub(crate) fn fill(tile: Tile<'_>, block: usize, panel: &mut Panel) {
    let mut unpacked = Unpacked::ZERO;
    for (row, bytes) in tile.bytes.chunks_exact(tile.row_bytes).take(PANEL_ROWS).enumerate() {
        unpack(tile.tensor_type, bytes, block, &mut unpacked);
        for (group, q) in unpacked.q.as_chunks().0.iter().enumerate() {
            panel.q[group][row] = *q;
        }
        for sub in 0..MAX_SUBS {
            panel.scale[sub][row] = unpacked.scale[sub];
            panel.min[sub][row] = unpacked.min[sub];
        }
    }
}

/// The rows of activations of a block that go over a panel.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) q: &'a [i8],            // (rows, 256)
    pub(crate) scales: &'a [f32],      // (rows)
    pub(crate) corrections: &'a [i32], // (rows, subs); see `Prepared`
}

multiversion! {
    /// Adds the products of all rows with a panel to `sums`, for types with minimums.
    pub(crate) fn multiply_with_min(panel: &Panel, subs: usize, rows: Rows<'_>, sums: &mut [[f32; PANEL_ROWS]]) =
        multiply_with_min_any;
    /// Adds the products of all rows with a panel to `sums`, for types without minimums.
    pub(crate) fn multiply_with_offset(panel: &Panel, subs: usize, rows: Rows<'_>, sums: &mut [[f32; PANEL_ROWS]]) =
        multiply_with_offset_any;
}

#[inline(always)]
fn multiply_with_min_any<const FMA: bool>(
    panel: &Panel,
    subs: usize,
    rows: Rows<'_>,
    sums: &mut [[f32; PANEL_ROWS]],
) {
    multiply_any::<FMA, true>(panel, subs, rows, sums);
}

#[inline(always)]
fn multiply_with_offset_any<const FMA: bool>(
    panel: &Panel,
    subs: usize,
    rows: Rows<'_>,
    sums: &mut [[f32; PANEL_ROWS]],
) {
    multiply_any::<FMA, false>(panel, subs, rows, sums);
}

#[inline(always)]
fn multiply_any<const FMA: bool, const MIN: bool>(
    panel: &Panel,
    subs: usize,
    rows: Rows<'_>,
    sums: &mut [[f32; PANEL_ROWS]],
) {
    let groups = GROUPS / subs;
    for (row, sums) in sums.iter_mut().enumerate() {
        let q = rows.q[row * SUPER_BLOCK..][..SUPER_BLOCK].as_chunks::<GROUP>().0;
        let mut total = [0f32; PANEL_ROWS];
        for sub in 0..subs {
            let correction = rows.corrections[row * subs + sub];
            let mut dots = [if MIN { 0 } else { correction }; PANEL_ROWS];
            for group in sub * groups..(sub + 1) * groups {
                for lane in 0..PANEL_ROWS {
                    for i in 0..GROUP {
                        dots[lane] += i32::from(panel.q[group][lane][i]) * i32::from(q[group][i]);
                    }
                }
            }
            for lane in 0..PANEL_ROWS {
                total[lane] = fused::<FMA>(dots[lane] as f32, panel.scale[sub][lane], total[lane]);
                if MIN {
                    let sum = f32::from_bits(correction.cast_unsigned());
                    total[lane] = fused::<FMA>(-panel.min[sub][lane], sum, total[lane]);
                }
            }
        }
        for lane in 0..PANEL_ROWS {
            sums[lane] = fused::<FMA>(total[lane], rows.scales[row], sums[lane]);
        }
    }
}

/// `a · b + c`, with one rounding where the level has an instruction for it.
#[inline(always)]
pub(crate) fn fused<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}
