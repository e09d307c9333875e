//! The header of a GGUF file, read from untrusted bytes.
//!
//! Every length is checked against the bytes that are left before anything of that length is allocated.

use std::collections::BTreeMap;

use candle_phi_kernels::TensorType;

use super::{Array, CONVERTED, DAMAGED, TRUNCATED, TensorInfo, Value};
use crate::{Error, Result};

const MAGIC: &[u8] = b"GGUF";
const DEFAULT_ALIGNMENT: usize = 32;
/// No header comes near these; a sparse file can claim any length without having a byte of it on disk, so that what
/// is left of the file is no bound for memory or time.
const MAX_HEADER_BYTES: usize = 512 << 20;
const MAX_ENTRIES: usize = 1 << 16;
const MAX_LIST_ITEMS: usize = 1 << 22;
/// `GGML_MAX_DIMS`
const MAX_DIMENSIONS: u32 = 4;
/// The fewest bytes that a metadata entry (key length, type, a byte) and a tensor entry take.
const MIN_METADATA_ENTRY: usize = 8 + 4 + 1;
const MIN_TENSOR_ENTRY: usize = 8 + 4 + 4 + 8;

pub(super) struct Header {
    pub(super) metadata: BTreeMap<String, Value>,
    pub(super) tensors: BTreeMap<String, TensorInfo>,
}

struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
    /// Items that lists may still have, all together.
    list_items_left: usize,
}

impl<'a> Reader<'a> {
    fn remaining(&self) -> usize {
        self.bytes.len() - self.position
    }

    fn take(&mut self, len: usize, what: &str) -> Result<&'a [u8]> {
        let end = self.position.checked_add(len);
        let Some(taken) = end.and_then(|end| self.bytes.get(self.position..end)) else {
            return Err(Error::invalid_model(format!(
                "the file ends within its header: {what} needs {len} bytes at byte {}, but only {} are left; {TRUNCATED}",
                self.position,
                self.remaining()
            )));
        };
        self.position += len;
        Ok(taken)
    }

    /// `len` items of `N` bytes each.
    fn take_items<const N: usize>(&mut self, len: usize, what: &str) -> Result<&'a [[u8; N]]> {
        // A list's length is below `MAX_LIST_ITEMS`, so that the product fits.
        let bytes = self.take(len.saturating_mul(N), what)?;
        Ok(bytes.as_chunks::<N>().0)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, what)?);
        Ok(array)
    }

    fn u32(&mut self, what: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A count of things that take at least `min_bytes` each, of which there are at most `most`.
    fn count(&mut self, min_bytes: usize, most: usize, what: &str) -> Result<usize> {
        let count = self.u64(what)?;
        let possible = (self.remaining() / min_bytes).min(most);
        usize::try_from(count).ok().filter(|count| *count <= possible).ok_or_else(|| {
            Error::invalid_model(format!(
                "{what} must be at most {possible} with the remaining {} bytes, got {count}; {DAMAGED}",
                self.remaining()
            ))
        })
    }

    fn list_len(&mut self, min_bytes: usize) -> Result<usize> {
        let len = self.count(min_bytes, self.list_items_left, "the length of a list")?;
        self.list_items_left -= len;
        Ok(len)
    }

    fn bytes_of_string(&mut self, what: &str) -> Result<&'a [u8]> {
        let len = self.count(1, MAX_HEADER_BYTES, &format!("the length of {what}"))?;
        self.take(len, what)
    }

    /// A string by which something is found or that is only shown: bytes that are not UTF-8 become U+FFFD.
    ///
    /// Published vocabularies have tokens that are not valid UTF-8, and a key that is not is one that nothing reads.
    fn lossy_string(&mut self, what: &str) -> Result<String> {
        self.bytes_of_string(what).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    fn string(&mut self, what: &str) -> Result<String> {
        let position = self.position;
        let bytes = self.bytes_of_string(what)?;
        let text = std::str::from_utf8(bytes).map_err(|error| {
            Error::invalid_model(format!("{what} at byte {position} must be UTF-8: {error}; {DAMAGED}"))
        })?;
        Ok(text.to_owned())
    }
}

pub(super) fn header(bytes: &[u8]) -> Result<Header> {
    let head = bytes.get(..MAX_HEADER_BYTES).unwrap_or(bytes);
    let mut reader = Reader { bytes: head, position: 0, list_items_left: MAX_LIST_ITEMS };
    let magic = bytes.get(..MAGIC.len()).unwrap_or(bytes);
    if magic != MAGIC {
        return Err(Error::invalid_model(format!(
            "a GGUF file must begin with \"GGUF\", got \"{}\"; use a GGUF file, or download it again",
            magic.escape_ascii()
        )));
    }
    reader.position = MAGIC.len();
    match reader.u32("the version")? {
        2 | 3 => {}
        version if (1..=0xffff).contains(&version.swap_bytes()) => {
            return Err(Error::unsupported_model(
                "the GGUF file must be little-endian, got a big-endian one; convert the model again",
            ));
        }
        version => {
            return Err(Error::unsupported_model(format!(
                "the version of GGUF must be 2 or 3, got {version}; convert the model again"
            )));
        }
    }
    let tensor_count = reader.count(MIN_TENSOR_ENTRY, MAX_ENTRIES, "the number of tensors")?;
    let metadata_count = reader.count(MIN_METADATA_ENTRY, MAX_ENTRIES, "the number of metadata entries")?;
    let metadata = metadata(&mut reader, metadata_count)?;
    let alignment = alignment(&metadata)?;
    let mut entries = Vec::with_capacity(tensor_count);
    for _ in 0..tensor_count {
        entries.push(tensor_entry(&mut reader)?);
    }
    let data_start = reader.position.checked_next_multiple_of(alignment).unwrap_or(usize::MAX);
    let mut tensors = BTreeMap::new();
    for entry in entries {
        let info = entry.place(data_start, alignment, bytes.len())?;
        if let Some(info) = tensors.insert(info.name.clone(), info) {
            return Err(Error::invalid_model(format!("tensor {} is listed twice; {DAMAGED}", info.name)));
        }
    }
    Ok(Header { metadata, tensors })
}

fn metadata(reader: &mut Reader<'_>, count: usize) -> Result<BTreeMap<String, Value>> {
    let mut metadata = BTreeMap::new();
    for _ in 0..count {
        let key = reader.lossy_string("a metadata key")?;
        let type_id = reader.u32("a metadata type")?;
        let value = value(reader, type_id)
            .map_err(|error| Error::new(error.kind(), format!("metadata key {key}: {error}")))?;
        if metadata.contains_key(&key) {
            return Err(Error::invalid_model(format!("metadata key {key} is listed twice; {DAMAGED}")));
        }
        metadata.insert(key, value);
    }
    Ok(metadata)
}

fn alignment(metadata: &BTreeMap<String, Value>) -> Result<usize> {
    const KEY: &str = "general.alignment";
    let Some(found) = metadata.get(KEY) else { return Ok(DEFAULT_ALIGNMENT) };
    let alignment = if let Value::Unsigned(alignment) = found { usize::try_from(*alignment).ok() } else { None };
    // The format asks for a multiple of 8. A power of two up to a page keeps tensors aligned in the mapping.
    alignment.filter(|alignment| alignment.is_power_of_two() && (8..=4096).contains(alignment)).ok_or_else(|| {
        Error::invalid_model(format!(
            "metadata key {KEY} must be a power of two from 8 to 4096, got {}; {CONVERTED}",
            found.describe()
        ))
    })
}

/// The fewest bytes of one element of each metadata type; 8 is a string's length.
fn min_element_bytes(type_id: u32) -> Result<usize> {
    Ok(match type_id {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        8 | 10..=12 => 8,
        // The type and the length of the inner list.
        9 => 12,
        _ => return Err(unknown_type(type_id)),
    })
}

fn unknown_type(type_id: u32) -> Error {
    Error::invalid_model(format!("the type of a metadata value must be from 0 to 12, got {type_id}; {DAMAGED}"))
}

fn value(reader: &mut Reader<'_>, type_id: u32) -> Result<Value> {
    const WHAT: &str = "a metadata value";
    Ok(match type_id {
        0 => Value::Unsigned(reader.array::<1>(WHAT)?[0].into()),
        1 => Value::Signed(i8::from_le_bytes(reader.array(WHAT)?).into()),
        2 => Value::Unsigned(u16::from_le_bytes(reader.array(WHAT)?).into()),
        3 => Value::Signed(i16::from_le_bytes(reader.array(WHAT)?).into()),
        4 => Value::Unsigned(reader.u32(WHAT)?.into()),
        5 => Value::Signed(i32::from_le_bytes(reader.array(WHAT)?).into()),
        6 => Value::Float(f32::from_le_bytes(reader.array(WHAT)?).into()),
        7 => Value::Bool(reader.array::<1>(WHAT)?[0] != 0),
        8 => match std::str::from_utf8(reader.bytes_of_string("a string")?) {
            Ok(text) => Value::String(text.to_owned()),
            Err(_) => Value::Unreadable("a string that is not UTF-8"),
        },
        9 => list(reader, 0)?,
        10 => Value::Unsigned(reader.u64(WHAT)?),
        11 => Value::Signed(i64::from_le_bytes(reader.array(WHAT)?)),
        12 => Value::Float(f64::from_le_bytes(reader.array(WHAT)?)),
        _ => return Err(unknown_type(type_id)),
    })
}

/// A list, within `depth` others.
fn list(reader: &mut Reader<'_>, depth: usize) -> Result<Value> {
    const MAX_DEPTH: usize = 16;
    const WHAT: &str = "an item of a list";
    let type_id = reader.u32("a list's type")?;
    let len = reader.list_len(min_element_bytes(type_id)?)?;
    let mut items = 0..len;
    Ok(Value::Array(match type_id {
        0 => Array::Bytes(reader.take(len, WHAT)?.to_vec()),
        1 => Array::Integers(numbers(reader, len, i8::from_le_bytes)?),
        2 => Array::Integers(numbers(reader, len, u16::from_le_bytes)?),
        3 => Array::Integers(numbers(reader, len, i16::from_le_bytes)?),
        4 => Array::Integers(numbers(reader, len, u32::from_le_bytes)?),
        5 => Array::Integers(numbers(reader, len, i32::from_le_bytes)?),
        6 => Array::Floats(numbers(reader, len, f32::from_le_bytes)?),
        7 => Array::Bools(reader.take(len, WHAT)?.iter().map(|byte| *byte != 0).collect()),
        8 => {
            let mut texts = Vec::with_capacity(len);
            for _ in items {
                texts.push(reader.lossy_string("a string of a list")?);
            }
            Array::Strings(texts)
        }
        9 if depth < MAX_DEPTH => {
            items.try_for_each(|_| list(reader, depth + 1).map(drop))?;
            return Ok(Value::Unreadable("a list of lists"));
        }
        9 => {
            return Err(Error::invalid_model(format!(
                "lists must not be nested deeper than {MAX_DEPTH}; {DAMAGED}"
            )));
        }
        10 => {
            let bytes = reader.take_items::<8>(len, WHAT)?;
            let numbers = bytes.iter().map(|bytes| i64::try_from(u64::from_le_bytes(*bytes)));
            match numbers.collect() {
                Ok(numbers) => Array::Integers(numbers),
                Err(_) => return Ok(Value::Unreadable("a list with integers of 2^63 and more")),
            }
        }
        11 => Array::Integers(numbers(reader, len, i64::from_le_bytes)?),
        12 => {
            let bytes = reader.take_items::<8>(len, WHAT)?;
            Array::Floats(bytes.iter().map(|bytes| f64::from_le_bytes(*bytes) as f32).collect())
        }
        _ => return Err(unknown_type(type_id)),
    }))
}

/// The numbers of a list, each of `N` bytes.
fn numbers<const N: usize, T, U: From<T>>(
    reader: &mut Reader<'_>,
    len: usize,
    from_bytes: impl Fn([u8; N]) -> T,
) -> Result<Vec<U>> {
    let bytes = reader.take_items::<N>(len, "an item of a list")?;
    Ok(bytes.iter().map(|bytes| from_bytes(*bytes).into()).collect())
}

/// A tensor as the header lists it; its place in the file is known once the header's length is.
struct TensorEntry {
    name: String,
    shape: Vec<usize>,
    type_id: u32,
    offset: u64,
}

fn tensor_entry(reader: &mut Reader<'_>) -> Result<TensorEntry> {
    let name = reader.string("the name of a tensor")?;
    let dimensions = reader.u32("a tensor's number of dimensions")?;
    if dimensions > MAX_DIMENSIONS {
        return Err(Error::invalid_model(format!(
            "tensor {name} must have at most {MAX_DIMENSIONS} dimensions, got {dimensions}; {DAMAGED}"
        )));
    }
    let mut shape = Vec::with_capacity(MAX_DIMENSIONS as usize);
    for _ in 0..dimensions {
        let found = reader.u64("a tensor's dimension")?;
        let size = usize::try_from(found).ok().filter(|size| (1..=isize::MAX as usize).contains(size));
        shape.push(size.ok_or_else(|| {
            Error::invalid_model(format!(
                "tensor {name} must have dimensions from 1 to 2^63-1, got {found}; {DAMAGED}"
            ))
        })?);
    }
    shape.reverse();
    let type_id = reader.u32("a tensor's type")?;
    let offset = reader.u64("a tensor's offset")?;
    Ok(TensorEntry { name, shape, type_id, offset })
}

impl TensorEntry {
    fn place(self, data_start: usize, alignment: usize, file_len: usize) -> Result<TensorInfo> {
        let Self { name, shape, type_id, offset } = self;
        let elements = shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size));
        let Some(elements) = elements else {
            return Err(Error::invalid_model(format!(
                "tensor {name} has the shape {shape:?}, which is too large for any memory; {DAMAGED}"
            )));
        };
        // A type that can't be computed with has no size here: whoever needs the tensor names the type.
        let Some(tensor_type) = TensorType::from_id(type_id) else {
            return Ok(TensorInfo { name, shape, type_id, part: 0, range: 0..0 });
        };
        let row_len = shape.last().copied().unwrap_or(1);
        let size = tensor_type.row_bytes(row_len).and_then(|row| row.checked_mul(elements / row_len));
        let Some(size) = size else {
            return Err(Error::invalid_model(format!(
                "tensor {name} must have rows of a multiple of {} values for the type {}, got {row_len}; {CONVERTED}",
                tensor_type.block_len(),
                tensor_type.name()
            )));
        };
        let start = usize::try_from(offset).ok().and_then(|offset| offset.checked_add(data_start));
        match start.and_then(|start| Some(start..start.checked_add(size)?)) {
            Some(range) if range.end <= file_len && range.start.is_multiple_of(alignment) => {
                Ok(TensorInfo { name, shape, type_id, part: 0, range })
            }
            Some(range) if range.end <= file_len => Err(Error::invalid_model(format!(
                "tensor {name} must begin at a multiple of {alignment} bytes, the file's alignment, got {}; {DAMAGED}",
                range.start
            ))),
            _ => Err(Error::invalid_model(format!(
                "tensor {name} needs {size} bytes at byte {offset} of the data, but the file has only {} bytes of data; \
                 {TRUNCATED}",
                file_len.saturating_sub(data_start)
            ))),
        }
    }
}
