"""A request answered in parts, one after the other, as requests come in: does the answer drift away from one Gold for all of them?"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from recunlearn_jax.config import Config
from recunlearn_jax.data import Dataset
from recunlearn_jax.requests import ForgetSet, Request, forget_pairs, resolve
from recunlearn_jax.stopwatch import Seconds
from recunlearn_jax.train import Trained


def in_parts(forget_set: ForgetSet, dataset: Dataset, parts: int) -> list[Request]:
    """Requests that together ask for what one asks for; parts without anything to forget are left out.

    Args:
        forget_set: resolved on the data set.
        dataset: of the original.
        parts: at least 1.
    """
    users, items = np.flatnonzero(forget_set.users), np.flatnonzero(forget_set.items)
    pairs = forget_pairs(dataset, forget_set)
    single = pairs[~forget_set.users[pairs[:, 0]] & ~forget_set.items[pairs[:, 1]]]
    # Pairs are sorted by user; dealt out in turn, every part has some of everyone.
    cut: list[dict[str, Any]] = [
        {"users": users[i::parts].tolist(), "items": items[i::parts].tolist(), "pairs": single[i::parts].tolist()}
        for i in range(parts)
    ]
    rows = {m: np.flatnonzero(chosen) for m, chosen in forget_set.features.items()}
    for i, part in enumerate(cut):
        part["modality"] = {m: ids[i::parts].tolist() for m, ids in rows.items() if len(ids[i::parts])}
    requests = [Request(**part, seed=forget_set.request.seed) for part in cut]
    return [request for request in requests if request.describe() != "nothing"]


def answer_in_turn(
    key: jax.Array, original: Trained, requests: list[Request], method: Callable[..., Any], config: Config
) -> Any:
    """Answer requests one after the other, each on the model that the one before left.

    Args:
        key: typed PRNG key; the number of the request is folded in.
        original: before the first.
        requests: at least one.
        method: from `unlearn.METHODS`.
        config: all settings.

    Returns:
        The last answer, `unlearn.Unlearned`.
    """
    model, answer = original, None
    for i, request in enumerate(requests):
        answer = method(jax.random.fold_in(key, i), model, resolve(request, model.dataset), config)
        left = (answer.model, answer.params, answer.dataset, answer.data)
        model = Trained(*left, original.config, [], Seconds(), like=original.sizes)
    return answer
