import dataclasses
import pickle
import subprocess
import sys
from typing import Any, get_args

import pytest

from deployments import messages
from deployments.messages import (
    Array,
    Calibrate,
    Calibrations,
    Card,
    Complete,
    Draw,
    Exposition,
    ImageItem,
    Interpolate,
    Output,
    Reply,
    Request,
    Score,
    TensorItem,
    TextDelta,
    Timings,
    TokenLogprob,
    Usage,
)

MESSAGES = [
    kind
    for kind in vars(messages).values()
    if dataclasses.is_dataclass(kind) and kind.__module__.startswith(messages.__name__)
]
EXAMPLES: list[Any] = [
    Complete("m", ("abc", (1, 2)), stop=("x",)),
    Score("m", (ImageItem(b"png"), TensorItem([[1.0]], (1, 1))), threshold=0.5),
    Calibrate("m", (ImageItem(b"png"),), labels=(False,), method="quantile", level=0.5),
    Calibrations("m", "find", "m:1:ab"),
    Interpolate("m", [1.0], TensorItem(b"\0\0\0\0")),
    Draw("m", "circle", size=(8, 8)),
    TextDelta(
        0, "a", (1,), (TokenLogprob(b"a", -0.5, ((b"a", -0.5),), 0),), "stop", Usage(1, 2), Timings(), "1"
    ),
    Reply(
        (Output(image=b"png"), Output(array=Array((2,), b"\0" * 8))), "1", Timings(1, 2, 3, 4), Usage(items=2)
    ),
    Card("m", "1", 0, "t", "f", ("c",), "d", "l"),
    Exposition("r", "text"),
]


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_a_message_survives_the_way_between_processes(message: Any) -> None:
    assert pickle.loads(pickle.dumps(message)) == message  # noqa: S301 - our own bytes


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
def test_messages_are_frozen_and_small(kind: Any) -> None:
    assert kind.__dataclass_params__.frozen
    assert "__slots__" in vars(kind)


def test_every_request_says_for_whom_it_is_and_how_long_it_may_take() -> None:
    for kind in get_args(Request):
        names = {field.name for field in dataclasses.fields(kind)}
        assert names >= {"model", "version", "request_id", "timeout_seconds"}


def test_messages_need_neither_pydantic_nor_numpy() -> None:
    code = "import sys, deployments.messages; print({'pydantic', 'numpy', 'ray'} & sys.modules.keys())"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"
