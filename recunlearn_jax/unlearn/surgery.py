"""Surgery: edit the graph, re-initialise the rows of what is forgotten, train nothing.

The baseline to beat: milliseconds, and near Gold on every coarse figure. What it leaves behind is the trace of the forgotten data in other
rows, which the canaries show; for single pairs it changes the graph only.
"""

import jax

from recunlearn_jax.config import Config
from recunlearn_jax.requests import ForgetSet
from recunlearn_jax.stopwatch import stopwatch
from recunlearn_jax.train import Trained
from recunlearn_jax.unlearn.base import Unlearned, edit, reset_rows, strip


def surgery(key: jax.Array, original: Trained, forget_set: ForgetSet, config: Config) -> Unlearned:
    """Answer a request by editing data, graph and rows; see `unlearn` for the contract."""
    with stopwatch() as seconds:
        retain = edit(original, forget_set, config)
        params = jax.block_until_ready(
            reset_rows(key, strip(original.params, retain), forget_set.users, forget_set.items)
        )
    return Unlearned(retain.model, params, retain.dataset, retain.data, {"steps": 0}, seconds)
