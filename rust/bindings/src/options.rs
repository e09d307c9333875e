//! From the attributes of Python's dataclasses to the engine's options.

use std::collections::BTreeMap;
use std::time::Duration;

use candle_phi_engine as engine;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// The attributes of `candle_phi.GenerationConfig`.
#[derive(FromPyObject)]
pub(crate) struct GenerationConfig {
    max_tokens: Option<usize>,
    min_tokens: usize,
    timeout: Option<f64>,
    temperature: f64,
    top_k: Option<usize>,
    top_p: Option<f64>,
    min_p: Option<f64>,
    repetition_penalty: f32,
    repeat_last_n: usize,
    presence_penalty: f32,
    frequency_penalty: f32,
    logit_bias: Option<BTreeMap<u32, f32>>,
    stop: Option<Vec<String>>,
    stop_token_ids: Vec<u32>,
    seed: Option<u64>,
    logprobs: Option<usize>,
    ignore_eos: bool,
    echo: bool,
    on_overflow: String,
    /// What the engine knows nothing of: it never calls Python.
    pub(crate) logits_processor: Option<Py<PyAny>>,
}

impl TryFrom<GenerationConfig> for engine::GenerationOptions {
    type Error = engine::Error;

    fn try_from(config: GenerationConfig) -> engine::Result<Self> {
        Ok(Self {
            max_tokens: config.max_tokens,
            min_tokens: config.min_tokens,
            // What no clock can count to is no limit.
            timeout: config.timeout.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
            sampling: engine::SamplingOptions {
                temperature: config.temperature,
                top_k: config.top_k,
                top_p: config.top_p,
                min_p: config.min_p,
                repetition_penalty: config.repetition_penalty,
                repeat_last_n: config.repeat_last_n,
                presence_penalty: config.presence_penalty,
                frequency_penalty: config.frequency_penalty,
                logit_bias: config.logit_bias.unwrap_or_default().into_iter().collect(),
                seed: config.seed,
            },
            stop: config.stop.unwrap_or_default(),
            stop_token_ids: config.stop_token_ids,
            logprobs: config.logprobs,
            ignore_eos: config.ignore_eos,
            echo: config.echo,
            on_overflow: config.on_overflow.parse()?,
        })
    }
}

/// A raw prompt.
#[derive(FromPyObject)]
pub(crate) enum Prompt {
    Text(String),
    Tokens(Vec<u32>),
}

/// The options of a generation as the engine has them by default.
#[pyfunction]
pub(crate) fn generation_defaults(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let engine::GenerationOptions {
        max_tokens,
        min_tokens,
        timeout,
        sampling,
        stop,
        stop_token_ids,
        logprobs,
        ignore_eos,
        echo,
        on_overflow,
    } = engine::GenerationOptions::default();
    let defaults = PyDict::new(py);
    defaults.set_item("max_tokens", max_tokens)?;
    defaults.set_item("min_tokens", min_tokens)?;
    defaults.set_item("timeout", timeout.map(|timeout| timeout.as_secs_f64()))?;
    defaults.set_item("temperature", sampling.temperature)?;
    defaults.set_item("top_k", sampling.top_k)?;
    defaults.set_item("top_p", sampling.top_p)?;
    defaults.set_item("min_p", sampling.min_p)?;
    defaults.set_item("repetition_penalty", sampling.repetition_penalty)?;
    defaults.set_item("repeat_last_n", sampling.repeat_last_n)?;
    defaults.set_item("presence_penalty", sampling.presence_penalty)?;
    defaults.set_item("frequency_penalty", sampling.frequency_penalty)?;
    defaults.set_item("logit_bias", sampling.logit_bias)?;
    defaults.set_item("stop", stop)?;
    defaults.set_item("stop_token_ids", stop_token_ids)?;
    defaults.set_item("seed", sampling.seed)?;
    defaults.set_item("logprobs", logprobs)?;
    defaults.set_item("ignore_eos", ignore_eos)?;
    defaults.set_item("echo", echo)?;
    defaults.set_item("on_overflow", on_overflow.as_str())?;
    Ok(defaults)
}

/// The attributes of `candle_phi.Message`.
#[derive(FromPyObject)]
pub(crate) struct Message {
    role: String,
    content: String,
}

/// A message's role and content, which become a `candle_phi.Message`.
pub(crate) type Pair = (&'static str, String);

/// The engine's messages for Python.
pub(crate) fn pairs(messages: &[engine::Message]) -> Vec<Pair> {
    messages.iter().map(|message| (message.role.as_str(), message.content.clone())).collect()
}

/// Python's messages as the engine's.
pub(crate) fn messages(messages: Vec<Message>) -> engine::Result<Vec<engine::Message>> {
    messages.into_iter().map(|message| Ok(engine::Message::new(message.role.parse()?, message.content))).collect()
}
