//! What of this machine is put to use.

use std::fmt;
use std::str::FromStr;

use candle_phi_kernels::{Isa, IsaError, Kernels, Threads};

use crate::device::DeviceSpec;
use crate::options::{self, unknown_choice};
use crate::{Error, Result};

/// The environment's choice of an instruction set level, below that of a session's options.
const ISA_VARIABLE: &str = "CANDLE_PHI_ISA";

/// What computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExecutorKind {
    /// The kernels on a CPU, Candle on other devices.
    #[default]
    Auto,
    /// The project's own kernels, on a CPU.
    Kernels,
    /// Candle's operations, on any device.
    Candle,
}

impl ExecutorKind {
    /// `"auto"`, `"kernels"` or `"candle"`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Kernels => "kernels",
            Self::Candle => "candle",
        }
    }

    /// What [`Auto`](Self::Auto) stands for on this device.
    ///
    /// # Errors
    /// [`InvalidOption`](crate::ErrorKind::InvalidOption) for the kernels on another device than a CPU.
    pub(crate) fn resolve(self, device: DeviceSpec) -> Result<Self> {
        match self {
            Self::Auto if device.is_gpu() => Ok(Self::Candle),
            Self::Auto => Ok(Self::Kernels),
            Self::Kernels if device.is_gpu() => Err(Error::invalid_option(
                "executor",
                format_args!(
                    "must be \"auto\" or \"candle\" on the device \"{device}\", got \"kernels\", which runs only on \
                     \"cpu\""
                ),
            )),
            named => Ok(named),
        }
    }
}

impl FromStr for ExecutorKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        [Self::Auto, Self::Kernels, Self::Candle]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| unknown_choice("executor", text))
    }
}

impl fmt::Display for ExecutorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who computes a session's forward passes, and with which instructions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Compute {
    pub(crate) threads: Threads,
    pub(crate) kernels: Kernels,
}

impl Compute {
    /// What a session's options ask for on an executor.
    pub(crate) fn new(executor: ExecutorKind, n_threads: Option<usize>, isa: Option<&str>) -> Result<Self> {
        if executor == ExecutorKind::Candle {
            let fixed = candle_core::utils::get_num_threads();
            if n_threads.is_some_and(|count| count != fixed) {
                return Err(Error::invalid_option(
                    "n_threads",
                    format_args!(
                        "must be {fixed} with the executor \"candle\", which has one number for the whole process, got {}; \
                         set the environment variable RAYON_NUM_THREADS before the process starts, or set executor to \
                         \"kernels\"",
                        n_threads.unwrap_or_default()
                    ),
                ));
            }
            if let Some(isa) = isa {
                return Err(Error::invalid_option(
                    "isa",
                    format_args!(
                        "must be unset with the executor \"candle\", which chooses by itself, got {isa:?}"
                    ),
                ));
            }
            return Ok(Self { threads: Threads::new(fixed), kernels: Kernels::best() });
        }
        n_threads.map_or(Ok(()), |count| options::check("n_threads", count))?;
        let kernels = match isa {
            Some(name) => kernels_named(name).map_err(|error| Error::invalid_option("isa", error))?,
            None => match std::env::var(ISA_VARIABLE) {
                Ok(name) if !name.is_empty() => kernels_named(&name).map_err(|error| {
                    Error::invalid_input(format!("the environment variable {ISA_VARIABLE} {error}"))
                })?,
                _ => Kernels::best(),
            },
        };
        Ok(Self { threads: Threads::new(n_threads.unwrap_or_else(thread_count)), kernels })
    }
}

fn kernels_named(name: &str) -> std::result::Result<Kernels, IsaError> {
    name.parse::<Isa>().and_then(Kernels::new)
}

/// How many threads compute on the CPU where a session does not say: the cores that this process may use.
#[must_use]
pub fn thread_count() -> usize {
    Threads::default_count()
}

/// The highest instruction set level of this machine, found at run time.
#[must_use]
pub fn instruction_set() -> &'static str {
    Isa::detect().name()
}
