//! Both storages through the same questions.

use candle_core::{Device, Tensor};
use candle_phi_kernels::PAGE_TOKENS;

use super::*;
use crate::ErrorKind;
use crate::config::Architecture;

const SEQ_DIM: usize = 2;
/// Positions that tensors grow by.
const GROWTH_TOKENS: usize = 256;

fn config() -> PhiConfig {
    PhiConfig {
        architecture: Architecture::Phi3,
        context_length: 1000,
        embedding_length: 8,
        feed_forward_length: 8,
        block_count: 1,
        head_count: 2,
        head_count_kv: 2,
        head_dim: 4,
        norm_epsilon: 1e-5,
        rope_dimension_count: 4,
        rope_freq_base: 10_000.0,
        interleaved_rope: false,
        original_context_length: 1000,
        has_rope_factors: false,
        rope_attention_factor: 1.0,
        sliding_window: None,
        vocabulary_size: 16,
    }
}

fn tensors(config: &PhiConfig, max_len: usize, dtype: KvDtype) -> KvCache {
    KvCache::new(config, max_len, Storage::Tensors(TensorCache::new(config, max_len, dtype).unwrap()))
}

fn pages(config: &PhiConfig, max_len: usize, dtype: KvDtype) -> KvCache {
    KvCache::new(config, max_len, Storage::Pages(PageCache::new(config, dtype).unwrap()))
}

fn random(seq: usize) -> Tensor {
    Tensor::randn(0f32, 1.0, (1, 2, seq, 4), &Device::Cpu).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
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
        let (layer, shape) = cache.pages().unwrap().layer(0).unwrap();
        let value = [position as f32; 4];
        layer.page_mut(position, shape).unwrap().write(1, position % PAGE_TOKENS, &value, &value);
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
    assert!(TensorCache::new(&config(), 10, KvDtype::Q8_0).is_err());
}
