"""Sessions, bindings and state on the CPU; what needs a GPU is at the end and skipped without one."""

import gc
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from model_store import session as module
from model_store.device import gpus
from model_store.errors import (
    BrokenGraph,
    DeviceUnavailable,
    RunFailed,
)
from model_store.session import Binding, Device, Session, choose_device, open_graph
from model_store.state import StateBuffer
from model_store.store import Store
from tests import packages
from tests.graphs import Array, Sketch


def graph(*, dynamic: bool = True) -> bytes:
    """`y = x + 1`, `sum = total of x`; float32 [batch, 3]."""
    sketch = Sketch()
    x = sketch.input("x", "float32", "batch" if dynamic else 2, 3)
    sketch("Add", x, sketch.constant(1, "float32"), into=["y"])
    sketch("ReduceSum", x, keepdims=0, into=["sum"])
    sketch.output("y", "float32", "batch" if dynamic else 2, 3)
    sketch.output("sum", "float32")
    return sketch.model("plus")


@pytest.mark.parametrize(("own", "kept"), [(None, "1"), ("0", "0")])
def test_attention_is_not_tiled_unless_someone_wants_it(own: str | None, kept: str) -> None:
    name = "ORT_GQA_DISABLE_FLASH_ATTENTION"
    environment = {key: value for key, value in os.environ.items() if key != name}
    environment |= {} if own is None else {name: own}
    told = f"import os, model_store.session; print(os.environ[{name!r}])"
    done = subprocess.run(
        [sys.executable, "-c", told], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == kept


# -- devices -------------------------------------------------------------------------------------------------


def test_cpu_is_a_device() -> None:
    assert choose_device("cpu") == Device("cpu")
    assert str(choose_device("cpu")) == "cpu"


@pytest.mark.skipif(gpus() > 0, reason="a GPU is here")
def test_without_a_gpu_auto_is_the_cpu_and_cuda_is_refused() -> None:
    assert choose_device("auto") == Device("cpu")
    for setting in ("cuda", "cuda:0", "cuda:3"):
        with pytest.raises(
            DeviceUnavailable, match=r"there is no cuda:[03]: the CUDA driver shows 0 devices"
        ):
            choose_device(setting)


@pytest.mark.skipif(gpus() > 0, reason="a GPU is here")
def test_a_gpu_without_cuda_libraries_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """A laptop with a GPU and without the extra: `auto` works and says why it is slow, `cuda` is refused."""
    monkeypatch.setattr(module, "gpus", lambda: 1)
    assert choose_device("auto") == Device("cpu")
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith(
        "running on the CPU: cuda:0 cannot run graphs: CUDA 13 or cuDNN 9 is missing"
    )
    with pytest.raises(DeviceUnavailable, match=r"\(extra `cuda`\); Failed to load libcu"):
        choose_device("cuda")
    with pytest.raises(DeviceUnavailable, match="there is no cuda:1: the CUDA driver shows 1 devices"):
        choose_device("cuda:1")
    assert capfd.readouterr() == ("", "")


def test_a_build_without_cuda_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert choose_device("auto") == Device("cpu")
    with pytest.raises(DeviceUnavailable, match="has no CUDA provider; install onnxruntime-gpu"):
        choose_device("cuda")


@pytest.mark.skipif(gpus() > 0, reason="a GPU is here")
def test_a_cuda_session_never_falls_back() -> None:
    with pytest.raises(DeviceUnavailable, match="cuda:0 cannot run graphs"):
        Session(graph(), device=Device("cuda"))


@pytest.mark.parametrize(
    "setting", ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:100", "auto:1", "CPU", "cpu:0", "cpu\n"]
)
def test_an_unknown_device_is_refused(setting: str) -> None:
    with pytest.raises(DeviceUnavailable, match="must be auto, cpu, cuda or cuda:<n>"):
        choose_device(setting)


def test_importing_choosing_and_running_prints_nothing() -> None:
    """The GPU wheel on a machine without a GPU is quiet, a graph that fails to run as well."""
    program = """
import numpy as np
from model_store.errors import PackageError
from model_store.session import Session, choose_device
graph = bytes.fromhex(%r)
for attempt in (
    lambda: choose_device("cuda:7"),
    lambda: Session(b"not a graph"),
    lambda: Session(graph).run({"x": np.zeros((1, 4), np.float32)}),
    lambda: Session(graph).bind({}, {"y": np.zeros((9, 9), np.float32)}).run(),
):
    try:
        attempt()
    except PackageError:
        continue
    raise SystemExit("not refused")
choose_device("auto")
Session(graph).run({"x": np.zeros((1, 3), np.float32)})
"""
    done = subprocess.run(
        [sys.executable, "-c", program % graph().hex()],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# -- run -----------------------------------------------------------------------------------------------------


def test_run_returns_what_was_named_in_that_order() -> None:
    opened = Session(graph())
    feeds = {"x": np.array([[1, 2, 3]], np.float32)}
    assert opened.inputs == ("x",)
    assert opened.outputs == ("y", "sum")
    total, plus = opened.run(feeds, ["sum", "y"])
    assert total == 6
    assert plus.tolist() == [[2, 3, 4]]
    assert len(opened.run(feeds)) == 2


@pytest.mark.parametrize(
    ("feeds", "outputs"),
    [
        ({}, ["y"]),
        ({"x": np.zeros((1, 4), np.float32)}, ["y"]),
        ({"x": np.zeros((1, 3), np.int64)}, ["y"]),
        ({"x": np.zeros((1, 3), np.float32), "z": np.zeros(1, np.float32)}, ["y"]),
        ({"x": np.zeros((1, 3), np.float32)}, ["z"]),
    ],
)
def test_a_wrong_run_fails_in_one_line(feeds: dict[str, Array], outputs: list[str]) -> None:
    with pytest.raises(RunFailed) as raised:
        Session(graph()).run(feeds, outputs)
    assert "\n" not in str(raised.value)
    assert "/onnxruntime_src" not in str(raised.value)
    assert len(str(raised.value)) <= 300


@pytest.mark.parametrize("content", [b"", b"\0" * 40, b"<html></html>", graph()[:-20]])
def test_what_is_no_graph_does_not_open(content: bytes) -> None:
    with pytest.raises(BrokenGraph, match="the graph does not open"):
        Session(content)


def test_settings_reach_onnx_runtime() -> None:
    opened = Session(graph(), threads=3, spin=False)
    options = opened._session.get_session_options()
    assert options.intra_op_num_threads == 3
    assert options.inter_op_num_threads == 1
    assert options.execution_mode == onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    assert options.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert not options.enable_profiling
    assert opened._session.get_providers() == ["CPUExecutionProvider"]
    assert (
        Session(graph())
        ._session.get_session_options()
        .get_session_config_entry("session.intra_op.allow_spinning")
        == "1"
    )


def test_a_profile_is_written_where_it_was_asked_for(tmp_path: Path) -> None:
    opened = Session(graph(), profile=tmp_path / "plus")
    opened.run({"x": np.zeros((1, 3), np.float32)})
    written = opened.end_profile()
    assert written.parent == tmp_path
    assert b"ReduceSum" in written.read_bytes()


def test_terminate_stops_a_run_that_would_not_end() -> None:
    opened = Session(endless_loop())
    outcome: list[BaseException] = []

    def work() -> None:
        try:
            opened.run({"x": np.zeros(1, np.float32)})
        except RunFailed as error:
            outcome.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.05)
    opened.terminate()
    thread.join(10)
    assert not thread.is_alive()
    assert "terminate" in str(outcome[0]).lower()
    with pytest.raises(RunFailed):
        opened.run({"x": np.zeros(1, np.float32)})


def endless_loop() -> bytes:
    """Adds 1 to `x` 2^62 times."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Add", ["state", "one"], ["next"]),
            helper.make_node("Identity", ["go"], ["again"]),
        ],
        "body",
        [
            value("i", TensorProto.INT64, []),
            value("go", TensorProto.BOOL, []),
            value("state", TensorProto.FLOAT, [1]),
        ],
        [value("again", TensorProto.BOOL, []), value("next", TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(np.ones(1, np.float32), "one")],
    )
    outer = helper.make_graph(
        [helper.make_node("Loop", ["times", "", "x"], ["y"], body=body)],
        "endless",
        [value("x", TensorProto.FLOAT, [1])],
        [value("y", TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(np.array(2**62, np.int64), "times")],
    )
    opset = [helper.make_opsetid("", 20)]
    content: bytes = helper.make_model(outer, opset_imports=opset, ir_version=10).SerializeToString()
    return content


# -- bind ----------------------------------------------------------------------------------------------------


def test_a_binding_reads_and_writes_the_same_arrays_every_time() -> None:
    x, y = np.zeros((2, 3), np.float32), np.empty((2, 3), np.float32)
    binding = Session(graph()).bind({"x": x}, {"y": y})
    for value in (0, 1, 5):
        x[:] = value
        binding.run()
        assert (y == value + 1).all()


def test_a_binding_keeps_alive_what_it_points_to() -> None:
    """A freed temporary once gave wrong lengths minutes later."""
    y = np.empty((512, 3), np.float32)
    binding = Session(graph()).bind({"x": np.full((512, 3), 7, np.float32)}, {"y": y})
    gc.collect()
    rubbish = [np.full((512, 3), -1, np.float32) for _ in range(50)]
    binding.run()
    assert (y == 8).all()
    del rubbish


def test_rows_of_a_larger_array_are_bound_in_place() -> None:
    x, y = np.arange(12, dtype=np.float32).reshape(4, 3), np.zeros((4, 3), np.float32)
    Session(graph()).bind({"x": x[1:3]}, {"y": y[2:4]}).run()
    assert y.tolist() == [[0, 0, 0], [0, 0, 0], [4, 5, 6], [7, 8, 9]]


def test_what_has_no_plain_memory_is_not_bound() -> None:
    opened, x = Session(graph()), np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match="contiguous"):
        opened.bind({"x": np.zeros((3, 2), np.float32).T}, {"y": x})
    frozen = np.zeros((2, 3), np.float32)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="writeable"):
        opened.bind({"x": x}, {"y": frozen})
    opened.bind({"x": frozen}, {"y": x}).run()


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ({"z": np.zeros((2, 3), np.float32)}, {"y": np.zeros((2, 3), np.float32)}),
        ({"x": np.zeros((2, 3), np.float32)}, {"z": np.zeros((2, 3), np.float32)}),
        ({"x": np.zeros((2, 3), np.float32)}, {"y": np.zeros((1, 3), np.float32)}),
        ({"x": np.zeros((2, 3), np.float32)}, {"y": np.zeros((2, 3), np.int64)}),
        ({"x": np.zeros((2, 3), np.int32)}, {"y": np.zeros((2, 3), np.float32)}),
        ({}, {"y": np.zeros((2, 3), np.float32)}),
    ],
)
def test_a_wrong_binding_fails(inputs: dict[str, Array], outputs: dict[str, Array]) -> None:
    with pytest.raises(RunFailed):
        Session(graph()).bind(inputs, outputs).run()


def test_a_reused_binding_costs_little_more_than_onnx_runtime() -> None:
    """Generous: the ratio is near 1 on a quiet machine, and this must not fail on a busy one."""
    content, x, y = graph(), np.zeros((2, 3), np.float32), np.empty((2, 3), np.float32)
    binding = Session(content).bind({"x": x}, {"y": y})
    bare = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    io = bare.io_binding()
    io.bind_input("x", "cpu", 0, np.float32, x.shape, x.ctypes.data)
    io.bind_output("y", "cpu", 0, np.float32, y.shape, y.ctypes.data)
    assert best(binding.run) < 3 * best(lambda: bare.run_with_iobinding(io)) + 20e-6


def best(work: object, repeats: int = 5, runs: int = 50) -> float:
    assert callable(work)
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        for _ in range(runs):
            work()
        seconds.append((time.perf_counter() - began) / runs)
    return min(seconds)


# -- captured bindings: all of it but the capture itself runs on a CPU as well ---------------------------------------


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs read no host array where it lies."""
    monkeypatch.setattr(module, "_inputs_on", lambda _, opened: {node.name for node in opened.get_inputs()})


@pytest.mark.usefixtures("away")
@pytest.mark.parametrize("capture", [False, True])
def test_a_twin_is_what_its_array_is_at_every_run(capture: bool) -> None:
    x, y, total = np.zeros((2, 3), np.float32), np.empty((2, 3), np.float32), np.zeros((), np.float32)
    binding = Session(graph()).bind({"x": x}, {"y": y, "sum": total}, capture=capture)
    for value in (0, 1, 1, 5, np.nan, 0):
        x[:] = value
        binding.run()
        np.testing.assert_array_equal(y, value + 1)
        np.testing.assert_array_equal(total, value * 6)


@pytest.mark.usefixtures("away")
@pytest.mark.parametrize("rows", [0, 1, 4, module._SMALL])
def test_twins_of_any_size(rows: int) -> None:
    x, y = np.ones((rows, 3), np.float32), np.empty((rows, 3), np.float32)
    binding = Session(graph()).bind({"x": x}, {"y": y}, capture=True)
    for value in (1, 2):
        x[:] = value
        binding.run()
        assert (y == value + 1).all()


@pytest.mark.usefixtures("away")
def test_what_is_written_where_it_is_read_stays_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    both = np.zeros((2, 3), np.float32)
    binding = Session(graph()).bind({"x": both}, {"y": both}, capture=True)
    (twin,) = binding._twins.values()
    binding.run()
    with monkeypatch.context() as patch:
        patch.setattr(twin, "value", None)  # no copy to it
        twin.push()
    binding.run()
    assert (both == 2).all()
    both[0] = 7  # the host has a say
    binding.run()
    assert both[:, 0].tolist() == [8, 3]


@pytest.mark.usefixtures("away")
def test_a_capture_of_several_passes_is_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first run of a captured graph goes through it more than once, and would add 1 as often."""
    both = np.zeros((2, 3), np.float32)
    opened = Session(graph())
    run, seen = opened._session.run_with_iobinding, set[int]()

    def capturing(binding: object, options: object) -> None:
        for _ in range(1 if id(binding) in seen else 3):
            run(binding, options)
        seen.add(id(binding))

    monkeypatch.setattr(opened._session, "run_with_iobinding", capturing)
    binding = opened.bind({"x": both}, {"y": both}, capture=True)
    for count in range(1, 4):
        binding.run()
        assert (both == count).all()


def test_rows_of_one_array_have_twins_of_their_own() -> None:
    y = np.zeros((4, 3), np.float32)
    opened = Session(graph())
    bindings = [
        opened.bind({"x": np.full((2, 3), i, np.float32)}, {"y": y[2 * i : 2 * i + 2]}, capture=True)
        for i in (0, 1)
    ]
    for binding in bindings:
        binding.run()
    assert y[:, 0].tolist() == [1, 1, 2, 2]


def test_places_are_bound_as_they_are() -> None:
    x, y = StateBuffer(2, (3,)), StateBuffer(2, (3,))
    binding = Session(graph()).bind({"x": x.place()}, {"y": y.place()}, capture=True)
    assert not binding._twins
    binding.run()
    assert (y.read() == 1).all()


def test_the_home_of_an_input_is_where_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Session(graph())
    assert opened.home("x") == Device("cpu")
    opened.device = Device("cuda", 1)  # as on a GPU whose library has no kernel for it
    assert opened.home("x") == Device("cpu")
    monkeypatch.setattr(module, "_inputs_on", lambda *_: {"x"})
    assert opened.home("x") == Device("cuda", 1)


def test_every_captured_graph_has_a_number_of_its_own() -> None:
    opened = Session(graph())
    x, y = np.zeros((2, 3), np.float32), np.empty((2, 3), np.float32)
    bindings = [opened.bind({"x": x}, {"y": y}, capture=number > 0) for number in range(4)]
    ids = [each._run_options.get_run_config_entry("gpu_graph_id") for each in bindings]
    assert ids == ["-1", "1", "2", "3"]


def test_a_captured_graph_goes_with_its_binding(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Session(graph())
    released: list[int] = []
    monkeypatch.setattr(opened._session, "release_captured_graph", released.append)
    x, y = np.zeros((2, 3), np.float32), np.empty((2, 3), np.float32)
    bindings = [opened.bind({"x": x}, {"y": y}, capture=True) for _ in range(2)]
    del bindings[0]
    gc.collect()
    assert released == [1]


def test_terminate_stops_captured_bindings_as_well() -> None:
    opened = Session(graph())
    x, y = np.zeros((2, 3), np.float32), np.empty((2, 3), np.float32)
    bindings = [opened.bind({"x": x}, {"y": y}, capture=capture) for capture in (False, True)]
    opened.terminate()
    for binding in bindings:
        with pytest.raises(RunFailed):
            binding.run()


def test_a_rehearsal_is_a_run_and_a_replay() -> None:
    feeds = {"x": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))}
    plain, captured = Session(graph()), Session(graph(), capture=True)
    for opened in (plain, captured):
        total, plus = opened.rehearse(feeds, ["sum", "y"])
        assert (total.item(), plus.tolist()) == (15, [[1, 2, 3], [4, 5, 6]])
    assert [next(opened._graph_ids) for opened in (plain, captured)] == [1, 2]


@pytest.mark.parametrize("capture", [False, True])
def test_the_provider_is_told_whether_to_capture(capture: bool) -> None:
    first, last = module._providers(Device("cuda", 1), capture=capture)
    assert (first[0], last) == (module.CUDA, module.CPU)
    assert isinstance(first[1], dict)
    assert first[1]["device_id"] == "1"
    assert first[1]["enable_cuda_graph"] == str(int(capture))
    assert module._providers(Device("cpu"), capture=capture) == [module.CPU]


@pytest.mark.parametrize("fault", ["opening", "replay"])
def test_a_graph_that_cannot_be_captured_runs_without(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As CUDA would refuse it: when it is opened (control flow), or by other numbers than the golden ones."""
    package = Store(str(packages.autoencoder(tmp_path).parents[1])).open("tiny-ae")
    real, real_twin = onnxruntime.InferenceSession, module._Twin

    def opened(
        content: bytes, options: object, providers: list[tuple[str, dict[str, str]]], **more: int
    ) -> object:
        captures = providers[0][1]["enable_cuda_graph"] == "1"
        if captures and fault == "opening":
            raise RuntimeError("the model has control flow nodes")
        made = real(content, options, [module.CPU], **more)
        made.get_providers = lambda: [module.CUDA]
        return made

    monkeypatch.setattr(onnxruntime, "InferenceSession", opened)
    monkeypatch.setattr(module, "_Twin", lambda host, _: real_twin(host, Device("cpu")))
    if fault == "replay":
        monkeypatch.setattr(Binding, "run", lambda _: None)
    session = open_graph(package, "decode", device=Device("cuda"), capture=True)
    assert not session.captures
    assert "tiny-ae: decode runs without captured graphs" in caplog.text


# -- with a GPU ----------------------------------------------------------------------------------------------


@pytest.mark.skipif(gpus() == 0, reason="no CUDA device")
class TestOnCuda:
    """Written for a machine with a GPU, CUDA 13 and cuDNN 9."""

    device = Device("cuda")

    def test_auto_takes_the_gpu(self) -> None:
        assert choose_device("auto") == choose_device("cuda") == choose_device("cuda:0") == self.device

    def test_a_binding_reads_and_writes_host_arrays_every_time(self) -> None:
        choose_device("cuda")
        x, y = np.zeros((2, 3), np.float32), np.empty((2, 3), np.float32)
        binding = Session(graph(), device=self.device).bind({"x": x}, {"y": y})
        for value in (0, 1, 5):
            x[:] = value
            binding.run()
            assert (y == value + 1).all()

    def test_a_captured_binding_is_replayed(self) -> None:
        choose_device("cuda")
        x, y = np.zeros((2, 3), np.float32), np.empty((2, 3), np.float32)
        opened = Session(graph(), device=self.device, capture=True)
        bindings = [
            opened.bind({"x": x}, {"y": y}, capture=True),
            opened.bind({"x": y}, {"y": x}, capture=True),
        ]
        for value in (0, 1, 5):
            x[:] = value
            for binding in bindings:
                binding.run()
            assert (y == value + 1).all()
            assert (x == value + 2).all()
            opened.bind({"x": x}, {"y": y}).run()  # beside them, without
            assert (y == value + 3).all()

    def test_what_is_written_where_it_is_read_stays_on_the_device(self) -> None:
        choose_device("cuda")
        both = np.zeros((2, 3), np.float32)
        binding = Session(graph(), device=self.device, capture=True).bind(
            {"x": both}, {"y": both}, capture=True
        )
        (twin,) = binding._twins.values()
        for count in range(1, 4):
            binding.run()
            assert (both == twin.host).all()
            assert (both == count).all()
