"""From figures to verdicts: where a further Gold would fall, what lies outside, and how often a Gold itself would be accused.

The band of a figure is where a further Gold falls with 95 % probability for all figures together (Bonferroni). With few Golds it is
wide, and a model inside it has not been shown to be like Gold, only not shown to differ. So every verdict comes with a suspicion, from the
band of one figure on its own, which is narrower and wrong more often. Imports no jax.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import scipy.special

from recunlearn_jax.results import INSIDE

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


class Figure(NamedTuple):
    """A number that is judged."""

    name: str
    rule: Rule
    resolution: float = 1e-3  # a smaller excess over the band is no miss: figures count users, pairs or steps
    seeded: bool = False  # compares with the original or with Gold's scores, where Gold's own seed sets it apart more than forgetting


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
        among_golds: the values are mean distances of each Gold to the others. They share terms, which makes them alike: if the distance
            of two Golds is the sum of one part from each, their sd is (n-2)/(n-1) of that of distances to a further Gold.
    """
    n, mean = len(values), float(np.mean(values))
    # Two Golds have only the distance to each other, which gives no spread for a band.
    if n < (3 if among_golds else 2):
        return Band(mean, None, None, None, n)
    spread = float(np.std(values, ddof=1) * np.sqrt(1 + 1 / n)) * ((n - 1) / (n - 2) if among_golds else 1.0)
    half, own = (spread * float(scipy.special.stdtrit(n - 1, 1 - LEVEL / (sides * m))) for m in (figures, 1))
    return Band(mean, mean - half, mean + half, (mean - own, mean + own), n)


def judge(value: float, figure: Figure, low: float, high: float) -> str:
    """Verdict on one figure: `INSIDE` or the name of the miss.

    Examples:
        >>> judge(0.5, Figure("forget recall@20", "remembered"), 0.1, 0.2)
        'under-forgotten'
    """
    below, above = MISSES[figure.rule]
    slack = max(figure.resolution, 1e-6 * max(abs(low), abs(high)))  # Golds that agree to the last digits leave no band
    return (value < low - slack and below) or (value > high + slack and above) or INSIDE


def judged_figures(figures: Sequence[Figure], golds: Sequence[Row]) -> list[Figure]:
    """The figures that every Gold has."""
    return [figure for figure in figures if golds and all(figure.name in row for row in golds)]


def bands(figures: Sequence[Figure], golds: Sequence[Row], count: int) -> dict[str, Band]:
    """The band of every figure that every Gold has.

    Args:
        figures: that are judged.
        golds: rows of figures.
        count: number of figures that are judged together.
    """
    found = {}
    for figure in judged_figures(figures, golds):
        values = np.array([row[figure.name] for row in golds])
        sides = 2 - MISSES[figure.rule].count(None)
        closeness = figure.rule in {"distance", "likeness"}
        found[figure.name] = prediction_band(values, sides=sides, figures=count, among_golds=closeness)
    return found


def verdicts(figures: Sequence[Figure], row: Row, among: Mapping[str, Band]) -> dict[str, dict[str, str]]:
    """Verdict and suspicion on each figure of a model that has a band.

    Returns:
        figure -> {"verdict": ..., "suspicion": ...}, the suspicion from the band of the figure on its own.
    """
    out = {}
    for figure in figures:
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
    """A Gold's row as it would be without one other Gold: its closeness is then to the remaining ones.

    Distances to single Golds are in a row as "figure/gold".
    """
    left = {name: value for name, value in row.items() if not name.endswith(f"/{gold}")}
    for figure in {name.rpartition("/")[0] for name in left if "/" in name}:
        left[figure] = float(np.mean([value for name, value in left.items() if name.startswith(f"{figure}/")]))
    return left


def false_alarms(figures: Sequence[Figure], golds: Mapping[str, Row], count: int) -> dict[str, int] | None:
    """How often a Gold is accused by the others: each in turn is left out and judged.

    Returns:
        {"verdicts": misses, "suspicions": misses on their own, "judged": figures times Golds}; None with fewer than three Golds.
    """
    if len(golds) < 3:
        return None
    counts = {"verdicts": 0, "suspicions": 0, "judged": 0}
    for left_out, row in golds.items():
        others = [without(own, left_out) for name, own in golds.items() if name != left_out]
        found = verdicts(figures, row, bands(figures, others, count)).values()
        counts["verdicts"] += sum(v["verdict"] != INSIDE for v in found)
        counts["suspicions"] += sum(v["suspicion"] != INSIDE for v in found)
        counts["judged"] += len(found)
    return counts


class Measured(NamedTuple):
    """Figures of one model, and those of each Gold under checks that need the model's method."""

    row: Row
    golds: Mapping[str, Row]  # Gold -> further figures
    kept_seed: bool = False  # starts from the original, so Golds of other seeds are no yardstick for its seeded figures


def judgement(
    figures: Sequence[Figure], models: Mapping[str, Measured], golds: Mapping[str, Row]
) -> dict[str, dict[str, Any] | None]:
    """Bands from the Golds and verdicts on all other models.

    Args:
        figures: that are judged.
        models: name -> what was measured of it.
        golds: name -> figures of a Gold.

    Returns:
        {"bands": figure -> band, "verdicts": name -> figure -> {"verdict", "suspicion"}, "misses": name -> number of figures outside,
        "false_alarms": ...}. The band of a figure that needs the method is stored under method/figure.
    """
    # The same number of figures for all models: all figures that any of them is judged by.
    further = {name for model in models.values() for row in model.golds.values() for name in row}
    of_golds = {figure.name for figure in judged_figures(figures, list(golds.values()))}
    count = len({figure.name for figure in figures} & (of_golds | further))
    common = bands(figures, list(golds.values()), count)
    shown = {name: band._asdict() for name, band in common.items()}
    judged = {}
    for name, model in models.items():
        rows = [{**row, **model.golds.get(gold, {})} for gold, row in golds.items()]
        own = bands(figures, rows, count)
        shown |= {f"{name}/{figure}": band._asdict() for figure, band in own.items() if figure not in common}
        judged[name] = verdicts([f for f in figures if not (f.seeded and model.kept_seed)], model.row, own)
    return {
        "bands": shown,
        "verdicts": judged,
        "misses": {name: sum(v["verdict"] != INSIDE for v in found.values()) for name, found in judged.items()},
        "false_alarms": false_alarms(figures, golds, count),
    }
