"""Opening a package's graph and running it: provider, threads, raw memory bound in place. Knows no batching.

The only importer of ONNX Runtime, whose exceptions end here: whoever runs a graph sees `model_store.errors`.
"""

import contextlib
import io
import itertools
import logging
import os
import re
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as native

from model_store import golden
from model_store.device import HOST, Device, gpus
from model_store.errors import BrokenGraph, DeviceUnavailable, RunFailed
from model_store.memory import COPY_GRAPH, Array, Place, place_of, target_of
from model_store.package import Package
from model_store.verify import check_graph, external_path

__all__ = ["Array", "Binding", "Device", "Place", "Session", "choose_device", "open_graph"]

Bound: TypeAlias = Mapping[str, Array | Place]

logger = logging.getLogger(__name__)

CUDA: Final = "CUDAExecutionProvider"
CPU: Final = "CPUExecutionProvider"
# Every failure also arrives as an exception; ONNX Runtime's own lines on stderr would only repeat it.
_SILENT: Final = 4
# Bytes. Larger arrays are copied to a device without a look at whether they have changed.
_SMALL: Final = 1 << 14
_DTYPES: Final = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}
# ONNX Runtime's exceptions have no common base. ValueError: some of its messages are not even text.
_FAILURES: Final[tuple[type[Exception], ...]] = (
    *(kind for kind in vars(native).values() if isinstance(kind, type) and issubclass(kind, Exception)),
    RuntimeError,
    ValueError,
)
# In tiles, attention on a CPU rounds otherwise as a prompt is cut otherwise, and where there are more threads than heads: the
# same seed would not give the same bytes. It also takes 11 % more of a step of 16 short rows, and a fifth less of one long one.
os.environ.setdefault("ORT_GQA_DISABLE_FLASH_ATTENTION", "1")
onnxruntime.disable_telemetry_events()
onnxruntime.set_default_logger_severity(_SILENT)


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
        Session(COPY_GRAPH, device=device)
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
        capture: bool = False,
    ) -> None:
        """Open an ONNX file from memory; `external` has the files its outside weights are in, by their location.

        `capture`: let bindings be captured on CUDA, which a graph with control flow does not allow. `threads` work inside an operator (0: one per core); with `spin` they wait busily between operators, which is 15-25 % faster and takes the cores from
        others. `profile` is where ONNX Runtime writes its profile (off without).
        Raises BrokenGraph, DeviceUnavailable.
        """
        self.device = device
        self.captures = capture
        options = _options(threads, spin=spin, profile=profile)
        if external:
            sizes = [len(content) for content in external.values()]
            options.add_external_initializers_from_files_in_memory(
                list(external), list(external.values()), sizes
            )
        try:
            self._session = onnxruntime.InferenceSession(
                graph,
                options,
                _providers(device, capture=capture),
                enable_fallback=0,
                read_config_from_model=0,
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
        self._graph_ids = itertools.count(1)  # 0 is ONNX Runtime's own
        self._graph_options: weakref.WeakSet[Any] = weakref.WeakSet()
        self.inputs = tuple(node.name for node in self._session.get_inputs())
        self.outputs = tuple(node.name for node in self._session.get_outputs())

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> list[Array]:
        """Outputs (all, in the graph's order, where none are named) for arrays by input name. Raises RunFailed."""
        try:
            results: list[Array] = self._session.run(outputs, feeds, self._run_options)
        except _FAILURES as error:
            raise RunFailed(_sentence(error)) from error
        return results

    def bind(self, inputs: Bound, outputs: Bound, *, capture: bool = False) -> "Binding":
        """Fix where the graph reads and writes, once for many runs.

        Arrays must be contiguous. Every run reads the input arrays anew and fills the output arrays, also where the
        graph runs on another device. A place may be input and output at once if the graph allows it.
        `capture`: the first run records what the device does, later ones only replay it; inputs that the graph reads from
        the host count as they were in the first run.
        Raises RunFailed for a name the graph does not have, ValueError for an array that cannot be bound.
        """
        if not capture:
            return Binding(self._session, self._run_options, self.device, inputs, outputs, fixed=False)
        number = next(self._graph_ids)
        options = _run_options(number)
        self._graph_options.add(options)
        binding = Binding(self._session, options, self.device, inputs, outputs, fixed=True)
        weakref.finalize(binding, self._session.release_captured_graph, number).atexit = False
        return binding

    def rehearse(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """The same as `run`; where bindings are captured, by a captured one and its replay. Raises RunFailed."""
        results = self.run(feeds, outputs)
        if self.captures:
            feeds = {name: np.array(feed, order="C") for name, feed in feeds.items()}
            binding = self.bind(feeds, dict(zip(outputs, results, strict=True)), capture=True)
            for _ in range(2):
                for result in results:
                    result[...] = 0
                binding.run()
        return results

    def home(self, name: str) -> Device:
        """Where the graph reads an input: what has no kernel on its device runs on the host."""
        return self.device if name in _inputs_on(self.device, self._session) else HOST

    def declares(self) -> tuple[dict[str, golden.Declared], dict[str, golden.Declared]]:
        """Type and sizes of the inputs and of the outputs by name; a size is None or a name where it may vary."""
        inputs, outputs = (
            {node.name: (_DTYPES.get(node.type, node.type), tuple(node.shape)) for node in nodes}
            for nodes in (self._session.get_inputs(), self._session.get_outputs())
        )
        return inputs, outputs

    def terminate(self) -> None:
        """Stop the run in progress at its next operator and refuse later ones: both raise RunFailed."""
        for options in (self._run_options, *self._graph_options):
            options.terminate = True

    def end_profile(self) -> Path:
        """Finish the profile that was asked for at opening. Returns the file written."""
        return Path(self._session.end_profiling())


class _Twin:
    """Memory on a graph's device that stands for an array of the host."""

    def __init__(self, host: Array, device: Device) -> None:
        self.host = host
        self.value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(
            host.shape, host.dtype, device.kind, device.index
        )
        self.seen: bytes | None = None  # what both hold

    def push(self) -> None:
        """Copy to the device what has changed: a small copy takes longer than to see that none is needed."""
        if self.host.nbytes > _SMALL:
            self.value.update_inplace(self.host)
        elif (now := self.host.tobytes()) != self.seen:
            self.value.update_inplace(self.host)
            self.seen = now

    def pull(self) -> None:
        """Copy to the host."""
        if self.host.size:
            self.host[...] = self.value.numpy()
            self.seen = self.host.tobytes() if self.host.nbytes <= _SMALL else None


class Binding:
    """Inputs and outputs bound by pointer. It keeps alive all it points to; ONNX Runtime does not."""

    def __init__(
        self, session: Any, run_options: Any, device: Device, inputs: Bound, outputs: Bound, *, fixed: bool
    ) -> None:
        """`fixed`: what a run reads and writes on the device, outputs as well, keeps its address, as a replay requires."""
        self._session, self._run_options = session, run_options
        self._captured = not fixed
        self._kept = (dict(inputs), dict(outputs))
        # ONNX Runtime copies host memory to another device when it is bound, not when the graph runs: such inputs get
        # a twin on the device, refreshed before every run. An array that is input and output has one twin for both.
        self._twins: dict[tuple[int, tuple[int, ...], str], _Twin] = {}
        self._device = device
        on_device = _inputs_on(device, session)
        places = {name: place_of(source) for name, source in inputs.items()}
        targets = {name: place_of(target, writeable=True) for name, target in outputs.items()}
        try:
            self._io = session.io_binding()
            for name, place in places.items():
                source = inputs[name]
                if name in on_device and not isinstance(source, Place):
                    self._io.bind_ortvalue_input(name, self._twin(source).value)
                else:
                    self._io.bind_input(name, *target_of(place))
            self._pushed = tuple(self._twins.values())
            self._pulled: list[_Twin] = []
            for name, place in targets.items():
                target = outputs[name]
                if fixed and not isinstance(target, Place):
                    self._pulled.append(self._twin(target))
                    self._io.bind_ortvalue_output(name, self._pulled[-1].value)
                else:
                    self._io.bind_output(name, *target_of(place))
        except _FAILURES as error:
            raise RunFailed(_sentence(error)) from error

    def _twin(self, host: Array) -> _Twin:
        key = (host.ctypes.data, host.shape, host.dtype.str)
        if key not in self._twins:
            self._twins[key] = _Twin(host, self._device)
        return self._twins[key]

    def run(self) -> None:
        """Run once. Raises RunFailed."""
        try:
            if not self._captured:
                self._pass()
                self._captured = True
                # Recording takes several passes, and a later one reads what an earlier one wrote over its own input.
                for twin in self._pushed:
                    twin.seen = None
            self._pass()
            for twin in self._pulled:
                twin.pull()
        except _FAILURES as error:
            raise RunFailed(_sentence(error)) from error

    def _pass(self) -> None:
        for twin in self._pushed:
            twin.push()
        self._session.run_with_iobinding(self._io, self._run_options)


def device_memory(size: int, device: Device) -> tuple[object, int]:
    """Zeroed bytes on a device: their owner, and where they lie."""
    value = onnxruntime.OrtValue.ortvalue_from_shape_and_type([size], np.uint8, device.kind, device.index)
    value.update_inplace(np.zeros(size, np.uint8))
    return value, value.data_ptr()


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


def _run_options(graph_id: int = -1) -> Any:
    options = onnxruntime.RunOptions()
    options.log_severity_level = _SILENT
    # -1: no captured graph. Where nothing is said, its Python layer raises and catches to find out: 40 us for every run.
    options.add_run_config_entry("gpu_graph_id", str(graph_id))
    return options


def _providers(device: Device, *, capture: bool) -> list[str | tuple[str, dict[str, str]]]:
    if device.kind == "cpu":
        return [CPU]
    settings = {
        "device_id": str(device.index),
        # The default tries all algorithms at every new shape, and every batch size is one.
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
        # Ten bits of mantissa would not reproduce the golden outputs.
        "use_tf32": "0",
        "enable_cuda_graph": str(int(capture)),
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
    capture: bool = False,
) -> Session:
    """Open a graph of a package and replay its golden input: what opens gives the exporter's numbers.

    `device`, `threads`, `spin`: see Session. `capture`: for captured bindings on CUDA, if the graph gives the same numbers by them; `Session.captures` says.
    Raises BrokenGraph, ForbiddenOperator, GoldenMismatch, DeviceUnavailable, and WrongDigest, ... for files that are
    not what they were when the package was opened.
    """
    manifest = package.manifest
    try:
        graph = manifest.graphs[graph_name]
    except KeyError:
        raise BrokenGraph(f"{manifest.name}:{manifest.version} has no graph {graph_name!r}") from None
    content = package.read(graph.file)

    def opened(*, capture: bool) -> Session:
        session = Session(
            content, device=device, threads=threads, spin=spin, external=weights, capture=capture
        )
        golden.check_signature(graph, *session.declares())
        if replay:
            golden.replay(graph, package.read, session.rehearse)
        return session

    try:
        found = check_graph(graph.file, content, manifest, package.limits)
        weights = {at: package.read(external_path(graph.file, at, manifest)) for at in sorted(found.external)}
        if capture and device.kind == "cuda":
            try:
                return opened(capture=True)
            except BrokenGraph as error:
                logger.warning("%s: %s runs without captured graphs: %s", manifest.name, graph_name, error)
        return opened(capture=False)
    except BrokenGraph as error:
        raise type(error)(f"{manifest.name}:{manifest.version}, graph {graph_name}: {error}") from error
