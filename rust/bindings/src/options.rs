//! From the attributes of Python's dataclasses to the engine's options.

use std::collections::BTreeMap;

use candle_phi_engine as engine;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// The attributes of `candle_phi.GenerationConfig`.
#[derive(FromPyObject)]
pub(crate) struct GenerationConfig {
    max_tokens: Option<usize>,
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
}

impl From<GenerationConfig> for engine::GenerationOptions {
    fn from(config: GenerationConfig) -> Self {
        Self {
            max_tokens: config.max_tokens,
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
        }
    }
}

/// The options of a generation as the engine has them by default.
#[pyfunction]
pub(crate) fn generation_defaults(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let engine::GenerationOptions { max_tokens, sampling, stop, stop_token_ids, logprobs, ignore_eos } =
        engine::GenerationOptions::default();
    let defaults = PyDict::new(py);
    defaults.set_item("max_tokens", max_tokens)?;
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
    Ok(defaults)
}

/// The attributes of `candle_phi.Message`.
#[derive(FromPyObject)]
pub(crate) struct Message {
    role: String,
    content: String,
}

/// Python's messages as the engine's.
pub(crate) fn messages(messages: Vec<Message>) -> engine::Result<Vec<engine::Message>> {
    messages.into_iter().map(|message| Ok(engine::Message::new(message.role.parse()?, message.content))).collect()
}
