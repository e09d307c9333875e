//! Where a model computes: `"auto"`, `"cpu"`, `"cuda:N"` or `"metal:N"`.
//!
//! `docs/devices.md` says which operation of Candle's is what on which device.

mod faults;
mod open;

use std::fmt;
use std::str::FromStr;

use crate::{Error, Result};

pub(crate) use faults::{check_context, prefill_chunk_on_gpu, waits_before_layer};
pub(crate) use open::{DeviceGuard, OpenDevice};

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

/// A device that can be computed on, and why it is that one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceChoice {
    /// The device; never [`DeviceSpec::Auto`].
    pub device: DeviceSpec,
    /// In words: what it is, and for [`DeviceSpec::Auto`] why not another.
    pub reason: String,
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
            _ => Err(Error::invalid_option(
                "device",
                format_args!(
                    "must be \"auto\", \"cpu\", \"cuda\", \"cuda:N\", \"metal\" or \"metal:N\", got {text:?}"
                ),
            )),
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
    /// The device that a model loaded with this computes on, which is opened to find out.
    ///
    /// # Errors
    /// [`Device`](crate::ErrorKind::Device) if a named device is not compiled in or cannot be used.
    pub fn choose(self) -> Result<DeviceChoice> {
        let (device, reason) = self.open()?;
        Ok(DeviceChoice { device: device.spec(), reason })
    }

    /// Opens the device; says why it is this one.
    ///
    /// # Errors
    /// [`Device`](crate::ErrorKind::Device) if it is not compiled in or cannot be used; a named device is never
    /// silently replaced by another.
    pub(crate) fn open(self) -> Result<(OpenDevice, String)> {
        if self != Self::Auto {
            let device = OpenDevice::named(self)?;
            let reason = with_name("asked for", &device);
            return Ok((device, reason));
        }
        let mut refused = Vec::new();
        for (gpu, is_compiled_in) in [
            (Self::Cuda(0), candle_core::utils::cuda_is_available()),
            (Self::Metal(0), candle_core::utils::metal_is_available()),
        ] {
            if !is_compiled_in {
                continue;
            }
            match OpenDevice::named(gpu) {
                Ok(device) => {
                    let reason = with_name("the GPU that is compiled in and present", &device);
                    return Ok((device, reason));
                }
                Err(error) => refused.push(error.to_string()),
            }
        }
        let reason = match refused.as_slice() {
            [] => "this build has no GPU support (the features \"cuda\" and \"metal\")".to_owned(),
            refused => format!("no GPU can be used: {}", refused.join("; ")),
        };
        Ok((OpenDevice::cpu(), reason))
    }

    /// Whether it is a GPU. [`Auto`](Self::Auto) is none before it was chosen.
    pub(crate) const fn is_gpu(self) -> bool {
        matches!(self, Self::Cuda(_) | Self::Metal(_))
    }
}

fn with_name(reason: &str, device: &OpenDevice) -> String {
    match device.name() {
        Some(name) => format!("{reason}: {name}"),
        None => reason.to_owned(),
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
            assert_eq!(error.kind(), ErrorKind::InvalidOption);
            assert_eq!(error.option(), Some("device"));
            assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
        }
    }

    #[test]
    fn a_device_that_is_named_is_taken_because_it_was_named() {
        let choice = DeviceSpec::Cpu.choose().unwrap();
        assert_eq!(choice, DeviceChoice { device: DeviceSpec::Cpu, reason: "asked for".to_owned() });
    }

    #[cfg(not(any(feature = "cuda", feature = "metal")))]
    #[test]
    fn auto_is_the_cpu_in_a_build_without_gpus_and_says_which_features_are_missing() {
        let choice = DeviceSpec::Auto.choose().unwrap();
        assert_eq!(choice.device, DeviceSpec::Cpu);
        for feature in ["\"cuda\"", "\"metal\""] {
            assert!(choice.reason.contains(feature), "{}", choice.reason);
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_device_that_is_not_compiled_in_is_an_error_and_not_the_cpu() {
        let error = DeviceSpec::Cuda(0).choose().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Device);
        assert!(error.to_string().contains("\"cuda\""), "{error}");
    }
}
