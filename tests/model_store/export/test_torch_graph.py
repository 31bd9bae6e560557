"""What happens inside the subprocess, called here in this one; nothing is exported (test_publish.py does that)."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir
import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn

from model_store.export import graph_process, torch_graph
from model_store.export.draft import GraphDraft, tensor
from model_store.export.errors import DraftError, GraphFailed
from model_store.export.torch_graph import (
    Entry,
    build,
    clean,
    failure,
    load_weights,
    main,
    named_outputs,
    resolve,
    run_case,
    work,
)
from tests.model_store.export import modules
from tests.model_store.export.modules import Autoencoder

HERE = "tests.model_store.export.modules"
IMAGES = tensor("images", "float32", "batch", 1, 8, 8)
PICTURES = (tensor("reconstruction", "float32", "batch", 1, 8, 8), tensor("latent", "float32", "batch", 4))


def no_stage(_: str) -> None:
    pass


class Tied(nn.Module):
    """Two names for one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(4, 3)
        self.head = nn.Linear(3, 4, bias=False)
        self.head.weight = self.embedding.weight


# -- factories ------------------------------------------------------------------------------------------------------


def test_a_factory_is_a_class_or_a_function() -> None:
    module = build(f"{HERE}:Autoencoder")

    assert isinstance(module, Autoencoder)
    assert not module.training


@pytest.mark.parametrize(
    ("factory", "complaint"),
    [
        ("no_such_module:make", "'no_such_module:make' cannot be imported: No module named 'no_such_module'"),
        (f"{HERE}:nothing", f"module '{HERE}' has no 'nothing'"),
        (f"{HERE}:not_a_module", "returned a dict, not a torch.nn.Module"),
    ],
)
def test_what_is_no_factory_is_named(factory: str, complaint: str) -> None:
    with pytest.raises(GraphFailed, match=complaint):
        build(factory)


def test_cases_are_resolved_the_same_way() -> None:
    assert resolve(f"{HERE}:attention_cases") is modules.attention_cases


# -- weights --------------------------------------------------------------------------------------------------------


def changed() -> Autoencoder:
    module = Autoencoder()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1.0)
    return module


def save_state(module: nn.Module, path: Path) -> None:
    torch.save(module.state_dict(), path)


def save_tensors(module: nn.Module, path: Path) -> None:
    save_model(module, str(path))


@pytest.mark.parametrize(("name", "save"), [("w.pt", save_state), ("w.safetensors", save_tensors)])
def test_weights_are_loaded(name: str, save: Callable[[nn.Module, Path], None], tmp_path: Path) -> None:
    source, target = changed(), Autoencoder()
    save(source, tmp_path / name)

    load_weights(target, tmp_path / name)

    pairs = zip(target.state_dict().values(), source.state_dict().values(), strict=True)
    assert all(torch.equal(loaded, saved) for loaded, saved in pairs)


def test_shared_tensors_are_loaded_once(tmp_path: Path) -> None:
    source, target = Tied(), Tied()
    save_model(source, str(tmp_path / "tied.safetensors"))

    load_weights(target, tmp_path / "tied.safetensors")

    assert torch.equal(target.head.weight, source.embedding.weight)


def test_weights_that_do_not_fit_are_told_by_name(tmp_path: Path) -> None:
    state = Autoencoder().state_dict()
    state["extra"] = state.pop("up.bias")
    save_file(state, tmp_path / "w.safetensors")
    torch.save(state, tmp_path / "w.pt")

    for name in ("w.safetensors", "w.pt"):
        with pytest.raises(GraphFailed, match=rf"the weights {name} do not fit: .*up\.bias.*extra") as caught:
            load_weights(Autoencoder(), tmp_path / name)
        assert "\n" not in str(caught.value)


def test_weights_of_another_shape_are_told(tmp_path: Path) -> None:
    state = Autoencoder().state_dict() | {"up.bias": torch.zeros(7)}
    save_file(state, tmp_path / "w.safetensors")

    with pytest.raises(GraphFailed, match=r"do not fit: .*up\.bias.*7"):
        load_weights(Autoencoder(), tmp_path / "w.safetensors")


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    torch.save(Autoencoder(), tmp_path / "whole.pt")

    with pytest.raises(GraphFailed, match=r"whole.pt holds more than tensors: save `module.state_dict\(\)`"):
        load_weights(Autoencoder(), tmp_path / "whole.pt")


def test_a_checkpoint_is_no_state_dict(tmp_path: Path) -> None:
    torch.save({"model": Autoencoder().state_dict(), "step": 3}, tmp_path / "checkpoint.pt")

    with pytest.raises(GraphFailed, match=r"checkpoint\.pt is no state dict"):
        load_weights(Autoencoder(), tmp_path / "checkpoint.pt")


def test_missing_weights_are_told(tmp_path: Path) -> None:
    with pytest.raises(GraphFailed, match=r"the weights w.pt do not exist"):
        load_weights(Autoencoder(), tmp_path / "w.pt")


# -- outputs --------------------------------------------------------------------------------------------------------


ONE, TWO = torch.ones(1), torch.ones(2)


@pytest.mark.parametrize(
    ("result", "names", "expected"),
    [
        (ONE, (), ["output"]),
        ((ONE, TWO), (), ["output", "output_1"]),
        ([ONE, TWO], ("a", "b"), ["a", "b"]),
        ({"b": ONE, "a": TWO}, ("a", "b"), ["a", "b"]),
        ({"b": ONE, "a": TWO}, (), ["b", "a"]),
    ],
)
def test_outputs_get_names(result: object, names: tuple[str, ...], expected: list[str]) -> None:
    assert list(named_outputs(result, names)) == expected


def test_a_mapping_is_put_in_the_declared_order() -> None:
    assert named_outputs({"b": ONE, "a": TWO}, ("a", "b"))["a"] is TWO


@pytest.mark.parametrize(
    ("result", "names", "complaint"),
    [
        ((ONE, TWO), ("a",), r"returns 2 outputs where \['a'\] are declared"),
        ({"a": ONE}, ("b",), r"returns \['a'\] where \['b'\] are declared"),
        ((ONE, 3), (), r"outputs \['output_1'\] are no tensors"),
        (None, (), r"outputs \['output'\] are no tensors"),
    ],
)
def test_other_outputs_are_refused(result: object, names: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(GraphFailed, match=complaint):
        named_outputs(result, names)


def test_any_method_can_be_the_entry() -> None:
    module = Autoencoder().eval()
    latent = torch.zeros(2, 4)

    [image] = Entry(module, "decode", ["output"])(latent)

    assert torch.equal(image, module.decode(latent))
    with pytest.raises(GraphFailed, match="Autoencoder has no method 'dream'"):
        Entry(module, "dream", [])


class Cache(nn.Module):
    """Writes into its input, as attention does into a cache."""

    def forward(self, past: torch.Tensor) -> torch.Tensor:
        return past.add_(1.0)


def test_a_case_is_not_changed_by_running_it() -> None:
    case = {"past": np.zeros((1, 2), np.float32)}

    outputs = run_case(Entry(Cache(), "forward", ["present"]), [tensor("past", "float32", "batch", 2)], case)

    assert outputs["present"].tolist() == [[1.0, 1.0]]
    assert case["past"].tolist() == [[0.0, 0.0]]


# -- the job --------------------------------------------------------------------------------------------------------


def job(folder: Path, graph: GraphDraft) -> Path:
    folder.joinpath("job.json").write_bytes(graph_process.encode_job(graph))
    return folder


def test_a_run_leaves_cases_outputs_and_a_report(tmp_path: Path) -> None:
    save_model(changed(), str(tmp_path / "w.safetensors"))
    weights = tmp_path / "w.safetensors"
    graph = GraphDraft(f"{HERE}:Autoencoder", (IMAGES,), PICTURES, weights=weights, ranges={"images": (0, 1)})
    stages: list[str] = []

    work(job(tmp_path, graph), stages.append, only_run=True)

    run = graph_process.read_run(tmp_path)
    assert run.graph is None
    assert [case["images"].shape for case in run.cases] == [(2, 1, 8, 8), (1, 1, 8, 8)]
    assert [list(outputs) for outputs in run.outputs] == [["reconstruction", "latent"]] * 2
    expected = changed().decode(torch.from_numpy(run.outputs[0]["latent"])).detach().numpy()
    np.testing.assert_allclose(run.outputs[0]["reconstruction"], expected, rtol=1e-6)
    assert run.parameters == 517
    assert run.versions["torch"].startswith("2.")
    assert run.versions.keys() >= {"onnx", "onnxscript", "python"}
    assert stages == [
        "build the module", "load the weights", "make example inputs",
        "run the module in torch at batch 2", "run the module in torch at batch 1",
    ]  # fmt: skip


def test_an_oracle_says_what_is_right(tmp_path: Path) -> None:
    values = tensor("values", "float32", "batch", "time")
    graph = GraphDraft(
        f"{HERE}:Broken", (values,), (tensor("sum", "float32", "batch"),), oracle=f"{HERE}:Frozen"
    )

    work(job(tmp_path, graph), no_stage, only_run=True)

    assert graph_process.read_run(tmp_path).outputs[0]["sum"].shape == (2,)


def test_cases_of_the_draft_are_checked(tmp_path: Path) -> None:
    graph = GraphDraft(f"{HERE}:Liar", (IMAGES,), (), cases=f"{HERE}:attention_cases")

    with pytest.raises(DraftError, match="case 0 has the inputs"):
        work(job(tmp_path, graph), no_stage, only_run=True)


def test_a_failure_says_what_was_being_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = GraphDraft(f"{HERE}:Broken", (tensor("values", "float32", "batch", "time"),), ())

    assert main([str(job(tmp_path, graph)), "--only-run"]) == 1

    told = json.loads((tmp_path / "failure.json").read_text())
    assert told["kind"] == "GraphFailed"
    assert told["message"].startswith(
        "could not run the module in torch at batch 2, time 4: RuntimeError: mat1"
    )
    assert "return values @ torch.zeros(99, 1)" in told["detail"]
    assert capsys.readouterr().out.splitlines()[0] == "@stage build the module"


def test_a_clear_refusal_is_passed_on(tmp_path: Path) -> None:
    graph = GraphDraft(f"{HERE}:nothing", (IMAGES,), ())

    assert main([str(job(tmp_path, graph)), "--only-run"]) == 1

    told = json.loads((tmp_path / "failure.json").read_text())
    assert told == {"kind": "GraphFailed", "message": f"module '{HERE}' has no 'nothing'", "detail": ""}


def test_the_root_of_a_chain_of_errors_is_told_in_one_short_line() -> None:
    outer = RuntimeError("pages of advice")
    outer.__cause__ = KeyError("first\n" + "long " * 200)

    told = failure(outer, "export")

    assert told["message"].startswith("could not export: KeyError: ")
    assert len(told["message"]) < 350
    assert "advice" not in told["detail"]


# -- the file -------------------------------------------------------------------------------------------------------


def graph_with_debug_data() -> onnx_ir.Model:
    value = onnx_ir.val("x", onnx_ir.DataType.FLOAT, [3, 5])
    node = onnx_ir.node(
        "Neg", [value], doc_string="from a file", metadata_props={"stack_trace": "/home/me/net.py"}
    )
    node.outputs[0].name = "y"
    node.outputs[0].dtype = onnx_ir.DataType.FLOAT
    graph = onnx_ir.Graph([value], node.outputs, nodes=[node], opset_imports={"": 20}, name="main_graph")
    return onnx_ir.Model(graph, ir_version=10, producer_name="test")


def test_debug_data_is_dropped_and_the_declared_shapes_stand() -> None:
    x, y = tensor("x", "float32", "batch", 5), tensor("y", "float32", "batch", 5)

    proto = clean(graph_with_debug_data(), GraphDraft("nets:make", (x,), (y,)))

    content = proto.SerializeToString()
    assert b"net.py" not in content
    assert b"from a file" not in content
    assert not proto.graph.value_info
    for value in (*proto.graph.input, *proto.graph.output):
        assert [place.dim_param or place.dim_value for place in value.type.tensor_type.shape.dim] == [
            "batch",
            5,
        ]


def test_without_a_file_beside_it_a_graph_holds_so_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_graph, "MOST_INLINE_BYTES", -1)

    with pytest.raises(GraphFailed, match="a graph file holds at most 2 GiB"):
        clean(graph_with_debug_data(), GraphDraft("nets:make", (), ()))


def test_a_scalar_keeps_an_empty_shape() -> None:
    x, y = tensor("x", "float32"), tensor("y", "float32")

    proto = clean(graph_with_debug_data(), GraphDraft("nets:make", (x,), (y,)))

    assert proto.graph.input[0].type.tensor_type.HasField("shape")
    assert not proto.graph.input[0].type.tensor_type.shape.dim
