"""Gold: retraining from scratch on the retain set. Exact; where it is affordable it is the better answer.

Same code, settings and stopping rule as the original, on the same edited graphs.
"""

import jax
import jax.numpy as jnp

from recunlearn_jax.config import Config
from recunlearn_jax.requests import ForgetSet, retained
from recunlearn_jax.stopwatch import stopwatch
from recunlearn_jax.train import Trained, fit
from recunlearn_jax.unlearn.base import Unlearned


def gold(key: jax.Array, original: Trained, forget_set: ForgetSet, config: Config) -> Unlearned:
    """Answer a request by retraining; see `unlearn` for the contract. The key decides the training seed."""
    with stopwatch() as seconds:
        dataset = retained(original.dataset, forget_set)
        seed = int(jax.random.bits(key, dtype=jnp.uint32) >> 1)
        trained = fit(dataset, config, seed=seed, like=original.sizes)
    info = {"steps": len(trained.history), "best_epoch": trained.best["epoch"], "epochs": len(trained.history)}
    return Unlearned(trained.model, trained.params, dataset, trained.data, info, seconds)
