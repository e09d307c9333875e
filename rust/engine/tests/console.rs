//! The tutorial's console program: what it prints, how it ends, and that `cargo run` finds it.
#![allow(clippy::unwrap_used, reason = "a test stops where it is wrong")]

use std::path::Path;
use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ice_hockey_haiku")).args(arguments).output().unwrap()
}

#[test]
fn the_embedded_model_answers() {
    let ran = run(&["--demo"]);
    assert!(ran.status.success(), "{ran:?}");
    assert!(!String::from_utf8(ran.stdout).unwrap().trim().is_empty());
    assert!(ran.stderr.is_empty());
}

#[test]
fn an_error_is_one_line_on_stderr_with_exit_code_1() {
    for arguments in [&["--model", "missing.gguf"][..], &["--unknown"][..]] {
        let ran = run(arguments);
        let stderr = String::from_utf8(ran.stderr).unwrap();
        assert_eq!(ran.status.code(), Some(1), "{stderr}");
        assert!(stderr.starts_with("error: ") && stderr.lines().count() == 1, "{stderr}");
        // The structure of the error, which `main` prints of a `Result`, is not for people.
        assert!(!stderr.contains("ModelNotFound"), "{stderr}");
        assert!(ran.stdout.is_empty());
    }
}

/// `cargo run` takes the one program of the default members.
#[test]
fn cargo_run_needs_no_name() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let ran = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root)
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    let members = metadata["workspace_default_members"].as_array().unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let targets = packages
        .iter()
        .filter(|package| members.contains(&package["id"]))
        .flat_map(|package| package["targets"].as_array().unwrap());
    let programs: Vec<&str> = targets
        .filter(|target| target["kind"] == serde_json::json!(["bin"]))
        .map(|target| target["name"].as_str().unwrap())
        .collect();
    assert_eq!(programs, ["ice_hockey_haiku"]);
}
