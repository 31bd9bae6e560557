import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from model_store.zoo import fashion
from tests.model_store.zoo.tiny_fashion import write_idx, write_tiny_fashion


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_tiny_fashion(tmp_path / "data")


def file(data: Path, name: str) -> Path:
    return data / fashion.DATA_FOLDER / f"{name}-ubyte.gz"


def test_images_are_between_0_and_1_and_carry_their_labels(data: Path) -> None:
    found = fashion.read_split(data, "train")
    assert found.images.shape == (60, 1, 28, 28)
    assert found.images.dtype == torch.float32
    assert 0 <= found.images.min() < found.images.max() <= 1
    assert found.labels.tolist() == [label % 10 for label in range(60)]


def test_the_splits_are_different_files(data: Path) -> None:
    assert len(fashion.read_split(data, "t10k")) == 40


def test_a_pixel_of_255_is_1(data: Path) -> None:
    write_idx(file(data, "t10k-images-idx3"), fashion.IMAGES_MAGIC, np.full((40, 28, 28), 255))
    assert fashion.read_split(data, "t10k").images.unique().tolist() == [1.0]


def test_a_class_can_be_taken_out(data: Path) -> None:
    shirts = fashion.read_split(data, "train").of_class(6)
    assert shirts.labels.tolist() == [6] * 6


def test_the_last_images_are_cut_off(data: Path) -> None:
    everything = fashion.read_split(data, "train")
    learned, held = everything.cut(10)
    assert (len(learned), len(held)) == (50, 10)
    assert torch.equal(torch.cat([learned.images, held.images]), everything.images)


def test_never_more_than_half_is_cut_off(data: Path) -> None:
    learned, held = fashion.read_split(data, "train").cut(5_000)
    assert (len(learned), len(held)) == (30, 30)


def test_a_missing_file_is_named_with_its_home(tmp_path: Path) -> None:
    with pytest.raises(fashion.DataError, match=r"train-images-idx3-ubyte.gz .*github.com/zalandoresearch"):
        fashion.read_split(tmp_path, "train")


def test_a_file_that_is_not_gzip_is_refused(data: Path) -> None:
    file(data, "train-labels-idx1").write_bytes(b"not gzip")
    with pytest.raises(fashion.DataError, match="gzipped IDX"):
        fashion.read_split(data, "train")


def test_a_truncated_file_is_refused(data: Path) -> None:
    path = file(data, "train-images-idx3")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(fashion.DataError, match="gzipped IDX"):
        fashion.read_split(data, "train")


def test_too_few_pixels_are_refused(data: Path) -> None:
    path = file(data, "train-images-idx3")
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-1]))
    with pytest.raises(fashion.DataError, match="47039 bytes"):
        fashion.read_split(data, "train")


def test_a_header_of_another_kind_is_refused(data: Path) -> None:
    write_idx(file(data, "train-labels-idx1"), 0x0D01, np.zeros(60, np.int64))
    with pytest.raises(fashion.DataError, match="magic 0x0d01"):
        fashion.read_split(data, "train")


def test_an_empty_file_is_refused(data: Path) -> None:
    file(data, "train-labels-idx1").write_bytes(gzip.compress(b""))
    with pytest.raises(fashion.DataError, match="gzipped IDX"):
        fashion.read_split(data, "train")


def test_labels_must_be_as_many_as_images(data: Path) -> None:
    write_idx(file(data, "train-labels-idx1"), fashion.LABELS_MAGIC, np.zeros(59, np.int64))
    with pytest.raises(fashion.DataError, match="59 labels for images of shape"):
        fashion.read_split(data, "train")


def test_images_must_be_28_pixels_wide(data: Path) -> None:
    write_idx(file(data, "train-images-idx3"), fashion.IMAGES_MAGIC, np.zeros((60, 28, 32), np.int64))
    with pytest.raises(fashion.DataError, match="28, 32"):
        fashion.read_split(data, "train")


def test_a_label_without_a_class_is_refused(data: Path) -> None:
    write_idx(file(data, "train-labels-idx1"), fashion.LABELS_MAGIC, np.full(60, 10))
    with pytest.raises(fashion.DataError, match="a label above 9"):
        fashion.read_split(data, "train")


@given(count=st.integers(1, 40), size=st.integers(1, 50), rounds=st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_every_image_comes_once_a_round(count: int, size: int, rounds: int) -> None:
    steps = -(-count * rounds // size)
    drawn = torch.cat(list(fashion.batches(count, size, steps, seed=3)))
    assert len(drawn) == steps * size
    for first in range(0, rounds * count, count):
        assert sorted(drawn[first : first + count].tolist()) == list(range(count))


def test_the_order_depends_on_the_seed_alone() -> None:
    first, again, other = ([b.tolist() for b in fashion.batches(50, 8, 20, seed)] for seed in (1, 1, 2))
    assert first == again != other


def test_the_learning_rate_rises_and_then_falls_to_nothing() -> None:
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=2.0)
    schedule = fashion.warmup_cosine(optimizer, steps=100)
    rates = []
    for _ in range(100):
        optimizer.step()
        rates.append(optimizer.param_groups[0]["lr"])
        schedule.step()
    assert rates[:5] == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0])
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[-1] < 0.01


def test_pieces_are_put_together_again() -> None:
    sizes: list[int] = []

    def double(piece: torch.Tensor) -> torch.Tensor:
        sizes.append(len(piece))
        return 2 * piece

    assert torch.equal(fashion.in_pieces(double, torch.arange(7), size=3), 2 * torch.arange(7))
    assert sizes == [3, 3, 1]


def test_pieces_are_computed_without_gradients() -> None:
    weight = torch.ones(1, requires_grad=True)
    assert not fashion.in_pieces(lambda piece: piece * weight, torch.ones(4)).requires_grad


def test_the_source_is_named_with_its_licence() -> None:
    found = fashion.SOURCE.provenance(nn.Linear(3, 2), "fashion_test", seed=5, steps=7)
    assert (found.data, found.data_licence, found.recipe) == ("Fashion-MNIST", "MIT", "fashion_test")
    assert (found.seed, found.steps, found.parameters) == (5, 7, 8)
    assert "Zalando" in found.attribution


def test_pictures_are_grey_and_28_wide() -> None:
    part = fashion.image_part("generate", "noise", fashion.CLASS_NAMES)
    assert (part.channels, part.height, part.width) == (1, 28, 28)
    assert part.classes[9] == "ankle boot"


def test_reduced_precision_is_bfloat16() -> None:
    with fashion.reduced_precision():
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == torch.bfloat16
