//! Opening files that a person named.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind as IoErrorKind, Read};
use std::path::Path;

#[cfg(unix)]
use rustix::fs::OFlags;

use crate::{Error, Result};

/// Opens a regular file; nothing if there is none. `expected` says what kind of file it should be.
///
/// # Errors
/// [`InvalidModel`](crate::ErrorKind::InvalidModel) for a directory, a device or a pipe, and for a file that can't be
/// opened.
pub(crate) fn open_regular(path: &Path, expected: &str) -> Result<Option<File>> {
    let shown = path.display();
    let opened = open_at_once(File::options().read(true), path);
    // Looked at once it is open, so that it cannot be exchanged in between. What cannot be opened may have a better reason.
    match opened.as_ref().map_or_else(|_| path.metadata(), File::metadata) {
        Ok(metadata) if metadata.is_dir() => {
            return Err(Error::invalid_model(format!(
                "{shown} is a directory; give the path of {expected} in it"
            )));
        }
        Ok(metadata) if !metadata.is_file() => {
            return Err(Error::invalid_model(format!(
                "{shown} is a device or a pipe; give the path of {expected}"
            )));
        }
        _ => {}
    }
    match opened {
        Ok(file) => Ok(Some(file)),
        Err(error) if matches!(error.kind(), IoErrorKind::NotFound | IoErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(Error::invalid_model(format!("cannot open {shown}: {error}")).with_source(error)),
    }
}

/// Opens a file without waiting: opening a pipe would wait for its other end. It may be anything; a caller that wants
/// a regular file looks at its metadata.
pub(crate) fn open_at_once(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32);
    }
    options.open(path)
}

/// Opens a regular file, or makes it if `options` say so. A symbolic link is refused instead of followed: in a folder
/// in which others may write it can lead to any file of the user.
pub(crate) fn open_no_link(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW).bits() as i32);
    }
    #[cfg(windows)]
    {
        use std::os::windows::fs::OpenOptionsExt;
        const FILE_FLAG_OPEN_REPARSE_POINT: u32 = 0x0020_0000;
        options.custom_flags(FILE_FLAG_OPEN_REPARSE_POINT);
    }
    let file = options.open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::new(IoErrorKind::InvalidInput, "it is a link, a pipe or a device; remove it"))
}

/// The text of a small regular file, such as a token or the name of a commit; nothing for anything else.
pub(crate) fn read_small(path: &Path) -> Option<String> {
    const MOST_BYTES: u64 = 4096;
    let file = open_at_once(File::options().read(true), path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut text = String::new();
    let read = file.take(MOST_BYTES + 1).read_to_string(&mut text).ok()?;
    (read as u64 <= MOST_BYTES).then_some(text)
}

/// The bytes of a regular file of at most `most` bytes; nothing if there is none.
pub(crate) fn read_regular(path: &Path, expected: &str, most: u64) -> Result<Option<Vec<u8>>> {
    let Some(file) = open_regular(path, expected)? else { return Ok(None) };
    let mut bytes = Vec::new();
    let shown = path.display();
    file.take(most + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::invalid_model(format!("cannot read {shown}: {error}")).with_source(error))?;
    if bytes.len() as u64 > most {
        return Err(Error::invalid_model(format!(
            "{shown} must be {expected} of at most {most} bytes, and is larger"
        )));
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn only_a_regular_file_of_a_sensible_size_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        assert!(read_regular(&path, "a text", 3).unwrap().is_none());
        std::fs::write(&path, b"abc").unwrap();
        assert_eq!(read_regular(&path, "a text", 3).unwrap().unwrap(), b"abc");
        for (path, most) in [(path.as_path(), 2), (folder.path(), 3), (Path::new("/dev/null"), 3)] {
            if path.exists() {
                let error = read_regular(path, "a text", most).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidModel);
                assert!(error.to_string().contains("a text"), "{error}");
            }
        }
    }
}
