"""A command line becomes a draft, or one sentence that says what is wrong with it."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from model_store.export import sampled
from model_store.export.cases import Array, random_cases
from model_store.export.draft import tensor
from model_store.export.errors import DraftError
from model_store.export.graph_process import TorchRun
from model_store.export.options import Options, complete, graph_draft, infer_outputs, parse_example
from model_store.imaging import Image

OPTIONS = Options("nets:make", "tiny", "reconstruction", "autoencoder", ["images=float32[batch,1,8,8]:0..1"])
GENERATOR = Options("nets:make", "tiny", "image-generation", "gan", ["z=float32[batch,16]"])


def ran(cases: list[dict[str, Array]], outputs: list[dict[str, Array]]) -> TorchRun:
    return TorchRun(Path("unused"), cases, outputs, None, parameters=12, versions={})


def drawn(options: Options, outputs: Mapping[str, tuple[int, ...]], value: float = 0.5) -> TorchRun:
    """What a module would have returned: each output is flat, its rows shaped as given."""
    cases = random_cases(graph_draft(options))
    batches = [len(next(iter(case.values()))) for case in cases]
    made = [
        {name: np.full((batch, *row), value, np.float32) for name, row in outputs.items()}
        for batch in batches
    ]
    return ran(cases, made)


# -- examples -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected", "limits"),
    [
        ("x=float32[batch,1,28,28]", tensor("x", "float32", "batch", 1, 28, 28), None),
        ("x=float32[batch,1,28,28]:0..1", tensor("x", "float32", "batch", 1, 28, 28), (0.0, 1.0)),
        ("ids=int64[batch, time]:0..99", tensor("ids", "int64", "batch", "time"), (0.0, 99.0)),
        ("t=float16[batch]:-1.5..2e-3", tensor("t", "float16", "batch"), (-1.5, 0.002)),
        ("past.0.key=float32[batch,2,8]", tensor("past.0.key", "float32", "batch", 2, 8), None),
        ("total=int32[]", tensor("total", "int32"), None),
    ],
)
def test_examples_are_read(text: str, expected: object, limits: tuple[float, float] | None) -> None:
    assert parse_example(text) == (expected, limits)


@given(st.text(max_size=30))
def test_anything_else_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(DraftError, match=r"^--example"):
        parse_example("=" + text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("x=float64[batch]", "the dtype must be one of float32, float16, int64"),
        ("x=float32[0]", "a dimension is a size above 0 or a name"),
        ("x=float32[-3]", "a dimension is a size above 0 or a name"),
        ("x=float32[3b]", "a dimension is a size above 0 or a name"),
        ("x=float32[batch]:1..0", "the lowest value comes first"),
        ("x=float32[batch]:1-2", "is not like"),
        ("x:float32[batch]", "is not like"),
    ],
)
def test_examples_that_make_no_sense_are_refused(text: str, complaint: str) -> None:
    with pytest.raises(DraftError, match=complaint):
        parse_example(text)


def test_the_options_become_a_graph() -> None:
    graph = graph_draft(
        replace(OPTIONS, method="redraw", weights=Path("w.pt"), sizes=["batch=4, 6"], oracle="nets:truth")
    )

    assert graph.inputs == (tensor("images", "float32", "batch", 1, 8, 8, role="input"),)
    assert graph.ranges == {"images": (0.0, 1.0)}
    assert graph.sizes == {"batch": (4, 6)}
    assert (graph.factory, graph.method, graph.weights, graph.oracle) == (
        "nets:make", "redraw", Path("w.pt"), "nets:truth",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (replace(OPTIONS, name="No Name"), "is no package name"),
        (
            replace(OPTIONS, sizes=["time=4,4"]),
            "--size 'time=4,4' is not like time=16,32 with two different sizes",
        ),
        (replace(OPTIONS, sizes=["time:4"]), "--size 'time:4' is not like"),
        (replace(OPTIONS, inputs=["images"]), "--input 'images' is not like name:role"),
        (replace(OPTIONS, examples=[]), "say what goes in"),
    ],
)
def test_options_that_cannot_be_read_are_named(options: Options, complaint: str) -> None:
    with pytest.raises(DraftError, match=complaint):
        graph_draft(options)


# -- outputs --------------------------------------------------------------------------------------------------------


def test_outputs_take_the_names_of_the_dimensions_they_move_with() -> None:
    inputs = [tensor("ids", "int64", "batch", "time")]
    cases: list[dict[str, Array]] = [{"ids": np.zeros(size, np.int64)} for size in ((2, 4), (1, 4), (2, 6))]
    outputs: list[dict[str, Array]] = [
        {
            "logits": np.zeros((batch, time, 9), np.float32),
            "pairs": np.zeros((batch, time * time), np.int64),
            "count": np.zeros((), np.int32),
        }
        for batch, time in ((2, 4), (1, 4), (2, 6))
    ]

    assert infer_outputs(inputs, cases, outputs) == [
        tensor("logits", "float32", "batch", "time", 9),
        tensor("pairs", "int64", "batch", "pairs_1"),
        tensor("count", "int32"),
    ]


def test_an_output_that_cannot_be_described_is_refused() -> None:
    cases: list[dict[str, Array]] = [{"x": np.zeros((size, 1), np.float32)} for size in (1, 2)]
    inputs = [tensor("x", "float32", "batch", 1)]

    with pytest.raises(DraftError, match=r"output 'y' is float64.*, where it may be float32, float16"):
        infer_outputs(inputs, cases, [{"y": np.zeros((size, 1))} for size in (1, 2)])
    with pytest.raises(DraftError, match="and never empty"):
        infer_outputs(inputs, cases, [{"y": np.zeros((size, 0), np.float32)} for size in (1, 2)])


# -- drafts ---------------------------------------------------------------------------------------------------------


def test_an_autoencoder_of_pictures() -> None:
    run = drawn(OPTIONS, {"output": (1, 8, 8), "latent": (4,)})

    draft = complete(replace(OPTIONS, licence="MIT", home="https://example.org"), graph_draft(OPTIONS), run)

    assert draft.image == Image(channels=1, height=8, width=8)
    assert draft.capabilities == ("reconstruct", "encode", "embed")
    assert list(draft.graphs) == ["reconstruct"]
    assert [each.role for each in draft.graphs["reconstruct"].outputs] == ["reconstruction", "latent"]
    assert (draft.licence, draft.provenance.home, draft.provenance.recipe) == (
        "MIT", "https://example.org", "nets:make",
    )  # fmt: skip
    assert draft.provenance.parameters == 12
    assert draft.description == "autoencoder exported from nets:make"


def test_an_autoencoder_of_rows_has_no_pictures() -> None:
    options = replace(OPTIONS, examples=["row=float32[batch,30]"])

    draft = complete(options, graph_draft(options), drawn(options, {"output": (30,)}, value=-7.0))

    assert draft.image is None
    assert draft.capabilities == ("reconstruct",)


def test_a_generator_of_classes() -> None:
    options = replace(
        GENERATOR, examples=["z=float32[batch,16]", "label=int64[batch]"], class_names=["a", "b"]
    )

    draft = complete(options, graph_draft(options), drawn(options, {"output": (3, 8, 6)}))

    assert draft.image == Image(
        channels=3, height=8, width=6, classes=("a", "b"), generator="generate", noise="noise"
    )
    assert [each.role for each in draft.graphs["generate"].inputs] == ["noise", "class_id"]


@pytest.mark.parametrize(
    ("options", "shape", "value", "complaint"),
    [
        (
            GENERATOR,
            (1, 8, 8),
            -1.0,
            r"goes from -1 to -1, where pictures have values in \[0, 1\]: scale them",
        ),
        (GENERATOR, (64,), 0.5, r"needs an output \[batch, 1 or 3 or 4, height, width\]"),
        (GENERATOR, (2, 8, 8), 0.5, r"needs an output \[batch, 1 or 3 or 4, height, width\]"),
        (
            replace(GENERATOR, class_names=["a"]),
            (1, 8, 8),
            0.5,
            "needs both an int64 input with the role class_id",
        ),
        (OPTIONS, (1, 8, 8), 1.5, "output 'output' goes from 1.5 to 1.5"),
    ],
)
def test_pictures_that_could_not_be_served_are_refused(
    options: Options, shape: tuple[int, ...], value: float, complaint: str
) -> None:
    with pytest.raises(DraftError, match=complaint):
        complete(options, graph_draft(options), drawn(options, {"output": shape}, value))


def text_options(folder: Path) -> Options:
    tokenizer = Tokenizer(models.BPE(vocab={"a": 0, "b": 1, "c": 2}, merges=[]))
    tokenizer.save(str(folder / "tokenizer.json"))
    examples = ["input_ids=int64[batch,time]", "select=int64[batch,selected]"]
    return Options(
        "nets:step", "tiny", "text-generation", "lstm", [*examples, "past.h=float32[batch,2,8]"],
        tokenizer=folder / "tokenizer.json", context=99,
    )  # fmt: skip


def test_a_step_of_text_with_its_state(tmp_path: Path) -> None:
    options = text_options(tmp_path)
    run = drawn(options, {"logits": (4, 5), "present.h": (2, 8)})

    draft = complete(options, graph_draft(options), run)

    assert draft.text is not None
    assert (draft.text.vocabulary, draft.text.context, draft.text.attention) == (5, 99, False)
    [state] = draft.text.state
    assert (state.past, state.present, state.shape, state.in_place) == ("past.h", "present.h", (2, 8), False)
    assert draft.files == {"tokenizer.json": (tmp_path / "tokenizer.json").read_bytes()}
    graph = draft.graphs["step"]
    assert graph.sampled
    assert graph.inputs[3:] == sampled.INPUTS
    assert [each.name for each in graph.outputs] == [*(each.name for each in sampled.OUTPUTS), "present.h"]


@pytest.mark.parametrize(
    ("outputs", "complaint"),
    [
        ({"logits": (4, 2), "present.h": (2, 8)}, "the tokenizer has 3 tokens, the logits 2"),
        ({"present.h": (2, 8), "logits": (4, 5)}, "must return its logits first"),
    ],
)
def test_logits_come_first_and_cover_the_vocabulary(
    tmp_path: Path, outputs: dict[str, tuple[int, ...]], complaint: str
) -> None:
    options = text_options(tmp_path)
    with pytest.raises(DraftError, match=complaint):
        complete(options, graph_draft(options), drawn(options, outputs))


def test_a_state_needs_its_successor(tmp_path: Path) -> None:
    options = text_options(tmp_path)
    run = drawn(options, {"logits": (4, 5)})

    with pytest.raises(DraftError, match=r"the state 'past.h' needs an output with the role 'present.h'"):
        complete(options, graph_draft(options), run)


def test_text_needs_a_tokenizer_and_a_context(tmp_path: Path) -> None:
    options = replace(text_options(tmp_path), context=None)

    with pytest.raises(DraftError, match=r"text generation needs --tokenizer tokenizer.json and --context"):
        complete(options, graph_draft(options), drawn(options, {"logits": (4, 5)}))
