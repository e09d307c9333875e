//! Files that are written beside their place and take it when they are whole.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
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
        remove_abandoned(&path);
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

/// Replaces a small file, or a link in its place, at once: a reader sees the old text or the new one.
#[cfg(feature = "hub")]
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    remove_abandoned(path);
    let (mut file, temporary) = create_beside(path)?;
    let written = file.write_all(bytes);
    // Windows renames no open file.
    drop(file);
    written
        .and_then(|()| std::fs::rename(&temporary, path))
        .inspect_err(|_| drop(std::fs::remove_file(&temporary)))
}

/// Makes a file with a name of its own in the folder of `path`. A link of that name is not followed.
pub(crate) fn create_beside(path: &Path) -> io::Result<(File, PathBuf)> {
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
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    path.with_file_name(format!("{}{}-{count}.tmp", start_of_names(path), std::process::id()))
}

/// What the names of `path`'s temporary files begin with: its own name, and the system that the process IDs belong to.
fn start_of_names(path: &Path) -> String {
    /// Of the name; a system's names are at most 255 bytes long.
    const MOST_CHARACTERS: usize = 40;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name: String = name.chars().take(MOST_CHARACTERS).collect();
    match system() {
        Some(system) => format!(".{name}.{system}-"),
        None => format!(".{name}."),
    }
}

/// The system in which a process ID of this process has its meaning: this start of this machine, and the namespace.
/// `None` if that is not known, as outside Linux.
fn system() -> Option<&'static str> {
    static SYSTEM: OnceLock<Option<String>> = OnceLock::new();
    let find = || {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let namespace = std::fs::read_link("/proc/self/ns/pid").ok()?;
        let keep = |text: &str| text.chars().filter(char::is_ascii_hexdigit).take(12).collect::<String>();
        let number: String = namespace.to_string_lossy().chars().filter(char::is_ascii_digit).collect();
        Some(format!("{}-{number}", keep(&boot)))
    };
    SYSTEM.get_or_init(find).as_deref()
}

/// Removes the temporary files that ended processes left for `path`. A file of a process that may still run, of another
/// machine or of another container stays: a process ID means nothing there.
fn remove_abandoned(path: &Path) {
    if system().is_none() {
        return;
    }
    let start = start_of_names(path);
    let Ok(entries) = std::fs::read_dir(folder_of(path)) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let rest =
            name.to_str().and_then(|name| name.strip_prefix(&start)).and_then(|rest| rest.strip_suffix(".tmp"));
        let numbers = rest.and_then(|rest| rest.split_once('-'));
        let Some((Ok(process), Ok(_))) = numbers.map(|(process, count)| (process.parse(), count.parse::<u64>()))
        else {
            continue;
        };
        if was_left_by(process, &entry.path()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Whether a file is this user's and no process has that ID. An ID that was given to another process is that of a running
/// one. The processes of other users may be hidden in /proc, one's own are not.
#[cfg(unix)]
fn was_left_by(process: u32, file: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;

    let (Ok(own), Ok(file)) = (std::fs::metadata("/proc/self"), std::fs::symlink_metadata(file)) else {
        return false;
    };
    let gone = std::fs::symlink_metadata(format!("/proc/{process}"));
    file.is_file() && file.uid() == own.uid() && gone.is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

#[cfg(not(unix))]
fn was_left_by(_process: u32, _file: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn temporary_files_of_ended_processes_are_removed_and_no_others() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let ended = child.id();
        child.wait().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("talk");
        let (start, other) = (start_of_names(&path), start_of_names(&folder.path().join("other")));
        let stay = [
            format!("{start}{}-7.tmp", std::process::id()),
            format!("{start}1-0.tmp"),
            format!("{other}{ended}-0.tmp"),
            format!("{start}{ended}-x.tmp"),
            format!(".talk.{ended}-0.tmp"),
            format!(".talk.0123456789ab-1-{ended}-0.tmp"),
        ];
        for name in stay.iter().chain(&[format!("{start}{ended}-0.tmp"), format!("{start}{ended}-12.tmp")]) {
            std::fs::write(folder.path().join(name), "left").unwrap();
        }
        let mut new = NewFile::create(&path).unwrap();
        new.write_all(b"new").unwrap();
        new.finish().unwrap();
        let mut expected: Vec<String> = stay.into_iter().chain(["talk".to_owned()]).collect();
        expected.sort();
        assert_eq!(names(folder.path()), expected);
    }

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
