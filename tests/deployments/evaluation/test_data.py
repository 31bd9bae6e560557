import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from deployments.evaluation.data import chosen, read_items
from deployments.evaluation.errors import EvaluationError
from deployments.evaluation.text_data import read_texts
from deployments.messages import Chat
from model_store.imaging import Image

SHAPE = (1, 8, 8)
IMAGE = Image(channels=1, height=8, width=8)


def picture(path: Path, bright: int, size: int = 8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.new("L", (size, size), bright).save(path)
    return path


def mvtec(folder: Path) -> Path:
    for number in range(3):
        picture(folder / f"test/good/{number}.png", 50)
    picture(folder / "test/scratch/0.png", 200, 16)
    picture(folder / "ground_truth/scratch/0_mask.png", 255, 16)
    picture(folder / "train/good/0.png", 0)
    return folder


def test_a_folder_in_mvtecs_layout(tmp_path: Path) -> None:
    items, data = read_items(mvtec(tmp_path), SHAPE, IMAGE, None)
    assert items.groups == ("good", "good", "good", "scratch")
    assert items.labels is not None
    assert items.labels.tolist() == [False, False, False, True]
    assert items.masks is not None
    assert items.masks.any((1, 2)).tolist() == [False, False, False, True]
    assert items.values[:, 0, 0, 0] == pytest.approx(np.array([50, 50, 50, 200]) / 255)
    assert data.items == 4
    assert data.groups == {"good": 3, "scratch": 1}


def test_the_test_folder_alone_is_the_same_data(tmp_path: Path) -> None:
    whole, part = (read_items(mvtec(tmp_path) / each, SHAPE, IMAGE, None)[1] for each in (".", "test"))
    assert whole.digest == part.digest


def test_other_pictures_other_masks_and_other_limits_have_other_digests(tmp_path: Path) -> None:
    def digest(limit: int | None = None) -> str:
        return read_items(tmp_path, SHAPE, IMAGE, limit)[1].digest

    mvtec(tmp_path)
    seen = {digest(), digest(3)}
    picture(tmp_path / "test/good/1.png", 51)
    seen.add(digest())
    picture(tmp_path / "ground_truth/scratch/0_mask.png", 0)
    assert len({*seen, digest()}) == 4


def test_pictures_without_good_ones_are_not_labelled(tmp_path: Path) -> None:
    picture(tmp_path / "a/0.png", 1)
    picture(tmp_path / "0.png", 1)
    items, _ = read_items(tmp_path, SHAPE, IMAGE, None)
    assert items.labels is None
    assert items.groups == ("", "a")


def test_a_missing_mask_is_named(tmp_path: Path) -> None:
    (mvtec(tmp_path) / "ground_truth/scratch/0_mask.png").unlink()
    with pytest.raises(EvaluationError, match=r"0\.png has no mask"):
        read_items(tmp_path, SHAPE, IMAGE, None)


def arrays(path: Path, **given: np.ndarray) -> Path:
    np.savez(path, allow_pickle=False, **given)
    return path


def test_arrays_with_labels_and_masks(tmp_path: Path) -> None:
    x = np.full((2, 8, 8), 255, np.uint8)
    file = arrays(tmp_path / "a.npz", X=x, y=np.array([0, 1]), masks=np.stack([x[0] * 0, x[0]]))
    items, data = read_items(file, SHAPE, IMAGE, None)
    assert items.values.shape == (2, 1, 8, 8)
    assert items.values.max() == 1
    assert items.groups == ("good", "anomaly")
    assert items.masks is not None
    assert items.masks.any((1, 2)).tolist() == [False, True]
    assert data.name == "a.npz"


def test_channels_may_come_last(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((1, 4, 5, 3)).astype(np.float32)
    items, _ = read_items(
        arrays(tmp_path / "a.npz", X=x), (3, 4, 5), Image(channels=3, height=4, width=5), None
    )
    assert np.array_equal(items.values[0], x[0].transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"Z": np.zeros(1)}, "has no array X, only Z"),
        ({"X": np.zeros((2, 9))}, "have shape [9], and the model takes [1, 8, 8]"),
        ({"X": np.zeros((2, 64)), "y": np.zeros(3)}, "y is of 3 items, X of 2"),
        ({"X": np.zeros((2, 64)), "masks": np.zeros((2, 3))}, "masks of a.npz have shape [3], not [8, 8]"),
        ({"X": np.full((2, 64), 255, np.uint8)}, "go from 255 to 255, where pictures have values in [0, 1]"),
        ({"X": np.array([np.zeros(64), np.full(64, np.nan)])}, "X[1] is not finite"),
    ],
)
def test_wrong_arrays_are_a_sentence(tmp_path: Path, given: dict[str, np.ndarray], said: str) -> None:
    with pytest.raises(EvaluationError, match=re.escape(said)):
        read_items(arrays(tmp_path / "a.npz", **given), SHAPE, IMAGE, None)


def test_what_is_no_data_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "no.npz").write_bytes(b"PK")
    (tmp_path / "no.png").write_bytes(b"")
    with pytest.raises(EvaluationError, match=r"no\.npz cannot be read"):
        read_items(tmp_path / "no.npz", SHAPE, IMAGE, None)
    with pytest.raises(EvaluationError, match=r"no\.png: "):
        read_items(tmp_path, SHAPE, IMAGE, None)
    with pytest.raises(EvaluationError, match="takes numbers"):
        read_items(tmp_path, (3,), None, None)
    with pytest.raises(EvaluationError, match="neither a folder"):
        read_items(tmp_path / "no", SHAPE, IMAGE, None)


def test_prompts_are_captions_or_folders(tmp_path: Path) -> None:
    for name in ("cat/0.png", "dog/0.png"):
        picture(tmp_path / name, 1)
    items, data = read_items(tmp_path, SHAPE, IMAGE, None)
    assert items.prompts == ("cat", "dog")
    lines = [{"file_name": f"{name}/0.png", "text": f"a {name}"} for name in ("dog", "cat")]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    captioned, other = read_items(tmp_path, SHAPE, IMAGE, None)
    assert captioned.prompts == ("a cat", "a dog")
    assert data.digest != other.digest
    picture(tmp_path / "0.png", 1)
    with pytest.raises(EvaluationError, match=r"lacks '0\.png': each picture has a line"):
        read_items(tmp_path, SHAPE, IMAGE, None)
    (tmp_path / "metadata.jsonl").write_text("[]")
    with pytest.raises(EvaluationError, match="cannot be read as lines of JSON"):
        read_items(tmp_path, SHAPE, IMAGE, None)
    (tmp_path / "metadata.jsonl").unlink()
    assert read_items(tmp_path, SHAPE, IMAGE, None)[0].prompts == ()  # one picture has no folder
    file = arrays(tmp_path / "a.npz", X=np.zeros((2, 64)), prompts=np.array(["a", "b"]))
    assert read_items(file, SHAPE, IMAGE, 1)[0].prompts in {("a",), ("b",)}


def test_a_limit_takes_always_the_same_items() -> None:
    assert chosen(5, None) == chosen(5, 9) == [0, 1, 2, 3, 4]
    assert chosen(100, 10) == chosen(100, 10)
    assert len(set(chosen(100, 10))) == 10


# -- texts --------------------------------------------------------------------------------------------------------------


def test_documents_and_pairs(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "b.txt").write_text("two")
    assert read_texts(tmp_path, None)[0].documents == ("one", "two")
    lines = tmp_path / "p.jsonl"
    lines.write_text(
        '{"prompt": "p", "target": "t"}\n\n{"messages": [{"role": "user", "content": "hi"}], "target": ["a", "b"]}\n'
    )
    texts, data = read_texts(lines, None)
    assert [each.wanted for each in texts.pairs] == [("t",), ("a", "b")]
    assert isinstance(texts.pairs[1].prompt, Chat)
    assert texts.pairs[1].asked == "hi"
    assert data.items == 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"prompt": "p"}', "line 1 of .* has neither"),
        ("nonsense", "line 1 of .* is wrong"),
        ('{"text": "a"}\n{"prompt": "p", "target": "t"}', "mixes documents with pairs"),
        ("", "there is no text"),
    ],
)
def test_wrong_lines_are_a_sentence(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(EvaluationError, match=said):
        read_texts(tmp_path / "a.jsonl", None)
