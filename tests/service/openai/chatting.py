"""Asks for chats, and puts the pieces of streams together again."""

from typing import Any

import httpx
import orjson
from openai.types.chat import ChatCompletionChunk

from deployments.messages import Chat
from service.openai.schemas.chat import ChatCompletion
from tests.service.models import Models

ASK = [{"role": "user", "content": "hi"}]


async def chat(http: httpx.AsyncClient, **fields: Any) -> Any:
    answer = await http.post(
        "/v1/chat/completions",
        json={"model": "talker", "messages": ASK, "max_tokens": 3, "seed": 7, **fields},
    )
    assert answer.status_code == 200, answer.text
    if not fields.get("stream"):
        ChatCompletion.model_validate_json(answer.content)
        return answer.json()
    *lines, done = [line for line in answer.text.split("\n\n") if line]
    assert done == "data: [DONE]"
    chunks = [orjson.loads(line.removeprefix("data: ")) for line in lines]
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk, strict=True)
    return chunks


async def refused(http: httpx.AsyncClient, param: str | None, **fields: Any) -> Any:
    answer = await http.post(
        "/v1/chat/completions", json={"model": "talker", "messages": ASK, "max_tokens": 3, **fields}
    )
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"] == param, error
    return error


def sent(models: Models) -> Chat:
    (prompt,) = models.completed.prompts
    assert isinstance(prompt, Chat)
    return prompt


def assembled(chunks: list[Any], index: int = 0) -> dict[str, Any]:
    """What a client makes of a stream: the choice as it would have come at once."""
    parts = [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]
    assert parts[0]["delta"] == {"role": "assistant", "content": ""}
    assert [part["finish_reason"] for part in parts[:-1]] == [None] * (len(parts) - 1)
    assert parts[-1]["delta"] == {}
    calls = [call for part in parts for call in part["delta"].get("tool_calls", [])]
    assert [call.pop("index") for call in calls] == list(range(len(calls)))
    scores = [token for part in parts if part["logprobs"] for token in part["logprobs"]["content"]]
    return {
        "text": "".join(part["delta"].get("content", "") for part in parts),
        "calls": [call["function"] for call in calls],
        "scores": scores,
        "finish": parts[-1]["finish_reason"],
    }


def whole(choice: Any) -> dict[str, Any]:
    message = choice["message"]
    return {
        "text": message["content"] or "",
        "calls": [call["function"] for call in message.get("tool_calls", [])],
        "scores": choice["logprobs"]["content"] if choice["logprobs"] else [],
        "finish": choice["finish_reason"],
    }
