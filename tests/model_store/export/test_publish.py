"""Real exports in real subprocesses: what matches torch is published and opens, what does not is not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_model

from model_store.export import torch_graph
from model_store.export.cases import Array
from model_store.export.draft import Draft, GraphDraft, tensor
from model_store.export.errors import DraftError, GraphFailed, ParityError
from model_store.export.graph_process import TorchRun
from model_store.export.parity import Figure
from model_store.export.publish import lay_out, publish
from model_store.export.witness import Witness
from model_store.manifest import Measure, Provenance
from model_store.session import Device, open_graph
from model_store.store import Package, Store
from tests.model_store.export.modules import Autoencoder

HERE = "tests.model_store.export.modules"
CPU = Device("cpu")

RECURRENT = GraphDraft(
    factory=f"{HERE}:Recurrent",
    inputs=(
        tensor("ids", "int64", "batch", "time"),
        tensor("past.h", "float32", "batch", 2, 12),
        tensor("past.c", "float32", "batch", 2, 12),
    ),
    outputs=(
        tensor("token", "int64", "batch", "time"),
        tensor("present.h", "float32", "batch", 2, 12),
        tensor("present.c", "float32", "batch", 2, 12),
    ),
    ranges={"ids": (0, 15)},
)


def draft(**graphs: GraphDraft) -> Draft:
    return Draft(
        name="tiny",
        task="reconstruction",
        family="autoencoder",
        capabilities=("reconstruct", "encode"),
        description="A test.",
        licence="MIT",
        provenance=Provenance(
            data="none", data_licence="none", attribution="none", home="none", recipe="none"
        ),
        graphs=graphs,
    )


def autoencoder(weights: Path | None = None) -> GraphDraft:
    return GraphDraft(
        factory=f"{HERE}:Autoencoder",
        inputs=(tensor("images", "float32", "batch", 1, 8, 8, role="input"),),
        outputs=(
            tensor("reconstruction", "float32", "batch", 1, 8, 8),
            tensor("latent", "float32", "batch", 4),
        ),
        weights=weights,
        ranges={"images": (0, 1)},
    )


@pytest.fixture(scope="module")
def trained() -> Autoencoder:
    module = Autoencoder().eval()
    with torch.no_grad():
        module.up.weight.add_(0.5)
    return module


@pytest.fixture(scope="module")
def told() -> tuple[list[str], list[Figure]]:
    return [], []


@pytest.fixture(scope="module")
def package(
    trained: Autoencoder, told: tuple[list[str], list[Figure]], tmp_path_factory: pytest.TempPathFactory
) -> Package:
    folder = tmp_path_factory.mktemp("publish")
    save_model(trained, str(folder / "w.safetensors"))
    made = replace(
        draft(reconstruct=autoencoder(folder / "w.safetensors"), step=RECURRENT),
        files={"notes/readme.txt": b"hello"},
        quality={"error": Measure(value=0.25, higher_is_better=False, data="none")},
    )
    steps, figures = told
    publish(made, str(folder / "store"), Witness(step=steps.append, figure=figures.append))
    return Store(folder / "store").open("tiny")


def test_the_manifest_says_what_the_draft_said(package: Package) -> None:
    manifest = package.manifest

    assert (manifest.name, manifest.version, manifest.family, manifest.licence) == (
        "tiny",
        "1",
        "autoencoder",
        "MIT",
    )
    assert manifest.quality["error"].value == 0.25
    assert manifest.graphs["step"].inputs == RECURRENT.inputs
    assert package.path("notes/readme.txt").read_bytes() == b"hello"
    assert manifest.exporter.keys() >= {"torch", "onnx", "onnxscript", "python", "atelier"}
    assert manifest.exporter["torch"] == torch.__version__


def test_the_graph_computes_what_the_trained_module_does(package: Package, trained: Autoencoder) -> None:
    images = np.random.default_rng(3).random((5, 1, 8, 8), np.float32)
    session = open_graph(package, "reconstruct", device=CPU, threads=1)

    [found] = session.run({"images": images}, ["reconstruction"])

    expected = trained(torch.from_numpy(images))["reconstruction"].detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_time_axis_of_a_recurrent_graph_is_free(package: Package) -> None:
    session = open_graph(package, "step", device=CPU, threads=1)
    state = np.zeros((3, 2, 12), np.float32)

    for time in (1, 2, 11):
        feeds: dict[str, Array] = {"ids": np.ones((3, time), np.int64), "past.h": state, "past.c": state}
        assert session.run(feeds, ["token"])[0].shape == (3, time)


def test_graphs_are_one_file_without_debug_data(package: Package) -> None:
    content = package.path("reconstruct.onnx").read_bytes()
    graph = onnx.load_from_string(content).graph

    assert len(content) < 5_000
    assert b".py" not in content
    assert not graph.value_info
    assert not any(each.external_data for each in graph.initializer)


def test_what_no_graph_file_can_hold_lies_beside_it(
    inside: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch_graph, "MOST_INLINE_BYTES", 1000)

    manifest = publish(draft(reconstruct=autoencoder()), str(tmp_path))

    assert {"reconstruct.onnx", "graph-reconstruct.data"} <= manifest.files.keys()
    package = Store(tmp_path).open("tiny")
    images = np.random.default_rng(3).random((2, 1, 8, 8), np.float32)
    [found] = open_graph(package, "reconstruct", device=CPU).run({"images": images}, ["reconstruction"])
    expected = Autoencoder()(torch.from_numpy(images))["reconstruction"].detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_check_of_the_whole_is_asked_before_anything_is_published(inside: None, tmp_path: Path) -> None:
    def check(package: Package) -> None:
        assert package.manifest.graphs.keys() == {"reconstruct"}
        raise ParityError("not like that", graph="reconstruct")

    with pytest.raises(ParityError, match="not like that"):
        publish(draft(reconstruct=autoencoder()), str(tmp_path), check=check)
    assert not list(tmp_path.glob("tiny/*"))


def test_every_step_and_output_was_told(package: Package, told: tuple[list[str], list[Figure]]) -> None:
    steps, figures = told

    assert steps == [
        "export the graph reconstruct", "export the graph step",
        "compare the graph reconstruct with torch", "compare the graph step with torch",
        "publish version 1",
    ]  # fmt: skip
    assert [(each.graph, each.output, each.cases) for each in figures] == [
        ("reconstruct", "reconstruction", 2), ("reconstruct", "latent", 2),
        ("step", "token", 4), ("step", "present.h", 4), ("step", "present.c", 4),
    ]  # fmt: skip
    assert all(each.error <= each.limit for each in figures)
    assert package.manifest.version == "1"


def test_the_next_version_does_not_touch_the_first_and_a_liar_gets_none(package: Package) -> None:
    store = str(package.folder.parent.parent)
    values = tensor("values", "float32", "batch", 3)
    liar = GraphDraft(f"{HERE}:Liar", (values,), (tensor("twice", "float32", "batch", 3),))
    steps: list[str] = []

    with pytest.raises(ParityError) as caught:
        publish(draft(forward=liar), store, Witness(step=steps.append))

    assert (caught.value.graph, caught.value.output) == ("forward", "twice")
    assert caught.value.index is not None
    assert caught.value.index[1] == 1
    assert caught.value.found == pytest.approx(caught.value.expected * 1.25)
    assert steps[-1] == "compare the graph forward with torch"
    assert Store(store).versions("tiny") == ["1"]


def test_a_dimension_frozen_by_a_branch_is_seen_in_the_second_shape(tmp_path: Path) -> None:
    values = tensor("values", "float32", "batch", "time")
    frozen = GraphDraft(f"{HERE}:Frozen", (values,), (tensor("sum", "float32", "batch"),))

    with pytest.raises(ParityError, match="output 'sum' at batch 2, time 4"):
        publish(draft(forward=frozen), str(tmp_path))

    assert not list(tmp_path.iterdir())


def test_a_module_that_fails_is_told_with_its_graph(tmp_path: Path) -> None:
    broken = GraphDraft(f"{HERE}:Broken", (tensor("values", "float32", "batch", "time"),), ())

    with pytest.raises(GraphFailed, match="graph 'forward': could not run the module in torch") as caught:
        publish(draft(forward=broken), str(tmp_path))

    assert "torch.zeros(99, 1)" in caught.value.detail


def test_a_name_that_cannot_be_is_refused_before_anything_runs(tmp_path: Path) -> None:
    steps: list[str] = []

    with pytest.raises(DraftError, match=r"'\.\./tiny' is no package name"):
        publish(replace(draft(), name="../tiny"), str(tmp_path), Witness(step=steps.append))

    assert not steps


def test_a_package_without_a_graph_is_no_package(tmp_path: Path) -> None:
    with pytest.raises(DraftError, match="the draft of tiny has no graph"):
        publish(draft(), str(tmp_path))


def test_a_file_outside_the_package_is_not_written(tmp_path: Path) -> None:
    made = replace(draft(), files={"../stray.txt": b"x"})

    with pytest.raises(DraftError, match="lies outside the package"):
        lay_out(made, "1", {}, tmp_path / "package")

    assert not (tmp_path / "stray.txt").exists()


def test_a_draft_that_makes_no_manifest_is_told_where(tmp_path: Path) -> None:
    values = tensor("values", "float32", "batch", 3)
    made = draft(forward=GraphDraft(f"{HERE}:Liar", (values,), ()))
    run = TorchRun(tmp_path, [], [], None, parameters=0, versions={})
    (tmp_path / "package").mkdir()
    for name in ("graph.onnx", "case-0.inputs.npz", "case-0.outputs.npz"):
        (tmp_path / name).write_bytes(b"x")

    with pytest.raises(DraftError, match=r"the draft makes no valid manifest: .*task"):
        lay_out(replace(made, task="juggling"), "1", {"forward": run}, tmp_path / "package")  # type: ignore[arg-type]
