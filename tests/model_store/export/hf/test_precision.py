"""Every precision of one small model: what it costs, how large it is, and that a bad one is refused."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from model_store.export.errors import DraftError, QualityLost
from model_store.export.hf.directory import read_directory
from model_store.export.hf.options import Options, Precision, Target
from model_store.export.hf.rounding import calibration_texts, rounded
from model_store.export.hf.text import Words, read_words
from model_store.export.parity import Figure
from model_store.export.witness import NOBODY, Witness
from tests.model_store.export.hf.conftest import Llama


@pytest.fixture
def words(llama: Llama) -> Words:
    return read_words(read_directory(llama.directory))


def copied(llama: Llama, folder: Path) -> Llama:
    """The same graph in a folder of its own: the rounded one is written beside it."""
    path = folder / llama.graph.path.name
    path.write_bytes(llama.graph.path.read_bytes())
    return Llama(llama.directory, llama.report, type(llama.graph)(path))


@pytest.mark.parametrize(
    ("precision", "device", "limit", "smaller"),
    [
        ("int8", "cpu", 1e-2, 3.0),
        ("int4", "cpu", 0.5, 4.0),
        ("fp16", "cpu", 1e-5, 1.7),
        ("bf16", "cpu", 1e-3, 1.7),
        ("fp16", "cuda", 1e-3, 1.9),
        ("int4", "cuda", 0.5, 4.5),
    ],
)
def test_a_precision_costs_little_and_saves_much(
    precision: Precision,
    device: Target,
    limit: float,
    smaller: float,
    llama: Llama,
    words: Words,
    tmp_path: Path,
) -> None:
    right = copied(llama, tmp_path)
    figures: list[Figure] = []
    options = Options("x", precision, device, context=256, block=32)

    graph, cost = rounded(right.graph, llama.report, words, options, Witness(figure=figures.append))

    assert 0 <= cost.kl < limit
    assert cost.perplexity == pytest.approx(cost.right_perplexity, rel=0.6)
    assert cost.tokens == 8 * 128
    assert figures[0].error == cost.kl
    weights = {value.dtype for value in ir.load(graph.path).graph.inputs if "past" in str(value.name)}
    assert weights == {ir.DataType.FLOAT16 if device == "cuda" else ir.DataType.FLOAT}
    tables = 2 * 256 * 8 * 4  # rotations: kept in full on the CPU
    sizes = [path.stat().st_size - tables for path in (right.graph.path, graph.path)]
    assert sizes[0] / sizes[1] > smaller * 0.7


@pytest.mark.parametrize(
    ("options", "bits", "scale", "limit", "exact"),
    [
        (Options("x"), 32, None, 0.0, True),
        (Options("x", kv_cache="int8"), 32, None, 0.05, False),
        (Options("x", "fp16", kv_cache="int8"), 16, None, 0.05, False),
        (Options("x", "bf16"), 16, None, 0.02, True),
        (Options("x", "int4", kv_cache="int8"), 4, 128, 0.5, False),
        (Options("x", "int4", max_kl=0.1), 4, 128, 0.1, False),
        (Options("x", "fp16", "cuda"), 16, None, 0.01, False),
    ],
)
def test_what_options_ask_for(
    options: Options, bits: int, scale: int | None, limit: float, exact: bool
) -> None:
    assert (options.bits, options.shared_scale, options.kl_limit, options.exact) == (
        bits,
        scale,
        limit,
        exact,
    )
    assert options.rounds == (bits < 32 or options.kv_cache == "int8")


def test_a_bad_rounding_is_refused(llama: Llama, words: Words, tmp_path: Path) -> None:
    options = Options("x", "int4", context=256, block=256, max_kl=1e-6)

    with pytest.raises(QualityLost, match=r"int4 costs .* nats a token .* where --max-kl allows 1e-06"):
        rounded(copied(llama, tmp_path).graph, llama.report, words, options, NOBODY)


def test_a_text_of_ones_own_is_measured_on(llama: Llama, words: Words, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("To be, or not to be, that is the question. " * 10)

    texts = calibration_texts(
        llama.graph.open(), llama.report, words, Options("x", calibration=text, context=100)
    )

    assert [len(each) for each in texts] == [100] * 4  # the last 30 tokens are too few


def test_what_the_model_writes_is_the_same_every_time(llama: Llama, words: Words) -> None:
    one, two = (
        calibration_texts(llama.graph.open(), llama.report, words, Options("x", context=64)) for _ in range(2)
    )

    assert [len(each) for each in one] == [64] * 8
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert len({each.tobytes() for each in one}) == 8


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"short", "has 5 tokens; 32 are the fewest"),
        (b"\xff" * 99, "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_a_text_that_says_nothing_is_refused(
    content: bytes | None, complaint: str, llama: Llama, words: Words, tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    if content is not None:
        text.write_bytes(content)

    with pytest.raises(DraftError, match=complaint):
        calibration_texts(llama.graph.open(), llama.report, words, Options("x", calibration=text))
