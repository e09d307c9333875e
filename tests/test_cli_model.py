"""What is accepted where a model is meant: a path, a short name, a repository with a quantization."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import candle_phi
from candle_phi import InvalidOptionError, Phi3Model, download, hub, named_models
from command_line import DEMO, PROMPT, cached, fail, invoke, succeed
from test_hub import COMMIT, FILE, REPO, Hub

pytestmark = pytest.mark.thread_unsafe(reason="the command line is run on the streams of the process")

NAMED = named_models()[0]


@pytest.fixture
def offline(tmp_path, monkeypatch) -> Path:
    """A cache of its own, with the embedded model in the place of a named one, and no hub."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    path = cached(tmp_path / "hub", NAMED.repo, next(iter(NAMED.files.values())))
    path.write_bytes(DEMO.read_bytes())
    return tmp_path


@pytest.fixture
def expected() -> str:
    return succeed("generate", "--demo", "--seed", 3, PROMPT).stdout


@pytest.fixture
def server(model, monkeypatch, tmp_path) -> Iterator[Hub]:
    """A hub with the embedded model in a repository that is not in the table, and an empty cache."""
    server = Hub(model.path.read_bytes())
    # What it says of the repository's files.
    server.files[f"/api/models/{REPO}/revision/main"] = json.dumps(
        {"siblings": [{"rfilename": "README.md"}, {"rfilename": FILE}]}
    ).encode()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


class TestLocalFile:
    """`hub.local_file`, by which everything decides."""

    @pytest.mark.parametrize(
        "name",
        [
            *("phi-4-mini", "Phi-4-Mini", "phi-4-mini:Q8_0", "owner/repo", "owner/repo:Q4_K_M", "phi5"),
            *("https://huggingface.co/owner/repo", "x" * 5000, "a\0b"),
        ],
    )
    def test_a_name(self, name, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert hub.local_file(name) is None

    @pytest.mark.parametrize(
        "path", ["model.gguf", "MODEL.GGUF", "./phi", "../phi", "/phi", "~/phi", "a/b/c", "a\\b\\c"]
    )
    def test_a_path_of_no_file(self, path, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert hub.local_file(path) == Path(path).expanduser()

    def test_what_is_there(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for file in ("model", "phi-4-mini", "owner/repo"):
            Path(file).parent.mkdir(exist_ok=True)
            Path(file).write_text("")
            assert hub.local_file(file) == Path(file)
        # A folder is no model, and takes no name away.
        Path("phi-4").mkdir()
        assert hub.local_file("phi-4") is None
        assert hub.local_file("owner") == Path("owner")


class TestCached:
    """Commands with a name, where the cache has the file."""

    @pytest.mark.parametrize(
        "words",
        [
            [NAMED.name, PROMPT],
            ["--model", NAMED.name, PROMPT],
            ["-m", f"{NAMED.name}:{next(iter(NAMED.files))}", PROMPT],
            ["--name", NAMED.name, PROMPT],
            [f"{NAMED.repo}:{next(iter(NAMED.files))}", PROMPT],
            [str(DEMO), PROMPT],
        ],
    )
    def test_generate(self, offline, expected, words):
        assert succeed("generate", "--seed", 3, *words).stdout == expected

    def test_generate_with_the_prompt_on_stdin(self, offline, expected):
        for words in ([NAMED.name], [NAMED.name, "-"]):
            assert succeed("generate", "--seed", 3, *words, stdin=PROMPT).stdout == expected

    def test_chat(self, offline, expected):
        for words in ([NAMED.name], ["--model", NAMED.name], [DEMO]):
            assert succeed("chat", "--seed", 3, *words, stdin=PROMPT).stdout == expected

    def test_info(self, offline):
        assert succeed("info", NAMED.name).stdout == succeed("info", DEMO).stdout

    def test_bench(self, offline):
        words = ("--decode-tokens", 2, "--rounds", 1, "--prefill", 8, "--depth", 0)
        assert NAMED.name.split("-")[0] in succeed("bench", NAMED.name, *words).stdout.lower()

    def test_a_repository_that_is_not_in_the_table(self, offline, expected):
        path = cached(offline / "hub", "any/repo", "x-Q8_0.gguf")
        path.write_bytes(DEMO.read_bytes())
        assert succeed("generate", "any/repo:q8_0", "--seed", 3, PROMPT).stdout == expected
        assert download("any/repo:Q8_0") == path
        assert "x-Q8_0.gguf" in fail(1, "generate", "any/repo:Q4_K_M", PROMPT)


class TestNotCached:
    def test_info_downloads_nothing_and_says_what_does(self, server):
        line = fail(1, "info", NAMED.name)
        assert f"candle-phi download {NAMED.name}" in line
        assert "GB" in line
        assert f"candle-phi download {REPO}:Q8_0" in fail(1, "info", f"{REPO}:Q8_0")
        assert server.requests == []

    @pytest.mark.usefixtures("server")
    def test_others_download(self, model):
        name = f"{REPO}:q8"
        assert Phi3Model.from_pretrained(name, progress=False).info == model.info
        assert succeed("info", name).stdout == succeed("info", DEMO).stdout
        assert succeed("download", name).stdout == f"{download(name)}\n"
        assert invoke("generate", name, "--max-tokens", 1, PROMPT).exit_code == 0
        with pytest.raises(InvalidOptionError, match=r"some-model-q8\.gguf"):
            download(f"{REPO}:Q4_K_M")
        assert candle_phi.cached_models()[0].revision == COMMIT


def test_the_table_says_what_can_be_asked_for():
    for model in named_models():
        assert list(model.files) == list(model.quantizations[: len(model.files)])
        assert set(model.about_bytes) <= set(model.files)
        assert model.about_bytes[next(iter(model.files))] > 1e9
    by_name = {model.name: model for model in named_models()}
    assert {"Q4_K_M", "IQ4_XS", "IQ4_NL"} <= set(by_name["phi-4"].quantizations)
    assert {"Q4_K_M", "IQ4_XS", "IQ4_NL", "Q4_K_L"} <= set(by_name["phi-4-mini"].quantizations)


@pytest.mark.parametrize(
    "arguments",
    [["chat", ""], ["chat", "--model", ""], ["generate", "", PROMPT], ["generate", "--name", "", PROMPT]],
)
def test_an_empty_name_is_no_model_and_not_the_embedded_one(arguments):
    fail(2, *arguments, stdin="hello\n")


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        ({"filename": "Q4_K_M"}, "filename"),
        ({"filename": "*.gguf"}, "filename"),
        ({"quantization": "no such"}, "quantization"),
    ],
)
def test_an_error_of_a_download_names_its_option(offline, arguments, option):
    with pytest.raises(InvalidOptionError) as caught:
        download(NAMED.name, **arguments)
    assert caught.value.option == option


@pytest.mark.parametrize("prompt", ["@" + "a" * 300, "@" + "a/" * 100 + "a" * 260])
def test_a_long_word_after_an_at_sign_is_a_prompt(prompt):
    succeed("generate", "--demo", "--max-tokens", 1, prompt)


@pytest.mark.parametrize("opens", [Phi3Model, candle_phi.inspect_model, candle_phi.estimate_memory])
def test_a_name_that_no_file_can_have_is_no_file(opens):
    with pytest.raises(candle_phi.Phi3Error):
        opens("a" * 300)


def test_a_long_name_is_no_model(offline):
    with pytest.raises(InvalidOptionError):
        download("a" * 300)
    fail(2, "generate", "--name", "a" * 300, PROMPT)


def test_two_models_exclude_each_other(offline):
    line = fail(2, "chat", "--demo", NAMED.name, stdin="hello\n")
    assert "--demo" in line
    assert NAMED.name in line
