"""Parameters of the reference implementation (MMRec's MGCN in PyTorch) as parameters of ours."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from recunlearn_jax.errors import InputError

_PURIFIERS = {"image": "gate_v", "text": "gate_t"}


def params_from_mmrec_state_dict(state: Mapping[str, np.ndarray]) -> dict:
    """Parameters of `models.MGCN` from a state dict given as numpy arrays.

    Args:
        state: name -> float array, Linear weights [out, in], as `{k: v.numpy() for k, v in model.state_dict().items()}` gives.

    Returns:
        The `params` collection of an MGCN with modalities image and text, or those of the two that the state dict holds.

    Raises:
        InputError: an entry is missing, or one is not known.
    """
    left = dict(state)

    def take(name):
        if name not in left:
            raise InputError(f"state dict: entry {name!r} is missing; it has {', '.join(sorted(state))}")
        return jnp.asarray(left.pop(name))

    def dense(name, bias=True):
        layer = {"kernel": take(f"{name}.weight").T}
        return layer | {"bias": take(f"{name}.bias")} if bias else layer

    params: dict[str, Any] = {
        "user_embedding": take("user_embedding.weight"),
        "item_embedding": take("item_id_embedding.weight"),
    }
    modalities = [m for m in _PURIFIERS if f"{m}_embedding.weight" in state]
    for m in modalities:
        params[f"{m}_features"] = take(f"{m}_embedding.weight")
        params[f"{m}_projection"] = dense(f"{m}_trs")
        params[f"{m}_purifier"] = dense(f"{_PURIFIERS[m]}.0")
        params[f"{m}_preference"] = dense(f"gate_{m}_prefer.0")
    if modalities:
        params["attention_hidden"] = dense("query_common.0")
        params["attention_score"] = dense("query_common.2", bias=False)
    if left:
        raise InputError(f"state dict: unknown entries {', '.join(sorted(left))}; only MGCN of MMRec is read")
    return params
