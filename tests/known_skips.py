"""The skips that a complete run may have, and why: `pytest --known-skips-only` fails on any other.

Everything else that tests need is installed by `.ci/run`, so a new skip there is a check that was lost.
"""

import re

import pytest

ALLOWED = {
    r"\bcuda\.py": "needs a build for CUDA and a GPU",
    r"test_llama_cpp\.py": "needs llama-cpp-python, which compiles llama.cpp",
    r"cargo has not the sources of candle-flash-attn": "only a build for CUDA downloads these sources",
    r"this machine has it": "the instruction set that the test needs to be absent is there",
}
"""Regular expressions for the file and the reason of a skip."""


class KnownSkipsOnly:
    """Fail the run if a test was skipped for another reason."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    def unknown(self) -> list[str]:
        """The places and reasons of skips that are not allowed."""
        reporter = self.config.pluginmanager.getplugin("terminalreporter")
        reports = [] if reporter is None else reporter.stats.get("skipped", [])
        skips = {f"{path}:{line}: {reason}" for path, line, reason in (report.longrepr for report in reports)}
        return sorted(skip for skip in skips if not any(re.search(allowed, skip) for allowed in ALLOWED))

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.unknown() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for skip in self.unknown():
            terminalreporter.write_line(f"error: skipped, but not in tests/known_skips.py: {skip}", red=True)
