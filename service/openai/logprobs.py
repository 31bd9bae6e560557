"""Tokens and their log-probabilities as the two text APIs write them."""

from collections.abc import Sequence
from typing import Any

from deployments.messages import TokenLogprob


def token_text(token: bytes) -> str:
    r"""Text of a token; `bytes:\xe2\x82` where it is part of a character, as in OpenAI's API."""
    try:
        return token.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token)


def completion_logprobs(tokens: Sequence[TokenLogprob], alternatives: int) -> dict[str, Any]:
    """Form of `/v1/completions`: one list for each property."""
    return {
        "tokens": [token_text(token.token) for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [_top(token, alternatives) for token in tokens],
        "text_offset": [token.offset for token in tokens],
    }


def _top(token: TokenLogprob, alternatives: int) -> dict[str, float] | None:
    """The alternatives and, as in OpenAI's API, the token itself where it is none of them."""
    if token.logprob is None:
        return None
    top: dict[str, float] = {}
    for other, logprob in token.top[:alternatives]:
        top.setdefault(token_text(other), logprob)  # tokens can look alike: the more probable one counts
    top.setdefault(token_text(token.token), token.logprob)
    return top


def chat_logprobs(tokens: Sequence[TokenLogprob], alternatives: int) -> dict[str, Any]:
    """Form of `/v1/chat/completions`: one object for each token."""
    content = [
        {
            **_entry(token.token, token.logprob),
            "top_logprobs": [_entry(other, logprob) for other, logprob in token.top[:alternatives]],
        }
        for token in tokens
    ]
    return {"content": content, "refusal": None}


def _entry(token: bytes, logprob: float | None) -> dict[str, Any]:
    return {"token": token_text(token), "logprob": logprob, "bytes": list(token)}
