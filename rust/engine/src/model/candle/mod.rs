//! The model on Candle's tensors and operations: on CUDA and Metal, and on the CPU as the reference.

mod attention;
mod linear;
mod norm;
mod rotation;

use std::sync::Arc;

use candle_core::{Device, Module, Tensor};

use self::attention::{Visibility, attend};
use self::linear::Linear;
use self::norm::Norm;
use self::rotation::Rotation;
use super::executor::{Executor, GateAndUp, Projections, Start};
use super::weights::NormWeights;
use crate::cache::{KvCache, NewPositions, Storage, TensorCache};
use crate::config::PhiConfig;
use crate::device::{DeviceGuard, OpenDevice, waits_before_layer};
use crate::gguf::Gguf;
use crate::{KvDtype, Result};

/// Computes with Candle, on one device.
pub(crate) struct CandleExecutor {
    device: OpenDevice,
}

impl CandleExecutor {
    pub(super) fn new(device: &OpenDevice) -> Self {
        Self { device: device.clone() }
    }
}

impl Drop for CandleExecutor {
    /// A decoder drops its executor last: the weights' memory goes back to the system.
    fn drop(&mut self) {
        self.device.finish();
    }
}

/// A forward pass.
pub(crate) struct CandlePass<'a> {
    config: &'a PhiConfig,
    cache: &'a mut KvCache,
    positions: NewPositions,
    rotation: Rotation,
    visibility: Visibility,
    _guard: DeviceGuard<'a>,
}

impl Executor for CandleExecutor {
    type Linear = Linear;
    type Norm = Norm;
    type Hidden = Tensor; // (1, seq, embedding)
    type Input = Tensor; // (1, seq, in)
    type Output = Tensor; // (1, seq, out)
    type Pass<'a> = CandlePass<'a>;

    fn load_linear(&self, gguf: &Arc<Gguf>, name: &str, out: usize, r#in: usize) -> Result<Linear> {
        let _guard = self.device.lock();
        Linear::load(gguf, name, out, r#in, self.device.candle())
    }

    fn load_norm(&self, weights: NormWeights) -> Result<Norm> {
        let _guard = self.device.lock();
        Norm::new(weights, self.device.candle())
    }

    fn new_cache(&self, config: &PhiConfig, max_len: usize, dtype: KvDtype) -> Result<KvCache> {
        let tensors = TensorCache::new(config, max_len, dtype, &self.device)?;
        Ok(KvCache::new(config, max_len, Storage::Tensors(tensors)))
    }

    fn begin<'a>(&'a self, start: Start<'a>) -> Result<CandlePass<'a>> {
        self.device.refuse_after_fork()?;
        let guard = self.device.lock();
        let Start { config, cache, positions, rope, .. } = start;
        let NewPositions { past, seq, .. } = positions;
        let device = self.device.candle();
        Ok(CandlePass {
            config,
            cache,
            positions,
            rotation: Rotation::new(&rope, device)?,
            visibility: Visibility::causal(past, seq, config.sliding_window, device)?,
            _guard: guard,
        })
    }

    fn hidden(&self, pass: &mut CandlePass<'_>, rows: Vec<f32>) -> Result<Tensor> {
        Ok(Tensor::from_vec(rows, (1, pass.positions.seq, pass.config.embedding_length), self.device.candle())?)
    }

    fn norm(&self, _: &mut CandlePass<'_>, x: &Tensor, norm: &Norm) -> Result<Tensor> {
        norm.forward(x)
    }

    fn linear(&self, _: &mut CandlePass<'_>, x: &Tensor, layer: &Linear) -> Result<Tensor> {
        layer.forward(x)
    }

    fn attend(&self, pass: &mut CandlePass<'_>, layer: usize, projections: Projections<Tensor>) -> Result<Tensor> {
        let config = pass.config;
        let (heads, heads_kv) = (config.head_count, config.head_count_kv);
        let keys_bytes = size_of::<f32>() * heads_kv * config.head_dim * pass.positions.visible();
        if waits_before_layer(self.device.spec(), pass.positions.seq, keys_bytes) {
            self.device.candle().synchronize()?;
        }
        let (q, k, v) = match projections {
            Projections::Split { q, k, v } => (q, k, v),
            Projections::Fused(qkv) => {
                let part =
                    |first: usize, count: usize| qkv.narrow(2, first * config.head_dim, count * config.head_dim);
                (part(0, heads)?, part(heads, heads_kv)?, part(heads + heads_kv, heads_kv)?)
            }
        };
        let by_head =
            |x: &Tensor, count: usize| x.reshape((1, pass.positions.seq, count, config.head_dim))?.transpose(1, 2);
        let q = pass.rotation.apply(&by_head(&q, heads)?)?; // (1, head_count, seq, head_dim)
        let k = pass.rotation.apply(&by_head(&k, heads_kv)?)?; // (1, head_count_kv, seq, head_dim)
        let v = by_head(&v, heads_kv)?; // (1, head_count_kv, seq, head_dim)
        let (k, v) = pass.cache.tensors()?.append(layer, &k, &v, pass.positions)?;
        attend(&q, &k, &v, &pass.visibility, config)
    }

    fn swiglu(&self, _: &mut CandlePass<'_>, x: &Tensor, gate_and_up: &GateAndUp<Linear>) -> Result<Tensor> {
        Ok(match gate_and_up {
            GateAndUp::Fused(both) => candle_nn::ops::swiglu(&both.forward(x)?)?,
            GateAndUp::Split { gate, up } => {
                (candle_nn::Activation::Silu.forward(&gate.forward(x)?)? * up.forward(x)?)?
            }
        })
    }

    fn gelu(&self, _: &mut CandlePass<'_>, x: &Tensor, up: &Linear) -> Result<Tensor> {
        // By tanh (arXiv:1606.08415), `gelu_new` in the models' configurations.
        Ok(up.forward(x)?.gelu()?)
    }

    fn add(&self, _: &mut CandlePass<'_>, x: Tensor, outputs: &[Tensor]) -> Result<Tensor> {
        outputs.iter().try_fold(x, |x, output| Ok((x + output)?))
    }

    fn last(&self, x: &Tensor) -> Result<Tensor> {
        let (_, seq, _) = x.dims3()?;
        Ok(x.narrow(1, seq - 1, 1)?)
    }

    fn values(&self, output: Tensor) -> Result<Vec<f32>> {
        Ok(output.to_device(&Device::Cpu)?.flatten_all()?.to_vec1()?)
    }

    fn end(&self, pass: CandlePass<'_>) {
        pass.cache.advance(pass.positions.seq);
    }
}
