//! GGUF files: opened, checked, and read with typed questions.
//!
//! The whole header is checked when a file is opened: lengths against the bytes that are there,
//! tensors against the end of the file. After that every tensor is a range of bytes of the file
//! ([`Gguf::tensor_data`]), and every metadata value is read through a function that names the key,
//! what was expected and what was found.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, versions 2 and 3, little-endian.
//! A reader of our own, since Candle's stops at the first tensor type that it does not know, before the
//! metadata could say what the file is.

mod metadata;
mod parse;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};

use candle_phi_kernels::{TensorType, type_name};
use memmap2::{Mmap, MmapMut, MmapOptions};

use crate::file::open_regular;
use crate::{CancelToken, Error, Result};

pub use metadata::{Array, Value};

/// How much of a file is read between two looks at whether to go on.
const READ_BYTES: usize = 16 << 20;

/// A GGUF file whose header was read and checked.
pub struct Gguf {
    path: PathBuf,
    file: File,
    bytes: Bytes,
    metadata: BTreeMap<String, Value>,
    tensors: BTreeMap<String, TensorInfo>,
}

/// Where a tensor stands in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// The tensor's name, `blk.0.attn_qkv.weight` and the like.
    pub name: String,
    /// Rows first, as Candle and PyTorch write it: a linear layer's weight is `[out, in]`.
    pub shape: Vec<usize>,
    /// The type's number in the header; see [`TensorInfo::tensor_type`].
    pub type_id: u32,
    /// Bytes of the file that hold the tensor; empty where the type is not known.
    range: Range<usize>,
}

impl TensorInfo {
    /// The tensor's type, or an error that names one that can't be computed with.
    pub fn tensor_type(&self) -> Result<TensorType> {
        TensorType::from_id(self.type_id).ok_or_else(|| {
            Error::unsupported_model(format!(
                "tensor {} has type {}, which is not supported; convert the file to one of: {}",
                self.name,
                self.type_name(),
                TensorType::ALL.map(TensorType::name).join(", "),
            ))
        })
    }

    /// The type's name, also of types that can't be computed with.
    #[must_use]
    pub fn type_name(&self) -> String {
        type_name(self.type_id).map_or_else(|| format!("number {}", self.type_id), str::to_owned)
    }

    /// Number of values.
    #[must_use]
    pub fn element_count(&self) -> usize {
        self.shape.iter().product()
    }

    /// Bytes in the file.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.range.len()
    }
}

/// The file's bytes: mapped, or read into anonymous memory that is page-aligned as a mapping is.
enum Bytes {
    Mapped(Mmap),
    Read(MmapMut),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
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

impl Gguf {
    /// Opens a GGUF file and checks its header.
    ///
    /// With `mmap` the file is mapped and read in place; without it is read into memory once, for files
    /// that someone may change or cut short while they are in use; that can take long, and `cancel` stops it.
    ///
    /// # Errors
    /// [`ModelNotFound`](crate::ErrorKind::ModelNotFound) if there is no file at `path`,
    /// [`InvalidModel`](crate::ErrorKind::InvalidModel) if it is not a whole GGUF file,
    /// [`UnsupportedModel`](crate::ErrorKind::UnsupportedModel) for a version this reader doesn't know,
    /// [`Cancelled`](crate::ErrorKind::Cancelled) once `cancel` is set.
    pub fn open(path: &Path, mmap: bool, cancel: &CancelToken) -> Result<Self> {
        let file = open_file(path)?;
        let read_error = |error: std::io::Error| {
            Error::invalid_model(format!("cannot read {}: {error}", path.display())).with_source(error)
        };
        let file_len = file.metadata().map_err(read_error)?.len();
        let len = usize::try_from(file_len).map_err(|_| {
            Error::invalid_model(format!(
                "{} has {file_len} bytes, more than this machine can address",
                path.display()
            ))
        })?;
        if len == 0 {
            return Err(Error::invalid_model(format!(
                "{} is empty; expected a GGUF file (was a download cut short?)",
                path.display()
            )));
        }
        let bytes = if mmap {
            Bytes::Mapped(map_file(&file, 0, len).map_err(read_error)?)
        } else {
            let mut memory = MmapMut::map_anon(len).map_err(read_error)?;
            for piece in memory.chunks_mut(READ_BYTES) {
                cancel.check()?;
                (&file).read_exact(piece).map_err(read_error)?;
            }
            Bytes::Read(memory)
        };
        let header = parse::header(&bytes)
            .map_err(|error| Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        Ok(Self { path: path.to_owned(), file, bytes, metadata: header.metadata, tensors: header.tensors })
    }

    /// The path that the file was opened at.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size of the file in bytes.
    #[must_use]
    pub fn file_size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Where a tensor stands, if the file has it.
    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name)
    }

    /// Where a tensor stands; an error if the file doesn't have it.
    pub fn required_tensor(&self, name: &str) -> Result<&TensorInfo> {
        self.tensor(name).ok_or_else(|| {
            Error::invalid_model(format!(
                "{}: tensor {name} is missing; the file is not whole",
                self.path.display()
            ))
        })
    }

    /// All tensors, by name.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = &TensorInfo> {
        self.tensors.values()
    }

    /// A tensor's bytes in place. Reading them through this keeps their pages mapped for as long as the file is open.
    #[must_use]
    pub fn tensor_bytes(&self, info: &TensorInfo) -> &[u8] {
        self.bytes.get(info.range.clone()).unwrap_or_default()
    }

    /// A tensor's bytes for someone who copies them: through a mapping of their own, which is gone with the
    /// return value, so that copying a model does not leave the whole file counted as resident too.
    pub fn tensor_data(&self, info: &TensorInfo) -> Result<TensorData<'_>> {
        match &self.bytes {
            Bytes::Read(_) => Ok(TensorData(DataSource::Borrowed(self.tensor_bytes(info)))),
            Bytes::Mapped(_) if info.range.is_empty() => Ok(TensorData(DataSource::Borrowed(&[]))),
            Bytes::Mapped(_) => map_file(&self.file, info.range.start, info.range.len())
                .map(|map| TensorData(DataSource::Mapped(map)))
                .map_err(|error| {
                    Error::invalid_model(format!(
                        "{}: cannot map tensor {}: {error}",
                        self.path.display(),
                        info.name
                    ))
                    .with_source(error)
                }),
        }
    }
}

/// A tensor's bytes; see [`Gguf::tensor_data`].
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

fn open_file(path: &Path) -> Result<File> {
    open_regular(path, "a GGUF file")?.ok_or_else(|| {
        Error::model_not_found(format!(
            "no such file: {}; give the path of a GGUF file, or a model's name to from_pretrained()",
            path.display()
        ))
    })
}
