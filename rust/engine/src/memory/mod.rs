//! How much memory is needed, held against how much there is.
//!
//! The weights are pages of their file, which the system drops and reads again as it must; they are never in the way. Keys and
//! values, and what a forward pass computes with, are memory that must be there. What is certain not to fit is refused with the
//! numbers, before the system ends the process: when a session is made, and again when its cache grows. The two can be far
//! apart in time, and others take memory too.

mod available;
mod estimate;
pub(crate) mod limit;

pub use estimate::MemoryEstimate;
pub(crate) use estimate::{candle_pass_bytes, check_session, pass_bytes};
