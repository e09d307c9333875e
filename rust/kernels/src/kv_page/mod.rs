//! Pages of cached keys and values.

#![allow(clippy::indexing_slicing, reason = "ranges of buffers that this module sized")]

mod rows;

use std::collections::TryReserveError;

use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};

use crate::lanes::LANES;

/// Positions of a page.
pub const PAGE_TOKENS: usize = 32;
/// Values that share a scale in eight-bit pages.
const Q8_BLOCK: usize = 32;

/// What keys and values are stored as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvFormat {
    /// Single precision.
    F32,
    /// Half precision.
    F16,
    /// Eight bits with an f16 scale for 32 values of a head, as ggml's Q8_0; heads are multiples of 32 long.
    Q8,
}

/// Keys and values of 32 positions, of all key heads of a layer.
#[derive(Clone, Debug)]
pub struct KvPage {
    heads: usize,
    head_dim: usize,
    keys: Buffer,   // (heads, head_dim, positions): sixteen positions are a vector
    values: Buffer, // (heads, positions, head_dim up to a multiple of 16)
}

#[derive(Clone, Debug)]
enum Buffer {
    F32(Vec<f32>),
    F16(Vec<u16>),
    Q8 { q: Vec<i8>, scales: Vec<u16> },
}

/// A head's part of a page.
#[derive(Clone, Copy)]
pub(crate) enum Stored<'a> {
    F32(&'a [f32]),
    F16(&'a [u16]),
    /// Of keys, the scales are `(head_dim / 32, positions)`; of values, `(positions, head_dim / 32)`.
    Q8 {
        q: &'a [i8],
        scales: &'a [u16],
    },
}

/// `len` zeros, unless the system has no memory for them.
fn zeros<T: Clone + Default>(len: usize) -> Result<Vec<T>, TryReserveError> {
    let mut zeros = Vec::new();
    zeros.try_reserve_exact(len)?;
    zeros.resize(len, T::default());
    Ok(zeros)
}

/// A copy, unless the system has no memory for it.
fn copy<T: Copy>(all: &[T]) -> Result<Vec<T>, TryReserveError> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(all.len())?;
    copy.extend_from_slice(all);
    Ok(copy)
}

/// Writes a row, each value `stride` behind the one before.
fn scatter<T: Copy>(all: &mut [T], start: usize, stride: usize, row: &[T]) {
    let all = all.get_mut(start..).unwrap_or_default();
    if stride == 1 {
        all[..row.len()].copy_from_slice(row);
    } else {
        assert!(row.len() <= all.len().div_ceil(stride), "a row of {}", row.len());
        for (places, value) in all.chunks_mut(stride).zip(row) {
            places[0] = *value;
        }
    }
}

/// Where a row is in a buffer: its first value, the way from one to the next, and its first scale. Scales are as far from
/// each other, in a buffer that is 32 times smaller along the row.
#[derive(Clone, Copy)]
struct Place {
    start: usize,
    stride: usize,
    scale_start: usize,
}

impl Place {
    fn of_key(head_dim: usize, head: usize, slot: usize) -> Self {
        let first = head * head_dim * PAGE_TOKENS;
        Self { start: first + slot, stride: PAGE_TOKENS, scale_start: first / Q8_BLOCK + slot }
    }

    fn of_value(head_dim: usize, head: usize, slot: usize) -> Self {
        let first = (head * PAGE_TOKENS + slot) * head_dim.next_multiple_of(LANES);
        Self { start: first, stride: 1, scale_start: first / Q8_BLOCK }
    }
}

impl Buffer {
    fn new(format: KvFormat, len: usize) -> Result<Self, TryReserveError> {
        Ok(match format {
            KvFormat::F32 => Self::F32(zeros(len)?),
            KvFormat::F16 => Self::F16(zeros(len)?),
            KvFormat::Q8 => Self::Q8 { q: zeros(len)?, scales: zeros(len / Q8_BLOCK)? },
        })
    }

    fn try_clone(&self) -> Result<Self, TryReserveError> {
        Ok(match self {
            Self::F32(values) => Self::F32(copy(values)?),
            Self::F16(values) => Self::F16(copy(values)?),
            Self::Q8 { q, scales } => Self::Q8 { q: copy(q)?, scales: copy(scales)? },
        })
    }

    /// Part `index` of `parts` of one size.
    fn part(&self, index: usize, parts: usize) -> Stored<'_> {
        fn part<T>(all: &[T], index: usize, parts: usize) -> &[T] {
            let len = all.len() / parts;
            &all[index * len..(index + 1) * len]
        }
        match self {
            Self::F32(values) => Stored::F32(part(values, index, parts)),
            Self::F16(values) => Stored::F16(part(values, index, parts)),
            Self::Q8 { q, scales } => Stored::Q8 { q: part(q, index, parts), scales: part(scales, index, parts) },
        }
    }

    /// Writes a row of values.
    fn write(&mut self, row: &[f32], place: Place) {
        let Place { start, stride, scale_start } = place;
        match self {
            Self::F32(values) => scatter(values, start, stride, row),
            Self::F16(values) => {
                let mut halves = [0u16; 256];
                for (block, row) in row.chunks(halves.len()).enumerate() {
                    let halves = &mut halves[..row.len()];
                    halves.reinterpret_cast_mut::<f16>().convert_from_f32_slice(row);
                    scatter(values, start + block * 256 * stride, stride, halves);
                }
            }
            Self::Q8 { q, scales } => {
                for (block, row) in row.chunks(Q8_BLOCK).enumerate() {
                    let largest =
                        row.iter().fold(0f32, |a, b| if b.abs() > a || b.is_nan() { b.abs() } else { a });
                    let scale = f16::from_f32(largest / 127.0);
                    let inverse = if scale.to_f32() == 0.0 { 0.0 } else { 1.0 / scale.to_f32() };
                    scales[scale_start + block * stride] = scale.to_bits();
                    for (i, value) in row.iter().enumerate() {
                        let quant = (value * inverse).round_ties_even().clamp(-127.0, 127.0);
                        q[start + (block * Q8_BLOCK + i) * stride] = quant as i8;
                    }
                }
            }
        }
    }

    fn format(&self) -> KvFormat {
        match self {
            Self::F32(_) => KvFormat::F32,
            Self::F16(_) => KvFormat::F16,
            Self::Q8 { .. } => KvFormat::Q8,
        }
    }

    fn size_bytes(&self) -> usize {
        match self {
            Self::F32(values) => size_of_val(values.as_slice()),
            Self::F16(values) => size_of_val(values.as_slice()),
            Self::Q8 { q, scales } => size_of_val(q.as_slice()) + size_of_val(scales.as_slice()),
        }
    }
}

impl KvPage {
    /// A page of zeros.
    ///
    /// # Errors
    /// If the system has no memory for it. Pages are what a session's memory grows by.
    ///
    /// # Panics
    /// For eight bits and heads that are no multiple of 32 long.
    pub fn new(format: KvFormat, heads: usize, head_dim: usize) -> Result<Self, TryReserveError> {
        assert!(format != KvFormat::Q8 || head_dim.is_multiple_of(Q8_BLOCK), "heads of {head_dim}");
        Ok(Self {
            heads,
            head_dim,
            keys: Buffer::new(format, heads * head_dim * PAGE_TOKENS)?,
            values: Buffer::new(format, heads * PAGE_TOKENS * head_dim.next_multiple_of(LANES))?,
        })
    }

    /// A copy.
    ///
    /// # Errors
    /// If the system has no memory for it.
    pub fn try_clone(&self) -> Result<Self, TryReserveError> {
        let (keys, values) = (self.keys.try_clone()?, self.values.try_clone()?);
        Ok(Self { keys, values, ..*self })
    }

    /// Writes the key and the value of a head at position `slot` of the page.
    ///
    /// # Panics
    /// If the page has no such head or position, or the rows are not as long as a head.
    pub fn write(&mut self, head: usize, slot: usize, key: &[f32], value: &[f32]) {
        assert!(head < self.heads && slot < PAGE_TOKENS, "head {head}, position {slot}");
        assert_eq!((key.len(), value.len()), (self.head_dim, self.head_dim));
        self.keys.write(key, Place::of_key(self.head_dim, head, slot));
        self.values.write(value, Place::of_value(self.head_dim, head, slot));
    }

    /// Bytes of memory.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.keys.size_bytes() + self.values.size_bytes()
    }

    /// Bytes of memory that a page takes.
    #[must_use]
    pub const fn bytes_of(format: KvFormat, heads: usize, head_dim: usize) -> usize {
        let keys = heads * head_dim * PAGE_TOKENS;
        let values = heads * head_dim.next_multiple_of(LANES) * PAGE_TOKENS;
        format.row_bytes(keys) + format.row_bytes(values)
    }

    /// The keys of a head: `(head_dim, positions)`
    pub(crate) fn keys(&self, head: usize) -> Stored<'_> {
        self.keys.part(head, self.heads)
    }

    /// The values of a head: `(positions, head_dim up to a multiple of 16)`
    pub(crate) fn values(&self, head: usize) -> Stored<'_> {
        self.values.part(head, self.heads)
    }
}
