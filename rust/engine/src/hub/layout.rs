//! Where the cache keeps what: names checked, paths made, links laid.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::file::read_small;
use crate::new_file::{beside, create_beside, replace};
use crate::{Error, Result};

/// One file of one repository at one revision, its names checked to be names and no ways out of the cache.
pub(super) struct Wanted<'a> {
    pub(super) repo: &'a str,
    pub(super) file: &'a str,
    pub(super) revision: &'a str,
}

impl fmt::Display for Wanted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` of `{}` (revision `{}`)", self.file, self.repo, self.revision)
    }
}

impl<'a> Wanted<'a> {
    pub(super) fn new(repo: &'a str, file: &'a str, revision: &'a str) -> Result<Self> {
        check_repo(repo)?;
        check_relative("file name", file)?;
        check_relative("revision", revision)?;
        Ok(Self { repo, file, revision })
    }

    pub(super) fn folder(&self) -> String {
        folder(self.repo)
    }

    pub(super) fn is_commit(&self) -> bool {
        self.revision.len() == 40 && self.revision.bytes().all(|byte| byte.is_ascii_hexdigit())
    }

    pub(super) fn pointer(&self, repo_dir: &Path, commit: &str) -> PathBuf {
        let mut path = repo_dir.join("snapshots").join(commit);
        path.extend(self.file.split('/'));
        path
    }

    fn ref_path(&self, repo_dir: &Path) -> PathBuf {
        let mut path = repo_dir.join("refs");
        path.extend(self.revision.split('/'));
        path
    }

    /// The file in the cache, if the revision is known there and the file is.
    pub(super) fn cached(&self, repo_dir: &Path) -> Option<PathBuf> {
        let commit = if self.is_commit() {
            self.revision.to_owned()
        } else {
            read_small(&self.ref_path(repo_dir))?.trim().to_owned()
        };
        let path = self.pointer(repo_dir, &commit);
        (is_component(&commit) && path.is_file()).then_some(path)
    }

    /// The commit whose snapshot a path of this file lies in.
    pub(super) fn commit_of(&self, path: &Path) -> Option<String> {
        let depth = self.file.split('/').count();
        path.ancestors().nth(depth)?.file_name()?.to_str().map(str::to_owned)
    }

    /// Notes which commit a branch or tag stands for.
    pub(super) fn write_ref(&self, repo_dir: &Path, commit: &str) -> io::Result<()> {
        let path = self.ref_path(repo_dir);
        if self.is_commit() || read_small(&path).is_some_and(|noted| noted == commit) {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        replace(&path, commit.as_bytes())
    }
}

pub(super) fn folder(repo: &str) -> String {
    format!("models--{}", repo.replace('/', "--"))
}

/// Checks for `owner/name` as the hub has them.
pub(super) fn check_repo(repo: &str) -> Result<()> {
    let good = |part: &str| is_component(part) && !part.starts_with(['-', '.']) && !part.ends_with(['-', '.']);
    match repo.split_once('/') {
        Some((owner, name))
            if good(owner) && good(name) && !repo.contains("--") && !repo.contains("..") && repo.len() <= 96 =>
        {
            Ok(())
        }
        _ => Err(Error::invalid_input(format!(
            "a repository must be `owner/name`, of letters, digits, `-`, `_` and `.`, got `{}`",
            repo.escape_default()
        ))),
    }
}

/// Checks a file name or revision: parts between slashes that stay below where they are put, on every system.
pub(super) fn check_relative(what: &str, text: &str) -> Result<()> {
    let bad = |c: char| c.is_control() || matches!(c, '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|');
    let good = |part: &str| !part.is_empty() && !part.starts_with("..") && part != "." && !part.contains(bad);
    if text.split('/').all(good) && text.len() <= 255 {
        return Ok(());
    }
    Err(Error::invalid_input(format!(
        "a {what} must be a relative path with `/` between its parts and without `..`, got `{}`",
        text.escape_default()
    )))
}

/// Whether a text that came from outside can be one name in a directory.
pub(super) fn is_component(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 128
        && !text.starts_with('.')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// Whether there is a file of that size. A cut file under the right name, as other programs may leave it, is none.
pub(super) fn is_whole(path: &Path, size: u64) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() == size)
}

/// A way to make `pointer` show `blob`.
pub(super) type Link = fn(&Path, &Path) -> io::Result<()>;

/// In order of preference. A hard link needs no privilege on Windows, and no second copy.
pub(super) const LINKS: &[Link] = &[symlink, hard_link];
/// Where symbolic links are not wanted.
pub(super) const HARD_LINKS: &[Link] = &[hard_link];

/// Makes `pointer` show `blob` by the first of `links` that works. Where none does, a `fresh` blob, that nothing else
/// points to, is moved there, and any other is copied.
pub(super) fn link(blob: &Path, pointer: &Path, fresh: bool, links: &[Link]) -> io::Result<()> {
    let mut temporary = beside(pointer);
    // Made beside the pointer and renamed over it, so that no reader finds it missing or half written.
    let made = links.iter().any(|link| link(blob, &temporary).is_ok());
    if !made {
        if fresh {
            return std::fs::rename(blob, pointer);
        }
        let (mut copy, name) = create_beside(pointer)?;
        temporary = name;
        let copied = File::open(blob).and_then(|mut blob| io::copy(&mut blob, &mut copy));
        copied.inspect_err(|_| drop(std::fs::remove_file(&temporary)))?;
    }
    std::fs::rename(&temporary, pointer).inspect_err(|_| {
        let _ = std::fs::remove_file(&temporary);
    })
}

/// A relative link, so that the cache can be moved. `blob` and `pointer` lie below the same repository folder.
fn symlink(blob: &Path, pointer: &Path) -> io::Result<()> {
    let repo_dir = blob.parent().and_then(Path::parent).ok_or(io::ErrorKind::InvalidInput)?;
    let below = pointer.strip_prefix(repo_dir).map_err(|_| io::ErrorKind::InvalidInput)?;
    let up: PathBuf = below.components().skip(1).map(|_| "..").collect();
    let target = up.join("blobs").join(blob.file_name().unwrap_or_default());
    #[cfg(unix)]
    return std::os::unix::fs::symlink(target, pointer);
    #[cfg(windows)]
    return std::os::windows::fs::symlink_file(target, pointer);
    #[cfg(not(any(unix, windows)))]
    Err(io::ErrorKind::Unsupported.into())
}

/// `huggingface_hub` may keep a link as its blob: what counts is the file behind it.
fn hard_link(blob: &Path, pointer: &Path) -> io::Result<()> {
    std::fs::hard_link(std::fs::canonicalize(blob)?, pointer)
}

/// An error of the disk, with what was tried and where.
pub(super) fn disk_error(action: &str, path: &Path, error: io::Error) -> Error {
    let hint = if error.kind() == io::ErrorKind::PermissionDenied {
        "; set HF_HOME, HF_HUB_CACHE or cache_dir to a writable directory"
    } else {
        ""
    };
    Error::download(format!("cannot {action} {}: {error}{hint}", path.display())).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_and_files_are_names_and_no_ways_out() {
        for repo in ["microsoft/Phi-3-mini-4k-instruct-gguf", "a/b_c.d", "_me/x"] {
            check_repo(repo).unwrap();
        }
        for repo in ["", "phi", "a/b/c", "../b", "a/..", "/a", "a/", "a\\b/c", "a--b/c", "a/b c", "a/.b", "a/b\0"]
        {
            assert!(check_repo(repo).is_err(), "{repo}");
        }
        for file in ["x.gguf", "sub/dir/x-00001-of-00002.gguf", "a b.gguf", "ü.gguf"] {
            check_relative("file name", file).unwrap();
        }
        for file in ["", "/etc/passwd", "../x", "a/../x", "a//x", "a/./x", "C:/x", "a\\x", "x\n", "a/", "..x", "."]
        {
            assert!(check_relative("file name", file).is_err(), "{file}");
        }
    }

    #[test]
    fn commit_hashes_are_forty_hexadecimal_digits() {
        let commit = |revision: &str| Wanted { repo: "a/b", file: "x", revision }.is_commit();
        assert!(commit("0123456789abcdef0123456789ABCDEF01234567"));
        assert!(!commit("main") && !commit(&"g".repeat(40)) && !commit(&"a".repeat(39)));
    }

    fn blob_and_pointer(directory: &Path) -> (PathBuf, PathBuf) {
        let blob = directory.join("blobs/e");
        let pointer = directory.join("snapshots/c/sub/x.gguf");
        for path in [&blob, &pointer] {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        }
        std::fs::write(&blob, "whole").unwrap();
        (blob, pointer)
    }

    #[cfg(unix)]
    #[test]
    fn a_symbolic_link_is_relative_and_survives_a_move_of_the_cache() {
        let directory = tempfile::tempdir().unwrap();
        let (blob, pointer) = blob_and_pointer(&directory.path().join("a"));
        link(&blob, &pointer, true, LINKS).unwrap();
        assert_eq!(std::fs::read_link(&pointer).unwrap(), PathBuf::from("../../../blobs/e"));
        std::fs::rename(directory.path().join("a"), directory.path().join("b")).unwrap();
        assert_eq!(std::fs::read(directory.path().join("b/snapshots/c/sub/x.gguf")).unwrap(), b"whole");
    }

    #[test]
    fn without_symbolic_links_a_hard_link_a_move_or_a_copy_does() {
        for (links, fresh, blob_stays) in [(HARD_LINKS, true, true), (&[], true, false), (&[], false, true)] {
            let directory = tempfile::tempdir().unwrap();
            let (blob, pointer) = blob_and_pointer(directory.path());
            // A broken link of the same name is replaced.
            #[cfg(unix)]
            std::os::unix::fs::symlink("nowhere", &pointer).unwrap();
            link(&blob, &pointer, fresh, links).unwrap();
            assert_eq!(std::fs::read(&pointer).unwrap(), b"whole");
            assert!(!pointer.is_symlink());
            assert_eq!(blob.exists(), blob_stays);
            assert_eq!(
                std::fs::read_dir(pointer.parent().unwrap()).unwrap().count(),
                1,
                "no temporary file is left"
            );
        }
    }

    #[cfg(unix)]
    #[test]
    fn nothing_is_written_through_a_link_in_the_cache() {
        let directory = tempfile::tempdir().unwrap();
        let repo_dir = directory.path().join("repo");
        let own = directory.path().join("own");
        std::fs::create_dir_all(repo_dir.join("refs")).unwrap();
        std::fs::write(&own, "mine").unwrap();
        // The names that are used next, and the ref itself.
        let sample = beside(&repo_dir.join("refs/main"));
        let name = sample.file_name().unwrap().to_str().unwrap();
        let (start, number) = name.strip_suffix(".tmp").unwrap().rsplit_once('-').unwrap();
        let number: u64 = number.parse().unwrap();
        for number in number..number + 50 {
            let link = repo_dir.join(format!("refs/{start}-{number}.tmp"));
            std::os::unix::fs::symlink(&own, link).unwrap();
        }
        std::os::unix::fs::symlink(&own, repo_dir.join("refs/main")).unwrap();
        Wanted::new("a/b", "x", "main").unwrap().write_ref(&repo_dir, "abc").unwrap();
        assert_eq!(std::fs::read(&own).unwrap(), b"mine");
        assert_eq!(std::fs::read(repo_dir.join("refs/main")).unwrap(), b"abc");
        assert!(!repo_dir.join("refs/main").is_symlink());
    }

    #[cfg(unix)]
    #[test]
    fn a_ref_that_is_a_pipe_or_endless_is_no_ref() {
        let directory = tempfile::tempdir().unwrap();
        let refs = directory.path().join("refs");
        std::fs::create_dir_all(&refs).unwrap();
        let wanted = Wanted::new("a/b", "x", "main").unwrap();
        let path = refs.join("main");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert_eq!(wanted.cached(directory.path()), None);
        std::fs::remove_file(&path).unwrap();
        std::fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(wanted.cached(directory.path()), None);
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        assert_eq!(wanted.cached(directory.path()), None);
    }

    #[test]
    fn a_ref_that_leads_out_of_the_cache_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("repo/refs")).unwrap();
        std::fs::create_dir_all(directory.path().join("repo/snapshots")).unwrap();
        std::fs::write(directory.path().join("x"), "outside").unwrap();
        std::fs::write(directory.path().join("repo/refs/main"), "../..").unwrap();
        let wanted = Wanted::new("a/b", "x", "main").unwrap();
        assert_eq!(wanted.cached(&directory.path().join("repo")), None);
    }
}
