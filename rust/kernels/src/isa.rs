//! The instruction set level of the machine.

use std::fmt;
use std::str::FromStr;

/// Instruction set levels that kernels are written for, lowest first within an architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Isa {
    /// No vector instructions assumed beyond the target's baseline.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// AVX2 with the 256-bit VNNI dot products.
    AvxVnni,
    /// AVX-512 F, BW, VL, DQ with the 512-bit VNNI dot products.
    Avx512Vnni,
    /// AArch64 Advanced SIMD.
    Neon,
    /// Advanced SIMD with the int8 dot products.
    NeonDotprod,
    /// Advanced SIMD with the int8 matrix products.
    NeonI8mm,
}

impl Isa {
    /// Every level, of every architecture.
    pub const ALL: [Self; 7] =
        [Self::Scalar, Self::Avx2, Self::AvxVnni, Self::Avx512Vnni, Self::Neon, Self::NeonDotprod, Self::NeonI8mm];

    /// The level that is best on this machine, found at run time.
    #[must_use]
    pub fn detect() -> Self {
        Self::available().last().unwrap_or(Self::Scalar)
    }

    /// The levels that this machine has, lowest first.
    pub fn available() -> impl DoubleEndedIterator<Item = Self> {
        Self::ALL.into_iter().filter(|isa| isa.is_available())
    }

    /// Whether this machine has the level.
    #[must_use]
    #[cfg(target_arch = "x86_64")]
    pub fn is_available(self) -> bool {
        use std::arch::is_x86_feature_detected as has;
        let avx2 = has!("avx2") && has!("fma") && has!("f16c");
        match self {
            Self::Scalar => true,
            Self::Avx2 => avx2,
            Self::AvxVnni => avx2 && has!("avxvnni"),
            Self::Avx512Vnni => {
                avx2 && has!("avx512f")
                    && has!("avx512bw")
                    && has!("avx512vl")
                    && has!("avx512dq")
                    && has!("avx512vnni")
            }
            Self::Neon | Self::NeonDotprod | Self::NeonI8mm => false,
        }
    }

    /// Whether this machine has the level.
    #[must_use]
    #[cfg(target_arch = "aarch64")]
    pub fn is_available(self) -> bool {
        use std::arch::is_aarch64_feature_detected as has;
        match self {
            Self::Scalar => true,
            Self::Neon => has!("neon"),
            Self::NeonDotprod => has!("neon") && has!("dotprod"),
            Self::NeonI8mm => has!("neon") && has!("dotprod") && has!("i8mm"),
            Self::Avx2 | Self::AvxVnni | Self::Avx512Vnni => false,
        }
    }

    /// Whether this machine has the level.
    #[must_use]
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    pub fn is_available(self) -> bool {
        self == Self::Scalar
    }

    /// The level's name: `"avx512-vnni"`, `"neon-dotprod"` and the like.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::AvxVnni => "avx-vnni",
            Self::Avx512Vnni => "avx512-vnni",
            Self::Neon => "neon",
            Self::NeonDotprod => "neon-dotprod",
            Self::NeonI8mm => "neon-i8mm",
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no level's, or that of a level which this machine does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsaError {
    found: String,
}

impl fmt::Display for IsaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let available: Vec<_> = Isa::available().map(|isa| format!("\"{isa}\"")).collect();
        let (available, found) = (available.join(", "), &self.found);
        write!(f, "must be one of {available} (the instruction sets of this machine), got {found:?}")
    }
}

impl std::error::Error for IsaError {}

impl FromStr for Isa {
    type Err = IsaError;

    /// The level of this name, if this machine has it.
    fn from_str(name: &str) -> Result<Self, IsaError> {
        Self::available().find(|isa| isa.name() == name).ok_or_else(|| IsaError { found: name.to_owned() })
    }
}

/// The level that kernels run at: one that this machine was asked for and has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernels {
    /// Only ever a level that [`Isa::is_available`]: what the calls of vector code rely on.
    isa: Isa,
}

impl Kernels {
    /// Kernels of the level `isa`.
    ///
    /// # Errors
    /// [`IsaError`] if this machine does not have the level.
    pub fn new(isa: Isa) -> Result<Self, IsaError> {
        if isa.is_available() { Ok(Self { isa }) } else { Err(IsaError { found: isa.name().to_owned() }) }
    }

    /// Kernels of the best level of this machine.
    #[must_use]
    pub fn best() -> Self {
        Self { isa: Isa::detect() }
    }

    /// The level.
    #[must_use]
    pub fn isa(self) -> Isa {
        self.isa
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_found_belongs_to_the_architecture() {
        let name = Isa::detect().to_string();
        if cfg!(target_arch = "x86_64") {
            assert!(name == "scalar" || name.starts_with("avx"), "{name}");
        } else if cfg!(target_arch = "aarch64") {
            assert!(name == "scalar" || name.starts_with("neon"), "{name}");
        }
    }

    #[test]
    fn a_level_that_is_not_there_is_refused() {
        let absent = if cfg!(target_arch = "x86_64") { Isa::Neon } else { Isa::Avx2 };
        assert!(Kernels::new(absent).is_err());
        let error = absent.name().parse::<Isa>().unwrap_err().to_string();
        assert!(error.contains("scalar") && error.contains(absent.name()), "{error}");
        assert_eq!("scalar".parse(), Ok(Isa::Scalar));
    }
}
