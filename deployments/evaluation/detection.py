"""How well scores tell anomalies from normal items. Knows no model: scores and labels in, figures and curves out."""

from collections.abc import Mapping
from typing import TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics

from deployments.evaluation.estimates import Sampling, Statistic, estimate, mean
from deployments.evaluation.record import Curve, Figure, Plot
from deployments.evaluation.shown import Found
from model_store.manifest import Scoring
from model_store.ranking import Ranked

Units: TypeAlias = NDArray[np.integer]

_POINTS = 200  # of a curve on the page
_BINS = 40


def detection(
    name: str,
    scores: NDArray[np.floating],
    labels: NDArray[np.bool_],
    threshold: float | None,
    key: str,
    units: Units | None = None,
) -> dict[str, Figure]:
    """AUROC, AUPR and F1 of one score; `labels` are true for anomalies, of which there are some, as of normal items.

    `units`: the one that each score is of, where several are drawn together; they have one label.
    """
    units = np.arange(len(scores)) if units is None else units
    strata = labels[np.unique(units, return_index=True)[1]].astype(np.int64)
    sampling, ranked = Sampling(key, strata), Ranked(scores, labels)
    share = labels.mean()
    figures: dict[str, tuple[Statistic, str]] = {
        "auroc": (ranked.auroc, "probability that an anomaly scores above a normal item"),
        "aupr": (
            ranked.average_precision,
            f"average precision; guessing has {share:.3g}, the share of anomalies",
        ),
        "best_f1": (ranked.best_f1, "F1 at the threshold that is best on this very data"),
    }
    if threshold is not None:
        figures["f1"] = (_f1(scores > threshold, labels), "F1 at the package's own threshold")
    made = {
        f"{kind}.{name}": estimate(_by_unit(statistic, units), sampling, better=True, about=about)
        for kind, (statistic, about) in figures.items()
    }
    if threshold is not None:
        made[f"false_alarms.{name}"] = _alarms(
            scores[~labels] > threshold, f"{key}:normal", "normal items", units[~labels], better=False
        )
    return made


def _alarms(
    above: NDArray[np.bool_], key: str, of: str, units: Units, *, better: bool | None = None
) -> Figure:
    _, units = np.unique(units, return_inverse=True)
    sampling = Sampling.of(key, int(units.max()) + 1)
    about = f"share of {of} above the package's own threshold"
    return estimate(_by_unit(mean(above), units), sampling, better=better, about=about)


def _by_unit(statistic: Statistic, units: Units) -> Statistic:
    """Of how often each unit counts, instead of each score."""
    return lambda weights: statistic(weights[units])


def has_both(labels: NDArray[np.bool_] | None) -> TypeGuard[NDArray[np.bool_]]:
    """Whether some are anomalies, and some are normal."""
    return labels is not None and bool(labels.any()) and not bool(labels.all())


def judged(
    named: Mapping[str, NDArray[np.floating]],
    labels: NDArray[np.bool_] | None,
    scoring: Scoring | None,
    key: str,
    units: Units | None = None,
) -> Found:
    """Every score against the labels; where they do not tell anomalies apart, how often there is an alarm."""
    found = Found()
    thresholds = {name: each.threshold for name, each in scoring.calibrations.items()} if scoring else {}
    if has_both(labels):
        for name, values in named.items():
            found.figures |= detection(name, values, labels, thresholds.get(name), key, units)
        found.plots += curves(named, labels)
        groups = {"normal": ~labels, "anomalies": labels}
    else:
        everything = np.arange(len(next(iter(named.values())))) if units is None else units
        groups = {"all items": np.ones(len(everything), bool)}
        for name, values in named.items():
            if name in thresholds:
                found.figures[f"alarms.{name}"] = _alarms(values > thresholds[name], key, "items", everything)
    first, values = next(iter(named.items()))
    marks = {"threshold": thresholds[first]} if first in thresholds else {}
    shown = {name: values[inside] for name, inside in groups.items()}
    found.plots.append(histogram("Scores", f"score {first}", shown, marks))
    return found


def _f1(found: NDArray[np.bool_], labels: NDArray[np.bool_]) -> Statistic:
    hits, positives = (found & labels).astype(np.float64), found.astype(np.float64) + labels
    return lambda weights: float(2 * weights @ hits / (weights @ positives))


def curves(scores: Mapping[str, NDArray[np.floating]], labels: NDArray[np.bool_]) -> list[Plot]:
    """ROC and precision-recall curves of all scores."""
    roc, pr = [], []
    for name, values in scores.items():
        false, true, _ = metrics.roc_curve(labels, values)
        precision, recall, _ = metrics.precision_recall_curve(labels, values)
        roc.append(thinned(name, false, true))
        pr.append(thinned(name, recall[::-1], precision[::-1]))
    return [
        Plot(
            title="ROC",
            x="false positive rate",
            y="true positive rate",
            curves=tuple(roc),
            unit_square=True,
            diagonal=True,
        ),
        Plot(title="Precision and recall", x="recall", y="precision", curves=tuple(pr), unit_square=True),
    ]


def thinned(name: str, x: NDArray[np.floating], y: NDArray[np.floating]) -> Curve:
    """A curve of no more points than a page shows; x ascending."""
    if len(x) > _POINTS:
        even = np.searchsorted(x, np.linspace(x[0], x[-1], _POINTS // 2))
        chosen = np.unique([0, *even, *np.linspace(0, len(x) - 1, _POINTS // 2).astype(int), len(x) - 1])
        x, y = x[chosen], y[chosen]
    return Curve(
        name=name, x=tuple(round(float(each), 5) for each in x), y=tuple(round(float(each), 5) for each in y)
    )


def histogram(title: str, x: str, groups: Mapping[str, NDArray[np.generic]], marks: dict[str, float]) -> Plot:
    """How the values of each group are distributed, as shares of it; all but the outermost half percent of either side."""
    values = np.concatenate([each.astype(np.float64) for each in groups.values()])
    low, high = np.percentile(values, (0.5, 99.5))
    if high <= low:
        low, high = low - 0.5, high + 0.5
    inside = {name: mark for name, mark in marks.items() if low <= mark <= high}
    made = []
    for name, each in groups.items():
        counts, edges = np.histogram(each.astype(np.float64).clip(low, high), _BINS, (low, high))
        shares = counts / max(len(each), 1)
        xs, ys = np.repeat(edges, 2), np.concatenate([[0], np.repeat(shares, 2), [0]])
        made.append(Curve(name=name, x=tuple(xs.tolist()), y=tuple(np.round(ys, 5).tolist())))
    return Plot(title=title, x=x, y="share of items", curves=tuple(made), kind="area", marks=inside)
