//! Models by name or repository, out of the shared Hugging Face cache or from the hub.
//!
//! [`resolve`] turns what a person wrote into a [`ModelRequest`], [`download`] turns that into a file on disk,
//! [`cached_models`] and [`remove_cached`] look after what is there.
//!
//! # The cache
//!
//! The layout is that of Python's `huggingface_hub`, so each finds what the other fetched:
//! `models--OWNER--NAME/{blobs/ETAG, snapshots/COMMIT/FILE -> blob, refs/REVISION}`, locks in `.locks`. A file
//! arrives as `blobs/ETAG.incomplete` and is renamed when its size, and its SHA-256 where the hub gives one, are
//! right: a name in `snapshots` always leads to a whole file. Where links cannot be made the snapshot holds the file.
//!
//! # Why the transfer is not hf-hub's
//!
//! `hf-hub` 1.0.0 is what this module would rather stand on; `tools/hub-interop` holds that the two share one
//! cache, and shows what keeps it out of the download itself:
//! - it truncates `ETAG.incomplete` when it opens it, so no download is resumed, and asks for no `Range`;
//! - it does not look at the status of the answer with the body: a 403 page of the CDN is stored as the model;
//! - it compares no sizes and no hashes: a body without a length that ends early is stored as the model;
//! - its blocking calls cannot be cancelled, and wait for a stalled server without end;
//! - its `get_file_metadata` follows the redirect to the CDN, whose answer lacks `X-Repo-Commit`, and so fails for
//!   every large file; its stream does not say whether a `Range` was honoured, and turns to the xet servers on
//!   threads of its own.
//!
//! What remains is small: `http` (reqwest, the stack that hf-hub stands on: proxies from the environment, the
//! system's certificates) and `transfer`. Files in xet storage come over the hub's plain HTTP bridge.

mod cached;
mod http;
mod layout;
mod listing;
mod named;
mod redact;
mod request;
mod settings;
mod suggest;
mod transfer;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::gguf::PartName;
use crate::{CancelToken, Error, ErrorKind, Result};

pub use cached::{CachedModel, cached_models, remove_cached};
pub use named::{KnownFile, NamedModel, find_named, named_models};
pub use request::{ModelRequest, resolve};

use http::{Hub, Metadata};
use layout::{Wanted, check_repo};
use settings::Settings;

/// Where to look for a model and what to show the hub. Every `None` means what the environment says.
#[derive(Clone, Default)]
pub struct HubOptions {
    /// The cache directory. `None`: `HF_HUB_CACHE`, `HF_HOME/hub`, `XDG_CACHE_HOME/huggingface/hub`,
    /// `~/.cache/huggingface/hub`, the first that is set.
    pub cache_dir: Option<PathBuf>,
    /// The access token, sent to the hub itself and to no other host. `None`: `HF_TOKEN`, or the file that
    /// `hf auth login` writes. An empty text: no token at all.
    pub token: Option<String>,
    /// Use the cache only and open no socket, as `HF_HUB_OFFLINE=1` does for every call.
    pub local_files_only: bool,
    /// The hub. `None`: `HF_ENDPOINT`, or `https://huggingface.co`.
    pub endpoint: Option<String>,
    /// Make no symbolic links in the cache, as `HF_HUB_DISABLE_SYMLINKS=1` does: a hard link, or the file itself,
    /// takes the place. Where symbolic links are not possible, as on many Windows machines, that happens by itself.
    pub disable_symlinks: bool,
    /// How long the hub may be silent before the connection is given up and tried again. `None`:
    /// `HF_HUB_DOWNLOAD_TIMEOUT` in seconds, or 10 seconds.
    pub timeout: Option<Duration>,
    /// The wait before a failed request is tried again; it doubles each time. `None`: half a second.
    pub retry_delay: Option<Duration>,
}

impl fmt::Debug for HubOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubOptions")
            .field("cache_dir", &self.cache_dir)
            .field("token", &self.token.as_ref().map(|_| "..."))
            .field("local_files_only", &self.local_files_only)
            .field("endpoint", &self.endpoint)
            .field("disable_symlinks", &self.disable_symlinks)
            .field("timeout", &self.timeout)
            .field("retry_delay", &self.retry_delay)
            .finish()
    }
}

/// How far a download has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The file's name in its repository.
    pub file: &'a str,
    /// Bytes on disk, those of an earlier run included.
    pub bytes_done: u64,
    /// Bytes of the whole file, where the hub says so.
    pub bytes_total: Option<u64>,
}

/// What is told how far a download has come: at its start, at its end and at most every 50 ms between.
///
/// It is called on the thread that called [`download`], or, if that one drives a tokio runtime, on a thread of its
/// own. A file that was in the cache is not reported.
pub type ProgressFn<'a> = dyn FnMut(Progress<'_>) + Send + 'a;

/// The files of a model, whole and in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DownloadedModel {
    /// The GGUF file; of a split one, the first part, with all the others beside it.
    pub model_path: PathBuf,
    /// The `tokenizer.json`, where one was asked for and could be had.
    pub tokenizer_path: Option<PathBuf>,
}

/// Finds the model's files in the cache, and fetches from the hub what is not there.
///
/// A revision that is a commit hash and cached is returned without a request. For a branch the hub is asked whether
/// the cached file is the newest; if it cannot be reached, the cached file is returned with a warning. A download
/// that was cut or cancelled is resumed by the next call. Where the file is a part of a split GGUF
/// (`name-00001-of-00003.gguf`), all parts are fetched, of one commit. If the request names no file, or the repository
/// does not have it, the repository is asked for its files and the one of the request's quantization is taken; offline
/// it is looked for among the cached files. The tokenizer is optional, since a GGUF file carries its
/// own vocabulary: a failure to get it is a warning.
pub fn download(
    request: &ModelRequest,
    options: &HubOptions,
    progress: &mut ProgressFn<'_>,
    cancel: &CancelToken,
) -> Result<DownloadedModel> {
    let settings = Settings::new(options, &|name| std::env::var_os(name))?;
    let mut hub = Hub::new(&settings);
    let model_path = find_or_fetch_model(&mut hub, request, progress, cancel)?;
    let tokenizer_path = match &request.tokenizer_repo {
        None => None,
        Some(repo) => {
            let wanted = Wanted::new(repo, "tokenizer.json", "main")?;
            match find_or_fetch(&mut hub, &wanted, progress, cancel) {
                Ok(path) => Some(path),
                Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, repo, "no tokenizer.json; the vocabulary in the GGUF file is used");
                    None
                }
            }
        }
    };
    Ok(DownloadedModel { model_path, tokenizer_path })
}

/// The path of the model: of the file that is named, or of the one that has the quantization.
fn find_or_fetch_model(
    hub: &mut Hub<'_>,
    request: &ModelRequest,
    progress: &mut ProgressFn<'_>,
    cancel: &CancelToken,
) -> Result<PathBuf> {
    let ModelRequest { repo, revision, quantization, .. } = request;
    let file = match (&request.file, quantization) {
        (Some(file), None) => return find_or_fetch_parts(hub, repo, file, revision, progress, cancel),
        (Some(file), Some(_)) => match find_or_fetch_parts(hub, repo, file, revision, progress, cancel) {
            // The table of models may be older than the repository.
            Err(error) if hub.lacks_file => match file_of_quantization(hub, request, cancel) {
                Ok(found) if found != *file => found,
                Err(stopped) if stopped.kind() == ErrorKind::Cancelled => return Err(stopped),
                _ => return Err(error),
            },
            outcome => return outcome,
        },
        (None, _) => file_of_quantization(hub, request, cancel)?,
    };
    find_or_fetch_parts(hub, repo, &file, revision, progress, cancel)
}

/// Which file of the repository has the quantization: of the cached ones where no connection is to be opened, or where
/// the hub cannot be asked.
fn file_of_quantization(hub: &mut Hub<'_>, request: &ModelRequest, cancel: &CancelToken) -> Result<String> {
    let ModelRequest { repo, revision, .. } = request;
    let Some(quantization) = &request.quantization else {
        return Err(Error::invalid_input(format!("give the file or the quantization that is wanted of `{repo}`")));
    };
    check_repo(repo)?;
    let settings = hub.settings();
    let models = cached_models(Some(&settings.cache_dir))?.into_iter();
    let of_revision = |model: &CachedModel| model.revision == *revision || model.refs.contains(revision);
    let cached: Vec<_> =
        models.filter(|model| model.repo == *repo && of_revision(model)).map(|model| model.file).collect();
    let of_the_cache = |reason: &str| {
        let place = format!("the cache {}", settings.cache_dir.display());
        listing::pick(&cached, quantization, repo, &place).map_err(|error| {
            Error::download(format!("{error}, and {reason}; run once with a connection, or name a cached file"))
        })
    };
    if let Some(option) = settings.offline {
        return of_the_cache(&format!("{option} forbids a download"));
    }
    // Only a cached file of that quantization makes up for a hub that does not answer.
    let in_cache = listing::pick(&cached, quantization, repo, "the cache").is_ok();
    let hub = hub.connect()?;
    let answer = http::block_on(async {
        match hub.repository(repo, revision, in_cache, cancel).await {
            Ok(answer) => Ok(Some(answer)),
            Err(failure) if failure.cache_will_do && in_cache => {
                tracing::warn!(error = %failure.error, repo, "the hub cannot be asked; using the list of cached files");
                hub.in_trouble = true;
                Ok(None)
            }
            Err(failure) => Err(failure.error),
        }
    })?;
    match answer {
        Some(answer) => listing::pick(&listing::parse(&answer, repo)?, quantization, repo, "the repository"),
        None => of_the_cache("the hub cannot be asked"),
    }
}

/// The path of a file, or of the first of its parts when all of them are there.
fn find_or_fetch_parts(
    hub: &mut Hub<'_>,
    repo: &str,
    file: &str,
    revision: &str,
    progress: &mut ProgressFn<'_>,
    cancel: &CancelToken,
) -> Result<PathBuf> {
    let Some(parts) = PartName::parse(file) else {
        return find_or_fetch(hub, &Wanted::new(repo, file, revision)?, progress, cancel);
    };
    let first = parts.with_number(1);
    let wanted = Wanted::new(repo, &first, revision)?;
    let path = find_or_fetch(hub, &wanted, progress, cancel)?;
    // A branch may move on between two parts: the others are those of the first one's commit.
    let commit = wanted.commit_of(&path);
    for part in parts.all().skip(1) {
        let wanted = Wanted::new(repo, &part, commit.as_deref().unwrap_or(revision))?;
        find_or_fetch(hub, &wanted, progress, cancel)?;
    }
    Ok(path)
}

/// The path of one file: from the cache where that is enough, from the hub otherwise.
fn find_or_fetch(
    hub: &mut Hub<'_>,
    wanted: &Wanted<'_>,
    progress: &mut ProgressFn<'_>,
    cancel: &CancelToken,
) -> Result<PathBuf> {
    cancel.check()?;
    hub.lacks_file = false;
    let settings = hub.settings();
    let repo_dir = settings.cache_dir.join(wanted.folder());
    let cached = wanted.cached(&repo_dir);
    if let Some(path) = &cached
        && (settings.offline.is_some() || wanted.is_commit())
    {
        return Ok(path.clone());
    }
    if let Some(reason) = settings.offline {
        hub.lacks_file = true;
        return Err(Error::download(format!(
            "{wanted} is not in the cache {}, and {reason} forbids a download; run once without it, or give the \
             cache directory that has the file",
            settings.cache_dir.display()
        )));
    }
    http::block_on(async {
        let hub = hub.connect()?;
        let metadata = match hub.metadata(wanted, cached.is_some(), cancel).await {
            Ok(metadata) => metadata,
            Err(failure) => {
                hub.lacks_file = failure.lacks_file;
                return match cached {
                    Some(path) if failure.cache_will_do => {
                        tracing::warn!(error = %failure.error, path = %path.display(), "using the cached {}", wanted.file);
                        hub.in_trouble = true;
                        Ok(path)
                    }
                    _ => Err(failure.error),
                };
            }
        };
        place(hub, wanted, &repo_dir, &metadata, progress, cancel).await
    })
}

/// Makes the file that the hub described present in the cache, and returns its path.
async fn place(
    hub: &Hub<'_>,
    wanted: &Wanted<'_>,
    repo_dir: &std::path::Path,
    metadata: &Metadata,
    progress: &mut ProgressFn<'_>,
    cancel: &CancelToken,
) -> Result<PathBuf> {
    let settings = hub.settings();
    let pointer = wanted.pointer(repo_dir, &metadata.commit);
    if layout::is_whole(&pointer, metadata.size) {
        // The cache may be on a read-only disk, and the file is here: a revision that cannot be noted is no error.
        if let Err(error) = wanted.write_ref(repo_dir, &metadata.commit) {
            tracing::debug!(%error, "could not note the revision's commit");
        }
        return Ok(pointer);
    }
    let blob = repo_dir.join("blobs").join(&metadata.etag);
    for path in [&blob, &pointer] {
        let parent = path.parent().unwrap_or(repo_dir);
        std::fs::create_dir_all(parent).map_err(|error| layout::disk_error("make the folder", parent, error))?;
    }
    let lock = settings.cache_dir.join(".locks").join(wanted.folder()).join(format!("{}.lock", metadata.etag));
    let _lock = transfer::lock(&lock, cancel).await?;
    // Another process may have been faster while this one waited.
    if !layout::is_whole(&pointer, metadata.size) {
        let fetched = !layout::is_whole(&blob, metadata.size);
        if fetched {
            transfer::fetch(hub, wanted, metadata, &blob, progress, cancel).await?;
        }
        let links = if settings.symlinks { layout::LINKS } else { layout::HARD_LINKS };
        layout::link(&blob, &pointer, fetched, links)
            .map_err(|error| layout::disk_error("put the file at", &pointer, error))?;
    }
    wanted
        .write_ref(repo_dir, &metadata.commit)
        .map_err(|error| layout::disk_error("note the revision's commit in", repo_dir, error))?;
    Ok(pointer)
}
