# fastapi: pip install fastapi uvicorn
"""OpenAI's chat endpoint over one model: a session for each request, and a limit on how many compute at once.

MODEL=phi-4-mini.gguf uvicorn --app-dir examples fastapi_app:app      # without MODEL, the embedded toy model
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel

from candle_phi import Phi3Error, Phi3Model, Phi3Session

model = Phi3Model(os.environ["MODEL"]) if "MODEL" in os.environ else Phi3Model.demo()
slots = asyncio.Semaphore(2)  # answers that are computed at once; the others wait
app = FastAPI()


class ChatRequest(BaseModel):
    """The part of OpenAI's request that is supported; other fields are ignored."""

    messages: list[dict[str, Any]]
    stream: bool = False
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None


@app.post("/v1/chat/completions", response_model=None)
async def chat(request: ChatRequest) -> JSONResponse | StreamingResponse:
    """Answers a conversation, whole or as server-sent events."""
    options = request.model_dump(exclude={"messages", "stream"}, exclude_none=True)
    if request.stream:
        return StreamingResponse(events(request.messages, options), media_type="text/event-stream")
    try:
        async with slots:
            with Phi3Session(model=model) as session:
                answer = await session.achat(request.messages, timeout=300, **options)
    except (Phi3Error, TypeError) as error:
        return JSONResponse({"error": {"message": str(error), "type": "invalid_request_error"}}, 400)
    message = {"role": "assistant", "content": answer.text}
    choice = {"index": 0, "message": message, "finish_reason": reason(answer.finish_reason)}
    usage = {
        "prompt_tokens": answer.usage.prompt_tokens,
        "completion_tokens": answer.usage.completion_tokens,
        "total_tokens": answer.usage.total_tokens,
    }
    return JSONResponse({"object": "chat.completion", "choices": [choice], "usage": usage})


async def events(messages: list[dict[str, Any]], options: dict[str, Any]) -> AsyncIterator[str]:
    """Yields the chunks of an answer. A client that disconnects stops the computation."""
    try:
        async with slots:
            with Phi3Session(model=model) as session:
                async with session.achat_stream(messages, timeout=300, **options) as stream:
                    async for chunk in stream:
                        yield event({"delta": {"content": chunk.text}, "finish_reason": None})
                    yield event({"delta": {}, "finish_reason": reason(stream.result.finish_reason)})
    except (Phi3Error, TypeError) as error:
        yield f"data: {json.dumps({'error': {'message': str(error)}})}\n\n"
    yield "data: [DONE]\n\n"


def event(choice: dict[str, Any]) -> str:
    """One server-sent event."""
    return f"data: {json.dumps({'object': 'chat.completion.chunk', 'choices': [{'index': 0, **choice}]})}\n\n"


def reason(finish_reason: str | None) -> str:
    """OpenAI's word for how an answer ended."""
    return "stop" if finish_reason == "stop" else "length"
