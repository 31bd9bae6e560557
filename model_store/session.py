"""Opening a package's graph and running it: provider, threads, raw memory bound in place. Knows no batching.

The only importer of ONNX Runtime, whose exceptions end here: whoever runs a graph sees `model_store.errors`.
"""

import contextlib
import ctypes
import functools
import io
import logging
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
from numpy.typing import DTypeLike
from onnxruntime.capi import onnxruntime_pybind11_state as native

from model_store import golden
from model_store.device import HOST, Device, gpus
from model_store.errors import BrokenGraph, DeviceUnavailable, RunFailed
from model_store.memory import Array, Place, bytes_of, flat, place_of, target_of
from model_store.package import Package
from model_store.verify import check_graph, external_path

__all__ = [
    "Array",
    "Binding",
    "Device",
    "Place",
    "Session",
    "StateBuffer",
    "choose_device",
    "copy",
    "open_graph",
]

logger = logging.getLogger(__name__)

CUDA: Final = "CUDAExecutionProvider"
CPU: Final = "CPUExecutionProvider"
# Every failure also arrives as an exception; ONNX Runtime's own lines on stderr would only repeat it.
_SILENT: Final = 4
_DTYPES: Final = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}
# ONNX Runtime's exceptions have no common base. ValueError: some of its messages are not even text.
_FAILURES: Final[tuple[type[Exception], ...]] = (
    *(kind for kind in vars(native).values() if isinstance(kind, type) and issubclass(kind, Exception)),
    RuntimeError,
    ValueError,
)
onnxruntime.disable_telemetry_events()
onnxruntime.set_default_logger_severity(_SILENT)

# An ONNX file that copies bytes: `y = Identity(x)`, uint8 [n]. The one way to move a slice of device memory that works
# on every provider; a test compares it with what `onnx.helper` writes.
COPY_GRAPH: Final = bytes.fromhex(
    "080a3a390a100a017812017922084964656e746974791201635a100a0178120b0a09080212050a0312016e"
    "62100a0179120b0a09080212050a0312016e42040a001014"
)


def choose_device(setting: str) -> Device:
    """Device for a setting: `cpu`, `cuda`, `cuda:<n>`, or `auto` (CUDA where it works, else the CPU).

    Raises DeviceUnavailable where the setting is unknown, or asks for CUDA and it does not work: nothing falls back
    but `auto`, which logs why when there is a GPU.
    """
    if setting == "cpu":
        return HOST
    match = re.fullmatch(r"(auto|cuda)(?:(?<=cuda):([0-9]{1,2}))?", setting)
    if not match:
        raise DeviceUnavailable(f"the device must be auto, cpu, cuda or cuda:<n>, not {setting!r:.40}")
    device = Device("cuda", int(match[2] or 0))
    reason = _why_not(device)
    if reason is None:
        return device
    if match[1] == "cuda":
        raise DeviceUnavailable(reason)
    if gpus():
        logger.warning("running on the CPU: %s", reason)
    return HOST


def _why_not(device: Device) -> str | None:
    """Why graphs cannot run on a CUDA device, or None."""
    if CUDA not in onnxruntime.get_available_providers():
        return "the installed ONNX Runtime has no CUDA provider; install onnxruntime-gpu"
    count = gpus()
    if device.index >= count:
        return f"there is no {device}: the CUDA driver shows {count} devices to this process"
    with contextlib.redirect_stdout(io.StringIO()) as said:  # it prints what it misses
        onnxruntime.preload_dlls()
    try:
        _copier(device)
    except (DeviceUnavailable, BrokenGraph) as error:
        return "; ".join([str(error), *said.getvalue().splitlines()[:1]])
    return None


class Session:
    """One open graph. `run` may be called from any thread; a `Binding` belongs to one thread at a time."""

    def __init__(
        self,
        graph: bytes,
        *,
        device: Device = HOST,
        threads: int = 1,
        spin: bool = True,
        external: Mapping[str, bytes] | None = None,
        profile: Path | None = None,
    ) -> None:
        """Open an ONNX file from memory; `external` has the files its outside weights are in, by their location.

        `threads` work inside an operator (0: one per core); with `spin` they wait busily between operators, which is
        15-25 % faster and takes the cores from others. `profile` is where ONNX Runtime writes its profile (off without).
        Raises BrokenGraph, DeviceUnavailable.
        """
        self.device = device
        options = _options(threads, spin=spin, profile=profile)
        if external:
            sizes = [len(content) for content in external.values()]
            options.add_external_initializers_from_files_in_memory(
                list(external), list(external.values()), sizes
            )
        try:
            self._session = onnxruntime.InferenceSession(
                graph, options, _providers(device), enable_fallback=0, read_config_from_model=0
            )
        except _FAILURES as error:
            raise BrokenGraph(f"the graph does not open: {_sentence(error)}") from error
        # The wrapper would hold the file's bytes as long as the session lives.
        self._session._model_bytes = None  # noqa: SLF001
        if device.kind == "cuda" and self._session.get_providers()[0] != CUDA:
            raise DeviceUnavailable(
                f"{device} cannot run graphs: CUDA 13 or cuDNN 9 is missing (extra `cuda`)"
            )
        self._run_options = _run_options()
        self.inputs = tuple(node.name for node in self._session.get_inputs())
        self.outputs = tuple(node.name for node in self._session.get_outputs())

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> list[Array]:
        """Outputs (all, in the graph's order, where none are named) for arrays by input name. Raises RunFailed."""
        try:
            results: list[Array] = self._session.run(outputs, feeds, self._run_options)
        except _FAILURES as error:
            raise RunFailed(_sentence(error)) from error
        return results

    def bind(self, inputs: Mapping[str, Array | Place], outputs: Mapping[str, Array | Place]) -> "Binding":
        """Fix where the graph reads and writes, once for many runs.

        Arrays must be contiguous. Every run reads the input arrays anew and fills the output arrays, also where the
        graph runs on another device. A place may be input and output at once if the graph allows it.
        Raises RunFailed for a name the graph does not have, ValueError for an array that cannot be bound.
        """
        return Binding(self._session, self._run_options, self.device, inputs, outputs)

    def declares(self) -> tuple[dict[str, golden.Declared], dict[str, golden.Declared]]:
        """Type and sizes of the inputs and of the outputs by name; a size is None or a name where it may vary."""
        inputs, outputs = (
            {node.name: (_DTYPES.get(node.type, node.type), tuple(node.shape)) for node in nodes}
            for nodes in (self._session.get_inputs(), self._session.get_outputs())
        )
        return inputs, outputs

    def terminate(self) -> None:
        """Stop the run in progress at its next operator and refuse later ones: both raise RunFailed."""
        self._run_options.terminate = True

    def end_profile(self) -> Path:
        """Finish the profile that was asked for at opening. Returns the file written."""
        return Path(self._session.end_profiling())


class Binding:
    """Inputs and outputs bound by pointer. It keeps alive all it points to; ONNX Runtime does not."""

    def __init__(
        self,
        session: Any,
        run_options: Any,
        device: Device,
        inputs: Mapping[str, Array | Place],
        outputs: Mapping[str, Array | Place],
    ) -> None:
        self._session, self._run_options = session, run_options
        self._kept = (dict(inputs), dict(outputs))
        # ONNX Runtime copies host memory to another device when it is bound, not when the graph runs: such inputs get
        # a twin on the device, refreshed before every run.
        self._twins: list[tuple[Any, Array]] = []
        on_device = _inputs_on(device, session)
        places = {name: place_of(source) for name, source in inputs.items()}
        targets = {name: place_of(target, writeable=True) for name, target in outputs.items()}
        try:
            self._io = session.io_binding()
            for name, place in places.items():
                source = inputs[name]
                if name in on_device and not isinstance(source, Place):
                    twin = onnxruntime.OrtValue.ortvalue_from_numpy(source, device.kind, device.index)
                    self._io.bind_ortvalue_input(name, twin)
                    self._twins.append((twin, source))
                else:
                    self._io.bind_input(name, *target_of(place))
            for name, place in targets.items():
                self._io.bind_output(name, *target_of(place))
        except _FAILURES as error:
            raise RunFailed(_sentence(error)) from error

    def run(self) -> None:
        """Run once. Raises RunFailed."""
        try:
            for twin, source in self._twins:
                twin.update_inplace(source)
            self._session.run_with_iobinding(self._io, self._run_options)
        except _FAILURES as error:
            raise RunFailed(_sentence(error)) from error


class StateBuffer:
    """Zeroed memory on a device for the state of `slots` rows: [slots, *row_shape], rows one after another."""

    def __init__(
        self, slots: int, row_shape: Sequence[int], dtype: DTypeLike = np.float32, device: Device = HOST
    ) -> None:
        self.shape = (slots, *row_shape)
        self.dtype = np.dtype(dtype)
        self.device = device
        self._row_bytes = math.prod(row_shape) * self.dtype.itemsize
        if device.kind == "cpu":
            array = np.zeros(self.shape, self.dtype)
            self._memory: object = array
            self._pointer = array.ctypes.data
        else:
            size = [slots * self._row_bytes]
            value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(
                size, np.uint8, device.kind, device.index
            )
            value.update_inplace(np.zeros(size, np.uint8))
            self._memory, self._pointer = value, value.data_ptr()

    def place(self, first: int = 0, count: int | None = None) -> Place:
        """Slots `first` to `first + count` (default: all from `first` on), to be bound. Raises ValueError outside."""
        count = self.shape[0] - first if count is None else count
        if first < 0 or count < 1 or first + count > self.shape[0]:
            raise ValueError(f"there are no slots {first} to {first + count} among {self.shape[0]}")
        pointer = self._pointer + first * self._row_bytes
        return Place(pointer, (count, *self.shape[1:]), self.dtype, self.device, self._memory)

    def move(self, source: int, target: int) -> None:
        """Copy one slot to another."""
        copy(self.place(source, 1), self.place(target, 1))

    def copy_from(self, other: "StateBuffer", first: int, count: int) -> None:
        """Copy slots `first` to `first + count` of a buffer like this one to the same places here."""
        copy(other.place(first, count), self.place(first, count))

    def clear(self, slot: int) -> None:
        """Zero one slot."""
        copy(np.zeros(self.shape[1:], self.dtype), self.place(slot, 1))

    def read(self, first: int = 0, count: int | None = None) -> Array:
        """A copy of some slots' content, on the host."""
        place = self.place(first, count)
        content = np.empty(place.shape, place.dtype)
        copy(place, content)
        return content


def copy(source: Array | Place, target: Array | Place) -> None:
    """Copy memory of equal size to memory on the same device, or from or to the host. They must not overlap.

    Raises ValueError where sizes differ.
    """
    read, written = place_of(source), place_of(target, writeable=True)
    size = bytes_of(read)
    if size != bytes_of(written):
        raise ValueError(f"{size} bytes do not fit into {bytes_of(written)}")
    if read.device.kind == written.device.kind == "cpu":
        ctypes.memmove(written.pointer, read.pointer, size)
    else:
        copy_on(written.device if read.device.kind == "cpu" else read.device, source, target)


def copy_on(device: Device, source: Array | Place, target: Array | Place) -> None:
    """`copy` by a graph on `device`, which reaches memory that this process cannot."""
    _copier(device).bind({"x": flat(source)}, {"y": flat(target)}).run()


@functools.cache
def _copier(device: Device) -> Session:
    return Session(COPY_GRAPH, device=device)


def _inputs_on(device: Device, session: Any) -> set[str]:
    """Inputs the graph reads from a device's own memory. Some (scalars that steer a kernel) stay on the host."""
    if device.kind == "cpu":
        return set()
    homes = zip(session.get_inputs(), session.get_input_memory_infos(), strict=True)
    return {node.name for node, home in homes if home.name.lower() == device.kind}


def _options(threads: int, *, spin: bool, profile: Path | None) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _SILENT
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
    # Never guess the format from the content: only ONNX was checked.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    return options


def _run_options() -> Any:
    options = onnxruntime.RunOptions()
    options.log_severity_level = _SILENT
    # "No captured graph." Where nothing is said, its Python layer raises and catches to find out: 40 us for every run.
    options.add_run_config_entry("gpu_graph_id", "-1")
    return options


def _providers(device: Device) -> list[str | tuple[str, dict[str, str]]]:
    if device.kind == "cpu":
        return [CPU]
    settings = {
        "device_id": str(device.index),
        # The default tries all algorithms at every new shape, and every batch size is one.
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
        # Ten bits of mantissa would not reproduce the golden outputs.
        "use_tf32": "0",
    }
    return [(CUDA, settings), CPU]


def _sentence(error: BaseException) -> str:
    """ONNX Runtime's message in one line, without the folders of the machine it was built on."""
    return re.sub(r"(?<![\w.])/(?:[\w.+-]+/)+", "", " ".join(str(error).split()))[:300]


def open_graph(
    package: Package,
    graph_name: str,
    *,
    device: Device = HOST,
    threads: int = 1,
    spin: bool = True,
    replay: bool = True,
) -> Session:
    """Open a graph of a package and replay its golden input: what opens gives the exporter's numbers.

    Raises BrokenGraph, ForbiddenOperator, GoldenMismatch, DeviceUnavailable, and WrongDigest, ... for files that are
    not what they were when the package was opened.
    """
    manifest = package.manifest
    try:
        graph = manifest.graphs[graph_name]
    except KeyError:
        raise BrokenGraph(f"{manifest.name}:{manifest.version} has no graph {graph_name!r}") from None
    content = package.read(graph.file)
    try:
        found = check_graph(graph.file, content, manifest, package.limits)
        weights = {at: package.read(external_path(graph.file, at, manifest)) for at in sorted(found.external)}
        session = Session(content, device=device, threads=threads, spin=spin, external=weights)
        golden.check_signature(graph, *session.declares())
        if replay:
            golden.replay(graph, package.read, session.run)
    except BrokenGraph as error:
        raise type(error)(f"{manifest.name}:{manifest.version}, graph {graph_name}: {error}") from error
    return session
