"""Roles: by name, as told, guessed where one guess is possible, else asked for."""

import pytest

from model_store.export.draft import tensor
from model_store.export.errors import DraftError
from model_store.export.roles import (
    assign_inputs,
    assign_outputs,
    capabilities,
)
from model_store.manifest import Task, Tensor

IMAGES = tensor("x", "float32", "batch", 1, 8, 8)
VECTOR = tensor("z", "float32", "batch", 16)
LABEL = tensor("label", "int64", "batch")


def roles(tensors: list[Tensor]) -> dict[str, str]:
    return {each.name: each.role for each in tensors}


@pytest.mark.parametrize(
    ("task", "tensors", "expected"),
    [
        ("reconstruction", [IMAGES], {"x": "input"}),
        (
            "reconstruction",
            [IMAGES, tensor("noise", "float32", "batch", 4)],
            {"x": "input", "noise": "noise"},
        ),
        ("image-generation", [VECTOR], {"z": "noise"}),
        ("image-generation", [VECTOR, LABEL], {"z": "noise", "label": "class_id"}),
        ("image-generation", [LABEL, VECTOR], {"label": "class_id", "z": "noise"}),
        ("feature-extraction", [tensor("ids", "int64", "batch", "time")], {"ids": "ids"}),
    ],
)
def test_the_only_possible_input_is_guessed(
    task: Task, tensors: list[Tensor], expected: dict[str, str]
) -> None:
    assert roles(assign_inputs(task, tensors, {})) == expected


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ([tensor("y", "float32", "batch", 1, 8, 8)], {"y": "reconstruction"}),
        (
            [tensor("code", "float32", "batch", 4), tensor("y", "float32", "batch", 1, 8, 8)],
            {"code": "code", "y": "reconstruction"},
        ),
        (
            [tensor("latent", "float32", "batch", 4), tensor("reconstruction", "float32", "batch", 1, 8, 8)],
            {"latent": "latent", "reconstruction": "reconstruction"},
        ),
    ],
)
def test_the_output_of_the_inputs_shape_is_the_reconstruction(
    outputs: list[Tensor], expected: dict[str, str]
) -> None:
    inputs = assign_inputs("reconstruction", [IMAGES], {})

    assert roles(assign_outputs("reconstruction", inputs, outputs, {})) == expected


def test_a_generator_has_one_picture() -> None:
    [output] = assign_outputs("image-generation", [], [tensor("y", "float32", "batch", 1, 8, 8)], {})

    assert output.role == "output"


def test_what_was_said_is_not_guessed_again() -> None:
    outputs = [tensor("a", "float32", "batch", 1, 8, 8), tensor("b", "float32", "batch", 1, 8, 8)]
    inputs = assign_inputs("reconstruction", [IMAGES], {})

    found = assign_outputs("reconstruction", inputs, outputs, {"a": "error_map"})

    assert roles(found) == {"a": "error_map", "b": "reconstruction"}


def test_two_possible_tensors_are_asked_about() -> None:
    outputs = [tensor("a", "float32", "batch", 1, 8, 8), tensor("b", "float32", "batch", 1, 8, 8)]
    inputs = assign_inputs("reconstruction", [IMAGES], {})

    with pytest.raises(DraftError) as caught:
        assign_outputs("reconstruction", inputs, outputs, {})

    assert str(caught.value) == (
        "this task needs a tensor with the role reconstruction, and it cannot be guessed among "
        "a float32[batch, 1, 8, 8]; b float32[batch, 1, 8, 8]: say which it is with --output a:reconstruction"
    )


def test_a_step_of_text_names_all_that_is_missing() -> None:
    ids = tensor("ids", "int64", "batch", "time")

    with pytest.raises(DraftError, match="the role select, and"):
        assign_inputs("text-generation", [ids], {"ids": "input_ids"})


def test_a_step_of_text_with_its_names_needs_no_telling() -> None:
    inputs = [tensor(name, "int64", "batch", "time") for name in ("input_ids", "select")]
    outputs = [tensor("logits", "float32", "batch", "selected", 99)]

    assert list(roles(assign_inputs("text-generation", inputs, {}))) == ["input_ids", "select"]
    assert list(roles(assign_outputs("text-generation", inputs, outputs, {}))) == ["logits"]


@pytest.mark.parametrize(
    ("tensors", "said", "complaint"),
    [
        ([], {}, "say what goes in: --example"),
        ([IMAGES], {"y": "input"}, "--input names y; there are x"),
        ([IMAGES, IMAGES], {}, "--input names one twice"),
        ([IMAGES, VECTOR], {"x": "input", "z": "input"}, "two tensors have the same role: x:input, z:input"),
        ([tensor("x", "float32", 4, 4)], {}, "the first dimension of x must be `batch`"),
    ],
)
def test_roles_that_make_no_sense_are_refused(
    tensors: list[Tensor], said: dict[str, str], complaint: str
) -> None:
    with pytest.raises(DraftError, match=complaint):
        assign_inputs("reconstruction", tensors, said)


@pytest.mark.parametrize(
    ("task", "found", "expected"),
    [
        ("reconstruction", {"input", "reconstruction"}, ("reconstruct",)),
        ("reconstruction", {"input", "reconstruction", "latent"}, ("reconstruct", "encode", "embed")),
        ("image-generation", {"noise", "output"}, ("generate_image",)),
        ("text-generation", {"input_ids"}, ("complete",)),
        ("feature-extraction", set(), ("embed",)),
    ],
)
def test_roles_decide_what_a_package_can_do(task: Task, found: set[str], expected: tuple[str, ...]) -> None:
    assert capabilities(task, found) == expected
