//! A GGUF that was split into parts, put together again.
//!
//! The first part has all the metadata, and each has its tensors. `split.no` (from 0 on), `split.count` and
//! `split.tensors.count` are in every part; they are held against the names, against each other and against what is there.

use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};

use super::{Gguf, PartName};
use crate::{CancelToken, Error, Result};

pub(super) const COUNT: &str = "split.count";
const NUMBER: &str = "split.no";
const TENSORS: &str = "split.tensors.count";
/// Keys that are about one file and not about the model, and may differ.
const OF_ONE_FILE: [&str; 2] = [NUMBER, "general.alignment"];
/// `split.count` is a 16-bit number, and a name has room for five digits.
const MOST_PARTS: usize = u16::MAX as usize;

/// Opens the other parts of the model that `named` is one of `count` of.
pub(super) fn open_all(named: Gguf, count: usize, mmap: bool, cancel: &CancelToken) -> Result<Gguf> {
    let shown = named.path().display();
    let Some(name) = named.path().file_name().and_then(|name| PartName::parse(name.to_str()?)) else {
        return Err(Error::invalid_model(format!(
            "{shown} is one of {count} parts of a split GGUF (metadata key {COUNT}), but its name is not one such as \
             NAME-00001-of-{count:05}.gguf, by which the other parts are found; give it its original name, in one folder with \
             the other parts"
        )));
    };
    if name.count != count || count > MOST_PARTS {
        return Err(Error::invalid_model(format!(
            "{shown}: metadata key {COUNT} must be {}, as in the file's name, got {count}; give the file its original name",
            name.count
        )));
    }
    let paths: Vec<PathBuf> = name.all().map(|name| named.path().with_file_name(name)).collect();
    check_presence(&paths)?;

    let number = name.number;
    let mut named = Some(named);
    let mut whole: Option<Gguf> = None;
    for (index, path) in paths.iter().enumerate() {
        cancel.check()?;
        let opened = if index + 1 == number { named.take() } else { None };
        let part = match opened {
            Some(part) => part,
            None => Gguf::open_one(path, mmap, cancel)?,
        };
        check_place(&part, index, count)?;
        match &mut whole {
            None => whole = Some(part),
            Some(whole) => append(whole, part, index)?,
        }
    }
    let whole = whole.ok_or_else(|| Error::invalid_model("a split GGUF of no parts"))?;
    let expected = whole.required_usize(TENSORS)?;
    let found = whole.tensors.len();
    if expected != found {
        return Err(Error::invalid_model(format!(
            "{}: metadata key {TENSORS} must be {found}, the number of tensors in the {count} parts, got {expected}; a part \
             is damaged or belongs to another model: download the parts again",
            whole.path().display()
        )));
    }
    Ok(whole)
}

/// Says which parts are missing before gigabytes of the others are read.
fn check_presence(paths: &[PathBuf]) -> Result<()> {
    let mut missing = paths.iter().filter(|path| !path.exists());
    let Some(first) = missing.next() else { return Ok(()) };
    let others = match missing.count() {
        0 => String::new(),
        others => format!(", and {others} more"),
    };
    Err(Error::model_not_found(format!(
        "no such file: {}{others}; all {} parts of a split GGUF must be in one folder: download those that are missing",
        first.display(),
        paths.len()
    )))
}

/// Holds what a part says of its place against its name.
fn check_place(part: &Gguf, index: usize, count: usize) -> Result<()> {
    for (key, expected) in [(COUNT, count), (NUMBER, index)] {
        let found = part.required_usize(key)?;
        if found != expected {
            return Err(Error::invalid_model(format!(
                "{}: metadata key {key} must be {expected}, got {found}: the name is that of part {} of {count} ({NUMBER} \
                 counts from 0); give the file its original name, or download it again",
                part.path().display(),
                index + 1
            )));
        }
    }
    Ok(())
}

/// Takes a part's tensors into the whole; its metadata may only repeat the first part's.
fn append(whole: &mut Gguf, part: Gguf, index: usize) -> Result<()> {
    // Needed in every part, whatever else it repeats.
    part.required_usize(TENSORS)?;
    for (key, value) in &part.metadata {
        match whole.metadata.get(key) {
            _ if OF_ONE_FILE.contains(&key.as_str()) => {}
            Some(first) if first == value => {}
            // The same number may be of another width in another part.
            Some(_) if key.starts_with("split.") && whole.optional_usize(key)? == part.optional_usize(key)? => {}
            Some(first) => {
                return Err(Error::invalid_model(format!(
                    "{}: metadata key {key} must be {}, as in {}, got {}; the parts belong to different models: download \
                     them again",
                    part.path().display(),
                    first.describe(),
                    whole.path().display(),
                    value.describe()
                )));
            }
            None => tracing::warn!(
                key,
                part = %part.path().display(),
                "a metadata key of a later part of a split file is ignored; only those of the first part are used"
            ),
        }
    }
    for (name, mut info) in part.tensors {
        info.part = index;
        match whole.tensors.entry(name) {
            Entry::Vacant(place) => {
                place.insert(info);
            }
            Entry::Occupied(other) => {
                let path = |index: usize| whole.parts.get(index).map_or(Path::new(""), |part| &part.path);
                let new = part.parts.first().map_or(Path::new(""), |part| &part.path);
                return Err(Error::invalid_model(format!(
                    "tensor {} is in both {} and {}; the parts belong to different models: download them again",
                    other.key(),
                    path(other.get().part).display(),
                    new.display()
                )));
            }
        }
    }
    whole.parts.extend(part.parts);
    Ok(())
}
