"""The host without Ray, and the client of hosts over handles written by hand, which fail as Ray's do."""

import asyncio
import pickle
from collections.abc import AsyncGenerator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from deployments import host as host_module
from deployments.errors import (
    BadRequest,
    CalibrationNotFound,
    DeadlineExceeded,
    ModelNotFound,
    QueueFull,
    ReplicaLost,
    ServingError,
    Unavailable,
)
from deployments.host import Host, RemoteModels
from deployments.messages import Calibrate, Calibrations, Complete, Exposition, Reply, Score, TensorItem

SCORE = Score("tiny-ae", (TensorItem([0.75] * 64),))
SAY = Complete("tiny-text", ("abc",), max_tokens=4, temperature=0.0)


class Response:
    """What `handle.method.remote()` gives back: awaitable, cancellable; or a stream."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer
        self.cancelled = False

    def __await__(self) -> Any:
        return self._answer.__await__()

    async def __aiter__(self) -> AsyncGenerator[Any, None]:
        async for event in self._answer:
            yield event

    def cancel(self) -> None:
        self.cancelled = True


class Handle:
    """Calls a host in this process, as a handle calls a replica. `failures` are raised by the next calls instead."""

    def __init__(self, host: Any) -> None:
        self.host = host
        self.failures: list[Exception | None] = []
        self.calls: list[str] = []
        self.responses: list[Response] = []

    def options(self, *, stream: bool) -> "Handle":
        assert stream
        return self

    def __getattr__(self, method: str) -> "Method":
        return Method(self, method)

    def broadcast(self, method: str) -> "Broadcast":
        return Broadcast(self, method)

    def take_failure(self) -> Exception | None:
        return self.failures.pop(0) if self.failures else None


class Method:
    def __init__(self, handle: Handle, name: str) -> None:
        self._handle, self._name = handle, name

    def remote(self, *args: Any) -> Response:
        handle = self._handle
        handle.calls.append(self._name)
        sent = pickle.loads(pickle.dumps(args))  # noqa: S301 - our own bytes
        answer = getattr(handle.host, self._name)(*sent)
        response = Response(self._stream(answer) if self._name == "stream" else self._value(answer))
        handle.responses.append(response)
        return response

    async def _value(self, answer: Any) -> Any:
        failure = self._handle.take_failure()
        if failure is not None:
            answer.close()
            raise failure
        return await answer

    async def _stream(self, answer: Any) -> AsyncGenerator[Any, None]:
        failure = self._handle.take_failure()
        if failure is not None:
            raise failure
        async for event in answer:
            yield event
            failure = self._handle.take_failure()
            if failure is not None:
                await answer.aclose()
                raise failure


class Broadcast:
    def __init__(self, handle: Handle, method: str) -> None:
        self._handle, self._method = handle, method

    async def results_async(self) -> list[Any]:
        failure = self._handle.take_failure()
        if failure is not None:
            raise failure
        return [await getattr(self._handle.host, self._method)()]


@pytest.fixture
def host(tiny: Path) -> Iterator[Host]:
    made = Host({"name": "studio", "store": str(tiny), "models": ["tiny-ae", "tiny-text"], "device": "cpu"})
    yield made
    made.studio.close()


@pytest.fixture
def handle(host: Host) -> Handle:
    return Handle(host)


@pytest.fixture
def remote(handle: Handle) -> RemoteModels:
    return RemoteModels(["studio"], lambda name: handle)  # type: ignore[arg-type, return-value]


def lost() -> RayActorError:
    return RayActorError()


# -- one replica -------------------------------------------------------------------------------------------------------


async def test_calibrations_through_the_gateway(remote: RemoteModels, handle: Handle) -> None:
    items = tuple(TensorItem([0.5 + place / 100] * 64) for place in range(19))
    await remote.cards()
    handle.failures = [lost()]  # a replica is lost: the same again is the same calibration
    made = (await remote.call(Calibrate("tiny-ae", items))).calibrations[0]
    found = (await remote.call(Calibrations("tiny-ae", "list"))).calibrations
    assert [each.id for each in found] == ["tiny-ae:1", "tiny-ae:1", made.id]
    assert (await remote.call(replace(SCORE, calibration=made.id))).calibration == made.id
    with pytest.raises(CalibrationNotFound):
        await remote.call(Calibrations("tiny-ae", "find", "tiny-ae:1:no"))
    assert (await remote.call(Calibrations("tiny-ae", "delete", made.id))).calibrations == (made,)


async def test_a_host_answers_with_values(host: Host) -> None:
    assert isinstance(await host.call(SCORE), Reply)
    assert [card.host for card in await host.cards()] == ["studio", "studio"]
    (answer,) = await host.collect(SAY)  # type: ignore[misc]
    assert answer.text == "defg"


async def test_a_hosts_errors_are_values_too(host: Host) -> None:
    wrong = Score("tiny-ae", (TensorItem([0.0]),))
    assert isinstance(await host.call(wrong), BadRequest)
    assert isinstance(await host.collect(Complete("none", ("abc",))), ModelNotFound)
    events = [event async for event in host.stream(Complete("none", ("abc",)))]
    assert [type(event) for event in events] == [ModelNotFound]


async def test_a_host_is_healthy_until_an_engine_is_not(host: Host) -> None:
    assert await host.ready()
    host.check_health()
    host.studio.close()
    assert not await host.ready()
    with pytest.raises(RuntimeError, match="engine"):
        host.check_health()


def test_a_host_that_never_opened_can_be_dropped() -> None:
    Host.__new__(Host).__del__()


# -- the client of hosts -----------------------------------------------------------------------------------------------


async def test_requests_go_to_the_models_host(remote: RemoteModels, handle: Handle) -> None:
    assert (await remote.call(SCORE)).outputs[0].score == 0.25
    (answer,) = await remote.collect(SAY)
    assert answer.text == "defg"
    assert "".join([delta.text async for delta in remote.stream(SAY)]) == "defg"
    assert handle.calls == ["cards", "call", "collect", "stream"]


async def test_an_adapter_is_found_where_its_model_is(tiny: Path) -> None:
    host = Host({"name": "studio", "store": str(tiny), "models": ["adapted-text"], "device": "cpu"})
    remote = RemoteModels(["studio"], lambda name: Handle(host))  # type: ignore[arg-type, return-value]
    (answer,) = await remote.collect(replace(SAY, model="adapted-text:twice"))
    assert answer.text == "egik"
    with pytest.raises(ModelNotFound):
        await remote.collect(replace(SAY, model="adapted-text:none"))
    host.studio.close()


async def test_domain_errors_come_back_as_themselves(remote: RemoteModels) -> None:
    with pytest.raises(BadRequest) as error:
        await remote.call(Score("tiny-ae", (TensorItem([0.0]),)))
    assert error.value.param == "input[0].tensor.data"
    with pytest.raises(BadRequest):
        await remote.collect(Complete("tiny-text", ("",)))
    with pytest.raises(BadRequest):
        _ = [delta async for delta in remote.stream(Complete("tiny-text", ("",)))]


async def test_an_unknown_model_is_looked_for_once_more_and_not_found(
    remote: RemoteModels, handle: Handle
) -> None:
    await remote.cards()
    with pytest.raises(ModelNotFound):
        await remote.call(Score("none", ()))
    assert handle.calls == ["cards", "cards"]


async def test_many_unknown_models_at_once_are_looked_for_together(
    remote: RemoteModels, handle: Handle
) -> None:
    asked = (remote.call(Score("none", ())) for _ in range(20))
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(answer) for answer in answers} == {ModelNotFound}
    assert len(handle.calls) <= 2


async def test_cards_are_remembered_for_a_while(
    remote: RemoteModels, handle: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await remote.cards() == await remote.cards()
    assert handle.calls == ["cards"]
    monkeypatch.setattr(host_module, "_CARDS_SECONDS", -1.0)
    handle.failures = [DeploymentUnavailableError.__new__(DeploymentUnavailableError)]
    assert len(await remote.cards()) == 2  # a host that does not answer now keeps its models


async def test_without_any_host_there_is_nothing(remote: RemoteModels, handle: Handle) -> None:
    handle.failures = [lost()] * 3
    assert not await remote.ready()
    with pytest.raises(Unavailable) as error:
        await remote.cards()
    assert error.value.retry_after_seconds
    assert await remote.expositions() == ()
    assert await remote.ready()


@pytest.mark.parametrize("act", ["call", "collect", "stream"])
async def test_what_a_lost_replica_did_not_begin_is_tried_once_more(
    remote: RemoteModels, handle: Handle, act: str
) -> None:
    await remote.cards()
    handle.failures = [lost()]
    assert await asked(remote, act)
    handle.failures = [lost(), lost()]
    with pytest.raises(ReplicaLost):
        await asked(remote, act)
    assert handle.calls.count(act) == 4


async def asked(remote: RemoteModels, act: str) -> Any:
    if act == "call":
        return await remote.call(SCORE)
    if act == "collect":
        return await remote.collect(SAY)
    return [delta async for delta in remote.stream(SAY)]


async def test_a_stream_that_has_begun_is_not_begun_again(remote: RemoteModels, handle: Handle) -> None:
    await remote.cards()
    handle.failures = [None, None, lost()]
    deltas = remote.stream(SAY)
    assert [(await anext(deltas)).text for _ in range(2)] == ["d", "e"]
    with pytest.raises(ReplicaLost):
        await anext(deltas)
    assert handle.calls.count("stream") == 1


async def test_leaving_a_stream_cancels_it_on_the_other_side(remote: RemoteModels, handle: Handle) -> None:
    deltas = remote.stream(SAY)
    await anext(deltas)
    await deltas.aclose()
    assert handle.responses[-1].cancelled


async def test_a_stream_read_to_its_end_is_not_cancelled(remote: RemoteModels, handle: Handle) -> None:
    _ = [delta async for delta in remote.stream(SAY)]
    assert not handle.responses[-1].cancelled


async def test_leaving_a_call_cancels_it_on_the_other_side(remote: RemoteModels, handle: Handle) -> None:
    await remote.cards()
    hangs(handle)
    asking = asyncio.create_task(remote.call(SCORE))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert handle.responses[-1].cancelled


async def test_a_host_that_hangs_is_given_up_after_the_limit(
    remote: RemoteModels, handle: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    await remote.cards()
    hangs(handle)
    monkeypatch.setattr(host_module, "_GRACE_SECONDS", 0.005)
    with pytest.raises(DeadlineExceeded):
        await remote.call(Score("tiny-ae", (), timeout_seconds=0.005))
    assert handle.responses[-1].cancelled


def hangs(handle: Handle) -> None:
    class Hanging:
        async def call(self, request: Any) -> None:
            await asyncio.get_running_loop().create_future()

    handle.host = Hanging()


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (BackPressureError.__new__(BackPressureError), QueueFull),
        (DeploymentUnavailableError.__new__(DeploymentUnavailableError), Unavailable),
        (RayTaskError("f", "traceback", ValueError("secret")), Unavailable),  # type: ignore[no-untyped-call]
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
@pytest.mark.parametrize("act", ["call", "collect", "stream"])
async def test_rays_errors_become_the_domains(
    remote: RemoteModels, handle: Handle, act: str, failure: Exception, kind: type[ServingError]
) -> None:
    await remote.cards()
    handle.failures = [failure]
    with pytest.raises(kind) as error:
        await asked(remote, act)
    assert "secret" not in error.value.message
    assert error.value.retry_after_seconds


async def test_every_replica_shows_its_figures(
    remote: RemoteModels, handle: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def exposition() -> Exposition:
        return Exposition("replica-1", "figures")

    handle.host.exposition = exposition
    assert await remote.expositions() == (Exposition("replica-1", "figures"),)
