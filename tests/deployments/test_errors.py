import pickle

import pytest

from deployments import errors
from deployments.errors import BadRequest, QueueFull, ReplicaLost, ServingError, Unavailable

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ServingError)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_survives_the_way_between_processes(kind: type[ServingError]) -> None:
    error = kind("Said so.", code="special", param="input[1]", retry_after_seconds=1.5)
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(again) is kind
    assert vars(again) == vars(error)
    assert str(again) == "Said so."


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_has_a_code_and_stands_in_the_tree(kind: type[ServingError]) -> None:
    assert kind("x").code == kind.code
    assert kind.__name__ in (errors.__doc__ or "")


def test_an_error_without_details() -> None:
    error = QueueFull("Full.")
    assert (error.code, error.param, error.retry_after_seconds) == ("queue_full", None, None)


def test_a_lost_replica_is_a_kind_of_unavailable() -> None:
    assert issubclass(ReplicaLost, Unavailable)
    assert not issubclass(BadRequest, Unavailable)
