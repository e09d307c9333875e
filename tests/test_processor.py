"""A processor that lacks what a build needs gets an exception that says so, before compiled code runs."""

import os
import platform
import struct
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

from candle_phi import _native, _processor

AT_NULL, AT_PAGESZ, AT_HWCAP = 0, 6, 16
FP, ASIMD, FPHP, ASIMDHP = 1 << 0, 1 << 1, 1 << 9, 1 << 10
CORTEX_A72 = FP | ASIMD
CORTEX_A76 = FP | ASIMD | FPHP | ASIMDHP
ROOT = Path(__file__).parents[1]


def auxiliary_vector(hwcap: int | None) -> bytes:
    pairs = [(AT_PAGESZ, 4096), *([] if hwcap is None else [(AT_HWCAP, hwcap)]), (AT_NULL, 0)]
    return b"".join(struct.pack("=QQ", *pair) for pair in pairs)


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Makes this machine look like a 64-bit ARM one with Linux."""

    def pretend(hwcap: int | None, build: bytes = b"\x7fELF ... candle-phi build: needs fp16 ...") -> None:
        vector, module = tmp_path / "auxv", tmp_path / "_native.so"
        vector.write_bytes(auxiliary_vector(hwcap))
        module.write_bytes(build)
        monkeypatch.setattr(sys, "platform", "linux")
        monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine="aarch64"), raising=False)
        monkeypatch.setattr(_processor, "_AUXILIARY_VECTOR", vector)
        monkeypatch.setattr(_processor, "_compiled_part", lambda: module)

    return pretend


def test_a_processor_without_half_precision_is_an_import_error_that_names_the_remedy(machine):
    machine(CORTEX_A72)
    with pytest.raises(ImportError, match="FEAT_FP16") as raised:
        _processor.check()
    assert raised.value.name == "candle_phi"
    assert 'RUSTFLAGS="" pip install --no-binary candle-phi candle-phi' in str(raised.value)


@pytest.mark.parametrize("hwcap", [CORTEX_A72 | FPHP, CORTEX_A72 | ASIMDHP])
def test_half_of_half_precision_is_not_enough(machine, hwcap):
    machine(hwcap)
    with pytest.raises(ImportError):
        _processor.check()


def test_a_processor_with_half_precision_is_let_through(machine):
    machine(CORTEX_A76)
    _processor.check()


def test_a_build_that_needs_nothing_runs_on_any_processor(machine):
    machine(CORTEX_A72, build=b"\x7fELF ... candle-phi build: needs nothing ...")
    _processor.check()


@pytest.mark.parametrize("what", ["no such entry", "no such file", "a torn file"])
def test_a_system_that_does_not_tell_is_let_through(machine, what):
    machine(None if what == "no such entry" else CORTEX_A72)
    if what == "no such file":
        _processor._AUXILIARY_VECTOR.unlink()
    elif what == "a torn file":
        _processor._AUXILIARY_VECTOR.write_bytes(b"torn")
    _processor.check()


@pytest.mark.parametrize(("platform", "kind"), [("linux", "x86_64"), ("darwin", "arm64"), ("linux", "armv7l")])
def test_other_machines_are_not_looked_at(machine, monkeypatch, platform, kind):
    machine(CORTEX_A72)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=kind), raising=False)
    _processor.check()


@pytest.mark.skipif(sys.platform == "win32", reason="the pretended machine has os.uname")
def test_importing_the_package_fails_before_the_compiled_part_is_loaded():
    program = f"""
        import os, pathlib, sys, types
        real = pathlib.Path.read_bytes
        def read_bytes(path):
            if path.name == "auxv":
                return {auxiliary_vector(CORTEX_A72)!r}
            if path.name.startswith("_native"):
                return b"candle-phi build: needs fp16"
            return real(path)
        pathlib.Path.read_bytes = read_bytes
        os.uname = lambda: types.SimpleNamespace(machine="aarch64")
        sys.platform = "linux"
        try:
            import candle_phi
        except ImportError as error:
            print(error)
        print(sorted(name for name in sys.modules if name.startswith("candle_phi")))
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True
    )
    assert "FEAT_FP16" in ran.stdout
    assert "candle_phi._native" not in ran.stdout.splitlines()[-1]


def test_the_build_says_what_it_needs_in_its_own_bytes():
    module = Path(_native.__file__).read_bytes()
    assert _native.__build__.encode() in module
    assert (_processor._NEEDS_FP16 in module) == (_native.__build__.encode() == _processor._NEEDS_FP16)


def test_a_build_for_arm_was_made_with_half_precision():
    """Fails where RUSTFLAGS hid .cargo/config.toml, unless this is a processor for which that is right."""
    arm = platform.machine().lower() in {"aarch64", "arm64"}
    if arm and _processor._AUXILIARY_VECTOR.exists():
        arm = _processor._has_fp16(_processor._hwcap(_processor._AUXILIARY_VECTOR.read_bytes()) or 0)
    assert _native.__build__ == f"candle-phi build: needs {'fp16' if arm else 'nothing'}"


CONFIG = ROOT / ".cargo" / "config.toml"
TARGETS = tomllib.loads(CONFIG.read_text())["target"] if CONFIG.exists() else {}


def test_every_arm_system_that_is_built_for_has_flags():
    if not TARGETS:
        pytest.skip(".cargo/ is not beside the tests")
    systems = {"apple-darwin", "linux-android", "pc-windows-msvc", "unknown-linux-gnu", "unknown-linux-musl"}
    assert {name.removeprefix("aarch64-") for name in TARGETS if name.startswith("aarch64-")} == systems


@pytest.mark.parametrize("target", [name for name in TARGETS if name.startswith("aarch64-")])
def test_the_compiler_takes_the_flags_of_an_arm_target_as_half_precision(target):
    try:
        ran = subprocess.run(
            ["rustc", "--print", "cfg", "--target", target, *TARGETS[target]["rustflags"]],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except FileNotFoundError:
        pytest.skip("no rustc here")
    assert 'target_feature="fp16"' in ran.stdout.splitlines()
