//! The instruction set level of the machine.

use std::fmt;

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
    /// The highest level that this machine has, found at run time.
    #[must_use]
    pub fn detect() -> Self {
        detect()
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

#[cfg(target_arch = "x86_64")]
fn detect() -> Isa {
    use std::arch::is_x86_feature_detected as has;
    if !(has!("avx2") && has!("fma") && has!("f16c")) {
        Isa::Scalar
    } else if has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512dq") && has!("avx512vnni") {
        Isa::Avx512Vnni
    } else if has!("avxvnni") {
        Isa::AvxVnni
    } else {
        Isa::Avx2
    }
}

#[cfg(target_arch = "aarch64")]
fn detect() -> Isa {
    use std::arch::is_aarch64_feature_detected as has;
    if !has!("neon") {
        Isa::Scalar
    } else if has!("i8mm") {
        Isa::NeonI8mm
    } else if has!("dotprod") {
        Isa::NeonDotprod
    } else {
        Isa::Neon
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn detect() -> Isa {
    Isa::Scalar
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
}
