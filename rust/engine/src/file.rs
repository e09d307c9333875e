//! Opening files that a person named.

use std::fs::File;
use std::io::{ErrorKind as IoErrorKind, Read};
use std::path::Path;

use crate::{Error, Result};

/// Opens a regular file; nothing if there is none. `expected` says what kind of file it should be.
///
/// # Errors
/// [`InvalidModel`](crate::ErrorKind::InvalidModel) for a directory, a device or a pipe, and for a file that can't be
/// opened.
pub(crate) fn open_regular(path: &Path, expected: &str) -> Result<Option<File>> {
    let shown = path.display();
    // Looked at before it is opened: opening a pipe waits for a writer.
    match path.metadata() {
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
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if matches!(error.kind(), IoErrorKind::NotFound | IoErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(Error::invalid_model(format!("cannot open {shown}: {error}")).with_source(error)),
    }
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
