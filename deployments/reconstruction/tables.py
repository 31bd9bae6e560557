"""Requests of table rows: scores explained by feature, missing values filled in. One object a request."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar, cast

import numpy as np

from deployments.items import ReadItem
from deployments.messages import (
    Array,
    Decode,
    Encode,
    Interpolate,
    Item,
    Output,
    Reconstruct,
    RowItem,
    Score,
)
from deployments.oneshot import Result, Task
from deployments.randomness import stream
from deployments.reconstruction.features import Features
from deployments.reconstruction.places import named
from deployments.reconstruction.tasks import Autoencoding, Floats

# Reconstructions beside the first of a row with missing values, where the request names no number.
_SAMPLES: Final = 8
# Share of the known features that each sample of a model without noise does without.
_HIDDEN: Final = 0.25
_SAMPLED: Final = 1 << 32  # places of samples' random numbers, behind those of items

T = TypeVar("T")


class Tables:
    """Reads the rows of one request for `rows`, which works on them, and writes its answers by feature."""

    def __init__(self, rows: Autoencoding, features: Features, noise: int) -> None:
        self._rows = rows
        self._features = features
        self._noise = noise  # numbers of the reconstruction's
        self._read: list[Any] = []
        self._samples: list[list[Any]] = []  # of each row

    # -- scores --------------------------------------------------------------------------------------------------------

    owners: None = None
    """Each row is an item."""

    def rows(self, request: T) -> T:
        """The request of rows that are read."""
        return cast("T", self._plain(request))

    def judged(
        self, request: Score, outputs: Sequence[Output], results: Sequence[Result]
    ) -> tuple[Output, ...]:
        """Scores, and each feature's contribution."""
        if not request.contributions:
            return tuple(outputs)
        return tuple(
            replace(output, contributions=self._shares(item, result, place))
            for place, (item, output, result) in enumerate(zip(self._read, outputs, results, strict=True))
        )

    def _shares(self, item: Any, result: Result, place: int) -> dict[str, float]:
        """By the graph's own word, or by the squared error of each known column."""
        feeds = self._rows.items.feeds(item, f"input[{place}]")
        known = feeds.get("known", np.ones(len(self._features.names), np.float32))
        errors = result.get("contribution")
        if errors is None:
            errors = (result["reconstruction"].astype(np.float64) - feeds["input"]) ** 2
        return self._features.shares(errors, known)

    # -- reconstructions -----------------------------------------------------------------------------------------------

    def reconstruct(self, request: Reconstruct) -> list[Task]:
        """A task a row, and behind them those of samples of rows with missing values."""
        self._plain(request)
        count = _SAMPLES if request.samples is None else request.samples
        seed = 0 if request.seed is None else request.seed
        self._samples = [
            self._drawn(item, count, seed, place) if _incomplete(item) else []
            for place, item in enumerate(self._read)
        ]
        drawn = [sample for samples in self._samples for sample in samples]
        # What hides features takes a seed for that, though the model takes none.
        own_seed = request.seed if self._noise or not drawn else None
        return self._rows.reconstruct(replace(request, items=(*self._read, *drawn), seed=own_seed))

    def _drawn(self, item: ReadItem, count: int, seed: int, place: int) -> list[ReadItem]:
        """The row with other noise; for a model that takes none, without some of its known features."""
        chance = stream(seed, _SAMPLED + place)
        if self._noise:
            return [
                ReadItem({**item.feeds, "noise": chance.standard_normal(self._noise, dtype=np.float32)})
                for _ in range(count)
            ]
        known = np.flatnonzero(item.feeds["known"])
        hidden = np.zeros((count, len(item.feeds["known"])), bool)
        hidden[:, known] = chance.random((count, len(known))) < _HIDDEN
        hidden[np.arange(count), chance.choice(known, count)] = False  # something has to be known
        return [self._features.hide(item, each) for each in hidden]

    def reconstructed(self, request: Reconstruct, results: Sequence[Result]) -> tuple[Output, ...]:
        """Every feature as the model redraws it, and what it fills in where there was none."""
        drawn = [sample for samples in self._samples for sample in samples]
        owners = [place for place, samples in enumerate(self._samples) for _ in samples]
        outputs = named(
            lambda: self._rows.reconstructed(replace(request, items=(*self._read, *drawn)), results),
            [*range(len(self._read)), *owners],
        )
        samples = iter(outputs[len(self._read) :])
        return tuple(
            self._written(item, output, [_floats(next(samples).array) for _ in own])
            for item, output, own in zip(request.items, outputs, self._samples, strict=False)
        )

    def _written(self, item: Item, output: Output, samples: list[Floats]) -> Output:
        if not isinstance(item, RowItem):
            return output
        row = _floats(output.array)
        imputed = self._features.imputed(row, samples, item)
        return replace(output, array=None, features=self._features.write(row), imputed=imputed or None)

    # -- latents -------------------------------------------------------------------------------------------------------

    def encode(self, request: Encode) -> list[Task]:
        """One task a row."""
        return self._rows.encode(self._plain(request))

    def encoded(self, request: Encode, results: Sequence[Result]) -> tuple[Output, ...]:
        """Latents."""
        return self._rows.encoded(request, results)

    def decode(self, request: Decode) -> list[Task]:
        """One task a latent."""
        return self._rows.decode(request)

    def ends(self, request: Interpolate) -> tuple[Task | Floats, Task | Floats]:
        """Both ends of an interpolation."""
        start, end = (
            self._features.read(each, param) if isinstance(each, RowItem) else each
            for each, param in ((request.start, "from"), (request.end, "to"))
        )
        return self._rows.ends(replace(request, start=start, end=end))  # type: ignore[arg-type]  # read already

    def interpolate(self, request: Interpolate, start: Floats, end: Floats) -> list[Task]:
        """One task a step."""
        return self._rows.interpolate(request, start, end)

    def decoded(self, request: Decode | Interpolate, results: Sequence[Result]) -> tuple[Output, ...]:
        """Rows by feature."""
        outputs = self._rows.decoded(request, results)
        return tuple(
            replace(each, array=None, features=self._features.write(_floats(each.array))) for each in outputs
        )

    def _plain(self, request: Any) -> Any:
        """The request of rows that are read."""
        self._read = [
            self._features.read(item, f"input[{place}]") if isinstance(item, RowItem) else item
            for place, item in enumerate(request.items)
        ]
        return replace(request, items=tuple(self._read))


def _incomplete(item: Any) -> bool:
    return isinstance(item, ReadItem) and not item.feeds["known"].all()


def _floats(array: Array | None) -> Floats:
    return np.frombuffer(array.data if array else b"", "<f4")
