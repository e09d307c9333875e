//! A loaded model.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use candle_phi_engine as engine;
use candle_phi_engine::CancelToken;
use pyo3::prelude::*;

use crate::hub::Progress;
use crate::info::ModelInfo;
use crate::options::{self, LoadOptions, Message};
use crate::runtime;

/// An immutable model: weights, tokenizer, chat format.
#[pyclass(frozen, name = "Phi3Model", module = "candle_phi._native")]
pub(crate) struct Model(pub(crate) Arc<engine::Phi3Model>);

#[pymethods]
impl Model {
    #[new]
    fn new(py: Python<'_>, path: PathBuf, options: LoadOptions, progress: Option<Py<PyAny>>) -> PyResult<Self> {
        let cancel = CancelToken::new();
        let load = |tell: &mut (dyn FnMut(Progress) + Send)| {
            let options = engine::LoadOptions::try_from(options)?;
            let mut progress = |progress: engine::LoadProgress<'_>| tell(Progress::from(progress));
            Ok(Self(Arc::new(engine::Phi3Model::load_with_progress(&path, &options, &mut progress, &cancel)?)))
        };
        match progress {
            None => runtime::enter(py, &cancel, || load(&mut |_| ())),
            Some(callback) => runtime::enter_listening(py, &cancel, load, &mut |py, progress| {
                callback.call1(py, (progress,))?;
                Ok(())
            }),
        }
    }

    /// The file.
    #[getter]
    fn path(&self) -> OsString {
        self.0.path().as_os_str().to_owned()
    }

    /// Where it computes.
    #[getter]
    fn device(&self) -> String {
        self.0.device().to_string()
    }

    /// Why it computes there.
    #[getter]
    fn device_reason(&self) -> &str {
        self.0.device_reason()
    }

    /// What computes.
    #[getter]
    fn executor(&self) -> &'static str {
        self.0.executor().as_str()
    }

    /// What the file says about itself.
    #[getter]
    fn info(&self) -> ModelInfo {
        ModelInfo::from(self.0.info())
    }

    /// How many tokens the tokenizer knows.
    #[getter]
    fn vocabulary_size(&self) -> usize {
        self.0.tokenizer().vocab_size()
    }

    /// Whether a raw prompt begins with the token for the beginning of a text.
    #[getter]
    fn add_bos(&self) -> bool {
        self.0.tokenizer().add_bos()
    }

    /// Text to token ids.
    fn encode(&self, py: Python<'_>, text: &str, add_bos: bool, parse_special: bool) -> PyResult<Vec<u32>> {
        runtime::enter_briefly(py, || self.0.tokenizer().encode(text, add_bos, parse_special))
    }

    /// Token ids to text.
    fn decode(&self, py: Python<'_>, tokens: Vec<u32>, skip_special: bool) -> PyResult<String> {
        runtime::enter_briefly(py, || self.0.tokenizer().decode(&tokens, skip_special))
    }

    /// Messages to the text of a prompt.
    fn render_chat(
        &self,
        py: Python<'_>,
        messages: Vec<Message>,
        add_generation_prompt: bool,
        continue_final_message: bool,
    ) -> PyResult<String> {
        runtime::enter_briefly(py, || {
            let messages = options::messages(messages)?;
            self.0.chat_template()?.render(&messages, add_generation_prompt, continue_final_message)
        })
    }

    /// Messages to the token ids of a prompt.
    fn encode_chat(
        &self,
        py: Python<'_>,
        messages: Vec<Message>,
        add_generation_prompt: bool,
        continue_final_message: bool,
    ) -> PyResult<Vec<u32>> {
        runtime::enter_briefly(py, || {
            let messages = options::messages(messages)?;
            let template = self.0.chat_template()?;
            template.encode(self.0.tokenizer(), &messages, add_generation_prompt, continue_final_message)
        })
    }
}
