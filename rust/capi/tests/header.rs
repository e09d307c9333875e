//! The header is what the sources say. `CANDLE_PHI_WRITE_HEADER=1` writes it anew, as `make capi-header` does.
#![allow(clippy::unwrap_used, reason = "a test stops where it is wrong")]

use std::path::Path;

use cbindgen::{Builder, Config};

/// In the order in which the header is read.
const SOURCES: [&str; 8] = [
    "version.rs",
    "status.rs",
    "text.rs",
    "cancel.rs",
    "model.rs",
    "session.rs",
    "generation.rs",
    "completion.rs",
];

fn written() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let builder = Builder::new().with_config(Config::from_file(root.join("cbindgen.toml")).unwrap());
    let builder = SOURCES.iter().fold(builder, |builder, file| builder.with_src(root.join("src").join(file)));
    let mut bytes = Vec::new();
    builder.generate().unwrap().write(&mut bytes);
    String::from_utf8(bytes).unwrap()
}

#[test]
fn the_header_is_what_the_sources_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/candle_phi.h");
    let written = written();
    if std::env::var_os("CANDLE_PHI_WRITE_HEADER").is_some() {
        std::fs::write(&path, &written).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let first = kept.lines().zip(written.lines()).position(|(kept, written)| kept != written);
    let line = first.unwrap_or_else(|| kept.lines().count().min(written.lines().count()));
    assert!(
        kept == written,
        "{} is not what the sources say, from line {} on; make capi-header writes it anew. It has\n{}\nexpected\n{}",
        path.display(),
        line + 1,
        kept.lines().nth(line).unwrap_or_default(),
        written.lines().nth(line).unwrap_or_default(),
    );
}
