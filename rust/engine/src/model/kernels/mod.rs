//! The model on the project's own kernels, on the CPU.
//!
//! Each operation is a job of parts that the threads of a pass share out (`candle_phi_kernels::Threads`); what the parts
//! read they own a share of. Rows of one operation are gathered where the next one goes over them anyway.

mod attention;
mod linear;
mod matrix;

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use candle_phi_kernels::{ActivationForms, Activations, BufferPool, Kernels, Parts, Pass, Prepared, Products};

use self::linear::{Linear, forms_of};
use self::matrix::{Hidden, Input, Output, PART_ROWS, part_rows};
use super::executor::{Executor, GateAndUp, Projections, Start};
use super::rope::RopeTable;
use super::weights::NormWeights;
use crate::cache::{KvCache, NewPositions, PageCache, Storage};
use crate::config::PhiConfig;
use crate::gguf::Gguf;
use crate::{CancelToken, Error, KvDtype, Result};

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
    errors: FirstError,
    /// Where products find memory: what an operation leaves, the next one takes.
    pool: BufferPool,
}

/// The first error that a part of a pass's jobs had: that the pass was cancelled, or a mistake of this software.
#[derive(Clone, Default)]
struct FirstError(Arc<OnceLock<Error>>);

impl FirstError {
    fn keep(&self, error: Error) {
        // A later one is dropped: it follows from the first, or is the same.
        let _ = self.0.set(error);
    }

    fn check(&self) -> Result<()> {
        match self.0.get() {
            None => Ok(()),
            Some(error) => Err(Error::new(error.kind(), error.to_string())),
        }
    }
}

/// Runs a job whose parts can fail; `instead()` is the result of one that did, and nothing reads it.
fn map<T: Send + Sync + 'static>(
    threads: &Pass,
    errors: &FirstError,
    count: usize,
    part: impl Fn(usize) -> Result<T> + Send + Sync + 'static,
    instead: impl Fn() -> T + Send + Sync + 'static,
) -> Result<Parts<T>> {
    let kept = errors.clone();
    let parts = threads.map(count, move |index| {
        part(index).unwrap_or_else(|error| {
            kept.keep(error);
            instead()
        })
    });
    errors.check()?;
    Ok(parts)
}

impl KernelPass<'_> {
    /// Rows of activations made by `fill(row, values)`, in parts.
    fn input(
        &self,
        rows: usize,
        width: usize,
        fill: impl Fn(usize, &mut [f32]) -> Result<()> + Send + Sync + 'static,
    ) -> Result<Input> {
        let (kernels, forms, cancel) = (self.kernels, self.forms, self.cancel.clone());
        let part = move |part| {
            let rows = part_rows(part, rows);
            let mut activations = Activations::new(rows.len(), width, forms);
            let mut values = vec![0.0; width];
            for (index, row) in rows.enumerate() {
                cancel.check()?;
                fill(row, &mut values)?;
                activations.set_row(kernels, index, &values);
            }
            Ok(activations)
        };
        let parts = map(&self.threads, &self.errors, rows.div_ceil(PART_ROWS), part, no_activations)?;
        Ok(Input { parts, rows })
    }

    /// An output as what the next layer reads.
    fn input_of(&self, output: Output) -> Result<Input> {
        let (kernels, forms, cancel) = (self.kernels, self.forms, self.cancel.clone());
        let Output { rows, width, .. } = output;
        let part = move |part| {
            let rows = part_rows(part, rows);
            let mut activations = Activations::new(rows.len(), width, forms);
            let mut values = vec![0.0; rows.len() * Activations::BLOCK.min(width)];
            for (block, first) in (0..width).step_by(Activations::BLOCK).enumerate() {
                cancel.check()?;
                let columns = first..width.min(first + Activations::BLOCK);
                output.copy(&rows, &columns, &mut values)?;
                for (row, values) in values.chunks_exact(columns.len()).take(rows.len()).enumerate() {
                    activations.set_block(kernels, row, block, values);
                }
            }
            Ok(activations)
        };
        let parts = map(&self.threads, &self.errors, rows.div_ceil(PART_ROWS), part, no_activations)?;
        Ok(Input { parts, rows })
    }

    /// What a layer's weight type needs beside its input.
    fn prepared(&self, x: &Input, layer: &Linear) -> Result<Parts<Prepared>> {
        let (x, kernels, tensor_type) = (x.parts.clone(), self.kernels, layer.tensor_type());
        let count = x.len();
        let part = move |part| match x.get(part) {
            Some(x) => Ok(Prepared::new(kernels, tensor_type, x)),
            None => Err(Error::internal(format_args!("the input of a linear layer has no part {part}"))),
        };
        let nothing = move || Prepared::new(kernels, tensor_type, &no_activations());
        map(&self.threads, &self.errors, count, part, nothing)
    }

    /// An output whose parts are made by `part(columns, pool)`.
    fn output(
        &self,
        rows: usize,
        width: usize,
        part: impl Fn(Range<usize>, &BufferPool) -> Result<Products> + Send + Sync + 'static,
    ) -> Result<Output> {
        let (part_width, cancel, pool) = (Linear::part_width(width, rows), self.cancel.clone(), self.pool.clone());
        let empty = self.pool.clone();
        let part = move |index| {
            cancel.check()?;
            part(index * part_width..width.min((index + 1) * part_width), &pool)
        };
        let nothing = move || Products::none(&empty);
        let parts = map(&self.threads, &self.errors, width.div_ceil(part_width), part, nothing)?;
        Ok(Output { parts, rows, width, part_width })
    }
}

fn no_activations() -> Activations {
    Activations::new(0, 0, ActivationForms::default())
}

/// An input's parts, each with what a weight type needs beside it.
fn both<'a>(x: &'a Input, prepared: &'a Parts<Prepared>) -> Result<Vec<(&'a Activations, &'a Prepared)>> {
    let both: Vec<_> = x.parts.iter().zip(prepared.iter()).collect();
    if both.len() == x.parts.len() && both.len() == prepared.len() {
        return Ok(both);
    }
    let (parts, prepared) = (x.parts.len(), prepared.len());
    Err(Error::internal(format_args!("a linear layer reads {parts} parts, of which {prepared} are prepared")))
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
            errors: FirstError::default(),
            pool: BufferPool::default(),
        })
    }

    fn hidden(&self, pass: &mut KernelPass<'_>, rows: Vec<f32>) -> Result<Hidden> {
        let (seq, width) = (pass.positions.seq, pass.config.embedding_length);
        if rows.len() != seq * width {
            let values = rows.len();
            return Err(Error::internal(format_args!("{values} values for {seq} embeddings of {width}")));
        }
        Ok(Hidden { parts: rows.chunks(PART_ROWS * width).map(<[f32]>::to_vec).collect(), rows: seq, width })
    }

    fn norm(&self, pass: &mut KernelPass<'_>, x: &Hidden, norm: &Arc<NormWeights>) -> Result<Input> {
        let (kernels, parts, norm, width) = (pass.kernels, x.parts.clone(), Arc::clone(norm), x.width);
        if norm.len() != width {
            let len = norm.len();
            return Err(Error::internal(format_args!("a norm of {len} values for rows of {width}")));
        }
        pass.input(x.rows, x.width, move |row, out| {
            let part = parts.get(row / PART_ROWS);
            let first = row % PART_ROWS * width;
            let x = part.and_then(|part| part.get(first..first + width));
            let x = x.ok_or_else(|| Error::internal(format_args!("the residual stream has no row {row}")))?;
            match &*norm {
                NormWeights::Rms { weight, epsilon } => kernels.rms_norm(x, weight, *epsilon, out),
                NormWeights::Layer { weight, bias, epsilon } => {
                    kernels.layer_norm(x, weight, bias, *epsilon, out);
                }
            }
            Ok(())
        })
    }

    fn linear(&self, pass: &mut KernelPass<'_>, x: &Input, layer: &Linear) -> Result<Output> {
        let prepared = pass.prepared(x, layer)?;
        let (kernels, input, layer) = (pass.kernels, x.clone(), layer.clone());
        let width = layer.out();
        pass.output(x.rows, width, move |columns, pool| {
            layer.multiply(kernels, columns, &both(&input, &prepared)?, pool)
        })
    }

    fn attend(&self, pass: &mut KernelPass<'_>, layer: usize, projections: Projections<Output>) -> Result<Input> {
        attention::attend(pass, layer, projections)
    }

    fn swiglu(&self, pass: &mut KernelPass<'_>, x: &Input, gate_and_up: &GateAndUp<Linear>) -> Result<Input> {
        let (gate, up, up_from) = match gate_and_up {
            GateAndUp::Fused(both) => (both.clone(), both.clone(), both.out() / 2),
            GateAndUp::Split { gate, up } => (gate.clone(), up.clone(), 0),
        };
        let gate_prepared = pass.prepared(x, &gate)?;
        let up_prepared =
            if gate.tensor_type() == up.tensor_type() { gate_prepared.clone() } else { pass.prepared(x, &up)? };
        let (kernels, input) = (pass.kernels, x.clone());
        let width = up.out() - up_from;
        let hidden = pass.output(x.rows, width, move |columns, pool| {
            let up_rows = up_from + columns.start..up_from + columns.end;
            let mut gated = gate.multiply(kernels, columns, &both(&input, &gate_prepared)?, pool)?;
            let up = up.multiply(kernels, up_rows, &both(&input, &up_prepared)?, pool)?;
            kernels.swiglu(gated.values_mut(), up.values());
            Ok(gated)
        })?;
        pass.input_of(hidden)
    }

    fn gelu(&self, pass: &mut KernelPass<'_>, x: &Input, up: &Linear) -> Result<Input> {
        let prepared = pass.prepared(x, up)?;
        let (kernels, input, up) = (pass.kernels, x.clone(), up.clone());
        let width = up.out();
        let hidden = pass.output(x.rows, width, move |columns, pool| {
            let mut hidden = up.multiply(kernels, columns, &both(&input, &prepared)?, pool)?;
            kernels.gelu(hidden.values_mut());
            Ok(hidden)
        })?;
        pass.input_of(hidden)
    }

    fn add(&self, pass: &mut KernelPass<'_>, x: Hidden, outputs: &[Output]) -> Result<Hidden> {
        let outputs = outputs.to_vec();
        let Hidden { parts, rows, width } = x;
        let count = parts.len();
        let added = move |part| {
            let x = parts.get(part).cloned();
            let mut x =
                x.ok_or_else(|| Error::internal(format_args!("the residual stream has no part {part}")))?;
            for output in &outputs {
                output.add_to(&part_rows(part, rows), &mut x)?;
            }
            Ok(x)
        };
        let parts = map(&pass.threads, &pass.errors, count, added, Vec::new)?;
        Ok(Hidden { parts, rows, width })
    }

    fn last(&self, x: &Hidden) -> Result<Hidden> {
        let row = x.parts.iter().last().and_then(|part| part.chunks_exact(x.width).last());
        let row = row.ok_or_else(|| Error::internal("the residual stream has no last row"))?;
        Ok(Hidden { parts: Parts::from_iter([row.to_vec()]), rows: 1, width: x.width })
    }

    fn values(&self, output: Output) -> Result<Vec<f32>> {
        let mut values = vec![0.0; output.rows * output.width];
        output.copy(&(0..output.rows), &(0..output.width), &mut values)?;
        Ok(values)
    }

    fn end(&self, pass: KernelPass<'_>) {
        pass.cache.advance(pass.positions.seq);
    }
}

#[cfg(test)]
mod tests;
