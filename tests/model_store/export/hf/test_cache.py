"""Keys and values in 8 bits: scales that hold at every position, what it costs, and the same bytes whoever is beside a row."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from prometheus_client import CollectorRegistry

from deployments.config import HostConfig
from deployments.messages import Complete
from deployments.metrics import Metrics
from deployments.studio import open_studio
from model_store.export.errors import QualityLost
from model_store.export.hf.cache import quantize_cache
from model_store.export.hf.describe import make_draft, make_text
from model_store.export.hf.directory import read_directory
from model_store.export.hf.exported import Exported, finish
from model_store.export.hf.job import Job
from model_store.export.hf.options import Options, Precision
from model_store.export.hf.rounding import rounded
from model_store.export.hf.rows import Array, Opens, Rows
from model_store.export.hf.text import read_words
from model_store.export.publish import lay_out
from model_store.export.witness import NOBODY
from model_store.store import Store
from tests.model_store.export.hf.conftest import Llama
from tests.model_store.export.hf.graphs import constant, graph_of

HEADS, WIDTH = 2, 8


@pytest.fixture(scope="module")
def small(llama: Llama, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The tiny Llama with an int8 cache."""
    path = tmp_path_factory.mktemp("small") / "step.onnx"
    path.write_bytes(llama.graph.path.read_bytes())
    words = read_words(read_directory(llama.directory))
    graph, cost = rounded(
        Exported(path), llama.report, words, Options("x", context=256, kv_cache="int8"), NOBODY
    )
    assert 0 < cost.kl < 1e-3
    return graph


def rows_of(session: Opens, llama: Llama, batch: int) -> Rows:
    return Rows(session, llama.report.layers, vocabulary=288, batch=batch, cache=64, dtype="int8")


def test_a_row_gives_the_same_bytes_alone_and_among_others(llama: Llama, small: Exported) -> None:
    session, generator = small.open(), np.random.default_rng(0)
    prompts = [generator.integers(0, 288, length) for length in (31, 4, 17, 9)]
    following = generator.integers(0, 288, (12, 4))

    def answered(chosen: Sequence[int]) -> list[Array]:
        rows = rows_of(session, llama, len(chosen))
        first = rows.prefill([prompts[each] for each in chosen])
        steps = [rows.decode(tokens[list(chosen)]) for tokens in following]
        return [
            np.concatenate([first[at], *(step[at : at + 1] for step in steps)]) for at in range(len(chosen))
        ]

    together = answered(range(4))
    for row in range(4):
        (alone,) = answered([row])
        assert alone.tobytes() == together[row].tobytes()


def test_a_prompt_in_chunks_gives_the_same_bytes(llama: Llama, small: Exported) -> None:
    session = small.open()
    prompt = np.random.default_rng(1).integers(0, 288, 40)

    whole = rows_of(session, llama, 1)
    expected = whole.prefill([prompt])[0]
    parts = rows_of(session, llama, 1)
    found = [
        parts.step(part[None], np.arange(len(part))[None], np.array([len(part)]))[0]
        for part in (prompt[:7], prompt[7:30], prompt[30:])
    ]

    assert np.concatenate(found).tobytes() == expected.tobytes()
    assert all(np.array_equal(whole.past[name], parts.past[name]) for name in whole.past)


@pytest.mark.parametrize(("precision", "most"), [("fp16", 1e-3), ("int4", 0.5)])
def test_weights_may_be_rounded_as_well(
    precision: Precision, most: float, llama: Llama, tmp_path: Path
) -> None:
    path = tmp_path / "step.onnx"
    path.write_bytes(llama.graph.path.read_bytes())
    words = read_words(read_directory(llama.directory))
    options = Options("x", precision, context=256, block=32, kv_cache="int8")

    graph, cost = rounded(Exported(path), llama.report, words, options, NOBODY)

    assert 0 < cost.kl < most
    assert graph.dtype == "int8"


def test_a_cache_that_costs_too_much_is_refused(llama: Llama, tmp_path: Path) -> None:
    path = tmp_path / "step.onnx"
    path.write_bytes(llama.graph.path.read_bytes())
    words = read_words(read_directory(llama.directory))

    options = Options("x", context=256, kv_cache="int8", max_kl=1e-9)

    with pytest.raises(QualityLost, match=r"fp32 with an int8 cache costs .* where --max-kl allows 1e-09"):
        rounded(Exported(path), llama.report, words, options, NOBODY)


class Fills:
    """In place of an open graph: leaves the same keys and values in every cache."""

    def __init__(self, keys: Array, values: Array) -> None:
        self._kept = {"key": keys, "value": values}

    def bind(self, inputs: dict[str, Array], outputs: dict[str, Array]) -> "Fills":
        for name, array in inputs.items():
            if name.startswith("past"):
                array[...] = self._kept[name.rpartition(".")[2]]
        del outputs
        return self

    def run(self) -> None:
        """Nothing: all is done."""


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        # channels 0 and 2, 1 and 3 are pairs: 3 and 4 make 5; the rest is not turned
        ({"do_rotary": 1}, [5, 13, 5, 13, 1, 2, 3, 0]),
        (
            {"do_rotary": 1, "rotary_interleaved": 1},
            [np.hypot(3, 5)] * 2 + [np.hypot(4, 12)] * 2 + [1, 2, 3, 0],
        ),
        ({}, [3, 5, 4, 12, 1, 2, 3, 0]),
        ({"sine": 1}, [12 * np.sqrt(2)] * 8),
    ],
)
def test_scales_hold_wherever_a_rotation_turns_keys(
    turn: dict[str, int], expected: list[float], llama: Llama
) -> None:
    keys = np.zeros((1, HEADS, 3, WIDTH), np.float32)
    keys[0, 0, 1] = [-3, 5, 4, 12, 1, -2, 3, 0]
    values = np.zeros_like(keys)
    values[0, 1, 2] = -6
    rotary, sine = turn.get("do_rotary", 0), turn.pop("sine", 0)

    def nodes(given: dict[str, ir.Value]) -> list[ir.Node]:
        tables = [constant(each, np.ones((3, 2), np.float32)) for each in ("cos", "sin")] if rotary else []
        state = [given["past_key_values.0.key"], given["past_key_values.0.value"]]
        attention = ir.node(
            "GroupQueryAttention",
            [given["x"], None, None, *state, given["n"], given["n"], *tables],
            {"num_heads": HEADS, "kv_num_heads": HEADS, **turn},
            domain="com.microsoft",
            outputs=[given["y"], given["k"], given["v"]],
        )
        if not sine:
            return [attention]
        return [attention, ir.node("Sin", [given["x"]], outputs=[given["s"]])]

    shape = ("batch", HEADS, "cache", WIDTH)
    floats, ints = ir.DataType.FLOAT, ir.DataType.INT32
    model = graph_of(
        [("x", floats, (1, 1, 48)), ("n", ints, (1,)), *((f"past_key_values.0.{each}", floats, shape) for each in ("key", "value"))],
        [("y", floats, (1, 1, 16)), ("k", floats, shape), ("v", floats, shape), *([("s", floats, (1, 1, 48))] if sine else [])],
        nodes,
    )  # fmt: skip
    report = type(llama.report)({}, 0, [(HEADS, WIDTH)], 5)

    quantize_cache(model, Fills(keys, values), report, [np.arange(3)])

    (node,) = (each for each in model.graph if each.op_type == "GroupQueryAttention")
    k, v = (each.const_value.numpy() for each in node.inputs[12:14] if each and each.const_value)
    assert k.shape == v.shape == (1, HEADS, 1, WIDTH)
    np.testing.assert_allclose(k[0, 0, 0], [each * 1.25 / 127 or 1 for each in expected], rtol=1e-6)
    np.testing.assert_allclose(k[0, 1], 1)  # never seen: any scale will do
    np.testing.assert_allclose(v[0, 1], 6 * 1.25 / 127, rtol=1e-6)
    assert {value.dtype for value in (*model.graph.inputs[2:], *model.graph.outputs[1:3])} == {
        ir.DataType.INT8
    }


async def test_a_served_row_answers_alike_alone_and_among_others(
    llama: Llama, small: Exported, tmp_path: Path
) -> None:
    """Through the engine: prefills in groups and chunks, kept prefixes, rows that move, all of it in bytes of one size."""
    store = publish(llama, small, tmp_path)
    text = store.manifest("small").text
    assert text is not None
    assert {state.dtype for state in text.state} == {"int8"}
    generator = np.random.default_rng(3)
    prompts = [tuple(generator.integers(2, 258, length).tolist()) for length in (5, 40, 18, 33, 2, 40)]
    asked = [Complete("small", (prompt,), max_tokens=12, temperature=1.0, seed=place, ignore_eos=True) for place, prompt in enumerate(prompts)]  # fmt: skip
    config = HostConfig(store=store.url, device="cpu", slots=4, prefill_chunk=16)
    studio = open_studio(config, Metrics(CollectorRegistry()))
    try:
        together = await asyncio.gather(*(studio.collect(each) for each in asked))
        alone = [await studio.collect(each) for each in asked]
    finally:
        studio.close()
    assert [each[0].token_ids for each in together] == [each[0].token_ids for each in alone]


def publish(llama: Llama, graph: Exported, folder: Path) -> Store:
    package = folder / "package"
    package.mkdir()
    run = finish(graph, package, folder, llama.report)
    words = read_words(read_directory(llama.directory))
    job = Job(llama.directory, None, 256, 288, (), 0)
    options = Options("small", context=256, kv_cache="int8")
    text = make_text(words, job, llama.report, graph.dtype, options)
    draft = make_draft(read_directory(llama.directory), words, text, run, llama.report, options)
    lay_out(draft, "1", {"step": run}, package)
    store = Store(str(folder / "store"))
    store.publish(package)
    return store
