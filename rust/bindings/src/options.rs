//! From Python's configurations to the engine's options.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use candle_phi_engine as engine;
use candle_phi_engine::options::{self as table, DefaultValue, Kind, Number, OPTIONS};
use pyo3::prelude::*;
use pyo3::types::{PyFloat, PyTuple};

use crate::error::exception;

/// An option of the engine's table.
#[pyclass(frozen, get_all, module = "candle_phi._native")]
pub(crate) struct OptionSpec {
    name: &'static str,
    scope: &'static str,
    kind: &'static str,
    choices: Vec<&'static str>,
    default: Py<PyAny>,
    unset: Option<&'static str>,
    help: &'static str,
    note: Option<&'static str>,
    metavar: Option<&'static str>,
    interfaces: Vec<&'static str>,
}

/// The engine's table of options.
#[pyfunction]
pub(crate) fn options(py: Python<'_>) -> PyResult<Vec<OptionSpec>> {
    OPTIONS
        .iter()
        .map(|option| {
            let default = match option.default {
                DefaultValue::Unset(_) => py.None(),
                DefaultValue::Empty => PyTuple::empty(py).into_any().unbind(),
                DefaultValue::Int(number) => number.into_pyobject(py)?.into_any().unbind(),
                DefaultValue::Float(number) => number.into_pyobject(py)?.into_any().unbind(),
                DefaultValue::Bool(value) => value.into_pyobject(py)?.to_owned().into_any().unbind(),
                DefaultValue::Text(text) => text.into_pyobject(py)?.into_any().unbind(),
            };
            Ok(OptionSpec {
                name: option.name,
                scope: option.scope.as_str(),
                kind: option.kind.as_str(),
                choices: if let Kind::Choice(choices) = option.kind { choices.to_vec() } else { Vec::new() },
                default,
                unset: if let DefaultValue::Unset(meaning) = option.default { Some(meaning) } else { None },
                help: option.help,
                note: option.note,
                metavar: option.metavar,
                interfaces: option.interfaces.iter().map(|interface| interface.as_str()).collect(),
            })
        })
        .collect()
}

/// Fails if a value is out of the range of the option `name`, or is none of its choices. It looks at Python's value, which may be
/// larger than what the engine's types hold.
#[pyfunction]
pub(crate) fn check_option(name: &str, value: &Bound<'_, PyAny>) -> PyResult<()> {
    let checked = match table::find(name).map(|option| option.kind) {
        Some(Kind::Int { .. } | Kind::Float { .. }) => table::check(name, number(value)?),
        Some(Kind::Choice(_)) => table::check_choice(name, &value.extract::<String>()?),
        Some(Kind::Biases { .. }) => {
            let biases = value.extract::<BTreeMap<u32, f64>>()?;
            biases
                .into_iter()
                .try_for_each(|(token, bias)| table::check_at(name, bias, format_args!(" for token {token}")))
        }
        _ => Ok(()),
    };
    checked.map_err(|error| exception(&error))
}

fn number(value: &Bound<'_, PyAny>) -> PyResult<Number> {
    if let Ok(number) = value.cast::<PyFloat>() {
        return Ok(Number::Float(number.value()));
    }
    // What i128 cannot hold is out of every range.
    match value.extract::<i128>() {
        Ok(number) => Ok(Number::Int(number)),
        Err(_) if value.lt(0)? => Ok(Number::Float(f64::NEG_INFINITY)),
        Err(_) => Ok(Number::Float(f64::INFINITY)),
    }
}

/// Fails if the engine refuses a `candle_phi.GenerationConfig`, whatever the model.
#[pyfunction]
pub(crate) fn check_generation(config: GenerationConfig) -> PyResult<()> {
    engine::GenerationOptions::try_from(config)
        .and_then(|options| options.validate_without_model())
        .map_err(|error| exception(&error))
}

/// The attributes of `candle_phi.GenerationConfig`.
#[derive(FromPyObject)]
pub(crate) struct GenerationConfig {
    max_tokens: Option<usize>,
    min_tokens: usize,
    timeout: Option<f64>,
    temperature: f64,
    top_k: Option<usize>,
    typical_p: Option<f64>,
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
                typical_p: config.typical_p,
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

/// The attributes of `candle_phi.SessionConfig`.
#[derive(FromPyObject)]
pub(crate) struct SessionConfig {
    n_ctx: Option<usize>,
    kv_dtype: String,
    n_threads: Option<usize>,
    isa: Option<String>,
    prefill_chunk: Option<usize>,
    rope_factors: String,
}

impl TryFrom<SessionConfig> for engine::SessionOptions {
    type Error = engine::Error;

    fn try_from(config: SessionConfig) -> engine::Result<Self> {
        Ok(Self {
            n_ctx: config.n_ctx,
            kv_dtype: config.kv_dtype.parse()?,
            n_threads: config.n_threads,
            isa: config.isa,
            prefill_chunk: config.prefill_chunk,
            rope_factors: config.rope_factors.parse()?,
        })
    }
}

/// The items of `candle_phi.config.LoadOptions`, all of them.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct LoadOptions {
    device: String,
    executor: String,
    mmap: bool,
    #[pyo3(from_py_with = is_true_or_function)]
    prefault: bool,
    mlock: bool,
    tokenizer: Option<PathBuf>,
    rstrip_control_tokens: bool,
    chat_format: Option<String>,
    sliding_window: Option<usize>,
}

/// Whether it is `True`, or a function.
#[expect(clippy::unnecessary_wraps, reason = "the signature is PyO3's")]
fn is_true_or_function(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    // A function can be false as well: one with a length of 0.
    Ok(value.extract().unwrap_or(true))
}

impl TryFrom<LoadOptions> for engine::LoadOptions {
    type Error = engine::Error;

    fn try_from(options: LoadOptions) -> engine::Result<Self> {
        Ok(Self {
            tokenizer: options.tokenizer,
            device: options.device.parse()?,
            executor: options.executor.parse()?,
            mmap: options.mmap,
            prefault: options.prefault,
            mlock: options.mlock,
            rstrip_control_tokens: options.rstrip_control_tokens,
            chat_format: options.chat_format.as_deref().map(str::parse).transpose()?,
            sliding_window: options.sliding_window,
        })
    }
}

/// A raw prompt.
#[derive(FromPyObject)]
pub(crate) enum Prompt {
    Text(String),
    Tokens(Vec<u32>),
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
