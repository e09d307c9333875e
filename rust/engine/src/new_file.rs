//! Files that are written beside their place and take it when they are whole.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// What is written is given to the disk in pieces of this size, so that the end does not wait for all of it, and what waits
/// in memory stays small.
const SYNC_BYTES: usize = 32 << 20;
/// Files that others left under a name are stepped over; nobody left so many.
const TRIES: usize = 100;

/// A file that is not there yet: whoever opens its path sees the old one, or none, until [`finish`](Self::finish). What is
/// dropped before, or dies with its process, leaves the old one as it was.
pub(crate) struct NewFile {
    /// `None` once all is written.
    file: Option<File>,
    temporary: PathBuf,
    path: PathBuf,
    unsynced_bytes: usize,
    is_finished: bool,
}

impl NewFile {
    /// Begins a file that will be at `path`, in the place of one that is there.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let old = match path.metadata() {
            Ok(old) if old.is_dir() => {
                return Err(refused("it is a directory; expected the path of a file in it"));
            }
            Ok(old) if !old.is_file() => {
                return Err(refused("it is a device or a pipe; expected the path of a file"));
            }
            Ok(old) => Some(old),
            Err(_) => None,
        };
        // A link stays one, and what it points to is replaced, or made.
        let path = if old.is_some() { path.canonicalize()? } else { behind_links(path)? };
        if path.file_name().is_none() {
            return Err(refused("it has no file name; expected the path of a file"));
        }
        let folder = folder_of(&path);
        if !folder.is_dir() {
            return Err(io::Error::new(ErrorKind::NotFound, format!("there is no folder {}", folder.display())));
        }
        let (file, temporary) = create_beside(&path)?;
        let new = Self { file: Some(file), temporary, path, unsynced_bytes: 0, is_finished: false };
        // Who may not read the old one may not read the new one.
        if let Some(old) = old {
            new.file()?.set_permissions(old.permissions())?;
        }
        Ok(new)
    }

    /// Gives the rest to the disk and puts the file in its place.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.file()?.sync_all()?;
        // Windows renames no open file.
        self.file = None;
        std::fs::rename(&self.temporary, &self.path)?;
        self.is_finished = true;
        // That the name stands for the new file is on the disk with the folder. Not every system can be asked for it.
        #[cfg(unix)]
        let _ = File::open(folder_of(&self.path)).and_then(|folder| folder.sync_all());
        Ok(())
    }

    fn file(&self) -> io::Result<&File> {
        self.file.as_ref().ok_or_else(|| ErrorKind::BrokenPipe.into())
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file()?.write(bytes)?;
        self.unsynced_bytes += written;
        if self.unsynced_bytes >= SYNC_BYTES {
            self.unsynced_bytes = 0;
            self.file()?.sync_data()?;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file()?.flush()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        self.file = None;
        if !self.is_finished {
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

fn refused(why: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, why)
}

/// Where a file would be made that is opened by a path which nothing is at: at the end of links.
fn behind_links(path: &Path) -> io::Result<PathBuf> {
    /// As many as Linux follows.
    const MOST_LINKS: usize = 40;
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        match path.read_link() {
            Ok(target) => path = folder_of(&path).join(target),
            Err(_) => return Ok(path),
        }
    }
    Err(refused("it is a symbolic link that does not lead to a file; remove it, or use another path"))
}

fn create_beside(path: &Path) -> io::Result<(File, PathBuf)> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    for _ in 0..TRIES {
        let temporary = beside(path);
        match options.open(&temporary) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            opened => return Ok((opened?, temporary)),
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

/// The folder that a path lies in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A name in the same folder that no other process and no other thread has.
pub(crate) fn beside(path: &Path) -> PathBuf {
    /// Of the name; a system's names are at most 255 bytes long.
    const MOST_CHARACTERS: usize = 48;
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name: String = name.chars().take(MOST_CHARACTERS).collect();
    path.with_file_name(format!(".{name}.{}-{count}.tmp", std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_old_file_stays_until_the_new_one_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, b"old").unwrap();
        let mut new = NewFile::create(&path).unwrap();
        new.write_all(b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        drop(new);
        assert_eq!(
            (std::fs::read(&path).unwrap(), names(folder.path())),
            (b"old".to_vec(), vec!["file".to_owned()])
        );
        let mut new = NewFile::create(&path).unwrap();
        new.write_all(b"new").unwrap();
        new.finish().unwrap();
        assert_eq!(
            (std::fs::read(&path).unwrap(), names(folder.path())),
            (b"new".to_vec(), vec!["file".to_owned()])
        );
    }

    #[test]
    fn what_is_no_file_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing/file");
        for path in [folder.path(), Path::new("/dev/null"), Path::new("/"), missing.as_path()] {
            let error = NewFile::create(path).err().unwrap();
            assert!(matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::NotFound), "{path:?}: {error}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_and_the_permissions_stay() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("file"), folder.path().join("link"));
        std::fs::write(&path, b"old").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink("file", &link).unwrap();
        let mut new = NewFile::create(&link).unwrap();
        new.write_all(b"new").unwrap();
        new.finish().unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}
