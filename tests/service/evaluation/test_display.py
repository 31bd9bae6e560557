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


def test_differences_name_their_data() -> None:
    new, old = (record({"auroc": figure(value)}, data=data) for value, data in ((0.9, "0"), (0.8, "1")))
    text = printed(differences(new, old, 80), 80)
    assert "better" in text
    assert "measured on different data" in text
