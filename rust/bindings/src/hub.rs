//! Models on the hub and in its cache.

use std::ffi::OsString;
use std::path::PathBuf;

use candle_phi_engine::hub;
use candle_phi_engine::{CancelToken, LoadProgress};
use pyo3::prelude::*;

use crate::runtime;

/// How far a download, or the reading of a file, is.
#[pyclass(frozen, get_all, module = "candle_phi._native")]
pub(crate) struct Progress {
    file: String,
    bytes_done: u64,
    bytes_total: Option<u64>,
}

impl From<hub::Progress<'_>> for Progress {
    fn from(progress: hub::Progress<'_>) -> Self {
        Self { file: progress.file.to_owned(), bytes_done: progress.bytes_done, bytes_total: progress.bytes_total }
    }
}

impl From<LoadProgress<'_>> for Progress {
    fn from(progress: LoadProgress<'_>) -> Self {
        let file = progress.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self { file, bytes_done: progress.bytes_done as u64, bytes_total: Some(progress.bytes_total as u64) }
    }
}

/// A model that has a short name.
#[pyclass(frozen, get_all, module = "candle_phi._native")]
pub(crate) struct NamedModel {
    name: &'static str,
    repo: &'static str,
    revision: &'static str,
    files: Vec<(&'static str, &'static str)>,
    /// Those of all files, the known ones first.
    quantizations: Vec<&'static str>,
    /// About how many bytes a known file has, by its quantization.
    about_bytes: Vec<(&'static str, u64)>,
    tokenizer_repo: Option<&'static str>,
    architecture: &'static str,
    description: &'static str,
}

impl From<&hub::NamedModel> for NamedModel {
    fn from(model: &hub::NamedModel) -> Self {
        Self {
            name: model.name,
            repo: model.repo,
            revision: model.revision,
            files: model.files.iter().map(|file| (file.quantization, file.name)).collect(),
            quantizations: model.quantizations().collect(),
            about_bytes: model
                .files
                .iter()
                .filter_map(|file| Some((file.quantization, file.about_bytes?)))
                .collect(),
            tokenizer_repo: model.tokenizer_repo,
            architecture: model.architecture,
            description: model.description,
        }
    }
}

/// A model file in the cache.
#[pyclass(frozen, get_all, module = "candle_phi._native")]
pub(crate) struct CachedModel {
    repo: String,
    file: String,
    revision: String,
    refs: Vec<String>,
    path: OsString,
    size_bytes: u64,
}

impl From<hub::CachedModel> for CachedModel {
    fn from(model: hub::CachedModel) -> Self {
        Self {
            repo: model.repo,
            file: model.file,
            revision: model.revision,
            refs: model.refs,
            path: model.path.into_os_string(),
            size_bytes: model.size_bytes,
        }
    }
}

/// Fetches a model into the cache; the paths of the model and of its tokenizer.json.
#[pyfunction]
#[pyo3(signature = (
    name_or_repo, *, filename, quantization, revision, cache_dir, token, local_files_only, progress
))]
#[expect(clippy::too_many_arguments, reason = "they are the keywords of a Python function")]
pub(crate) fn download(
    py: Python<'_>,
    name_or_repo: &str,
    filename: Option<&str>,
    quantization: Option<&str>,
    revision: Option<&str>,
    cache_dir: Option<PathBuf>,
    token: Option<String>,
    local_files_only: bool,
    progress: Option<Py<PyAny>>,
) -> PyResult<(OsString, Option<OsString>)> {
    let cancel = CancelToken::new();
    let options = hub::HubOptions { cache_dir, token, local_files_only, ..hub::HubOptions::default() };
    let fetch = |tell: &mut (dyn FnMut(Progress) + Send)| {
        let request = hub::resolve(name_or_repo, filename, quantization, revision)?;
        let model = hub::download(&request, &options, &mut |progress| tell(Progress::from(progress)), &cancel)?;
        Ok((model.model_path.into_os_string(), model.tokenizer_path.map(PathBuf::into_os_string)))
    };
    match progress {
        None => runtime::enter(py, &cancel, || fetch(&mut |_| ())),
        Some(callback) => runtime::enter_listening(py, &cancel, fetch, &mut |py, progress| {
            callback.call1(py, (progress,))?;
            Ok(())
        }),
    }
}

/// The models that have a short name.
#[pyfunction]
pub(crate) fn named_models() -> Vec<NamedModel> {
    hub::named_models().iter().map(NamedModel::from).collect()
}

/// The model files in the cache.
#[pyfunction]
pub(crate) fn cached_models(py: Python<'_>, cache_dir: Option<PathBuf>) -> PyResult<Vec<CachedModel>> {
    runtime::enter_briefly(py, || {
        Ok(hub::cached_models(cache_dir.as_deref())?.into_iter().map(CachedModel::from).collect())
    })
}

/// Removes a repository's model files from the cache; the bytes that were freed.
#[pyfunction]
pub(crate) fn remove_cached(py: Python<'_>, repo: &str, cache_dir: Option<PathBuf>) -> PyResult<u64> {
    runtime::enter_briefly(py, || hub::remove_cached(repo, cache_dir.as_deref()))
}
