//! Portable code compiled once for each instruction set level, and chosen by level when it is called.

/// Defines a function that runs `generic::<FMA>` as compiled for the level of the [`Kernels`](crate::Kernels) that are
/// its first argument. The generic function must be `#[inline(always)]`, and takes whether the level has fused
/// multiply-adds: without, `f32::mul_add` would be a call.
macro_rules! multiversion {
    ($(
        $(#[$meta:meta])*
        $visibility:vis fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)? = $generic:ident;
    )*) => {$(
        $(#[$meta])*
        #[allow(clippy::too_many_arguments, unsafe_code, reason = "arguments are the generic function's; see SAFETY")]
        #[inline]
        $visibility fn $name(kernels: $crate::Kernels, $($argument: $type),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma,f16c")]
                fn avx2($($argument: $type),*) $(-> $result)? {
                    $generic::<true>($($argument),*)
                }
                #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
                fn avx512($($argument: $type),*) $(-> $result)? {
                    $generic::<true>($($argument),*)
                }
                match kernels.isa() {
                    // SAFETY: kernels only have levels that the machine has, and these enable nothing beyond theirs.
                    $crate::Isa::Avx2 | $crate::Isa::AvxVnni => return unsafe { avx2($($argument),*) },
                    // SAFETY: as above.
                    $crate::Isa::Avx512Vnni => return unsafe { avx512($($argument),*) },
                    _ => {}
                }
            }
            #[cfg(not(target_arch = "x86_64"))]
            let _ = kernels;
            // Every AArch64 has them; the other architectures' baselines are not known to.
            $generic::<{ cfg!(target_arch = "aarch64") }>($($argument),*)
        }
    )*};
}

pub(crate) use multiversion;
