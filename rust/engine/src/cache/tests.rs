//! Both storages through the same questions.

use candle_core::{DType, Device, Tensor};
use candle_phi_kernels::PAGE_TOKENS;

use super::*;
use crate::ErrorKind;
use crate::device::OpenDevice;

const SEQ_DIM: usize = 2;
/// Positions that tensors grow by.
const GROWTH_TOKENS: usize = 256;

fn config() -> PhiConfig {
    PhiConfig::tiny()
}

fn tensors(config: &PhiConfig, max_len: usize, dtype: KvDtype) -> KvCache {
    KvCache::new(
        config,
        max_len,
        Storage::Tensors(TensorCache::new(config, max_len, dtype, &OpenDevice::cpu()).unwrap()),
    )
}

fn pages(config: &PhiConfig, max_len: usize, dtype: KvDtype) -> KvCache {
    KvCache::new(config, max_len, Storage::Pages(PageCache::new(config, dtype).unwrap()))
}

fn random(seq: usize) -> Tensor {
    Tensor::randn(0f32, 1.0, (1, 2, seq, 4), &Device::Cpu).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Appends to layer 0 and returns all keys that are seen.
fn append(cache: &mut KvCache, new: &Tensor) -> Tensor {
    let positions = cache.new_positions(new.dim(SEQ_DIM).unwrap()).unwrap();
    cache.tensors().unwrap().append(0, new, new, positions).unwrap().0
}

/// Has pages for `seq` new positions.
fn write(cache: &mut KvCache, seq: usize) {
    let NewPositions { past, .. } = cache.new_positions(seq).unwrap();
    for position in past..past + seq {
        let (layer, new_pages) = cache.pages().unwrap().layer(0).unwrap();
        let value = [position as f32; 4];
        layer.page_mut(position, new_pages).unwrap().write(1, position % PAGE_TOKENS, &value, &value);
    }
    cache.advance(seq);
}

#[test]
fn what_was_appended_comes_back_across_growth_and_truncation() {
    let mut cache = tensors(&config(), 1000, KvDtype::F32);
    let (a, b, c) = (random(200), random(300), random(1));
    append(&mut cache, &a);
    cache.advance(200);
    append(&mut cache, &b);
    cache.advance(300);
    cache.truncate(200);
    let mut fork = cache.fork().unwrap();
    append(&mut fork, &b);
    let keys = append(&mut cache, &c);
    assert_eq!(values(&keys), values(&Tensor::cat(&[&a, &c], SEQ_DIM).unwrap()));
}

#[test]
fn an_append_without_advance_leaves_nothing() {
    let mut cache = tensors(&config(), 1000, KvDtype::F32);
    append(&mut cache, &random(5));
    let kept = random(3);
    assert_eq!(values(&append(&mut cache, &kept)), values(&kept));
}

#[test]
fn memory_is_taken_in_steps_and_never_past_the_maximum() {
    let mut cache = tensors(&config(), 300, KvDtype::F16);
    let bytes_per_token = 2 * 2 * 2 * 4;
    append(&mut cache, &random(1));
    cache.advance(1);
    assert_eq!(cache.size_bytes(), GROWTH_TOKENS * bytes_per_token);
    append(&mut cache, &random(299));
    cache.advance(299);
    assert_eq!(cache.size_bytes(), 300 * bytes_per_token);
    let error = cache.new_positions(1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ContextLength { prompt_tokens: 301, context_length: 300 });
}

#[test]
fn with_a_window_memory_stays_bounded_and_what_is_seen_stays() {
    let config = PhiConfig { sliding_window: Some(100), ..config() };
    let mut cache = tensors(&config, 100_000, KvDtype::F32);
    let mut all = Vec::new();
    for step in 0..60 {
        let new = random(if step % 7 == 0 { 90 } else { 17 });
        let seq = new.dim(SEQ_DIM).unwrap();
        let first = (cache.len() + 1).saturating_sub(100);
        all.push(new.clone());
        let keys = append(&mut cache, &new);
        cache.advance(seq);
        let expected = Tensor::cat(&all, SEQ_DIM).unwrap().narrow(SEQ_DIM, first, cache.len() - first).unwrap();
        assert_eq!(values(&keys), values(&expected));
    }
    // Two tensors of 2 heads of 4 dimensions.
    assert!(cache.size_bytes() <= 2 * 2 * 4 * 4 * (100 + 90 + 2 * GROWTH_TOKENS), "{}", cache.size_bytes());
    assert!(cache.can_truncate(cache.len()));
    assert!(!cache.can_truncate(100));
    cache.restart(FactorSet::Long);
    assert!(cache.can_truncate(0));
    assert_eq!(values(&append(&mut cache, &all[0])), values(&all[0]));
}

#[test]
fn pages_are_as_many_as_the_positions_need() {
    let mut cache = pages(&config(), 1000, KvDtype::F16);
    assert_eq!(cache.size_bytes(), 0);
    write(&mut cache, 1);
    let page = cache.size_bytes();
    write(&mut cache, PAGE_TOKENS);
    assert_eq!(cache.size_bytes(), 2 * page);
    cache.truncate(PAGE_TOKENS);
    assert_eq!((cache.len(), cache.size_bytes()), (PAGE_TOKENS, page));
    cache.clear();
    assert_eq!((cache.len(), cache.size_bytes()), (0, 0));
}

#[test]
fn a_page_that_there_is_no_memory_for_is_an_error_and_takes_nothing() {
    let mut cache =
        pages(&PhiConfig { head_count_kv: 1 << 22, head_dim: 1 << 22, ..config() }, 1000, KvDtype::F32);
    let (layer, new_pages) = cache.pages().unwrap().layer(0).unwrap();
    let error = layer.page_mut(0, new_pages).err().unwrap();
    assert!(matches!(error.kind(), ErrorKind::InsufficientMemory { needed_bytes, .. } if needed_bytes > 1 << 48));
    assert_eq!(cache.size_bytes(), 0);
}

#[test]
fn what_growing_will_take_is_known_before() {
    let mut paged = pages(&config(), 1000, KvDtype::F16);
    write(&mut paged, 40);
    let page = paged.size_bytes() / 2;
    assert_eq!(paged.growth_bytes(24), 0);
    assert_eq!(paged.growth_bytes(25), page);
    let fork = paged.fork().unwrap();
    // The page that is written to is copied first.
    assert_eq!((paged.growth_bytes(1), paged.fork_bytes()), (page, 0));
    drop(fork);
    let mut moved = tensors(&config(), 1000, KvDtype::F16);
    append(&mut moved, &random(200));
    moved.advance(200);
    let before = moved.size_bytes();
    assert_eq!((moved.growth_bytes(56), moved.fork_bytes()), (0, before));
    let growth = moved.growth_bytes(57);
    append(&mut moved, &random(57));
    // The old tensors are there while the new ones are filled.
    assert_eq!(growth, moved.size_bytes());
    assert_eq!(moved.growth_bytes(10_000), 0);
}

#[test]
fn rows_go_from_one_cache_into_another_run_by_run() {
    let windowed = PhiConfig { sliding_window: Some(100), ..config() };
    assert_eq!(runs(&(30..70)).collect::<Vec<_>>(), [30..32, 32..64, 64..70]);
    assert_eq!(runs(&(5..5)).count(), 0);
    let mut cache = tensors(&windowed, 1000, KvDtype::F32);
    for _ in 0..6 {
        append(&mut cache, &random(90));
        cache.advance(90);
    }
    let all = cache.positions();
    // It begins in the middle of a page.
    assert!(!all.start.is_multiple_of(PAGE_TOKENS) && all.end == 540, "{all:?}");
    let rows = |cache: &KvCache| {
        let mut bytes = Vec::new();
        runs(&all).for_each(|run| cache.rows_to_bytes(0, run, &mut bytes).unwrap());
        bytes
    };
    let original = rows(&cache);
    assert_eq!(original.len(), rows_bytes(&windowed, KvDtype::F32, all.len()));
    for mut other in [pages(&windowed, 1000, KvDtype::F32), tensors(&windowed, 1000, KvDtype::F32)] {
        other.begin_restoring(&all, FactorSet::Long);
        let mut rest = original.as_slice();
        for run in runs(&all) {
            let (bytes, behind) = rest.split_at(rows_bytes(&windowed, KvDtype::F32, run.len()));
            other.rows_from_bytes(0, &all, run, bytes).unwrap();
            rest = behind;
        }
        assert_eq!(rows(&other), original);
        assert_eq!((other.positions(), other.rope_factors()), (all.clone(), FactorSet::Long));
        assert!(other.can_truncate(540) && !other.can_truncate(all.start + 50));
        other.restart(FactorSet::Short);
        assert!(other.can_truncate(0) && other.positions().is_empty());
    }
}

#[test]
fn a_fork_shares_pages_until_one_side_writes() {
    let mut cache = pages(&config(), 1000, KvDtype::F16);
    write(&mut cache, 3 * PAGE_TOKENS + 5);
    let mut fork = cache.fork().unwrap();
    let addresses = |cache: &mut KvCache| {
        let (layer, _) = cache.pages().unwrap().layer(0).unwrap();
        layer.pages().iter().map(std::sync::Arc::as_ptr).collect::<Vec<_>>()
    };
    assert_eq!(addresses(&mut cache), addresses(&mut fork));
    write(&mut fork, 1);
    let (kept, forked) = (addresses(&mut cache), addresses(&mut fork));
    assert_eq!(kept[..3], forked[..3]);
    assert_ne!(kept[3], forked[3]);
    assert_eq!((cache.len(), fork.len()), (3 * PAGE_TOKENS + 5, 3 * PAGE_TOKENS + 6));
}

#[test]
fn pages_that_were_let_go_come_again_and_no_more_of_them_are_kept_than_two_of_a_layer() {
    let mut cache = pages(&config(), 1000, KvDtype::F16);
    let spare = |cache: &mut KvCache| cache.pages().unwrap().spare_pages();
    let most = 2 * config().block_count;
    write(&mut cache, (most + 3) * PAGE_TOKENS);
    cache.truncate((most + 2) * PAGE_TOKENS);
    assert_eq!(spare(&mut cache), 1);
    cache.restart(FactorSet::Short);
    assert_eq!(spare(&mut cache), most);
    write(&mut cache, 2 * PAGE_TOKENS);
    assert_eq!((spare(&mut cache), cache.fork().unwrap().pages().unwrap().spare_pages()), (most - 2, 0));
    // What a fork has too is not let go.
    let fork = cache.fork().unwrap();
    cache.clear();
    assert_eq!((spare(&mut cache), fork.len()), (most - 2, 2 * PAGE_TOKENS));
}

#[test]
fn with_a_window_pages_that_nobody_sees_are_given_back() {
    let config = PhiConfig { sliding_window: Some(100), ..config() };
    let mut cache = pages(&config, 100_000, KvDtype::F16);
    write(&mut cache, 1);
    let page = cache.size_bytes();
    for step in 0..200 {
        write(&mut cache, if step % 7 == 0 { 90 } else { 17 });
        assert!(cache.size_bytes() <= page * ((100 + KEPT_BEHIND_WINDOW) / PAGE_TOKENS + 2));
    }
    assert!(cache.can_truncate(cache.len() - KEPT_BEHIND_WINDOW));
    assert!(!cache.can_truncate(100));
    cache.restart(FactorSet::Long);
    assert!(cache.can_truncate(0));
    write(&mut cache, 2);
}

#[test]
fn eight_bits_need_heads_of_whole_blocks() {
    let error = PageCache::new(&config(), KvDtype::Q8_0).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidOption);
    assert!(TensorCache::new(&config(), 10, KvDtype::Q8_0, &OpenDevice::cpu()).is_err());
}
