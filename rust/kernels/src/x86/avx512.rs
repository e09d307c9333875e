//! Products with 512-bit VNNI dot products: of sixteen weight rows at a time, which are a tile.

#![allow(clippy::indexing_slicing, reason = "arrays of sums, indexed by constants")]

use std::ops::Range;

use super::avx512_fill::{Portable, Q4K, Q5K, Q6K, Q40, Q80, Source};
use super::avx512_panel::{Mins, PAIRS};
use super::avx512_run::Run;
use super::{avx512_few, avx512_many};
use crate::TensorType;
use crate::activations::{Activations, SUMS};
use crate::matmul::{Prepared, Weight, prefetch};
use crate::panel::{PANEL_ROWS, Tile};
use crate::products::Products;
use crate::tensor_type::SUPER_BLOCK;
use crate::unpack::Layout;

/// Calls `$function::<S>($arguments)` with the [`Source`] of a type.
macro_rules! with_source {
    ($tensor_type:expr, $layout:expr, $function:ident($($argument:expr),*)) => {
        match ($tensor_type, $layout.sub_len, $layout.has_min) {
            (TensorType::Q4_K, ..) => $function::<Q4K>($($argument),*),
            (TensorType::Q5_K, ..) => $function::<Q5K>($($argument),*),
            (TensorType::Q6_K, ..) => $function::<Q6K>($($argument),*),
            (TensorType::Q8_0, ..) => $function::<Q80>($($argument),*),
            (TensorType::Q4_0, ..) => $function::<Q40>($($argument),*),
            (_, 32, true) => $function::<Portable<8, true>>($($argument),*),
            (_, 32, false) => $function::<Portable<8, false>>($($argument),*),
            (_, _, true) => $function::<Portable<16, true>>($($argument),*),
            (_, _, false) => $function::<Portable<16, false>>($($argument),*),
        }
    };
}

/// What the products of a type need of activations beside their quants, `(block, row, n)`, and how many that are: see
/// [`Rows::corrections`](crate::panel::Rows).
pub(super) fn corrections(tensor_type: TensorType, layout: Layout, activations: &Activations) -> Option<Vec<i32>> {
    fn pairs<S: Source>(activations: &Activations) -> Option<Vec<i32>> {
        let of_block = |sums: &[i16; SUMS]| {
            // Sums of 32 quants: 16 bits hold them.
            let sum = |sub: usize| sums[2 * sub] + sums[2 * sub + 1];
            PAIRS.map(|[low, high]| i32::from(sum(low)) & 0xffff | i32::from(sum(high)) << 16)
        };
        (S::MINS == Mins::Pairs).then(|| activations.sums().as_chunks().0.iter().flat_map(of_block).collect())
    }
    with_source!(tensor_type, layout, pairs(activations))
}

/// Products of some weight rows with all rows of activations. The machine must have `Isa::Avx512Vnni`.
pub(super) fn multiply(
    weight: &Weight<'_>,
    layout: Layout,
    rows: &Range<usize>,
    x: &[(&Activations, &Prepared)],
    products: &mut Products,
) {
    with_source!(weight.tensor_type(), layout, multiply_type(weight, rows, x, products));
}

/// Tile by tile: a few rows of activations in registers, and more over panels.
fn multiply_type<S: Source>(
    weight: &Weight<'_>,
    rows: &Range<usize>,
    x: &[(&Activations, &Prepared)],
    products: &mut Products,
) {
    let runs: Vec<Run<'_>> = x.iter().flat_map(|(part, prepared)| Run::of_part::<S>(part, prepared)).collect();
    let tiles = Tiles::new(weight, rows);
    prefetch(tiles.at(rows.start).bytes);
    if let [run] = runs.as_slice()
        && let Some(multiply_tile) = avx512_few::tiles_of(weight.tensor_type(), run.rows)
    {
        avx512_few::multiply::<S>(&tiles, run, multiply_tile, products);
    } else {
        avx512_many::multiply::<S>(&tiles, &runs, products);
    }
}

/// The weight rows of a product, sixteen at a time.
pub(super) struct Tiles<'a> {
    weight: &'a Weight<'a>,
    rows: &'a Range<usize>,
    /// Blocks of a row, those that are not whole included.
    pub(super) blocks: usize,
    /// The last tile, if it has fewer rows, with zeros in the place of those that are not there: sixteen are read.
    padded: Vec<u8>,
}

impl<'a> Tiles<'a> {
    fn new(weight: &'a Weight<'a>, rows: &'a Range<usize>) -> Self {
        let whole = rows.len() / PANEL_ROWS * PANEL_ROWS;
        let rest = weight.tile(rows.start + whole..rows.end);
        let mut padded = rest.bytes.to_vec();
        if !padded.is_empty() {
            padded.resize(PANEL_ROWS * rest.row_bytes, 0);
        }
        Self { weight, rows, blocks: weight.len().div_ceil(SUPER_BLOCK), padded }
    }

    /// Where tiles begin.
    pub(super) fn firsts(&self) -> impl Iterator<Item = usize> {
        self.rows.clone().step_by(PANEL_ROWS)
    }

    /// The tile that begins with a row.
    pub(super) fn at(&self, first: usize) -> Tile<'_> {
        match first + PANEL_ROWS {
            end if end <= self.rows.end => self.weight.tile(first..end),
            _ => Tile { bytes: &self.padded, ..self.weight.tile(first..first) },
        }
    }

    /// The tile behind the one that begins with a row.
    pub(super) fn behind(&self, first: usize) -> Option<Tile<'_>> {
        let next = first + PANEL_ROWS;
        (next < self.rows.end).then(|| self.at(next))
    }

    /// The bytes behind those of the tile that begins with a row, up to as many: also those that other products are of.
    pub(super) fn ahead(&self, first: usize) -> &[u8] {
        let bound = |row: usize| row.min(self.weight.rows());
        self.weight.tile(bound(first + PANEL_ROWS)..bound(first + 2 * PANEL_ROWS)).bytes
    }
}
