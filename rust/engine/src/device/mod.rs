//! Where a model computes. [`DeviceKind`] is the table of devices.
//!
//! `docs/devices.md` says which operation of Candle's is what on which device.

mod faults;
mod open;

use std::fmt;
use std::str::FromStr;

use candle_core::Device;

use crate::{Error, Result};

use faults::Faults;
pub(crate) use faults::{check_context, prefill_chunk_on_gpu, waits_before_layer};
pub(crate) use open::{DeviceGuard, OpenDevice};

/// A device as a user names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceSpec {
    /// The first GPU that is compiled in and can be used, in the order of [`DeviceKind::all`], or else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA device with this ordinal.
    Cuda(usize),
    /// The Metal device with this ordinal.
    Metal(usize),
}

/// The name of [`DeviceSpec::Auto`].
const AUTO: &str = "auto";

/// A kind of device, with all that is known of it: names, choice and messages are derived from this table.
///
/// A new kind is a variant of [`DeviceSpec`], its row here, and its line in [`all`](Self::all).
#[derive(Debug)]
pub struct DeviceKind {
    /// The name of the device, or of the first one if there can be several.
    pub name: &'static str,
    /// What it is, in a few words; empty if the name says it.
    pub description: &'static str,
    /// Whether there can be several, with the names `name:0`, `name:1` and so on.
    pub has_ordinal: bool,
    /// Whether it is a GPU.
    pub is_gpu: bool,
    /// The cargo feature that compiles it in; `None` if every build has it.
    pub feature: Option<&'static str>,
    is_compiled_in: fn() -> bool,
    /// The device with this ordinal.
    spec: fn(usize) -> DeviceSpec,
    /// Opens the device with this ordinal.
    open: fn(usize) -> candle_core::Result<Device>,
    /// What to do if it computes wrong results, for a message.
    advice: &'static str,
    faults: Faults,
}

static CPU: DeviceKind = DeviceKind {
    name: "cpu",
    description: "",
    has_ordinal: false,
    is_gpu: false,
    feature: None,
    is_compiled_in: || true,
    spec: |_| DeviceSpec::Cpu,
    open: |_| Ok(Device::Cpu),
    advice: "",
    faults: Faults::NONE,
};

static CUDA: DeviceKind = DeviceKind {
    name: "cuda",
    description: "an NVIDIA GPU",
    has_ordinal: true,
    is_gpu: true,
    feature: Some("cuda"),
    is_compiled_in: candle_core::utils::cuda_is_available,
    spec: DeviceSpec::Cuda,
    open: Device::new_cuda,
    advice: "; this build's kernels may be for another generation of GPUs: build it with the environment variable \
             CUDA_COMPUTE_CAP at this GPU's compute capability (90 for 9.0)",
    faults: Faults::NONE,
};

static METAL: DeviceKind = DeviceKind {
    name: "metal",
    description: "an Apple GPU",
    has_ordinal: true,
    is_gpu: true,
    feature: Some("metal"),
    is_compiled_in: candle_core::utils::metal_is_available,
    spec: DeviceSpec::Metal,
    open: Device::new_metal,
    advice: "",
    faults: Faults::METAL,
};

static KINDS: [&DeviceKind; 3] = [&CPU, &CUDA, &METAL];

impl DeviceKind {
    /// All kinds. [`DeviceSpec::Auto`] tries the GPUs in this order.
    #[must_use]
    pub fn all() -> &'static [&'static Self] {
        &KINDS
    }

    /// How a device of this kind can be named, with `N` for an ordinal.
    #[must_use]
    pub fn spellings(&self) -> Vec<String> {
        let mut spellings = vec![self.name.to_owned()];
        spellings.extend(self.has_ordinal.then(|| format!("{}:N", self.name)));
        spellings
    }
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
        if text == AUTO {
            return Ok(Self::Auto);
        }
        let (name, ordinal) = match text.split_once(':') {
            None => (text, None),
            Some((name, ordinal)) => (name, Some(ordinal)),
        };
        let kind = KINDS.iter().find(|kind| kind.name == name && (kind.has_ordinal || ordinal.is_none()));
        let ordinal = ordinal.map_or(Some(0), |ordinal| ordinal.parse().ok());
        kind.zip(ordinal).map(|(kind, ordinal)| (kind.spec)(ordinal)).ok_or_else(|| {
            let known = KINDS.iter().flat_map(|kind| kind.spellings());
            let known: Vec<String> = std::iter::once(AUTO.to_owned()).chain(known).collect();
            Error::invalid_option("device", format_args!("must be {}, got {text:?}", quoted(&known, "or")))
        })
    }
}

/// Texts in quotes: `"a", "b" or "c"`
fn quoted<T: fmt::Debug>(texts: &[T], last: &str) -> String {
    let mut quoted: Vec<String> = texts.iter().map(|text| format!("{text:?}")).collect();
    match quoted.pop() {
        Some(end) if !quoted.is_empty() => format!("{} {last} {end}", quoted.join(", ")),
        only => only.unwrap_or_default(),
    }
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind() {
            None => f.write_str(AUTO),
            Some(DeviceKind { name, has_ordinal: true, .. }) => write!(f, "{name}:{}", self.ordinal()),
            Some(DeviceKind { name, .. }) => f.write_str(name),
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
        let gpus = || KINDS.iter().filter(|kind| kind.is_gpu);
        for kind in gpus().filter(|kind| (kind.is_compiled_in)()) {
            match OpenDevice::named((kind.spec)(0)) {
                Ok(device) => {
                    let reason = with_name("the GPU that is compiled in and present", &device);
                    return Ok((device, reason));
                }
                Err(error) => refused.push(error.to_string()),
            }
        }
        let reason = if refused.is_empty() {
            let features: Vec<&str> = gpus().filter_map(|kind| kind.feature).collect();
            format!("this build has no GPU support (the features {})", quoted(&features, "and"))
        } else {
            format!("no GPU can be used: {}", refused.join("; "))
        };
        Ok((OpenDevice::cpu(), reason))
    }

    /// The kind of the device; `None` for [`Auto`](Self::Auto), which has none before it was chosen.
    pub(crate) const fn kind(self) -> Option<&'static DeviceKind> {
        match self {
            Self::Auto => None,
            Self::Cpu => Some(&CPU),
            Self::Cuda(_) => Some(&CUDA),
            Self::Metal(_) => Some(&METAL),
        }
    }

    /// Which of the devices of its kind it is.
    const fn ordinal(self) -> usize {
        match self {
            Self::Auto | Self::Cpu => 0,
            Self::Cuda(ordinal) | Self::Metal(ordinal) => ordinal,
        }
    }

    /// Whether it is a GPU. [`Auto`](Self::Auto) is not one before it was chosen.
    pub(crate) fn is_gpu(self) -> bool {
        self.kind().is_some_and(|kind| kind.is_gpu)
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
    fn every_kind_is_read_from_its_name() {
        for kind in DeviceKind::all() {
            let first = kind.name.parse::<DeviceSpec>().unwrap();
            let second = format!("{}:1", kind.name).parse::<DeviceSpec>();
            assert_eq!((first.kind().unwrap().name, first.ordinal()), (kind.name, 0));
            assert_eq!(second.ok().map(DeviceSpec::ordinal), kind.has_ordinal.then_some(1));
        }
    }

    #[test]
    fn other_names_are_refused_with_the_choices() {
        for text in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:1", "auto:0", "CPU"] {
            let error = text.parse::<DeviceSpec>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidOption);
            assert_eq!(error.option(), Some("device"));
            for spelling in DeviceKind::all().iter().flat_map(|kind| kind.spellings()) {
                assert!(error.to_string().contains(&format!("{spelling:?}")), "{error}");
            }
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
        for feature in DeviceKind::all().iter().filter_map(|kind| kind.feature) {
            assert!(choice.reason.contains(&format!("{feature:?}")), "{}", choice.reason);
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
