"""Gold: retraining from scratch on the retain set. Exact; where it is affordable it is the better answer.

Same code, settings and stopping rule as the original, on the same edited graphs.
"""

from typing import Any

import jax
import jax.numpy as jnp

from recunlearn_jax.backbones.base import Params
from recunlearn_jax.train import train
from recunlearn_jax.unlearn.base import Method, NoSettings, Problem


def gold(key: jax.Array, problem: Problem, settings: NoSettings) -> tuple[Params, dict[str, Any]]:
    """Retrain; the key decides the training seed."""
    del settings
    seed = int(jax.random.bits(key, dtype=jnp.uint32) >> 1)
    trained = train(problem.retain, seed, run=problem.work)
    curve = [entry.get("recall@20") for entry in trained.history]
    return trained.params, trained.info | {"steps": len(trained.history), "curve": curve, "earlier": trained.seconds}


METHOD = Method(NoSettings, gold, retrains=True, exact=True)
