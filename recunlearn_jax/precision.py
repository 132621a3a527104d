"""Precision of the factors of training's matrix products; their sums, the tables and everything else are float32."""

from contextlib import AbstractContextManager
from typing import Literal

import jax

from recunlearn_jax.errors import InputError

Precision = Literal["float32", "tensorfloat32", "bfloat16"]

# WHY algorithms and not jax's short names: on a GPU its "bfloat16" stands for whatever the device is fastest at.
_ALGORITHMS: dict[Precision, str] = {
    "float32": "highest",
    "tensorfloat32": "TF32_TF32_F32",
    "bfloat16": "BF16_BF16_F32",
}
AVAILABLE: dict[str, tuple[Precision, ...]] = {
    "cpu": ("float32",),
    "gpu": ("float32", "tensorfloat32", "bfloat16"),
    "tpu": ("float32", "bfloat16"),
}


def products_in(precision: Precision) -> AbstractContextManager:
    """A context in which jax traces matrix products in a precision."""
    return jax.default_matmul_precision(_ALGORITHMS[precision])


def check_precision(precision: Precision) -> None:
    """Check that this device has a precision.

    Raises:
        InputError: it has not. A CPU would silently compute in float32.
    """
    device = jax.default_backend()
    allowed = AVAILABLE.get(device, ("float32",))
    if precision not in allowed:
        raise InputError(f"train.precision: {precision!r} is not there on this {device}; allowed: {', '.join(allowed)}")
