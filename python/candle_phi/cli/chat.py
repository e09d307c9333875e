"""`candle-phi chat`: a conversation on a terminal, or line by line in a pipe."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from candle_phi.cli import complete, console, foreign, options
from candle_phi.cli.groups import takes_groups
from candle_phi.cli.sampling import Sampling
from candle_phi.cli.source import Loading, Source


@takes_groups
def chat(
    word: Annotated[
        str | None,
        typer.Argument(
            help=options.MODEL_HELP,
            metavar="MODEL",
            autocompletion=complete.names,
        ),
    ] = None,
    *,
    source: Source,
    system: options.System = None,
    sampling: Sampling,
    loading: Loading,
    history: Annotated[
        bool, typer.Option("--history/--no-history", help="Store the typed messages for the next chat.")
    ] = True,
    load: Annotated[
        Path | None, typer.Option(help="Continue a conversation saved with /save.", metavar="FILE")
    ] = None,
    stats: options.Stats = False,
    trace: options.Trace = None,
    debug: options.Debug = False,
) -> None:
    """Chat with a model. On a terminal, /help lists the commands; a pipe is answered line by line."""
    del debug
    # Imported here: the line editor takes longer to import than all other commands.
    from candle_phi.cli.repl.conversation import Conversation  # noqa: PLC0415
    from candle_phi.cli.repl.loop import Chat, answer_lines  # noqa: PLC0415
    from candle_phi.cli.repl.terminal import Terminal, history_path  # noqa: PLC0415

    sampling.config()  # so that a wrong value is refused before the model is fetched
    chosen = source.chosen(_model(word, source))
    if load is not None and system is not None:
        raise console.UsageProblem(
            "--system and --load exclude each other: a saved conversation has its own system message"
        )
    console.print_any_text()
    with options.traced(trace), chosen.open(loading) as session:
        conversation = Conversation(session, sampling.config(session.model.info.sampling), system)
        if load is not None:
            conversation.load(load)
        if not sys.stdin.isatty():
            answer_lines(conversation, stats=stats)
            return
        info = session.model.info
        if load is not None:
            console.note(conversation.summary())
        console.note(f"{info.name or session.model.path.name}: /help lists the commands, Ctrl-D leaves")
        Chat(conversation, Terminal(history_path() if history else None), stats=stats).run()


def _model(word: str | None, source: Source) -> str | None:
    """Return the argument if it can be a model. Refuse a message, which the chat asks for."""
    if word is None or foreign.looks_like_model(word):
        return word
    example = source.options[:1] if source.demo else ["phi-4-mini"]
    raise console.UsageProblem(
        f"{word!r} is not a file or the name of a model, and chat asks for each message; for one answer, "
        f"{foreign.command_line('generate', *example, word)}"
    )
