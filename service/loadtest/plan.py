"""What one load test asks for, and what the server's model cards add to it: the model and the request bodies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import orjson

from service.loadtest.report import Bounds
from service.loadtest.workload import CAPABILITY, Task, Workload, image, tensors, text

DEFAULT_PROMPTS: Final = (
    "ROMEO:\n",
    "JULIET:\n",
    "First Citizen:\nBefore we",
    "KING RICHARD III:\nNow is the winter",
)


class LoadTestError(Exception):
    """The test cannot start; the message is one sentence for whoever started it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything a run depends on. With a `rate` the loop is open, else `concurrency` requests are kept in flight."""

    url: str
    task: Task
    model: str | None = None
    rate: float | None = None  # requests per second
    concurrency: int = 1
    requests: int | None = None
    seconds: float | None = None
    warmup: int = 0
    seed: int = 0
    timeout_seconds: float = 120.0
    prompts: tuple[str, ...] = ()
    max_tokens: int = 64
    stream: bool = True
    per_request: int = 1  # pictures or items
    steps: tuple[int, ...] = ()  # of pictures; without: the model's own
    guidance: float | None = None  # scale, of pictures
    headers: Mapping[str, str] = field(default_factory=dict)
    bounds: Bounds = field(default_factory=dict)
    attain: float = 0.99  # share of requests that must keep to the bounds

    @property
    def streams(self) -> bool:
        """Whether answers arrive token by token."""
        return self.task is Task.TEXT and self.stream

    def as_json(self) -> dict[str, Any]:
        """Give what was asked, in vllm's keys where it has one. Headers may hold a secret and stay out."""
        return {
            "endpoint_type": self.task.value,
            "base_url": self.url,
            "arrivals": "closed" if self.rate is None else "poisson",
            "request_rate": "inf" if self.rate is None else self.rate,
            "max_concurrency": self.concurrency if self.rate is None else None,
            "num_prompts": self.requests,
            "max_seconds": self.seconds,
            "num_warmups": self.warmup,
            "seed": self.seed,
            "timeout_seconds": self.timeout_seconds,
            "max_tokens": self.max_tokens if self.task is Task.TEXT else None,
            "stream": self.streams,
            "per_request": self.per_request,
            "steps": list(self.steps) if self.task is Task.IMAGE else None,
            "guidance_scale": self.guidance if self.task is Task.IMAGE else None,
        }


async def find_model(session: aiohttp.ClientSession, plan: Plan) -> dict[str, Any]:
    """Card of the model asked for, or of the first one that can do the task.

    A server that lists no models gets a card with nothing but the name. Raises LoadTestError.
    """
    cards = await _cards(session, plan.url)
    if cards is None and plan.model is None:
        raise LoadTestError(f"{plan.url} does not list its models: name one with --model.")
    if cards is None:
        return {"id": plan.model}
    able = [
        card for card in cards if CAPABILITY[plan.task] in card.get("capabilities", [CAPABILITY[plan.task]])
    ]
    named = [card for card in cards if card["id"] == plan.model]
    if plan.model is None and not able:
        raise LoadTestError(f"No model at {plan.url} can do the task {plan.task.value!r}.")
    if plan.model is not None and not named:
        known = ", ".join(card["id"] for card in cards) or "nothing"
        raise LoadTestError(f"{plan.url} does not serve {plan.model!r}; it serves {known}.")
    if plan.model is not None and named[0] not in able:
        does = ", ".join(named[0]["capabilities"])
        raise LoadTestError(f"{plan.model!r} cannot do the task {plan.task.value!r}; it can {does}.")
    return (named or able)[0]


def build(plan: Plan, card: Mapping[str, Any]) -> Workload:
    """Build the request bodies for a model. Raises LoadTestError where its card leaves the input's shape open."""
    limits = card.get("limits", {})
    if plan.task is Task.TEXT:
        prompts = plan.prompts or DEFAULT_PROMPTS
        return text(card["id"], prompts, max_tokens=plan.max_tokens, stream=plan.stream, seed=plan.seed)
    if plan.task is Task.IMAGE:
        return image(
            card["id"],
            plan.prompts or limits.get("classes", ()),
            n=plan.per_request,
            seed=plan.seed,
            steps=plan.steps,
            guidance=plan.guidance,
        )
    shape: Sequence[int] | None = limits.get("input_shape")
    if not shape:
        raise LoadTestError(f"The card of {card['id']!r} does not say what shape its items have.")
    return tensors(plan.task, card["id"], shape, items=plan.per_request, seed=plan.seed)


async def _cards(session: aiohttp.ClientSession, url: str) -> list[dict[str, Any]] | None:
    try:
        async with session.get(f"{url}/v1/models", timeout=aiohttp.ClientTimeout(total=10)) as response:
            fields = orjson.loads(await response.read()) if response.ok else {}
            return [card for card in fields["data"] if isinstance(card["id"], str)]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    except (aiohttp.ClientError, TimeoutError) as error:
        raise LoadTestError(
            f"No server answers at {url}: start one with `atelier serve`, or pass --url."
        ) from error
