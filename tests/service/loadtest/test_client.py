import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from time import perf_counter
from typing import Any

import aiohttp
import pytest
from starlette.responses import HTMLResponse, JSONResponse, Response

from service.loadtest.client import error_name, open_session, send
from service.loadtest.record import Record
from service.loadtest.workload import Call
from tests.service.loadtest.known_server import DONE, Server, chunk, refusal, stream, usage

TEXT = Call("/v1/completions", b'{"model": "gpt", "max_tokens": 4, "stream": true}', stream=True)
PLAIN = Call("/v1/completions", b'{"model": "gpt", "max_tokens": 4, "stream": false}')
SCORE = Call("/v1/anomalies", b'{"model": "ae", "input": [{}, {}]}')

Ask = Callable[[Call], Awaitable[Record]]


def answering(response: Response) -> Callable[[dict[str, Any]], Awaitable[Response]]:
    async def handler(body: dict[str, Any]) -> Response:
        return response

    return handler


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_session(10, {"x-extra": "yes"}) as opened:
        yield opened


@pytest.fixture
def ask(session: aiohttp.ClientSession, server: Server) -> Ask:
    async def one(call: Call) -> Record:
        return await send(session, server.url, call, due=None, start=perf_counter())

    return one


async def test_a_known_delay_is_measured(ask: Ask, server: Server) -> None:
    server.delay = 0.05
    latencies = sorted([(await ask(SCORE)).latency for _ in range(9)])
    assert latencies[0] >= 0.05
    assert latencies[4] < 0.15


async def test_items_and_pictures_are_counted_from_the_answer(ask: Ask) -> None:
    assert (await ask(SCORE)).items == 2
    assert (await ask(Call("/v1/images/generations", b'{"model": "gan", "n": 3}'))).images == 3


async def test_headers_are_sent(ask: Ask, server: Server) -> None:
    await ask(SCORE)
    assert server.headers[0]["x-extra"] == "yes"
    assert server.headers[0]["content-type"] == "application/json"


async def test_stream_times_are_those_of_its_tokens(ask: Ask, server: Server) -> None:
    server.handler = answering(
        stream(0.1, chunk("a"), 0.1, chunk("b"), 0.1, chunk("c"), 0.7, usage(7, 3), DONE)
    )
    record = await ask(TEXT)
    assert record.error is None
    assert record.first_token is not None
    assert 0.1 <= record.first_token < 0.25
    assert sum(record.gaps) == pytest.approx(0.2, abs=0.1)
    # What follows the last token (usage, the end mark) is no part of the answer's latency.
    assert 0.3 <= record.latency < 0.7
    assert (record.input_tokens, record.output_tokens) == (7, 3)


async def test_events_are_counted_where_there_is_no_usage(ask: Ask, server: Server) -> None:
    server.handler = answering(stream(chunk("a"), chunk("b"), chunk(""), DONE))
    assert (await ask(TEXT)).output_tokens == 2


async def test_events_cut_anywhere_are_put_together(ask: Ask, server: Server) -> None:
    whole = chunk("a") + chunk("b") + usage(1, 2) + DONE
    parts = [piece for start in range(0, len(whole), 7) for piece in (whole[start : start + 7], 0.0)]
    server.handler = answering(stream(*parts))
    record = await ask(TEXT)
    assert (record.error, record.output_tokens, len(record.outputs)) == (None, 2, 2)


async def test_text_without_a_stream_has_usage_and_no_token_times(ask: Ask) -> None:
    record = await ask(PLAIN)
    assert (record.error, record.output_tokens, record.outputs) == (None, 4, ())


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (refusal(429, "queue_full"), "429 queue_full"),
        (refusal(503, "unavailable"), "503 unavailable"),
        (HTMLResponse("<h1>Bad Gateway</h1>", 502), "502 without a JSON error"),
        (JSONResponse({"error": "message"}, 400), "400 without a JSON error"),
        (JSONResponse({"error": {"message": "m", "code": None}}, 400), "400"),
        (HTMLResponse("<h1>Hello</h1>"), "unreadable answer"),
        (JSONResponse([1]), "unreadable answer"),
        (JSONResponse({"data": [3]}), "unreadable answer"),
    ],
)
async def test_refusals_are_named(ask: Ask, server: Server, response: Response, error: str) -> None:
    server.handler = answering(response)
    record = await ask(SCORE)
    assert record.error == error
    assert record.items == 0


@pytest.mark.parametrize(
    ("parts", "error"),
    [
        ((chunk("a"),), "stream ended without [DONE]"),
        ((), "stream ended without [DONE]"),
        ((chunk("a"), 'data: {"error": {"code": "replica_lost"}}\n\n'), "in the stream: replica_lost"),
        ((chunk("a"), 'data: {"error": {"type": "server_error"}}\n\n', DONE), "in the stream: server_error"),
        (("data: {\n\n", DONE), "unreadable event in the stream"),
        (("data: []\n\n", DONE), "unreadable event in the stream"),
        (('data: {"error": "text"}\n\n', DONE), "unreadable event in the stream"),
    ],
)
async def test_broken_streams_are_failures(
    ask: Ask, server: Server, parts: tuple[str, ...], error: str
) -> None:
    server.handler = answering(stream(*parts))
    record = await ask(TEXT)
    assert record.error == error
    assert record.output_tokens == 0


async def test_silence_ends_with_the_timeout(server: Server) -> None:
    async with open_session(0.3, {}) as impatient:
        server.delay = 2.0
        record = await send(impatient, server.url, SCORE, due=None, start=perf_counter())
        assert record.error == "timeout"
        assert 0.3 <= record.latency < 1.5
        server.delay = 0
        server.handler = answering(stream(chunk("a"), 2.0, chunk("b"), DONE))
        record = await send(impatient, server.url, TEXT, due=None, start=perf_counter())
        assert record.error == "timeout"


async def test_nobody_listens(session: aiohttp.ClientSession, closed_port: str) -> None:
    record = await send(session, closed_port, SCORE, due=None, start=perf_counter())
    assert record.error is not None
    assert record.error.startswith("cannot connect")


@pytest.mark.parametrize(
    ("sent", "call", "error"),
    [
        (b"", SCORE, "connection lost"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{", SCORE, "answer cut short"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\ndata:\r\n", TEXT, "answer cut short"),
        (b"not HTTP at all\r\n\r\n", SCORE, "client error: ClientResponseError"),
    ],
)
async def test_a_connection_that_breaks(
    session: aiohttp.ClientSession, sent: bytes, call: Call, error: str
) -> None:
    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(sent)
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(break_off, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    record = await send(session, f"http://127.0.0.1:{port}", call, due=None, start=perf_counter())
    listener.close()
    assert record.error == error


async def test_times_count_from_the_start_and_from_when_it_was_due(
    session: aiohttp.ClientSession, server: Server
) -> None:
    start = perf_counter() - 10
    record = await send(session, server.url, SCORE, due=start + 9.5, start=start)
    assert record.due == pytest.approx(9.5)
    assert record.sent == pytest.approx(10, abs=0.1)
    assert record.lag == pytest.approx(0.5, abs=0.1)


async def test_more_requests_in_flight_than_a_default_pool_has(ask: Ask, server: Server) -> None:
    server.delay = 0.2
    records = await asyncio.gather(*(ask(SCORE) for _ in range(150)))
    assert {record.error for record in records} == {None}
    assert server.most_live > 100


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b'{"error": null}', b"\xff"])
def test_any_body_names_at_least_the_status(body: bytes) -> None:
    assert error_name(500, body) == "500 without a JSON error"
