//! Split GGUFs: all parts are opened as one, and parts that don't fit together are refused.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that is wrong should stop where it is wrong"
)]

mod messages;

use std::fs::File;
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use candle_phi_engine::{CancelToken, Error, ErrorKind, Gguf};
use messages::mentions;
use tempfile::TempDir;

/// A part as it is written: its tensors and what it says of itself.
#[derive(Clone)]
struct Part {
    name: String,
    tensors: Vec<(&'static str, f32)>,
    metadata: Vec<(&'static str, Value)>,
}

impl Part {
    fn set(&mut self, key: &'static str, value: Option<Value>) {
        self.metadata.retain(|(found, _)| *found != key);
        self.metadata.extend(value.map(|value| (key, value)));
    }

    fn write(&self, folder: &Path) -> PathBuf {
        let path = folder.join(&self.name);
        let tensors: Vec<_> = self.tensors.iter().map(|(name, value)| (*name, tensor(*value))).collect();
        let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
        let metadata: Vec<_> = self.metadata.iter().map(|(key, value)| (*key, value)).collect();
        gguf_file::write(&mut File::create(&path).unwrap(), &metadata, &tensors).unwrap();
        path
    }
}

fn tensor(value: f32) -> QTensor {
    let tensor = Tensor::full(value, 8, &Device::Cpu).unwrap();
    QTensor::quantize(&tensor, GgmlDType::F32).unwrap()
}

/// Three parts as llama.cpp's and gguf's tools write them; the first has no tensors, as one of them can.
fn parts() -> [Part; 3] {
    let tensors = [vec![], vec![("a", 1.0), ("b", 2.0)], vec![("c", 3.0)]];
    let mut number = 0;
    tensors.map(|tensors| {
        number += 1;
        let mut metadata = vec![
            ("split.no", Value::U16(number - 1)),
            ("split.count", Value::U16(3)),
            ("split.tensors.count", Value::I32(3)),
        ];
        if number == 1 {
            metadata.push(("general.name", Value::String("whole".to_owned())));
        }
        Part { name: format!("tiny model-0000{number}-of-00003.gguf"), tensors, metadata }
    })
}

fn written(parts: &[Part]) -> (TempDir, Vec<PathBuf>) {
    let folder = tempfile::tempdir().unwrap();
    let paths = parts.iter().map(|part| part.write(folder.path())).collect();
    (folder, paths)
}

fn open(path: &Path) -> Result<Gguf, Error> {
    let mapped = Gguf::open(path, true, &CancelToken::new());
    let read = Gguf::open(path, false, &CancelToken::new());
    let message = |opened: &Result<Gguf, Error>| opened.as_ref().err().map(ToString::to_string);
    assert_eq!(message(&mapped), message(&read));
    mapped
}

/// Opens three parts after `damage`, by whichever is named, and expects `kind` with these names and numbers in the message.
fn refused(damage: impl FnOnce(&mut [Part; 3]), kind: ErrorKind, values: &[&str]) {
    let mut parts = parts();
    damage(&mut parts);
    let (_folder, paths) = written(&parts);
    for path in paths {
        let error = open(&path).err().unwrap_or_else(|| panic!("{} was opened", path.display()));
        assert_eq!(error.kind(), kind, "{error}");
        mentions(&error, values);
    }
}

#[test]
fn a_tensor_of_another_file_is_an_error() {
    let (_folder, paths) = written(&parts());
    let whole = Gguf::open(&paths[0], true, &CancelToken::new()).unwrap();
    let (_other_folder, others) = written(&[Part {
        name: "single.gguf".to_owned(),
        tensors: vec![("a", 1.0)],
        metadata: vec![("general.name", Value::String("single".to_owned()))],
    }]);
    let single = Gguf::open(&others[0], true, &CancelToken::new()).unwrap();
    single.tensor_bytes(single.required_tensor("a").unwrap()).unwrap();
    let info = whole.required_tensor("c").unwrap();
    for error in [single.tensor_bytes(info).err().unwrap(), single.tensor_data(info).err().unwrap()] {
        assert_eq!(error.kind(), ErrorKind::Inference, "{error}");
    }
}

#[test]
fn any_part_opens_all_of_them() {
    let (_folder, paths) = written(&parts());
    let size: usize = paths.iter().map(|path| std::fs::metadata(path).unwrap().len() as usize).sum();
    for path in &paths {
        for mmap in [true, false] {
            let gguf = Gguf::open(path, mmap, &CancelToken::new()).unwrap();
            assert_eq!(gguf.path(), paths.first().unwrap());
            assert_eq!(gguf.file_size_bytes(), size);
            assert_eq!(gguf.optional_str("general.name").unwrap(), Some("whole"));
            assert_eq!(gguf.tensors().len(), 3);
            for (name, value) in [("a", 1.0_f32), ("b", 2.0), ("c", 3.0)] {
                let info = gguf.required_tensor(name).unwrap();
                let expected = value.to_le_bytes().repeat(8);
                assert_eq!(gguf.tensor_bytes(info).unwrap(), expected, "{name}");
                assert_eq!(&*gguf.tensor_data(info).unwrap(), expected, "{name}");
            }
        }
    }
}

#[test]
fn one_part_or_none_is_an_ordinary_file() {
    for count in [None, Some(Value::U16(1)), Some(Value::U16(0))] {
        let mut part = parts()[1].clone();
        part.name = "model.gguf".to_owned();
        part.set("split.count", count);
        let (_folder, paths) = written(&[part]);
        assert_eq!(open(paths.first().unwrap()).unwrap().tensors().len(), 2);
    }
}

#[test]
fn a_part_in_memory_is_refused_and_a_whole_file_is_read() {
    let (_folder, paths) = written(&parts());
    let error = Gguf::from_bytes(Path::new("<memory>"), &std::fs::read(&paths[1]).unwrap()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::UnsupportedModel);
    mentions(&error, &["<memory>", "split.count", "3"]);

    let mut whole = parts()[1].clone();
    whole.set("split.count", None);
    let (_folder, paths) = written(&[whole]);
    let bytes = std::fs::read(&paths[0]).unwrap();
    let gguf = Gguf::from_bytes(Path::new("<memory>"), &bytes).unwrap();
    assert_eq!(gguf.tensors().len(), 2);
    assert_eq!(gguf.tensor_bytes(gguf.required_tensor("b").unwrap()).unwrap(), 2.0_f32.to_le_bytes().repeat(8));
}

#[test]
fn parts_that_were_cancelled_are_not_opened() {
    let (_folder, paths) = written(&parts());
    let cancel = CancelToken::new();
    cancel.cancel();
    for mmap in [true, false] {
        let error = Gguf::open(paths.first().unwrap(), mmap, &cancel).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
    }
}

#[test]
fn a_missing_part_is_named() {
    for missing in 0..3 {
        let (_folder, paths) = written(&parts());
        let gone = &paths[missing];
        std::fs::remove_file(gone).unwrap();
        for path in paths.iter().filter(|path| *path != gone) {
            let error = open(path).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::ModelNotFound);
            mentions(&error, &[gone.to_str().unwrap()]);
        }
    }
    let (_folder, paths) = written(&parts());
    std::fs::remove_file(&paths[0]).unwrap();
    std::fs::remove_file(&paths[2]).unwrap();
    mentions(&open(&paths[1]).err().unwrap(), &["00001-of-00003.gguf", "1"]);
}

#[test]
fn a_part_under_another_name_says_what_it_is() {
    let mut part = parts()[1].clone();
    for name in ["model.gguf", "model-2-of-3.gguf", "model-00004-of-00003.gguf"] {
        name.clone_into(&mut part.name);
        let (_folder, paths) = written(std::slice::from_ref(&part));
        let error = open(paths.first().unwrap()).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidModel);
        mentions(&error, &[name, "split.count", "-00001-of-00003.gguf"]);
    }
}

#[test]
fn numbers_that_contradict_the_names_are_refused() {
    let invalid = ErrorKind::InvalidModel;
    // Two parts that changed their names.
    refused(
        |parts| {
            let [_, second, third] = parts;
            std::mem::swap(&mut second.name, &mut third.name);
        },
        invalid,
        &["split.no", "00002-of-00003.gguf", "1", "2"],
    );
    refused(
        |parts| parts.iter_mut().for_each(|part| part.set("split.count", Some(Value::U16(4)))),
        invalid,
        &["split.count", "4", "3"],
    );
    refused(|parts| parts[2].set("split.no", None), invalid, &["00003-of", "split.no"]);
    for part in 0..3 {
        refused(
            |parts| parts[part].set("split.tensors.count", None),
            invalid,
            &["split.tensors.count", &format!("0000{}-of", part + 1)],
        );
    }
}

#[test]
fn wrong_counts_of_tensors_are_refused() {
    let invalid = ErrorKind::InvalidModel;
    let set = |count| move |part: &mut Part| part.set("split.tensors.count", Some(Value::I32(count)));
    refused(|parts| parts.iter_mut().for_each(set(4)), invalid, &["split.tensors.count", "4", "3"]);
    refused(|parts| parts.iter_mut().for_each(set(-1)), invalid, &["split.tensors.count", "-1"]);
    refused(
        |parts| set(7)(&mut parts[2]),
        invalid,
        &["split.tensors.count", "00001-of-00003.gguf", "00003-of-00003.gguf", "7", "3"],
    );
    refused(|parts| parts[2].tensors.clear(), invalid, &["split.tensors.count", "3", "2"]);
}

#[test]
fn parts_of_different_models_are_refused() {
    let invalid = ErrorKind::InvalidModel;
    refused(
        |parts| parts[1].set("general.name", Some(Value::String("other".to_owned()))),
        invalid,
        &["general.name", "\"other\"", "\"whole\"", "00002-of-00003.gguf", "00001-of-00003.gguf"],
    );
    refused(
        |parts| parts[2].tensors = vec![("b", 3.0)],
        invalid,
        &["tensor b", "00002-of-00003.gguf", "00003-of-00003.gguf"],
    );
    // A part that is an ordinary file: another model's, or one that was merged already. By its own name it opens.
    let mut parts = parts();
    parts[0].set("split.count", None);
    let (_folder, paths) = written(&parts);
    assert!(open(&paths[0]).is_ok());
    for path in &paths[1..] {
        mentions(&open(path).err().unwrap(), &["split.count", "00001-of-00003.gguf"]);
    }
}

#[test]
fn what_only_repeats_the_first_part_is_no_contradiction() {
    let mut parts = parts();
    parts[1].set("general.name", Some(Value::String("whole".to_owned())));
    parts[2].set("split.tensors.count", Some(Value::U64(3)));
    parts[2].set("general.alignment", Some(Value::U32(32)));
    parts[2].set("general.author", Some(Value::String("nobody".to_owned())));
    let (_folder, paths) = written(&parts);
    let gguf = open(&paths[2]).unwrap();
    assert_eq!(gguf.get("general.author"), None, "the first part's metadata counts");
}

#[test]
fn a_damaged_part_is_named() {
    let (_folder, paths) = written(&parts());
    let whole = std::fs::read(&paths[2]).unwrap();
    for damaged in [&whole[..whole.len() - 32], &whole[..20], b"no GGUF at all", b""] {
        std::fs::write(&paths[2], damaged).unwrap();
        for path in &paths {
            let error = open(path).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::InvalidModel);
            mentions(&error, &["00003-of-00003.gguf"]);
        }
    }
    std::fs::remove_file(&paths[2]).unwrap();
    std::fs::create_dir(&paths[2]).unwrap();
    let error = open(&paths[0]).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidModel);
    mentions(&error, &["00003-of-00003.gguf"]);
}
