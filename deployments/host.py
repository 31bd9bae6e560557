"""The Ray shell: a host's replica that answers handles, and the client of many hosts that calls them.

Knows Ray and messages; what is computed is the studio's business. Domain errors travel as values: an exception through
a handle would be logged with a traceback on the way and come back wrapped.
"""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import Any, Final, TypeAlias, TypeVar

from prometheus_client import CollectorRegistry, generate_latest
from ray import serve
from ray.exceptions import RayActorError, RayError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException
from ray.serve.handle import DeploymentHandle

from deployments.config import HostConfig
from deployments.errors import (
    DeadlineExceeded,
    ModelNotFound,
    QueueFull,
    ReplicaLost,
    ServingError,
    Unavailable,
)
from deployments.messages import Card, Complete, Draw, Exposition, Picture, Reply, Request, TextDelta
from deployments.metrics import Metrics
from deployments.studio import open_studio

T = TypeVar("T")
Handle: TypeAlias = DeploymentHandle[Any]

# How old the gateway's list of models may be. An unknown name asks at once.
_CARDS_SECONDS: Final = 5.0
# The host keeps the time limit; the gateway waits this much longer before it gives up on the host itself.
_GRACE_SECONDS: Final = 2.0


class Host:
    """One replica: the packages of a host, an engine each."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = HostConfig.model_validate(config)
        self.metrics = Metrics(CollectorRegistry())
        self.studio = open_studio(self.config, self.metrics)

    async def cards(self) -> tuple[Card, ...]:
        """Cards of all models."""
        return await self.studio.cards()

    async def ready(self) -> bool:
        """Whether a request sent now would be answered."""
        return await self.studio.ready()

    async def exposition(self) -> Exposition:
        """Metrics of this replica."""
        return Exposition(
            serve.get_replica_context().replica_id.unique_id, generate_latest(self.metrics.registry).decode()
        )

    async def call(self, request: Request) -> Reply | ServingError:
        """Answer a one-shot request."""
        return await _value(self.studio.call(request))

    async def collect(self, request: Complete) -> tuple[TextDelta, ...] | ServingError:
        """Continue text and answer once."""
        return await _value(self.studio.collect(request))

    async def stream(
        self, request: Complete | Draw
    ) -> AsyncGenerator[TextDelta | Picture | ServingError, None]:
        """Continue text, delta by delta, or draw, picture by picture; an error is the last thing sent."""
        source: AsyncGenerator[Any, None] = (
            self.studio.pictures(request) if isinstance(request, Draw) else self.studio.stream(request)
        )
        try:
            async for item in source:
                yield item
        except ServingError as error:
            yield error
        finally:
            await source.aclose()

    def check_health(self) -> None:
        """Ray replaces the replica when this raises."""
        if not self.studio.healthy():
            raise RuntimeError("an engine has stopped or hangs in a step")

    def __del__(self) -> None:
        """Ray's shutdown hook."""
        if hasattr(self, "studio"):
            self.studio.close()


async def _value(answer: Awaitable[T]) -> T | ServingError:
    try:
        return await answer
    except ServingError as error:
        return error


class RemoteModels:
    """Models of several hosts behind the `ModelClient` seam: looks up the host of a model and calls it by handle.

    Inference is a pure function of its request: what a lost replica has not begun to answer is tried once more, on
    another one. A stream that has begun ends with ReplicaLost.
    """

    def __init__(self, hosts: Iterable[str], handle_of: Callable[[str], Handle] | None = None) -> None:
        self._names = tuple(hosts)
        self._handle_of = handle_of or _handle
        self._handles: dict[str, Handle] = {}
        self._cards: dict[str, Card] = {}
        self._listed: tuple[Card, ...] = ()  # the same, until they are asked for again
        self._looked = -math.inf
        self._looking = asyncio.Lock()

    # -- the seam ----------------------------------------------------------------------------------------------------

    async def cards(self) -> tuple[Card, ...]:
        """Cards of every host that answers. Raises Unavailable while none does."""
        if time.monotonic() > self._looked + _CARDS_SECONDS:
            await self._look()
        return self._listed

    async def call(self, request: Request) -> Reply:
        """Answer a one-shot request."""
        return await self._twice(request, lambda handle: handle.call.remote(request))

    async def collect(self, request: Complete) -> tuple[TextDelta, ...]:
        """Continue text and answer once."""
        return await self._twice(request, lambda handle: handle.collect.remote(request))

    def stream(self, request: Complete) -> AsyncGenerator[TextDelta, None]:
        """Continue text, delta by delta."""
        return self._streamed(request)

    def pictures(self, request: Draw) -> AsyncGenerator[Picture, None]:
        """Draw, picture by picture."""
        return self._streamed(request)

    async def expositions(self) -> tuple[Exposition, ...]:
        """Metrics of all replicas of all hosts; what does not answer is left out."""
        gathered = await asyncio.gather(*(self._broadcast(name) for name in self._names))
        return tuple(exposition for host in gathered for exposition in host)

    async def ready(self) -> bool:
        """Whether at least one host answers and says that it is ready."""
        return any(await asyncio.gather(*(self._host_ready(name) for name in self._names)))

    # -- behind it ---------------------------------------------------------------------------------------------------

    def _handle(self, name: str) -> Handle:
        if name not in self._handles:
            self._handles[name] = self._handle_of(name)
        return self._handles[name]

    async def _host_of(self, model: str) -> Handle:
        if model not in self._cards:
            await self._look()
        card = self._cards.get(model)
        if card is None:
            raise ModelNotFound("There is no such model.", param="model")
        return self._handle(card.host)

    async def _look(self) -> None:
        asked = time.monotonic()
        async with self._looking:
            if self._looked >= asked:  # another request looked while this one waited
                return
            found = await asyncio.gather(*(self._host_cards(name) for name in self._names))
            cards = {card.name: card for host in found if host for card in host}
            if not any(host is not None for host in found) and not self._cards:
                raise Unavailable("No host is ready yet.", retry_after_seconds=1.0)
            self._cards = {**self._cards, **cards} if None in found else cards
            self._listed = tuple(self._cards.values())
            self._looked = time.monotonic()

    async def _host_cards(self, name: str) -> tuple[Card, ...] | None:
        answer: tuple[Card, ...] | None = await self._ask(name, "cards")
        return answer

    async def _host_ready(self, name: str) -> bool:
        return bool(await self._ask(name, "ready"))

    async def _ask(self, name: str, method: str) -> Any:
        try:
            async with asyncio.timeout(_GRACE_SECONDS):
                return await getattr(self._handle(name), method).remote()
        except (RayError, RayServeException, TimeoutError):
            return None

    async def _broadcast(self, name: str) -> tuple[Exposition, ...]:
        try:
            async with asyncio.timeout(_GRACE_SECONDS):
                return tuple(await self._handle(name).broadcast("exposition").results_async())
        except (RayError, RayServeException, TimeoutError):
            return ()

    async def _streamed(self, request: Complete | Draw) -> AsyncGenerator[Any, None]:
        handle = await self._host_of(request.model)
        for last_try in (False, True):
            begun = False
            items: Any = handle.options(stream=True).stream.remote(request)
            try:
                async with _Cancelling(items):
                    async for item in items:
                        if isinstance(item, ServingError):
                            raise item
                        begun = True
                        yield item
            except (RayError, RayServeException) as error:
                if begun or last_try or not isinstance(error, RayActorError):
                    raise _translated(error) from error
            else:
                return

    async def _twice(self, request: Request, send: Callable[[Handle], Awaitable[T | ServingError]]) -> T:
        handle = await self._host_of(request.model)
        limit = None if request.timeout_seconds is None else request.timeout_seconds + _GRACE_SECONDS
        try:
            async with asyncio.timeout(limit):
                try:
                    answer: T | ServingError = await _answer(send(handle))
                except RayActorError:
                    answer = await _answer(send(handle))
        except TimeoutError as error:
            raise DeadlineExceeded("The time limit passed before the answer was complete.") from error
        except (RayError, RayServeException) as error:
            raise _translated(error) from error
        if isinstance(answer, ServingError):
            raise answer
        return answer


def _handle(host: str) -> Handle:
    """Make a host's handle, deployed yet or not.

    Not by `serve.get_app_handle`, which asks the controller and waits for its answer on the event loop.
    """
    return DeploymentHandle("Host", host)


async def _answer(response: Any) -> Any:
    """Wait for a call's answer; cancel the call where nobody waits any more."""
    try:
        return await response
    except asyncio.CancelledError:
        response.cancel()
        raise


class _Cancelling:
    """Cancel a remote stream that is left before its end."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._stream.cancel()


def _translated(error: Exception) -> ServingError:
    if isinstance(error, BackPressureError):
        return QueueFull("The model's waiting line is full.", retry_after_seconds=1.0)
    if isinstance(error, RayActorError):
        return ReplicaLost("The replica that worked on this request was lost.", retry_after_seconds=1.0)
    if isinstance(error, DeploymentUnavailableError):
        return Unavailable("The model's host is not available.", retry_after_seconds=1.0)
    return Unavailable("The model's host could not answer.", retry_after_seconds=1.0)
