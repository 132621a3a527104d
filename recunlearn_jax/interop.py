"""Parameters of the reference implementations (MMRec, PyTorch) as parameters of ours."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file

from recunlearn_jax.arrays import as_float32
from recunlearn_jax.backbones.base import flat
from recunlearn_jax.errors import InputError, check_type, shown
from recunlearn_jax.files import as_path, regular
from recunlearn_jax.recommender import Recommender, Setup, shapes

MODALITIES = ("image", "text")  # those MMRec knows
_PURIFIERS = {"image": "gate_v", "text": "gate_t"}


def read_safetensors(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a .safetensors file.

    Raises:
        InputError: it is missing or damaged.
    """
    try:
        return load_file(regular(as_path(path, "path")))
    except InputError:
        raise
    except Exception as error:  # the reader's own errors share no base class that it names
        raise InputError(f"{path}: no readable .safetensors file ({error})") from error


def imported(setup: Setup, state: Mapping[str, np.ndarray]) -> Recommender:
    """A recommender with MMRec's parameters.

    Args:
        setup: the data they were trained on, with the settings they were trained with.
        state: as for `params_from_mmrec_state_dict`.

    Raises:
        InputError: the state dict is of another backbone, or does not fit the data or the settings.
    """
    check_type(setup, Setup, "setup", "`recommender.set_up` makes one of data and settings")
    widths = {m: setup.dataset.features[m].shape[1] for m in setup.dataset.modalities}
    params = params_from_mmrec_state_dict(state, setup.config.backbone, widths)
    given, expected = flat(params), flat(shapes(setup))
    for name in sorted({*given, *expected}):
        have, want = (list(tree[name].shape) if name in tree else None for tree in (given, expected))
        if have != want:
            raise InputError(
                f"state dict: {name} is {have or 'missing'}; with this data and these settings {want or 'no such parameter'} is expected"
            )
    return Recommender(setup, params, info={"imported": True})


class _Entries:
    """A state dict whose entries are taken one by one; those left over are unknown."""

    def __init__(self, state: Mapping[str, np.ndarray]):
        self.names, self.left = sorted(state), dict(state)

    def __contains__(self, name: str) -> bool:
        return name in self.left

    def take(self, name: str, axes: int = 2):
        if name not in self.left:
            raise InputError(f"state dict: entry {name!r} is missing; it has {', '.join(self.names)}")
        try:
            array = np.asarray(self.left.pop(name))
        except ValueError as error:
            raise InputError(f"state dict: {name!r} is no array ({error})") from error
        if array.ndim != axes or array.dtype.kind != "f":
            kind = "matrix" if axes == 2 else "vector"
            raise InputError(
                f"state dict: {name!r} is {array.dtype}{list(array.shape)}; a {kind} of floats is expected"
            )
        array = as_float32(array)
        if not np.isfinite(array).all():
            raise InputError(f"state dict: {name!r} holds NaN or inf (as float32); only finite parameters are allowed")
        return jnp.asarray(array)

    def dense(self, name: str, bias: bool = True) -> dict[str, Any]:
        layer = {"kernel": self.take(f"{name}.weight").T}
        return layer | {"bias": self.take(f"{name}.bias", axes=1)} if bias else layer


def params_from_mmrec_state_dict(
    state: Mapping[str, np.ndarray], backbone: str = "mgcn", widths: Mapping[str, int] | None = None
) -> dict:
    """Parameters of a backbone from a state dict given as numpy arrays.

    Args:
        state: name -> float array, Linear weights [out, in], as `{k: v.numpy() for k, v in model.state_dict().items()}` gives.
        backbone: mgcn, vbpr or freedom.
        widths: for vbpr, modality -> columns of its features; MMRec's layer takes text before image.

    Returns:
        The parameters, for whichever of the modalities image and text the state dict holds (for vbpr, those in `widths`).

    Raises:
        InputError: an entry is missing, unknown, of another form or not finite; or the backbone is none of the three.
    """
    if not isinstance(state, Mapping) or not all(isinstance(name, str) for name in state):
        raise InputError(f"state dict: a {type(state).__name__} is given; a mapping of names to arrays is expected")
    if not isinstance(backbone, str) or backbone not in _READERS:
        raise InputError(f"backbone {shown(backbone)}: MMRec's parameters are read for {', '.join(_READERS)}")
    if not isinstance(widths or {}, Mapping) or not all(type(width) is int for width in (widths or {}).values()):
        raise InputError(f"widths {shown(widths)}: a whole number for each modality is expected")
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
            f"widths {shown(dict(widths))}: modalities among {', '.join(MODALITIES)} with {len(layer['kernel'])} columns together are "
            "expected"
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
