//! The C programs of `tests/c` and `examples`: compiled with every warning an error, linked with either library, and run. Under
//! valgrind too where that is asked for: `make test-capi`.
#![cfg(all(unix, feature = "demo"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops where it is wrong")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// No warning passes, and no extension of the compiler.
const STRICT: [&str; 5] = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-g"];

#[derive(Clone, Copy)]
enum Library {
    Static,
    Shared,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn demo() -> PathBuf {
    root().join("../../python/candle_phi/demo/candle-phi-demo.gguf")
}

/// Where Cargo has put what it built for this test: the libraries are beside it.
fn built() -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().to_owned()
}

fn run(command: &mut Command) -> Output {
    let ran = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{command:?}: {}\n{out}\n{err}", ran.status);
    ran
}

/// A program of `source`, which is a path in this crate.
fn compile(source: &str, library: Library, folder: &Path) -> PathBuf {
    let program = folder.join("program");
    let mut cc = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()));
    cc.args(STRICT).args(["-std=c11", "-O1", "-o"]).arg(&program).arg(root().join(source));
    cc.arg("-I").arg(root().join("include"));
    match library {
        Library::Static => cc.arg(built().join("libcandle_phi.a")),
        Library::Shared => {
            let mut rpath = std::ffi::OsString::from("-Wl,-rpath,");
            rpath.push(built());
            cc.arg("-L").arg(built()).args(["-lcandle_phi"]).arg(rpath)
        }
    };
    run(cc.args(["-lpthread", "-ldl", "-lm"]));
    program
}

/// What a program prints; it has nothing to say on stderr but what the example says there itself.
fn prints(source: &str, library: Library, valgrind: bool) -> String {
    let folder = tempfile::tempdir().unwrap();
    let program = compile(source, library, folder.path());
    let mut command = if valgrind {
        let mut command = Command::new("valgrind");
        command.args(["--quiet", "--error-exitcode=9", "--leak-check=full"]);
        // What Rayon's threads hold when the process ends is "possibly" lost: they are never joined.
        command.args(["--show-leak-kinds=definite", "--errors-for-leak-kinds=definite"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    // Cargo's own would be looked at before the folder that was linked against.
    command.env_remove("LD_LIBRARY_PATH");
    if source.starts_with("tests/") {
        command.arg(demo()).arg(folder.path());
    }
    String::from_utf8(run(&mut command).stdout).unwrap()
}

fn every_program_does_what_it_should(valgrind: bool) {
    let library = Library::Shared;
    for name in ["behaviour", "attack", "threads"] {
        assert_eq!(prints(&format!("tests/c/{name}.c"), library, valgrind), format!("{name}: ok\n"));
    }
    let chat = prints("examples/chat.c", library, valgrind);
    let (haiku, count) = chat.trim_end().split_once("\n\n").unwrap();
    assert!(haiku.lines().count() > 1, "{chat}");
    assert_eq!(count, "3, 4, 5, 6, 7");
    assert_eq!(prints("examples/app.c", library, valgrind), "3, 4, 5, 6, 7\n");
}

/// One program: linking a hundred megabytes takes longer than all of them.
#[test]
fn the_static_library_does_what_the_header_says() {
    assert_eq!(prints("tests/c/behaviour.c", Library::Static, false), "behaviour: ok\n");
}

#[test]
fn the_shared_library_does_what_the_header_says() {
    every_program_does_what_it_should(false);
}

#[test]
#[ignore = "takes valgrind, and a minute: make test-capi"]
fn nothing_is_lost_or_read_out_of_bounds() {
    every_program_does_what_it_should(true);
}

#[test]
fn the_example_takes_a_model_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let chat = compile("examples/chat.c", Library::Shared, folder.path());
    let program = || {
        let mut command = Command::new(&chat);
        command.env_remove("LD_LIBRARY_PATH");
        command
    };
    let with_path = run(program().arg(demo()));
    assert_eq!(with_path.stdout, run(&mut program()).stdout);
    let refused = program().arg("missing.gguf").output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(said.starts_with("loading: error 2: ") && said.contains("missing.gguf"), "{said}");
}

#[test]
fn the_header_is_plain_c_and_plain_cpp() {
    let header = root().join("include/candle_phi.h");
    for (compiler, language, standard) in [("cc", "c", "-std=c99"), ("c++", "c++", "-std=c++11")] {
        run(Command::new(compiler).args(STRICT).args(["-fsyntax-only", "-x", language, standard]).arg(&header));
    }
}
