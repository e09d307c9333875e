//! Matrices as jobs compute them: in parts, which those who read them gather.

use std::ops::Range;

use candle_phi_kernels::{Activations, Parts};

/// Rows of a part of a row matrix: what a job of row work is cut into.
pub(super) const PART_ROWS: usize = 16;

/// The rows of part `part` of `rows` rows.
pub(super) fn part_rows(part: usize, rows: usize) -> Range<usize> {
    part * PART_ROWS..rows.min((part + 1) * PART_ROWS)
}

/// The residual stream: runs of whole rows.
#[derive(Clone)]
pub(crate) struct Hidden {
    /// `(rows of the part, width)` each
    pub(super) parts: Parts<Vec<f32>>,
    pub(super) rows: usize,
    pub(super) width: usize,
}

/// What linear layers read: runs of whole rows.
#[derive(Clone)]
pub(crate) struct Input {
    pub(super) parts: Parts<Activations>,
    pub(super) rows: usize,
}

/// What linear layers give: runs of columns.
#[derive(Clone)]
pub(crate) struct Output {
    /// `(rows, columns of the part)` each
    pub(super) parts: Parts<Vec<f32>>,
    pub(super) rows: usize,
    pub(super) width: usize,
    /// Columns of a part; the last may have fewer.
    pub(super) part_width: usize,
}

impl Output {
    /// Calls `take(columns, values)` for the runs of a row's values that stand together. None come of parts that a
    /// cancelled job left out.
    pub(super) fn row(&self, row: usize, mut take: impl FnMut(Range<usize>, &[f32])) {
        for (part, values) in self.parts.iter().enumerate() {
            let columns = part * self.part_width..self.width.min((part + 1) * self.part_width);
            if let Some(values) = values.get(row * columns.len()..(row + 1) * columns.len()) {
                take(columns, values);
            }
        }
    }

    /// Writes a row's values into `out`, which is as long as a row.
    pub(super) fn copy_row(&self, row: usize, out: &mut [f32]) {
        self.row(row, |columns, values| {
            if let Some(out) = out.get_mut(columns) {
                out.copy_from_slice(values);
            }
        });
    }
}
