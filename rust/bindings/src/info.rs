//! Facts: about a model file, and about the machine.

use std::path::PathBuf;

use candle_phi_engine as engine;
use pyo3::prelude::*;

use crate::options::{LoadOptions, SessionConfig};
use crate::runtime;

/// The sampling options that a file recommends, by name; becomes a dict.
#[derive(Clone, Copy, IntoPyObject, IntoPyObjectRef)]
struct RecommendedSampling {
    temperature: Option<f64>,
    top_k: Option<usize>,
    top_p: Option<f64>,
    min_p: Option<f64>,
    repetition_penalty: Option<f64>,
    repeat_last_n: Option<usize>,
}

impl From<engine::RecommendedSampling> for RecommendedSampling {
    fn from(sampling: engine::RecommendedSampling) -> Self {
        let engine::RecommendedSampling { temperature, top_k, top_p, min_p, repetition_penalty, repeat_last_n } =
            sampling;
        Self { temperature, top_k, top_p, min_p, repetition_penalty, repeat_last_n }
    }
}

/// What a model file says about itself.
#[pyclass(frozen, get_all, module = "candle_phi._native")]
pub(crate) struct ModelInfo {
    name: Option<String>,
    architecture: String,
    parameter_count: u64,
    quantization: String,
    context_length: usize,
    original_context_length: usize,
    vocabulary_size: usize,
    embedding_length: usize,
    block_count: usize,
    feed_forward_length: usize,
    head_count: usize,
    head_count_kv: usize,
    head_dim: usize,
    rope_dimension_count: usize,
    rope_freq_base: f32,
    sliding_window: Option<usize>,
    tokenizer: Option<String>,
    chat_format: Option<String>,
    chat_corrections: Vec<String>,
    sampling: RecommendedSampling,
    file_size_bytes: u64,
    weights_bytes: u64,
    kv_cache_bytes_per_token: u64,
}

impl From<&engine::ModelInfo> for ModelInfo {
    fn from(info: &engine::ModelInfo) -> Self {
        let config = &info.config;
        Self {
            name: info.name.clone(),
            architecture: info.architecture.clone(),
            parameter_count: info.parameter_count,
            quantization: info.quantization.clone(),
            context_length: config.context_length,
            original_context_length: config.original_context_length,
            vocabulary_size: config.vocabulary_size,
            embedding_length: config.embedding_length,
            block_count: config.block_count,
            feed_forward_length: config.feed_forward_length,
            head_count: config.head_count,
            head_count_kv: config.head_count_kv,
            head_dim: config.head_dim,
            rope_dimension_count: config.rope_dimension_count,
            rope_freq_base: config.rope_freq_base,
            sliding_window: config.sliding_window,
            tokenizer: info.tokenizer.clone(),
            chat_format: info.chat_format.clone(),
            chat_corrections: info.chat_corrections.clone(),
            sampling: RecommendedSampling::from(info.sampling),
            file_size_bytes: info.file_size_bytes,
            weights_bytes: info.weights_bytes,
            kv_cache_bytes_per_token: info.kv_cache_bytes(1, engine::KvDtype::F16),
        }
    }
}

/// Reads what a model file says about itself, without its weights.
#[pyfunction]
pub(crate) fn inspect(py: Python<'_>, path: PathBuf) -> PyResult<ModelInfo> {
    runtime::enter_briefly(py, || Ok(ModelInfo::from(&engine::ModelInfo::read(&path)?)))
}

/// The memory that a session takes.
#[pyclass(frozen, get_all, module = "candle_phi._native")]
pub(crate) struct MemoryEstimate {
    n_ctx: usize,
    kv_dtype: &'static str,
    weights_bytes: u64,
    kv_cache_bytes: u64,
    working_bytes: u64,
}

/// Tells the memory that a session takes from the header of a file.
#[pyfunction]
#[pyo3(signature = (path, *, n_ctx, kv_dtype))]
pub(crate) fn estimate_memory(
    py: Python<'_>,
    path: PathBuf,
    n_ctx: Option<usize>,
    kv_dtype: &str,
) -> PyResult<MemoryEstimate> {
    runtime::enter_briefly(py, || {
        let estimate = engine::MemoryEstimate::read(&path, n_ctx, kv_dtype.parse()?)?;
        Ok(MemoryEstimate {
            n_ctx: estimate.n_ctx,
            kv_dtype: estimate.kv_dtype.as_str(),
            weights_bytes: estimate.weights_bytes,
            kv_cache_bytes: estimate.kv_cache_bytes,
            working_bytes: estimate.working_bytes,
        })
    })
}

/// A kind of device that the engine knows.
#[pyclass(frozen, get_all, module = "candle_phi._native")]
pub(crate) struct DeviceKind {
    name: &'static str,
    description: &'static str,
    spellings: Vec<String>,
}

/// The kinds of devices that the engine knows, compiled in or not.
#[pyfunction]
pub(crate) fn device_kinds() -> Vec<DeviceKind> {
    let kinds = engine::DeviceKind::all().iter();
    let kind = |kind: &&engine::DeviceKind| DeviceKind {
        name: kind.name,
        description: kind.description,
        spellings: kind.spellings(),
    };
    kinds.map(kind).collect()
}

/// The device that a name stands for, and why; fails if it does not exist or was not compiled in.
#[pyfunction]
pub(crate) fn choose_device(py: Python<'_>, device: &str) -> PyResult<(String, String)> {
    runtime::enter_briefly(py, || {
        let choice = device.parse::<engine::DeviceSpec>()?.choose()?;
        Ok((choice.device.to_string(), choice.reason))
    })
}

/// Fails if sessions of a `candle_phi.SessionConfig` are not possible on the device and the executor of options for loading.
#[pyfunction]
pub(crate) fn check_machine(py: Python<'_>, config: SessionConfig, loading: LoadOptions) -> PyResult<()> {
    runtime::enter_briefly(py, || {
        let loading = engine::LoadOptions::try_from(loading)?;
        engine::SessionOptions::try_from(config)?.check(loading.device, loading.executor)
    })
}
