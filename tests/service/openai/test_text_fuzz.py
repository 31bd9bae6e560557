"""Any JSON in any place of a text request: an answer or a small refusal that names a place, never a failure of ours."""

import asyncio
from typing import Any

import orjson
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from deployments.metrics import Metrics
from service.api import create_app
from service.openai.schemas.errors import ErrorBody
from service.settings import Settings
from tests.service.models import Models
from tests.service.openai.text_requests import BESIDE, TEXT_PARTS, TEXT_REQUESTS
from tests.service.wire import Exchange

NUMBERS = (
    st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([0, 1, -1])
)
LEAVES = st.none() | st.booleans() | NUMBERS | st.text(max_size=20)
KEYS = st.sampled_from(
    ["type", "text", "name", "function", "content", "role", "json_schema", "schema"]
) | st.text(max_size=5)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)

GOODS = {f"{route}-{i}": (route, good) for i, (_, route, good, _) in enumerate(TEXT_REQUESTS)}
GOODS |= {f"beside-{i}": (route, {**good, **fields}) for i, (route, good, fields) in enumerate(BESIDE)}
GOODS |= {
    f"{part.__name__}-{name}": case[:2] for part, cases in TEXT_PARTS.items() for name, case in cases.items()
}


@pytest.fixture(scope="module")
def app() -> FastAPI:
    return create_app(Models(), Settings(), Metrics(CollectorRegistry()))


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, inner in below for place in places(inner, (*path, key)))]


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    key, *rest = path
    if isinstance(value, dict):
        return {**value, key: replaced(value[key], tuple(rest), new)}
    return [replaced(inner, tuple(rest), new) if i == key else inner for i, inner in enumerate(value)]


@pytest.mark.parametrize("name", GOODS)
@examples(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_anything_anywhere(app: FastAPI, name: str, data: st.DataObject) -> None:
    route, good = GOODS[name]
    path = data.draw(st.sampled_from(places(good)[1:]))
    body = orjson.dumps(replaced(good, path, data.draw(JSON)))
    exchange = asyncio.run(Exchange(f"/v1/{route}", [body]).run(app))
    assert exchange.ended
    assert exchange.status in (200, 400, 404), exchange.body
    if exchange.status != 200:
        assert len(exchange.body) <= 2048
        error = ErrorBody.model_validate_json(exchange.body).error
        assert error.message


FIELDS = sorted({field for schema, *_ in TEXT_REQUESTS for field in schema.model_fields})


@pytest.mark.parametrize("name", sorted({route for _, route, *_ in TEXT_REQUESTS}))
@examples(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(extra=st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=5))
def test_any_fields_together(app: FastAPI, name: str, extra: dict[str, Any]) -> None:
    good = next(good for _, route, good, _ in TEXT_REQUESTS if route == name)
    exchange = asyncio.run(Exchange(f"/v1/{name}", [orjson.dumps({**good, **extra})]).run(app))
    assert exchange.ended
    assert exchange.status in (200, 400, 404), exchange.body
