//! Rows of activations, quantized to eight bits for products with quantized weights.

#![allow(clippy::indexing_slicing, reason = "ranges of buffers that this module sized")]

use crate::multiversion::multiversion;
use crate::tensor_type::SUPER_BLOCK;
use crate::{Kernels, TensorType};

/// Values that a sum is kept of.
const SUM_LEN: usize = 16;
/// Sums of a super-block.
pub(crate) const SUMS: usize = SUPER_BLOCK / SUM_LEN;

/// Which forms of the activations the weights that read them need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ActivationForms {
    /// Eight bits, for quantized weights.
    pub quantized: bool,
    /// As they are, for F32, F16 and BF16 weights.
    pub float: bool,
}

impl ActivationForms {
    /// What a weight of this type reads.
    #[must_use]
    pub const fn read_by(tensor_type: TensorType) -> Self {
        let float = matches!(tensor_type, TensorType::F32 | TensorType::F16 | TensorType::BF16);
        Self { quantized: !float, float }
    }

    /// Both forms that either needs.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self { quantized: self.quantized || other.quantized, float: self.float || other.float }
    }
}

/// Rows of activations.
///
/// In blocks of 256 values, a scale and 16 sums each, as ggml's Q8_K; a last block that is shorter is filled with zeros.
/// All rows of a block stand together, as the kernels walk them.
#[derive(Clone, Debug)]
pub struct Activations {
    rows: usize,
    len: usize,
    forms: ActivationForms,
    q: Vec<i8>,       // (block, row, 256)
    scales: Vec<f32>, // (block, row)
    sums: Vec<i16>,   // (block, row, 16)
    values: Vec<f32>, // (row, len)
}

impl Activations {
    /// Values of a block.
    pub const BLOCK: usize = SUPER_BLOCK;

    /// `rows` rows of `len` zeros.
    #[must_use]
    pub fn new(rows: usize, len: usize, forms: ActivationForms) -> Self {
        let blocks = if forms.quantized { len.div_ceil(SUPER_BLOCK) } else { 0 };
        Self {
            rows,
            len,
            forms,
            q: vec![0; blocks * rows * SUPER_BLOCK],
            scales: vec![0.0; blocks * rows],
            sums: vec![0; blocks * rows * SUMS],
            values: vec![0.0; if forms.float { rows * len } else { 0 }],
        }
    }

    /// Rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values of a row.
    #[must_use]
    pub fn row_len(&self) -> usize {
        self.len
    }

    /// What the rows are there as.
    #[must_use]
    pub fn forms(&self) -> ActivationForms {
        self.forms
    }

    /// Sets a row. What is not finite makes the products of its block not a number, so that it is not lost.
    ///
    /// # Panics
    /// If there is no row `row`, or `values` is not as long as a row.
    pub fn set_row(&mut self, kernels: Kernels, row: usize, values: &[f32]) {
        assert_eq!(values.len(), self.len, "values of a row");
        for (block, values) in values.chunks(SUPER_BLOCK).enumerate() {
            self.set_block(kernels, row, block, values);
        }
    }

    /// Sets 256 values of a row, those from `256 · block` on, or as many as are left there; see [`set_row`](Self::set_row).
    ///
    /// # Panics
    /// If there is no row `row` or no block `block`, or `values` is not as long as it.
    pub fn set_block(&mut self, kernels: Kernels, row: usize, block: usize, values: &[f32]) {
        let first = block * SUPER_BLOCK;
        assert!(row < self.rows && first < self.len, "row {row} of {}, block {block} of {}", self.rows, self.len);
        assert_eq!(values.len(), SUPER_BLOCK.min(self.len - first), "values of a block");
        if self.forms.float {
            self.values[row * self.len + first..][..values.len()].copy_from_slice(values);
        }
        if !self.forms.quantized {
            return;
        }
        let at = block * self.rows + row;
        let q = self.q[at * SUPER_BLOCK..].first_chunk_mut();
        let sums = self.sums[at * SUMS..].first_chunk_mut();
        let (Some(q), Some(sums)) = (q, sums) else { return };
        self.scales[at] = if let Some(values) = values.first_chunk() {
            quantize(kernels, values, q, sums)
        } else {
            let mut padded = [0.0; SUPER_BLOCK];
            padded[..values.len()].copy_from_slice(values);
            quantize(kernels, &padded, q, sums)
        };
    }

    /// Blocks of 256 in a row.
    pub(crate) fn blocks(&self) -> usize {
        self.len.div_ceil(SUPER_BLOCK)
    }

    /// Quants of a block from row `first` on: `(rows - first, 256)`
    pub(crate) fn block_q(&self, block: usize, first: usize) -> &[i8] {
        &self.q[(block * self.rows + first) * SUPER_BLOCK..(block + 1) * self.rows * SUPER_BLOCK]
    }

    /// Scales of a block from row `first` on: `(rows - first)`
    pub(crate) fn block_scales(&self, block: usize, first: usize) -> &[f32] {
        &self.scales[block * self.rows + first..(block + 1) * self.rows]
    }

    /// Sums of sixteen of a block from row `first` on: `(rows - first, 16)`
    pub(crate) fn block_sums(&self, block: usize, first: usize) -> &[i16] {
        &self.sums[(block * self.rows + first) * SUMS..(block + 1) * self.rows * SUMS]
    }

    /// Quants of all blocks: `(block, row, 256)`
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn all_q(&self) -> &[i8] {
        &self.q
    }

    /// Scales of all blocks: `(block, row)`
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn all_scales(&self) -> &[f32] {
        &self.scales
    }

    /// The sums of all blocks: `(block, row, 16)`
    pub(crate) fn sums(&self) -> &[i16] {
        &self.sums
    }

    /// A row as it was set.
    pub(crate) fn values(&self, row: usize) -> &[f32] {
        &self.values[row * self.len..][..self.len]
    }
}

/// Quantizes a block and returns its scale.
fn quantize(
    kernels: Kernels,
    values: &[f32; SUPER_BLOCK],
    q: &mut [i8; SUPER_BLOCK],
    sums: &mut [i16; SUMS],
) -> f32 {
    #[cfg(target_arch = "x86_64")]
    if let Some(scale) = crate::x86::quantize(kernels, values, q, sums) {
        return scale;
    }
    quantize_level(kernels, values, q, sums)
}

multiversion! {
    fn quantize_level(
        values: &[f32; SUPER_BLOCK],
        q: &mut [i8; SUPER_BLOCK],
        sums: &mut [i16; SUMS],
    ) -> f32 = quantize_any;
}

#[inline(always)]
fn quantize_any<const FMA: bool>(
    values: &[f32; SUPER_BLOCK],
    q: &mut [i8; SUPER_BLOCK],
    sums: &mut [i16; SUMS],
) -> f32 {
    // Of what is finite, the bits without the sign are in the order of the magnitudes, and the rest is above them.
    let mut largest = [0u32; SUM_LEN];
    for values in values.as_chunks::<SUM_LEN>().0 {
        for lane in 0..SUM_LEN {
            largest[lane] = largest[lane].max(values[lane].to_bits() & !(1 << 31));
        }
    }
    let largest = f32::from_bits(largest.iter().fold(0, |a, b| *b.max(&a)));
    let scale = largest / 127.0;
    let inverse = if scale > 0.0 { 127.0 / largest } else { 0.0 };
    // Adding it rounds to the nearest integer, ties to even, and leaves the integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    // A loop for each, over all of the block: so they become vectors.
    let mut rounded = [0i32; SUPER_BLOCK];
    for (rounded, value) in rounded.iter_mut().zip(values) {
        *rounded = (value * inverse + ROUND).to_bits().wrapping_sub(ROUND.to_bits()).cast_signed();
    }
    for (q, rounded) in q.iter_mut().zip(&rounded) {
        *q = *rounded as i8;
    }
    for (sum, rounded) in sums.iter_mut().zip(rounded.as_chunks::<SUM_LEN>().0) {
        *sum = rounded.iter().sum::<i32>() as i16;
    }
    if largest.is_finite() { scale } else { f32::NAN }
}
