//! What holds for every type, level and shape, on those that proptest comes up with.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "tests")]

use std::ops::Range;

use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::attention_tests::{Cached, FORMATS, check_rows, queries};
use crate::matmul_tests::{Blocks, Product, Random, rows_of, used_pool, weight_bytes};
use crate::tensor_type::SUPER_BLOCK;
use crate::{ActivationForms, Activations, Isa, Kernels, KvFormat, Prepared, TensorType, Weight};

fn levels() -> impl Strategy<Value = Isa> {
    select(Isa::available().collect::<Vec<_>>())
}

fn blocks() -> impl Strategy<Value = Blocks> {
    prop_oneof![
        4 => Just(Blocks::Random),
        1 => Just(Blocks::AllOnes),
        1 => any::<u8>().prop_map(Blocks::All),
        1 => Just(Blocks::ZeroScales),
        1 => Just(Blocks::Subnormal),
    ]
}

/// A type with a length of rows that it can have.
fn types() -> impl Strategy<Value = (TensorType, usize)> {
    (select(TensorType::ALL.to_vec()), 1..=1100usize)
        .prop_map(|(tensor_type, len)| (tensor_type, len.next_multiple_of(tensor_type.block_len())))
}

/// A part of `0..len` that is not empty.
fn part(len: usize, start: Index, end: Index) -> Range<usize> {
    let start = start.index(len);
    start..start + 1 + end.index(len - start)
}

/// A random weight, multiplied with random activations: every row with those of every part.
struct Multiplied {
    kernels: Kernels,
    tensor_type: TensorType,
    bytes: Vec<u8>,
    rows: usize,
    len: usize,
    x: Vec<Vec<f32>>,
}

impl Multiplied {
    fn new(isa: Isa, (tensor_type, len): (TensorType, usize), rows: usize, x_rows: usize, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let bytes = weight_bytes(tensor_type, rows, len, Blocks::Random, &mut random);
        let x = (0..x_rows).map(|_| (0..len).map(|_| random.float()).collect()).collect();
        Self { kernels: Kernels::new(isa).unwrap(), tensor_type, bytes, rows, len, x }
    }

    /// `(x rows, range.len())`, with the activations in parts of `parts` rows.
    fn rows(&self, range: Range<usize>, parts: &[usize]) -> Vec<f32> {
        let weight = Weight::new(self.tensor_type, &self.bytes, self.rows, self.len).unwrap();
        let mut rows = self.x.iter();
        let parts: Vec<_> = parts
            .iter()
            .map(|count| {
                let mut part = Activations::new(*count, self.len, ActivationForms::read_by(self.tensor_type));
                for row in 0..*count {
                    part.set_row(self.kernels, row, rows.next().unwrap());
                }
                let prepared = Prepared::new(self.kernels, self.tensor_type, &part);
                (part, prepared)
            })
            .collect();
        let x: Vec<_> = parts.iter().map(|(part, prepared)| (part, prepared)).collect();
        rows_of(&self.kernels.multiply(&weight, range, &x, &used_pool()))
    }
}

/// `PROPTEST_CASES` says how many, 256 without it.
fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    #[cfg_attr(miri, ignore = "too much for an interpreter")]
    fn products_are_those_of_the_dequantized_weight(
        isa in levels(),
        (tensor_type, len) in types(),
        rows in 1..=70usize,
        range in any::<(Index, Index)>(),
        x_rows in proptest::collection::vec(1..=12usize, 1..=3),
        kind in blocks(),
        seed: u64,
        exponent in -20..=20,
    ) {
        let range = part(rows, range.0, range.1);
        let size = f32::powi(2.0, exponent);
        let product = Product { isa, tensor_type, rows, range, len, x_rows: &x_rows, kind, seed };
        product.check(|random, _| random.float() * size);
    }

    /// So that threads can share them out.
    #[test]
    #[cfg_attr(miri, ignore = "too much for an interpreter")]
    fn a_weight_row_gives_the_same_bits_in_whatever_company(
        isa in levels(),
        kind in types(),
        rows in 1..=70usize,
        x_rows in 1..=10usize,
        range in any::<(Index, Index)>(),
        seed: u64,
    ) {
        let range = part(rows, range.0, range.1);
        let multiplied = Multiplied::new(isa, kind, rows, x_rows, seed);
        let (all, some) = (multiplied.rows(0..rows, &[x_rows]), multiplied.rows(range.clone(), &[x_rows]));
        for row in 0..x_rows {
            let expected = &all[row * rows..][range.clone()];
            prop_assert_eq!(&some[row * range.len()..(row + 1) * range.len()], expected);
        }
    }

    /// So that a prompt can be cut anywhere, as long as pieces have more than two rows.
    #[test]
    #[cfg_attr(miri, ignore = "too much for an interpreter")]
    fn a_row_of_activations_gives_the_same_bits_in_whatever_company(
        isa in levels(),
        kind in types(),
        rows in 1..=40usize,
        parts in proptest::collection::vec(1..=9usize, 1..=4),
        seed: u64,
    ) {
        let x_rows = parts.iter().sum::<usize>().max(3);
        let multiplied = Multiplied::new(isa, kind, rows, x_rows, seed);
        let expected = multiplied.rows(0..rows, &[x_rows]);
        if parts.iter().sum::<usize>() == x_rows {
            prop_assert_eq!(multiplied.rows(0..rows, &parts), expected.clone());
        }
        // Fewer rows, but more than two.
        let mut fewer = Multiplied::new(isa, kind, rows, x_rows, seed);
        fewer.x.truncate(3);
        prop_assert_eq!(fewer.rows(0..rows, &[3]), &expected[..3 * rows]);
    }

    #[test]
    #[cfg_attr(miri, ignore = "too much for an interpreter")]
    fn activations_are_kept_to_half_a_step(isa in levels(), len in 1..=700usize, seed: u64, exponent in -30..=30) {
        let mut random = Random::new(seed);
        let size = f32::powi(2.0, exponent);
        let values: Vec<f32> = (0..len).map(|_| random.float() * size).collect();
        let mut row = Activations::new(1, len, ActivationForms::read_by(TensorType::Q4_K));
        row.set_row(Kernels::new(isa).unwrap(), 0, &values);
        let mut portable = Activations::new(1, len, ActivationForms::read_by(TensorType::Q4_K));
        portable.set_row(Kernels::new(Isa::Scalar).unwrap(), 0, &values);
        prop_assert_eq!(row.sums(), portable.sums());
        for (block, values) in values.chunks(SUPER_BLOCK).enumerate() {
            let scale = row.block_scales(block, 0)[0];
            prop_assert_eq!(scale, portable.block_scales(block, 0)[0]);
            prop_assert_eq!(row.block_q(block, 0), portable.block_q(block, 0));
            let sums = row.block_q(block, 0).chunks(16).map(|q| q.iter().copied().map(i16::from).sum());
            prop_assert_eq!(row.block_sums(block, 0), sums.collect::<Vec<i16>>());
            let largest = values.iter().fold(0f32, |a, b| a.max(b.abs()));
            prop_assert!((scale - largest / 127.0).abs() <= 1e-6 * largest);
            for (value, q) in values.iter().zip(row.block_q(block, 0)) {
                prop_assert!((value - f32::from(*q) * scale).abs() <= 0.501 * scale, "{value} as {q} times {scale}");
            }
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "too much for an interpreter")]
    fn attention_is_that_of_double_precision(
        isa in levels(),
        format in select(FORMATS.to_vec()),
        head_dim in 1..=140usize,
        positions in 1..=200usize,
        visible in proptest::collection::vec(any::<(Index, Index)>(), 1..=20),
        run in 1..=8usize,
        seed: u64,
    ) {
        let head_dim = if format == KvFormat::Q8 { head_dim.next_multiple_of(32) } else { head_dim };
        let mut random = Random::new(seed);
        let cached = Cached::new(format, head_dim, positions, &mut random);
        let queries = queries(visible.len(), head_dim, &mut random);
        let visible: Vec<_> = visible.iter().map(|(start, end)| part(positions, *start, *end)).collect();
        check_rows(Kernels::new(isa).unwrap(), &cached, &queries, &visible, run, &format!("{format:?} of {positions}"));
    }
}
