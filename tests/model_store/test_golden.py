"""Opening a package's graphs: the exporter's signature, the exporter's numbers, and nothing unchecked."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data

from model_store.device import gpus
from model_store.errors import BrokenGraph, ForbiddenOperator, GoldenMismatch, MissingFile, WrongDigest
from model_store.golden import compare
from model_store.package import Package
from model_store.seal import seal
from model_store.session import Session, choose_device, open_graph
from model_store.store import Store
from tests import packages
from tests.graphs import Array, Sketch, base_fields, npz


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(packages.store(tmp_path_factory.mktemp("store")))


@pytest.mark.parametrize("name", ["tiny-text", "tiny-attention", "tiny-ae", "tiny-vae", "tiny-gan"])
def test_every_graph_opens_and_replays(store: Store, name: str) -> None:
    package = store.open(name)
    for key, entry in package.manifest.graphs.items():
        opened = open_graph(package, key)
        assert set(opened.inputs) == {tensor.name for tensor in entry.inputs}


def test_an_unknown_graph_is_named(store: Store) -> None:
    with pytest.raises(BrokenGraph, match="tiny-ae:1 has no graph 'encode'"):
        open_graph(store.open("tiny-ae"), "encode")


def test_a_file_that_changed_since_the_store_opened_it_is_refused(tmp_path: Path) -> None:
    package = Store(packages.generator(tmp_path).parents[1]).open("tiny-gan")
    content = bytearray((package.folder / "generate.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (package.folder / "generate.onnx").write_bytes(content)
    with pytest.raises(WrongDigest, match=r"generate\.onnx"):
        open_graph(package, "generate")


class Repacked:
    """A package whose files and fields a test changes before it is sealed again, as a careless exporter would."""

    def __init__(self, folder: Path) -> None:
        self.folder = packages.generator(folder)
        manifest = Store(folder).manifest("tiny-gan")
        self.fields = manifest.model_dump(mode="json", exclude={"files", "digest", "schema_version"})
        self.graph = self.fields["graphs"]["generate"]

    def open(self, *, replay: bool = True) -> Session:
        seal(self.folder, self.fields)
        return open_graph(Store(self.folder.parents[1]).open("tiny-gan"), "generate", replay=replay)


def test_numbers_other_than_the_exporters_are_refused(tmp_path: Path) -> None:
    package = Repacked(tmp_path)
    outputs = np.full((2, 1, 8, 8), 0.25, np.float32)
    (package.folder / "generate.outputs.npz").write_bytes(npz({"output": outputs}))
    with pytest.raises(
        GoldenMismatch, match=r"graph generate: output 'output' differs .* in 128 of 128 values"
    ):
        package.open()
    assert package.open(replay=False).outputs == ("output",)


def test_a_tolerance_is_kept(tmp_path: Path) -> None:
    package = Repacked(tmp_path)
    path = package.folder / "generate.outputs.npz"
    with np.load(path) as stored:
        near = stored["output"] + np.float32(1e-3)
    path.write_bytes(npz({"output": near}))
    package.graph["golden"].update(rtol=0.0, atol=2e-3)
    package.open()
    package.graph["golden"].update(rtol=0.0, atol=0.5e-3)
    with pytest.raises(GoldenMismatch):
        package.open()


@pytest.mark.parametrize(
    ("got", "rtol", "fits"), [(11, 1e-3, True), (12, 1e-3, False), (17, 5e-2, True), (18, 5e-2, False), (-128, 5e-2, False)]
)  # fmt: skip
def test_rounded_numbers_may_be_a_step_apart(got: int, rtol: float, fits: bool) -> None:
    arrays = np.array([got], np.int8), np.array([10 if got > 0 else 127], np.int8)
    if fits:
        compare("present", *arrays, rtol=rtol, atol=1e-4)
    else:
        with pytest.raises(GoldenMismatch, match=f"first at .*: {got} instead of"):
            compare("present", *arrays, rtol=rtol, atol=1e-4)


def test_a_golden_nan_matches_nothing(tmp_path: Path) -> None:
    package = Repacked(tmp_path)
    (package.folder / "generate.outputs.npz").write_bytes(
        npz({"output": np.full((2, 1, 8, 8), np.nan, np.float32)})
    )
    with pytest.raises(GoldenMismatch, match="instead of nan"):
        package.open()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"noise": np.zeros((2, 4), np.float32)}, "the golden inputs are"),
        (
            {"noise": np.zeros((2, 5), np.float32), "class_id": np.zeros(2, np.int64)},
            "the golden input 'noise' is",
        ),
        (
            {"noise": np.zeros((2, 4), np.float64), "class_id": np.zeros(2, np.int64)},
            "the golden input 'noise' is",
        ),
        (
            {"noise": np.zeros((2, 4), np.float32), "class_id": np.zeros(3, np.int64)},
            "the golden input does not run",
        ),
    ],
)
def test_golden_inputs_fit_the_signature(tmp_path: Path, arrays: dict[str, Array], message: str) -> None:
    package = Repacked(tmp_path)
    (package.folder / "generate.inputs.npz").write_bytes(npz(arrays))
    with pytest.raises(BrokenGraph, match=message):
        package.open()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY", npz({"o": np.zeros(3)})[:-30]])
def test_golden_files_are_archives(tmp_path: Path, content: bytes) -> None:
    package = Repacked(tmp_path)
    (package.folder / "generate.outputs.npz").write_bytes(content)
    with pytest.raises(BrokenGraph, match=r"generate\.outputs\.npz is no archive of arrays"):
        package.open()


def test_a_golden_pickle_is_never_loaded(tmp_path: Path) -> None:
    package = Repacked(tmp_path)
    np.savez(package.folder / "generate.outputs.npz", output=np.array([print], object))
    with pytest.raises(BrokenGraph, match="no archive of arrays"):
        package.open()


def test_a_golden_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = Repacked(tmp_path)
    (package.folder / "generate.outputs.npz").write_bytes(
        npz({"output": np.zeros((2, 1, 512, 512), np.float32)})
    )
    monkeypatch.setattr("model_store.golden._MOST_BYTES", 1 << 20)
    with pytest.raises(BrokenGraph, match="unpacks to"):
        package.open()


@pytest.mark.parametrize(
    ("side", "change", "message"),
    [
        ("inputs", {"dtype": "float16"}, r"'noise' is float32\['batch', 4\]; the manifest says float16"),
        ("inputs", {"shape": ["batch", 5]}, r"the manifest says float32\['batch', 5\]"),
        ("inputs", {"shape": ["batch", "z"]}, r"the manifest says float32\['batch', 'z'\]"),
        ("inputs", {"shape": ["batch", 4, 1]}, "the manifest says"),
        (
            "inputs",
            {"name": "other"},
            r"it takes \['class_id', 'noise'\]; the manifest says \['class_id', 'other'\]",
        ),
        ("outputs", {"name": "other"}, "it has no output 'other'"),
        ("outputs", {"dtype": "int64"}, "the manifest says int64"),
    ],
)
def test_the_signature_is_the_manifests(
    tmp_path: Path, side: str, change: dict[str, object], message: str
) -> None:
    package = Repacked(tmp_path)
    package.graph[side][0].update(change)
    with pytest.raises(BrokenGraph, match=message):
        package.open()


def external(place: Path, location: str) -> None:
    """A sealed package `plus:1` whose weight lies in another file, at `location`."""
    weight = numpy_helper.from_array(np.array([1, 2, 3], np.float32), "weight")
    set_external_data(weight, location)
    content = weight.raw_data
    weight.ClearField("raw_data")
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in "xy"]
    made = helper.make_graph(
        [helper.make_node("Add", ["x", "weight"], ["y"])], "g", value[:1], value[1:], [weight]
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    (place / "graphs").mkdir(parents=True)
    (place / "graphs/plus.onnx").write_bytes(model.SerializeToString())
    (place / "graphs/weights.bin").write_bytes(content)
    x = np.zeros((2, 3), np.float32)
    (place / "inputs.npz").write_bytes(npz({"x": x}))
    (place / "outputs.npz").write_bytes(npz({"y": x + np.array([1, 2, 3], np.float32)}))
    tensors = [[{"name": name, "role": name, "dtype": "float32", "shape": ["batch", 3]}] for name in "xy"]
    entry = {
        "file": "graphs/plus.onnx",
        "inputs": tensors[0],
        "outputs": tensors[1],
        "golden": {"inputs": "inputs.npz", "outputs": "outputs.npz"},
    }
    about = {
        "task": "reconstruction",
        "family": "linear",
        "capabilities": ["reconstruct"],
        "graphs": {"plus": entry},
    }
    seal(place, base_fields("plus") | about)


def test_weights_in_a_file_beside_the_graph_come_from_checked_memory(tmp_path: Path) -> None:
    external(tmp_path / "plus/1", "weights.bin")
    package = Store(tmp_path).open("plus")
    assert open_graph(package, "plus").run({"x": np.ones((1, 3), np.float32)})[0].tolist() == [[2, 3, 4]]
    (package.folder / "graphs/weights.bin").write_bytes(np.array([9, 9, 9], np.float32).tobytes())
    with pytest.raises(WrongDigest):
        open_graph(package, "plus")


def test_weights_the_manifest_does_not_list_are_refused(tmp_path: Path) -> None:
    external(tmp_path / "plus/1", "elsewhere.bin")
    with pytest.raises(MissingFile, match=r"'elsewhere\.bin', which the manifest does not list"):
        Store(tmp_path).open("plus")


def test_a_forbidden_operator_is_refused_even_if_the_store_was_bypassed(tmp_path: Path) -> None:
    package = Repacked(tmp_path)
    sketch = Sketch()
    noise, chosen = sketch.input("noise", "float32", "batch", 4), sketch.input("class_id", "int64", "batch")
    sketch("Evil", noise, chosen, into=["output"], domain="com.example")
    sketch.output("output", "float32", "batch", 1, 8, 8)
    (package.folder / "generate.onnx").write_bytes(sketch.model("evil"))
    seal(package.folder, package.fields)
    manifest = Store(tmp_path).manifest("tiny-gan")
    with pytest.raises(
        ForbiddenOperator, match=r"graph generate: the operator 'Evil' of domain 'com\.example'"
    ):
        open_graph(Package(package.folder, manifest), "generate")


@pytest.mark.skipif(gpus() == 0, reason="no CUDA device")
@pytest.mark.parametrize("name", ["tiny-text", "tiny-attention", "tiny-ae", "tiny-vae", "tiny-gan"])
def test_a_gpu_gives_the_exporters_numbers(store: Store, name: str) -> None:
    package = store.open(name)
    for key in package.manifest.graphs:
        open_graph(package, key, device=choose_device("cuda"))
