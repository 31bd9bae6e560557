"""Several adapters in one graph, chosen by each row: what transformers gives with each, whoever shares the batch."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch

from model_store.export.errors import GraphFailed, ParityError
from model_store.export.hf import job as jobs
from model_store.export.hf.adapted import add_adapters
from model_store.export.hf.adapter import merged, read_adapter, stack
from model_store.export.hf.adapters import with_adapters
from model_store.export.hf.decoder_process import load, refer
from model_store.export.hf.exported import Exported
from model_store.export.hf.options import Options
from model_store.export.hf.rows import Array, Rows
from model_store.export.hf.stack import read_stacks, write_stacks
from model_store.export.parity import Figure
from model_store.export.witness import Witness
from tests.model_store.export.hf.conftest import Llama
from tests.model_store.export.hf.test_adapter import adapter

LAYER = "model.layers.1."
SIZES = {
    "self_attn.q_proj": (64, 64), "self_attn.k_proj": (32, 64), "self_attn.v_proj": (32, 64), "self_attn.o_proj": (64, 64),
    "mlp.gate_proj": (96, 64), "mlp.up_proj": (96, 64), "mlp.down_proj": (64, 96),
}  # fmt: skip
ALL = [LAYER + name for name in SIZES]
SOME = [LAYER + "self_attn.v_proj", LAYER + "mlp.up_proj", "lm_head"]


def lora(folder: Path, places: Sequence[str], rank: int) -> Path:
    generator = torch.Generator().manual_seed(rank)
    tensors = {}
    for place in places:
        out, width = SIZES.get(place.removeprefix(LAYER), (288, 64))
        tensors[f"base_model.model.{place}.lora_A.weight"] = (
            torch.randn(rank, width, generator=generator) * 0.3
        )
        tensors[f"base_model.model.{place}.lora_B.weight"] = torch.randn(out, rank, generator=generator) * 0.3
    return adapter(folder, tensors, r=rank)


@pytest.fixture(scope="module")
def work(llama: Llama, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A folder as the process leaves it: the graph without adapters, what they add, and what transformers gives with each."""
    folder = tmp_path_factory.mktemp("work")
    paths = (lora(folder / "all", ALL, 4), lora(folder / "some", SOME[:2], 2))
    job = replace(jobs.read_job(llama.graph.path.parent), adapters=paths)
    model = load(job)
    adapters = [read_adapter(model, path) for path in paths]
    jobs.write_references(folder, llama.references)
    for place, each in enumerate(adapters, 1):
        with merged(model, each):
            jobs.write_references(folder, refer(model, job), place)
    graph = ir.load(llama.graph.path)
    write_stacks(folder, stack(model, [str(node.name) for node in graph.graph], adapters))
    jobs.save_graph(graph, folder / jobs.GRAPH)
    return Exported(folder / jobs.GRAPH)


@pytest.fixture(scope="module")
def adapted(work: Exported, llama: Llama) -> tuple[Exported, list[Figure]]:
    figures: list[Figure] = []
    options = Options("tiny", adapters={"all": Path("all"), "some": Path("some")})
    return with_adapters(work, work, llama.report, options, Witness(figure=figures.append)), figures


def test_every_adapter_gives_transformers_logits_alone_and_in_one_batch(
    adapted: tuple[Exported, list[Figure]],
) -> None:
    _, figures = adapted
    assert [each.output.partition(":")[0] for each in figures] == ["all"] * 4 + ["some"] * 4 + ["mixed"] * 4
    assert all(each.error < 1e-3 for each in figures)


def answers(graph: Exported, llama: Llama, adapters: Array | None, rows: Sequence[int]) -> list[Array]:
    """Logits of these rows' prompts and of three more steps, run together."""
    generator = np.random.default_rng(3)
    prompts = [generator.integers(0, 288, length) for length in (7, 12, 3, 9, 5)]
    following = generator.integers(0, 288, (3, len(prompts)))
    batch = Rows(
        graph.open(), llama.report.layers, vocabulary=288, batch=len(rows), cache=32, adapters=adapters
    )
    found = batch.prefill([prompts[row] for row in rows])
    for tokens in following:
        found = [
            np.concatenate((before, more[None]))
            for before, more in zip(found, batch.decode(tokens[list(rows)]), strict=True)
        ]
    return found


def test_a_row_s_bytes_do_not_depend_on_its_neighbours_adapters(
    adapted: tuple[Exported, list[Figure]], llama: Llama
) -> None:
    graph, wanted = adapted[0], np.array([2, 0, 1, 1, 2])
    together = answers(graph, llama, wanted, range(5))
    for row, logits in enumerate(together):
        (alone,) = answers(graph, llama, wanted[row : row + 1], [row])
        assert alone.tobytes() == logits.tobytes()
    assert not np.allclose(together[0], answers(graph, llama, np.array([1]), [0])[0])


def test_without_adapters_the_bytes_are_the_base_s(
    adapted: tuple[Exported, list[Figure]], work: Exported, llama: Llama
) -> None:
    base = answers(work, llama, None, range(5))
    unasked = answers(adapted[0], llama, np.zeros(5), range(5))
    assert [each.tobytes() for each in unasked] == [each.tobytes() for each in base]


def test_no_rows_need_be_named(adapted: tuple[Exported, list[Figure]], llama: Llama) -> None:
    rows = Rows(
        adapted[0].open(), llama.report.layers, vocabulary=288, batch=2, cache=8, adapters=np.zeros(2)
    )
    rows._wanted = {"adapter_row": np.zeros(0, np.int64), "adapter": np.zeros(0, np.int64)}
    assert np.isfinite(rows.decode(np.array([3, 5]))).all()


def test_another_adapter_s_numbers_are_seen(work: Exported, llama: Llama, tmp_path: Path) -> None:
    stacks = read_stacks(work.path.parent)
    name, wrong = next(iter(stacks.items()))
    for place in range(3):
        for file in work.path.parent.glob(f"reference-{place}-*.npz"):
            tmp_path.joinpath(file.name).write_bytes(file.read_bytes())
    write_stacks(tmp_path, stacks | {name: replace(wrong, owner=3 - wrong.owner)})
    tmp_path.joinpath(jobs.GRAPH).write_bytes(work.path.read_bytes())
    graph = Exported(tmp_path / jobs.GRAPH)
    with pytest.raises(ParityError, match="where transformers gives"):
        with_adapters(
            graph, graph, llama.report, Options("tiny", adapters={"all": Path(), "some": Path()}), Witness()
        )


def test_what_is_no_product_of_the_graph_is_refused(llama: Llama, tmp_path: Path) -> None:
    model = load(jobs.read_job(llama.graph.path.parent))
    changes = read_adapter(model, lora(tmp_path, SOME, 2))
    with pytest.raises(GraphFailed, match="changes 'lm_head', which is no linear layer of the graph"):
        stack(model, [LAYER + "mlp.up_proj", "|".join(ALL[:3])], [changes])


def test_the_last_product_of_a_graph_keeps_its_name(llama: Llama, tmp_path: Path) -> None:
    model = load(jobs.read_job(llama.graph.path.parent))
    graph = ir.load(llama.graph.path)
    changes = read_adapter(model, lora(tmp_path, SOME, 2))
    add_adapters(graph, stack(model, [str(node.name) for node in graph.graph], [changes]), ir.DataType.FLOAT)
    assert graph.graph.outputs[0].name == "logits"
    jobs.save_graph(graph, tmp_path / jobs.GRAPH)
    found = answers(Exported(tmp_path / jobs.GRAPH), llama, np.ones(1), [0])
    assert not np.allclose(found[0], answers(llama.graph, llama, None, [0])[0])
