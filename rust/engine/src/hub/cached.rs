//! What models the cache holds, and their removal.
//!
//! Not hf-hub's `scan_cache`: it follows links out of the cache, and needs a network client to read a directory.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::fs::{DirEntry, File};
use std::io;
use std::path::{Path, PathBuf};

use super::layout::{check_repo, disk_error, folder, is_component};
use super::{named, settings};
use crate::file::{open_no_link, read_small};
use crate::gguf::PartName;
use crate::{Error, Result};

/// A model in the cache: a GGUF file, or all parts of a split one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedModel {
    /// `owner/name`
    pub repo: String,
    /// The file's name in the repository; of a split file, that of the first part.
    pub file: String,
    /// The commit that it belongs to.
    pub revision: String,
    /// The branches and tags that stand for that commit in the cache.
    pub refs: Vec<String>,
    /// Where to load it from.
    pub path: PathBuf,
    /// Bytes on disk, of all parts together. Two revisions of a repository may share them.
    pub size_bytes: u64,
}

/// A file or link in a snapshot folder.
struct Entry {
    commit: String,
    /// Below the snapshot, with `/` between the parts.
    file: String,
    path: PathBuf,
    /// The blob's name, where it is a link to one of the same repository.
    blob: Option<OsString>,
    /// A link to anywhere else: not ours to read or to count.
    foreign: bool,
}

impl Entry {
    fn is_gguf(&self) -> bool {
        Path::new(&self.file).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
    }

    fn is_tokenizer(&self) -> bool {
        self.file == "tokenizer.json"
    }
}

/// The GGUF files in the cache, sorted by repository, file and commit. `None`: the environment's cache directory.
///
/// The parts of a split file are one model, which is listed once all of them are there.
pub fn cached_models(cache_dir: Option<&Path>) -> Result<Vec<CachedModel>> {
    let cache_dir = settings::cache_dir(cache_dir, &|name| std::env::var_os(name))?;
    let mut models = Vec::new();
    for repo_dir in children(&cache_dir).map_err(|error| disk_error("read", &cache_dir, error))? {
        let name = repo_dir.file_name().to_string_lossy().into_owned();
        let Some(repo) = name.strip_prefix("models--").map(|rest| rest.replacen("--", "/", 1)) else { continue };
        if check_repo(&repo).is_err() || !is_real_dir(&repo_dir) {
            continue;
        }
        let repo_dir = repo_dir.path();
        let refs = refs(&repo_dir);
        for entry in entries(&repo_dir).map_err(|error| disk_error("read", &repo_dir, error))? {
            // A link whose blob is gone, or that leads elsewhere, is no model.
            let Ok(metadata) = std::fs::metadata(&entry.path) else { continue };
            if entry.is_gguf() && !entry.foreign && metadata.is_file() {
                let names = refs.iter().filter(|(_, commit)| *commit == entry.commit);
                models.push(CachedModel {
                    repo: repo.clone(),
                    refs: names.map(|(name, _)| name.clone()).collect(),
                    file: entry.file,
                    revision: entry.commit,
                    path: entry.path,
                    size_bytes: metadata.len(),
                });
            }
        }
    }
    let mut models = join_parts(models);
    models.sort_by(|a, b| (&a.repo, &a.file, &a.revision).cmp(&(&b.repo, &b.file, &b.revision)));
    Ok(models)
}

/// Makes one model of all parts of a split file.
fn join_parts(found: Vec<CachedModel>) -> Vec<CachedModel> {
    let (mut models, mut split) = (Vec::new(), BTreeMap::new());
    for model in found {
        match PartName::parse(&model.file).map(|name| (name.with_number(1), name.count)) {
            None => models.push(model),
            Some((first, count)) => {
                let parts = split.entry((model.repo.clone(), first, model.revision.clone(), count));
                parts.or_insert_with(Vec::new).push(model);
            }
        }
    }
    for ((_, first, _, count), parts) in split {
        let size_bytes = parts.iter().map(|part| part.size_bytes).sum();
        let whole = parts.len() == count;
        if let (true, Some(part)) = (whole, parts.into_iter().find(|part| part.file == first)) {
            models.push(CachedModel { size_bytes, ..part });
        }
    }
    models
}

/// Removes a repository's GGUF files from the cache, begun downloads included, and returns the bytes freed. The
/// `tokenizer.json` that was fetched with a named model goes too, unless its repository has other files in the cache.
///
/// Other files of the repository stay, and so does what another process is fetching at the moment. Links are removed,
/// never followed out of the cache. A model that a process has mapped stays usable there on Unix; on Windows its file
/// cannot be removed.
pub fn remove_cached(repo: &str, cache_dir: Option<&Path>) -> Result<u64> {
    check_repo(repo)?;
    let cache_dir = settings::cache_dir(cache_dir, &|name| std::env::var_os(name))?;
    let Some(mut freed) = remove_files(&cache_dir, repo, Entry::is_gguf)? else {
        return Err(Error::model_not_found(format!(
            "the cache {} has no GGUF file of `{repo}`; `cached_models` lists its files",
            cache_dir.display()
        )));
    };
    for tokenizer_repo in named::tokenizer_repos(repo) {
        let repo_dir = cache_dir.join(folder(tokenizer_repo));
        let cached = entries(&repo_dir).map_err(|error| disk_error("read", &repo_dir, error))?;
        // Where there is more, another program fetched it, and may want this file too.
        if !cached.is_empty() && cached.iter().all(Entry::is_tokenizer) {
            freed += remove_files(&cache_dir, tokenizer_repo, Entry::is_tokenizer)?.unwrap_or_default();
        }
    }
    Ok(freed)
}

/// Removes those files of a repository that are `wanted`, and downloads that were begun; the bytes freed, or nothing
/// if there was nothing to remove.
fn remove_files(cache_dir: &Path, repo: &str, wanted: fn(&Entry) -> bool) -> Result<Option<u64>> {
    let repo_dir = cache_dir.join(folder(repo));
    let failed = |error| disk_error("remove the model from", &repo_dir, error);
    let (models, others): (Vec<_>, Vec<_>) = entries(&repo_dir).map_err(failed)?.into_iter().partition(wanted);
    let blobs =
        if is_real_path(&repo_dir) { children(&repo_dir.join("blobs")).map_err(failed)? } else { Vec::new() };
    let begun =
        blobs.iter().any(|blob| Path::new(&blob.file_name()).extension().is_some_and(|e| e == "incomplete"));
    if models.is_empty() && !begun {
        return Ok(None);
    }

    let mut freed = 0;
    // Sizes of files that stood in the snapshot themselves: a blob of the same size may be the same file under
    // another name (a hard link), and is not counted twice.
    let mut standing = Vec::new();
    for entry in &models {
        let metadata = std::fs::symlink_metadata(&entry.path).map_err(failed)?;
        std::fs::remove_file(&entry.path).map_err(failed)?;
        if metadata.is_file() {
            freed += metadata.len();
            standing.push(metadata.len());
        }
    }
    let kept: HashSet<_> = others.iter().filter_map(|entry| entry.blob.clone()).collect();
    for blob in blobs {
        let name = blob.file_name();
        let etag = name.to_string_lossy().trim_end_matches(".incomplete").to_owned();
        let Ok(_lock) = lock_if_idle(cache_dir, repo, &etag) else { continue };
        let metadata = std::fs::symlink_metadata(blob.path()).map_err(failed)?;
        if kept.contains(&name) || metadata.is_dir() {
            continue;
        }
        std::fs::remove_file(blob.path()).map_err(failed)?;
        if let Some(same) = standing.iter().position(|size| *size == metadata.len()) {
            standing.swap_remove(same);
        } else if metadata.is_file() {
            freed += metadata.len();
        }
    }
    if others.is_empty() {
        for path in files_below(&repo_dir.join("refs")) {
            std::fs::remove_file(path).map_err(failed)?;
        }
    }
    remove_empty(&repo_dir);
    Ok(Some(freed))
}

/// Locks a blob for the time of its removal. `Err`: a process is fetching it.
fn lock_if_idle(cache_dir: &Path, repo: &str, etag: &str) -> std::result::Result<Option<File>, fs4::TryLockError> {
    let path = cache_dir.join(".locks").join(folder(repo)).join(format!("{etag}.lock"));
    // Where there is no lock nobody holds it, and a disk without locks has none to wait for.
    let Ok(file) = open_no_link(File::options().write(true), &path) else { return Ok(None) };
    match fs4::FileExt::try_lock(&file) {
        Err(fs4::TryLockError::WouldBlock) => Err(fs4::TryLockError::WouldBlock),
        _ => Ok(Some(file)),
    }
}

/// Everything in a repository's snapshots.
fn entries(repo_dir: &Path) -> io::Result<Vec<Entry>> {
    let mut found = Vec::new();
    if !is_real_path(repo_dir) || !is_real_path(&repo_dir.join("snapshots")) {
        return Ok(found);
    }
    for snapshot in children(&repo_dir.join("snapshots"))? {
        let commit = snapshot.file_name().to_string_lossy().into_owned();
        if !is_real_dir(&snapshot) || !is_component(&commit) {
            continue;
        }
        let root = snapshot.path();
        for path in files_below(&root) {
            let Ok(below) = path.strip_prefix(&root) else { continue };
            let parts: Vec<_> = below.iter().map(|part| part.to_string_lossy()).collect();
            let (blob, foreign) = match std::fs::read_link(&path) {
                Err(_) => (None, false),
                Ok(target) => {
                    let blob = own_blob(repo_dir, &path, &target);
                    let foreign = blob.is_none();
                    (blob, foreign)
                }
            };
            found.push(Entry { commit: commit.clone(), file: parts.join("/"), path, blob, foreign });
        }
    }
    Ok(found)
}

/// The blob's name, if a link leads into the repository's own folder of blobs.
fn own_blob(repo_dir: &Path, link: &Path, target: &Path) -> Option<OsString> {
    let folder = link.parent()?.join(target.parent()?);
    let same = std::fs::canonicalize(folder).ok()? == std::fs::canonicalize(repo_dir.join("blobs")).ok()?;
    same.then(|| target.file_name().map(OsString::from)).flatten()
}

/// Branches and tags with their commits.
fn refs(repo_dir: &Path) -> Vec<(String, String)> {
    let root = repo_dir.join("refs");
    let mut refs: Vec<_> = files_below(&root)
        .into_iter()
        .filter_map(|path| {
            let parts: Vec<_> = path.strip_prefix(&root).ok()?.iter().map(|part| part.to_string_lossy()).collect();
            let commit = read_small(&path)?.trim().to_owned();
            Some((parts.join("/"), commit))
        })
        .collect();
    refs.sort();
    refs
}

/// A directory's entries; of one that is not there, none.
fn children(directory: &Path) -> io::Result<Vec<DirEntry>> {
    match std::fs::read_dir(directory) {
        Ok(entries) => entries.collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn is_real_dir(entry: &DirEntry) -> bool {
    entry.file_type().is_ok_and(|kind| kind.is_dir())
}

/// Whether it is a directory and no link to one.
fn is_real_path(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

/// Files and links below a directory, in directories that are no links.
fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut open = if is_real_path(directory) { vec![directory.to_owned()] } else { Vec::new() };
    while let Some(directory) = open.pop() {
        for entry in children(&directory).unwrap_or_default() {
            if is_real_dir(&entry) {
                open.push(entry.path());
            } else {
                files.push(entry.path());
            }
        }
    }
    files
}

/// Removes a directory if there is no file in it, and those of its directories that have none.
fn remove_empty(directory: &Path) {
    if is_real_path(directory) {
        for entry in children(directory).unwrap_or_default() {
            if is_real_dir(&entry) {
                remove_empty(&entry.path());
            }
        }
        // Fails where something is left in it, which is the point.
        let _ = std::fs::remove_dir(directory);
    }
}
