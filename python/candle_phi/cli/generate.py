"""`candle-phi generate`: a prompt in, text out as it comes."""

import contextlib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from candle_phi import Completion, GenerationConfig, Message, Phi3Session
from candle_phi.cli import console, options
from candle_phi.types import ChatFormat, OnOverflow, RopeFactors


def generate(
    prompt: Annotated[
        str | None, typer.Argument(help="What to say to the model; '-' or nothing reads it from stdin.")
    ] = None,
    *,
    model: Annotated[Path | None, typer.Option("--model", "-m", help="A GGUF file.")] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", "-n", help="A named model ('candle-phi models'), or OWNER/REPO with --file."),
    ] = None,
    demo: Annotated[bool, typer.Option("--demo", help="The embedded toy model: nothing is downloaded.")] = False,
    quantization: options.Quantization = None,
    file: options.File = None,
    revision: options.Revision = None,
    cache_dir: options.CacheDir = None,
    token: options.Token = None,
    offline: options.Offline = False,
    system: Annotated[str | None, typer.Option(help="A system message before the prompt.")] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Take the prompt as it is: no chat template, control tokens count.")
    ] = False,
    max_tokens: Annotated[int | None, typer.Option(help="Stop after this many tokens.")] = None,
    min_tokens: Annotated[
        int | None, typer.Option(help="The model doesn't end by itself before this many tokens.")
    ] = None,
    timeout: Annotated[float | None, typer.Option(help="Stop after this many seconds.")] = None,
    temperature: Annotated[
        float | None, typer.Option(help="0 always takes the most likely token.  [default: 1.0]")
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="Sample among the K most likely tokens.")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Sample among the most likely tokens that sum up to P.")
    ] = None,
    min_p: Annotated[
        float | None, typer.Option(help="Leave out tokens less likely than P times the most likely one.")
    ] = None,
    repetition_penalty: Annotated[float | None, typer.Option(help="1 is none; 1.1 discourages repeating.")] = None,
    repeat_last_n: Annotated[int | None, typer.Option(help="How many tokens the penalties look back.")] = None,
    presence_penalty: Annotated[float | None, typer.Option(help="Taken off a token that has come up.")] = None,
    frequency_penalty: Annotated[
        float | None, typer.Option(help="Taken off a token for each time it has come up.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same text.  [default: random]")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="Stop before this text; may be given again.")] = None,
    on_overflow: Annotated[
        OnOverflow | None,
        typer.Option(help="Where the context is full: leave out the oldest, or end.  [default: error]"),
    ] = None,
    tutorial: Annotated[
        bool, typer.Option("--tutorial", help="Start from the tutorial's settings; other options still count.")
    ] = False,
    n_ctx: options.ContextLength = None,
    kv_dtype: options.KvCache = None,
    chat_format: Annotated[
        ChatFormat | None, typer.Option(help="The chat format, in place of the file's own template.")
    ] = None,
    sliding_window: options.SlidingWindow = None,
    rope_factors: Annotated[
        RopeFactors | None,
        typer.Option(help="LongRoPE's factors: long for what will be a long conversation.  [default: auto]"),
    ] = None,
    device: options.Device = None,
    executor: options.WhatComputes = None,
    n_threads: options.Threads = None,
    isa: options.InstructionSet = None,
    prefault: Annotated[
        bool, typer.Option("--prefault", help="Read all of the file before the first answer.")
    ] = False,
    mlock: Annotated[bool, typer.Option("--mlock", help="Lock the file into memory.")] = False,
    stats: Annotated[bool, typer.Option("--stats", help="Print counts and speeds to stderr at the end.")] = False,
    verbose_prompt: Annotated[
        bool, typer.Option("--verbose-prompt", help="Print the prompt and its token ids to stderr first.")
    ] = False,
    debug: options.Debug = False,
) -> None:
    """Answer a prompt, streaming the text to stdout."""
    del debug
    source = _Source(model, name, demo=demo)
    hub = {
        "filename": file,
        "quantization": quantization,
        "revision": revision,
        "cache_dir": cache_dir,
        "token": token,
        "local_files_only": offline or None,
    }
    source.check_hub_options(hub)
    if raw and system is not None:
        raise console.UsageProblem("--system needs the chat template, which --raw goes without")
    text = _read_prompt(prompt, keep_newline=raw)
    config = _config(
        tutorial=tutorial,
        max_tokens=max_tokens,
        min_tokens=min_tokens,
        timeout=timeout,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        repeat_last_n=repeat_last_n,
        presence_penalty=presence_penalty,
        frequency_penalty=frequency_penalty,
        seed=seed,
        stop=stop or None,
        on_overflow=on_overflow,
    )
    loading = {
        "n_ctx": n_ctx,
        "kv_dtype": kv_dtype,
        "chat_format": chat_format,
        "sliding_window": sliding_window,
        "rope_factors": rope_factors,
        "device": device,
        "executor": executor,
        "n_threads": n_threads,
        "isa": isa,
        "prefault": prefault or None,
        "mlock": mlock or None,
    }
    with source.open(_given(hub), _given(loading)) as session:
        messages = None if raw else _messages(system, text)
        if verbose_prompt:
            _print_prompt(session, text, messages)
        _stream(session, text, messages, config, stats=stats)


def _stream(
    session: Phi3Session, text: str, messages: list[Message] | None, config: GenerationConfig, *, stats: bool
) -> None:
    """Prints the answer piece by piece, and the statistics of as much of it as there was."""
    with contextlib.suppress(AttributeError):  # a stand-in for a terminal may lack it
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr] # a console of another encoding
    stream = session.stream(text, config) if messages is None else session.chat_stream(messages, config)
    with stream:
        try:
            for chunk in stream:
                sys.stdout.write(chunk.text)
                sys.stdout.flush()
        finally:
            # After Ctrl-C too: the prompt of the shell should start on a line of its own.
            with contextlib.suppress(BrokenPipeError):
                sys.stdout.write("\n")
                sys.stdout.flush()
            if stats:
                _print_stats(stream.result)


class _Source:
    """Where the model comes from: exactly one of a file, a name and the embedded one."""

    def __init__(self, model: Path | None, name: str | None, *, demo: bool) -> None:
        chosen = [
            option
            for option, given in (("--model", model is not None), ("--name", name is not None), ("--demo", demo))
            if given
        ]
        if not chosen:
            raise console.UsageProblem(
                "no model was chosen: give --model FILE.gguf, --name NAME (see 'candle-phi models') or --demo"
            )
        if len(chosen) > 1:
            raise console.UsageProblem(f"{' and '.join(chosen)} exclude each other")
        self.model = model
        self.name = name

    def check_hub_options(self, hub: dict[str, Any]) -> None:
        """Options about the hub without a name would be ignored in silence."""
        if self.name is None and (given := _given(hub)):
            option = {"filename": "file", "local_files_only": "offline"}.get(next(iter(given)), next(iter(given)))
            raise console.UsageProblem(f"--{option.replace('_', '-')} is about the hub: it needs --name")

    def open(self, hub: dict[str, Any], loading: dict[str, Any]) -> Phi3Session:
        """Loads the model."""
        if self.model is not None:
            return Phi3Session(self.model, **loading)
        if self.name is not None:
            return Phi3Session.from_pretrained(self.name, **hub, **loading)
        return Phi3Session.demo(**loading)


def _given(values: dict[str, Any]) -> dict[str, Any]:
    """The options that were given; the package has the defaults."""
    return {key: value for key, value in values.items() if value is not None}


def _config(*, tutorial: bool, **values: Any) -> GenerationConfig:
    start = GenerationConfig.tutorial() if tutorial else GenerationConfig()
    return start.replace(**_given(values))


def _messages(system: str | None, text: str) -> list[Message]:
    messages = [] if system is None else [Message(role="system", content=system)]
    return [*messages, Message(role="user", content=text)]


def _read_prompt(argument: str | None, *, keep_newline: bool) -> str:
    """The argument, or all of stdin. A raw prompt keeps the newline at its end; `echo` adds one for others."""
    if argument is None and sys.stdin.isatty():
        raise console.UsageProblem("no prompt was given: write one, or pipe one in")
    prompt = _read_stdin() if argument in {None, "-"} else str(argument)
    if not keep_newline:
        prompt = prompt.rstrip("\r\n")
    if not prompt.strip():
        raise console.UsageProblem("the prompt is empty")
    return prompt


def _read_stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise console.UsageProblem(f"stdin is not UTF-8: {error}") from None


def _print_prompt(session: Phi3Session, text: str, messages: list[Message] | None) -> None:
    """What the model reads, and the ids it is read as."""
    if messages is None:
        add_bos = session.model._engine.add_bos  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
        ids = session.tokenize(text, add_bos=add_bos, parse_special=True)
    else:
        text = session.render_chat(messages)
        ids = session.render_chat_tokens(messages)
    print(text, file=sys.stderr)
    for token_id in ids:
        print(f"{token_id:>7} -> {session.detokenize([token_id])!r}", file=sys.stderr)
    sys.stderr.flush()


def _print_stats(completion: Completion) -> None:
    usage, timings = completion.usage, completion.timings
    reason: str = completion.finish_reason or "interrupted"
    if isinstance(completion.stop_reason, int):
        reason += f" at the end token {completion.stop_reason}"
    elif completion.stop_reason is not None:
        reason += f" before {completion.stop_reason!r}"
    first = timings.time_to_first_token_s
    lines = [
        f"load      {timings.load_s:.2f} s",
        f"prompt    {usage.prompt_tokens} tokens, {usage.cached_tokens} of them cached"
        + (f", {usage.recomputed_tokens} computed again" if usage.recomputed_tokens else "")
        + (f", {usage.truncated_tokens} left out" if usage.truncated_tokens else "")
        + _speed(timings.prefill_tokens_per_second),
        f"answer    {usage.completion_tokens} tokens"
        + _speed(timings.decode_tokens_per_second)
        + (f", the first after {first:.2f} s" if first is not None else ""),
        f"finished  {reason}, seed {completion.seed}",
    ]
    print("\n".join(lines), file=sys.stderr, flush=True)


def _speed(tokens_per_second: float | None) -> str:
    return f", {tokens_per_second:.1f} tokens/s" if tokens_per_second else ""
