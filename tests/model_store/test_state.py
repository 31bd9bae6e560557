"""State buffers: what moves where, and that no pointer leaves its buffer."""

import gc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from model_store.device import gpus
from model_store.memory import COPY_GRAPH
from model_store.session import Device, choose_device
from model_store.state import StateBuffer, copy, copy_on


def numbered(slots: int, *row_shape: int) -> StateBuffer:
    """A buffer whose slot i holds i everywhere."""
    buffer = StateBuffer(slots, row_shape)
    for slot in range(slots):
        copy(np.full(row_shape, slot, np.float32), buffer.place(slot, 1))
    return buffer


def test_a_new_buffer_is_zero_and_knows_its_shape() -> None:
    buffer = StateBuffer(4, (2, 3), np.float16)
    assert buffer.shape == (4, 2, 3)
    assert buffer.read().dtype == np.float16
    assert not buffer.read().any()


def test_a_place_is_a_slice_that_keeps_the_memory_alive() -> None:
    place = numbered(4, 2, 3).place(1, 2)
    gc.collect()
    seen = np.empty(place.shape, np.float32)
    copy(place, seen)
    assert seen.shape == (2, 2, 3)
    assert seen[:, 0, 0].tolist() == [1, 2]


@pytest.mark.parametrize(("first", "count"), [(-1, 1), (0, 0), (0, 5), (4, 1), (3, 2), (5, None)])
def test_no_pointer_leaves_the_buffer(first: int, count: int | None) -> None:
    with pytest.raises(ValueError, match="there are no slots"):
        StateBuffer(4, (2,)).place(first, count)


@given(st.data())
def test_moves_clears_and_copies_are_those_of_an_array(data: st.DataObject) -> None:
    slots = st.integers(0, 4)
    buffer, other = numbered(5, 3), StateBuffer(5, (3,))
    expected = np.repeat(np.arange(5, dtype=np.float32)[:, None], 3, axis=1)
    for _ in range(data.draw(st.integers(0, 6))):
        match data.draw(st.sampled_from(["move", "clear", "copy_from"])):
            case "move":
                source, target = data.draw(slots), data.draw(slots)
                buffer.move(source, target)
                expected[target] = expected[source]
            case "clear":
                slot = data.draw(slots)
                buffer.clear(slot)
                expected[slot] = 0
            case _:
                first = data.draw(slots)
                count = data.draw(st.integers(1, 5 - first))
                buffer.copy_from(other, first, count)
                expected[first : first + count] = 0
    assert (buffer.read() == expected).all()


def test_memory_of_another_size_is_not_copied() -> None:
    with pytest.raises(ValueError, match="12 bytes do not fit into 8"):
        copy(np.zeros(3, np.float32), StateBuffer(1, (2,)).place())


def test_the_copy_graph_is_what_onnx_writes() -> None:
    value = [helper.make_tensor_value_info(name, TensorProto.UINT8, ["n"]) for name in "xy"]
    made = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "c", value[:1], value[1:])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    assert model.SerializeToString() == COPY_GRAPH


def test_a_graph_copies_slices_as_memory_does() -> None:
    """The way of devices whose memory this process cannot reach, walked on the CPU."""
    buffer = numbered(4, 5)
    copy_on(Device("cpu"), buffer.place(3, 1), buffer.place(0, 1))
    copy_on(Device("cpu"), np.full((1, 5), 9, np.float32), buffer.place(1, 1))
    seen = np.empty((4, 5), np.float32)
    copy_on(Device("cpu"), buffer.place(), seen)
    assert seen[:, 0].tolist() == [3, 9, 2, 3]
    assert (buffer.read() == seen).all()


@pytest.mark.skipif(gpus() == 0, reason="no CUDA device")
def test_state_on_a_gpu() -> None:
    device = choose_device("cuda")
    buffer, other = StateBuffer(4, (3,), device=device), StateBuffer(4, (3,), device=device)
    for slot in range(4):
        copy(np.full(3, slot, np.float32), buffer.place(slot, 1))
    buffer.move(3, 0)
    buffer.clear(1)
    other.copy_from(buffer, 0, 3)
    assert buffer.read()[:, 0].tolist() == [3, 0, 2, 3]
    assert other.read()[:, 0].tolist() == [3, 0, 2, 0]
