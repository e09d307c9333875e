//! The page of the options is what the table says. `CANDLE_PHI_WRITE_OPTIONS=1` writes it anew, as `make options-table` does.
#![allow(clippy::unwrap_used, reason = "a test stops where it is wrong")]

use std::fmt::Write as _;
use std::path::Path;

use candle_phi_engine::options::{DefaultValue, Interface, Kind, OPTIONS, OptionSpec, Scope, range};

const BEGIN: &str = "<!-- Generated from rust/engine/src/options.rs by `make options-table`. -->\n";
const END: &str = "<!-- The end of what is generated. -->\n";

fn values(kind: Kind) -> String {
    match kind {
        Kind::Int { .. } => format!("an integer, {}", range(kind)),
        Kind::Float { max: f64::INFINITY, .. } => range(kind),
        Kind::Float { .. } => format!("a number {}", range(kind)),
        Kind::Bool => "true or false".to_owned(),
        Kind::Text => "a text".to_owned(),
        Kind::Choice(choices) => {
            choices.iter().map(|choice| format!("`\"{choice}\"`")).collect::<Vec<_>>().join(", ")
        }
        Kind::Texts => "a text, or several".to_owned(),
        Kind::TokenIds => "token ids".to_owned(),
        Kind::Biases { .. } => format!("numbers by token id, {}", range(kind)),
        Kind::Path => "a path".to_owned(),
        Kind::Function => "a function".to_owned(),
        Kind::BoolOrFunction => "true or false, or a function that is told about the progress".to_owned(),
    }
}

fn default(value: DefaultValue) -> String {
    match value {
        DefaultValue::Unset(meaning) => meaning.to_owned(),
        DefaultValue::Empty => "none".to_owned(),
        DefaultValue::Int(number) => number.to_string(),
        DefaultValue::Float(number) => format!("{number:?}"),
        DefaultValue::Bool(value) => value.to_string(),
        DefaultValue::Text(text) => format!("`\"{text}\"`"),
    }
}

fn interfaces(option: &OptionSpec) -> String {
    let names = option.interfaces.iter().map(|interface| match interface {
        Interface::Python => "Python".to_owned(),
        Interface::Cli => format!("`--{}`", option.name.replace('_', "-")),
        Interface::Set => "`/set`".to_owned(),
        Interface::C => "C".to_owned(),
    });
    names.collect::<Vec<_>>().join(", ")
}

fn tables() -> String {
    let mut page = String::new();
    for (scope, heading) in
        [(Scope::Generation, "Generation"), (Scope::Session, "Sessions"), (Scope::Loading, "Loading a model")]
    {
        writeln!(page, "\n### {heading}\n").unwrap();
        page.push_str("| option | values | default | what it does | where |\n| --- | --- | --- | --- | --- |\n");
        for option in OPTIONS.iter().filter(|option| option.scope == scope) {
            let note = option.note.map_or_else(String::new, |note| format!("; {note}"));
            let (values, default) = (values(option.kind), default(option.default));
            let (name, help, places) = (option.name, option.help, interfaces(option));
            writeln!(page, "| `{name}` | {values}{note} | {default} | {help} | {places} |").unwrap();
        }
    }
    page.push('\n');
    page
}

#[test]
fn the_page_has_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/options.md");
    // The crate alone comes without the pages.
    let Ok(kept) = std::fs::read_to_string(&path) else { return };
    let (before, rest) = kept.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let written = format!("{before}{BEGIN}{}{END}{after}", tables());
    if std::env::var_os("CANDLE_PHI_WRITE_OPTIONS").is_some() {
        std::fs::write(&path, &written).unwrap();
        return;
    }
    assert!(kept == written, "docs/reference/options.md is not what the table says; run: make options-table");
}
