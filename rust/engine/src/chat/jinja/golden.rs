//! What Python's Jinja renders (`tools/make_jinja_golden.py`), rendered here.

use std::path::Path;

use serde_json::Value;

use super::{Clock, Jinja};
use crate::Result;

fn golden() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/jinja/golden.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn render(golden: &Value, template: &str) -> Result<String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let messages: Vec<(String, String)> = golden["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| (text(&message["role"]), text(&message["content"])))
        .collect();
    let pairs: Vec<(&str, &str)> = messages.iter().map(|(role, content)| (&**role, &**content)).collect();
    Jinja::compile(template, "<s>", "</s>", "use a raw prompt")?.render(&pairs, true, &Clock::default())
}

#[test]
fn templates_render_as_python_renders_them() {
    let golden = golden();
    let mut wrong = Vec::new();
    for case in golden["cases"].as_array().unwrap() {
        let template = case["template"].as_str().unwrap();
        let rendered = render(&golden, template);
        let is_right = match (&rendered, case["rendered"].as_str()) {
            (Ok(rendered), Some(expected)) => rendered == expected,
            (rendered, expected) => rendered.is_err() == expected.is_none(),
        };
        if !is_right {
            wrong.push(format!("{template:?} renders {rendered:?}, Python {}", case["rendered"]));
        }
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn parts_of_jinja_that_are_not_supported_are_errors_that_name_them() {
    let golden = golden();
    for case in golden["refused"].as_array().unwrap() {
        let (template, name) = (case["template"].as_str().unwrap(), case["names"].as_str().unwrap());
        let error = render(&golden, template).unwrap_err();
        assert!(error.to_string().contains(name), "{template:?}: {error}");
    }
}
