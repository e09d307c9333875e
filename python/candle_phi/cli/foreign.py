"""Commands and options of other programs, and the sentence that answers each."""

import re
import shlex
from collections.abc import Mapping, Sequence

from candle_phi import hub

_NO_SERVER = "there is no server yet; docs/guides/asyncio.md shows how a program answers several requests at once"
_NO_BATCH = "there is no command for many prompts yet; docs/guides/asyncio.md shows how a program answers many"
_NO_SCHEMA = (
    "the answer cannot be held to a schema or a grammar yet; ask for JSON in the prompt, and check the answer"
)
_NO_TOOLS = "the model cannot be given tools yet"
_NOTHING_RUNS = "no model runs in the background: each command loads the model that it needs, and ends with it"
_TEXT_ONLY = "the models read text only"
_STREAMS = "the answer is always streamed; a file or a pipe has all of it at the end"
_STDIN = "a prompt in a file is read from stdin: add < FILE"
_STDOUT = "the answer is written to stdout: add > FILE"
_VERBOSE = "--stats prints counts and speeds, and --debug the traceback of an error"
_CHAT = "'candle-phi chat' is the conversation"
_ONE_ANSWER = "a command gives one answer; another --seed gives another one"
_CHUNKS = "the package chooses how many tokens of a prompt are computed at once"
_NO_ADAPTERS = "adapters are not supported: convert the model with the adapter merged into it"

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
    "login": "the hub's token is given as --token or HF_TOKEN, or by 'hf auth login'",
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
    **dict.fromkeys(["json_schema", "schema", "grammar", "grammar_file", "regex", "j", "jf"], _NO_SCHEMA),
    **dict.fromkeys(["format", "response_format", "output_format"], _NO_SCHEMA),
    **dict.fromkeys(["tool", "tools", "tool_choice", "functions"], _NO_TOOLS),
    **dict.fromkeys(["stream", "no_stream", "streaming"], _STREAMS),
    **dict.fromkeys(["host", "port", "api_key", "listen", "keep_alive", "keepalive"], _NO_SERVER),
    **dict.fromkeys(["input", "input_file"], f"{_STDIN}; there is no command for many prompts yet"),
    **dict.fromkeys(["prompt_file", "file", "f"], _STDIN),
    **dict.fromkeys(["output", "output_file", "o", "out"], _STDOUT),
    **dict.fromkeys(["batch", "prompts"], _NO_BATCH),
    **dict.fromkeys(["verbose", "v", "log_verbosity", "lv"], _VERBOSE),
    **dict.fromkeys(["image", "images", "mmproj", "audio", "video", "mm"], _TEXT_ONLY),
    **dict.fromkeys(["interactive", "i", "cnv", "conversation", "chat"], _CHAT),
    **dict.fromkeys(["batch_size", "ubatch_size", "b", "ub"], _CHUNKS),
    **dict.fromkeys(["lora", "lora_base", "adapter"], _NO_ADAPTERS),
    **dict.fromkeys(["best_of", "num_return_sequences"], _ONE_ANSWER),
    "jinja": "the chat template of the file is used; --chat-format chooses another one",
}

# Options of other programs, and what is written here instead.
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

_QUANTIZATION = re.compile(r"(I?Q\d\w*|B?F(P)?16|F32|TQ\d\w*)", re.IGNORECASE)
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+(:[\w-]+)?")


def of_option(name: str, value: str | None, known: Mapping[str, str]) -> str | None:
    """Answer an option that other programs have.

    Args:
        name: The option, without dashes and with underscores.
        value: The word after it.
        known: The command's options as they are written, by their names.

    Returns:
        A sentence without its end; None if the option is not known.
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
    """Whether a word has the form of a model's name or path, known or not."""
    is_name = hub.named_model(word) is not None or _REPOSITORY.fullmatch(word) is not None
    return is_name or hub.local_file(word) is not None


def looks_like_model(word: str) -> bool:
    """Whether `names_model`, or the word may be a misspelt short name such as phi4-mini, or an address."""
    return names_model(word) or re.fullmatch(r"phi[\w.:-]*", word, re.IGNORECASE) is not None or "://" in word


def is_quantization(word: str) -> bool:
    """Whether a word is the name of a quantization."""
    return _QUANTIZATION.fullmatch(word) is not None


def command_line(*words: str) -> str:
    """Quote words for a shell, after the program's name."""
    return shlex.join(["candle-phi", *words])


def in_quotes(words: Sequence[str], chosen: Mapping[str, object]) -> str:
    """Answer a prompt that was written as several words.

    Args:
        words: The arguments of `generate`.
        chosen: The options that choose a model, by their names, with their values.

    Returns:
        A sentence without its end.
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
    return f"a prompt of several words is written in quotes: {command_line('generate', *model, prompt)}"


def of_command(word: str) -> str | None:
    """Answer a word where a command is expected: another program's command, a model or a prompt.

    Args:
        word: The word.

    Returns:
        A sentence without its end; None if the word is not known.
    """
    if word in COMMANDS:
        return COMMANDS[word]
    if looks_like_model(word):
        return f"to talk with a model: {command_line('chat', word)}"
    if " " in word.strip():
        return f"to have a prompt answered: {command_line('generate', 'phi-4-mini', word)}"
    return None


def generate_instead(arguments: Sequence[str]) -> str:
    """Write the command for options without one, as llama.cpp's program takes them.

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
