"""What shells offer behind `candle-phi`, asked of the shells themselves, with the script that they are given."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import candle_phi
from command_line import cached
from terminal import started

BIN = Path(sys.executable).parent
NAMES = [model.name for model in candle_phi.named_models()]

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="these shells are not those of Windows"),
    pytest.mark.thread_unsafe(reason="the command line is run on the streams of the process"),
]


def needs(shell: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"there is no {shell} here")


def environment(tmp_path: Path) -> dict[str, str]:
    """A home of its own, and `candle-phi` on the path."""
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "HOME": str(tmp_path), "HF_HUB_CACHE": str(tmp_path / "hub")}


def in_bash(tmp_path: Path, words: list[str]) -> set[str]:
    """What bash offers for the last of the words."""
    script = """
        eval "$(candle-phi --show-completion bash)"
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        complete -p candle-phi | grep -q -- "-o default" || exit 3
        _candle_phi_completion candle-phi
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    command = ["bash", "--norc", "-c", script, "bash", *words]
    ran = subprocess.run(
        command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, check=True
    )
    assert ran.stderr == ""
    return set(ran.stdout.split())


@needs("bash")
class TestBash:
    @pytest.mark.parametrize(
        ("words", "offered"),
        [
            (["ch"], ["chat"]),
            (["generate", "--te"], ["--temperature"]),
            (["generate", "--name", "phi-3"], ["phi-3-mini-4k", "phi-3.5-mini"]),
            (["chat", "--name", ""], [*NAMES, "somebody/Some-GGUF"]),
            (["download", ""], [*NAMES, "somebody/Some-GGUF"]),
            (["models", "rem"], ["remove"]),
            (["models", "remove", ""], ["phi-4", "somebody/Some-GGUF"]),
            (["generate", "--kv-dtype", ""], ["f16", "f32", "q8_0"]),
            (["generate", "--executor", "k"], ["kernels"]),
            (["generate", "--device", "c"], ["cpu", "cuda"]),
            (["generate", "--name", "phi-3-mini-4k", "--quantization", ""], ["Q4_K_M", "F16"]),
            (["generate", "--name", "somebody/Some-GGUF", "--file", ""], ["some-q4.gguf"]),
            # Nothing: the shell offers its files.
            (["generate", "--model", ""], []),
            (["info", ""], []),
        ],
    )
    def test_offers(self, tmp_path, words, offered):
        cached(tmp_path / "hub", "microsoft/phi-4-gguf", "phi-4-q4.gguf")
        cached(tmp_path / "hub", "somebody/Some-GGUF", "some-q4.gguf")
        assert in_bash(tmp_path, ["candle-phi", *words]) == set(offered)

    def test_a_cache_that_cannot_be_read_offers_nothing_and_says_nothing(self, tmp_path):
        (tmp_path / "hub").write_text("a file, and no folder")
        assert in_bash(tmp_path, ["candle-phi", "models", "remove", ""]) == set()


@needs("fish")
def test_fish_offers_values_and_files(tmp_path):
    def offered(line):
        script = f"candle-phi --show-completion fish | source; complete -C '{line}'"
        ran = subprocess.run(
            ["fish", "--no-config", "-c", script],
            cwd=tmp_path,
            env=environment(tmp_path),
            capture_output=True,
            text=True,
            check=True,
        )
        assert ran.stderr == ""
        return {row.split("\t")[0] for row in ran.stdout.splitlines()}

    (tmp_path / "some-model.gguf").write_text("")
    assert offered("candle-phi do") == {"download", "doctor"}
    assert offered("candle-phi generate --name ph") == set(NAMES)
    assert "some-model.gguf" in offered("candle-phi info some")


@needs("zsh")
def test_zsh_completes_names_and_files(tmp_path):
    (tmp_path / "some-model.gguf").write_text("")
    (tmp_path / ".zshrc").write_text(
        f"cd {tmp_path}\nPS1='ready> '\nunsetopt zle_bracketed_paste\nautoload -Uz compinit && compinit -u\n"
        'eval "$(candle-phi --show-completion zsh)"\n'
    )
    own = {key: value for key, value in environment(tmp_path).items() if key in {"PATH", "HF_HUB_CACHE"}}
    with started(home=tmp_path, command=("/usr/bin/env", "zsh", "-i"), **own, TERM="dumb") as shell:
        shell.until("ready> ")
        for typed, completed in (
            ("candle-phi gene\t", "generate"),
            ("--name phi-3-\t", "phi-3-mini-4k"),
            ("--kv-dtype q\t", "q8_0"),
            ("--model some\t", "some-model.gguf"),
        ):
            shell.type(typed)
            shell.until(completed)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@needs("bash")
def test_installing_puts_the_script_where_the_shell_reads_it(tmp_path, shell):
    ran = subprocess.run(
        ["candle-phi", "--install-completion", shell],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=True,
    )
    places = {
        "bash": ".bash_completions/candle-phi.sh",
        "zsh": ".zfunc/_candle-phi",
        "fish": ".config/fish/completions/candle-phi.fish",
    }
    assert "candle-phi" in (tmp_path / places[shell]).read_text()
    assert str(tmp_path / places[shell]) in ran.stdout


# What tells one shell's script from another's.
SCRIPTS = {
    "bash": "complete -o default -F",
    "zsh": "#compdef candle-phi",
    "fish": "complete --command candle-phi",
    "powershell": "Register-ArgumentCompleter",
    "pwsh": "Register-ArgumentCompleter",
}


def asked(tmp_path: Path, shell: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What `candle-phi` says to a shell that calls it."""
    command = [shell, "-c", 'candle-phi "$@"; exit $?', shell, *arguments]
    return subprocess.run(command, env=environment(tmp_path), capture_output=True, text=True, check=False)


@needs("bash")
@pytest.mark.parametrize("shell", SCRIPTS)
def test_another_shell_is_named(tmp_path, shell):
    for arguments in (["--show-completion", shell], [f"--show-completion={shell}"]):
        ran = asked(tmp_path, "bash", *arguments)
        assert (ran.returncode, ran.stderr) == (0, "")
        assert SCRIPTS[shell] in ran.stdout
        assert sum(words in ran.stdout for words in set(SCRIPTS.values())) == 1


@pytest.mark.parametrize("shell", [pytest.param(shell, marks=needs(shell)) for shell in ("bash", "zsh")])
def test_without_a_name_it_is_the_shell_that_it_is_called_from(tmp_path, shell):
    for arguments in (["--show-completion"], ["--show-completion", "--debug"]):
        assert SCRIPTS[shell] in asked(tmp_path, shell, *arguments).stdout
    assert f"{shell} completion installed" in asked(tmp_path, shell, "--install-completion").stdout


@needs("bash")
@pytest.mark.parametrize("option", ["--show-completion", "--install-completion"])
@pytest.mark.parametrize("shell", ["tcsh", "foo", ""])
def test_a_shell_that_is_not_known_is_an_error_and_writes_nothing(tmp_path, option, shell):
    ran = asked(tmp_path, "bash", option, shell)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert all(f"'{known}'" in ran.stderr for known in SCRIPTS)
    assert list(tmp_path.iterdir()) == []
