//! What GGUF tensors look like in memory, and the CPU code that reads them in place.
//!
//! This crate knows the block formats and nothing of models, Candle or Python.
//!
//! # Key types
//! - [`TensorType`]: a tensor type of the GGUF format that can be computed with, its block length and bytes.
//! - [`dequantize_row`]: the scalar reference that every faster kernel is held against.
//! - [`Isa`]: an instruction set level, found at run time; [`Kernels`]: the level that kernels run at.
//! - [`KvPage`] and [`Kernels::attend`]: cached keys and values, and attention over them.
//! - [`Threads`]: who computes.
//! - [`Weight`], [`Activations`] and [`Kernels::multiply`]: products with weights that stay where and as they are; [`Products`]: what
//!   they come to.

#[cfg(target_arch = "aarch64")]
mod aarch64;
mod activations;
mod attention;
#[cfg(test)]
mod attention_tests;
mod dequantize;
mod elementwise;
mod float;
mod iq4;
mod isa;
mod kv_page;
mod lanes;
mod matmul;
#[cfg(test)]
mod matmul_tests;
mod multiversion;
mod panel;
mod peak;
mod products;
#[cfg(test)]
mod properties;
mod tensor_type;
mod threads;
mod unpack;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use activations::{ActivationForms, Activations};
pub use attention::{Attended, Queries};
pub use dequantize::{LengthError, dequantize_row};
pub use iq4::iq4_as_q8_0;
pub use isa::{Isa, IsaError, Kernels};
pub use kv_page::{KvFormat, KvPage, PAGE_TOKENS};
pub use matmul::{Prepared, Weight};
pub use products::{BufferPool, Products};
pub use tensor_type::{TensorType, type_name};
pub use threads::{Parts, Pass, Threads};
