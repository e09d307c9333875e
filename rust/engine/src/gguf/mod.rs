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
mod part;
mod part_name;
mod split;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use candle_phi_kernels::{TensorType, type_name};

use crate::{CancelToken, Error, Result};
use part::Part;

pub use metadata::{Array, Value};
pub use part::TensorData;
pub(crate) use part_name::PartName;

/// What to do about a file that ends too early.
const TRUNCATED: &str = "the file is truncated: download it again";
/// What to do about a file that does not follow the format.
const DAMAGED: &str = "the file is damaged: download it again";
/// What to do about a file that follows the format and lacks what a model needs, or contradicts itself.
pub(crate) const CONVERTED: &str = "the file is damaged or was converted by another tool: download it again";

/// A GGUF whose headers were read and checked: one file, or all the parts of a split one.
pub struct Gguf {
    /// In their order; there is always a first.
    parts: Vec<Part>,
    /// Of the first part.
    metadata: BTreeMap<String, Value>,
    tensors: BTreeMap<String, TensorInfo>,
}

/// How far the reading of a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadProgress<'a> {
    /// The file, of a split model one of its parts.
    pub file: &'a Path,
    /// Bytes that were read.
    pub bytes_done: usize,
    /// Bytes that there are.
    pub bytes_total: usize,
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
    /// Which of the parts holds it.
    part: usize,
    /// Bytes of the part that hold the tensor; empty where the type is not known.
    range: Range<usize>,
}

impl TensorInfo {
    /// The tensor's type, or an error that names one that can't be computed with.
    pub fn tensor_type(&self) -> Result<TensorType> {
        TensorType::from_id(self.type_id).ok_or_else(|| {
            Error::unsupported_model(format!(
                "tensor {} has the unsupported type {}; use a file whose tensors have one of the types {}",
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

impl Gguf {
    /// Opens a GGUF file and checks its header. Of a split file (`name-00001-of-00003.gguf`) any part may be named, and
    /// all of them are opened.
    ///
    /// With `mmap` the file is mapped and read in place; without it is read into memory once, for files
    /// that someone may change or cut short while they are in use; that can take long, and `cancel` stops it.
    ///
    /// # Errors
    /// [`ModelNotFound`](crate::ErrorKind::ModelNotFound) if there is no file at `path`, or a part is missing,
    /// [`InvalidModel`](crate::ErrorKind::InvalidModel) if it is not a whole GGUF file, or the parts don't fit together,
    /// [`UnsupportedModel`](crate::ErrorKind::UnsupportedModel) for a version this reader doesn't know,
    /// [`Cancelled`](crate::ErrorKind::Cancelled) once `cancel` is set.
    pub fn open(path: &Path, mmap: bool, cancel: &CancelToken) -> Result<Self> {
        let named = Self::open_one(path, mmap, cancel)?;
        match named.optional_usize(split::COUNT)? {
            None | Some(0 | 1) => Ok(named),
            Some(count) => split::open_all(named, count, mmap, cancel),
        }
    }

    /// Checks the header of a GGUF file that is in memory, and keeps a copy of it. `name` stands for its path in errors.
    ///
    /// # Errors
    /// As for [`open`](Self::open), and [`UnsupportedModel`](crate::ErrorKind::UnsupportedModel) for a part of a split
    /// file.
    pub fn from_bytes(name: &Path, bytes: &[u8]) -> Result<Self> {
        let gguf = Self::from_part(Part::copied(name, bytes)?)?;
        match gguf.optional_usize(split::COUNT)? {
            None | Some(0 | 1) => Ok(gguf),
            Some(count) => Err(Error::unsupported_model(format!(
                "{} is one of {count} parts of a split GGUF (metadata key {}), which cannot be loaded from memory; load \
                 the parts from their files, or merge them into one file first",
                name.display(),
                split::COUNT
            ))),
        }
    }

    /// Opens this one file, whatever it says of others.
    fn open_one(path: &Path, mmap: bool, cancel: &CancelToken) -> Result<Self> {
        Self::from_part(Part::open(path, mmap, cancel)?)
    }

    fn from_part(part: Part) -> Result<Self> {
        let header = parse::header(part.bytes())
            .map_err(|error| Error::new(error.kind(), format!("{}: {error}", part.path.display())))?;
        Ok(Self { parts: vec![part], metadata: header.metadata, tensors: header.tensors })
    }

    /// The path that the file was opened at; of a split file, that of the first part.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.parts.first().map_or(Path::new(""), |part| &part.path)
    }

    /// Size of the file in bytes; of a split file, of all parts together.
    #[must_use]
    pub fn file_size_bytes(&self) -> usize {
        self.parts.iter().fold(0, |sum, part| sum.saturating_add(part.bytes().len()))
    }

    /// Where a tensor stands, if the file has it.
    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name)
    }

    /// Where a tensor stands; an error if the file doesn't have it.
    pub fn required_tensor(&self, name: &str) -> Result<&TensorInfo> {
        self.tensor(name).ok_or_else(|| {
            Error::invalid_model(format!("{}: tensor {name} is missing; {CONVERTED}", self.path().display()))
        })
    }

    /// All tensors, by name.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = &TensorInfo> {
        self.tensors.values()
    }

    /// A tensor's bytes in place. Reading them through this keeps their pages mapped for as long as the file is open.
    ///
    /// # Errors
    /// [`Inference`](crate::ErrorKind::Inference) if `info` is of another file.
    pub fn tensor_bytes(&self, info: &TensorInfo) -> Result<&[u8]> {
        self.part_of(info)?.slice(&info.range, &info.name)
    }

    /// The part that holds a tensor.
    fn part_of(&self, info: &TensorInfo) -> Result<&Part> {
        self.parts.get(info.part).ok_or_else(|| {
            Error::internal(format_args!(
                "tensor {} is in part {} of {}, which has {}",
                info.name,
                info.part + 1,
                self.path().display(),
                self.parts.len()
            ))
        })
    }

    /// An error if a mapped file has been cut short since it was opened.
    ///
    /// Reading what is no longer there raises `SIGBUS` on Unix, which ends the process. Nothing can rule that out for a
    /// file that others write to; this is asked before each forward pass, so that only a file that is cut short within
    /// one does it.
    pub(crate) fn check_length(&self) -> Result<()> {
        self.parts.iter().try_for_each(Part::check_length)
    }

    /// Reads all pages of the file once, so that no pass waits for them; `progress` is told of each part of it.
    pub(crate) fn prefault(&self, progress: &mut dyn FnMut(LoadProgress<'_>), cancel: &CancelToken) -> Result<()> {
        for part in &self.parts {
            let (file, bytes_total) = (part.path.as_path(), part.bytes().len());
            part.prefault(&mut |bytes_done| progress(LoadProgress { file, bytes_done, bytes_total }), cancel)?;
        }
        Ok(())
    }

    /// Locks all pages of the file into memory.
    pub(crate) fn lock(&self) -> Result<()> {
        self.parts.iter().try_for_each(Part::lock)
    }

    /// A tensor's bytes for someone who copies them: through a mapping of their own, which is gone with the
    /// return value, so that copying a model does not leave the whole file counted as resident too.
    ///
    /// # Errors
    /// As for [`tensor_bytes`](Self::tensor_bytes), and [`InvalidModel`](crate::ErrorKind::InvalidModel) if the system does
    /// not map the file.
    pub fn tensor_data(&self, info: &TensorInfo) -> Result<TensorData<'_>> {
        self.part_of(info)?.data(&info.range, &info.name)
    }
}
