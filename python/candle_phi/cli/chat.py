"""`candle-phi chat`: a conversation at a terminal, or line by line in a pipe."""

import sys
from typing import Annotated

import typer

from candle_phi.cli import console, options
from candle_phi.cli.groups import takes_groups
from candle_phi.cli.sampling import Sampling
from candle_phi.cli.source import Loading, Source


@takes_groups
def chat(
    *,
    source: Source,
    system: options.System = None,
    sampling: Sampling,
    loading: Loading,
    history: Annotated[
        bool, typer.Option("--history/--no-history", help="Keep what is typed for the next chat.")
    ] = True,
    stats: options.Stats = False,
    trace: options.Trace = None,
    debug: options.Debug = False,
) -> None:
    """Talk with a model. At a terminal, /help lists what else there is; a pipe is answered line by line."""
    del debug
    # Imported here: the editor of the line takes longer to load than all other commands need.
    from candle_phi.cli.repl.conversation import Conversation  # noqa: PLC0415
    from candle_phi.cli.repl.loop import Chat, answer_lines  # noqa: PLC0415
    from candle_phi.cli.repl.terminal import Terminal, history_path  # noqa: PLC0415

    sampling.config()  # so that a wrong value is told before the model is fetched
    console.print_any_text()
    with options.traced(trace), source.open(loading) as session:
        conversation = Conversation(session, sampling.config(session.model.info.sampling), system)
        if not sys.stdin.isatty():
            answer_lines(conversation, stats=stats)
            return
        info = session.model.info
        console.note(f"{info.name or session.model.path.name}: /help lists the commands, Ctrl-D leaves")
        Chat(conversation, Terminal(history_path() if history else None), stats=stats).run()
