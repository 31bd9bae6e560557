import inspect
from typing import Annotated

import orjson
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException

from deployments import errors as domain
from service import errors as door
from service.errors import BUG, KINDS, clean, place_of, problem_of
from service.openai.schemas.errors import ErrorBody

EVERY = [
    kind
    for module in (domain, door)
    for _, kind in inspect.getmembers(module, inspect.isclass)
    if issubclass(kind, domain.ServingError) and kind not in (domain.ServingError, door.Refusal)
]


@pytest.mark.parametrize("kind", EVERY)
def test_every_domain_error_stands_in_the_table(kind: type[domain.ServingError]) -> None:
    problem = problem_of(kind("What happened."))
    assert problem is not BUG
    assert problem.message == "What happened."
    assert problem.code == kind.code
    ErrorBody.model_validate_json(problem.body())


@pytest.mark.parametrize(
    ("error", "status", "kind", "code", "retry_after"),
    [
        (domain.BadRequest("x", code="unknown_class", param="prompt"), 400, "invalid_request_error", "unknown_class", None),
        (domain.ModelNotFound("x"), 404, "not_found_error", "model_not_found", None),
        (door.TooLarge("x"), 413, "invalid_request_error", "body_too_large", None),
        (door.UnsupportedMedia("x"), 415, "invalid_request_error", "unsupported_media_type", None),
        (domain.QueueFull("x"), 429, "rate_limit_error", "queue_full", "1"),
        (domain.QueueFull("x", retry_after_seconds=2.2), 429, "rate_limit_error", "queue_full", "3"),
        (domain.QueueFull("x", retry_after_seconds=0.0), 429, "rate_limit_error", "queue_full", "1"),
        (domain.Cancelled("x"), 499, "invalid_request_error", "cancelled", None),
        (domain.QueueFull("x", code="queue_too_long"), 429, "rate_limit_error", "queue_too_long", "1"),
        (domain.ModelFault("x"), 500, "server_error", "internal", None),
        (domain.StepFailed("x"), 503, "server_error", "step_failed", "1"),
        (domain.Unavailable("x"), 503, "server_error", "unavailable", "1"),
        (domain.ReplicaLost("x"), 503, "server_error", "replica_lost", "1"),
        (domain.DeadlineExceeded("x"), 504, "server_error", "deadline_exceeded", None),
        (HTTPException(404), 404, "not_found_error", "not_found", None),
        (HTTPException(405, headers={"Allow": "POST, GET"}), 405, "invalid_request_error", "method_not_allowed", None),
        (HTTPException(406), 406, "invalid_request_error", "invalid_request", None),
        (ValueError("secret path /etc"), 500, "server_error", "internal", None),
        (domain.ServingError("not in the table"), 500, "server_error", "internal", None),
    ],
)  # fmt: skip
def test_the_table(error: Exception, status: int, kind: str, code: str, retry_after: str | None) -> None:
    problem = problem_of(error)
    assert (problem.status, problem.type, problem.code) == (status, kind, code)
    assert problem.headers.get("retry-after") == retry_after


def test_methods_are_listed_in_one_order() -> None:
    assert problem_of(HTTPException(405, headers={"Allow": "POST, GET"})).headers == {"allow": "GET, POST"}


def test_a_bug_tells_nothing_of_itself() -> None:
    assert b"secret" not in problem_of(RuntimeError("secret")).body()


def test_a_refused_body_closes_the_connection() -> None:
    assert problem_of(door.TooLarge("x")).headers == {"connection": "close"}
    assert problem_of(domain.BadRequest("x")).headers == {}


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    size: int


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    items: list[Inner]
    few: Annotated[list[int], Field(max_length=2)] = []


@pytest.mark.parametrize(
    ("body", "param", "code", "message"),
    [
        ({}, "items", "missing_required_parameter", "Missing required parameter: 'items'."),
        ({"items": 1}, "items", "invalid_type", "Invalid 'items': input should be a valid list."),
        ({"items": [{"size": 1}, {"size": "1"}]}, "items[1].size", "invalid_type", "Invalid 'items[1].size': input should be a valid integer."),
        ({"items": [{}]}, "items[0].size", "missing_required_parameter", "Missing required parameter: 'items[0].size'."),
        ({"items": [3]}, "items[0]", "invalid_type", "Invalid 'items[0]': expected an object."),
        ({"items": [], "n": 1}, "n", "unknown_parameter", "Unknown parameter: 'n'."),
        ({"items": [], "<n>": 1}, "<n>", "unknown_parameter", "Unknown parameter: '<n>'."),
        ({"items": [{"size": 1, "a\nb": 1}]}, "items[0].a?b", "unknown_parameter", "Unknown parameter: 'items[0].a?b'."),
        ({"items": [], "few": [1, 2, 3]}, "few", "invalid_value", "Invalid 'few': list should have at most 2 items, not 3."),
        (3, None, "invalid_type", "Invalid the body: expected an object."),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_body_has_a_place(
    body: object, param: str | None, code: str, message: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(body)
    problem = problem_of(caught.value)
    assert (problem.status, problem.param, problem.code, problem.message) == (400, param, code, message)


def test_branches_of_a_union_are_no_places() -> None:
    assert place_of(("from", "<item>", "image")) == "from.image"
    assert place_of(("<item>",)) is None


@examples(deadline=None, max_examples=50)
@given(st.text(), st.text())
def test_no_error_body_is_longer_than_2_kb_or_carries_control_characters(message: str, param: str) -> None:
    body = problem_of(domain.BadRequest(message * 40, param=param * 40)).body()
    assert len(body) <= 2048
    assert all(letter.isprintable() for letter in orjson.loads(body)["error"]["message"])


@examples(deadline=None, max_examples=50)
@given(st.text(), st.integers(0, 50))
def test_cleaning_keeps_printable_text_up_to_the_limit(text: str, limit: int) -> None:
    kept = clean(text, limit)
    assert len(kept.encode()) <= limit
    if text.isprintable() and len(text.encode()) <= limit:
        assert kept == text


def test_the_table_names_no_kind_twice() -> None:
    assert len({(kind.status, key) for key, kind in KINDS.items()}) == len(KINDS)
