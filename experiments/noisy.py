"""What a guarantee by noise costs: Recall@20 by epsilon, by how much of the model the ball lets in, and by training afterwards.

    python experiments/noisy.py toy
    python experiments/noisy.py tiktok DATA_FOLDER

users:5%, delta 1e-5, 100 noisy steps. `kept` is the ball's radius as a share of the way from fresh parameters to the trained ones; the
guarantee asks that no model is looked at to choose it, so here it only shows what any choice could give. What is already in
experiments/results is skipped.
"""

import dataclasses
import itertools
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from recunlearn_jax.config import PRESETS
from recunlearn_jax.data import read_dataset
from recunlearn_jax.environment import environment
from recunlearn_jax.files import read_json, write_json
from recunlearn_jax.process import keep_freed_memory
from recunlearn_jax.requests import parse, resolve
from recunlearn_jax.synthetic import toy
from recunlearn_jax.train import fit, initial_params
from recunlearn_jax.unlearn import answer
from recunlearn_jax.unlearn.driver import outcome
from recunlearn_jax.unlearn.noisy import Settings

RESULTS = Path(__file__).parent / "results"
EPSILONS = (10.0, 1e3, 1e6, 1e9)
KEPT = (1e-4, 1e-2, 1.0)
EPOCHS = (0, 10)


def main(case: str, folder: Path | None) -> None:
    keep_freed_memory()
    path = RESULTS / f"noisy_{case}.json"
    done: dict[str, Any] = read_json(path) if path.exists() else {"rows": []}
    dataset, config = (toy(), PRESETS["toy"]) if folder is None else (read_dataset(folder), PRESETS["faithful"])
    original = fit(dataset, config, run=Path("runs/noisy") / case)
    forget_set = resolve(parse(["users:5%"], 1), original.dataset)
    apart = jax.tree.map(jnp.subtract, original.params, initial_params(original.setup, 7))
    way = float(jnp.sqrt(sum((jnp.sum(jnp.square(x)) for x in jax.tree.leaves(apart)), jnp.float32(0))))
    done |= {"summary": dataset.summary(), "way": way, "delta": Settings().delta, "steps": Settings().steps}
    if "gold" not in done:
        gold = answer(original, forget_set, "gold", seed=7)
        told = outcome(original, gold, forget_set)
        done |= {"original": told["before"], "gold": told["after"], "gold_epochs": gold.info["epochs"]}
        done["original_epochs"] = original.info["epochs"]
    for epsilon, kept, epochs in itertools.product(EPSILONS, KEPT, EPOCHS):
        key = {"epsilon": epsilon, "kept": kept, "epochs": epochs}
        if any(key.items() <= row.items() for row in done["rows"]):
            continue
        chosen = dataclasses.replace(Settings(), epsilon=epsilon, radius=kept * way, epochs=epochs, noise_seed=1)
        answered = answer(original, forget_set, "noisy", chosen, seed=1)
        metrics = outcome(original, answered, forget_set)["after"]
        done["rows"].append(
            key | {"sigma": answered.info["sigma"], "metrics": metrics, "seconds": answered.seconds.running}
        )
        write_json(path, done | {"environment": environment()})
        print(key, {split: round(row["recall@20"], 4) for split, row in metrics.items()}, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else None)
