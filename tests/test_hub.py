"""Downloads as Python sees them, from a server on this machine."""

import hashlib
import logging
import os
import platform
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import tiny_gguf
from candle_phi import (
    DownloadError,
    InvalidModelError,
    InvalidOptionError,
    ModelNotFoundError,
    Phi3Error,
    Phi3Model,
    Phi3Session,
    Progress,
    cached_models,
    download,
    named_models,
    remove_cached,
)
from messages import mentions
from terminal import started
from test_split import split

REPO, FILE, COMMIT = "someone/some-model-gguf", "some-model-q8.gguf", "c" * 40
# A level of another architecture.
ABSENT_ISA = "avx2" if platform.machine().lower() in {"aarch64", "arm64"} else "neon"


class Hub(ThreadingHTTPServer):
    """A hub with a few files, that sends them as slowly as it is told to."""

    daemon_threads = True

    def __init__(self, body):
        super().__init__(("127.0.0.1", 0), Handler)
        self.body = body
        self.files = {f"/{REPO}/resolve/main/{FILE}": body}
        self.pause_s = 0.0
        self.sent_bytes = 0
        self.requests = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """A client that goes away is what some tests are about."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        hub = self.server
        hub.requests.append((self.command, self.path, self.headers.get("Authorization")))
        body = hub.files.get(self.path)
        if body is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        rest = body[start:]
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(rest)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.end_headers()
        if self.command == "GET":
            for piece in range(0, len(rest), 65536):
                self.wfile.write(rest[piece : piece + 65536])
                hub.sent_bytes += len(rest[piece : piece + 65536])
                time.sleep(hub.pause_s)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(model, monkeypatch, tmp_path):
    hub = Hub(model.path.read_bytes())
    thread = threading.Thread(target=hub.serve_forever)
    thread.start()
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    yield hub
    hub.shutdown()
    thread.join()
    hub.server_close()


@pytest.fixture
def whole_and_parts(tmp_path):
    whole = tiny_gguf.write(tmp_path / "tiny.gguf")
    return whole, split(whole, tmp_path / "tiny.gguf")


def test_a_model_is_fetched_once_and_found_in_the_cache(hub, model, capfd):
    told = []
    path = download(REPO, FILE, progress=told.append)
    assert path.name == FILE
    assert path.read_bytes() == model.path.read_bytes()
    assert told
    assert all(isinstance(progress, Progress) and progress.file == FILE for progress in told)
    assert [progress.bytes_done for progress in told] == sorted(progress.bytes_done for progress in told)
    assert told[-1].bytes_done == told[-1].bytes_total == len(hub.body)
    gets = sum(command == "GET" for command, *_ in hub.requests)
    assert download(REPO, FILE) == path
    assert sum(command == "GET" for command, *_ in hub.requests) == gets
    before = len(hub.requests)
    assert download(REPO, FILE, local_files_only=True) == path
    assert len(hub.requests) == before
    (cached,) = cached_models()
    assert (cached.repo, cached.file, cached.revision, cached.path) == (REPO, FILE, COMMIT, path)
    assert cached.size_bytes == len(hub.body)
    assert "main" in cached.refs
    assert remove_cached(REPO) == len(hub.body)
    assert cached_models() == []
    # No terminal, no bar.
    assert capfd.readouterr() == ("", "")


def test_all_parts_of_a_split_model_are_fetched_and_opened(hub, whole_and_parts):
    whole, parts = whole_and_parts
    hub.files = {
        f"/{REPO}/resolve/{revision}/{part.name}": part.read_bytes()
        for part in parts
        for revision in ("main", COMMIT)
    }
    told = []
    path = download(REPO, parts[1].name, progress=told.append)
    assert path.name == parts[0].name
    assert {progress.file for progress in told} == {part.name for part in parts}
    (cached,) = cached_models()
    assert (cached.path, cached.size_bytes) == (path, sum(part.stat().st_size for part in parts))
    with (
        Phi3Session(whole) as one,
        Phi3Session.from_pretrained(REPO, parts[2].name, local_files_only=True) as split,
    ):
        assert split.score([1, 5, 9]) == one.score([1, 5, 9])
    assert remove_cached(REPO) == cached.size_bytes


def test_a_session_opens_what_was_fetched(hub, model):
    with Phi3Session.from_pretrained(REPO, FILE, n_ctx=64, kv_dtype="f32", progress=False) as session:
        assert session.n_ctx == 64
        assert session.model.info == model.info
        assert session.generate("hello", max_tokens=2, ignore_eos=True).tokens
    assert Phi3Model.from_pretrained(REPO, FILE, local_files_only=True, mmap=False).info == model.info


@pytest.mark.parametrize("opens", [Phi3Session, Phi3Model])
def test_the_tokenizer_that_goes_with_a_named_model_is_used_unless_another_is_asked_for(hub, model, opens):
    named = next(named for named in named_models() if named.tokenizer_repo)
    hub.files[f"/{named.repo}/resolve/main/{next(iter(named.files.values()))}"] = hub.body
    assert opens.from_pretrained(named.name, progress=False)  # the hub has none: the file's own vocabulary serves
    hub.files[f"/{named.tokenizer_repo}/resolve/main/tokenizer.json"] = b"no tokenizer"
    with pytest.raises(InvalidModelError, match=r"tokenizer\.json"):
        opens.from_pretrained(named.name, progress=False)
    assert opens.from_pretrained(named.name, progress=False, tokenizer=None)


@pytest.mark.parametrize(
    "options",
    [
        {"device": "abacus"},
        {"device": "cuda:99"},
        {"executor": "kernel"},
        {"mmap": 3},
        {"tokenizer": "missing.json"},
        {"n_ctx": -1},
        {"kv_dtype": "f8"},
        {"n_threads": 9999},
        {"isa": "mmx"},
        {"isa": ABSENT_ISA},
        {"executor": "candle", "n_threads": 99},
        {"executor": "candle", "kv_dtype": "q8_0"},
        {"executor": "candle", "isa": "scalar"},
    ],
)
def test_options_are_checked_before_the_download(hub, options):
    with pytest.raises((Phi3Error, TypeError)):
        Phi3Session.from_pretrained(REPO, FILE, progress=False, **options)
    assert hub.requests == []


def test_the_callback_is_called_on_the_thread_that_called(hub):
    hub.pause_s = 0.005
    threads = set()
    download(REPO, FILE, progress=lambda _: threads.add(threading.current_thread()))
    assert threads == {threading.current_thread()}
    remove_cached(REPO)
    worker = threading.Thread(
        target=download, args=(REPO, FILE), kwargs={"progress": lambda _: threads.add("worker")}
    )
    worker.start()
    worker.join()
    assert "worker" in threads


def test_an_exception_in_the_callback_stops_the_download_and_the_next_goes_on(hub, model):
    hub.pause_s = 0.02

    def stop(progress):
        if progress.bytes_done > 300_000:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        download(REPO, FILE, progress=stop)
    sent = hub.sent_bytes
    assert sent < len(hub.body)
    assert cached_models() == []
    hub.pause_s = 0
    assert download(REPO, FILE).read_bytes() == model.path.read_bytes()
    assert hub.sent_bytes < sent + len(hub.body)


def test_ctrl_c_stops_a_download_and_the_next_goes_on(hub, model):
    hub.pause_s = 0.02
    script = f"""
import os, signal, threading, time
from candle_phi import download
told = []
def interrupt():
    while not any(progress.bytes_done > 300_000 for progress in told):
        time.sleep(0.005)
    told.append(None)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
try:
    download({REPO!r}, {FILE!r}, progress=told.append)
except KeyboardInterrupt:
    print("interrupted")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout, done.stderr) == ("interrupted\n", "")
    assert cached_models() == []
    sent = hub.sent_bytes
    hub.pause_s = 0
    assert download(REPO, FILE).read_bytes() == model.path.read_bytes()
    assert hub.sent_bytes < sent + len(hub.body)


def test_progress_true_draws_a_bar_on_stderr(hub, capfd):
    download(REPO, FILE, progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert FILE in err


def test_a_token_is_shown_to_the_hub(hub):
    download(REPO, FILE, token="secret")
    assert {authorization for _, _, authorization in hub.requests} == {"Bearer secret"}


def test_what_the_hub_does_not_have(hub):
    with pytest.raises(DownloadError, match=r"other\.gguf"):
        download(REPO, "other.gguf")
    with pytest.raises(InvalidOptionError) as caught:
        download(REPO)
    # What it needs besides, in either way.
    mentions(caught.value, REPO, ".gguf")


def test_a_hub_that_cannot_be_reached(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DownloadError) as caught:
        download(REPO, FILE, cache_dir=tmp_path)
    assert "backtrace" not in str(caught.value)


def test_removing_what_is_not_there(tmp_path):
    with pytest.raises(ModelNotFoundError, match=REPO):
        remove_cached(REPO, tmp_path)


def test_a_named_model_is_removed_by_its_short_name(tmp_path):
    named = named_models()[0]
    folder = tmp_path / f"models--{named.repo.replace('/', '--')}" / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    (folder / next(iter(named.files.values()))).write_bytes(b"GGUF")
    assert len(cached_models(tmp_path)) == 1
    assert remove_cached(named.name, tmp_path) == 4
    assert cached_models(tmp_path) == []
    with pytest.raises(ModelNotFoundError, match=named.repo):
        remove_cached(named.name, tmp_path)


@pytest.mark.parametrize("call", [Phi3Session.from_pretrained, Phi3Model.from_pretrained, download])
def test_a_file_in_the_place_of_a_name_is_told_how_it_is_opened(call, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidOptionError) as caught:
        call("model.gguf", local_files_only=True)
    assert "Phi3Session(" not in str(caught.value)
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    for name in ("model.gguf", str(tmp_path / "model.gguf")):
        with pytest.raises(InvalidOptionError) as caught:
            call(name, local_files_only=True)
        mentions(caught.value, f"Phi3Session({name!r})")


def test_a_cached_file_does_where_the_hub_cannot_be_reached_and_a_warning_is_logged(hub, monkeypatch, caplog):
    path = download(REPO, FILE)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with caplog.at_level(logging.WARNING, logger="candle_phi"):
        assert download(REPO, FILE) == path
    (record,) = caplog.records
    assert FILE in record.getMessage()


@pytest.mark.skipif(os.name == "nt", reason="Windows has terminals of another kind")
@pytest.mark.thread_unsafe(reason="two would type into one terminal")
def test_a_download_at_a_terminal_that_is_interrupted_says_that_it_resumes(hub, tmp_path):
    hub.pause_s = 0.05
    with started("download", REPO, "--file", FILE, home=tmp_path) as terminal:
        terminal.until("MB/s")
        terminal.type("\x03")
        terminal.until("Interrupted after ")
        terminal.until(FILE)
        assert terminal.end() == 130


@pytest.mark.skipif(os.name == "nt", reason="Windows has terminals of another kind")
@pytest.mark.thread_unsafe(reason="two would type into one terminal")
def test_a_connection_that_takes_long_is_spoken_of(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with started("download", "phi-2", home=tmp_path, HF_ENDPOINT=endpoint, HF_HUB_OFFLINE="") as terminal:
            terminal.until(f"connecting to {endpoint}")
            terminal.type("\x03")
            assert terminal.end() == 130
