//! Where a model computes: `"auto"`, `"cpu"`, `"cuda:N"` or `"metal"`.

use std::fmt;
use std::str::FromStr;

use candle_core::Device;
use candle_core::utils::{cuda_is_available, metal_is_available};

use crate::{Error, Result};

/// A device as a user names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceSpec {
    /// The best device that is compiled in and present: CUDA, then Metal, then the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA device with this ordinal.
    Cuda(usize),
    /// The Metal device with this ordinal.
    Metal(usize),
}

impl FromStr for DeviceSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (kind, ordinal) = match text.split_once(':') {
            None => (text, Some(0)),
            Some((kind, ordinal)) => (kind, ordinal.parse().ok()),
        };
        match (kind, ordinal) {
            ("auto", _) if text == "auto" => Ok(Self::Auto),
            ("cpu", _) if text == "cpu" => Ok(Self::Cpu),
            ("cuda", Some(ordinal)) => Ok(Self::Cuda(ordinal)),
            ("metal", Some(ordinal)) => Ok(Self::Metal(ordinal)),
            _ => Err(Error::device(format!(
                "unknown device {text:?}; expected \"auto\", \"cpu\", \"cuda\", \"cuda:N\", \"metal\" or \"metal:N\""
            ))),
        }
    }
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
            Self::Metal(ordinal) => write!(f, "metal:{ordinal}"),
        }
    }
}

impl DeviceSpec {
    /// What [`Auto`](Self::Auto) stands for on this machine; the others stand for themselves.
    #[must_use]
    pub fn resolve(self) -> Self {
        match self {
            Self::Auto if cuda_is_available() && Device::new_cuda(0).is_ok() => Self::Cuda(0),
            Self::Auto if metal_is_available() && Device::new_metal(0).is_ok() => Self::Metal(0),
            Self::Auto => Self::Cpu,
            named => named,
        }
    }

    /// Fails as loading a model onto the device would.
    pub fn check(self) -> Result<()> {
        self.open().map(drop)
    }

    /// Opens the device.
    ///
    /// # Errors
    /// [`Device`](crate::ErrorKind::Device) if it is not compiled in or not present; a named device is never
    /// silently replaced by another.
    pub(crate) fn open(self) -> Result<Device> {
        let (device, compiled_in, feature) = match self.resolve() {
            Self::Auto | Self::Cpu => return Ok(Device::Cpu),
            Self::Cuda(ordinal) => (Device::new_cuda(ordinal), cuda_is_available(), "cuda"),
            Self::Metal(ordinal) => (Device::new_metal(ordinal), metal_is_available(), "metal"),
        };
        if !compiled_in {
            return Err(Error::device(format!(
                "device \"{self}\": this build has no {feature} support; build it with the feature \"{feature}\", \
                 or use device \"cpu\""
            )));
        }
        device.map_err(|error| {
            let reason = error.to_string();
            let reason = reason.lines().next().unwrap_or_default();
            Error::device(format!("device \"{self}\" cannot be opened: {reason}")).with_source(error)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn names_are_read_and_written_alike() {
        for text in ["auto", "cpu", "cuda:0", "cuda:3", "metal:0"] {
            assert_eq!(text.parse::<DeviceSpec>().unwrap().to_string(), text);
        }
        assert_eq!("cuda".parse::<DeviceSpec>().unwrap(), DeviceSpec::Cuda(0));
    }

    #[test]
    fn other_names_are_refused_with_the_choices() {
        for text in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:1", "auto:0", "CPU"] {
            let error = text.parse::<DeviceSpec>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Device);
            assert!(error.to_string().contains("\"cuda:N\""), "{error}");
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_device_that_is_not_compiled_in_is_an_error_and_not_the_cpu() {
        let error = DeviceSpec::Cuda(0).open().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Device);
        assert!(error.to_string().contains("no cuda support"), "{error}");
    }
}
