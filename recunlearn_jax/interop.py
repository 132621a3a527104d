"""Parameters of the reference implementations (MMRec, PyTorch) as parameters of ours."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from recunlearn_jax.errors import InputError

MODALITIES = ("image", "text")  # that MMRec knows
_PURIFIERS = {"image": "gate_v", "text": "gate_t"}


class _Entries:
    """A state dict that is taken apart; what is left over is not known."""

    def __init__(self, state: Mapping[str, np.ndarray]):
        self.names, self.left = sorted(state), dict(state)

    def __contains__(self, name: str) -> bool:
        return name in self.left

    def take(self, name: str):
        if name not in self.left:
            raise InputError(f"state dict: entry {name!r} is missing; it has {', '.join(self.names)}")
        return jnp.asarray(self.left.pop(name))

    def dense(self, name: str, bias: bool = True) -> dict[str, Any]:
        layer = {"kernel": self.take(f"{name}.weight").T}
        return layer | {"bias": self.take(f"{name}.bias")} if bias else layer


def params_from_mmrec_state_dict(
    state: Mapping[str, np.ndarray], backbone: str = "mgcn", widths: Mapping[str, int] | None = None
) -> dict:
    """Parameters of a backbone from a state dict given as numpy arrays.

    Args:
        state: name -> float array, Linear weights [out, in], as `{k: v.numpy() for k, v in model.state_dict().items()}` gives.
        backbone: mgcn, vbpr or freedom.
        widths: for vbpr, modality -> columns of its features; MMRec's layer takes text before image.

    Returns:
        The parameters with modalities image and text, or those of the two that the state dict holds.

    Raises:
        InputError: an entry is missing, or one is not known; or another backbone.
    """
    if backbone not in _READERS:
        raise InputError(f"backbone {backbone!r}: MMRec's parameters are read for {', '.join(_READERS)}")
    entries = _Entries(state)
    params = _READERS[backbone](entries, widths or {})
    if entries.left:
        raise InputError(f"state dict: unknown entries {', '.join(sorted(entries.left))} for {backbone}")
    return params


def _mgcn(entries: _Entries, widths: Mapping[str, int]) -> dict[str, Any]:
    params: dict[str, Any] = {
        "user_embedding": entries.take("user_embedding.weight"),
        "item_embedding": entries.take("item_id_embedding.weight"),
    }
    modalities = [m for m in MODALITIES if f"{m}_embedding.weight" in entries]
    for m in modalities:
        params[f"{m}_features"] = entries.take(f"{m}_embedding.weight")
        params[f"{m}_projection"] = entries.dense(f"{m}_trs")
        params[f"{m}_purifier"] = entries.dense(f"{_PURIFIERS[m]}.0")
        params[f"{m}_preference"] = entries.dense(f"gate_{m}_prefer.0")
    if modalities:
        params["attention_hidden"] = entries.dense("query_common.0")
        params["attention_score"] = entries.dense("query_common.2", bias=False)
    return params


def _vbpr(entries: _Entries, widths: Mapping[str, int]) -> dict[str, Any]:
    users, items = entries.take("u_embedding"), entries.take("i_embedding")
    layer = entries.dense("item_linear")
    order = [m for m in reversed(MODALITIES) if m in widths]
    if sum(widths.values()) != len(layer["kernel"]) or len(order) != len(widths):
        raise InputError(
            f"widths {dict(widths)}: modalities among {', '.join(MODALITIES)} with {len(layer['kernel'])} columns together are expected"
        )
    parts = jnp.split(layer["kernel"], np.cumsum([widths[m] for m in order])[:-1])
    return {
        "user_embedding": users[:, : items.shape[1]],
        "user_content": users[:, items.shape[1] :],
        "item_embedding": items,
        "content_bias": layer["bias"],
        **{f"{m}_projection": part for m, part in zip(order, parts, strict=True)},
    }


def _freedom(entries: _Entries, widths: Mapping[str, int]) -> dict[str, Any]:
    params: dict[str, Any] = {
        "user_embedding": entries.take("user_embedding.weight"),
        "item_embedding": entries.take("item_id_embedding.weight"),
    }
    for m in [m for m in MODALITIES if f"{m}_embedding.weight" in entries]:
        params[f"{m}_features"] = entries.take(f"{m}_embedding.weight")
        params[f"{m}_projection"] = entries.dense(f"{m}_trs")
    return params


_READERS: dict[str, Callable[[_Entries, Mapping[str, int]], dict[str, Any]]] = {
    "mgcn": _mgcn,
    "vbpr": _vbpr,
    "freedom": _freedom,
}
