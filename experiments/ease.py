"""EASE in place of a trained model: what its quality is, and what exact deletions take beside solving anew.

    python experiments/ease.py DATA_FOLDERS_PARENT [tiktok] [baby] [million]

Penalty and content weight are chosen on valid pairs, among GRID. Each deletion is compared with the solution of the retained data.
`million` is generated: 10^6 interactions of 100,000 users and 10,000 items. What is already in experiments/results is skipped.
"""

import dataclasses
import itertools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from recunlearn_jax.backbones import ease
from recunlearn_jax.config import Config
from recunlearn_jax.data import read_dataset
from recunlearn_jax.dataset import Dataset
from recunlearn_jax.environment import environment
from recunlearn_jax.evaluate import held_out_task, report
from recunlearn_jax.files import read_json, write_json
from recunlearn_jax.process import keep_freed_memory
from recunlearn_jax.requests import parse, resolve, retained
from recunlearn_jax.synthetic import toy
from recunlearn_jax.train import fit
from recunlearn_jax.unlearn import ease as deletion

RESULTS = Path(__file__).parent / "results"
GRID = {
    "tiktok": itertools.product((30.0, 60.0, 100.0), (0.0, 30.0, 60.0, 100.0)),
    "baby": itertools.product((300.0, 600.0, 1200.0), (0.0, 0.5, 1.0, 3.0)),
}
REQUESTS = ("users:1", "users:0.1%", "users:1%", "users:5%", "items:1", "items:5%", "pairs:0.1%", "pairs:1%")


def quality(dataset: Dataset, settings: ease.Settings) -> dict[str, Any]:
    """Ranking metrics of one choice."""
    model = fit(dataset, Config("ease", settings))
    tasks = {split: held_out_task(dataset, split) for split in ("valid", "test")}
    return {**dataclasses.asdict(settings), "metrics": report(model.rows, tasks, (10, 20))} | {
        "seconds": model.seconds.total
    }


def deletions(dataset: Dataset, settings: ease.Settings, begun: dict[str, Any], keep: Callable[[], None]) -> None:
    """Seconds and error of each request not done yet, into a dictionary."""
    missing = [words for words in REQUESTS if words not in begun]
    inverse = ease.solve(dataset, settings) if missing else np.zeros(0)
    for words in missing:
        kind, _, what = words.partition(":")
        one = dataset.train[len(dataset.train) // 2, 0 if kind == "users" else 1]
        request = words if what.endswith("%") else f"{kind}:{one}"
        forget_set = resolve(parse([request], 1), dataset)
        after = retained(dataset, forget_set)
        start = time.perf_counter()
        gone = np.flatnonzero(after.removed_items)
        rows, signs = deletion.changes(dataset, after, settings)
        edited = deletion.edited(deletion.without_items(inverse, gone, settings.penalty), rows, signs)
        drift = deletion.drift(edited, after, settings)
        middle = time.perf_counter()
        anew = ease.solve(after, settings)
        end = time.perf_counter()
        begun[words] = {
            **{key: count for key, count in forget_set.counts().items() if count},
            **{"rank": len(gone) + len(signs), "edit": middle - start, "anew": end - middle, "drift": drift},
            "error": float(np.abs(edited - anew).max() / np.abs(anew).max()),
        }
        keep()
        print(words, begun[words], flush=True)


def main(parent: Path, cases: list[str]) -> None:
    keep_freed_memory()
    for case in cases:
        path = RESULTS / f"ease_{case}.json"
        done: dict[str, Any] = read_json(path) if path.exists() else {"grid": [], "deletions": {}}

        def keep(done=done, path=path) -> None:
            write_json(path, done | {"environment": environment()})

        if case == "million":
            dataset = toy(100_000, 10_000, pairs_per_user=10, clusters=50, modalities=("image",), feature_size=64)
            best = ease.Settings()
        else:
            dataset = read_dataset(parent / case)
            for penalty, weight in GRID[case]:
                if any((row["penalty"], row["content_weight"]) == (penalty, weight) for row in done["grid"]):
                    continue
                done["grid"].append(quality(dataset, ease.Settings(penalty, weight)))
                keep()
                jax.clear_caches()  # each choice is a backbone of its own
                print(done["grid"][-1], flush=True)
            chosen = max(done["grid"], key=lambda row: row["metrics"]["valid"]["recall@20"])
            best = ease.Settings(chosen["penalty"], chosen["content_weight"])
        done |= {"summary": dataset.summary(), "settings": dataclasses.asdict(best)}
        deletions(dataset, best, done["deletions"], keep)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or ["tiktok", "baby", "million"])
