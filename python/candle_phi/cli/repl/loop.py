"""The loop of a chat: it reads a line, then runs the command or shows the answer."""

import sys

from candle_phi import Completion, Phi3Error, TokenStream
from candle_phi.cli import console, results, status
from candle_phi.cli.repl import answer, commands
from candle_phi.cli.repl.conversation import Conversation
from candle_phi.cli.repl.terminal import Terminal

# Words that, typed alone, are most likely not meant for the model.
_LEAVING = {"bye", "exit", "quit"}


class Chat:
    """A conversation at a terminal.

    Args:
        conversation: The conversation.
        terminal: The terminal that reads the user's input.
        stats: Whether to print all counts and speeds after each answer.
    """

    def __init__(self, conversation: Conversation, terminal: Terminal, *, stats: bool) -> None:
        self.conversation = conversation
        self.last: Completion | None = None
        self._terminal = terminal
        self._stats = stats

    def run(self) -> None:
        """Run until the user leaves."""
        while True:
            try:
                line = self._next_line()
                if line is None:
                    return
                self._take(line)
            except EOFError:
                return
            except KeyboardInterrupt:
                console.note("stopped")
            except BrokenPipeError:
                raise
            # An error does not end the conversation.
            except (Phi3Error, OSError, TypeError) as error:
                console.error(str(error))

    def ask(self, text: str) -> str:
        """Let the user edit a text; return an empty text if the user cancels."""
        try:
            return self._terminal.ask(text)
        except (KeyboardInterrupt, EOFError):
            return ""

    def show(self, stream: TokenStream) -> None:
        """Show an answer."""
        self.last = answer.show(self.conversation, stream)
        if self._stats:
            console.note(results.stats(self.last))

    def _next_line(self) -> str | None:
        """Return the next line; None if the user leaves."""
        for is_last in (False, True):
            try:
                return self._terminal.ask()
            except EOFError:
                return None
            except KeyboardInterrupt:
                if not is_last:
                    console.note("Ctrl-C again leaves, as does Ctrl-D")
        return None

    def _take(self, line: str) -> None:
        text = line.strip()
        if text.startswith("/") and not text.startswith("//"):
            commands.run(self, text)
        elif text.lower() in _LEAVING:
            console.note(f"nothing was sent: /{text.lower()} leaves the chat, as does Ctrl-D")
        elif text:
            self.show(self.conversation.say(text.removeprefix("/") if text.startswith("//") else text))


def answer_lines(conversation: Conversation, *, stats: bool) -> None:
    """Answer each line of stdin and print only the answers. A line of a pipe is never a command.

    Args:
        conversation: The conversation.
        stats: Whether to print counts and speeds after each answer, to stderr.
    """
    count = 0
    for line in sys.stdin.buffer:
        text = console.utf8(line).strip()
        if not text:
            continue
        count += 1
        if count == 2:
            console.warning(
                "each line of stdin is the next message of one conversation; to answer each line on its own, run "
                "'candle-phi generate' for each, or use Phi3Session in Python"
            )
        with conversation.say(text) as stream, status.reading(stream) as has_begun:
            for chunk in stream:
                has_begun()
                console.write(chunk.text)
            console.write("\n")
            completion = stream.result
        if completion.finish_reason in {"stop", "length"}:
            conversation.answered()
        if stats:
            print(results.stats(completion), file=sys.stderr, flush=True)
