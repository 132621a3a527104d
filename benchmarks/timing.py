"""How everything here is timed: warm-up, repeats, every result waited for; median, minimum, maximum and count are kept.

And with which settings: those of a preset, with single values on top.
"""

import resource
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from recunlearn_jax.config import PRESETS, Config, config_from_dict, config_to_dict
from recunlearn_jax.settings import override


def settings(preset: str, words: Sequence[str]) -> Config:
    """A preset with single values on top, such as train.batch_size=512."""
    return config_from_dict(override(config_to_dict(PRESETS[preset]), words), "--set")


def seconds(function: Callable[[], Any], repeats: int = 7, warm_up: int = 1) -> dict[str, float]:
    """Wall-clock seconds of a call whose result may still be computed when it returns."""
    for _ in range(warm_up):
        jax.block_until_ready(function())
    samples = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function())
        samples.append(time.perf_counter() - start)
    return {"median": statistics.median(samples), "min": min(samples), "max": max(samples), "n": repeats}


def gemm_rate(size: int = 2048) -> float:
    """Float32 operations a second of a square matrix product: the compute floor's divisor."""
    a = jax.random.normal(jax.random.key(0), (size, size))
    product = jax.jit(jnp.matmul)
    return 2 * size**3 / seconds(lambda: product(a, a))["min"]


def bandwidth(size: int = 2**26) -> float:
    """Bytes a second, read and written, of x <- x + 1 in place over an array larger than any cache: the memory floor's divisor."""
    box = [jnp.zeros(size)]
    add = jax.jit(lambda x: x + 1, donate_argnums=0)  # a fresh output each time would measure the allocation

    def once():
        box[0] = add(box[0])
        return box[0]

    return 8 * size / seconds(once)["min"]


def peak_memory() -> int:
    """Largest resident size of this process so far, bytes (Linux counts KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
