import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.evaluation.record import Curve, Plot
from deployments.evaluation.shown import Found, Grid, Passage, Sheet, Tile
from service.evaluation.numbers import shown, signed, title
from service.evaluation.page import comparison_page, evaluation_page
from service.evaluation.svg import chart, interval, ticks
from tests.service.evaluation.records import figure, record

FOUND = Found(
    grids=[Grid("Drawn", "some", (Tile(b"png", "<cap>"),))],
    passages=[Passage("ask <script>", "say", "want"), Passage("nothing", "")],
    sheets=[Sheet("Shares", "of <each>", ("feature", "all"), (("<age>", "9.5%"),))],
)


class Balanced(HTMLParser):
    """Raises where elements are not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def sound(page: str) -> None:
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    assert not re.search(r"(src|href)=\"(?!data:)|url\(|@import|<script", page)  # it needs nothing else


def test_a_page_is_sound_and_needs_nothing_else() -> None:
    page = evaluation_page(
        record({"auroc.ssim": figure(0.9), "latency_p50": figure(2.0, better=False)}), FOUND
    )
    sound(page)
    for said in (
        "AUROC (ssim)",
        "0.9 ↑",
        "2 ↓",
        "A &lt;b&gt;tiny&lt;/b&gt; one",
        "ask &lt;script&gt;",
        "(nothing)",
        "&lt;cap&gt;",
        '<td class="name">&lt;age&gt;</td><td class="number">9.5%</td>',
    ):
        assert said in page
    assert page.count('class="interval"') == 1  # of what lies between 0 and 1
    assert page.count('<path class="c0') == 3


def test_a_comparison_says_what_is_better_and_why_it_may_not_be() -> None:
    new = record({"auroc": figure(0.9), "mse": figure(0.5, better=False), "only": figure(1.0)}, version="2")
    old = record({"auroc": figure(0.8), "mse": figure(0.3, better=False)})
    page = comparison_page(new, old)
    sound(page)
    assert "tiny:2<small>beside tiny:1" in page
    assert '<td class="better">better</td>' in page
    assert '<td class="worse">worse</td>' in page
    assert "on the same items" in page
    assert "on different data" in comparison_page(new, record({"auroc": figure(0.8)}, data="1"))
    assert page.count("<figure>") == 2


def plot(*ys: float, **more: Any) -> str:
    curve = Curve(name="a", x=tuple(map(float, range(len(ys)))), y=ys)
    return chart(Plot(title="t", x="step", y="value", curves=(curve,), **more))


def test_parts_of_the_time_are_marked() -> None:
    drawn = plot(1.0, 2.0, 5.0, spans=((1.0, 1.0), (0.0, 2.0)))
    assert drawn.count('class="window"') == 2
    assert 'width="2"' in drawn  # what is one step long can be seen


def test_lines_far_from_zero_are_shown_from_where_they_are() -> None:
    assert ">0</text>" not in plot(1000.0, 1001.0).split('class="axis"')[0]
    assert ">-4</text>" in plot(-4.0, 2.0)
    assert ">0</text>" in plot(1.0, 9.0).split('class="axis"')[0]
    assert ">0</text>" in plot(1000.0, 1001.0, kind="area").split('class="axis"')[0]


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_few_and_inside(low: float, width: float) -> None:
    found = ticks(low, low + width)
    assert 1 <= len(found) <= 8
    assert all(low - width * 1e-3 <= each <= low + width * (1 + 1e-3) for each in found)


def test_an_interval_is_drawn_of_shares_only() -> None:
    assert interval([figure(0.5), figure(0.9)]).count("<circle") == 2
    assert not interval([figure(0.5), figure(1.5)])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("auroc.ssim", "AUROC (ssim)"),
        ("throughput_16", "throughput, 16 at once"),
        ("drawing_latency_p50", "drawing: latency p50"),
        ("bits_per_byte", "bits per byte"),
        ("nab_alarms.reward_low_FP_rate", "NAB, alarms (low FP)"),
        ("imputation_error.30", "imputation error (30 % hidden)"),
    ],
)
def test_names_become_words(name: str, words: str) -> None:
    assert title(name) == words


def test_numbers_have_as_many_digits_as_are_known() -> None:
    assert [shown(0.123456), shown(12345.6), shown(20.5, "dB")] == ["0.1235", "12,346", "20.5 dB"]
    assert [signed(0.12345), signed(-2345.6)] == ["+0.123", "-2,346"]
