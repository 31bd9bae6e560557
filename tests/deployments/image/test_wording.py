"""What words become: token ids, classes, or nothing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deployments.errors import BadRequest
from deployments.image.wording import Wording
from model_store.store import Store
from tests.flows import flow
from tests.packages import byte_tokenizer

TOKENIZERS = {"tokenizer.json": byte_tokenizer().to_str().encode()}
SIZE = (16, 8)


def wording(flows: Path, name: str) -> Wording:
    return Wording(Store(str(flows)).manifest(name), TOKENIZERS)


def feeds(of: Wording, prompt: str, guidance: float = 1.0) -> dict[str, Any]:
    return dict(of.condition(prompt, "prompt", SIZE, guidance)[0].feeds)


@pytest.mark.parametrize("prompt", ["square", " Square ", "SQUARE"])
def test_a_class_by_its_name(flows: Path, prompt: str) -> None:
    assert feeds(wording(flows, "tiny-flow"), prompt) == {"label": 1}


def test_no_class_in_particular(flows: Path) -> None:
    assert feeds(wording(flows, "tiny-flow"), " ") == {"label": 3}


@pytest.mark.parametrize(("name", "prompt"), [("tiny-flow", "triangle"), ("unguided-flow", "")])
def test_a_class_that_is_not_there(flows: Path, name: str, prompt: str) -> None:
    """A model that was never shown "no class" must be told one."""
    with pytest.raises(BadRequest, match="circle, square, cross") as error:
        feeds(wording(flows, name), prompt)
    assert (error.value.code, error.value.param) == ("unknown_class", "prompt")


def test_words_are_padded_and_counted(flows: Path) -> None:
    condition, tokens = wording(flows, "text-flow").condition("red", "prompt", SIZE, 1.0)
    assert condition.feeds["text"].tolist() == [*b"red", *[0] * 9]
    assert condition.feeds["text"].dtype == np.int64
    assert condition.feeds["length"].item() == 3
    assert condition.feeds["length"].dtype == np.int32
    assert tokens == 3
    assert wording(flows, "text-flow").limits == {"prompt_tokens": 12}
    assert wording(flows, "tiny-flow").limits == {}


def test_nothing_is_cut_silently(flows: Path) -> None:
    read = wording(flows, "text-flow")
    assert feeds(read, "x" * 12)["length"] == 12
    with pytest.raises(BadRequest, match="13 tokens, the model reads 12") as error:
        read.condition("x" * 13, "negative_prompt", SIZE, 1.0)
    assert (error.value.code, error.value.param) == ("prompt_too_long", "negative_prompt")


@pytest.mark.parametrize("text", ["a\0b", "half \ud83d"])
def test_what_is_no_text(flows: Path, text: str) -> None:
    with pytest.raises(BadRequest):
        feeds(wording(flows, "text-flow"), text)


def test_a_model_that_draws_unconditionally(tmp_path: Path) -> None:
    flow(tmp_path, classes=())
    read = wording(tmp_path, "tiny-flow")
    assert feeds(read, "  ") == {}
    with pytest.raises(BadRequest, match="unconditionally"):
        feeds(read, "circle")


def test_what_the_server_tells_those_that_ask(tmp_path: Path) -> None:
    """The size of the picture, and how far a model that guides itself should go."""
    flow(tmp_path, told=True)
    told = feeds(wording(tmp_path, "tiny-flow"), "circle", 3.5)
    assert told["size"].tolist() == [8, 16]
    assert told["guidance"] == np.float32(3.5)


def test_other_models_have_no_words(tiny: Path) -> None:
    with pytest.raises(ValueError, match="does not make pictures in steps"):
        Wording(Store(str(tiny)).manifest("tiny-gan"), {})
