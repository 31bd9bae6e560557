"""How near answers are to what was wanted, and how they vary: BLEU, chrF, exact match, distinct n-grams. Knows no model."""

from collections.abc import Sequence
from itertools import zip_longest

import numpy as np
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from deployments.evaluation.estimates import Sampling, Statistic, estimate, mean
from deployments.evaluation.record import Figure
from model_store.ranking import Weights


def agreement(answers: Sequence[str], wanted: Sequence[Sequence[str]], key: str) -> dict[str, Figure]:
    """BLEU, chrF and exact matches of answers, each beside one or more right ones."""
    sampling = Sampling.of(key, len(answers))
    exact = np.array(
        [answer.strip() in map(str.strip, right) for answer, right in zip(answers, wanted, strict=True)]
    )
    signature = "sacrebleu, 13a, case kept"
    return {
        "bleu": estimate(
            _corpus(BLEU(force=True), answers, wanted), sampling, better=True, about=f"BLEU ({signature})"
        ),
        "chrf": estimate(_corpus(CHRF(), answers, wanted), sampling, better=True, about="chrF2 (sacrebleu)"),
        "exact_match": estimate(
            mean(exact),
            sampling,
            better=True,
            about="share of answers that are a right one, letter by letter",
        ),
    }


def _corpus(metric: BLEU | CHRF, answers: Sequence[str], wanted: Sequence[Sequence[str]]) -> Statistic:
    """A corpus figure from each answer's counts: the same that sacrebleu's own bootstrap sums up."""
    streams = list(zip_longest(*wanted))  # sacrebleu takes all first references, then all second ones, ...
    counts = np.array(metric._extract_corpus_statistics(answers, streams), np.float64)  # noqa: SLF001
    whole = isinstance(metric, BLEU)  # its counts are integers, and so it prints them

    def statistic(weights: Weights) -> float:
        summed = (weights @ counts).round().astype(int).tolist() if whole else (weights @ counts).tolist()
        return float(metric._compute_score_from_stats(summed).score)  # noqa: SLF001

    return statistic


def variety(answers: Sequence[str], key: str) -> dict[str, Figure]:
    """Share of different n-grams among all n-grams of words (Li et al. 2016), for n of 1 and 2."""
    sampling = Sampling.of(key, len(answers))
    return {
        f"distinct_{n}": estimate(
            _distinct(answers, n),
            sampling,
            better=True,
            about=f"share of different {'words' if n == 1 else 'pairs of words'} in all that was written",
            centred=True,
            bounds=(0, 1),
        )
        for n in (1, 2)
    }


def _distinct(answers: Sequence[str], n: int) -> Statistic:
    words = [answer.split() for answer in answers]
    grams = [list(zip(*(each[start:] for start in range(n)), strict=False)) for each in words]
    number = {gram: place for place, gram in enumerate({gram for each in grams for gram in each})}
    owners = np.repeat(np.arange(len(grams)), [len(each) for each in grams])
    ids = np.array([number[gram] for each in grams for gram in each], np.int64)

    def statistic(weights: Weights) -> float:
        times = weights[owners]
        return float(np.count_nonzero(np.bincount(ids[times > 0])) / max(times.sum(), 1))

    return statistic
