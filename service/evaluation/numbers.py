"""How figures are written: their names in words, their values with as many digits as are known."""

from collections.abc import Iterable, Mapping
from typing import Final

from deployments.evaluation.estimates import Difference
from deployments.evaluation.record import Figure

_WORDS: Final = {
    "auroc": "AUROC",
    "aupr": "AUPR",
    "f1": "F1",
    "best_f1": "best F1",
    "aupro": "AUPRO",
    "pixel_auroc": "pixel AUROC",
    "reconstruction_mse": "reconstruction MSE",
    "reconstruction_psnr": "reconstruction PSNR",
    "reconstruction_ssim": "reconstruction SSIM",
    "frechet": "Frechet distance",
    "vendi": "Vendi score",
    "bleu": "BLEU",
    "chrf": "chrF",
    "knn_accuracy": "nearest-neighbour accuracy",
    "nab": "NAB score",
    "nab_alarms": "NAB, alarms",
    "nab_own_alarms": "NAB, own alarms",
    "nab_gaussian": "NAB, Gaussian",
    "10": "10 % hidden",
    "30": "30 % hidden",
    "50": "50 % hidden",
    "reward_low_FP_rate": "low FP",
    "reward_low_FN_rate": "low FN",
    "false_alarms_per_1000": "false alarms per 1,000",
    "latency_p50": "latency p50",
    "latency_p99": "latency p99",
    "first_token_p50": "first token p50",
}
# What a page says first of a model, if it was measured.
_HEADS: Final = (
    "nab", "nab_own_alarms", "auroc", "imputation_error", "windows_found", "knn_accuracy",
    "similarity", "accuracy", "pixel_auroc", "aupro", "frechet", "coverage", "bleu", "chrf", "exact_match", "bits_per_byte",
    "reconstruction_psnr", "reconstruction_ssim", "first_token_p50", "latency_p50", "drawing_latency_p50",
)  # fmt: skip
_MOST_HEADS: Final = 4


def title(name: str) -> str:
    """`auroc.ssim` in words."""
    if name.startswith("drawing_"):
        return f"drawing: {title(name.removeprefix('drawing_'))}"
    kind, _, score = name.partition(".")
    batched = kind.removeprefix("throughput_")
    words = f"throughput, {batched} at once" if batched != kind else _WORDS.get(kind, kind.replace("_", " "))
    return f"{words} ({_WORDS.get(score, score)})" if score else words


def headline(figures: Mapping[str, Figure]) -> list[str]:
    """Names of the few figures that say most: of several scores the first."""
    found = [next((name for name in figures if name.partition(".")[0] == kind), None) for kind in _HEADS]
    return [name for name in found if name][:_MOST_HEADS]


def shown(value: float, unit: str = "") -> str:
    """Four significant digits, thousands apart."""
    number = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{number} {unit}".strip()


def signed(value: float) -> str:
    """A difference."""
    return f"{value:+,.0f}" if abs(value) >= 1000 else f"{value:+.3g}"


def spread(figure: Figure) -> str:
    """The interval."""
    return f"{shown(figure.low)} to {shown(figure.high)}"


def arrow(figure: Figure) -> str:
    """Which way is better."""
    return {True: "↑", False: "↓", None: ""}[figure.higher_is_better]


def verdict(figure: Figure, change: Difference) -> str:
    """`better`, `worse`, or nothing where the interval holds zero or neither way is better."""
    if figure.higher_is_better is None or not change.certain:
        return ""
    return "better" if (change.value > 0) == figure.higher_is_better else "worse"


def common(*names: Iterable[str]) -> list[str]:
    """Names that all have, in the first one's order."""
    first, *others = (list(each) for each in names)
    return [name for name in first if all(name in other for other in others)]
