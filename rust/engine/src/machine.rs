//! What of this machine is put to use.

use std::sync::atomic::{AtomicU32, Ordering};

use candle_phi_kernels::{Isa, IsaError, Kernels, Threads};

use crate::{Error, ExecutorKind, Result, options};

/// The environment's choice of an instruction set level, below that of a session's options.
const ISA_VARIABLE: &str = "CANDLE_PHI_ISA";

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
                        "must be {fixed}, the number that Candle's executor has for the whole process, got {}; set the \
                         variable RAYON_NUM_THREADS before the process starts, or set executor to \"kernels\"",
                        n_threads.unwrap_or_default()
                    ),
                ));
            }
            if let Some(isa) = isa {
                return Err(Error::invalid_option(
                    "isa",
                    format_args!("must be unset with the candle executor, which chooses by itself, got {isa:?}"),
                ));
            }
            return Ok(Self { threads: Threads::new(fixed), kernels: Kernels::best() });
        }
        n_threads.map_or(Ok(()), |count| options::check("n_threads", count))?;
        let kernels = match isa {
            Some(name) => kernels_named(name).map_err(|error| Error::invalid_option("isa", error))?,
            None => match std::env::var(ISA_VARIABLE) {
                Ok(name) if !name.is_empty() => kernels_named(&name)
                    .map_err(|error| Error::invalid_input(format!("the variable {ISA_VARIABLE} {error}")))?,
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

/// The process that Candle's threads were started in; 0 before.
static COMPUTING_PROCESS: AtomicU32 = AtomicU32::new(0);

/// An error in a process that was forked after Candle had computed: a fork has the memory of the threads that
/// compute and not the threads, and would wait for them without end. The kernels' threads are started anew there.
pub(crate) fn refuse_after_fork() -> Result<()> {
    let process = std::process::id();
    match COMPUTING_PROCESS.compare_exchange(0, process, Ordering::Relaxed, Ordering::Relaxed) {
        Err(other) if other != process => Err(Error::inference(
            "this process was forked from one that had computed with Candle already, whose threads are not copied; fork \
             before the first prompt, start processes with multiprocessing's \"spawn\" or \"forkserver\", or set \
             executor to \"kernels\"",
        )),
        _ => Ok(()),
    }
}
