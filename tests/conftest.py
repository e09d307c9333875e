"""What the tests share: the embedded model, sessions on it, and a model that is slow enough to be interrupted."""

import functools
import importlib.util
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType

import pytest

# Tests run side by side in processes, so each takes one thread: more would mostly wait for each other.
# The engine reads it once, when it first computes.
os.environ.setdefault("RAYON_NUM_THREADS", "1")


from candle_phi import Phi3Model, Phi3Session
from known_skips import KnownSkipsOnly
from tiny_gguf import TinyPhi3, write


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--known-skips-only", action="store_true", help="fail on a skip that tests/known_skips.py does not list"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Ctrl-C is heard, by programs that are started too, where a parent in the background ignored it."""
    if config.getoption("known_skips_only") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(KnownSkipsOnly(config))
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_itemcollected(item: pytest.Item) -> None:
    """With `make test-parallel` several threads run each test at once, on the same fixtures."""
    if isinstance(item, pytest.Function) and int(item.config.getoption("parallel_threads", 1)) > 1:
        item.obj = with_sessions_of_its_own(item.obj)


def with_sessions_of_its_own(test: Callable[..., None]) -> Callable[..., None]:
    """The test, where each thread has its own sessions in place of the fixtures': a session is for one thread."""

    @functools.wraps(test)
    def run(*args: object, **fixtures: object) -> None:
        with ExitStack() as stack:
            for name, value in fixtures.items():
                if isinstance(value, Phi3Session):
                    own = Phi3Session(model=value.model, config=value.config)
                    fixtures[name] = stack.enter_context(own)
            test(*args, **fixtures)

    return run


@pytest.fixture(scope="session")
def model() -> Phi3Model:
    """The embedded model: trained, so what it says means something."""
    return Phi3Model.demo()


@pytest.fixture
def session(model: Phi3Model) -> Iterator[Phi3Session]:
    """A fresh session on the embedded model."""
    with Phi3Session(model=model) as session:
        yield session


@pytest.fixture(scope="session")
def slow_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file whose prompts take seconds to read, and whose generations go on for as long."""
    options = TinyPhi3(
        block_count=8,
        head_count=8,
        head_dim=64,
        head_count_kv=8,
        feed_forward_length=1536,
        context_length=8192,
    )
    return write(tmp_path_factory.mktemp("slow") / "slow.gguf", options)


@pytest.fixture(scope="session")
def wide_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file whose cache is large for what it computes: 96 kB of keys and values for a token."""
    options = TinyPhi3(
        block_count=12,
        head_count=16,
        head_count_kv=16,
        head_dim=128,
        width=32,
        feed_forward_length=32,
        context_length=4096,
        metadata={"phi3.attention.key_length": 128, "phi3.attention.value_length": 128},
    )
    return write(tmp_path_factory.mktemp("wide") / "wide.gguf", options)


@pytest.fixture(scope="session")
def corpus() -> ModuleType:
    """What the embedded model was trained on, and what was held out of it."""
    path = Path(__file__).parents[1] / "tools" / "demo_corpus.py"
    if not path.exists():
        pytest.skip("tools/ is not beside the tests")
    spec = importlib.util.spec_from_file_location("demo_corpus", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
