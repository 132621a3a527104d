"""From an audit to readings: each figure of the model beside those of retrained models and of the model before the removal."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from recunlearn_jax.evidence.text import number
from recunlearn_jax.evidence.words import BOUNDS, FIGURES, QUESTIONS, Question, Status, Words
from recunlearn_jax.results import INSIDE, figure_of, golds_of
from recunlearn_jax.verdict import MISSES, Figure, judge


class Reading(NamedTuple):
    """A figure that the model and all retrained models have."""

    figure: Figure
    words: Words
    check: int  # number of its check
    source: str  # of its check
    value: float
    before: float | None  # in the model before the removal
    golds: tuple[float, ...]
    mean: float  # of the retrained models, and the range where a further one would lie
    low: float
    high: float
    alone: float  # half the range of this figure on its own
    status: Status
    miss: str  # "inside" for none

    @property
    def name(self) -> str:
        """The figure's name in the audit."""
        return self.figure.name

    @property
    def range(self) -> tuple[float, float]:
        """Low and high, cut to the values that the figure can take."""
        least, most = BOUNDS[self.words.form]
        return max(self.low, least), min(self.high, most)

    @property
    def range_words(self) -> str:
        """The range as the page writes it."""
        return " to ".join(self.told(end) for end in self.range)

    def told(self, value: float) -> str:
        """A value of this figure as the page writes it."""
        return number(value, self.words.form)


def readings(method: str, audit: Mapping[str, Any]) -> list[Reading]:
    """All readings of an audit, in its order.

    Args:
        method: that made the model.
        audit: results of an audit.
    """
    models, bands = audit["models"], audit["bands"]
    found = []
    for row in audit["judged"]:
        figure = Figure(**{key: row[key] for key in Figure._fields})
        value = figure_of(models[method], figure.name)
        band = bands.get(figure.name, bands.get(f"{method}/{figure.name}"))
        if value is None or band is None:
            continue
        golds = (figure_of(models[gold], figure.name) for gold in golds_of(audit))
        found.append(
            Reading(
                figure,
                FIGURES.get(figure.name, Words(figure.name, "score")),
                row["check"],
                row["source"],
                value,
                figure_of(models["original"], figure.name),
                tuple(gold for gold in golds if gold is not None),
                band["mean"],
                band["low"],
                band["high"],
                band["alone"][1] - band["mean"],
                *_judged(audit["verdicts"].get(method, {}).get(figure.name)),
            )
        )
    return found


def _judged(said: Mapping[str, str] | None) -> tuple[Status, str]:
    """Status and miss from what the audit says about a figure; it says nothing where another seed tells more than the forgetting."""
    if said is None:
        return "unjudged", INSIDE
    if said["verdict"] != INSIDE:
        return "outside", said["verdict"]
    return ("inside" if said["suspicion"] == INSIDE else "borderline"), said["suspicion"]


def with_status(found: Sequence[Reading], status: Status) -> list[Reading]:
    """The readings of one status."""
    return [reading for reading in found if reading.status == status]


def judged(found: Sequence[Reading]) -> list[Reading]:
    """The readings that have a verdict."""
    return [reading for reading in found if reading.status != "unjudged"]


def looking(found: Sequence[Reading]) -> list[Reading]:
    """Readings with a verdict that look for what was removed; the others tell how well the model works."""
    return [reading for reading in judged(found) if "under-forgotten" in MISSES[reading.figure.rule]]


def blind(found: Sequence[Reading]) -> list[Reading]:
    """Readings with a verdict that could not have been out of range, whatever the model."""
    return [
        reading
        for reading in judged(found)
        if all(judge(end, reading.figure, reading.low, reading.high) == INSIDE for end in BOUNDS[reading.words.form])
    ]


def question_of(reading: Reading) -> Question:
    """The question that a figure answers; one of its own for a check from outside the package."""
    for question in QUESTIONS.values():
        if reading.name in question.figures:
            return question
    source = f" Source: {reading.source}." if reading.source else ""
    text = f"Does the figure “{reading.name}” of an added check lie where retrained models lie?{source}"
    return Question("further", reading.name, text, "Yes, as with retrained models.", (reading.name,))
