"""Every way to generate, and whether a session is right afterwards."""

import asyncio
from collections.abc import Callable

import pytest

from candle_phi import AsyncTokenStream, Completion, GenerationConfig, Phi3Model, Phi3Session, TokenStream

GREEDY = GenerationConfig.greedy(max_tokens=8, ignore_eos=True)
HAIKU = "Write a haiku about ice hockey"


def completed(stream: TokenStream) -> Completion:
    list(stream)
    return stream.result


async def acompleted(stream: AsyncTokenStream) -> Completion:
    async for _ in stream:
        pass
    return stream.result


WAYS: dict[str, Callable[[Phi3Session, GenerationConfig], Completion]] = {
    "generate": lambda session, config: session.generate(HAIKU, config),
    "stream": lambda session, config: completed(session.stream(HAIKU, config)),
    "chat": lambda session, config: session.chat(HAIKU, config),
    "chat_stream": lambda session, config: completed(session.chat_stream(HAIKU, config)),
    "generate_many": lambda session, config: session.generate_many(HAIKU, 2, config)[-1],
    "agenerate": lambda session, config: asyncio.run(session.agenerate(HAIKU, config)),
    "astream": lambda session, config: asyncio.run(acompleted(session.astream(HAIKU, config))),
    "achat": lambda session, config: asyncio.run(session.achat(HAIKU, config)),
    "achat_stream": lambda session, config: asyncio.run(acompleted(session.achat_stream(HAIKU, config))),
}

in_each_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
"""For a test that is to hold whichever way one generates."""


def is_right(session: Phi3Session, model: Phi3Model) -> bool:
    """Whether a session, its conversation taken back, answers as a new one does."""
    with Phi3Session(model=model) as fresh:
        fresh_conversation = [fresh.chat("Hello", GREEDY).tokens, fresh.generate(HAIKU, GREEDY).tokens]
        session.rewind(len(session.messages) // 2)
        return [session.chat("Hello", GREEDY).tokens, session.generate(HAIKU, GREEDY).tokens] == fresh_conversation
