//! Products of weight rows, read in place from a file's bytes, with rows of activations.

#![allow(
    clippy::indexing_slicing,
    reason = "ranges of buffers whose lengths `Weight` and `Prepared` have checked"
)]

use std::ops::Range;

use crate::activations::{Activations, SUMS};
use crate::dequantize::LengthError;
use crate::panel::{self, PANEL_ROWS, Panel, Rows, Tile};
use crate::products::{BufferPool, Products};
use crate::tensor_type::SUPER_BLOCK;
use crate::unpack::{Layout, Unpacked, unpack};
use crate::{Kernels, TensorType, float};

/// Bytes that come into a cache together.
const CACHE_LINE: usize = 64;
/// Up to this many rows of activations are multiplied row by row: unpacking a panel for them costs more.
const ROW_BY_ROW: usize = 2;

/// A weight `(rows, len)` as a file holds it.
#[derive(Clone, Copy, Debug)]
pub struct Weight<'a> {
    tensor_type: TensorType,
    bytes: &'a [u8],
    row_bytes: usize,
    rows: usize,
    len: usize,
}

impl<'a> Weight<'a> {
    /// The weight in `bytes`.
    ///
    /// # Errors
    /// [`LengthError`] if `bytes` is not exactly `rows` rows of `len` values.
    pub fn new(tensor_type: TensorType, bytes: &'a [u8], rows: usize, len: usize) -> Result<Self, LengthError> {
        let row_bytes = tensor_type.row_bytes(len);
        match row_bytes {
            Some(row_bytes) if row_bytes > 0 && row_bytes.checked_mul(rows) == Some(bytes.len()) => {
                Ok(Self { tensor_type, bytes, row_bytes, rows, len })
            }
            _ => Err(LengthError { tensor_type, len: rows.saturating_mul(len), bytes: bytes.len() }),
        }
    }

    /// The type.
    #[must_use]
    pub fn tensor_type(&self) -> TensorType {
        self.tensor_type
    }

    /// Weight rows: the length of a product.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values of a row.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether rows have no values; they always have some.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Some of the rows.
    pub(crate) fn tile(&self, rows: Range<usize>) -> Tile<'a> {
        Tile { tensor_type: self.tensor_type, bytes: self.row_range(&rows), row_bytes: self.row_bytes }
    }

    /// Bytes of some of the rows.
    fn row_range(&self, rows: &Range<usize>) -> &'a [u8] {
        &self.bytes[rows.start * self.row_bytes..rows.end * self.row_bytes]
    }
}

/// Activations with what a weight type needs of them beside, made once for all weight rows.
#[derive(Clone, Debug)]
pub struct Prepared {
    tensor_type: TensorType,
    /// `(block, row, per_row)`: for types with minimums the sums of each sub-block, as the bits of an f32; for the others
    /// the sum times the negative offset, with which a dot product begins. A level may have a form of its own.
    corrections: Vec<i32>,
    per_row: usize,
    #[cfg(target_arch = "x86_64")]
    rows: crate::x86::PreparedRows,
    #[cfg(target_arch = "aarch64")]
    rows: crate::aarch64::PreparedRows,
}

impl Prepared {
    /// What weights of this type need beside `activations`.
    #[must_use]
    pub fn new(kernels: Kernels, tensor_type: TensorType, activations: &Activations) -> Self {
        let Some(layout) = kernels.panel_layout(tensor_type) else {
            return Self {
                tensor_type,
                corrections: Vec::new(),
                per_row: 0,
                #[cfg(target_arch = "x86_64")]
                rows: crate::x86::PreparedRows::default(),
                #[cfg(target_arch = "aarch64")]
                rows: crate::aarch64::PreparedRows::default(),
            };
        };
        #[cfg(target_arch = "x86_64")]
        let own = crate::x86::corrections(kernels, tensor_type, layout, activations);
        #[cfg(not(target_arch = "x86_64"))]
        let own = None;
        let corrections = own.unwrap_or_else(|| corrections(layout, activations));
        let per_row = corrections.len() / (activations.blocks() * activations.rows()).max(1);
        Self {
            tensor_type,
            #[cfg(target_arch = "aarch64")]
            rows: crate::aarch64::PreparedRows::new(kernels, activations, &corrections, per_row),
            corrections,
            per_row,
            #[cfg(target_arch = "x86_64")]
            rows: if activations.rows() <= ROW_BY_ROW {
                crate::x86::PreparedRows::new(kernels, tensor_type, activations)
            } else {
                crate::x86::PreparedRows::default()
            },
        }
    }

    /// Of all blocks: `(block, row, per_row)`
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn all_corrections(&self) -> &[i32] {
        &self.corrections
    }

    /// Of a block from row `first` on.
    pub(crate) fn corrections(&self, activations: &Activations, block: usize, first: usize) -> &[i32] {
        let rows = activations.rows();
        &self.corrections[(block * rows + first) * self.per_row..(block + 1) * rows * self.per_row]
    }
}

/// Corrections of each sub-block.
fn corrections(layout: Layout, activations: &Activations) -> Vec<i32> {
    let per_sub = layout.sub_len * SUMS / SUPER_BLOCK;
    let correction = |sums: &[i16]| {
        let sum: i32 = sums.iter().copied().map(i32::from).sum();
        if layout.has_min { (sum as f32).to_bits().cast_signed() } else { -layout.offset * sum }
    };
    activations.sums().chunks_exact(per_sub).map(correction).collect()
}

impl Kernels {
    /// `products[m, r - rows.start] = weight[r] · x[m]` for the weight rows `rows`, over all rows of all parts of `x`.
    ///
    /// The result for a weight row does not depend on which others it is computed with. It does depend on how many rows
    /// of activations there are: one or two are multiplied in another order than more.
    ///
    /// # Panics
    /// If `rows` are not rows of the weight, or the parts are not prepared for its type or not as long as its rows.
    #[must_use]
    pub fn multiply(
        self,
        weight: &Weight<'_>,
        rows: Range<usize>,
        x: &[(&Activations, &Prepared)],
        pool: &BufferPool,
    ) -> Products {
        let x_rows: usize = x.iter().map(|(part, _)| part.rows()).sum();
        let form = crate::ActivationForms::read_by(weight.tensor_type);
        assert!(rows.start <= rows.end && rows.end <= weight.rows, "weight rows {rows:?} of {}", weight.rows);
        for (part, prepared) in x {
            assert_eq!((part.row_len(), prepared.tensor_type), (weight.len, weight.tensor_type));
            assert!(!form.quantized || part.forms().quantized, "the activations are not quantized");
            assert!(!form.float || part.forms().float, "the activations are only there quantized");
        }
        let mut products = Products::new(pool, x_rows, rows.len());
        if rows.is_empty() || x_rows == 0 {
            return products;
        }
        match self.panel_layout(weight.tensor_type) {
            None => self.multiply_floats(weight, &rows, x, &mut products),
            Some(_) if x_rows <= ROW_BY_ROW => self.multiply_row_by_row(weight, &rows, x, &mut products),
            Some(layout) => self.multiply_panels(weight, layout, &rows, x, &mut products),
        }
        products
    }

    fn multiply_row_by_row(
        self,
        weight: &Weight<'_>,
        rows: &Range<usize>,
        x: &[(&Activations, &Prepared)],
        products: &mut Products,
    ) {
        let bytes = weight.row_range(rows);
        if let [(part, prepared)] = x
            && part.rows() == 1
        {
            // The columns of a single row stand one behind the other.
            return self.dot_rows(weight, bytes, part, prepared, &mut products.values_mut()[..rows.len()]);
        }
        let mut before = 0;
        for (part, prepared) in x {
            let mut out = vec![0.0; part.rows() * rows.len()];
            self.dot_rows(weight, bytes, part, prepared, &mut out);
            for (row, out) in out.chunks_exact(rows.len()).enumerate() {
                for (column, out) in out.iter().enumerate() {
                    products.set(before + row, column, *out);
                }
            }
            before += part.rows();
        }
    }

    /// Products of the weight rows in `bytes` with the rows of a part: `(part rows, weight rows)`
    fn dot_rows(
        self,
        weight: &Weight<'_>,
        bytes: &[u8],
        part: &Activations,
        prepared: &Prepared,
        out: &mut [f32],
    ) {
        let Weight { tensor_type, row_bytes, .. } = *weight;
        #[cfg(target_arch = "x86_64")]
        if crate::x86::dot_rows(self, tensor_type, bytes, row_bytes, part, &prepared.rows, out) {
            return;
        }
        for (row, out) in out.chunks_exact_mut(bytes.len() / row_bytes).enumerate() {
            #[cfg(target_arch = "aarch64")]
            if crate::aarch64::dot_rows(self, tensor_type, bytes, row_bytes, part, row, out) {
                continue;
            }
            for (bytes, out) in bytes.chunks_exact(row_bytes).zip(out) {
                *out = dot_row(tensor_type, bytes, part, prepared, row);
            }
        }
    }

    fn multiply_panels(
        self,
        weight: &Weight<'_>,
        layout: Layout,
        rows: &Range<usize>,
        x: &[(&Activations, &Prepared)],
        products: &mut Products,
    ) {
        #[cfg(target_arch = "x86_64")]
        if crate::x86::multiply(self, weight, layout, rows, x, products) {
            return;
        }
        let subs = SUPER_BLOCK / layout.sub_len;
        let mut panel = Panel::ZERO;
        prefetch(weight.row_range(&(rows.start..rows.end.min(rows.start + PANEL_ROWS))));
        for (first, sums) in rows.clone().step_by(PANEL_ROWS).zip(products.by_columns()) {
            let tile = weight.tile(first..rows.end.min(first + PANEL_ROWS));
            sums.fill([0.0; PANEL_ROWS]);
            let blocks = weight.len.div_ceil(SUPER_BLOCK);
            // The next tile comes into the cache while this one is multiplied.
            let next = weight.bytes.get((first + PANEL_ROWS) * weight.row_bytes..).unwrap_or_default();
            let next = &next[..next.len().min(tile.bytes.len())];
            let share = next.len().div_ceil(blocks).max(1);
            let mut next = next.chunks(share);
            for block in 0..blocks {
                let mut ahead = next.next().unwrap_or_default();
                self.fill(tile, block, &mut panel);
                let mut sums = &mut *sums;
                for (part, prepared) in x {
                    let (of_part, rest) = sums.split_at_mut(part.rows());
                    sums = rest;
                    let rows = Rows {
                        q: part.block_q(block, 0),
                        scales: part.block_scales(block, 0),
                        corrections: prepared.corrections(part, block, 0),
                    };
                    let ahead = std::mem::take(&mut ahead);
                    #[cfg(target_arch = "aarch64")]
                    if crate::aarch64::multiply_panel(self, &panel, layout, rows, block, &prepared.rows, of_part) {
                        prefetch(ahead);
                        continue;
                    }
                    prefetch(ahead);
                    self.multiply_panel(&panel, layout, subs, rows, of_part);
                }
            }
        }
    }

    pub(crate) fn fill(self, tile: Tile<'_>, block: usize, panel: &mut Panel) {
        #[cfg(target_arch = "x86_64")]
        if crate::x86::fill(self, tile, block, panel) {
            return;
        }
        #[cfg(target_arch = "aarch64")]
        if crate::aarch64::fill(self, tile, block, panel) {
            return;
        }
        panel::fill(tile, block, panel);
    }

    fn multiply_panel(
        self,
        panel: &Panel,
        layout: Layout,
        subs: usize,
        rows: Rows<'_>,
        sums: &mut [[f32; PANEL_ROWS]],
    ) {
        #[cfg(target_arch = "x86_64")]
        if crate::x86::multiply_panel(self, panel, layout, rows, sums) {
            return;
        }
        if layout.has_min {
            panel::multiply_with_min(self, panel, subs, rows, sums);
        } else {
            panel::multiply_with_offset(self, panel, subs, rows, sums);
        }
    }

    fn multiply_floats(
        self,
        weight: &Weight<'_>,
        rows: &Range<usize>,
        x: &[(&Activations, &Prepared)],
        products: &mut Products,
    ) {
        let mut values = vec![0.0; weight.len];
        for (column, bytes) in weight.row_range(rows).chunks_exact(weight.row_bytes).enumerate() {
            // The lengths were checked with the weight's.
            let _ = crate::dequantize_row(weight.tensor_type, bytes, &mut values);
            let x = x.iter().flat_map(|(part, _)| (0..part.rows()).map(|row| part.values(row)));
            for (row, x) in x.enumerate() {
                products.set(row, column, float::dot(self, &values, x));
            }
        }
    }
}

/// Asks for values to be brought into the second-level cache.
#[allow(unsafe_code, reason = "the hint is an intrinsic; see SAFETY")]
pub(crate) fn prefetch<T>(values: &[T]) {
    let lines = size_of_val(values).div_ceil(CACHE_LINE);
    for line in 0..lines {
        let place = values.as_ptr().cast::<u8>().wrapping_add(line * CACHE_LINE);
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
            // SAFETY: a hint has no effect that a program could tell, and SSE is in the baseline.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(place.cast()) };
        }
        #[cfg(target_arch = "aarch64")]
        crate::aarch64::prefetch(place);
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let _ = place;
    }
}

/// A row of any quantized type with a row of activations.
fn dot_row(tensor_type: TensorType, bytes: &[u8], x: &Activations, prepared: &Prepared, row: usize) -> f32 {
    let Some(layout) = tensor_type.layout() else { return 0.0 };
    let mut unpacked = Unpacked::ZERO;
    let mut total = 0.0;
    for block in 0..x.blocks() {
        unpack(tensor_type, bytes, block, &mut unpacked);
        let q = &x.block_q(block, row)[..SUPER_BLOCK];
        let corrections = prepared.corrections(x, block, row);
        let mut sum = 0.0;
        for (sub, (w, a)) in
            unpacked.q.chunks_exact(layout.sub_len).zip(q.chunks_exact(layout.sub_len)).enumerate()
        {
            let dot: i32 = w.iter().zip(a).map(|(w, a)| layout.quant(*w) * i32::from(*a)).sum();
            sum += unpacked.scale[sub] * dot as f32;
            if layout.has_min {
                sum -= unpacked.min[sub] * f32::from_bits(corrections[sub].cast_unsigned());
            }
        }
        total += x.block_scales(block, row)[0] * sum;
    }
    total
}
