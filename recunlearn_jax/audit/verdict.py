"""From figures to verdicts: where a further Gold would fall, what lies outside, and how often a Gold itself would be accused.

The band of a figure is where a further Gold falls with 95 % probability for all figures together (Bonferroni). With few Golds it is
wide, and a model inside it is not shown to be like Gold: it is only not shown to differ. So every verdict has a suspicion beside it, from
the band of one figure on its own, which is narrower and wrong more often.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import scipy.stats

Row = Mapping[str, float]  # figure -> value
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
    resolution: float = 1e-3  # a smaller excess over the band is no miss: figures count users, pairs or steps


FIGURES = (
    Figure("valid recall@20", 1, "utility"),
    Figure("valid ndcg@20", 1, "utility"),
    Figure("test recall@20", 1, "utility"),
    Figure("test ndcg@20", 1, "utility"),
    Figure("forget recall@20", 2, "remembered"),
    Figure("forget recall@500", 2, "remembered"),
    Figure("forget recall@1000", 2, "remembered"),
    Figure("forget recall@1500", 2, "remembered"),
    Figure("forget margin", 2, "remembered"),
    Figure("modality overlap", 2, "remembered"),
    Figure("BPR divergence forget", 3, "distance", 0.0),
    Figure("BPR divergence retain", 3, "distance", 0.0),
    Figure("KL divergence forget", 3, "distance", 0.0),
    Figure("KL divergence retain", 3, "distance", 0.0),
    Figure("overlap@20", 4, "likeness"),
    Figure("membership AUC", 5, "remembered"),
    Figure("likelihood ratio AUC", 5, "remembered"),
    Figure("likelihood ratio TPR at 1% FPR", 5, "remembered"),
    Figure("relearn steps", 6, "erased", 1.0),
    Figure("canary log10 rank", 7, "erased", 0.05),
    Figure("canary exposure@20", 7, "remembered", 0.01),
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
    Figure("sequence BPR divergence forget", 10, "distance", 0.0),
)


class Band(NamedTuple):
    """Where a further Gold falls; the limits are None where the Golds are too few for a spread."""

    mean: float
    low: float | None
    high: float | None
    alone: tuple[float, float] | None  # the same for one figure on its own
    n: int


def prediction_band(values: np.ndarray, *, sides: int, figures: int, among_golds: bool = False) -> Band:
    """Where the figure of a further Gold falls, mean +- t(n-1) sd sqrt(1 + 1/n).

    Args:
        values: float [n], of n Golds.
        sides: 1 where only one side can be a miss, else 2.
        figures: number of figures that are judged together.
        among_golds: the values are mean distances of each Gold to the others. They share their terms, which draws them together: where the
            distance of two Golds is the sum of a part of each, their sd is (n-2)/(n-1) of that of distances to a further Gold.
    """
    n, mean = len(values), float(np.mean(values))
    # Two Golds have one distance, to each other: that is no spread to take a band from.
    if n < (3 if among_golds else 2):
        return Band(mean, None, None, None, n)
    spread = float(np.std(values, ddof=1) * np.sqrt(1 + 1 / n)) * ((n - 1) / (n - 2) if among_golds else 1.0)
    half, own = (spread * float(scipy.stats.t.ppf(1 - LEVEL / (sides * m), n - 1)) for m in (figures, 1))
    return Band(mean, mean - half, mean + half, (mean - own, mean + own), n)


def judge(value: float, figure: Figure, low: float, high: float) -> str:
    """Verdict on one figure: `INSIDE` or the name of the miss.

    >>> judge(0.5, Figure("forget recall@20", 2, "remembered"), 0.1, 0.2)
    'under-forgotten'
    """
    below, above = MISSES[figure.rule]
    slack = max(figure.resolution, 1e-6 * max(abs(low), abs(high)))  # Golds that agree to the last digits leave no band
    return (value < low - slack and below) or (value > high + slack and above) or INSIDE


def judged_figures(golds: Sequence[Row]) -> list[Figure]:
    """The figures that every Gold has."""
    return [figure for figure in FIGURES if golds and all(figure.name in row for row in golds)]


def bands(golds: Sequence[Row], figures: int) -> dict[str, Band]:
    """The band of every figure that every Gold has.

    Args:
        golds: rows of figures.
        figures: number of figures that are judged together.
    """
    found = {}
    for figure in judged_figures(golds):
        values = np.array([row[figure.name] for row in golds])
        sides = 2 - MISSES[figure.rule].count(None)
        closeness = figure.rule in {"distance", "likeness"}
        found[figure.name] = prediction_band(values, sides=sides, figures=figures, among_golds=closeness)
    return found


def verdicts(row: Row, among: Mapping[str, Band]) -> dict[str, dict[str, str]]:
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
            "verdict": judge(value, figure, band.low, band.high),
            "suspicion": judge(value, figure, *band.alone),
        }
    return out


def without(row: Row, gold: str) -> dict[str, float]:
    """A Gold's row as it would be without one other Gold: its closeness is then to those that are left.

    Distances to single Golds stand in a row as "figure/gold"; see `examine.closeness`.
    """
    left = {name: value for name, value in row.items() if not name.endswith(f"/{gold}")}
    for figure in FIGURES:
        own = [value for name, value in left.items() if name.startswith(f"{figure.name}/")]
        if own:
            left[figure.name] = float(np.mean(own))
    return left


def false_alarms(golds: Mapping[str, Row], figures: int) -> dict[str, int] | None:
    """How often a Gold is accused by the others: each in turn is left out and judged.

    Returns:
        {"verdicts": misses, "suspicions": misses on their own, "judged": figures times Golds}; None with fewer than three Golds.
    """
    if len(golds) < 3:
        return None
    counts = {"verdicts": 0, "suspicions": 0, "judged": 0}
    for left_out, row in golds.items():
        others = [without(own, left_out) for name, own in golds.items() if name != left_out]
        found = verdicts(row, bands(others, figures)).values()
        counts["verdicts"] += sum(v["verdict"] != INSIDE for v in found)
        counts["suspicions"] += sum(v["suspicion"] != INSIDE for v in found)
        counts["judged"] += len(found)
    return counts
