"""Coupled Gold: the original's training replayed without what is forgotten.

It is exact, and the yardstick for methods that start from the original.

Initialisation, order of the pairs and proposed negatives are the original's; the places of forgotten pairs stay empty, and the data
is edited. So it differs from the original only by the effect of the removal, whereas an independent Gold also differs by its seed. It
trains for as many epochs as the original did up to its best one; that number, and the places of forgotten pairs in the list, is all it
knows of those pairs.

What a backbone draws from its pairs in each epoch (the edges that FREEDOM leaves out) is not coupled.
"""

from typing import Any

import jax
import numpy as np

from recunlearn_jax.backbones.base import Params, flat
from recunlearn_jax.errors import InputError
from recunlearn_jax.mesh import place
from recunlearn_jax.recommender import Setup, set_up
from recunlearn_jax.sampling import replayed
from recunlearn_jax.train import initial_params, train
from recunlearn_jax.unlearn.base import Method, NoSettings, Problem


def coupled(key: jax.Array, problem: Problem, settings: NoSettings) -> tuple[Params, dict[str, Any]]:
    """Replay the training with the original's seed.

    Raises:
        InputError: the original was not trained from a seed, so there is nothing to replay.
    """
    del key, settings
    made = problem.original.info
    if not {"seed", "best_epoch"} <= made.keys():
        raise InputError(
            "method 'coupled': the model was not trained from a seed, so its training cannot be replayed; "
            "answer with it for the model that was trained first"
        )
    seed, epochs = made["seed"], made["best_epoch"]
    setup = problem.retain
    sampler = place(replayed(setup.data.sampler, ~problem.forget_set.forget))
    trained = train(
        setup.with_sampler(sampler),
        seed,
        epochs=epochs,
        start=start_of(problem, seed),
        run=problem.work,
    )
    return trained.params, {"replays": seed, "steps": epochs, "earlier": trained.seconds}


def start_of(problem: Problem, seed: int) -> Params:
    """The original's parameters before its first epoch, without content that is forgotten.

    A backbone without a modality draws its parameters in another order, so they are drawn with the modality, its features all zero. A
    parameter that has another shape without it (a layer over all modalities) starts as the retained data's own.
    """
    original, retain = problem.original, problem.retain
    own = initial_params(retain, seed)
    if retain.backbone is original.backbone:
        return own
    drawn = flat(initial_params(_with_empty_modalities(problem), seed))

    def choose(path, leaf):
        other = drawn.get("/".join(key.key for key in path))
        return other if other is not None and other.shape == leaf.shape else leaf

    return jax.tree_util.tree_map_with_path(choose, own)


def _with_empty_modalities(problem: Problem) -> Setup:
    """The retained data with every modality of the original; those that are gone have no features."""
    original, dataset = problem.original, problem.retain.dataset
    features, similarities = dict(dataset.features), dict(dataset.similarities)
    for m in set(original.dataset.modalities) - set(features):
        features[m] = np.zeros_like(original.dataset.features[m])
        if m in original.dataset.similarities:
            similarities[m] = 0 * original.dataset.similarities[m]
            similarities[m].eliminate_zeros()
    dataset = dataset.replace(features=features, similarities=similarities)
    return set_up(dataset, original.config, original.sizes)


METHOD = Method(NoSettings, coupled, retrains=True, exact=True)
