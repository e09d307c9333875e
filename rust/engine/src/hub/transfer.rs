//! One file's bytes: resumed where they stopped, counted, hashed, and given their name when they are all there.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use fs4::{FileExt, TryLockError};
use reqwest::{Response, StatusCode, header};
use sha2::{Digest, Sha256};

use super::http::{Answer, Failure, Hub, MAX_TRIES, Metadata};
use super::layout::{Wanted, disk_error};
use super::{Progress, ProgressFn};
use crate::file::open_no_link;
use crate::size::size_text;
use crate::{CancelToken, Error, Result};

const REPORT_EVERY: Duration = Duration::from_millis(50);
const LOCK_EVERY: Duration = Duration::from_millis(50);

/// Waits until no other process fetches the same file. The lock goes with the returned file.
///
/// It is advisory, and the same file that `huggingface_hub` locks. On a disk without locks the download goes on
/// unlocked; two processes would then write the same bytes, and the hash has the last word.
pub(super) async fn lock(path: &Path, cancel: &CancelToken) -> Result<Option<File>> {
    let open = || {
        std::fs::create_dir_all(path.parent().unwrap_or(path))?;
        open_no_link(OpenOptions::new().write(true).create(true).truncate(false), path)
    };
    let file = open().map_err(|error| disk_error("open the lock", path, error))?;
    let mut told = false;
    loop {
        match FileExt::try_lock(&file) {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) => {
                if !told {
                    tracing::info!(lock = %path.display(), "another process is downloading this file; waiting for it");
                    told = true;
                }
                cancel.check()?;
                tokio::time::sleep(LOCK_EVERY).await;
            }
            Err(TryLockError::Error(error)) => {
                tracing::warn!(%error, lock = %path.display(), "the disk does not support locks; continuing without one");
                return Ok(None);
            }
        }
    }
}

/// Fetches the file into `blob`, through `blob.incomplete`. On an error that one stays, for the next call to resume.
pub(super) async fn fetch(
    hub: &Hub<'_>,
    wanted: &Wanted<'_>,
    metadata: &Metadata,
    blob: &Path,
    progress: &mut ProgressFn<'_>,
    cancel: &CancelToken,
) -> Result<()> {
    let incomplete = blob.with_file_name(format!("{}.incomplete", metadata.etag));
    let mut part = Part::open(&incomplete, metadata, cancel)?;
    check_space(&incomplete, wanted, metadata.size - part.len)?;
    if part.len > 0 {
        tracing::info!(bytes = part.len, "resuming the download of {wanted}");
    }
    let mut report = Report { file: wanted.file, total: metadata.size, last: None, progress };
    report.now(part.len);

    let mut furthest = part.len;
    let mut resumed = part.len > 0;
    let mut tries = 0;
    loop {
        let failure = if part.len < metadata.size {
            append(hub, wanted, metadata.size, &mut part, &mut report, cancel).await.err()
        } else {
            None
        };
        let (error, after) = match failure {
            None if part.len == metadata.size => match part.check() {
                Ok(()) => break,
                // What an earlier run left may be the fault; what this run fetched from the first byte is the hub's.
                Err(error) => {
                    let again = resumed;
                    resumed = false;
                    part.restart()?;
                    furthest = 0;
                    if !again {
                        drop(part);
                        let _ = std::fs::remove_file(&incomplete);
                        return Err(error);
                    }
                    tracing::warn!(%error, "the partial download is damaged; downloading the file again");
                    continue;
                }
            },
            None => (Error::download(format!("the body of {wanted} ended early")), Duration::ZERO),
            Some(Failure { error, retry: Some(after), .. }) => (error, after),
            Some(Failure { error, .. }) => return Err(error),
        };
        // Only a byte further than ever is progress: a server that ignores ranges may send the same start for ever.
        tries = if part.len > furthest { 1 } else { tries + 1 };
        furthest = furthest.max(part.len);
        if tries >= MAX_TRIES {
            return Err(Error::download(format!(
                "the download of {wanted} stopped at {} of {}: {error}. Run it again to resume",
                size_text(part.len),
                size_text(metadata.size)
            ))
            .with_source(error));
        }
        tracing::warn!(%error, bytes = part.len, "the download was interrupted; resuming it");
        hub.pause(tries, after, cancel).await?;
    }

    part.file.sync_all().map_err(|error| disk_error("write", &incomplete, error))?;
    // Windows renames no open file.
    drop(part);
    std::fs::rename(&incomplete, blob)
        .map_err(|error| disk_error("rename to its final name", &incomplete, error))?;
    report.now(metadata.size);
    Ok(())
}

/// One request's worth of bytes. `Ok` when the body ended, whether or not it was all.
async fn append(
    hub: &Hub<'_>,
    wanted: &Wanted<'_>,
    size: u64,
    part: &mut Part<'_>,
    report: &mut Report<'_, '_>,
    cancel: &CancelToken,
) -> Answer<()> {
    let mut response = match hub.body(wanted, part.len, cancel).await {
        Err(failure) if failure.range_refused => {
            part.restart().map_err(Failure::fatal)?;
            return Err(failure);
        }
        other => other?,
    };
    if response.status() == StatusCode::PARTIAL_CONTENT {
        let range = response.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
        let expected = format!("bytes {}-{}/{size}", part.len, size - 1);
        if range != Some(expected.as_str()) {
            return Err(Failure::transient(format!(
                "the server must send the range `{expected}`, got `{}`",
                range.unwrap_or_default()
            )));
        }
    } else {
        // The whole file, though a part of it was asked for, or something that is not the file at all.
        if let Some(length) = content_length(&response).filter(|length| *length != size) {
            return Err(Failure::transient(format!(
                "the server must send {size} bytes for {wanted}, got {length} bytes; check whether a proxy answers for it"
            )));
        }
        if part.len > 0 {
            tracing::warn!("the server does not resume downloads; downloading {wanted} from the start");
            part.restart().map_err(Failure::fatal)?;
        }
    }
    while let Some(chunk) = hub.chunk(&mut response, cancel).await? {
        let chunk = chunk.as_ref();
        if part.len + chunk.len() as u64 > size {
            part.restart().map_err(Failure::fatal)?;
            return Err(Failure::transient(format!("the server sent more than the {size} bytes of {wanted}")));
        }
        part.write(chunk).map_err(Failure::fatal)?;
        report.sometimes(part.len);
    }
    Ok(())
}

fn content_length(response: &Response) -> Option<u64> {
    response.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The file that grows.
struct Part<'a> {
    file: File,
    path: &'a Path,
    len: u64,
    /// Of all bytes so far, with what it must be at the end, where the hub gave that.
    hash: Option<(Sha256, String)>,
}

impl<'a> Part<'a> {
    /// Opens what an earlier run left, or nothing.
    fn open(path: &'a Path, metadata: &Metadata, cancel: &CancelToken) -> Result<Self> {
        let failed = |error| disk_error("open", path, error);
        remove_unless_own(path).map_err(failed)?;
        let file = open_no_link(OpenOptions::new().read(true).write(true).create(true).truncate(false), path)
            .map_err(failed)?;
        let len = file.metadata().map_err(failed)?.len();
        let mut part = Self { file, path, len, hash: metadata.sha256().map(|expected| (Sha256::new(), expected)) };
        if part.len > metadata.size {
            part.restart()?;
        }
        if let Some((hash, _)) = &mut part.hash {
            let mut buffer = vec![0; 1 << 20];
            loop {
                cancel.check()?;
                let read = part.file.read(&mut buffer).map_err(failed)?;
                match buffer.get(..read) {
                    Some(bytes) if read > 0 => hash.update(bytes),
                    _ => break,
                }
            }
        }
        part.file.seek(SeekFrom::Start(part.len)).map_err(failed)?;
        Ok(part)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| {
            // How much of it was written is not known, and what is not counted must not stay.
            let _ = self.file.set_len(self.len);
            disk_error("write", self.path, error)
        })?;
        self.len += bytes.len() as u64;
        if let Some((hash, _)) = &mut self.hash {
            hash.update(bytes);
        }
        Ok(())
    }

    /// Throws away what is there.
    fn restart(&mut self) -> Result<()> {
        self.len = 0;
        if let Some((hash, _)) = &mut self.hash {
            hash.reset();
        }
        let emptied = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        emptied.map(|_| ()).map_err(|error| disk_error("empty", self.path, error))
    }

    /// Holds the bytes against the hub's hash.
    fn check(&mut self) -> Result<()> {
        let Some((hash, expected)) = &mut self.hash else { return Ok(()) };
        let mut found = String::with_capacity(64);
        for byte in hash.finalize_reset() {
            let _ = write!(found, "{byte:02x}");
        }
        if found == *expected {
            return Ok(());
        }
        Err(Error::download(format!(
            "the SHA-256 of the downloaded file must be {expected}, got {found}; the file was deleted: download it again, \
             and check your proxy if that fails too"
        )))
    }
}

/// Removes what is not a file of one name: a link would lead the download into another file, a pipe would end it.
fn remove_unless_own(path: &Path) -> io::Result<()> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return Ok(()) };
    #[cfg(unix)]
    let is_shared = std::os::unix::fs::MetadataExt::nlink(&metadata) > 1;
    #[cfg(not(unix))]
    let is_shared = false;
    if metadata.is_dir() || metadata.is_file() && !is_shared {
        return Ok(());
    }
    tracing::warn!(path = %path.display(), "the partial download is a link or is not a file; it is removed");
    std::fs::remove_file(path)
}

/// Tells of progress, but not of every packet.
struct Report<'a, 'p> {
    file: &'a str,
    total: u64,
    last: Option<Instant>,
    progress: &'a mut ProgressFn<'p>,
}

impl Report<'_, '_> {
    fn now(&mut self, bytes_done: u64) {
        self.last = Some(Instant::now());
        (self.progress)(Progress { file: self.file, bytes_done, bytes_total: Some(self.total) });
    }

    fn sometimes(&mut self, bytes_done: u64) {
        if self.last.is_none_or(|last| last.elapsed() >= REPORT_EVERY) {
            self.now(bytes_done);
        }
    }
}

/// Says before the first byte that the last one will not fit.
fn check_space(path: &Path, wanted: &Wanted<'_>, needed: u64) -> Result<()> {
    let directory = path.parent().unwrap_or(path);
    match fs4::available_space(directory) {
        Ok(free) if free < needed => Err(Error::download(format!(
            "{wanted} needs {} more on the disk of {}, which has only {} free; free some space, or set HF_HOME or \
             cache_dir to a directory on another disk",
            size_text(needed),
            directory.display(),
            size_text(free)
        ))),
        Ok(_) => Ok(()),
        Err(error) => {
            tracing::debug!(%error, "the free space is not known");
            Ok(())
        }
    }
}
