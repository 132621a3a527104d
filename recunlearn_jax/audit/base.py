"""The contract of a check: one property that a model which has forgotten must show, measured on it and on retrained models alike.

`docs/check.md` shows how to write one.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from recunlearn_jax.dataset import Dataset
from recunlearn_jax.recommender import Recommender
from recunlearn_jax.requests import ForgetSet
from recunlearn_jax.verdict import Figure

Row = dict[str, float]  # figure -> value


class Planted(NamedTuple):
    """What a check added to the data before training: users, all to be forgotten."""

    users: np.ndarray  # int32 [n]
    items: np.ndarray  # int32 [m], items that no other check may plant on
    what: Any  # the check's own record of it


class Replay(NamedTuple):
    """An original and its coupled Gold, which differ by the effect of the removal alone."""

    original: Recommender
    gold: Recommender


class Case(NamedTuple):
    """What is judged: a request on a data set, with the models to compare."""

    dataset: Dataset  # with planted users, completed for the backbone
    forget_set: ForgetSet
    retain: Dataset
    planted: Mapping[str, Any] = {}  # check -> `Planted.what`
    original: Recommender | None = None
    golds: Mapping[str, Recommender] = {}  # name -> retrained model, each with a seed of its own
    replays: Mapping[
        str, Replay
    ] = {}  # name of a coupled Gold -> this Gold and its original; the first one's is `original` above
    shadows: int = 0  # models to train for the check likelihood, 0 for none
    work: Path | None = None  # folder where long-running work is saved


class Attempt(NamedTuple):
    """How a method made a model, so that a check can repeat it."""

    method: str
    settings: Any
    seed: int


class Subject(NamedTuple):
    """A model under examination."""

    name: str
    model: Recommender
    attempt: Attempt | None = None  # None for the original and for Golds


Measure = Callable[[Subject], Row]


class Check(NamedTuple):
    """An entry of `CHECKS`."""

    number: int
    """Section of docs/evidence.md, 1 to 13."""
    figures: tuple[Figure, ...]
    """The figures that are judged; a measure may give others, which are only shown. A row leaves out what its case has no data for."""
    prepare: Callable[[Case], Callable[[Subject], Any]]
    """(case) -> measure(subject) -> figure -> value. Where `needs` is "method", the returned function takes the subject whose method is
    examined and gives the measure that applies to it and to every Gold."""
    needs: Literal["rows", "params", "golds", "replays", "method"] = "rows"
    """What it reads: a subject's output rows or parameters, the Golds or coupled Golds beside it, or the method that made it."""
    usual: bool = False
    """Whether every comparison measures it, even without an audit."""
    plant: Callable[[Dataset, int, np.ndarray, int], tuple[Dataset, Planted]] | None = None
    """(data set, number, items already taken, seed) -> the data set with planted users, and what was planted."""
    source: str = ""
    """Paper."""
    version: int = 1
    """Raised when its figures change, so that stored ones are computed again."""
