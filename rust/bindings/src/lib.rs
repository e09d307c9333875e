//! The Python module `candle_phi._native`: conversion, and the one door into the engine. No decisions.
//!
//! The stub is `python/candle_phi/_native.pyi`; the public face is the Python package around it.

mod completion;
mod door;
mod error;
mod generation;
mod hook;
mod hub;
mod info;
mod listener;
mod log;
mod model;
mod options;
mod processor;
mod runtime;
mod session;
mod trace;

use pyo3::prelude::*;

#[pymodule]
mod _native {
    #[pymodule_export]
    use crate::completion::{Chunk, Completion};
    #[pymodule_export]
    use crate::generation::Generation;
    #[pymodule_export]
    use crate::hub::{CachedModel, NamedModel, Progress, cached_models, download, named_models, remove_cached};
    #[pymodule_export]
    use crate::info::{
        DeviceKind, MemoryEstimate, ModelInfo, check_machine, choose_device, device_kinds, estimate_memory,
        inspect,
    };
    #[pymodule_export]
    use crate::model::Model;
    #[pymodule_export]
    use crate::options::{OptionSpec, check_generation, check_option, options};
    #[pymodule_export]
    use crate::session::Session;
    #[pymodule_export]
    use crate::trace::{start_trace, stop_trace};

    use pyo3::exceptions::PyRuntimeWarning;
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        module.add("__build__", crate::processor::BUILD)?;
        candle_phi_engine::keep_panics_quiet();
        crate::listener::listen();
        crate::runtime::prepare(module.py())?;
        crate::log::prepare(module.py())?;
        let close_door = wrap_pyfunction!(crate::door::close_door, module)?;
        module.py().import("atexit")?.call_method1("register", (close_door,))?;
        if cfg!(debug_assertions) {
            let message =
                c"this is a debug build of candle-phi, some hundred times slower; build it with --release";
            PyErr::warn(module.py(), &module.py().get_type::<PyRuntimeWarning>(), message, 1)?;
        }
        Ok(())
    }
}
