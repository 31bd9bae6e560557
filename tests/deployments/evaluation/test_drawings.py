import numpy as np

from deployments.evaluation.data import Items
from deployments.evaluation.drawings import prompts
from model_store.imaging import Image, Prompt

CLASSES = Image(channels=1, height=8, width=8, classes=("circle", "Square", "cross"))


def items(*captions: str) -> Items:
    return Items(np.zeros((len(captions), 1, 8, 8), np.float32), ("",) * len(captions), captions=captions)


def test_classes_are_drawn_as_often_as_in_the_data() -> None:
    wanted, whose = prompts(CLASSES, items("square", "circle", "circle"), 6)
    assert sorted(wanted) == ["circle"] * 4 + ["square"] * 2
    assert whose == "the data's own"
    assert len(prompts(CLASSES, items("square", "circle", "circle"), 2)[0]) == 2


def test_words_that_are_no_classes_are_not_asked_for() -> None:
    wanted, whose = prompts(CLASSES, items("square", "hexagon"), 4)
    assert wanted == ["circle", "Square", "cross", "circle"]
    assert whose == "every class equally often"


def test_who_draws_unconditionally_is_asked_for_nothing() -> None:
    plain = CLASSES.model_copy(update={"classes": ()})
    assert prompts(plain, items("square"), 2) == (["", ""], "")


def test_who_reads_words_is_asked_for_any() -> None:
    part = Prompt(tokenizer="tokenizer.json", length=8, pad=0)
    reader = CLASSES.model_copy(update={"classes": (), "prompt": (part,)})
    assert prompts(reader, items("a red hexagon"), 2)[0] == ["a red hexagon"] * 2
    assert prompts(reader, items("", "a red hexagon"), 2)[0] == ["", ""]
