"""Commands and options of other programs, with a hint for each."""

import re
import shlex
from collections.abc import Mapping, Sequence

from candle_phi import hub
from candle_phi._foreign import STRUCTURED_OUTPUT, TOOL_CALLS
from candle_phi._pages import page

_NO_SERVER = f"a server is not included; {page('guides/serve-http.md')} shows how to serve a model over HTTP"
_NO_BATCH = (
    f"a command for many prompts is not available; {page('guides/many-rows.md')} shows how to run them in Python"
)
_NOTHING_RUNS = "no model runs in the background: each command loads its model, and unloads it at its end"
_TEXT_ONLY = "the models read and write text only"
_STREAMS = "the answer is always streamed; a file or a pipe receives all of it"
_STDIN = "a prompt in a file is read from stdin: add < FILE"
_STDOUT = "the answer is written to stdout: add > FILE"
_VERBOSE = "use --stats for counts and speeds, --debug for the traceback of an error"
_CHAT = "use 'candle-phi chat' for a conversation"
_ONE_ANSWER = "a command generates one answer; use another --seed for another answer"
_CHUNKS = "leave it out: the number of prompt tokens per batch is chosen automatically"
_NO_ADAPTERS = "adapters are not available: merge the adapter into the model before it is converted"

# Commands of other programs.
COMMANDS = {
    "api": _NO_SERVER,
    "ask": "did you mean 'candle-phi generate'?",
    "batch": _NO_BATCH,
    "benchmark": "did you mean 'candle-phi bench'?",
    "check": "did you mean 'candle-phi doctor'?",
    "complete": "did you mean 'candle-phi generate'?",
    "delete": "did you mean 'candle-phi models remove'?",
    "get": "did you mean 'candle-phi download'?",
    "help": "did you mean 'candle-phi --help'?",
    "inspect": "did you mean 'candle-phi info'?",
    "interactive": "did you mean 'candle-phi chat'?",
    "list": "'candle-phi models' lists the models",
    "login": "set the hub's token with --token, HF_TOKEN or 'hf auth login'",
    "ls": "'candle-phi models' lists the models",
    "ps": _NOTHING_RUNS,
    "pull": "did you mean 'candle-phi download'?",
    "rm": "did you mean 'candle-phi models remove'?",
    "run": "did you mean 'candle-phi chat'?",
    "serve": _NO_SERVER,
    "server": _NO_SERVER,
    "show": "did you mean 'candle-phi info'?",
    "stop": _NOTHING_RUNS,
    "ui": _NO_SERVER,
    "version": "did you mean 'candle-phi --version'?",
    "web": _NO_SERVER,
}

# Options of other programs that have no counterpart here.
_OPTIONS = {
    **dict.fromkeys(["json_schema", "schema", "grammar", "grammar_file", "regex", "j", "jf"], STRUCTURED_OUTPUT),
    **dict.fromkeys(["format", "response_format", "output_format"], STRUCTURED_OUTPUT),
    **dict.fromkeys(["tool", "tools", "tool_choice", "functions"], TOOL_CALLS),
    **dict.fromkeys(["stream", "no_stream", "streaming"], _STREAMS),
    **dict.fromkeys(["host", "port", "api_key", "listen", "keep_alive", "keepalive"], _NO_SERVER),
    **dict.fromkeys(["input", "input_file"], f"{_STDIN}; {_NO_BATCH}"),
    **dict.fromkeys(["prompt_file", "file", "f"], _STDIN),
    **dict.fromkeys(["output", "output_file", "o", "out"], _STDOUT),
    **dict.fromkeys(["batch", "prompts"], _NO_BATCH),
    **dict.fromkeys(["verbose", "v", "log_verbosity", "lv"], _VERBOSE),
    **dict.fromkeys(["image", "images", "mmproj", "audio", "video", "mm"], _TEXT_ONLY),
    **dict.fromkeys(["interactive", "i", "cnv", "conversation", "chat"], _CHAT),
    **dict.fromkeys(["batch_size", "ubatch_size", "b", "ub"], _CHUNKS),
    **dict.fromkeys(["lora", "lora_base", "adapter"], _NO_ADAPTERS),
    **dict.fromkeys(["best_of", "num_return_sequences"], _ONE_ANSWER),
    "jinja": "leave it out: the file's chat template is used; --chat-format selects another one",
}

# Options of other programs, with the options to use instead.
_WITH_VALUE = {
    **dict.fromkeys(["gpu", "cuda", "use_gpu", "ngl", "n_gpu_layers", "gpu_layers"], "--device cuda"),
    "metal": "--device metal",
    "cpu": "--device cpu",
    **dict.fromkeys(["hf", "hfr", "hf_repo", "repo", "repo_id"], "--name OWNER/REPO:QUANTIZATION"),
    **dict.fromkeys(["sys", "system_prompt"], "--system"),
    "chat_template": "--chat-format",
    "hff": "--file",
    "hf_file": "--file",
}

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+(:[\w-]+)?")


def of_option(name: str, value: str | None, known: Mapping[str, str]) -> str | None:
    """Return the hint for an option that other programs have.

    Args:
        name: The option, without dashes and with underscores.
        value: The word after it.
        known: The command's options as they are typed, by their names.

    Returns:
        A clause; None if the option is not known.
    """
    if name == "n" and "max_tokens" in known:
        if value is not None and names_model(value):
            return f"did you mean --name {value}?"
        number = f" {value}" if value is not None and re.fullmatch(r"-?\d+", value) else ""
        return f"did you mean --max-tokens{number}?"
    meant = _WITH_VALUE.get(name)
    if meant is not None:
        return f"did you mean {meant}?" if meant.split()[0] in known.values() else None
    return _OPTIONS.get(name)


def names_model(word: str) -> bool:
    """Return whether a word has the form of a model's name or path, known or unknown."""
    is_name = hub.named_model(word) is not None or _REPOSITORY.fullmatch(word) is not None
    return is_name or hub.local_file(word) is not None


def looks_like_model(word: str) -> bool:
    """Return whether a word names a model, or may be a misspelled short name such as phi4-mini, or a URL."""
    return names_model(word) or re.fullmatch(r"phi[\w.:-]*", word, re.IGNORECASE) is not None or "://" in word


def is_quantization(word: str) -> bool:
    """Return whether a word is the name of a quantization."""
    return hub.QUANTIZATION.fullmatch(word) is not None


def command_line(*words: str) -> str:
    """Return a command line of this program, quoted for a shell."""
    return shlex.join(["candle-phi", *words])


def in_quotes(words: Sequence[str], chosen: Mapping[str, object]) -> str:
    """Return the hint for a prompt of several words without quotes.

    Args:
        words: The arguments of `generate`.
        chosen: The options that choose a model, by their names, with their values.

    Returns:
        A clause.
    """
    options = [
        part
        for name, value in chosen.items()
        if value
        for part in ((f"--{name}",) if value is True else (f"--{name}", str(value)))
    ]
    has_model = not options and looks_like_model(words[0])
    model = words[:1] if has_model else options or ["phi-4-mini"]
    prompt = " ".join(words[1:] if has_model else words)
    return f"a prompt of several words needs quotes: {command_line('generate', *model, prompt)}"


def of_command(word: str) -> str | None:
    """Return the hint for a word in place of a command: another program's command, a model or a prompt.

    Args:
        word: The word.

    Returns:
        A clause; None if the word is not known.
    """
    if word in COMMANDS:
        return COMMANDS[word]
    if looks_like_model(word):
        return f"to chat with a model: {command_line('chat', word)}"
    if " " in word.strip():
        return f"to answer a prompt: {command_line('generate', 'phi-4-mini', word)}"
    return None


def generate_instead(arguments: Sequence[str]) -> str:
    """Return the command line for options without a command, as llama.cpp's program takes them.

    Args:
        arguments: The words of the command line.

    Returns:
        The command line.
    """
    options: list[str] = []
    prompt: list[str] = []
    words = iter(arguments)
    for word in words:
        if word in {"-p", "--prompt"}:
            prompt = [next(words, "PROMPT")]
        else:
            options.append(word)
    return command_line("generate", *options, *prompt)
