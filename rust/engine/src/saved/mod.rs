//! Conversations in files: what was said, and the keys and values that were computed of it.
//!
//! A file is, in this order, all numbers little-endian:
//!
//! | bytes | what |
//! | ---: | --- |
//! | 8 | `phi-conv` |
//! | 4 | the version of this layout, 1 |
//! | 4 | the length of the header |
//! | | the [`Header`], JSON |
//! | 32 | SHA-256 of all before |
//! | | keys and values |
//! | 32 | SHA-256 of all before |
//!
//! Keys and values are those of each layer in turn, in [runs](crate::cache::runs) of up to 32 positions that end at multiples
//! of 32: the keys `(head_count_kv, positions, head_dim)`, then the values. A head's row at a position is laid out as
//! the ggml type of the cache's name (`F16`, `F32`, `Q8_0`). So nothing in a file depends on what computed it, and its length
//! follows from its header and the model, which is what keeps a hostile file from asking for memory.
//!
//! A cache can be gigabytes: writing and reading take one run at a time.

mod format;
mod header;

use std::ops::Range;
use std::path::Path;

use crate::cache::{KvCache, rows_bytes, runs};
use crate::conversation::Conversation;
use crate::loader::Phi3Model;
use crate::new_file::{NewFile, folder_of};
use crate::size::size_text;
use crate::{CancelToken, Error, KvDtype, PhiConfig, Result};

use format::{DIGEST_BYTES, PRELUDE_BYTES, Reader, Writer};
use header::Header;

/// What of a session is saved.
pub(crate) struct State<'a> {
    pub(crate) conversation: &'a Conversation,
    pub(crate) cached: &'a [u32],
    pub(crate) cache: &'a KvCache,
}

/// What of a session was loaded.
pub(crate) struct Loaded {
    pub(crate) conversation: Conversation,
    pub(crate) cached: Vec<u32>,
    pub(crate) cache: KvCache,
}

/// What a session has place for.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) n_ctx: usize,
    pub(crate) kv_dtype: KvDtype,
}

/// Writes a session to a file.
pub(crate) fn save(
    path: &Path,
    model: &Phi3Model,
    state: &State<'_>,
    kv_dtype: KvDtype,
    cancel: &CancelToken,
) -> Result<()> {
    let failed = |error: std::io::Error| {
        Error::conversation_file(format!("cannot save to {}: {error}", path.display())).with_source(error)
    };
    format::check_replaceable(path)?;
    let positions = state.cache.positions();
    let header = Header::new(model.fingerprint()?, state, kv_dtype, &positions).to_json()?;
    let rows = rows_len(model.config(), kv_dtype, &positions);
    check_space(path, file_len(header.len() as u64, rows))?;
    let mut writer = Writer::new(NewFile::create(path).map_err(failed)?);
    writer.prelude(header.len()).and_then(|()| writer.write(&header)).map_err(failed)?;
    writer.digest().map_err(failed)?;
    let mut bytes = Vec::new();
    for layer in 0..model.config().block_count {
        for run in runs(&positions) {
            cancel.check()?;
            bytes.clear();
            state.cache.rows_to_bytes(layer, run, &mut bytes)?;
            writer.write(&bytes).map_err(failed)?;
        }
    }
    writer.digest().map_err(failed)?;
    writer.into_inner().and_then(NewFile::finish).map_err(failed)
}

/// Reads a session from a file, if it fits.
pub(crate) fn load(path: &Path, model: &Phi3Model, place: Place, cancel: &CancelToken) -> Result<Loaded> {
    let mut reader = Reader::open(path)?;
    let header_len = reader.prelude()?;
    let header = reader.take(header_len)?;
    reader.digest()?;
    let header = Header::from_json(&header).map_err(|error| reader.damaged(&error))?;
    header.check_fits(model.fingerprint()?, model.config(), place).map_err(|error| reader.at(error))?;
    let positions = header.positions();
    let rows = rows_len(model.config(), place.kv_dtype, &positions);
    reader.check_len(file_len(header_len as u64, rows))?;
    let mut cache = model.new_cache(place.n_ctx, place.kv_dtype)?;
    let parts = header.into_parts(model.config().vocabulary_size).filter(|_| cache.suffice(&positions));
    let parts = parts.ok_or_else(|| reader.damaged(&"its contents contradict each other"))?;
    model.check_cache_memory(rows, "the saved conversation")?;

    cache.begin_restoring(&positions, parts.rope_factors);
    let mut bytes = Vec::new();
    for layer in 0..model.config().block_count {
        for run in runs(&positions) {
            cancel.check()?;
            bytes.resize(rows_bytes(model.config(), place.kv_dtype, run.len()), 0);
            reader.fill(&mut bytes)?;
            cache.rows_from_bytes(layer, &positions, run, &bytes)?;
        }
    }
    reader.digest()?;
    Ok(Loaded { conversation: parts.conversation, cached: parts.cached, cache })
}

/// Bytes of the keys and values of all layers.
fn rows_len(config: &PhiConfig, kv_dtype: KvDtype, positions: &Range<usize>) -> u64 {
    (rows_bytes(config, kv_dtype, positions.len()) as u64).saturating_mul(config.block_count as u64)
}

/// Bytes of a file.
fn file_len(header: u64, rows: u64) -> u64 {
    (PRELUDE_BYTES + 2 * DIGEST_BYTES).saturating_add(header).saturating_add(rows)
}

/// Says before the first byte that the last one will not fit.
fn check_space(path: &Path, needed: u64) -> Result<()> {
    match fs4::available_space(folder_of(path)) {
        Ok(free) if free < needed => Err(Error::conversation_file(format!(
            "cannot save to {}: the conversation takes {}, but the disk has only {} free; free some space, or save to \
             another disk",
            path.display(),
            size_text(needed),
            size_text(free)
        ))),
        _ => Ok(()),
    }
}
