import io

import pytest
from rich.console import Console

from service.evaluation.display import differences, figures
from tests.service.evaluation.records import figure, record


def printed(renderable: object, width: int) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(renderable)
    return out.getvalue()


@pytest.mark.parametrize("width", [80, 140])
def test_figures_have_intervals_and_a_picture_of_the_scores(width: int) -> None:
    text = printed(figures(record({"auroc.ssim": figure(0.9)}), width), width)
    assert "tiny:1 on items, 7 items" in text
    assert "0.89 to 0.91" in text
    assert ("how <well>" in text) == (width > 100)
    assert "Scores 0 to 1, x" in text
    assert "a<b    ▇" in text
    assert "ROC" not in text.replace("AUROC", "")


def test_no_number_is_cut_off_where_there_is_no_room() -> None:
    name = "imputation_error.strangeness_of_everything"
    new, old = (
        record({name: figure(value, spread=0.000123456, better=False)}) for value in (0.009532, 0.01043)
    )
    text = printed(differences(new, old, 80), 80)
    assert "0.009532" in text
    assert "0.01043" in text
    assert "-0.000898 to -0.000898" in text
    assert "better" in text
    assert "0.009409 to 0.009655" in printed(figures(new, 60), 60)


def test_differences_name_their_data() -> None:
    new, old = (record({"auroc": figure(value)}, data=data) for value, data in ((0.9, "0"), (0.8, "1")))
    text = printed(differences(new, old, 80), 80)
    assert "better" in text
    assert "measured on different data" in text
