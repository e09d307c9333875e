//! A page's keys and values as rows of bytes, head by head and position by position: how a file has them.
//!
//! A row is laid out as ggml's type of the same name: `F32`, `F16`, and `Q8_0` in blocks of an f16 scale and 32 values. So it
//! says nothing of how a page is arranged in memory, nor of its padding. All numbers are little-endian.

use std::ops::Range;

use super::{Buffer, KvFormat, KvPage, PAGE_TOKENS, Place, Q8_BLOCK};

impl KvFormat {
    /// Bytes of a row of `len` values; of eight bits, `len` is a multiple of 32.
    #[must_use]
    pub const fn row_bytes(self, len: usize) -> usize {
        match self {
            Self::F32 => 4 * len,
            Self::F16 => 2 * len,
            Self::Q8 => len + 2 * (len / Q8_BLOCK),
        }
    }
}

impl Buffer {
    fn row_to_bytes(&self, place: Place, len: usize, out: &mut Vec<u8>) {
        let Place { start, stride, scale_start } = place;
        match self {
            Self::F32(values) => {
                out.extend((0..len).flat_map(|i| values[start + i * stride].to_le_bytes()));
            }
            Self::F16(values) => {
                out.extend((0..len).flat_map(|i| values[start + i * stride].to_le_bytes()));
            }
            Self::Q8 { q, scales } => {
                for block in 0..len / Q8_BLOCK {
                    out.extend(scales[scale_start + block * stride].to_le_bytes());
                    let values = block * Q8_BLOCK..(block + 1) * Q8_BLOCK;
                    out.extend(values.map(|i| q[start + i * stride].cast_unsigned()));
                }
            }
        }
    }

    /// Takes in a row of as many bytes as its values take.
    fn row_from_bytes(&mut self, place: Place, bytes: &[u8]) {
        let Place { start, stride, scale_start } = place;
        match self {
            Self::F32(values) => {
                for (i, bytes) in bytes.as_chunks().0.iter().enumerate() {
                    values[start + i * stride] = f32::from_le_bytes(*bytes);
                }
            }
            Self::F16(values) => {
                for (i, bytes) in bytes.as_chunks().0.iter().enumerate() {
                    values[start + i * stride] = u16::from_le_bytes(*bytes);
                }
            }
            Self::Q8 { q, scales } => {
                for (block, bytes) in bytes.chunks_exact(2 + Q8_BLOCK).enumerate() {
                    let (scale, values) = bytes.split_at(2);
                    scales[scale_start + block * stride] = u16::from_le_bytes([scale[0], scale[1]]);
                    for (i, value) in values.iter().enumerate() {
                        q[start + (block * Q8_BLOCK + i) * stride] = value.cast_signed();
                    }
                }
            }
        }
    }
}

impl KvPage {
    /// Bytes of the rows of `positions` positions: of keys and of values, of all heads.
    #[must_use]
    pub const fn rows_bytes(format: KvFormat, heads: usize, head_dim: usize, positions: usize) -> usize {
        2 * heads * positions * format.row_bytes(head_dim)
    }

    /// Appends the keys at the positions `slots` of the page, `(heads, positions, head_dim)`, and then the values.
    ///
    /// # Panics
    /// If the page has no such positions.
    pub fn rows_to_bytes(&self, slots: Range<usize>, out: &mut Vec<u8>) {
        assert!(slots.end <= PAGE_TOKENS, "positions {slots:?}");
        let each = |buffer: &Buffer, place: PlaceOf, out: &mut Vec<u8>| {
            for head in 0..self.heads {
                for slot in slots.clone() {
                    buffer.row_to_bytes(place(self.head_dim, head, slot), self.head_dim, out);
                }
            }
        };
        each(&self.keys, Place::of_key, out);
        each(&self.values, Place::of_value, out);
    }

    /// Takes in what [`rows_to_bytes`](Self::rows_to_bytes) gave.
    ///
    /// # Panics
    /// If the page has no such positions, or the bytes are not as many as their rows take.
    pub fn rows_from_bytes(&mut self, slots: Range<usize>, bytes: &[u8]) {
        assert!(slots.end <= PAGE_TOKENS, "positions {slots:?}");
        let (format, heads, head_dim) = (self.keys.format(), self.heads, self.head_dim);
        assert_eq!(bytes.len(), Self::rows_bytes(format, heads, head_dim, slots.len()));
        let mut rows = bytes.chunks_exact(format.row_bytes(head_dim));
        let mut each = |buffer: &mut Buffer, place: PlaceOf| {
            for head in 0..heads {
                for (slot, row) in slots.clone().zip(&mut rows) {
                    buffer.row_from_bytes(place(head_dim, head, slot), row);
                }
            }
        };
        each(&mut self.keys, Place::of_key);
        each(&mut self.values, Place::of_value);
    }
}

/// Where the row of a head at a position of the page is: `(head_dim, head, slot)`
type PlaceOf = fn(usize, usize, usize) -> Place;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that is out of memory fails")]

    use super::*;
    use crate::{TensorType, dequantize_row};

    const HEADS: usize = 2;

    fn value(head: usize, slot: usize, i: usize) -> f32 {
        ((head * 100 + slot * 7 + i) as f32 * 0.37).sin()
    }

    fn page(format: KvFormat, head_dim: usize) -> KvPage {
        let mut page = KvPage::new(format, HEADS, head_dim).unwrap();
        for head in 0..HEADS {
            for slot in 0..PAGE_TOKENS {
                let key: Vec<f32> = (0..head_dim).map(|i| value(head, slot, i)).collect();
                let value: Vec<f32> = key.iter().map(|x| x + 2.0).collect();
                page.write(head, slot, &key, &value);
            }
        }
        page
    }

    const FORMATS: [(KvFormat, TensorType); 3] =
        [(KvFormat::F32, TensorType::F32), (KvFormat::F16, TensorType::F16), (KvFormat::Q8, TensorType::Q8_0)];

    #[test]
    fn rows_are_those_of_the_type_of_the_same_name() {
        let (head_dim, slots) = (64, 3..8);
        for (format, tensor_type) in FORMATS {
            let mut bytes = Vec::new();
            page(format, head_dim).rows_to_bytes(slots.clone(), &mut bytes);
            assert_eq!(Some(format.row_bytes(head_dim)), tensor_type.row_bytes(head_dim));
            assert_eq!(bytes.len(), KvPage::rows_bytes(format, HEADS, head_dim, slots.len()));
            let mut found = vec![0.0; 2 * HEADS * slots.len() * head_dim];
            dequantize_row(tensor_type, &bytes, &mut found).unwrap();
            let mut found = found.chunks_exact(head_dim);
            for of_values in [0.0, 2.0] {
                for head in 0..HEADS {
                    for slot in slots.clone() {
                        for (i, found) in found.next().unwrap().iter().enumerate() {
                            let expected = value(head, slot, i) + of_values;
                            assert!((found - expected).abs() < 0.02, "{format:?} {head} {slot} {i}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_page_of_another_pages_rows_is_its_equal() {
        for (format, _) in FORMATS {
            // 40: values are padded in memory; eight bits need a multiple of 32.
            let head_dim = if format == KvFormat::Q8 { 96 } else { 40 };
            let (original, mut bytes) = (page(format, head_dim), Vec::new());
            original.rows_to_bytes(0..PAGE_TOKENS, &mut bytes);
            let mut copy = KvPage::new(format, HEADS, head_dim).unwrap();
            copy.rows_from_bytes(0..PAGE_TOKENS, &bytes);
            assert_eq!(format!("{copy:?}"), format!("{original:?}"));
            assert_eq!(copy.size_bytes(), KvPage::bytes_of(format, HEADS, head_dim));
        }
    }

    #[test]
    fn a_page_that_the_system_has_no_memory_for_is_an_error() {
        for format in [KvFormat::F32, KvFormat::F16, KvFormat::Q8] {
            assert!(KvPage::new(format, 1 << 22, 1 << 22).is_err());
        }
    }

    #[test]
    fn a_part_of_a_page_leaves_the_rest_as_it_was() {
        let (original, mut bytes) = (page(KvFormat::F16, 32), Vec::new());
        original.rows_to_bytes(4..9, &mut bytes);
        let mut copy = original.try_clone().unwrap();
        copy.rows_from_bytes(4..9, &vec![0; bytes.len()]);
        assert_ne!(format!("{copy:?}"), format!("{original:?}"));
        copy.rows_from_bytes(4..9, &bytes);
        assert_eq!(format!("{copy:?}"), format!("{original:?}"));
    }
}
