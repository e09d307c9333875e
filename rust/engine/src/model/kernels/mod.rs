//! The model on the project's own kernels, on the CPU.
//!
//! Each operation is a job of parts that the threads of a pass share out (`candle_phi_kernels::Threads`); what the parts
//! read they own a share of. Rows of one operation are gathered where the next one goes over them anyway.

mod attention;
mod linear;
mod matrix;

use std::ops::Range;
use std::sync::Arc;

use candle_phi_kernels::{ActivationForms, Activations, BufferPool, Kernels, Parts, Pass, Prepared, Products};

use self::linear::{Linear, forms_of};
use self::matrix::{Hidden, Input, Output, PART_ROWS, part_rows};
use super::executor::{Executor, GateAndUp, Projections, Start};
use super::rope::RopeTable;
use super::weights::NormWeights;
use crate::cache::{KvCache, NewPositions, PageCache, Storage};
use crate::config::PhiConfig;
use crate::gguf::Gguf;
use crate::{CancelToken, KvDtype, Result};

/// Computes with the kernels on weights in a file.
pub(crate) struct KernelExecutor {
    /// What the linear layers read.
    forms: ActivationForms,
}

impl KernelExecutor {
    pub(super) fn new(gguf: &Gguf) -> Self {
        Self { forms: forms_of(gguf) }
    }
}

/// A forward pass.
pub(crate) struct KernelPass<'a> {
    config: &'a PhiConfig,
    cache: &'a mut KvCache,
    positions: NewPositions,
    rope: Arc<RopeTable>,
    threads: Pass,
    kernels: Kernels,
    forms: ActivationForms,
    cancel: CancelToken,
    /// Buffers for products: those that an operation frees, the next one takes.
    pool: BufferPool,
}

impl KernelPass<'_> {
    /// Rows of activations made by `fill(row, values)`, in parts.
    fn input(&self, rows: usize, width: usize, fill: impl Fn(usize, &mut [f32]) + Send + Sync + 'static) -> Input {
        let (kernels, forms, cancel) = (self.kernels, self.forms, self.cancel.clone());
        let parts = self.threads.map(rows.div_ceil(PART_ROWS), move |part| {
            let rows = part_rows(part, rows);
            let mut activations = Activations::new(rows.len(), width, forms);
            let mut values = vec![0.0; width];
            for (index, row) in rows.enumerate() {
                if cancel.is_cancelled() {
                    break;
                }
                fill(row, &mut values);
                activations.set_row(kernels, index, &values);
            }
            activations
        });
        Input { parts, rows }
    }

    /// An output as what the next layer reads.
    fn input_of(&self, output: Output) -> Input {
        let (kernels, forms, cancel) = (self.kernels, self.forms, self.cancel.clone());
        let Output { rows, width, .. } = output;
        let parts = self.threads.map(rows.div_ceil(PART_ROWS), move |part| {
            let rows = part_rows(part, rows);
            let mut activations = Activations::new(rows.len(), width, forms);
            let mut values = vec![0.0; rows.len() * Activations::BLOCK.min(width)];
            for (block, first) in (0..width).step_by(Activations::BLOCK).enumerate() {
                if cancel.is_cancelled() {
                    break;
                }
                let columns = first..width.min(first + Activations::BLOCK);
                output.copy(&rows, &columns, &mut values);
                for (row, values) in values.chunks_exact(columns.len()).take(rows.len()).enumerate() {
                    activations.set_block(kernels, row, block, values);
                }
            }
            activations
        });
        Input { parts, rows }
    }

    /// What a layer's weight type needs beside its input.
    fn prepared(&self, x: &Input, layer: &Linear) -> Parts<Prepared> {
        let (x, kernels, tensor_type) = (x.parts.clone(), self.kernels, layer.tensor_type());
        let empty = ActivationForms::default();
        self.threads.map(x.len(), move |part| match x.get(part) {
            Some(x) => Prepared::new(kernels, tensor_type, x),
            None => Prepared::new(kernels, tensor_type, &Activations::new(0, 0, empty)),
        })
    }

    /// An output whose parts are made by `part(columns, pool)`, unless the pass is cancelled.
    fn output(
        &self,
        rows: usize,
        width: usize,
        part: impl Fn(Range<usize>, &BufferPool) -> Products + Send + Sync + 'static,
    ) -> Output {
        let (part_width, cancel, pool) = (Linear::part_width(width, rows), self.cancel.clone(), self.pool.clone());
        let parts = self.threads.map(width.div_ceil(part_width), move |index| {
            if cancel.is_cancelled() {
                return Products::none(&pool);
            }
            part(index * part_width..width.min((index + 1) * part_width), &pool)
        });
        Output { parts, rows, width, part_width }
    }
}

/// An input's parts, each with what a weight type needs beside it.
fn both<'a>(x: &'a Input, prepared: &'a Parts<Prepared>) -> Vec<(&'a Activations, &'a Prepared)> {
    x.parts.iter().zip(prepared.iter()).collect()
}

impl Executor for KernelExecutor {
    type Linear = Linear;
    type Norm = Arc<NormWeights>;
    type Hidden = Hidden;
    type Input = Input;
    type Output = Output;
    type Pass<'a> = KernelPass<'a>;

    fn load_linear(&self, gguf: &Arc<Gguf>, name: &str, out: usize, r#in: usize) -> Result<Linear> {
        Linear::load(gguf, name, out, r#in)
    }

    fn load_norm(&self, weights: NormWeights) -> Result<Arc<NormWeights>> {
        Ok(Arc::new(weights))
    }

    fn new_cache(&self, config: &PhiConfig, max_len: usize, dtype: KvDtype) -> Result<KvCache> {
        Ok(KvCache::new(config, max_len, Storage::Pages(PageCache::new(config, dtype)?)))
    }

    fn begin<'a>(&'a self, start: Start<'a>) -> Result<KernelPass<'a>> {
        let Start { config, cache, positions, rope, compute, cancel } = start;
        Ok(KernelPass {
            config,
            cache,
            positions,
            rope: Arc::new(rope),
            threads: compute.threads.pass(),
            kernels: compute.kernels,
            forms: self.forms,
            cancel: cancel.clone(),
            pool: BufferPool::default(),
        })
    }

    fn hidden(&self, pass: &mut KernelPass<'_>, rows: Vec<f32>) -> Result<Hidden> {
        let (seq, width) = (pass.positions.seq, pass.config.embedding_length);
        let parts = pass.threads.map(seq.div_ceil(PART_ROWS), move |part| {
            let range = part_rows(part, seq);
            rows.get(range.start * width..range.end * width).unwrap_or_default().to_vec()
        });
        Ok(Hidden { parts, rows: seq, width })
    }

    fn norm(&self, pass: &mut KernelPass<'_>, x: &Hidden, norm: &Arc<NormWeights>) -> Result<Input> {
        let (kernels, parts, norm, width) = (pass.kernels, x.parts.clone(), Arc::clone(norm), x.width);
        Ok(pass.input(x.rows, x.width, move |row, out| {
            let part = parts.get(row / PART_ROWS);
            let first = row % PART_ROWS * width;
            let Some(x) = part.and_then(|part| part.get(first..first + width)) else { return };
            match &*norm {
                NormWeights::Rms { weight, epsilon } => kernels.rms_norm(x, weight, *epsilon, out),
                NormWeights::Layer { weight, bias, epsilon } => {
                    kernels.layer_norm(x, weight, bias, *epsilon, out);
                }
            }
        }))
    }

    fn linear(&self, pass: &mut KernelPass<'_>, x: &Input, layer: &Linear) -> Result<Output> {
        let prepared = pass.prepared(x, layer);
        let (kernels, input, layer) = (pass.kernels, x.clone(), layer.clone());
        let width = layer.out();
        let output = pass.output(x.rows, width, move |columns, pool| {
            layer.multiply(kernels, columns, &both(&input, &prepared), pool)
        });
        pass.cancel.check()?;
        Ok(output)
    }

    fn attend(&self, pass: &mut KernelPass<'_>, layer: usize, projections: Projections<Output>) -> Result<Input> {
        attention::attend(pass, layer, projections)
    }

    fn swiglu(&self, pass: &mut KernelPass<'_>, x: &Input, gate_and_up: &GateAndUp<Linear>) -> Result<Input> {
        let (gate, up, up_from) = match gate_and_up {
            GateAndUp::Fused(both) => (both.clone(), both.clone(), both.out() / 2),
            GateAndUp::Split { gate, up } => (gate.clone(), up.clone(), 0),
        };
        let gate_prepared = pass.prepared(x, &gate);
        let up_prepared =
            if gate.tensor_type() == up.tensor_type() { gate_prepared.clone() } else { pass.prepared(x, &up) };
        let (kernels, input) = (pass.kernels, x.clone());
        let width = up.out() - up_from;
        let hidden = pass.output(x.rows, width, move |columns, pool| {
            let up_rows = up_from + columns.start..up_from + columns.end;
            let mut gated = gate.multiply(kernels, columns, &both(&input, &gate_prepared), pool);
            let up = up.multiply(kernels, up_rows, &both(&input, &up_prepared), pool);
            kernels.swiglu(gated.values_mut(), up.values());
            gated
        });
        pass.cancel.check()?;
        Ok(pass.input_of(hidden))
    }

    fn gelu(&self, pass: &mut KernelPass<'_>, x: &Input, up: &Linear) -> Result<Input> {
        let prepared = pass.prepared(x, up);
        let (kernels, input, up) = (pass.kernels, x.clone(), up.clone());
        let width = up.out();
        let hidden = pass.output(x.rows, width, move |columns, pool| {
            let mut hidden = up.multiply(kernels, columns, &both(&input, &prepared), pool);
            kernels.gelu(hidden.values_mut());
            hidden
        });
        pass.cancel.check()?;
        Ok(pass.input_of(hidden))
    }

    fn add(&self, pass: &mut KernelPass<'_>, x: Hidden, outputs: &[Output]) -> Result<Hidden> {
        let outputs = outputs.to_vec();
        let Hidden { parts, rows, width } = x;
        let count = parts.len();
        let parts = pass.threads.map(count, move |part| {
            let mut x = parts.get(part).cloned().unwrap_or_default();
            for output in &outputs {
                output.add_to(&part_rows(part, rows), &mut x);
            }
            x
        });
        Ok(Hidden { parts, rows, width })
    }

    fn last(&self, x: &Hidden) -> Result<Hidden> {
        let row = x.parts.iter().last().and_then(|part| part.chunks_exact(x.width).last());
        let row = row.unwrap_or_default().to_vec();
        let parts = candle_phi_kernels::Threads::new(1).pass().map(1, move |_| row.clone());
        Ok(Hidden { parts, rows: 1, width: x.width })
    }

    fn values(&self, output: Output) -> Result<Vec<f32>> {
        let mut values = vec![0.0; output.rows * output.width];
        output.copy(&(0..output.rows), &(0..output.width), &mut values);
        Ok(values)
    }

    fn end(&self, pass: KernelPass<'_>) {
        pass.cache.advance(pass.positions.seq);
    }
}
