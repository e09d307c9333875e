//! Rules that keep GPUs away from what is known to go wrong there. They look at numbers only, so that they can be tested
//! where there is no GPU.

use super::DeviceSpec;
use crate::{Error, Result};

/// From this many new positions on, a layer takes a GPU so long that a caller may want to cancel it.
const LONG_PASS_TOKENS: usize = 32;
/// How many attention scores there are at once, at most: 1 GB of them in f32, four times over. Candle's softmax on CUDA
/// counts them in 32 bits with a sign.
const MOST_SCORES: usize = 1 << 28;

/// What is known to go wrong on a kind of device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Faults {
    /// From how many cached positions on Candle computes garbage.
    garbage_from: Option<Fault>,
    /// From how many bytes of a tensor of cached keys in f32 on each layer waits for the one before.
    wait_from_bytes: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Fault {
    tokens: usize,
    issue: &'static str,
}

impl Faults {
    pub(super) const NONE: Self = Self { garbage_from: None, wait_from_bytes: None };
    /// Generation with quantized weights turns into garbage once the cache is this many positions deep. At that depth, with
    /// the 8 heads of 128 values of the report, a tensor of cached keys in f32 has this many bytes; a model with more heads
    /// has as many earlier. Waiting is what made the garbage disappear, which suggests that one step overtakes another.
    pub(super) const METAL: Self =
        Self { garbage_from: Some(Fault { tokens: 8192, issue: "candle#3705" }), wait_from_bytes: Some(1 << 25) };
}

/// Fails for a context that is longer than what the device computes rightly.
///
/// # Errors
/// [`InvalidOption`](crate::ErrorKind::InvalidOption).
pub(crate) fn check_context(device: DeviceSpec, n_ctx: usize) -> Result<()> {
    match device.kind().and_then(|kind| kind.faults.garbage_from) {
        Some(Fault { tokens, issue }) if n_ctx >= tokens => Err(Error::invalid_option(
            "n_ctx",
            format_args!(
                "must be from 1 to {} on the device \"{device}\", where Candle computes wrong values from a depth of \
                 {tokens} positions on ({issue}), got {n_ctx}; set device to \"cpu\" for a longer context",
                tokens - 1
            ),
        )),
        _ => Ok(()),
    }
}

/// Whether the device is to have done all it was given before another layer is begun, of `seq` new positions, with cached
/// keys of `keys_bytes` in f32.
///
/// A GPU is given work faster than it computes. Long passes wait for it, so that cancelling stops them within a layer or
/// two.
pub(crate) fn waits_before_layer(device: DeviceSpec, seq: usize, keys_bytes: usize) -> bool {
    device.kind().filter(|kind| kind.is_gpu).is_some_and(|kind| {
        seq >= LONG_PASS_TOKENS || kind.faults.wait_from_bytes.is_some_and(|bytes| keys_bytes >= bytes)
    })
}

/// How many tokens of a prompt go through a GPU at once: up to `largest`, but no more scores than fit. It follows from the
/// model and the session alone, so that the same prompt is always cut the same way.
pub(crate) fn prefill_chunk_on_gpu(head_count: usize, n_ctx: usize, largest: usize) -> usize {
    let most = MOST_SCORES / head_count.saturating_mul(n_ctx).max(1);
    (most.clamp(1, largest) + 1).next_power_of_two() / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    const CUDA: DeviceSpec = DeviceSpec::Cuda(0);
    const METAL: DeviceSpec = DeviceSpec::Metal(0);

    #[test]
    fn a_context_on_metal_ends_before_the_depth_at_which_candle_computes_garbage() {
        for device in [METAL, DeviceSpec::Metal(1)] {
            check_context(device, 8191).unwrap();
            let error = check_context(device, 8192).unwrap_err();
            assert_eq!((error.kind(), error.option()), (ErrorKind::InvalidOption, Some("n_ctx")));
            assert!(error.to_string().contains("8191"), "{error}");
            assert!(error.to_string().contains("candle#3705"), "{error}");
        }
        for device in [CUDA, DeviceSpec::Cpu] {
            check_context(device, usize::MAX).unwrap();
        }
    }

    /// Phi-3-mini has 32 heads of 96, and as many bytes of keys at 2,731 positions.
    #[test]
    fn metal_waits_before_each_layer_where_keys_are_as_large_as_those_that_went_wrong() {
        for (heads, head_dim, first) in [(8, 128, 8192), (10, 128, 6554), (32, 96, 2731)] {
            let keys_bytes = |visible: usize| 4 * heads * head_dim * visible;
            assert!(!waits_before_layer(METAL, 1, keys_bytes(first - 1)));
            assert!(waits_before_layer(METAL, 1, keys_bytes(first)));
            assert!(!waits_before_layer(CUDA, 1, keys_bytes(first)));
        }
    }

    #[test]
    fn a_long_prompt_waits_for_the_gpu_and_a_generated_token_does_not() {
        for device in [CUDA, METAL] {
            assert!(waits_before_layer(device, 512, 0));
            assert!(!waits_before_layer(device, 1, 0));
        }
        assert!(!waits_before_layer(DeviceSpec::Cpu, 512, usize::MAX));
    }

    #[test]
    fn a_prompt_is_cut_so_that_its_scores_fit() {
        for (head_count, n_ctx, chunk) in [
            (32, 4096, 512),
            (32, 16_384, 512),
            (32, 131_072, 64),
            (24, 131_072, 64),
            (40, 16_384, 256),
            (4, 1, 512),
        ] {
            assert_eq!(
                prefill_chunk_on_gpu(head_count, n_ctx, 512),
                chunk,
                "{head_count} heads, {n_ctx} positions"
            );
        }
        for (head_count, n_ctx) in [(usize::MAX, 2), (1, usize::MAX), (0, 0), (1 << 20, 1 << 20)] {
            assert!((1..=512).contains(&prefill_chunk_on_gpu(head_count, n_ctx, 512)));
        }
    }
}
