"""Writing small ONNX graphs and sealing them as packages: what `tests/packages.py` is made with."""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from model_store.export import sampled
from model_store.export.sampling import join
from model_store.seal import seal
from model_store.session import Session

Array: TypeAlias = NDArray[Any]

_ONNX_TYPES: Final = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "int64": TensorProto.INT64,
    "int32": TensorProto.INT32,
}


class Sketch:
    """One graph being written: nodes in order, constants by value, typed inputs and outputs."""

    def __init__(self) -> None:
        self.inputs: list[dict[str, Any]] = []
        self.outputs: list[dict[str, Any]] = []
        self._nodes: list[NodeProto] = []
        self._constants: list[TensorProto] = []
        self.finish: Callable[[ModelProto], ModelProto] | None = None

    def input(self, name: str, dtype: str, *shape: int | str, role: str | None = None) -> str:
        self.inputs.append({"name": name, "role": role or name, "dtype": dtype, "shape": list(shape)})
        return name

    def output(self, name: str, dtype: str, *shape: int | str, role: str | None = None) -> None:
        """Declare what a node wrote under `name` an output."""
        self.outputs.append({"name": name, "role": role or name, "dtype": dtype, "shape": list(shape)})

    def constant(self, value: Any, dtype: str) -> str:
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def __call__(
        self, operator: str, *inputs: str, into: Sequence[str] = (), domain: str = "", **attributes: Any
    ) -> str:
        """Add a node writing `into` these names, or into one of its own. Returns the first."""
        names = list(into) or [f"{operator}_{len(self._nodes)}"]
        self._nodes.append(helper.make_node(operator, list(inputs), names, domain=domain, **attributes))
        return names[0]

    def model(self, name: str) -> bytes:
        """The graph as an ONNX file."""
        graph = helper.make_graph(
            self._nodes,
            name,
            [_value(tensor) for tensor in self.inputs],
            [_value(tensor) for tensor in self.outputs],
            self._constants,
        )
        domains = {node.domain for node in self._nodes}
        opsets = [helper.make_opsetid(domain, 1 if domain else 20) for domain in sorted(domains)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10, producer_name="atelier-tests")
        content: bytes = (self.finish(model) if self.finish else model).SerializeToString()
        return content

    def sampled(self, *, branches: bool = True) -> None:
        """Join the sampler to output `logits`: what tokens are chosen by."""
        logits = next(each for each in self.outputs if each["name"] == "logits")
        inputs, outputs = list(self.inputs), list(self.outputs)

        def joined(model: ModelProto) -> ModelProto:
            made = helper.make_graph(
                model.graph.node,
                model.graph.name,
                [_value(tensor) for tensor in inputs],
                [_value(tensor) for tensor in outputs],
                model.graph.initializer,
            )
            model.graph.CopyFrom(made)
            return join(model, branches=branches)

        self.finish = joined
        self.inputs = [*inputs, *(each.model_dump() for each in sampled.INPUTS)]
        self.outputs = [
            *(each.model_dump() for each in sampled.OUTPUTS),
            *(each for each in outputs if each is not logits),
        ]


def _value(tensor: Mapping[str, Any]) -> Any:
    return helper.make_tensor_value_info(tensor["name"], _ONNX_TYPES[tensor["dtype"]], tensor["shape"])


def build(
    folder: Path,
    name: str,
    version: str,
    fields: Mapping[str, Any],
    graphs: Mapping[str, tuple[Sketch, Mapping[str, Array]]],
    files: Mapping[str, bytes] | None = None,
) -> Path:
    """Write and seal `<folder>/<name>/<version>`; golden outputs come from running each graph once."""
    place = folder / name / version
    entries = {key: _write_graph(place, key, sketch, feeds) for key, (sketch, feeds) in graphs.items()}
    for path, content in (files or {}).items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_bytes(content)
    seal(place, base_fields(name, version) | {"graphs": entries} | dict(fields))
    return place


def base_fields(name: str = "tiny", version: str = "1") -> dict[str, Any]:
    """What every manifest says, whatever the model."""
    return {
        "name": name,
        "version": version,
        "created": "2026-01-01T00:00:00Z",
        "description": "A tiny package for tests",
        "licence": "Apache-2.0",
        "quality": {"accuracy": {"value": 1.0, "higher_is_better": True, "data": "made up"}},
        "provenance": {
            "data": "none",
            "data_licence": "CC0-1.0",
            "attribution": "nobody",
            "home": "https://example.org",
            "recipe": "tests/packages.py",
        },
        "exporter": {"onnx": "1"},
    }


def _write_graph(place: Path, key: str, sketch: Sketch, feeds: Mapping[str, Array]) -> dict[str, Any]:
    content = sketch.model(key)
    expected = dict(zip((t["name"] for t in sketch.outputs), Session(content).run(feeds), strict=True))
    place.mkdir(parents=True, exist_ok=True)
    (place / f"{key}.onnx").write_bytes(content)
    (place / f"{key}.inputs.npz").write_bytes(npz(feeds))
    (place / f"{key}.outputs.npz").write_bytes(npz(expected))
    return {
        "file": f"{key}.onnx",
        "inputs": sketch.inputs,
        "outputs": sketch.outputs,
        "golden": {"inputs": f"{key}.inputs.npz", "outputs": f"{key}.outputs.npz"},
    }


def npz(arrays: Mapping[str, Array]) -> bytes:
    """Arrays as the content of an `.npz` file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def npy(array: Array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()
