"""`candle-phi generate`: stream the answer to one prompt."""

import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from candle_phi import GenerationConfig, Message, Phi3Session, hub
from candle_phi.cli import complete, console, foreign, options, pieces, results, status
from candle_phi.cli.groups import takes_groups
from candle_phi.cli.sampling import Sampling
from candle_phi.cli.source import Loading, Source


@takes_groups
def generate(
    first: Annotated[
        str | None,
        typer.Argument(
            help="The model, unless an option chooses it: a GGUF file, a name, or OWNER/REPO:QUANTIZATION.",
            metavar="MODEL",
            autocompletion=complete.names_unless_chosen,
        ),
    ] = None,
    second: Annotated[
        str | None,
        typer.Argument(help="The prompt; '-' or no PROMPT reads it from stdin.", metavar="PROMPT"),
    ] = None,
    *,
    source: Source,
    system: options.System = None,
    raw: Annotated[
        bool,
        typer.Option(
            "--raw", help="Use the prompt unchanged: without a chat template, and control tokens in it are parsed."
        ),
    ] = False,
    sampling: Sampling,
    loading: Loading,
    stats: options.Stats = False,
    verbose_prompt: Annotated[
        bool, typer.Option("--verbose-prompt", help="Print the prompt and its token ids to stderr first.")
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print JSON lines: one for each token, and one for the completion."),
    ] = False,
    trace: options.Trace = None,
    debug: options.Debug = False,
) -> None:
    """Answer a prompt, streaming the text to stdout."""
    del debug
    if raw and system is not None:
        raise console.UsageProblem("--system needs the chat template, which --raw does not use")
    model, prompt = _model_and_prompt([word for word in (first, second) if word is not None], source)
    chosen = source.chosen(model)
    neutral = sampling.config()  # so that a wrong value is refused before the model is fetched
    text = _read_prompt(prompt, keep_newline=raw, stop=neutral.stop)
    with options.traced(trace), chosen.open(loading) as session:
        config = sampling.config(None if raw else session.model.info.sampling)
        messages = None if raw else _messages(system, text)
        if verbose_prompt:
            _print_prompt(session, text, messages)
        _stream(session, text, messages, config, stats=stats, as_json=as_json)


def _stream(
    session: Phi3Session,
    text: str,
    messages: list[Message] | None,
    config: GenerationConfig,
    *,
    stats: bool,
    as_json: bool,
) -> None:
    """Stream the answer, then print the statistics, also if the answer was interrupted."""
    console.print_any_text()
    stream = session.stream(text, config) if messages is None else session.chat_stream(messages, config)
    with stream, status.reading(stream, is_shown=not as_json) as has_begun:
        try:
            for chunk in stream:
                has_begun()
                console.write(json.dumps(results.chunk_dict(chunk)) + "\n" if as_json else chunk.text)
        finally:
            has_begun()
            # After Ctrl-C between two tokens the stream is still open, and its result would have no finish_reason.
            stream.cancel()
            # Also after Ctrl-C, so that the prompt of the shell starts on a new line.
            with contextlib.suppress(BrokenPipeError):
                console.write((json.dumps(results.completion_dict(stream.result)) if as_json else "") + "\n")
            if stats:
                print(results.stats(stream.result), file=sys.stderr, flush=True)


def _messages(system: str | None, text: str) -> list[Message]:
    messages = [] if system is None else [Message(role="system", content=system)]
    return [*messages, Message(role="user", content=text)]


def _model_and_prompt(words: list[str], source: Source) -> tuple[str | None, str | None]:
    """Tell the model from the prompt among the arguments."""
    match words:
        case [word] if source.options:
            return None, word
        case [word] if foreign.names_model(word):
            return word, None
        case [word]:
            raise console.UsageProblem(
                f"no model is chosen: {foreign.command_line('generate', 'phi-4-mini', word)}, or choose it with "
                "--model FILE, --name NAME or --demo"
            )
        case [first, _] if source.options and foreign.names_model(first):
            raise console.UsageProblem(f"{source.options[0]} and {first!r} both choose a model: leave one out")
        case [first, prompt] if not source.options and foreign.looks_like_model(first):
            return first, prompt
        case [_, second]:
            chosen = {"model": source.model, "name": source.name, "demo": source.demo}
            raise console.UsageProblem(f"unexpected argument {second!r}: {foreign.in_quotes(words, chosen)}")
        case _:
            return None, None


def _read_prompt(argument: str | None, *, keep_newline: bool, stop: Sequence[str] | None) -> str:
    """Return the argument, or all of stdin. Only a raw prompt keeps the newline at its end, which `echo` adds."""
    hint = f": --stop took {stop[-1]!r} as its text" if stop else ""
    if argument is None and sys.stdin.isatty():
        raise console.UsageProblem(
            f"no prompt was given{hint}"
            if hint
            else "no prompt was given: pass one, or pipe one to stdin; 'candle-phi chat' asks for each message"
        )
    is_file = argument is not None and argument.startswith("@")
    if is_file and hub.exists(console.at_home(Path(str(argument)[1:])).is_file):
        raise console.UsageProblem(f"a prompt in a file is read from stdin: < {str(argument)[1:]}")
    prompt = console.utf8(sys.stdin.buffer.read()) if argument in {None, "-"} else str(argument)
    if not keep_newline:
        prompt = prompt.rstrip("\r\n")
    if not prompt.strip():
        raise console.UsageProblem(f"the prompt is empty{hint if argument is None else ''}")
    return prompt


def _print_prompt(session: Phi3Session, text: str, messages: list[Message] | None) -> None:
    """Print the rendered prompt and its token ids."""
    if messages is None:
        add_bos = session.model._engine.add_bos  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
        ids = session.tokenize(text, add_bos=add_bos, parse_special=True)
    else:
        text = session.render_chat(messages)
        ids = session.render_chat_tokens(messages)
    console.write_note(text)
    for token_id, piece in zip(ids, pieces.of(session, ids), strict=True):
        console.write_note(f"{token_id:>7} -> {piece}")
