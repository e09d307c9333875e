//! Every level's products against sums of exact products, on random and on extreme blocks, of every shape of tail.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "tests")]

use std::ops::Range;

use half::f16;

use crate::activations::SUMS;
use crate::panel::{self, GROUP, PANEL_ROWS, Panel, Tile};
use crate::tensor_type::SUPER_BLOCK;
use crate::unpack::Layout;
use crate::{
    ActivationForms, Activations, BufferPool, Isa, Kernels, Prepared, Products, TensorType, Weight, dequantize_row,
};

/// Numbers that are the same in every run (xorshift64).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// From -1 to 1.
    pub(crate) fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

/// Where a type's blocks have their f16 scales.
fn scale_offsets(tensor_type: TensorType) -> &'static [usize] {
    match tensor_type {
        TensorType::F32 | TensorType::F16 | TensorType::BF16 => &[],
        TensorType::Q4_0 | TensorType::Q5_0 | TensorType::Q8_0 | TensorType::IQ4_NL | TensorType::IQ4_XS => &[0],
        TensorType::Q4_1 | TensorType::Q5_1 | TensorType::Q4_K | TensorType::Q5_K => &[0, 2],
        TensorType::Q2_K => &[80, 82],
        TensorType::Q3_K => &[108],
        TensorType::Q6_K => &[208],
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Blocks {
    Random,
    /// All bits of the quants set, and the scales too, or what is largest; with the largest activations.
    AllOnes,
    /// All bytes of the quants and the scales the same: those of the largest magnitude.
    All(u8),
    ZeroScales,
    /// The smallest f16 there is, and its negative.
    Subnormal,
}

pub(crate) fn weight_bytes(
    tensor_type: TensorType,
    rows: usize,
    len: usize,
    kind: Blocks,
    random: &mut Random,
) -> Vec<u8> {
    let mut bytes = vec![0; tensor_type.row_bytes(len).unwrap() * rows];
    for block in bytes.chunks_exact_mut(tensor_type.block_bytes()) {
        match tensor_type {
            TensorType::F32 => block.copy_from_slice(&random.float().to_le_bytes()),
            TensorType::F16 => block.copy_from_slice(&f16::from_f32(random.float()).to_le_bytes()),
            TensorType::BF16 => block.copy_from_slice(&half::bf16::from_f32(random.float()).to_le_bytes()),
            _ => block.fill_with(|| match kind {
                Blocks::AllOnes => 255,
                Blocks::All(byte) => byte,
                _ => (random.next() >> 32) as u8,
            }),
        }
        for at in scale_offsets(tensor_type) {
            let scale = match kind {
                Blocks::Random => f16::from_f32(random.float() * 0.05),
                Blocks::AllOnes | Blocks::All(_) => f16::from_f32(1.5),
                Blocks::ZeroScales => f16::ZERO,
                Blocks::Subnormal => f16::from_bits(1 | (random.next() as u16 & 0x8000)),
            };
            block[*at..*at + 2].copy_from_slice(&scale.to_le_bytes());
        }
    }
    bytes
}

/// The activations as they were quantized, or as they are for a weight of floats.
fn activation_values(x: &Activations, row: usize) -> Vec<f32> {
    if !x.forms().quantized {
        return x.values(row).to_vec();
    }
    let mut values = Vec::new();
    for block in 0..x.blocks() {
        let scale = x.block_scales(block, row)[0];
        let q = &x.block_q(block, row)[..SUPER_BLOCK];
        values.extend(q.iter().map(|q| f32::from(*q) * scale));
        for (sum, q) in x.block_sums(block, row)[..SUMS].iter().zip(q.chunks_exact(SUPER_BLOCK / SUMS)) {
            assert_eq!(i32::from(*sum), q.iter().copied().map(i32::from).sum::<i32>());
        }
    }
    values.truncate(x.row_len());
    values
}

/// Sum of the products, and of their magnitudes with those of the parts that cancel inside a weight.
fn exact(weight: &[f32], x: &[f32]) -> (f64, f64) {
    let products = weight.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x));
    products.fold((0.0, 0.0), |(sum, magnitude), product| (sum + product, magnitude + product.abs()))
}

fn check(isa: Isa, tensor_type: TensorType, rows: usize, x_rows: &[usize], len: usize, kind: Blocks) {
    check_with(isa, tensor_type, rows, x_rows, len, kind, |random, _| random.float() * 3.0);
}

/// Checks the products with activations of `value(random, column)`.
fn check_with(
    isa: Isa,
    tensor_type: TensorType,
    rows: usize,
    x_rows: &[usize],
    len: usize,
    kind: Blocks,
    value: fn(&mut Random, usize) -> f32,
) {
    let seed = (rows * 1000 + len) as u64 + x_rows.len() as u64;
    // Not from the first row, where there are several.
    Product { isa, tensor_type, rows, range: rows / 3..rows, len, x_rows, kind, seed }.check(value);
}

/// Some rows of a random weight, to be multiplied with parts of so many rows of activations.
#[derive(Debug)]
pub(crate) struct Product<'a> {
    pub(crate) isa: Isa,
    pub(crate) tensor_type: TensorType,
    /// Of the weight.
    pub(crate) rows: usize,
    /// Of these, the ones that are multiplied.
    pub(crate) range: Range<usize>,
    pub(crate) len: usize,
    pub(crate) x_rows: &'a [usize],
    pub(crate) kind: Blocks,
    pub(crate) seed: u64,
}

/// What others left in it must not be seen.
pub(crate) fn used_pool() -> BufferPool {
    let pool = BufferPool::default();
    let mut left = Products::new(&pool, 64, 128);
    left.values_mut().fill(f32::NAN);
    drop(left);
    pool
}

/// `(rows, columns)`
pub(crate) fn rows_of(products: &Products) -> Vec<f32> {
    let (rows, columns) = (products.rows(), products.columns());
    let mut out = vec![f32::NAN; rows * columns];
    products.each(&(0..rows), 0..columns, |row, column, values| {
        out[row * columns + column..][..values.len()].copy_from_slice(values);
    });
    out
}

impl Product<'_> {
    /// Checks the products with activations of `value(random, column)`.
    pub(crate) fn check(&self, value: impl Fn(&mut Random, usize) -> f32) {
        let Self { isa, tensor_type, rows, ref range, len, x_rows, kind, seed } = *self;
        let kernels = Kernels::new(isa).unwrap();
        let mut random = Random::new(seed);
        let bytes = weight_bytes(tensor_type, rows, len, kind, &mut random);
        let weight = Weight::new(tensor_type, &bytes, rows, len).unwrap();
        let forms = ActivationForms::read_by(tensor_type);
        let parts: Vec<_> = x_rows
            .iter()
            .map(|x_rows| {
                let mut part = Activations::new(*x_rows, len, forms);
                for row in 0..*x_rows {
                    let values: Vec<f32> = (0..len).map(|column| value(&mut random, column)).collect();
                    part.set_row(kernels, row, &values);
                }
                let prepared = Prepared::new(kernels, tensor_type, &part);
                (part, prepared)
            })
            .collect();
        let x: Vec<_> = parts.iter().map(|(part, prepared)| (part, prepared)).collect();
        let out = rows_of(&kernels.multiply(&weight, range.clone(), &x, &used_pool()));

        let activations: Vec<_> =
            x.iter().flat_map(|(part, _)| (0..part.rows()).map(|row| activation_values(part, row))).collect();
        let row_bytes = tensor_type.row_bytes(len).unwrap();
        let mut values = vec![0.0; len];
        for (column, row) in range.clone().enumerate() {
            dequantize_row(tensor_type, &bytes[row * row_bytes..][..row_bytes], &mut values).unwrap();
            let largest = values.iter().fold(0f32, |a, b| a.max(b.abs()));
            for (m, x) in activations.iter().enumerate() {
                let (expected, magnitude) = exact(&values, x);
                let found = f64::from(out[m * range.len() + column]);
                // Offsets and minimums are subtracted as sums of their own, so that what rounds is larger than the products.
                let cancelling = f64::from(largest) * x.iter().map(|x| f64::from(x.abs())).sum::<f64>();
                let tolerance = 4e-6 * (magnitude + cancelling) + 1e-30;
                assert!(
                    (found - expected).abs() <= tolerance,
                    "{self:?}: row {row}, column {m}: expected {expected}, found {found}, tolerance {tolerance}"
                );
            }
        }
    }
}

fn lengths(tensor_type: TensorType) -> &'static [usize] {
    match tensor_type.block_len() {
        1 => &[1, 3, 64, 257, 512],
        32 => &[32, 96, 256, 288, 768],
        _ => &[256, 512, 1280],
    }
}

#[test]
#[cfg_attr(miri, ignore = "too much for an interpreter")]
fn every_level_multiplies_every_type_at_every_tail() {
    for isa in Isa::available() {
        for tensor_type in TensorType::ALL {
            for len in lengths(tensor_type) {
                for rows in [1, 16, 17, 48, 53] {
                    check(isa, tensor_type, rows, &[1], *len, Blocks::Random);
                    check(isa, tensor_type, rows, &[5], *len, Blocks::Random);
                }
            }
            let len = lengths(tensor_type)[2];
            for x_rows in 1..=18 {
                check(isa, tensor_type, 24, &[x_rows], len, Blocks::Random);
            }
            check(isa, tensor_type, 33, &[1, 1], len, Blocks::Random);
            check(isa, tensor_type, 33, &[8, 8, 3], len, Blocks::Random);
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "too much for an interpreter")]
fn extreme_blocks_are_exact_too() {
    for isa in Isa::available() {
        for tensor_type in TensorType::ALL {
            for kind in [Blocks::AllOnes, Blocks::ZeroScales, Blocks::Subnormal] {
                for x_rows in [1, 2, 3, 9] {
                    check(isa, tensor_type, 32, &[x_rows], lengths(tensor_type)[2], kind);
                }
            }
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "too much for an interpreter")]
fn the_largest_quants_times_the_largest_activations_fit_into_what_they_are_added_up_in() {
    // Each is quantized to 127 or -127.
    let signs: [fn(&mut Random, usize) -> f32; 4] = [
        |_, _| 1.0,
        |_, _| -1.0,
        |_, column| if column % 2 == 0 { 1.0 } else { -1.0 },
        |_, column| if column / 2 % 2 == 0 { 1.0 } else { -1.0 },
    ];
    for isa in Isa::available() {
        for tensor_type in TensorType::ALL {
            for byte in [0x00, 0x7f, 0x80, 0xff] {
                for value in signs {
                    for x_rows in [1, 2, 4] {
                        let len = lengths(tensor_type)[2];
                        check_with(isa, tensor_type, 32, &[x_rows], len, Blocks::All(byte), value);
                    }
                }
            }
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "too much for an interpreter")]
fn a_row_is_the_same_whichever_rows_it_is_computed_with() {
    let (rows, len) = (80, 512);
    for isa in Isa::available() {
        let kernels = Kernels::new(isa).unwrap();
        for tensor_type in TensorType::ALL {
            let mut random = Random::new(7);
            let bytes = weight_bytes(tensor_type, rows, len, Blocks::Random, &mut random);
            let weight = Weight::new(tensor_type, &bytes, rows, len).unwrap();
            for x_rows in [1, 2, 4, 11] {
                let mut x = Activations::new(x_rows, len, ActivationForms::read_by(tensor_type));
                for row in 0..x_rows {
                    let values: Vec<f32> = (0..len).map(|_| random.float()).collect();
                    x.set_row(kernels, row, &values);
                }
                let prepared = Prepared::new(kernels, tensor_type, &x);
                let multiply = |range: std::ops::Range<usize>| {
                    rows_of(&kernels.multiply(&weight, range, &[(&x, &prepared)], &used_pool()))
                };
                let (all, some) = (multiply(0..rows), multiply(5..40));
                for row in 0..x_rows {
                    assert_eq!(all[row * rows + 5..row * rows + 40], some[row * 35..(row + 1) * 35]);
                }
            }
        }
    }
}

#[test]
fn what_is_not_finite_is_not_lost() {
    for isa in Isa::available() {
        let kernels = Kernels::new(isa).unwrap();
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = Activations::new(1, 512, ActivationForms::read_by(TensorType::Q4_K));
            let mut values = vec![1.0; 512];
            values[300] = bad;
            x.set_row(kernels, 0, &values);
            let bytes = weight_bytes(TensorType::Q4_K, 16, 512, Blocks::Random, &mut Random::new(1));
            let weight = Weight::new(TensorType::Q4_K, &bytes, 16, 512).unwrap();
            let prepared = Prepared::new(kernels, TensorType::Q4_K, &x);
            let out = rows_of(&kernels.multiply(&weight, 0..16, &[(&x, &prepared)], &used_pool()));
            assert!(out.iter().all(|y| y.is_nan()), "{isa} {bad}: {out:?}");
        }
    }
}

/// A panel's values, `(rows, 256)`, where `group` quants of a row stand together.
fn panel_values(panel: &Panel, layout: Layout, group: usize) -> Vec<f32> {
    let q = panel.q.as_flattened().as_flattened();
    let value = |row: usize, i: usize| {
        let quant = layout.quant(q[(i / group * PANEL_ROWS + row) * group + i % group]);
        let sub = i / layout.sub_len;
        panel.scale[sub][row] * quant as f32 - if layout.has_min { panel.min[sub][row] } else { 0.0 }
    };
    (0..PANEL_ROWS).flat_map(|row| (0..SUPER_BLOCK).map(move |i| value(row, i))).collect()
}

#[test]
#[cfg_attr(miri, ignore = "too much for an interpreter")]
fn every_level_fills_a_panel_with_the_same_values() {
    // The 512-bit level has panels of another form: see its own tests.
    for isa in Isa::available().filter(|isa| *isa != Isa::Avx512Vnni) {
        let kernels = Kernels::new(isa).unwrap();
        let group = if isa == Isa::NeonI8mm { 2 * GROUP } else { GROUP };
        for tensor_type in TensorType::ALL {
            let (Some(layout), Some(own_layout)) = (tensor_type.layout(), kernels.panel_layout(tensor_type))
            else {
                continue;
            };
            for (len, rows) in lengths(tensor_type).iter().flat_map(|len| [16, 15, 1].map(|rows| (*len, rows))) {
                let mut random = Random::new(len as u64 + rows as u64);
                let bytes = weight_bytes(tensor_type, rows, len, Blocks::Random, &mut random);
                let tile = Tile { tensor_type, bytes: &bytes, row_bytes: tensor_type.row_bytes(len).unwrap() };
                for block in 0..len.div_ceil(SUPER_BLOCK) {
                    let (mut portable, mut own) = (Panel::ZERO, Panel::ZERO);
                    panel::fill(tile, block, &mut portable);
                    kernels.fill(tile, block, &mut own);
                    let expected = panel_values(&portable, layout, GROUP);
                    let found = panel_values(&own, own_layout, group);
                    assert!(
                        found[..rows * SUPER_BLOCK] == expected[..rows * SUPER_BLOCK],
                        "{isa} {}: block {block} of {rows}x{len}",
                        tensor_type.name()
                    );
                }
            }
        }
    }
}

/// Small enough for an interpreter that looks at every access: see `tools/sanitize.sh`.
#[test]
fn a_small_product_of_every_type() {
    for tensor_type in TensorType::ALL {
        let len = if tensor_type.block_len() == SUPER_BLOCK { 256 } else { 32 };
        check(Isa::Scalar, tensor_type, 17, &[1, 2], len, Blocks::Random);
    }
}
