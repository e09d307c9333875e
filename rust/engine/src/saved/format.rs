//! The bytes of a file: what it begins with, and its checksums.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::file::open_regular;
use crate::{Error, Refusal, Result};

const MAGIC: &[u8; 8] = b"phi-conv";
/// The version that is written, and the only one that is read.
const VERSION: u32 = 1;
/// Bytes before the header.
pub(super) const PRELUDE_BYTES: u64 = 16;
/// Bytes of a checksum.
pub(super) const DIGEST_BYTES: u64 = 32;
/// No header comes near this: it has a few bytes for each token and the texts of messages.
pub(super) const MAX_HEADER_BYTES: usize = 16 << 20;
const BUFFER_BYTES: usize = 1 << 20;

/// Writes a file and its checksums.
pub(super) struct Writer<W: Write> {
    inner: BufWriter<W>,
    hash: Sha256,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(inner: W) -> Self {
        Self { inner: BufWriter::with_capacity(BUFFER_BYTES, inner), hash: Sha256::new() }
    }

    pub(super) fn prelude(&mut self, header_len: usize) -> io::Result<()> {
        self.write(MAGIC)?;
        self.write(&VERSION.to_le_bytes())?;
        // `MAX_HEADER_BYTES` fits.
        self.write(&(header_len as u32).to_le_bytes())
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.inner.write_all(bytes)
    }

    /// Writes the checksum of all that was written.
    pub(super) fn digest(&mut self) -> io::Result<()> {
        let digest = self.hash.clone().finalize();
        self.write(&digest)
    }

    pub(super) fn into_inner(self) -> io::Result<W> {
        self.inner.into_inner().map_err(io::IntoInnerError::into_error)
    }
}

/// Reads an untrusted file.
pub(super) struct Reader {
    inner: BufReader<File>,
    hash: Sha256,
    path: PathBuf,
    file_len: u64,
}

impl Reader {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let failed = |error: Error| Error::conversation_file(error.to_string()).with_source(error);
        let file = open_regular(path, "a saved conversation").map_err(failed)?.ok_or_else(|| {
            Error::conversation_not_found(format!(
                "no such file: {}; give the path of a saved conversation",
                path.display()
            ))
        })?;
        let file_len = file.metadata().map_err(|error| unreadable(path, error))?.len();
        let inner = BufReader::with_capacity(BUFFER_BYTES, file);
        Ok(Self { inner, hash: Sha256::new(), path: path.to_owned(), file_len })
    }

    /// Reads what a file begins with and returns the length of its header.
    pub(super) fn prelude(&mut self) -> Result<usize> {
        let other = |reader: &Self, found: &[u8]| {
            reader.refused(
                Refusal::NotAConversation,
                &format_args!(
                    "a saved conversation must begin with \"{}\", got \"{}\"; give the path of a saved conversation",
                    MAGIC.escape_ascii(),
                    found.escape_ascii()
                ),
            )
        };
        let mut magic = [0; MAGIC.len()];
        if self.file_len < magic.len() as u64 {
            let mut all = vec![0; usize::try_from(self.file_len).unwrap_or(0)];
            self.fill(&mut all)?;
            return Err(other(self, &all));
        }
        self.fill(&mut magic)?;
        if magic != *MAGIC {
            return Err(other(self, &magic));
        }
        let version = self.number()?;
        if version > VERSION {
            return Err(self.refused(
                Refusal::NewerVersion,
                &format_args!(
                    "the version of the format must be {VERSION}, got {version}, which a newer candle-phi writes; update \
                     candle-phi"
                ),
            ));
        }
        let header_len = self.number()? as usize;
        if version == 0 || header_len > MAX_HEADER_BYTES {
            return Err(
                self.damaged(&format_args!("it has the version {version} and a header of {header_len} bytes"))
            );
        }
        Ok(header_len)
    }

    fn number(&mut self) -> Result<u32> {
        let mut bytes = [0; 4];
        self.fill(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// Reads `len` bytes; they are there, or no memory is taken for them.
    pub(super) fn take(&mut self, len: usize) -> Result<Vec<u8>> {
        if len as u64 > self.file_len {
            return Err(self.cut_short());
        }
        let mut bytes = vec![0; len];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads as many bytes as there is place for.
    pub(super) fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        match self.inner.read_exact(bytes) {
            Ok(()) => {
                self.hash.update(bytes);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(self.cut_short()),
            Err(error) => Err(unreadable(&self.path, error)),
        }
    }

    /// Reads the checksum of all that was read, and holds one against the other.
    pub(super) fn digest(&mut self) -> Result<()> {
        let expected = self.hash.clone().finalize();
        let mut found = [0; DIGEST_BYTES as usize];
        self.fill(&mut found)?;
        if found[..] == expected[..] { Ok(()) } else { Err(self.damaged(&"its checksum does not match")) }
    }

    /// An error if the file is longer or shorter than what is said in it.
    pub(super) fn check_len(&self, expected: u64) -> Result<()> {
        if self.file_len == expected {
            return Ok(());
        }
        Err(self.damaged(&format_args!("it must have {expected} bytes by its header, got {}", self.file_len)))
    }

    fn cut_short(&self) -> Error {
        self.damaged(&"it ends too early")
    }

    pub(super) fn damaged(&self, what: &dyn fmt::Display) -> Error {
        let what = format_args!("the file is damaged: {what}; use another copy of it");
        self.refused(Refusal::Damaged, &what)
    }

    fn refused(&self, refusal: Refusal, what: &dyn fmt::Display) -> Error {
        self.at(Error::saved_conversation(refusal, what.to_string()))
    }

    /// The error with the file that it is about in front.
    pub(super) fn at(&self, error: Error) -> Error {
        Error::new(error.kind(), format!("cannot load {}: {error}", self.path.display()))
    }
}

/// Refuses to overwrite what is not a saved conversation: a slip must not cost a model that took hours to download. What
/// cannot be read says so where it is written.
pub(super) fn check_replaceable(path: &Path) -> Result<()> {
    let mut magic = Vec::new();
    let is_read = path.is_file()
        && File::open(path).is_ok_and(|file| file.take(MAGIC.len() as u64).read_to_end(&mut magic).is_ok());
    if !is_read || magic.is_empty() || magic == MAGIC {
        return Ok(());
    }
    Err(Error::conversation_file(format!(
        "cannot save to {}: the file exists and is not a saved conversation, as it begins with \"{}\"; save to another \
         path, or remove the file first",
        path.display(),
        magic.escape_ascii()
    )))
}

fn unreadable(path: &Path, error: io::Error) -> Error {
    Error::conversation_file(format!("cannot read {}: {error}", path.display())).with_source(error)
}
