"""Make a case: plant users, resolve the request, and work out what is retained."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from recunlearn_jax.audit.base import Case
from recunlearn_jax.audit.checks import CHECKS
from recunlearn_jax.backbones import backbone_kind
from recunlearn_jax.config import Config
from recunlearn_jax.dataset import Dataset
from recunlearn_jax.errors import InputError, check_type, shown
from recunlearn_jax.requests import Request, checked, resolve, retained
from recunlearn_jax.settings import suggestion


def make_case(dataset: Dataset, request: Request, config: Config, plant: Mapping[str, int] | None = None) -> Case:
    """Plant what checks ask for and resolve the request; planted users are forgotten as well.

    Args:
        dataset: before planting.
        request: the operator's.
        config: settings of the backbone, which determine what its data must hold.
        plant: check -> number, such as {"canary": 20}; 0 for none.

    Raises:
        InputError: a named check plants nothing, or a number is not a whole one of at least 0; or see `requests.resolve` and the check's
            own `plant`.
    """
    request = checked(request)
    before = dataset = backbone_kind(config.backbone).complete(dataset, config.model)
    check_type(plant or {}, Mapping, "plant", "such as {'canary': 20}")
    planted, taken, users = {}, np.zeros(0, int), np.zeros(0, np.int32)
    for name, count in (plant or {}).items():
        known = [n for n, check in CHECKS.items() if check.plant is not None]
        if name not in known:
            raise InputError(f"plant: {name!r} plants nothing{suggestion(name, known, 'choose from')}")
        if type(count) is not int or count < 0:
            raise InputError(f"plant: {name} is {shown(count)}; a whole number of at least 0 is allowed")
        if not count:
            continue
        add = CHECKS[name].plant
        assert add is not None
        dataset, found = add(dataset, count, taken, request.seed)
        planted[name] = found.what
        taken, users = np.append(taken, found.items), np.append(users, found.users)
    forget_set = resolve(with_users(request, before, dataset, users) if len(users) else request, dataset)
    return Case(dataset, forget_set, retained(dataset, forget_set), planted)


def with_users(request: Request, dataset: Dataset, larger: Dataset, users: np.ndarray) -> Request:
    """The request with the planted users added; a share of users is drawn from the data set without them, other shares from the data
    with them."""
    drawn = np.flatnonzero(resolve(request, dataset).users) if request.describe() != "nothing" else np.zeros(0, int)
    return dataclasses.replace(request, users=[*dataset.named("user", drawn), *larger.named("user", users)])
