"""The end of the interpreter while something of the package runs: it is quiet, and the exit code is 0."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

PRELUDE = """
import asyncio, atexit, logging, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import candle_phi
from candle_phi import Phi3Model, Phi3Session

LONG = dict(max_tokens=400, ignore_eos=True)
called = threading.Event()

def sleep(*_):
    called.set()
    time.sleep(0.01)

def in_the_background(work):
    threading.Thread(target=work, daemon=True).start()
    assert called.wait(30)
"""

WAYS = {
    "a callback of generate": """
session = Phi3Session.demo()
in_the_background(lambda: session.generate("x", logits_processor=sleep, **LONG))
""",
    "a callback of a stream": """
session = Phi3Session.demo()
in_the_background(lambda: list(session.stream("x", logits_processor=sleep, **LONG)))
""",
    "several threads in callbacks": """
sessions = [Phi3Session.demo() for _ in range(4)]
for session in sessions:
    in_the_background(lambda session=session: session.chat("x", logits_processor=sleep, **LONG))
""",
    "a handler of logging": """
class Slow(logging.Handler):
    def emit(self, record):
        sleep()
logger = logging.getLogger("candle_phi")
logger.setLevel(logging.DEBUG)
logger.addHandler(Slow())
path = candle_phi.Phi3Model.demo().path
def load_again():
    while True:
        Phi3Model(path)
in_the_background(load_again)
""",
    "the listener of a download": """
import os, tempfile
class Server(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_response(200)
        for name, value in {"X-Repo-Commit": "1" * 40, "ETag": '"e"', "Content-Length": "100000000"}.items():
            self.send_header(name, value)
        self.end_headers()
    def do_GET(self):
        self.do_HEAD()
        try:
            while True:
                self.wfile.write(bytes(1000))
                time.sleep(0.001)
        except OSError:
            pass
    def log_message(self, *_):
        pass
server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{server.server_port}"
cache = tempfile.TemporaryDirectory()
def download():
    try:
        candle_phi.download("a/b", "x.gguf", cache_dir=cache.name, progress=sleep)
    except candle_phi.Phi3Error:
        pass
in_the_background(download)
""",
    "an open stream": """
session = Phi3Session.demo()
stream = session.stream("x", **LONG)
next(stream)
""",
    "a generation in __del__": """
class Last:
    def __init__(self):
        self.session = Phi3Session.demo()
    def __del__(self):
        assert self.session.generate("x", max_tokens=4, ignore_eos=True).usage.completion_tokens == 4
last = Last()
sys.last_of_all = last
""",
    "a generation with a callback in atexit": """
session = Phi3Session.demo()
def last():
    completion = session.generate("x", max_tokens=4, ignore_eos=True, logits_processor=sleep)
    assert completion.usage.completion_tokens == 4
atexit.register(last)
""",
    "an asynchronous stream": """
async def main():
    stream = Phi3Session.demo().astream("x", **LONG)
    async for _ in stream:
        break
asyncio.run(main())
""",
}


def ended(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PRELUDE + script], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("way", WAYS)
def test_the_exit_is_quiet(way: str) -> None:
    with ThreadPoolExecutor(2) as several:
        for done in several.map(ended, [WAYS[way]] * 3):
            assert (done.returncode, done.stderr) == (0, "")
