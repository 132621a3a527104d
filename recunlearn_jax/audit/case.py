"""What is judged: the data, the users planted in it, the request, and what is retained."""

import dataclasses
from typing import NamedTuple

import numpy as np

from recunlearn_jax.audit.canary import Canaries, plant
from recunlearn_jax.audit.shilling import Shills, plant_shills
from recunlearn_jax.config import Config
from recunlearn_jax.data import Dataset
from recunlearn_jax.graph import with_item_graphs
from recunlearn_jax.requests import ForgetSet, Request, resolve, retained


class Case(NamedTuple):
    """A request on a data set."""

    dataset: Dataset  # with planted users, with item graphs
    canaries: Canaries | None
    forget_set: ForgetSet
    retain: Dataset
    shills: Shills | None = None


def make_case(dataset: Dataset, request: Request, config: Config, canaries: int = 0, shills: int = 0) -> Case:
    """Plant canaries and shills and resolve the request; planted users are forgotten in addition to it.

    Args:
        dataset: before planting.
        request: of the operator.
        config: for the item graphs.
        canaries: item pairs, see `audit.canary.plant`; 0 for none.
        shills: target items, see `audit.shilling.plant_shills`; 0 for none.

    Raises:
        InputError: see `requests.resolve`, `audit.canary.plant` and `audit.shilling.plant_shills`.
    """
    before = dataset = with_item_graphs(dataset, config.model.neighbours)
    known, pushed = None, None
    if canaries:
        dataset, known = plant(dataset, canaries, seed=request.seed)
    if shills:
        spared = None if known is None else known.pairs.ravel()
        dataset, pushed = plant_shills(dataset, shills, spared=spared, seed=request.seed)
    planted = np.arange(before.num_users, dataset.num_users)
    forget_set = resolve(with_users(request, before, planted) if len(planted) else request, dataset)
    return Case(dataset, known, forget_set, retained(dataset, forget_set), pushed)


def with_users(request: Request, dataset: Dataset, users: np.ndarray) -> Request:
    """The request with planted users in addition; a share of users is drawn among those of the data set without them."""
    drawn = np.flatnonzero(resolve(request, dataset).users) if request.describe() != "nothing" else np.zeros(0, int)
    return dataclasses.replace(request, users=[*drawn.tolist(), *users.tolist()])
