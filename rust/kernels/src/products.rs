//! What products come to, and the pool of their buffers.

#![allow(unsafe_code, reason = "rows of sixteen as arrays; every block says why it is sound")]
#![allow(clippy::indexing_slicing, reason = "rows and columns of the products")]

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::matmul::prefetch;
use crate::panel::PANEL_ROWS;

/// Products of weight rows, which are its columns, with rows of activations.
///
/// They stand as kernels compute them, sixteen columns of all rows together: `(columns / 16, rows, 16)`, filled up where the
/// columns are no multiple of 16.
#[derive(Debug)]
pub struct Products {
    rows: usize,
    columns: usize,
    /// At least as many as there are.
    values: Vec<Sixteen>,
    pool: BufferPool,
}

/// Sixteen columns of a row, in a cache line of their own: what is stored across two takes twice as long.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Sixteen([f32; PANEL_ROWS]);

/// Buffers of products that were dropped, for the next ones: memory that comes from the system, page by page, takes longer
/// to find than to fill. Clones share the pool, which is freed with the last of them and of the products in it.
#[derive(Clone, Debug, Default)]
pub struct BufferPool(Arc<Mutex<Vec<Vec<Sixteen>>>>);

impl BufferPool {
    fn free(&self) -> MutexGuard<'_, Vec<Vec<Sixteen>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A buffer of at least `len` times sixteen columns, with any values.
    fn take(&self, len: usize) -> Vec<Sixteen> {
        let mut free = self.free();
        let fits = free.iter().enumerate().filter(|(_, values)| values.len() >= len);
        let smallest = fits.min_by_key(|(_, values)| values.len()).map(|(index, _)| index);
        let found = smallest.map(|index| free.swap_remove(index));
        drop(free);
        found.unwrap_or_else(|| vec![Sixteen([0.0; PANEL_ROWS]); len])
    }
}

impl Drop for Products {
    fn drop(&mut self) {
        let values = std::mem::take(&mut self.values);
        self.pool.free().push(values);
    }
}

impl Products {
    /// Columns that stand together.
    pub const TOGETHER: usize = PANEL_ROWS;

    /// No rows.
    #[must_use]
    pub fn none(pool: &BufferPool) -> Self {
        Self::new(pool, 0, 0)
    }

    /// With any values.
    pub(crate) fn new(pool: &BufferPool, rows: usize, columns: usize) -> Self {
        let values = pool.take(rows * columns.div_ceil(PANEL_ROWS));
        Self { rows, columns, values, pool: pool.clone() }
    }

    /// How many times sixteen columns there are.
    fn len(&self) -> usize {
        self.rows * self.columns.div_ceil(PANEL_ROWS)
    }

    /// Sixteen columns of all rows, and then the next: `(rows, 16)` each
    pub(crate) fn by_columns(&mut self) -> impl Iterator<Item = &mut [[f32; PANEL_ROWS]]> {
        let rows = self.rows.max(1);
        self.arrays_mut().chunks_exact_mut(rows)
    }

    /// `(columns / 16, rows, 16)`
    fn arrays(&self) -> &[[f32; PANEL_ROWS]] {
        // SAFETY: `Sixteen` is laid out as the array that it holds, whose size is a multiple of its alignment.
        unsafe { std::slice::from_raw_parts(self.values[..self.len()].as_ptr().cast(), self.len()) }
    }

    fn arrays_mut(&mut self) -> &mut [[f32; PANEL_ROWS]] {
        let len = self.len();
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.values[..len].as_mut_ptr().cast(), len) }
    }

    /// Rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of a row.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// All values in the order in which they stand, what columns are filled up with among them.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        self.arrays().as_flattened()
    }

    /// See [`values`](Self::values).
    pub fn values_mut(&mut self) -> &mut [f32] {
        self.arrays_mut().as_flattened_mut()
    }

    /// Sets a value.
    pub(crate) fn set(&mut self, row: usize, column: usize, value: f32) {
        let at = column / PANEL_ROWS * self.rows + row;
        self.arrays_mut()[at][column % PANEL_ROWS] = value;
    }

    /// Calls `each(row, column, values)` for all values of some rows and columns, up to sixteen of a row at a time, or all of
    /// them where there is but one row. Row and column are counted from the beginnings of the ranges. The rows come side by side, as
    /// they stand in memory: one after the other, each would be looked for in many places. None come of rows and columns that are
    /// not there.
    pub fn each(&self, rows: &Range<usize>, columns: Range<usize>, mut each: impl FnMut(usize, usize, &[f32])) {
        let columns = columns.start..columns.end.min(self.columns);
        if self.rows == 1 {
            if *rows == (0..1)
                && let Some(values) = self.values().get(columns)
            {
                each(0, 0, values);
            }
            return;
        }
        let of_rows = |index: usize| {
            let of_columns = self.arrays().get(index * self.rows..(index + 1) * self.rows);
            of_columns.and_then(|of_columns| of_columns.get(rows.clone())).unwrap_or_default()
        };
        let mut column = columns.start;
        while column < columns.end {
            let (index, from) = (column / PANEL_ROWS, column % PANEL_ROWS);
            let to = PANEL_ROWS.min(from + columns.end - column);
            // What is wanted next stands too far away for the hardware to see it coming.
            prefetch(of_rows(index + 1));
            for (row, values) in of_rows(index).iter().enumerate() {
                each(row, column - columns.start, &values[from..to]);
            }
            column += to - from;
        }
    }

    /// Adds a value of each column to those of all rows.
    pub fn add_to_columns(&mut self, values: &[f32]) {
        for (of_columns, values) in self.by_columns().zip(values.chunks(PANEL_ROWS)) {
            for row in of_columns {
                for (product, value) in row.iter_mut().zip(values) {
                    *product += value;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_take_the_least_memory_that_was_left_and_is_enough() {
        let pool = BufferPool::default();
        let place = |products: &Products| products.values().as_ptr();
        let (small, large) = (Products::new(&pool, 2, 16), Products::new(&pool, 40, 70));
        let (of_small, of_large) = (place(&small), place(&large));
        drop((small, large));
        let third = Products::new(&pool, 1, 17);
        assert_eq!((place(&third), third.values().len()), (of_small, 2 * 16));
        let fourth = Products::new(&pool, 2, 16);
        assert_eq!((place(&fourth), fourth.values().len()), (of_large, 2 * 16));
        assert_eq!(pool.free().len(), 0);
        drop((third, fourth));
        assert_eq!(pool.free().len(), 2);
    }

    #[test]
    fn what_is_asked_for_comes_once_and_in_its_place() {
        for (rows, columns) in [(1, 1), (1, 40), (3, 16), (5, 39), (16, 256)] {
            let mut products = Products::new(&BufferPool::default(), rows, columns);
            for row in 0..rows {
                for column in 0..columns {
                    products.set(row, column, (1000 * row + column) as f32);
                }
            }
            for wanted in [0..rows, rows - 1..rows] {
                for columns in [0..columns, columns / 3..columns, columns / 2..columns / 2] {
                    let mut found = vec![f32::NAN; wanted.len() * columns.len()];
                    products.each(&wanted, columns.clone(), |row, column, values| {
                        let found = &mut found[row * columns.len() + column..][..values.len()];
                        assert!(found.iter().all(|value| value.is_nan()));
                        found.copy_from_slice(values);
                    });
                    let expected =
                        wanted.clone().flat_map(|row| columns.clone().map(move |column| 1000 * row + column));
                    assert_eq!(found, expected.map(|value| value as f32).collect::<Vec<_>>());
                }
            }
            products.each(&(rows..rows + 1), 0..columns, |_, _, _| unreachable!("there is no such row"));
            let mut count = 0;
            products.each(&(0..rows), columns - 1..columns + 20, |_, _, values| count += values.len());
            assert_eq!(count, rows, "of the last column alone, and not of what stands behind it");
        }
    }
}
