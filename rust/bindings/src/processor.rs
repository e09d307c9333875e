//! What this build needs of a processor, said in the bytes of the module itself.
//!
//! `candle_phi/_processor.py` looks for the words in the file before it is loaded, so that a processor which lacks
//! something gets an exception and not an illegal instruction. It is the compiler that decides them: what
//! `.cargo/config.toml` asks for counts only where the environment did not hide it.

/// Also `candle_phi._native.__build__`, for people and tests.
pub(crate) const BUILD: &str = if cfg!(all(target_arch = "aarch64", target_feature = "fp16")) {
    "candle-phi build: needs fp16"
} else {
    "candle-phi build: needs nothing"
};
