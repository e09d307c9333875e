# fastapi: pip install fastapi uvicorn
"""OpenAI's chat endpoint over one model, with a session for each request.

MODEL=phi-4-mini.gguf uvicorn --app-dir examples fastapi_app:app

Without MODEL it serves the embedded toy model.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import AliasChoices, BaseModel, Field

from candle_phi import Phi3Error, Phi3Model, Phi3Session

model = Phi3Model(os.environ["MODEL"]) if "MODEL" in os.environ else Phi3Model.demo()
slots = asyncio.Semaphore(2)  # answers that are computed at once; the others wait
app = FastAPI()
MAX_TOKENS = AliasChoices("max_tokens", "max_completion_tokens")


class ChatRequest(BaseModel):
    """The supported part of OpenAI's request; other fields are ignored.

    A request for a schema or for tools is refused: its client relies on them.
    """

    messages: list[dict[str, Any]]
    stream: bool = False
    max_tokens: int | None = Field(None, validation_alias=MAX_TOKENS)
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    response_format: None = None
    tools: None = None


@app.post("/v1/chat/completions", response_model=None)
async def chat(request: ChatRequest) -> JSONResponse | StreamingResponse:
    """Answers a conversation, whole or as server-sent events."""
    options = request.model_dump(exclude={"messages", "stream"}, exclude_none=True)
    if request.stream:
        chunks = events(request.messages, options)
        return StreamingResponse(chunks, media_type="text/event-stream")
    try:
        async with slots:
            with Phi3Session(model=model) as session:
                answer = await session.achat(request.messages, timeout=300, **options)
    except Phi3Error as error:
        problem = {"message": str(error), "type": "invalid_request_error"}
        return JSONResponse({"error": problem}, 400)
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": answer.text},
        "finish_reason": reason(answer.finish_reason),
    }
    usage = {
        "prompt_tokens": answer.usage.prompt_tokens,
        "completion_tokens": answer.usage.completion_tokens,
        "total_tokens": answer.usage.total_tokens,
    }
    body = {"object": "chat.completion", "choices": [choice], "usage": usage}
    return JSONResponse(body)


async def events(
    messages: list[dict[str, Any]],
    options: dict[str, Any],
) -> AsyncIterator[str]:
    """Yields the chunks of an answer. A client that disconnects stops it."""
    try:
        async with slots:
            with Phi3Session(model=model) as session:
                stream = session.achat_stream(messages, timeout=300, **options)
                async with stream:
                    async for chunk in stream:
                        yield event({"content": chunk.text}, None)
                    yield event({}, reason(stream.result.finish_reason))
    except Phi3Error as error:
        yield f"data: {json.dumps({'error': {'message': str(error)}})}\n\n"
    yield "data: [DONE]\n\n"


def event(delta: dict[str, str], finish_reason: str | None) -> str:
    """One server-sent event."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    body = {"object": "chat.completion.chunk", "choices": [choice]}
    return f"data: {json.dumps(body)}\n\n"


def reason(finish_reason: str | None) -> str:
    """How an answer ended, in OpenAI's words."""
    return "stop" if finish_reason == "stop" else "length"
