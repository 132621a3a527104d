"""When each train interaction comes, by the best clock that the data has.

timestamp   one clock for all, a column of the .inter file
order       positions in each user's own history, also a column; users share no clock: most have begun when the stream begins, the
            others begin at random
drawn       neither column: positions are random, too
"""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from recunlearn_jax.data import read_dataset
from recunlearn_jax.dataset import Dataset
from recunlearn_jax.errors import InputError, shown
from recunlearn_jax.files import as_path, unreadable
from recunlearn_jax.settings import check_seed

Kind = Literal["timestamp", "order", "drawn"]
BEGUN = 0.8  # share of users there from the start, if no clock says when a user begins


class Clock(NamedTuple):
    """Times of the train pairs of a data set."""

    kind: Kind
    times: np.ndarray  # float64 [|train|], in the order of `dataset.train`


def read_clock(folder: str | Path, seed: int = 0) -> tuple[Dataset, Clock]:
    """A data set and its clock.

    Args:
        folder: MMRec folder.
        seed: of what the clock leaves open.

    Raises:
        InputError: see `data.read_dataset`; or a time of a train pair is not a finite number.
    """
    check_seed(seed)
    dataset = read_dataset(folder)
    (path,) = [p for p in sorted(as_path(folder, "folder").glob("*.inter")) if not p.name.startswith(".")]
    with unreadable(path), path.open(encoding="utf-8-sig", errors="backslashreplace") as lines:
        header = lines.readline().rstrip("\n").split("\t")
        kind: Kind = "timestamp" if "timestamp" in header else "order" if "order" in header else "drawn"
        if kind == "drawn":
            return dataset, clock_of(dataset, None, kind, seed)
        columns = [header.index(name) for name in ("userID", "itemID", kind, "x_label")]
        # Empty lines may occur only at the end, so rows are numbered as they come; the header is row 1.
        rows = enumerate((line.rstrip("\n").split("\t") for line in lines if line != "\n"), 2)
        known = {
            (int(float(u)), int(float(i))): _time(t, path, row, kind)
            for row, (u, i, t, x) in _picked(rows, columns)
            if float(x) == 0  # `read_dataset` has checked the other three columns, and reads 0.0 as 0
        }
    times = np.array([known[pair] for pair in map(tuple, dataset.train.tolist())])
    return dataset, clock_of(dataset, times, kind, seed)


def _picked(rows: Iterable[tuple[int, list[str]]], columns: list[int]) -> Iterator[tuple[int, list[str]]]:
    return ((row, [cells[column] for column in columns]) for row, cells in rows)


def _time(word: str, path: Path, row: int, kind: str) -> float:
    try:
        time = float(word) if "_" not in word else math.nan
    except ValueError:
        time = math.nan
    if not math.isfinite(time):
        raise InputError(f"{path}: row {row} has {kind} {shown(word)}; a finite number is allowed")
    return time


def clock_of(dataset: Dataset, known: np.ndarray | None, kind: Kind, seed: int) -> Clock:
    """The clock of a data set.

    Args:
        dataset: whose train pairs come.
        known: float64 [|train|], timestamps or positions; None where there are none.
        kind: what they are.
        seed: of what the clock leaves open.

    Examples:
        >>> shop = Dataset("shop", 1, 3, [[0, 0], [0, 1], [0, 2]], [], [])
        >>> np.argsort(clock_of(shop, np.array([7.0, 9.0, 8.0]), "order", seed=0).times).tolist()
        [0, 2, 1]
    """
    if kind == "timestamp":
        assert known is not None
        return Clock(kind, known)
    rng = np.random.default_rng([seed, 21])
    users = dataset.train[:, 0]
    wanted = rng.random(len(users)) if known is None else known
    begins = np.where(rng.random(dataset.num_users) < BEGUN, 0, rng.random(dataset.num_users))
    shift, length = rng.random(dataset.num_users), np.bincount(users, minlength=dataset.num_users)
    order = np.lexsort([wanted, users])
    first = np.cumsum(length) - length
    position = np.empty(len(users))
    position[order] = np.arange(len(users)) - first[users[order]]
    return Clock(kind, begins[users] + (1 - begins[users]) * (position + shift[users]) / length[users])
