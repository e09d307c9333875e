//! One file of a GGUF: its bytes in memory. A whole model is one, or several of them.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};

use memmap2::{Mmap, MmapMut, MmapOptions};

use crate::file::open_regular;
use crate::memory::limit;
use crate::{CancelToken, Error, Result};

/// How much of a file is read between two looks at whether to go on.
const READ_BYTES: usize = 16 << 20;

/// No system has smaller pages.
const PAGE_BYTES: usize = 4096;

/// A file that was opened, or what one would hold, and its bytes.
pub(super) struct Part {
    pub(super) path: PathBuf,
    bytes: Bytes,
}

/// The bytes: of a file that is mapped, or in anonymous memory that is page-aligned as a mapping is.
enum Bytes {
    Mapped(Mmap, File),
    Read(MmapMut),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map, _) => map,
            Self::Read(map) => map,
        }
    }
}

/// Maps `len` bytes of `file` from `offset` on, read-only.
#[expect(unsafe_code, reason = "the one place that maps a file")]
fn map_file(file: &File, offset: usize, len: usize) -> std::io::Result<Mmap> {
    let mut options = MmapOptions::new();
    options.offset(offset as u64).len(len);
    // SAFETY: the mapping is private and read-only, and nothing in this process writes to the file. If
    // someone else writes to it, values change under us: every value read from it is plain data that is
    // checked before it is used as a length, and was copied before it was checked. If someone else cuts
    // it short, the operating system ends the process; that one exception is documented, and `mmap = false`
    // is there for such files.
    unsafe { options.map(file) }
}

/// Memory of `len` bytes that belongs to no file.
fn anonymous(len: usize) -> std::io::Result<MmapMut> {
    let memory = MmapMut::map_anon(len)?;
    // Larger pages are read faster, where the system has them; where it has not, it is only a hint.
    #[cfg(target_os = "linux")]
    let _ = memory.advise(memmap2::Advice::HugePage);
    Ok(memory)
}

impl Part {
    /// Opens a file, and maps it or reads it.
    pub(super) fn open(path: &Path, mmap: bool, cancel: &CancelToken) -> Result<Self> {
        let file = open_file(path)?;
        let read_error = |error: std::io::Error| {
            Error::invalid_model(format!("cannot read {}: {error}", path.display())).with_source(error)
        };
        let file_len = file.metadata().map_err(read_error)?.len();
        let len = usize::try_from(file_len).map_err(|_| {
            Error::invalid_model(format!(
                "{} has {file_len} bytes, more than this machine can address; use a smaller file",
                path.display()
            ))
        })?;
        if len == 0 {
            return Err(Error::invalid_model(format!("{} is empty; download it again", path.display())));
        }
        let bytes = if mmap {
            let map = map_file(&file, 0, len)
                .map_err(|error| out_of_memory(&error, len).unwrap_or_else(|| read_error(error)))?;
            // Larger pages are read from the disk and from memory faster, on file systems that have them; elsewhere, and
            // for what the system holds in small pages already, it is only a hint.
            #[cfg(target_os = "linux")]
            let _ = map.advise(memmap2::Advice::HugePage);
            Bytes::Mapped(map, file)
        } else {
            limit::check(len as u64, "a copy of the file in memory", "set mmap to true")?;
            let memory = anonymous(len);
            let mut memory =
                memory.map_err(|error| out_of_memory(&error, len).unwrap_or_else(|| read_error(error)))?;
            for piece in memory.chunks_mut(READ_BYTES) {
                cancel.check()?;
                (&file).read_exact(piece).map_err(read_error)?;
            }
            Bytes::Read(memory)
        };
        Ok(Self { path: path.to_owned(), bytes })
    }

    /// A copy of what a file would hold; `name` stands for the path.
    pub(super) fn copied(name: &Path, bytes: &[u8]) -> Result<Self> {
        if bytes.is_empty() {
            return Err(Error::invalid_model(format!(
                "{} must have the bytes of a GGUF file, got none",
                name.display()
            )));
        }
        limit::check(bytes.len() as u64, "a copy of the model's bytes", "load the model from its file")?;
        let mut memory = anonymous(bytes.len()).map_err(|error| {
            out_of_memory(&error, bytes.len()).unwrap_or_else(|| {
                Error::invalid_model(format!("cannot copy {}: {error}", name.display())).with_source(error)
            })
        })?;
        memory.copy_from_slice(bytes);
        Ok(Self { path: name.to_owned(), bytes: Bytes::Read(memory) })
    }

    /// All of the file.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// An error if the file is mapped and has been cut short since: reading behind its end would end the process.
    pub(super) fn check_length(&self) -> Result<()> {
        let Bytes::Mapped(map, file) = &self.bytes else { return Ok(()) };
        let metadata = file.metadata().map_err(|error| {
            Error::invalid_model(format!(
                "{}: the system does not tell the length of the file any more: {error}; load it again",
                self.path.display()
            ))
            .with_source(error)
        })?;
        if metadata.len() >= map.len() as u64 {
            return Ok(());
        }
        Err(Error::invalid_model(format!(
            "{} was truncated while in use: it had {} bytes and now has {}; restore the file and load it again, and set \
             mmap to false if other programs write to it",
            self.path.display(),
            map.len(),
            metadata.len()
        )))
    }

    /// Reads every page of a mapped file once, so that it is in memory; `progress` is told how many bytes are.
    pub(super) fn prefault(&self, progress: &mut dyn FnMut(usize), cancel: &CancelToken) -> Result<()> {
        for (index, piece) in self.bytes.chunks(READ_BYTES).enumerate() {
            cancel.check()?;
            std::hint::black_box(piece.iter().step_by(PAGE_BYTES).fold(0, |sum, byte| sum ^ byte));
            progress(index * READ_BYTES + piece.len());
        }
        Ok(())
    }

    /// Keeps the file's pages in memory for as long as it is open.
    pub(super) fn lock(&self) -> Result<()> {
        #[cfg(unix)]
        let locked = match &self.bytes {
            Bytes::Mapped(map, _) => map.lock(),
            Bytes::Read(map) => map.lock(),
        };
        #[cfg(not(unix))]
        let locked: std::io::Result<()> = Err(ErrorKind::Unsupported.into());
        locked.map_err(|error| {
            Error::invalid_option(
                "mlock",
                format_args!(
                    "cannot lock the {} bytes of {} into memory: {error}; raise the system's limit (on Linux and macOS: \
                     ulimit -l), or set mlock to false",
                    self.bytes.len(),
                    self.path.display()
                ),
            )
            .with_source(error)
        })
    }

    /// The bytes of the tensor `what` in place.
    pub(super) fn slice(&self, range: &Range<usize>, what: &str) -> Result<&[u8]> {
        self.bytes.get(range.clone()).ok_or_else(|| {
            Error::internal(format_args!(
                "tensor {what} is at bytes {range:?} of {}, which has {}",
                self.path.display(),
                self.bytes.len()
            ))
        })
    }

    /// A range of the file, through a mapping of its own where the file is mapped.
    pub(super) fn data(&self, range: &Range<usize>, what: &str) -> Result<TensorData<'_>> {
        let in_place = self.slice(range, what)?;
        match &self.bytes {
            Bytes::Mapped(_, file) if !in_place.is_empty() => map_file(file, range.start, range.len())
                .map(|map| TensorData(DataSource::Mapped(map)))
                .map_err(|error| {
                    Error::invalid_model(format!("{}: cannot map tensor {what}: {error}", self.path.display()))
                        .with_source(error)
                }),
            _ => Ok(TensorData(DataSource::Borrowed(in_place))),
        }
    }
}

/// A tensor's bytes; see [`Gguf::tensor_data`](super::Gguf::tensor_data).
pub struct TensorData<'a>(DataSource<'a>);

enum DataSource<'a> {
    Borrowed(&'a [u8]),
    Mapped(Mmap),
}

impl Deref for TensorData<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            DataSource::Borrowed(bytes) => bytes,
            DataSource::Mapped(map) => map,
        }
    }
}

/// The error where there is no place for a file of `len` bytes.
fn out_of_memory(error: &std::io::Error, len: usize) -> Option<Error> {
    let remedy = "raise the memory limit of the process (ulimit -v), or use a smaller file";
    (error.kind() == ErrorKind::OutOfMemory).then(|| limit::refused_by_the_system(len as u64, "the file", remedy))
}

fn open_file(path: &Path) -> Result<File> {
    open_regular(path, "a GGUF file")?.ok_or_else(|| {
        Error::model_not_found(format!(
            "no such file: {}; give the path of a GGUF file, or download a model by its name first",
            path.display()
        ))
    })
}
