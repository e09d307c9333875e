//! Causal attention over cached keys and values, grouped and windowed.

use candle_core::{DType, Device, Tensor};

use crate::Result;
use crate::config::PhiConfig;

/// Which cached positions the new ones see: a run of `seq` positions behind `past` cached ones.
pub(super) struct Visibility {
    mask: Option<Tensor>, // (seq, past + seq - first), 0 or -inf; None where all see all
}

impl Visibility {
    /// A position sees itself and what is before it, `window` positions in all where there is a window.
    pub(super) fn causal(past: usize, seq: usize, window: Option<usize>, device: &Device) -> Result<Self> {
        let seen_from = |position: usize| window.map_or(0, |window| (position + 1).saturating_sub(window));
        let first = seen_from(past);
        if seq == 1 {
            return Ok(Self { mask: None });
        }
        let end = past + seq;
        let mut mask = Vec::with_capacity(seq * (end - first));
        for query in past..end {
            let visible = seen_from(query)..=query;
            mask.extend((first..end).map(|key| if visible.contains(&key) { 0.0 } else { f32::NEG_INFINITY }));
        }
        Ok(Self { mask: Some(Tensor::from_vec(mask, (seq, end - first), device)?) })
    }
}

/// `softmax(q kᵀ / sqrt(head_dim) + mask) v`, heads side by side: `(1, seq, head_count * head_dim)`
pub(super) fn attend(
    queries: &Tensor, // (1, head_count, seq, head_dim), f32
    keys: &Tensor,    // (1, head_count_kv, visible, head_dim), in the cache's type
    values: &Tensor,  // (1, head_count_kv, visible, head_dim), in the cache's type
    visibility: &Visibility,
    config: &PhiConfig,
) -> Result<Tensor> {
    #[cfg(feature = "flash-attn")]
    if queries.device().is_cuda() && fits_flash(keys) {
        return flash_attend(queries, keys, values, config);
    }
    let (keys, values) = (keys.to_dtype(DType::F32)?, values.to_dtype(DType::F32)?);
    let (_, head_count, seq, head_dim) = queries.dims4()?;
    let (_, head_count_kv, visible, _) = keys.dims4()?;
    let scale = 1.0 / f64::from(config.head_dim as u32).sqrt();
    // The query heads that share a key head become rows of one product, so that no key is repeated in memory.
    let rows = (1, head_count_kv, head_count / head_count_kv * seq, head_dim);
    let queries = queries.reshape(rows)?;
    // Scaled after the product, as Candle's own model does: what is rounded differently here may end up a
    // hundredth of a logit apart once the next layer has rounded its activations to eight bits.
    let scores = (queries.matmul(&keys.t()?)? * scale)?; // (1, head_count_kv, group * seq, visible)
    let scores = scores.reshape((1, head_count, seq, visible))?;
    let scores = match &visibility.mask {
        Some(mask) => scores.broadcast_add(mask)?,
        None => scores,
    };
    let weights = candle_nn::ops::softmax_last_dim(&scores)?;
    let weights = weights.reshape((1, head_count_kv, head_count / head_count_kv * seq, visible))?;
    let mixed = weights.matmul(&values)?.reshape((1, head_count, seq, head_dim))?;
    Ok(mixed.transpose(1, 2)?.reshape((1, seq, head_count * head_dim))?)
}

/// Whether the cache is in half precision, and its heads have a size that flash attention has a kernel for. A cache in
/// f32 is for exactness.
#[cfg(feature = "flash-attn")]
fn fits_flash(keys: &Tensor) -> bool {
    keys.dtype() == DType::F16 && keys.dims().last().is_some_and(|head_dim| head_dim % 8 == 0 && *head_dim <= 256)
}

/// The same in one kernel (arXiv:2307.08691), in half precision. It lines the last query up with the last key, so that
/// its causal mask and its window are those of [`Visibility`].
#[cfg(feature = "flash-attn")]
fn flash_attend(queries: &Tensor, keys: &Tensor, values: &Tensor, config: &PhiConfig) -> Result<Tensor> {
    let (_, head_count, seq, head_dim) = queries.dims4()?;
    let scale = 1.0 / (config.head_dim as f32).sqrt();
    let before = config.sliding_window.map(|window| window - 1);
    // (1, heads, seq, head_dim) to (1, seq, heads, head_dim)
    let queries = queries.to_dtype(DType::F16)?.transpose(1, 2)?;
    let (keys, values) = (keys.transpose(1, 2)?, values.transpose(1, 2)?);
    let mixed = candle_flash_attn::flash_attn_windowed(&queries, &keys, &values, scale, before, Some(0))?;
    Ok(mixed.to_dtype(DType::F32)?.reshape((1, seq, head_count * head_dim))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(visibility: &Visibility) -> Vec<Vec<bool>> {
        let rows: Vec<Vec<f32>> = visibility.mask.as_ref().unwrap().to_vec2().unwrap();
        rows.iter().map(|row| row.iter().map(|value| *value == 0.0).collect()).collect()
    }

    #[test]
    fn a_position_sees_itself_and_what_is_before_it() {
        let visibility = Visibility::causal(1, 2, None, &Device::Cpu).unwrap();
        assert_eq!(seen(&visibility), [[true, true, false], [true, true, true]]);
    }

    #[test]
    fn a_window_of_two_sees_itself_and_one_before() {
        let visibility = Visibility::causal(3, 2, Some(2), &Device::Cpu).unwrap();
        assert_eq!(seen(&visibility), [[true, true, false], [false, true, true]]);
    }
}
