"""EASE in place of a trained model: what its quality is, and what exact deletions take beside solving anew.

    python experiments/ease.py DATA_FOLDERS_PARENT [tiktok] [baby] [million]

Penalty and content weight are chosen on valid pairs, among GRID. Each answer is compared with solving anew.
`million` is generated: 10^6 interactions of 90,000 users and 10,000 items. What is already in experiments/results is skipped.
"""

import dataclasses
import itertools
import sys
from collections.abc import Callable, Sequence
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
from recunlearn_jax.recommender import Recommender
from recunlearn_jax.requests import parse, resolve
from recunlearn_jax.synthetic import toy
from recunlearn_jax.train import fit
from recunlearn_jax.unlearn import answer

RESULTS = Path(__file__).parent / "results"
GRID = {
    "tiktok": itertools.product((30.0, 60.0, 100.0), (0.0, 30.0, 60.0, 100.0)),
    "baby": itertools.product((300.0, 600.0, 1200.0), (0.0, 0.5, 1.0, 3.0)),
}
REQUESTS = (
    *("users:1", "users:0.1%", "users:1%", "users:5%", "items:1", "items:5%", "pairs:0.1%", "pairs:1%"),
    *("modality:image:1%", "modality:image"),
)
FEW = ("users:1", "users:0.1%", "users:1%", "items:1")


def quality(dataset: Dataset, settings: ease.Settings) -> dict[str, Any]:
    """Ranking metrics of one choice."""
    model = fit(dataset, Config("ease", settings))
    tasks = {split: held_out_task(dataset, split) for split in ("valid", "test")}
    return {**dataclasses.asdict(settings), "metrics": report(model.rows, tasks, (10, 20))} | {
        "seconds": model.seconds.total
    }


def deletions(model: Recommender, requests: Sequence[str], begun: dict[str, Any], keep: Callable[[], None]) -> None:
    """Seconds of whole answers, and the error, of each request not done yet, into a dictionary."""
    for words in requests:
        kind, _, what = words.partition(":")
        if words in begun or (kind == "modality" and what.partition(":")[0] not in model.dataset.modalities):
            continue
        one = model.dataset.train[len(model.dataset.train) // 2, 0 if kind == "users" else 1]
        forget_set = resolve(parse([f"{kind}:{one}" if what == "1" else words], 1), model.dataset)
        answered, gold = (answer(model, forget_set, method) for method in ("ease", "gold"))
        ours, theirs = (weights(made) for made in (answered, gold))
        begun[words] = {
            **{key: count for key, count in forget_set.counts().items() if count},
            **{key: answered.info[key] for key in ("rank", "solved_anew", "drift") if key in answered.info},
            **{"answer": answered.seconds.running, "anew": gold.seconds.running},
            "error": float(np.abs(ours - theirs).max()),
        }
        keep()
        print(words, begun[words], flush=True)


def weights(model: Recommender) -> np.ndarray:
    """B, by rows of items."""
    inverse = np.asarray(model.params[ease.TABLE])
    return inverse / np.diag(inverse)[:, None]


def main(parent: Path, cases: list[str]) -> None:
    keep_freed_memory()
    for case in cases:
        path = RESULTS / f"ease_{case}.json"
        done: dict[str, Any] = read_json(path) if path.exists() else {"grid": [], "deletions": {}}

        def keep(done=done, path=path) -> None:
            write_json(path, done | {"environment": environment()})

        if case == "million":
            dataset = toy(90_000, 10_000, pairs_per_user=12, clusters=50, modalities=("image",), feature_size=64)
            dataset = dataset.replace(valid=dataset.valid[:0])  # whose lists nobody asks for here
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
        model = fit(dataset, Config("ease", best))
        answer(model, ["users:1"], "ease")  # compiles
        deletions(model, FEW if case == "million" else REQUESTS, done["deletions"], keep)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or ["tiktok", "baby", "million"])
