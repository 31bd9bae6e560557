"""Decoder graphs that were made elsewhere: roles, the inputs a server has, and rows that must not depend on each other."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from model_store.export.errors import DraftError, ParityError
from model_store.export.foreign import Options, compare_rows, export_graph
from model_store.export.foreign_graph import adapt, guess_roles
from model_store.export.hf.exported import Exported
from model_store.export.hf.job import Report
from model_store.session import Device, Session, open_graph
from model_store.store import Store
from tests.model_store.export.hf.graphs import Spec, constant, graph_of
from tests.model_store.export.hf.tiny import save_tokenizer

FLOAT, LONG, INT = ir.DataType.FLOAT, ir.DataType.INT64, ir.DataType.INT32
VOCABULARY, WIDTH = 23, 16
CACHE: list[int | str] = ["batch", 2, "past", 8]


def random(*shape: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def decoder(
    *, prefix: str = "past_key_values", ids: ir.DataType = LONG, grows: bool = False, mixed: bool = False
) -> ir.Model:
    """One layer as onnxruntime-genai's model builder would write it: lengths come from the mask, positions are an input."""

    def build(v: dict[str, ir.Value]) -> list[ir.Node]:
        nodes: list[ir.Node] = []

        def node(
            operator: str,
            *inputs: ir.Value,
            domain: str = "",
            outputs: list[ir.Value] | None = None,
            **attributes: int,
        ) -> ir.Value:
            nodes.append(ir.node(operator, list(inputs), attributes, domain=domain, outputs=outputs))
            return nodes[-1].outputs[0]

        one, axis, places = (
            constant(name, np.array(value)) for name, value in (("one", [1]), ("axis", 1), ("axes", [1]))
        )
        sums = node("ReduceSum", v["attention_mask"], places)
        last = node("Cast", node("Sub", node("Squeeze", sums, places), one), to=int(INT))
        total = node("Cast", node("Gather", node("Shape", v["attention_mask"]), axis), to=int(INT))
        x = node("Gather", constant("words", random(VOCABULARY, WIDTH, seed=0)), v["ids"])
        x = node("Add", x, node("Gather", constant("places", random(64, WIDTH, seed=1)), v["position_ids"]))
        if mixed:  # rows look at each other
            mean = node("ReduceMean", x, constant("zero", np.array([0])))
            x = node("Add", x, mean)
        flat = [
            node("MatMul", x, constant(f"w{place}", random(WIDTH, WIDTH, seed=2 + place)))
            for place in range(3)
        ]
        if grows:
            node("Concat", v[f"{prefix}.0.key"], v[f"{prefix}.0.key"], outputs=[v["present.0.key"]], axis=2)
            node(
                "Concat",
                v[f"{prefix}.0.value"],
                v[f"{prefix}.0.value"],
                outputs=[v["present.0.value"]],
                axis=2,
            )
            mixed_heads = flat[0]
        else:
            made = ir.node(
                "GroupQueryAttention", [*flat, v[f"{prefix}.0.key"], v[f"{prefix}.0.value"], last, total],
                {"num_heads": 2, "kv_num_heads": 2}, domain="com.microsoft", num_outputs=3,
            )  # fmt: skip
            nodes.append(made)
            mixed_heads = made.outputs[0]
            node("Identity", made.outputs[1], outputs=[v["present.0.key"]])
            node("Identity", made.outputs[2], outputs=[v["present.0.value"]])
        node(
            "MatMul", mixed_heads, constant("head", random(WIDTH, VOCABULARY, seed=7)), outputs=[v["logits"]]
        )
        return nodes

    inputs: list[Spec] = [
        ("ids", ids, ["batch", "sequence"]), ("attention_mask", LONG, ["batch", "total"]),
        ("position_ids", LONG, ["batch", "sequence"]),
        *((f"{prefix}.0.{part}", FLOAT, CACHE) for part in ("key", "value")),
    ]  # fmt: skip
    outputs: list[Spec] = [
        ("logits", FLOAT, ["batch", "sequence", VOCABULARY]),
        *((f"present.0.{part}", FLOAT, CACHE) for part in ("key", "value")),
    ]
    return graph_of(inputs, outputs, build)


def original(model: ir.Model, tokens: list[int]) -> np.ndarray:
    """Logits of one prompt by the graph as it was."""
    past = np.zeros((1, 2, 9, 8), np.float32)
    places = np.arange(len(tokens))[None]
    feeds = {"ids": np.array([tokens]), "attention_mask": np.ones_like(places), "position_ids": places}
    state = {"past_key_values.0.key": past, "past_key_values.0.value": past}
    [logits] = Session(ir.to_proto(model).SerializeToString()).run({**feeds, **state}, ["logits"])
    only: np.ndarray = logits[0]
    return only


@pytest.mark.parametrize("ids", [LONG, INT])
def test_an_adapted_graph_computes_the_same(ids: ir.DataType) -> None:
    expected = original(decoder(), [3, 1, 4])
    model = decoder(ids=ids)

    layers = adapt(model, guess_roles(model, {}))

    assert layers == [(2, 8)]
    assert [value.name for value in model.graph.inputs] == [
        "input_ids", "select", "seqlens_k", "total_sequence_length", "past_key_values.0.key", "past_key_values.0.value",
    ]  # fmt: skip
    past = np.zeros((1, 2, 9, 8), np.float32)
    feeds = {
        "input_ids": np.array([[3, 1, 4]]), "select": np.array([[2, 0]]), "seqlens_k": np.array([2], np.int32),
        "total_sequence_length": np.array(3, np.int32), "past_key_values.0.key": past, "past_key_values.0.value": past,
    }  # fmt: skip
    found = Session(ir.to_proto(model).SerializeToString()).run(feeds, ["logits"])[0]
    np.testing.assert_allclose(found[0], expected[[2, 0]], rtol=1e-5, atol=1e-5)


def test_a_graph_becomes_a_package(tmp_path: Path) -> None:
    ir.save(decoder(prefix="old_past"), tmp_path / "model.onnx", external_data="model.onnx.data")
    save_tokenizer(tmp_path)
    shown: dict[str, tuple[str, str]] = {}
    options = Options("made", "text-generation", ("ids:input_ids",), tmp_path / "tokenizer.json", 32)

    manifest = export_graph(tmp_path / "model.onnx", str(tmp_path / "store"), options, show=shown.update)

    assert shown["ids"] == ("INT64[batch, sequence]", "input_ids")
    assert shown["old_past.0.key"][1] == "past_key_values.0.key"
    assert manifest.text is not None
    assert (manifest.text.vocabulary, manifest.text.context) == (VOCABULARY, 32)
    assert manifest.text.state[0].shape == (2, "cache", 8)
    package = Store(str(tmp_path / "store")).open("made")
    assert "token" in open_graph(package, "step", device=Device("cpu")).outputs


def test_rows_that_depend_on_each_other_are_seen(tmp_path: Path) -> None:
    model = decoder(mixed=True)
    layers = adapt(model, guess_roles(model, {}))
    ir.save(model, tmp_path / "step.onnx")
    graph = Exported(tmp_path / "step.onnx")

    with pytest.raises(ParityError, match="rows depend on each other: a logit differs by"):
        compare_rows(graph.open(), Report({}, 0, list(layers), VOCABULARY), graph)


def renamed(model: ir.Model, old: str, new: str) -> ir.Model:
    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.name == old:
            value.name = new
    return model


@pytest.mark.parametrize(
    ("model", "said", "complaint"),
    [
        (decoder(), {"nothing": "logits"}, "--map names nothing; there are ids, attention_mask"),
        (renamed(decoder(), "logits", "scores"), {}, r"the role of scores FLOAT\[batch, sequence, 23\] cannot be guessed: say --map scores:ROLE"),
        (renamed(decoder(), "position_ids", "extra"), {}, "the role of extra"),
        (decoder(), {"position_ids": "input_ids"}, "two tensors have the role input_ids"),
        (decoder(), {"logits": "select"}, "no tensor has the role logits"),
        (renamed(decoder(), "present.0.key", "present.1.key"), {}, "the state is incomplete: present.0.key"),
        (decoder(grows=True), {}, "its cache grows with every token"),
    ],
)  # fmt: skip
def test_roles_that_cannot_be_are_refused(model: ir.Model, said: dict[str, str], complaint: str) -> None:
    with pytest.raises(DraftError, match=complaint):
        guess_roles(model, said)


def test_a_role_can_be_said() -> None:
    model = renamed(decoder(), "logits", "scores")

    assert guess_roles(model, {"scores": "logits"})["scores"] == "logits"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (Options("No", "text-generation"), "is no package name"),
        (Options("x", "image-to-image"), "not for image-to-image"),
        (Options("x", "text-generation"), "needs --tokenizer"),
        (Options("x", "text-generation", ("a",), Path("t"), 8), "--map 'a' is not like name:role"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: Options, complaint: str, tmp_path: Path) -> None:
    ir.save(decoder(), tmp_path / "model.onnx")

    with pytest.raises(DraftError, match=complaint):
        export_graph(tmp_path / "model.onnx", str(tmp_path / "store"), options)


def test_what_is_no_graph_is_refused(tmp_path: Path) -> None:
    tmp_path.joinpath("model.onnx").write_bytes(b"no graph")

    with pytest.raises(DraftError, match=r"model\.onnx cannot be read as ONNX"):
        export_graph(tmp_path / "model.onnx", "s", Options("x", "text-generation", (), Path("t"), 8))
