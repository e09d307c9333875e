"""`candle-phi doctor` says what is there, and finds what does not work."""

import dataclasses
import json
import os
import subprocess
import sys
from types import SimpleNamespace

from typer.testing import CliRunner

from candle_phi import Phi3Model, Phi3Session, doctor
from candle_phi.cli import doctor as command
from candle_phi.cli.app import app
from candle_phi.doctor import diagnose
from messages import mentions


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "candle_phi", "doctor", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "COLUMNS": "200", **environment},
    )


def test_a_machine_that_works_is_well(tmp_path):
    done = run("--json", HF_HUB_CACHE=str(tmp_path), HF_TOKEN="secret", CANDLE_PHI_ISA="scalar")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["agrees"] is True
    assert found["problems"] == []
    assert found["isa"] == "scalar"
    assert found["tokens_per_second"] > 0
    assert found["cached_models"] == 0
    assert found["environment"]["CANDLE_PHI_ISA"] == "scalar"
    assert "secret" not in done.stdout
    devices = {device["name"]: device for device in found["devices"]}
    assert devices["cpu"] == {"name": "cpu", "available": True, "reason": None}
    assert all(device["reason"] for device in devices.values() if not device["available"])
    assert devices[found["device"].split(":")[0]]["available"]
    assert found["device_reason"]


def test_people_get_a_table():
    done = run()
    assert done.returncode == 0
    for expected in ("candle-phi", "processor", "cpu", "cuda", "metal", "auto", "cache", "self-test", "tokens/s"):
        assert expected in done.stdout


def test_the_levels_are_those_of_a_session():
    found = diagnose(seconds=0)
    with Phi3Session.demo() as session:
        assert (found.isa, found.n_threads) == (session.isa, session.n_threads)


def test_a_gpu_that_computes_something_else_is_found(monkeypatch):
    """The embedded model on the CPU stands for the GPU, and says something else."""
    demo, chat = Phi3Model.demo, Phi3Session.chat
    gpus = []

    def on_gpu(**options):
        if options.get("device") != "cuda:0":
            return demo(**options)
        gpus.append(demo(**{**options, "device": "cpu"}))
        return gpus[-1]

    def wrong(session, *arguments, **options):
        completion = chat(session, *arguments, **options)
        if session.model not in gpus:
            return completion
        return dataclasses.replace(completion, tokens=[*completion.tokens[:-1], 0])

    monkeypatch.setattr(doctor, "_native", SimpleNamespace(choose_device=lambda name: ("cuda:0", "a GPU")))
    monkeypatch.setattr(Phi3Model, "demo", on_gpu)
    assert diagnose(seconds=0).agrees is True
    monkeypatch.setattr(Phi3Session, "chat", wrong)
    found = diagnose(seconds=0)
    assert (found.device, found.device_reason, found.agrees) == ("cuda:0", "a GPU", False)
    assert len(found.problems) == 1
    mentions(found.problems[0], "cuda:0")


def test_kernels_that_compute_something_else_are_found(monkeypatch):
    chat = Phi3Session.chat

    def wrong(session, *arguments, **options):
        completion = chat(session, *arguments, **options)
        if session.model.executor != "kernels":
            return completion
        return dataclasses.replace(completion, tokens=[*completion.tokens[:-1], 0])

    monkeypatch.setattr(Phi3Session, "chat", wrong)
    found = diagnose(seconds=0)
    assert found.agrees is False
    (problem,) = found.problems
    mentions(problem, "kernels")
    monkeypatch.setattr(command, "diagnose", lambda: found)
    outcome = CliRunner().invoke(app, ["doctor"])
    assert outcome.exit_code == 1
    assert outcome.stderr == f"error: {problem}\n"
    assert "FAILED" in outcome.stdout
