"""The FastAPI app of the guide, called as a server calls it."""

import asyncio
import importlib.util
import json

import pytest

from doc_pages import ROOT, blocks

APP = ROOT / "examples" / "fastapi_app.py"
GUIDE = ROOT / "docs" / "guides" / "serve-http.md"

pytest.importorskip("fastapi")

COUNT = {"messages": [{"role": "user", "content": "Count from 3 to 7"}], "temperature": 0}


@pytest.fixture
def program(monkeypatch):
    """A module of its own for each test, since its semaphore belongs to one event loop."""
    monkeypatch.delenv("MODEL", raising=False)
    spec = importlib.util.spec_from_file_location("fastapi_app", APP)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def post(program, body, *, leaves_after=None):
    """Sends a request and returns the status and the pieces of the answer.

    The client disconnects after the given number of pieces.
    """
    status, pieces = None, []
    left = asyncio.Event()
    requests = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]

    async def receive():
        if requests:
            return requests.pop()
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        elif message["body"]:
            pieces.append(message["body"].decode())
            if len(pieces) == leaves_after:
                left.set()
                await asyncio.sleep(0)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "path": "/v1/chat/completions",
        "raw_path": b"/v1/chat/completions",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }
    asyncio.run(program.app(scope, receive, send))
    return status, pieces


def test_an_answer_has_openais_shape(program):
    status, [body] = post(program, COUNT)
    answer = json.loads(body)
    assert status == 200
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "3, 4, 5, 6, 7"}
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"] == {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}


def test_max_tokens_is_passed_on(program):
    _, [body] = post(program, {**COUNT, "max_tokens": 2})
    answer = json.loads(body)
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 2


def test_a_stream_ends_with_its_reason_and_done(program):
    status, pieces = post(program, {**COUNT, "stream": True})
    assert status == 200
    assert all(piece.startswith("data: ") and piece.endswith("\n\n") for piece in pieces)
    *events, done = [piece.removeprefix("data: ").strip() for piece in pieces]
    assert done == "[DONE]"
    *chunks, last = [json.loads(event)["choices"][0] for event in events]
    assert "".join(chunk["delta"]["content"] for chunk in chunks) == "3, 4, 5, 6, 7"
    assert {chunk["finish_reason"] for chunk in chunks} == {None}
    assert last == {"index": 0, "delta": {}, "finish_reason": "stop"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"messages": [{"role": "user", "content": "snow " * 1000}]},
        {"messages": [{"role": "nobody", "content": "hello"}]},
        {"messages": []},
        {"temperature": -1},
    ],
)
def test_a_bad_request_is_refused(program, wrong):
    status, [body] = post(program, {**COUNT, **wrong})
    assert status == 400
    assert json.loads(body)["error"]["message"]
    _, pieces = post(program, {**COUNT, **wrong, "stream": True})
    assert json.loads(pieces[0].removeprefix("data: "))["error"]["message"]
    assert not program.slots.locked()


def test_a_client_that_disconnects_frees_its_slot(program):
    program.slots = asyncio.Semaphore(1)
    _, pieces = post(program, {**COUNT, "stream": True}, leaves_after=1)
    assert len(pieces) < 9
    assert not program.slots.locked()


def test_the_guide_shows_this_program():
    [shown] = [block for block in blocks(GUIDE) if block.mark == "fastapi"]
    assert shown.code == APP.read_text(encoding="utf-8")


def test_the_other_name_of_max_tokens(program):
    _, [body] = post(program, {**COUNT, "max_completion_tokens": 2})
    assert json.loads(body)["usage"]["completion_tokens"] == 2


@pytest.mark.parametrize(
    "field", [{"response_format": {"type": "json_object"}}, {"tools": [{"type": "function"}]}]
)
def test_what_a_client_relies_on_is_not_ignored(program, field):
    status, [body] = post(program, {**COUNT, **field})
    assert status == 422
    assert next(iter(field)) in body
