//! What GGUF tensors look like in memory, and the CPU code that reads them in place.
//!
//! This crate knows the block formats and nothing of models, Candle or Python.
//!
//! # Key types
//! - [`TensorType`]: a tensor type of the GGUF format that can be computed with, its block length and bytes.
//! - [`dequantize_row`]: the scalar reference that every faster kernel is held against.
//! - [`Isa`]: the instruction set level of the machine, found at run time.

mod dequantize;
mod isa;
mod tensor_type;

pub use dequantize::{LengthError, dequantize_row};
pub use isa::Isa;
pub use tensor_type::{TensorType, type_name};
