"""Fine-tuning: surgery, then a warm start on the retain set. What every faster claim must be compared with."""

import jax
import jax.numpy as jnp

from recunlearn_jax.config import Config
from recunlearn_jax.precision import check_precision
from recunlearn_jax.requests import ForgetSet
from recunlearn_jax.stopwatch import stopwatch
from recunlearn_jax.train import Trained, init_state, train_epoch
from recunlearn_jax.unlearn.base import Unlearned, edit, reset_rows, strip


def finetune(key: jax.Array, original: Trained, forget_set: ForgetSet, config: Config) -> Unlearned:
    """Answer a request by surgery and `config.unlearn.finetune_epochs` epochs of training; see `unlearn` for the contract."""
    check_precision(config.train.precision)
    with stopwatch() as seconds:
        retain = edit(original, forget_set, config)
        reset_key, train_key = jax.random.split(key)
        params = reset_rows(reset_key, strip(original.params, retain), forget_set.users, forget_set.items)
        state = init_state(
            jax.tree.map(jnp.copy, params)
        )  # the epoch is donated its state; the original's arrays must live on
        for _ in range(config.unlearn.finetune_epochs):
            state, _ = train_epoch(state, retain.data, train_key, model=retain.model, config=config.train)
        params = jax.block_until_ready(state.params)
    # A forgotten item's row takes part in no retained pair and is never a negative, but Adam and L2 leave it as surgery set it.
    return Unlearned(retain.model, params, retain.dataset, retain.data, {"steps": int(state.epoch)}, seconds)
