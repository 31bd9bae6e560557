import dataclasses
import pickle
from typing import Any

import pytest

from deployments.messages import Reply, TensorItem, latents
from deployments.messages.latents import Combine, Compress, Compression, Decompress, File, Group, Traverse

ITEM = TensorItem([1.0])
EXAMPLES: list[Any] = [
    Traverse("m", ITEM, 3, -1.0, 1.0, unit="deviation"),
    Combine("m", (Group((ITEM, [1.0])), Group((b"\0\0\0\0",), -1.0))),
    Compress("m", (ITEM,)),
    Decompress("m", b"x"),
    Reply((), "1", compression=Compression(b"x", 0.5, None, None, File(3, 20.0, fits=False))),
]


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_a_message_survives_the_way_between_processes(message: Any) -> None:
    assert pickle.loads(pickle.dumps(message)) == message  # noqa: S301 - our own bytes


def test_messages_are_frozen_and_small() -> None:
    kinds: list[Any] = [kind for kind in vars(latents).values() if dataclasses.is_dataclass(kind)]
    assert len(kinds) == 7
    for kind in kinds:
        assert kind.__dataclass_params__.frozen
        assert "__slots__" in vars(kind)
