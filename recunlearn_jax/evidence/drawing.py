"""Positions in the picture of a figure: a line with the range of retrained models, each of them, and the model now and before."""

from typing import NamedTuple

from recunlearn_jax.evidence.readings import Reading
from recunlearn_jax.evidence.text import capital
from recunlearn_jax.evidence.words import Status

WIDTH, MARGIN = 360, 10
LEAST_BAND = 0.06  # share of the line: a narrower range is stretched, and what lies far outside it is drawn at the edge


class Mark(NamedTuple):
    """A model on the line."""

    x: float
    text: str
    anchor: str  # of the text: start, middle or end
    beyond: str  # "left" or "right" where it lies further out than can be drawn, else ""


class Drawing(NamedTuple):
    """A figure in a picture `WIDTH` wide."""

    label: str
    range: str
    status: Status
    band: tuple[float, float]  # x and width
    dots: tuple[float, ...]
    own: Mark
    before: Mark | None
    alternative: str  # all of it in words


def drawing(reading: Reading) -> Drawing:
    """The picture of a figure."""
    start, end = _ends(reading)

    def x(value: float) -> float:
        share = (min(max(value, start), end) - start) / (end - start)
        return round(MARGIN + share * (WIDTH - 2 * MARGIN), 1)

    def mark(name: str, value: float) -> Mark:
        anchor = "start" if x(value) < WIDTH / 4 else "end" if x(value) > 3 * WIDTH / 4 else "middle"
        beyond = "left" if value < start else "right" if value > end else ""
        return Mark(x(value), f"{name} {reading.told(value)}", anchor, beyond)

    low, high = map(x, reading.range)
    own = mark("this model", reading.value)
    before = None if reading.before is None else mark("before", reading.before)
    words = [own.text, f"retrained models {reading.range_words}", *([before.text] if before else [])]
    return Drawing(
        capital(reading.words.label),
        reading.range_words,
        reading.status,
        (low, round(max(high - low, 3.0), 1)),
        tuple(map(x, reading.golds)),
        own,
        before,
        f"{reading.words.label}: {'; '.join(words)}.",
    )


def _ends(reading: Reading) -> tuple[float, float]:
    """The values at both ends of the line, which covers all values if the range stays visible, else the range and its surroundings."""
    low, high = reading.range
    shown = [low, high, reading.value, *reading.golds, *([] if reading.before is None else [reading.before])]
    start, end = min(shown), max(shown)
    if high - low < LEAST_BAND * (end - start):
        near = 3 * max(high - low, 1e-3 * (end - start))
        start, end = max(start, low - near), min(end, high + near)
    room = 0.04 * (end - start) or max(abs(end), 1.0)  # if all values are equal, they are drawn in the middle
    return start - room, end + room
