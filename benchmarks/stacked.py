"""Layouts of graphs, and several trainings side by side: seconds of an epoch, alone and stacked, and whether a training repeats.

    python benchmarks/stacked.py OUT.json [--data FOLDER] [--layouts segment gather] [--models 16] [--preset faithful] [--set ...]

It repeats where two trainings of three epochs end with the same bits. On a GPU run it once more with
XLA_FLAGS=--xla_gpu_deterministic_ops=true, which is noted beside the figures. Without a folder it runs on generated data of TikTok's size.
"""

import argparse
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from timing import seconds, settings

from recunlearn_jax.config import Config
from recunlearn_jax.data import read_dataset
from recunlearn_jax.dataset import Dataset
from recunlearn_jax.environment import environment
from recunlearn_jax.files import write_json
from recunlearn_jax.process import keep_freed_memory
from recunlearn_jax.recommender import set_up
from recunlearn_jax.stacked import stacked_epochs, starts
from recunlearn_jax.synthetic import toy
from recunlearn_jax.train import train_epoch

EPOCHS = 3  # of each training that is to repeat


def row(dataset: Dataset, config: Config, models: int) -> dict[str, Any]:
    """One layout."""
    setup = set_up(dataset, config)
    every = {"data": setup.data, "backbone": setup.backbone, "config": config.train.of_an_epoch}
    states, keys = starts(setup, range(models))

    def alone():
        return [jax.tree.map(lambda leaf: leaf[0].copy(), states)]

    def epoch(box, of, key):
        box[0], loss = of(box[0], key=key, **every)
        return loss

    first, second = alone(), alone()
    for box in (first, second):
        for _ in range(EPOCHS):
            epoch(box, train_epoch, keys[0])
    leaves = zip(jax.tree.leaves(first[0].params), jax.tree.leaves(second[0].params), strict=True)
    found: dict[str, Any] = {"same_bits": all(bool((a == b).all()) for a, b in leaves)}
    found["epoch"] = seconds(lambda: epoch(first, train_epoch, keys[0]))
    if models > 1:
        found["stacked_epoch"] = seconds(lambda box=[states]: epoch(box, stacked_epochs, keys), repeats=3)
        found["times_one"] = found["stacked_epoch"]["median"] / found["epoch"]["median"]
    return found | {"steps": -(-len(dataset.train) // config.train.batch_size)}


def main(arguments: Sequence[str] | None = None) -> None:
    keep_freed_memory()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--layouts", nargs="+", default=["segment", "gather"])
    parser.add_argument("--models", type=int, default=16, help="1 for no stack")
    parser.add_argument("--preset", default="faithful")
    parser.add_argument("--set", nargs="*", default=[], help="single settings, such as train.batch_size=512")
    words = parser.parse_args(arguments)
    if words.data:
        dataset = read_dataset(words.data)
    else:
        dataset = toy(9308, 6710, pairs_per_user=8, clusters=16, modalities=("audio", "image"), feature_size=128)
    result: dict[str, Any] = {"summary": dataset.summary(), "models": words.models}
    result |= {"environment": environment(), "xla_flags": os.environ.get("XLA_FLAGS", ""), "layouts": {}}
    for kind in words.layouts:
        config = settings(words.preset, words.set)
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, layout=kind))
        result["layouts"][kind] = row(dataset, config, words.models)
        write_json(words.out, result)
        print(kind, result["layouts"][kind], flush=True)


if __name__ == "__main__":
    main()
