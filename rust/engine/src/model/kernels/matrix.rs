//! Matrices as jobs compute them: in parts, which those who read them gather.

use std::ops::Range;

use candle_phi_kernels::{Activations, Parts, Products};

use crate::{Error, Result};

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
    /// Of all rows each.
    pub(super) parts: Parts<Products>,
    pub(super) rows: usize,
    pub(super) width: usize,
    /// Columns of a part; the last may have fewer.
    pub(super) part_width: usize,
}

impl Output {
    /// Calls `each(row, column, values)` for some of the values, as [`Products::each`] does.
    ///
    /// # Errors
    /// [`Inference`](crate::ErrorKind::Inference) if the output does not have these rows and columns.
    fn each(
        &self,
        rows: &Range<usize>,
        columns: &Range<usize>,
        mut each: impl FnMut(usize, usize, &[f32]),
    ) -> Result<()> {
        let (from, to) = (columns.start, columns.end);
        for part in from / self.part_width..to.div_ceil(self.part_width) {
            let first = part * self.part_width;
            let (start, end) = (from.max(first), to.min(first + self.part_width));
            let has_all = |part: &&Products| rows.end <= part.rows() && end - first <= part.columns();
            let part = self.parts.get(part).filter(has_all).ok_or_else(|| self.missing(rows, columns))?;
            part.each(rows, start - first..end - first, |row, column, values| {
                each(row, start - from + column, values);
            });
        }
        Ok(())
    }

    fn missing(&self, rows: &Range<usize>, columns: &Range<usize>) -> Error {
        let (all_rows, all_columns) = (self.rows, self.width);
        Error::internal(format_args!(
            "rows {rows:?} and columns {columns:?} of an output of {all_rows} rows and {all_columns} columns"
        ))
    }

    /// Writes some of the values into `out`: `(rows.len(), columns.len())`
    ///
    /// # Errors
    /// [`Inference`](crate::ErrorKind::Inference) if the output does not have them, or `out` is too short.
    pub(super) fn copy(&self, rows: &Range<usize>, columns: &Range<usize>, out: &mut [f32]) -> Result<()> {
        let mut is_whole = true;
        self.each(rows, columns, |row, column, values| {
            let place = row * columns.len() + column;
            let Some(out) = out.get_mut(place..place + values.len()) else {
                is_whole = false;
                return;
            };
            // With a known length, no function need be called for it.
            match (out.as_mut_array::<{ Products::TOGETHER }>(), values.as_array()) {
                (Some(out), Some(values)) => *out = *values,
                _ => out.copy_from_slice(values),
            }
        })?;
        if is_whole { Ok(()) } else { Err(self.missing(rows, columns)) }
    }

    /// Adds whole rows to `out`: `(rows.len(), width)`
    ///
    /// # Errors
    /// As for [`copy`](Self::copy).
    pub(super) fn add_to(&self, rows: &Range<usize>, out: &mut [f32]) -> Result<()> {
        let (columns, mut is_whole) = (0..self.width, true);
        self.each(rows, &columns, |row, column, values| {
            let place = row * self.width + column;
            match out.get_mut(place..place + values.len()) {
                Some(out) => out.iter_mut().zip(values).for_each(|(out, value)| *out += value),
                None => is_whole = false,
            }
        })?;
        if is_whole { Ok(()) } else { Err(self.missing(rows, &columns)) }
    }
}
