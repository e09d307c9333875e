"""What `compare.py` talks to: a process that keeps one engine loaded, and measures what it is told to.

A worker reads one command a line and answers each with one line of JSON. It stays alive between rounds, so a round
costs seconds of measuring and no loading. The commands:

    open                  load, then one token behind a prompt of 8; the first of all commands
    prefill TOKENS        new prompts of that many tokens, each in one forward
    decode DEPTH TOKENS   greedy tokens one by one, behind DEPTH tokens that stay in the cache between calls
    complete TOKENS NEW   a prompt and an answer, for what they leave in memory
    memory                what the process holds now
    quit

Only the standard library is used here: an engine may be installed in an environment where nothing else is.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
import traceback
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every worker is started with."""

    model: Path
    threads: int
    depths: tuple[int, ...]
    room: int  # tokens that are decoded behind a depth at once, at most
    seed: int
    extra: dict[str, str]


class Engine(ABC):
    """One engine with one model. Times are by the wall clock, from the call to the logits in hand."""

    name: str

    def __init__(self, options: Options) -> None:
        self.options = options

    @property
    @abstractmethod
    def version(self) -> str:
        """The version, and what it was built for where that is known."""

    @abstractmethod
    def load(self) -> None:
        """Loads the model as a program would that wants to use it at once."""

    @abstractmethod
    def forward(self, tokens: list[int]) -> None:
        """Forgets what was before, and reads a prompt in one go; the logits of its last token are what counts."""

    @abstractmethod
    def decode(self, prompt: list[int], count: int) -> float:
        """Seconds for ``count`` greedy tokens behind the prompt, which is read before and not counted.

        A prompt that was given before must not be read again.
        """

    @abstractmethod
    def cache_bytes(self, tokens: int) -> int:
        """What the cache of keys and values takes for a session that held that many tokens."""

    @property
    @abstractmethod
    def vocabulary_size(self) -> int:
        """Ids below this are tokens."""


def memory() -> dict[str, int]:
    """Resident memory in bytes, split into pages of this process alone and pages of files; empty without /proc."""
    rollup = Path("/proc/self/smaps_rollup")
    if not rollup.exists():
        return {}
    fields = {}
    for line in rollup.read_text(encoding="ascii").splitlines()[1:]:
        name, _, value = line.partition(":")
        fields[name] = int(value.split()[0]) * 1024
    anonymous = fields["Anonymous"]
    return {"resident": fields["Rss"], "anonymous": anonymous, "file_backed": fields["Rss"] - anonymous}


class Worker:
    """Carries the commands out."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.random = random.Random(engine.options.seed)  # noqa: S311 # a prompt, no secret
        self.depth_prompts: dict[int, list[int]] = {}

    def prompt(self, tokens: int) -> list[int]:
        """New random ids, so that no cache of an earlier prompt helps."""
        return [self.random.randrange(3, self.engine.vocabulary_size) for _ in range(tokens)]

    def open(self) -> dict[str, float]:
        """Loads, and takes the time until the first token as well."""
        start = time.perf_counter()
        self.engine.load()
        loaded = time.perf_counter()
        self.engine.forward(self.prompt(8))
        return {"load_s": loaded - start, "open_to_first_token_s": time.perf_counter() - start}

    def prefill(self, tokens: int) -> dict[str, float]:
        """Passes over new prompts, one behind the other: one, or as many as make 64 tokens of shorter ones.

        A pass of eight tokens takes a tenth of a second: a single one says what waking up cost.
        """
        prompts = [self.prompt(tokens) for _ in range(max(1, 64 // tokens))]
        start = time.perf_counter()
        for prompt in prompts:
            self.engine.forward(prompt)
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "tokens_per_second": tokens * len(prompts) / seconds}

    def decode(self, depth: int, tokens: int) -> dict[str, float]:
        """Decode behind a depth; the prompt of a depth is read the first time only."""
        # A decoded token needs one before it.
        prompt = self.depth_prompts.setdefault(depth, self.prompt(max(depth, 1)))
        seconds = self.engine.decode(prompt, tokens)
        return {"seconds": seconds, "tokens_per_second": tokens / seconds}

    def complete(self, tokens: int, new: int) -> dict[str, float]:
        """A prompt and an answer."""
        self.engine.decode(self.prompt(tokens), new)
        return {"cache_bytes": self.engine.cache_bytes(tokens + new)}

    def answer(self, command: str) -> dict[str, Any]:
        """What a command gives."""
        verb, *numbers = command.split()
        verbs: dict[str, Callable[..., Mapping[str, Any]]] = {
            "open": self.open,
            "prefill": self.prefill,
            "decode": self.decode,
            "complete": self.complete,
            "memory": memory,
        }
        return dict(verbs[verb](*map(int, numbers)))


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line, which is the same for every worker."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--depths", type=int, nargs="*", default=[0])
    parser.add_argument("--room", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="the engine's own")
    return parser.parse_args(argv)


def serve(engine_class: type[Engine]) -> None:
    """Run a worker until its input ends."""
    given = arguments()
    # Libraries, compiled ones too, may write what they like to the standard output: the answers have it alone.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    engine = engine_class(
        Options(
            model=given.model,
            threads=given.threads,
            depths=tuple(given.depths),
            room=given.room,
            seed=given.seed,
            extra=dict(option.split("=", 1) for option in given.option),
        )
    )
    worker = Worker(engine)

    def say(values: dict[str, Any]) -> None:
        print(json.dumps(values), file=answers, flush=True)

    say({"name": engine.name, "version": engine.version, **memory()})
    for line in sys.stdin:
        command = line.strip()
        if command == "quit":
            break
        try:
            say(worker.answer(command))
        except Exception as error:  # noqa: BLE001 # a figure that one engine cannot give is no end of the others'
            traceback.print_exc()
            say({"error": f"{type(error).__name__}: {error}"})
