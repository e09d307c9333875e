"""What the engine logs reaches Python's `logging`, and is silent unless it is asked for."""

import logging
import subprocess
import sys

import pytest

from candle_phi import Phi3Model, Phi3Session

pytestmark = pytest.mark.thread_unsafe(reason="loggers are the process's")


def test_a_record_has_the_room_of_the_engine_as_its_logger(caplog):
    with caplog.at_level(logging.DEBUG, logger="candle_phi"):
        Phi3Model.demo()
    (loaded,) = (record for record in caplog.records if "model loaded" in record.getMessage())
    assert (loaded.name, loaded.levelno) == ("candle_phi.loader", logging.INFO)
    assert "candle-phi-demo.gguf" in loaded.getMessage()


def test_a_generation_is_told_of_at_the_level_debug(session, caplog):
    with caplog.at_level(logging.DEBUG, logger="candle_phi.session"):
        session.generate("Hello", max_tokens=3, ignore_eos=True)
    (ended,) = (record for record in caplog.records if "generation ended" in record.getMessage())
    assert (ended.name, ended.levelno) == ("candle_phi.session", logging.DEBUG)
    assert "completion_tokens=3" in ended.getMessage()
    assert " finish_reason=length " in ended.getMessage()


def test_a_part_of_the_package_can_be_listened_to_alone(session, caplog):
    with caplog.at_level(logging.INFO, logger="candle_phi"):
        session.generate("Hello", max_tokens=1)
    assert not [record for record in caplog.records if record.levelno < logging.INFO]


def test_nothing_is_printed_where_nobody_set_logging_up():
    script = """
import logging
from candle_phi import Phi3Model, Phi3Session
assert any(isinstance(handler, logging.NullHandler) for handler in logging.getLogger("candle_phi").handlers)
logging.getLogger("candle_phi").setLevel(logging.DEBUG)
with Phi3Session.demo() as session:
    session.generate("Hello", max_tokens=1)
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_what_happens_on_another_thread_is_logged_too(model, caplog):
    import threading

    def work():
        with Phi3Session(model=model) as session:
            session.generate("Hello", max_tokens=1)

    with caplog.at_level(logging.DEBUG, logger="candle_phi"):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert any("generation ended" in record.getMessage() for record in caplog.records)
