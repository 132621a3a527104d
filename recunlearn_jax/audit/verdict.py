"""From figures to verdicts: where a further Gold would fall, what lies outside, and how often a Gold itself would be accused.

The band of a figure is where a further Gold falls with 95 % probability for all figures together (Bonferroni): mean +- t(n-1) sd
sqrt(1 + 1/n). With few Golds it is wide, and a model inside it is not shown to be like Gold: it is only not shown to differ. So every
verdict has a suspicion beside it, from the band of one figure on its own, which is narrower and wrong more often.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import scipy.stats

LEVEL = 0.05  # probability that any figure of a further Gold falls outside its band

Rule = Literal["utility", "variety", "remembered", "erased", "distance", "likeness"]
# rule: verdict below the band, verdict above it; None is no miss
MISSES: dict[Rule, tuple[str | None, str | None]] = {
    "utility": ("utility lost", None),
    "variety": ("variety lost", None),
    "remembered": ("over-forgotten", "under-forgotten"),
    "erased": ("under-forgotten", "over-forgotten"),
    "distance": (None, "unlike Gold"),
    "likeness": ("unlike Gold", None),
}
INSIDE = "inside"


class Figure(NamedTuple):
    """A number that is judged."""

    name: str
    check: int  # 1 to 10, as in docs/evidence.md
    rule: Rule


FIGURES = (
    Figure("valid recall@20", 1, "utility"),
    Figure("test recall@20", 1, "utility"),
    Figure("test ndcg@20", 1, "utility"),
    Figure("forget recall@20", 2, "remembered"),
    Figure("forget recall@500", 2, "remembered"),
    Figure("forget recall@1000", 2, "remembered"),
    Figure("forget recall@1500", 2, "remembered"),
    Figure("forget margin", 2, "remembered"),
    Figure("modality overlap", 2, "remembered"),
    Figure("BPR divergence forget", 3, "distance"),
    Figure("BPR divergence retain", 3, "distance"),
    Figure("KL divergence forget", 3, "distance"),
    Figure("KL divergence retain", 3, "distance"),
    Figure("overlap@20", 4, "likeness"),
    Figure("membership AUC", 5, "remembered"),
    Figure("likelihood ratio AUC", 5, "remembered"),
    Figure("likelihood ratio TPR at 1% FPR", 5, "remembered"),
    Figure("relearn steps", 6, "erased"),
    Figure("canary log10 rank", 7, "erased"),
    Figure("canary exposure@20", 7, "remembered"),
    Figure("shilling exposure@20", 8, "remembered"),
    Figure("near recall@20", 9, "utility"),
    Figure("far recall@20", 9, "utility"),
    Figure("active recall@20", 9, "utility"),
    Figure("inactive recall@20", 9, "utility"),
    Figure("head recall@20", 9, "utility"),
    Figure("tail recall@20", 9, "utility"),
    Figure("coverage", 9, "variety"),
    Figure("evenness", 9, "variety"),
    Figure("novelty", 9, "variety"),
    Figure("distance", 9, "variety"),
    Figure("similarity correlation", 9, "remembered"),
    Figure("sequence test recall@20", 10, "utility"),
    Figure("sequence forget recall@20", 10, "remembered"),
    Figure("sequence BPR divergence forget", 10, "distance"),
)


class Band(NamedTuple):
    """Where a further Gold falls. Low and high are None where the Golds are too few for a spread."""

    mean: float
    low: float | None
    high: float | None
    alone: tuple[float, float] | None  # the same for one figure on its own
    n: int


def prediction_band(values: np.ndarray, rule: Rule, figures: int) -> Band:
    """The band of one figure.

    Args:
        values: float [n], of n Golds.
        rule: decides whether one side counts or both.
        figures: number of figures that are judged together.
    """
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Band(mean, None, None, None, n)
    sides = 2 - MISSES[rule].count(None)
    spread = float(np.std(values, ddof=1) * np.sqrt(1 + 1 / n))
    half, own = (spread * float(scipy.stats.t.ppf(1 - LEVEL / (sides * m), n - 1)) for m in (figures, 1))
    return Band(mean, mean - half, mean + half, (mean - own, mean + own), n)


def judge(value: float, rule: Rule, low: float, high: float) -> str:
    """Verdict on one figure: `INSIDE` or the name of the miss.

    >>> judge(0.5, "remembered", 0.1, 0.2)
    'under-forgotten'
    """
    below, above = MISSES[rule]
    # Golds that agree to the last digits leave no band; rounding is no miss.
    slack = 1e-6 * max(1.0, abs(low), abs(high))
    return (value < low - slack and below) or (value > high + slack and above) or INSIDE


def judged_figures(golds: Sequence[Mapping[str, float]]) -> list[Figure]:
    """The figures that every Gold has."""
    return [figure for figure in FIGURES if golds and all(figure.name in row for row in golds)]


def bands(golds: Sequence[Mapping[str, float]]) -> dict[str, Band]:
    """The band of every figure that every Gold has."""
    judged = judged_figures(golds)
    return {f.name: prediction_band(np.array([row[f.name] for row in golds]), f.rule, len(judged)) for f in judged}


def verdicts(row: Mapping[str, float], among: Mapping[str, Band]) -> dict[str, dict[str, str]]:
    """Verdict and suspicion on each figure of a model that has a band.

    Returns:
        figure -> {"verdict": ..., "suspicion": ...}, the suspicion from the band of the figure on its own.
    """
    out = {}
    for figure in FIGURES:
        band = among.get(figure.name)
        if band is None or band.alone is None or band.low is None or band.high is None or figure.name not in row:
            continue
        value = row[figure.name]
        out[figure.name] = {
            "verdict": judge(value, figure.rule, band.low, band.high),
            "suspicion": judge(value, figure.rule, *band.alone),
        }
    return out


def false_alarms(golds: Sequence[Mapping[str, float]]) -> dict[str, int] | None:
    """How often a Gold is accused by the others: each in turn is left out and judged.

    Returns:
        {"verdicts": misses, "suspicions": misses on their own, "judged": figures times Golds}; None with fewer than three Golds.
    """
    if len(golds) < 3:
        return None
    counts = {"verdicts": 0, "suspicions": 0, "judged": 0}
    for i, left_out in enumerate(golds):
        found = verdicts(left_out, bands([*golds[:i], *golds[i + 1 :]])).values()
        counts["verdicts"] += sum(v["verdict"] != INSIDE for v in found)
        counts["suspicions"] += sum(v["suspicion"] != INSIDE for v in found)
        counts["judged"] += len(found)
    return counts
