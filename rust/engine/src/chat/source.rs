//! Where a model's own chat template stands.

use std::path::Path;

use serde_json::Value;

use crate::file::read_regular;
use crate::gguf::Gguf;
use crate::{Error, Result};

const MAX_BYTES: u64 = 16 << 20;
const KEY: &str = "tokenizer.chat_template";

/// A template's text, and where it is from.
pub(super) struct Source {
    pub(super) text: String,
    pub(super) place: String,
}

/// The template beside a tokenizer.json, or else the one in the GGUF file.
pub(super) fn find(gguf: &Gguf, tokenizer_json: Option<&Path>) -> Result<Option<Source>> {
    if let Some(path) = tokenizer_json
        && let Some(source) = beside(path)?
    {
        return Ok(Some(source));
    }
    let place = || format!("{}: metadata key {KEY}", gguf.path().display());
    Ok(gguf.optional_str(KEY)?.map(|text| Source { text: text.to_owned(), place: place() }))
}

/// A chat_template.jinja, or what the tokenizer_config.json says: a text, or a list of named texts.
fn beside(tokenizer_json: &Path) -> Result<Option<Source>> {
    let path = tokenizer_json.with_file_name("chat_template.jinja");
    if let Some(bytes) = read_regular(&path, "a chat template", MAX_BYTES)? {
        let text = String::from_utf8(bytes).map_err(|error| {
            Error::invalid_model(format!("{} must be UTF-8: {error}; save it as UTF-8", path.display()))
        })?;
        return Ok(Some(Source { text, place: path.display().to_string() }));
    }
    let path = tokenizer_json.with_file_name("tokenizer_config.json");
    let Some(bytes) = read_regular(&path, "a tokenizer_config.json", MAX_BYTES)? else { return Ok(None) };
    let config: Value = serde_json::from_slice(&bytes).map_err(|error| {
        let message = format!("{} must be JSON: {error}; download it again", path.display());
        Error::invalid_model(message).with_source(error)
    })?;
    let text = match config.get("chat_template") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => Some(text.as_str()),
        Some(Value::Array(templates)) => {
            let is_default = |template: &&Value| template.get("name").and_then(Value::as_str) == Some("default");
            templates.iter().find(is_default).and_then(|template| template.get("template")?.as_str())
        }
        Some(_) => None,
    };
    match text {
        Some(text) => Ok(Some(Source { text: text.to_owned(), place: path.display().to_string() })),
        None => Err(Error::invalid_model(format!(
            "{}: chat_template must be a text, or a list with a template named \"default\"; download the file again",
            path.display()
        ))),
    }
}
