"""How long training takes until valid Recall@20 reaches a target: the presets here and the reference, one after the other, seed by seed.

    python benchmarks/time_to_quality.py OUT.json --data FOLDER --target 0.1013 [--presets faithful fast] [--seeds 0 1 2] [--epochs 60]
        [--mmrec CHECKOUT --python PYTHON_WITH_TORCH --reference-seeds 999 1 2]

Seconds are those of epochs and validations; reading data and building graphs is left out on both sides, compiling is counted and also given
apart (seeds share a process, so the first one compiles). A training ends at the target, or where its preset stops early, or after --epochs.
Each one is written as it comes, and the same command skips it. See benchmarks/reference.py for the reference.
"""

import argparse
import contextlib
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# This module's reference side runs under an interpreter that has no recunlearn_jax installed.
sys.path.insert(0, str(Path(__file__).parent.parent))
from reference import prepared, reference

from recunlearn_jax.process import keep_freed_memory

PATIENCE = 20  # epochs without improvement after which the reference stops


def reference_epochs(checkout: Path, folder: Path, seed: int, target: float, epochs: int) -> None:
    """Print a line an epoch: seconds so far and valid Recall@20; runs under the other interpreter."""
    functions = reference(checkout, folder, seed)
    seconds, curve = 0.0, []
    while len(curve) < epochs and (not curve or max(curve) < target):
        start = time.perf_counter()
        functions["epoch"]()
        recall = float(functions["evaluation"]()["recall@20"])
        seconds += time.perf_counter() - start
        curve.append(recall)
        print(json.dumps({"seconds": seconds, "recall@20": recall}), flush=True)
        if len(curve) - 1 - curve.index(max(curve)) > PATIENCE:
            break


def in_other_interpreter(words: argparse.Namespace, folder: Path, seed: int) -> Iterator[dict[str, float]]:
    """The epochs of the reference."""
    command = [words.python, __file__, "--reference", str(words.mmrec.absolute()), str(folder)]
    command += [str(seed), str(words.target), str(words.epochs)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith('{"seconds"'):
                yield json.loads(line)
    if process.returncode:
        raise RuntimeError(f"the reference ended with exit code {process.returncode}")


class Reached(Exception):
    """The target."""


def own_epochs(folder: Path, preset: str, seed: int, target: float, epochs: int) -> list[dict[str, float]]:
    """The epochs of a preset, of `fit` as users call it."""
    from recunlearn_jax.config import PRESETS
    from recunlearn_jax.data import read_dataset
    from recunlearn_jax.train import fit

    config = PRESETS[preset]
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, max_epochs=epochs))
    entries: list[dict[str, float]] = []

    def note(entry):
        entries.append(entry)
        if entry["recall@20"] >= target:
            raise Reached

    with contextlib.suppress(Reached):
        fit(read_dataset(folder), config, seed=seed, on_epoch=note)
    total, compiling, found = 0.0, 0.0, []
    for entry in entries:
        total, compiling = total + entry["seconds"], compiling + entry["compile_seconds"]
        found.append({"seconds": total, "compile_seconds": compiling, "recall@20": entry["recall@20"]})
    return found


def summary(runs: dict[str, list[dict[str, float]]], target: float) -> dict[str, Any]:
    """Of one side: when each seed reached the target, and when all had.

    Args:
        runs: seed -> its epochs.
        target: of valid Recall@20.
    """
    reached = {seed: run[-1]["seconds"] if run[-1]["recall@20"] >= target else None for seed, run in runs.items()}
    seconds = [x for x in reached.values() if x is not None]
    return {
        "reached_seconds": reached,
        "reached_epoch": {seed: len(run) if reached[seed] is not None else None for seed, run in runs.items()},
        "all_seconds": max(seconds) if len(seconds) == len(runs) else None,
        "best_valid_recall@20": {seed: max(e["recall@20"] for e in run) for seed, run in runs.items()},
        "given_up_after_seconds": {seed: run[-1]["seconds"] for seed, run in runs.items() if reached[seed] is None},
    }


def main() -> None:
    keep_freed_memory()
    if sys.argv[1:2] == ["--reference"]:
        checkout, folder, seed, target, epochs = sys.argv[2:]
        return reference_epochs(Path(checkout), Path(folder), int(seed), float(target), int(epochs))
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--target", type=float, required=True)
    parser.add_argument("--presets", nargs="+", default=["faithful", "fast"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--mmrec", type=Path)
    parser.add_argument("--python")
    parser.add_argument("--reference-seeds", type=int, nargs="+", default=[999, 1, 2])
    words = parser.parse_args()
    from recunlearn_jax.environment import environment
    from recunlearn_jax.files import write_json

    done: dict[str, Any] = json.loads(words.out.read_text()) if words.out.exists() else {"runs": {}}
    done |= {"data": words.data.name, "target": words.target, "environment": environment()}
    with tempfile.TemporaryDirectory() as place:
        folder = prepared(words.data, None, Path(place))
        trainings = [(preset, seed) for seed in words.seeds for preset in words.presets]
        trainings += [("reference", seed) for seed in words.reference_seeds if words.mmrec]
        for side, seed in trainings:
            runs = done["runs"].setdefault(side, {})
            if str(seed) in runs:
                continue
            if side == "reference":
                runs[str(seed)] = list(in_other_interpreter(words, folder, seed))
            else:
                runs[str(seed)] = own_epochs(folder, side, seed, words.target, words.epochs)
            done["summary"] = {name: summary(of, words.target) for name, of in done["runs"].items() if of}
            write_json(words.out, done)
            print(side, seed, runs[str(seed)][-1], flush=True)


if __name__ == "__main__":
    main()
