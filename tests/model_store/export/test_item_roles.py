"""Roles of what scores or redraws items, where they can be told and where they are asked for."""

import pytest

from model_store.export.draft import tensor
from model_store.export.errors import DraftError
from model_store.export.item_roles import able, guess_outputs, picture_of
from model_store.imaging import Image
from model_store.manifest import Tensor

PICTURE = ("batch", 3, 8, 8)
INPUT = [tensor("x", "float32", *PICTURE, role="input")]


def out(**shapes: tuple[int | str, ...]) -> list[Tensor]:
    return [tensor(name, "float32", *shape) for name, shape in shapes.items()]


@pytest.mark.parametrize(
    ("outputs", "said", "expected"),
    [
        (out(pred_score=("batch", 1), anomaly_map=PICTURE), {}, ["score.anomaly", "error_map"]),
        (out(output=("batch",)), {}, ["score.anomaly"]),
        (out(y=PICTURE, z=("batch", 4)), {}, ["reconstruction", "z"]),
        (out(y=PICTURE, z=("batch", 4)), {"z": "latent"}, ["reconstruction", "latent"]),
        (out(y=("batch",), z=("batch",)), {"z": "score.far"}, ["y", "score.far"]),
        (out(reconstruction=PICTURE, x2=PICTURE), {}, ["reconstruction", "x2"]),
        (out(output=("batch", 1, 8, 8)), {}, ["error_map"]),
        (out(output=("batch", 1, 8, 8), other=("batch",)), {}, ["output", "score.anomaly"]),
        (out(m=PICTURE), {"m": "error_map"}, ["error_map"]),
    ],
)
def test_roles_are_guessed_where_one_guess_is_possible(
    outputs: list[Tensor], said: dict[str, str], expected: list[str]
) -> None:
    roles = guess_outputs(INPUT, outputs, said)
    assert [roles[each.name] for each in outputs] == expected


def test_two_that_could_be_are_shown_and_asked_for() -> None:
    with pytest.raises(
        DraftError, match=r"say --output a:score.anomaly or --output b:score.anomaly$"
    ) as error:
        guess_outputs(INPUT, out(a=("batch",), b=("batch",), c=("batch", 4)), {}, "--output")
    shown = ["in  x float32[batch, 3, 8, 8]", *(f"out {name} float32[batch]" for name in "ab")]
    assert error.value.detail.splitlines() == [*shown, "out c float32[batch, 4]"]
    with pytest.raises(DraftError, match="no output has the shape of a score"):
        guess_outputs(INPUT, out(a=("batch", 4)), {})


@pytest.mark.parametrize("role", ["score.far", "reconstruction"])
def test_a_role_is_refused_to_another_shape(role: str) -> None:
    with pytest.raises(DraftError, match=f"a has not the shape of what is called {role}$") as error:
        guess_outputs(INPUT, out(a=("batch", 4)), {"a": role})
    assert "out a float32[batch, 4]" in error.value.detail


def test_a_row_of_one_number_is_no_score_of_itself() -> None:
    single = [tensor("x", "float32", "batch", 1, role="input")]
    assert guess_outputs(single, out(y=("batch", 1)), {}) == {"y": "reconstruction"}


def test_what_a_package_can_do_follows_from_its_roles() -> None:
    assert able(["input", "reconstruction", "latent", "score.l1"], decodes=True) == (
        "reconstruct", "score", "encode", "embed", "decode", "interpolate",
    )  # fmt: skip
    assert able(["score.x"]) == ("score",)


def test_pictures_have_one_three_or_four_channels_first() -> None:
    assert picture_of((3, 4, 5)) == Image(channels=3, height=4, width=5)
    assert [picture_of(shape) for shape in ((2, 4, 5), (5,), (3, "height", 5))] == [None] * 3
