//! The type that keys and values are kept in.

use std::fmt;
use std::str::FromStr;

use candle_core::DType;
use candle_phi_kernels::KvFormat;

use crate::options::unknown_choice;
use crate::{Error, Result};

/// The type that keys and values are kept in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvDtype {
    /// Half precision: half the memory, and the default.
    #[default]
    F16,
    /// Single precision: exact.
    F32,
    /// Eight bits with a scale for 32 values: a good half of f16's memory. On the CPU's own kernels only.
    Q8_0,
}

impl KvDtype {
    /// Every type.
    pub const ALL: [Self; 3] = [Self::F16, Self::F32, Self::Q8_0];

    /// Bytes that `count` values take.
    #[must_use]
    pub const fn size_bytes(self, count: usize) -> usize {
        match self {
            Self::F16 => 2 * count,
            Self::F32 => 4 * count,
            // An f16 scale for 32 values.
            Self::Q8_0 => count + count / 16,
        }
    }

    /// The name: `"f16"`, `"f32"` or `"q8_0"`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::F32 => "f32",
            Self::Q8_0 => "q8_0",
        }
    }

    /// Candle's type; an error where it has none that attention can be computed with.
    pub(crate) fn candle(self) -> Result<DType> {
        match self {
            Self::F16 => Ok(DType::F16),
            Self::F32 => Ok(DType::F32),
            Self::Q8_0 => Err(Error::invalid_option(
                "kv_dtype",
                format_args!("must be \"f16\" or \"f32\" with the executor \"candle\", got \"{self}\""),
            )),
        }
    }

    /// The format of the kernels' pages.
    pub(crate) const fn page_format(self) -> KvFormat {
        match self {
            Self::F16 => KvFormat::F16,
            Self::F32 => KvFormat::F32,
            Self::Q8_0 => KvFormat::Q8,
        }
    }
}

impl FromStr for KvDtype {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.as_str() == text).ok_or_else(|| unknown_choice("kv_dtype", text))
    }
}

impl fmt::Display for KvDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
