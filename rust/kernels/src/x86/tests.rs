//! Vector code against the portable code that it stands for, bit by bit.

#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(unsafe_code, reason = "calls vector code; see SAFETY")]

use super::avx2_level::Level;
use super::avx512_fill::{Blocks as WideBlocks, Q4K, Q5K, Q6K, Q40, Q80, Source};
use super::avx512_panel::{Mins, PAIRS, WidePanel};
use super::{avx2, avx2_dot, avx2_fill, avx512_fill};
use crate::activations::{ActivationForms, Activations};
use crate::matmul_tests::{Blocks, Random, weight_bytes};
use crate::panel::{self, GROUPS, PANEL_ROWS, Panel, Rows, Tile};
use crate::tensor_type::SUPER_BLOCK;
use crate::unpack::MAX_SUBS;
use crate::{Isa, Kernels, TensorType};

/// A panel of nothing that a type could have: what a kernel leaves out is seen.
fn untouched() -> Box<Panel> {
    Box::new(Panel {
        q: [[[0xa5; 4]; PANEL_ROWS]; GROUPS],
        scale: [[-7.0; PANEL_ROWS]; MAX_SUBS],
        min: [[-7.0; PANEL_ROWS]; MAX_SUBS],
    })
}

/// The panels of a type's three blocks, of sixteen rows.
fn check_panels(tensor_type: TensorType, fill: impl Fn(Tile<'_>, usize, &mut Panel)) {
    let layout = tensor_type.layout().unwrap();
    let bytes = weight_bytes(tensor_type, PANEL_ROWS, 3 * SUPER_BLOCK, Blocks::Random, &mut Random::new(3));
    let tile = Tile { tensor_type, bytes: &bytes, row_bytes: bytes.len() / PANEL_ROWS };
    let subs = SUPER_BLOCK / layout.sub_len;
    for block in 0..3 {
        let (mut expected, mut found) = (untouched(), untouched());
        panel::fill(tile, block, &mut expected);
        fill(tile, block, &mut found);
        assert!(found.q == expected.q, "{} block {block}: quants", tensor_type.name());
        assert_eq!(found.scale[..subs], expected.scale[..subs], "{}", tensor_type.name());
        if layout.has_min {
            assert_eq!(found.min[..subs], expected.min[..subs], "{}", tensor_type.name());
        }
    }
}

#[test]
fn panels_are_filled_as_the_portable_code_fills_them() {
    if !Isa::Avx2.is_available() {
        return;
    }
    for tensor_type in TensorType::ALL.into_iter().filter(|tensor_type| avx2_dot::handles(*tensor_type)) {
        check_panels(tensor_type, |tile, block, panel| {
            assert!(avx2_fill::fill(tile, block, panel), "{}", tensor_type.name());
        });
    }
}

/// Fills in one go, and tells minimums as floats.
fn fill_wide<S: Source>(tile: Tile<'_>, block: usize, panel: &mut Panel) {
    let mut wide = Box::new(WidePanel::ZERO);
    wide.panel = *untouched();
    let blocks = WideBlocks::new::<S>(tile, block);
    assert!(blocks.are_whole::<S>());
    // SAFETY: the test has found the level on this machine; the blocks are of the type.
    unsafe { avx512_fill::fill::<S>(&blocks, &mut wide) };
    *panel = wide.panel;
    if S::MINS == Mins::Pairs {
        for (subs, mins) in PAIRS.into_iter().zip(&wide.min_pairs) {
            for (lane, mins) in mins.iter().enumerate() {
                for (sub, min) in subs.into_iter().zip(mins) {
                    panel.min[sub][lane] = f32::from(*min) * wide.min_scale[lane];
                }
            }
        }
    }
}

#[test]
fn wide_panels_are_filled_as_the_portable_code_fills_them() {
    if !Isa::Avx512Vnni.is_available() {
        return;
    }
    check_panels(TensorType::Q4_K, fill_wide::<Q4K>);
    check_panels(TensorType::Q5_K, fill_wide::<Q5K>);
    check_panels(TensorType::Q6_K, fill_wide::<Q6K>);
    check_panels(TensorType::Q8_0, fill_wide::<Q80>);
    check_panels(TensorType::Q4_0, fill_wide::<Q40>);
}

/// Activations of -127 to 127, or of those two only.
fn activations(count: usize, extreme: bool, random: &mut Random) -> Vec<i8> {
    let mut next = || match random.next() >> 32 {
        bits if extreme => {
            if bits % 2 == 0 {
                127
            } else {
                -127
            }
        }
        bits => ((bits % 255) as i64 - 127) as i8,
    };
    (0..count).map(|_| next()).collect()
}

#[test]
fn rows_go_over_panels_as_in_the_portable_code() {
    let mut random = Random::new(5);
    for level in Level::available() {
        // Its portable code has fused multiply-adds too.
        let kernels = Kernels::new(Isa::Avx2).unwrap();
        for tensor_type in TensorType::ALL {
            let Some(layout) = tensor_type.layout() else { continue };
            let subs = SUPER_BLOCK / layout.sub_len;
            for (count, extreme) in (0..10).flat_map(|count| [(count, false), (count, true)]) {
                let mut panel = untouched();
                for q in panel.q.as_flattened_mut().as_flattened_mut() {
                    let bits = (random.next() >> 32) as i32;
                    *q = if extreme { (bits & 1) * layout.largest } else { bits & layout.largest } as u8;
                }
                panel.scale.as_flattened_mut().fill_with(|| random.float());
                panel.min.as_flattened_mut().fill_with(|| random.float());
                let scales: Vec<_> = (0..count).map(|_| random.float()).collect();
                let q = activations(count * SUPER_BLOCK, extreme, &mut random);
                let corrections: Vec<_> = q
                    .chunks_exact(layout.sub_len)
                    .map(|q| {
                        let sum: i32 = q.iter().copied().map(i32::from).sum();
                        if layout.has_min { (sum as f32).to_bits().cast_signed() } else { -layout.offset * sum }
                    })
                    .collect();
                let rows = Rows { q: &q, scales: &scales, corrections: &corrections };
                let mut expected: Vec<[f32; PANEL_ROWS]> = vec![[0.5; PANEL_ROWS]; count];
                let mut found = expected.clone();
                if layout.has_min {
                    panel::multiply_with_min(kernels, &panel, subs, rows, &mut expected);
                } else {
                    panel::multiply_with_offset(kernels, &panel, subs, rows, &mut expected);
                }
                avx2::multiply(level, &panel, layout, rows, &mut found);
                assert_eq!(found, expected, "{level:?} {} {count} rows, extreme: {extreme}", tensor_type.name());
            }
        }
    }
}

#[test]
fn levels_of_256_bits_find_the_same_products_for_rows_alone_and_together() {
    let (weight_rows, len) = (5, 3 * SUPER_BLOCK);
    let mut random = Random::new(9);
    let kernels = Kernels::new(Isa::Scalar).unwrap();
    for tensor_type in TensorType::ALL.into_iter().filter(|tensor_type| avx2_dot::handles(*tensor_type)) {
        for kind in [Blocks::Random, Blocks::AllOnes, Blocks::All(0x80)] {
            let bytes = weight_bytes(tensor_type, weight_rows, len, kind, &mut random);
            let mut x = Activations::new(3, len, ActivationForms::read_by(tensor_type));
            for row in 0..3 {
                let values: Vec<f32> = (0..len).map(|_| random.float()).collect();
                x.set_row(kernels, row, &values);
            }
            let prepared: Vec<_> = (0..3).map(|row| avx2_dot::PreparedRow::new(tensor_type, &x, row)).collect();
            let dot_rows = |level, prepared: &[avx2_dot::PreparedRow]| {
                let mut out = vec![f32::NAN; prepared.len() * weight_rows];
                avx2_dot::dot_rows(level, tensor_type, &bytes, bytes.len() / weight_rows, prepared, &mut out);
                out
            };
            for level in Level::available() {
                let together = dot_rows(level, &prepared);
                assert_eq!(together, dot_rows(Level::Avx2, &prepared), "{level:?} {}", tensor_type.name());
                let alone: Vec<_> = prepared.chunks(1).flat_map(|row| dot_rows(level, row)).collect();
                assert_eq!(together, alone, "{level:?} {}", tensor_type.name());
            }
        }
    }
}
