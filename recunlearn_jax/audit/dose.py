"""Check 7, doses: how few users leave a trace that the answer keeps?

Canaries as in `canary`, in small and large groups, on items that few users know and on items that many know. The trace of two users is
fainter than that of eight, and a method that erases the latter may keep the former.
"""

from typing import NamedTuple

import numpy as np

from recunlearn_jax.audit.base import Case, Check, Measure, Planted, Row, Subject
from recunlearn_jax.audit.canary import RARE, Canaries, canary_ranks, plant
from recunlearn_jax.dataset import Dataset
from recunlearn_jax.verdict import Figure

GROUPS = (2, 4, 8)  # users per pair
KINDS = {"rare": RARE, "popular": (21, 200)}  # least and most interactions of an item


class Dose(NamedTuple):
    """What was planted for one group size and kind of item."""

    group: int
    kind: str
    canaries: Canaries


def plant_doses(dataset: Dataset, count: int, taken: np.ndarray, seed: int) -> tuple[Dataset, Planted]:
    """`count` pairs of each group size and kind of item.

    Raises:
        InputError: see `canary.plant`.
    """
    doses = []
    for i, (kind, popularity) in enumerate(KINDS.items()):
        for j, group in enumerate(GROUPS):
            draw = 100 + len(GROUPS) * i + j + 1000 * seed
            dataset, found = plant(dataset, count, group=group, popularity=popularity, spared=taken, seed=draw)
            taken = np.append(taken, found.pairs)
            doses.append(Dose(group, kind, found))
    users = np.concatenate([dose.canaries.users for dose in doses])
    return dataset, Planted(users, np.concatenate([dose.canaries.pairs.ravel() for dose in doses]), doses)


def prepare(case: Case) -> Measure:
    """Median and lowest tenth of the ranks, over both kinds for each group size, and over all sizes for each kind."""
    doses: list[Dose] = case.planted.get("dose", [])

    def measure(subject: Subject) -> Row:
        ranks = [canary_ranks(subject.model.rows, dose.canaries, case.dataset.num_users) for dose in doses]
        row: Row = {}
        parts = {
            f"{group} users": [r for r, d in zip(ranks, doses, strict=True) if d.group == group] for group in GROUPS
        }
        parts |= {kind: [r for r, d in zip(ranks, doses, strict=True) if d.kind == kind] for kind in KINDS}
        for name, found in parts.items():
            if found:
                every = np.concatenate(found)
                row[f"dose median rank, {name}"] = float(np.median(every))
                row[f"dose lowest tenth, {name}"] = float(np.quantile(every, 0.1))
                row[f"dose log10 rank, {name}"] = float(np.log10(np.median(every)))
        return row

    return measure


FIGURES = tuple(
    Figure(f"dose log10 rank, {name}", "erased", 0.05) for name in (*(f"{group} users" for group in GROUPS), *KINDS)
)
CHECK = Check(7, FIGURES, prepare, plant=plant_doses)
