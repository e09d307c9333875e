//! Attention at every level against a plain softmax in double precision.

#![allow(clippy::single_range_in_vec_init, reason = "a row sees one range")]
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::indexing_slicing, reason = "tests")]

use std::ops::Range;
use std::sync::Arc;

use half::f16;

use crate::matmul_tests::Random;
use crate::{Attended, Isa, Kernels, KvFormat, KvPage, PAGE_TOKENS, Queries};

pub(crate) const FORMATS: [KvFormat; 3] = [KvFormat::F32, KvFormat::F16, KvFormat::Q8];
const HEADS: usize = 2;
/// The head that is asked for; the other has values that would be noticed.
const HEAD: usize = 1;

fn head_dims(format: KvFormat) -> impl Iterator<Item = usize> {
    [4, 16, 64, 80, 96, 128usize].into_iter().filter(move |dim| format != KvFormat::Q8 || dim.is_multiple_of(32))
}

fn row(random: &mut Random, len: usize) -> Vec<f32> {
    (0..len).map(|_| random.float() * 2.0).collect()
}

/// What a format keeps of a row.
fn as_stored(format: KvFormat, row: &[f32]) -> Vec<f32> {
    match format {
        KvFormat::F32 => row.to_vec(),
        KvFormat::F16 => row.iter().map(|x| f16::from_f32(*x).to_f32()).collect(),
        KvFormat::Q8 => row
            .chunks(32)
            .flat_map(|block| {
                let largest = block.iter().fold(0f32, |a, b| a.max(b.abs()));
                let scale = f16::from_f32(largest / 127.0).to_f32();
                // A quotient that is nearly half-way must go the same way.
                block.iter().map(move |x| (x * (1.0 / scale)).round_ties_even().clamp(-127.0, 127.0) * scale)
            })
            .collect(),
    }
}

/// Keys and values of positions, in pages and as they are.
pub(crate) struct Cached {
    pages: Vec<Arc<KvPage>>,
    keys: Vec<Vec<f32>>,   // (positions, head_dim)
    values: Vec<Vec<f32>>, // (positions, head_dim)
}

impl Cached {
    pub(crate) fn new(format: KvFormat, head_dim: usize, positions: usize, random: &mut Random) -> Self {
        let rows = |random: &mut Random| (0..positions).map(|_| row(random, head_dim)).collect::<Vec<_>>();
        let (keys, values) = (rows(random), rows(random));
        let pages = pages_of(format, &keys, &values, 0..positions);
        let stored = |rows: Vec<Vec<f32>>| rows.iter().map(|row| as_stored(format, row)).collect();
        Self { pages, keys: stored(keys), values: stored(values) }
    }
}

/// Pages with these rows, written position by position in this order.
fn pages_of(
    format: KvFormat,
    keys: &[Vec<f32>],
    values: &[Vec<f32>],
    order: impl Iterator<Item = usize>,
) -> Vec<Arc<KvPage>> {
    let head_dim = keys[0].len();
    let count = keys.len().div_ceil(PAGE_TOKENS);
    let mut pages: Vec<_> = (0..count).map(|_| KvPage::new(format, HEADS, head_dim).unwrap()).collect();
    for position in order {
        let page = &mut pages[position / PAGE_TOKENS];
        let slot = position % PAGE_TOKENS;
        page.write(0, slot, &vec![1e3; head_dim], &vec![1e3; head_dim]);
        page.write(HEAD, slot, &keys[position], &values[position]);
    }
    pages.into_iter().map(Arc::new).collect()
}

/// Softmax in double precision over what a row sees, each value with how far single precision may be from it.
fn exact(query: &[f32], cached: &Cached, visible: &Range<usize>) -> Vec<(f64, f64)> {
    let products = |at: usize| query.iter().zip(&cached.keys[at]).map(|(q, k)| f64::from(*q) * f64::from(*k));
    let scores: Vec<f64> = visible.clone().map(|at| products(at).sum()).collect();
    // A score rounds with what it is the sum of, and a weight is as far off as its score.
    let added = visible.clone().map(|at| products(at).map(f64::abs).sum()).fold(0.0, f64::max);
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
    let sum: f64 = weights.iter().sum();
    (0..query.len())
        .map(|i| {
            let terms =
                visible.clone().zip(&weights).map(|(at, weight)| weight / sum * f64::from(cached.values[at][i]));
            let (sum, magnitude) =
                terms.fold((0.0, 0.0), |(sum, magnitude), term| (sum + term, magnitude + term.abs()));
            (sum, 1e-6 * (1.0 + added) * magnitude + 1e-7)
        })
        .collect()
}

/// Attention over the pages in runs of `run` pages that are merged, as a session cuts them.
fn attend_in_runs(
    kernels: Kernels,
    queries: &[f32],
    visible: &[Range<usize>],
    pages: &[Arc<KvPage>],
    run: usize,
) -> Vec<f32> {
    let parts: Vec<_> = pages
        .chunks(run)
        .enumerate()
        .map(|(index, pages)| {
            let (start, end) = (index * run * PAGE_TOKENS, (index * run + pages.len()) * PAGE_TOKENS);
            let seen =
                |range: &Range<usize>| range.start.clamp(start, end) - start..range.end.clamp(start, end) - start;
            let visible: Vec<_> = visible.iter().map(seen).collect();
            kernels.attend(Queries { values: queries, visible: &visible }, pages, HEAD)
        })
        .collect();
    merged(&parts.iter().collect::<Vec<_>>(), visible.len(), queries.len() / visible.len().max(1))
}

/// `(rows, head_dim)`
fn merged(parts: &[&Attended], rows: usize, head_dim: usize) -> Vec<f32> {
    let mut out = vec![0.0; rows * head_dim];
    Attended::merge(parts.iter().copied(), 0..rows, &mut out);
    out
}

/// Scores spread over about ±8, so that weights do over many powers of ten.
pub(crate) fn queries(rows: usize, head_dim: usize, random: &mut Random) -> Vec<f32> {
    let scale = 4.0 / (head_dim as f32).sqrt();
    (0..rows * head_dim).map(|_| random.float() * scale).collect()
}

/// What rows see of `positions`, in the patterns of a session and in others.
fn patterns(rows: usize, positions: usize) -> Vec<(&'static str, Vec<Range<usize>>)> {
    let behind = positions - rows;
    let each = |see: &dyn Fn(usize) -> Range<usize>| (0..rows).map(see).collect::<Vec<_>>();
    vec![
        ("all", each(&|_| 0..positions)),
        ("causal", each(&|row| 0..behind + row + 1)),
        ("causal from the beginning", each(&|row| 0..row + 1)),
        ("window", each(&|row| (behind + row + 1).saturating_sub(40)..behind + row + 1)),
        ("window of one", each(&|row| behind + row..behind + row + 1)),
        ("the last page", each(&|row| positions.saturating_sub(PAGE_TOKENS + row).min(positions - 1)..positions)),
        ("one here, one there", each(&|row| if row % 2 == 0 { 0..1 } else { positions - 1..positions })),
        ("apart", each(&|row| (row * 17) % positions..((row * 17) % positions + 1 + row * 5).min(positions))),
    ]
}

/// Checks what rows find in the pages, in runs of `run`.
pub(crate) fn check_rows(
    kernels: Kernels,
    cached: &Cached,
    queries: &[f32],
    visible: &[Range<usize>],
    run: usize,
    what: &str,
) {
    let head_dim = queries.len() / visible.len();
    let found = attend_in_runs(kernels, queries, visible, &cached.pages, run);
    assert_eq!(found.len(), queries.len());
    for (row, seen) in visible.iter().enumerate() {
        let at = row * head_dim..(row + 1) * head_dim;
        let expected = exact(&queries[at.clone()], cached, seen);
        for (found, (expected, tolerance)) in found[at].iter().zip(expected) {
            assert!(
                (f64::from(*found) - expected).abs() <= tolerance,
                "{} {what}, heads of {head_dim}, runs of {run} pages, row {row} of {visible:?}: expected {expected}, found \
                 {found}, tolerance {tolerance}",
                kernels.isa()
            );
        }
    }
}

fn check(kernels: Kernels, format: KvFormat, head_dim: usize, rows: usize, positions: usize) {
    let mut random = Random::new((head_dim * 1000 + rows * 10 + positions) as u64);
    let cached = Cached::new(format, head_dim, positions, &mut random);
    let queries = queries(rows, head_dim, &mut random);
    for (pattern, visible) in patterns(rows, positions) {
        for run in [cached.pages.len(), 1, 2] {
            let what = format!("{format:?}, {pattern} of {positions}");
            check_rows(kernels, &cached, &queries, &visible, run, &what);
        }
    }
}

#[test]
fn every_level_attends_as_double_precision_does() {
    for isa in Isa::available() {
        let kernels = Kernels::new(isa).unwrap();
        for format in FORMATS {
            for head_dim in head_dims(format) {
                for rows in 1..=9 {
                    for positions in [9, 32, 33, 100] {
                        check(kernels, format, head_dim, rows, positions);
                    }
                }
                check(kernels, format, head_dim, 17, 70);
            }
        }
    }
}

#[test]
fn rows_that_see_nothing_leave_it_to_other_pages() {
    let (head_dim, positions) = (32, 3 * PAGE_TOKENS);
    for isa in Isa::available() {
        let kernels = Kernels::new(isa).unwrap();
        for format in FORMATS {
            let mut random = Random::new(3);
            let cached = Cached::new(format, head_dim, positions, &mut random);
            for rows in 1..=9 {
                let queries = queries(rows, head_dim, &mut random);
                let blind =
                    kernels.attend(Queries { values: &queries, visible: &vec![7..7; rows] }, &cached.pages, HEAD);
                let none = kernels.attend(Queries { values: &queries, visible: &vec![0..0; rows] }, &[], HEAD);
                let seeing: Vec<_> = (0..rows).map(|row| row * 9..row * 9 + 2).collect();
                let seeing = kernels.attend(Queries { values: &queries, visible: &seeing }, &cached.pages, HEAD);
                let merged = |parts: &[&Attended]| merged(parts, rows, head_dim);
                let alone = merged(&[&seeing]);
                assert!(alone.iter().all(|value| value.is_finite()));
                assert_eq!(merged(&[&blind, &none, &seeing]), alone);
                assert_eq!(merged(&[&seeing, &blind]), alone);
            }
        }
    }
}

#[test]
fn pages_are_the_same_in_whatever_order_positions_are_written() {
    let (head_dim, positions) = (64, 50);
    for format in FORMATS {
        let mut random = Random::new(5);
        let rows = |random: &mut Random| (0..positions).map(|_| row(random, head_dim)).collect::<Vec<_>>();
        let (keys, values, others) = (rows(&mut random), rows(&mut random), rows(&mut random));
        let in_order = pages_of(format, &keys, &values, 0..positions);
        let backwards = pages_of(format, &keys, &values, (0..positions).rev());
        let crossed = pages_of(format, &keys, &values, (0..positions).map(|at| at * 7 % positions));
        // What a position held before is gone.
        let mut rewritten = pages_of(format, &others, &others, 0..positions);
        for position in (0..positions).rev() {
            let page = Arc::make_mut(&mut rewritten[position / PAGE_TOKENS]);
            page.write(HEAD, position % PAGE_TOKENS, &keys[position], &values[position]);
        }
        let queries = queries(2, head_dim, &mut random);
        let visible = [0..positions, 3..40];
        let kernels = Kernels::best();
        let expected = attend_in_runs(kernels, &queries, &visible, &in_order, 8);
        for pages in [backwards, crossed, rewritten] {
            assert_eq!(attend_in_runs(kernels, &queries, &visible, &pages, 8), expected, "{format:?}");
        }
    }
}

#[test]
fn a_copy_of_a_page_goes_its_own_way() {
    let mut random = Random::new(11);
    for format in FORMATS {
        let cached = Cached::new(format, 32, 20, &mut random);
        let queries = queries(1, 32, &mut random);
        let attend =
            |page: &KvPage| attend_in_runs(Kernels::best(), &queries, &[0..20], &[Arc::new(page.clone())], 1);
        let before = attend(&cached.pages[0]);
        let mut copy = KvPage::clone(&cached.pages[0]);
        copy.write(HEAD, 4, &row(&mut random, 32), &row(&mut random, 32));
        assert_eq!(attend(&cached.pages[0]), before);
        assert_ne!(attend(&copy), before);
    }
}

/// A key that is not a number makes the rows that see it not a number, wherever it stands, and no others.
#[test]
fn a_key_that_is_not_a_number_is_not_lost() {
    let (head_dim, positions) = (32, 2 * PAGE_TOKENS);
    for isa in Isa::available() {
        let kernels = Kernels::new(isa).unwrap();
        for format in FORMATS {
            let mut random = Random::new(13);
            let cached = Cached::new(format, head_dim, positions, &mut random);
            for bad in [0, 1, 15, 16, 17, 31, 32, 47, 48, 63] {
                let mut pages = cached.pages.clone();
                let mut key = cached.keys[bad].clone();
                key[bad % head_dim] = f32::NAN;
                let page = Arc::make_mut(&mut pages[bad / PAGE_TOKENS]);
                page.write(HEAD, bad % PAGE_TOKENS, &key, &cached.values[bad]);
                for rows in [1, 2, 3, 4, 5, 9] {
                    let queries = queries(rows, head_dim, &mut random);
                    for (pattern, visible) in patterns(rows, positions).into_iter().chain([
                        ("the bad one and what follows", vec![bad..positions; rows]),
                        ("the bad one and what precedes", vec![0..bad + 1; rows]),
                    ]) {
                        for run in [1, 2] {
                            let found = attend_in_runs(kernels, &queries, &visible, &pages, run);
                            for (found, visible) in found.chunks_exact(head_dim).zip(&visible) {
                                let expected = visible.contains(&bad);
                                assert!(
                                    found.iter().all(|value| value.is_nan() == expected),
                                    "{isa} {format:?} {pattern}, position {bad} of {visible:?}: {found:?}"
                                );
                            }
                        }
                    }
                }
            }
        }
    }
}

/// What a page held before, behind the last position or before the window, has no say, be it what it may.
#[test]
fn what_no_row_sees_does_not_matter() {
    let (head_dim, positions) = (32, 2 * PAGE_TOKENS);
    for isa in Isa::available() {
        let kernels = Kernels::new(isa).unwrap();
        for format in FORMATS {
            let mut random = Random::new(17);
            let cached = Cached::new(format, head_dim, positions, &mut random);
            let seen = 10..40;
            let mut pages = cached.pages.clone();
            for position in (0..positions).filter(|position| !seen.contains(position)) {
                let page = Arc::make_mut(&mut pages[position / PAGE_TOKENS]);
                let bad = vec![if position % 2 == 0 { f32::NAN } else { f32::INFINITY }; head_dim];
                page.write(HEAD, position % PAGE_TOKENS, &bad, &bad);
            }
            for rows in 1..=9 {
                let queries = queries(rows, head_dim, &mut random);
                let visible: Vec<_> = (0..rows).map(|row| seen.start + row..seen.end - row).collect();
                let expected = attend_in_runs(kernels, &queries, &visible, &cached.pages, 2);
                let found = attend_in_runs(kernels, &queries, &visible, &pages, 2);
                assert_eq!(found, expected, "{isa} {format:?}, {rows} rows");
            }
        }
    }
}

#[test]
fn eight_bits_keep_values_to_half_a_step() {
    let head_dim = 96;
    let mut random = Random::new(19);
    for scale in [1.0, 1e-3, 3e4] {
        let value: Vec<f32> = row(&mut random, head_dim).iter().map(|x| x * scale).collect();
        let mut page = KvPage::new(KvFormat::Q8, 1, head_dim).unwrap();
        page.write(0, 0, &value, &value);
        // Attention to one position is its value.
        let zeros = vec![0.0; head_dim];
        let one = Kernels::best().attend(Queries { values: &zeros, visible: &[0..1] }, &[Arc::new(page)], 0);
        for (block, found) in value.chunks(32).zip(merged(&[&one], 1, head_dim).chunks(32)) {
            let largest = block.iter().fold(0f32, |a, b| a.max(b.abs()));
            // The scale has eleven bits.
            let step = largest / 127.0 * (1.0 + 1.0 / 1024.0);
            assert!(block.iter().zip(found).all(|(a, b)| (a - b).abs() <= 0.51 * step), "{block:?} {found:?}");
        }
    }
}
