"""Unlearning against our own full retraining: cold, warm and steady, with the quality of the answer in the same row.

    python benchmarks/unlearning.py OUT.json --data FOLDER [--requests users:5% pairs:5% users:1%] [--methods mmrecun finetune]

cold: a new process with an empty compilation cache; warm: a new process with a filled one; steady: a process that has answered a request
before. Seconds run from the request to usable parameters and graph; starting Python and reading data and model are on neither side. Gold
trains to its early stop, validation included, once a request, steady; its cold and warm seconds add what compiling it took in such a
process. Each finished request is written at once, and the same command skips it.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
from timing import peak_memory

from recunlearn_jax import runs
from recunlearn_jax.checkpoint import MODEL, environment, write_json
from recunlearn_jax.comparison import Part, make_case, measure
from recunlearn_jax.config import PRESETS, to_dict
from recunlearn_jax.data import read_dataset
from recunlearn_jax.process import keep_freed_memory
from recunlearn_jax.requests import parse, resolve
from recunlearn_jax.train import embed, fit
from recunlearn_jax.unlearn import METHODS

STEADY = 5  # answers to time in one process, each to another request seed
PROCESSES = 3  # new processes, cold and warm each, unless --processes says otherwise


def answer(run: Path, words: str, seed: int, method: str) -> dict[str, float]:
    """What a new process prints: seconds of one answer; for gold only those of one epoch, for the compiler's share."""
    original = runs.load(run)
    config = original.config
    if method == "gold":
        short = config.train.__class__(**{**to_dict(config.train), "max_epochs": 1})
        config = config.__class__(model=config.model, train=short, unlearn=config.unlearn)
    result = METHODS[method](jax.random.key(1), original, resolve(parse([words], seed), original.dataset), config)
    return {"total": result.seconds.total, "compiling": result.seconds.compiling}


def in_new_process(arguments: list[str], cache: Path) -> dict[str, float]:
    environment_ = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3",
    }
    done = subprocess.run(
        [sys.executable, __file__, "--answer", *arguments], env=environment_, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    keep_freed_memory()
    if sys.argv[1:2] == ["--answer"]:
        run, words, seed, method = sys.argv[2:]
        print(json.dumps(answer(Path(run), words, int(seed), method)))
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--requests", nargs="+", default=["users:5%", "pairs:5%", "users:1%"])
    parser.add_argument("--methods", nargs="+", default=["mmrecun"])
    parser.add_argument("--preset", default="faithful")
    parser.add_argument("--processes", type=int, default=PROCESSES)
    parser.add_argument("--run", type=Path, help="folder of the original, trained there where it holds none")
    words = parser.parse_args()
    config, folder = PRESETS[words.preset], words.data
    run = words.run or Path("runs/bench") / folder.name
    dataset = read_dataset(folder)
    runs.begin(run, dataset, folder, config, 0)
    if not (run / MODEL).is_dir():
        runs.finish(run, fit(dataset, config, seed=0, run=run), {})
    original = runs.load(run)
    # In memory, as in a process that has trained and answered before.
    fit(
        dataset,
        config.__class__(
            model=config.model, train=config.train.__class__(**{**to_dict(config.train), "max_epochs": 1})
        ),
    )
    done: dict[str, Any] = json.loads(words.out.read_text()) if words.out.exists() else {"requests": {}}
    done |= {"summary": dataset.summary(), "data_checksum": dataset.checksum, "config": to_dict(config)}
    for text in words.requests:
        if text in done["requests"]:
            continue
        case = make_case(dataset, parse([text], 1), config)
        gold = METHODS["gold"](jax.random.key(7), original, case.forget_set, config)
        parts = {"gold-1": Part(table(gold), gold.seconds, gold.info, [])}
        parts["original"] = Part(table(original), original.seconds, {}, [])
        row: dict[str, dict[str, Any]] = {"gold": {"steady": gold.seconds.running, "info": gold.info}}
        for method in words.methods:
            answers = [
                METHODS[method](jax.random.key(seed), original, resolve(parse([text], seed), original.dataset), config)
                for seed in range(STEADY + 1)
            ]
            steady = [a.seconds.total for a in answers[1:]]
            parts[method] = Part(table(answers[1]), answers[1].seconds, answers[1].info, [])
            row[method] = {
                "steady": statistics.median(steady),
                "steady_samples": steady,
                "programs_after_the_first": sum(a.seconds.programs for a in answers[1:]),
                "info": answers[1].info,
            }
        for method in ["gold", *words.methods]:
            for _ in range(words.processes):
                with tempfile.TemporaryDirectory() as cache:
                    for kind in ("cold", "warm"):
                        seen = in_new_process([str(run), text, "1", method], Path(cache))
                        sample = row["gold"]["steady"] + seen["compiling"] if method == "gold" else seen["total"]
                        row[method].setdefault(f"{kind}_samples", []).append(sample)
            for kind in ("cold", "warm"):
                row[method][kind] = statistics.median(row[method][f"{kind}_samples"])
        for method in words.methods:
            row[method]["speed_up"] = {k: row["gold"][k] / row[method][k] for k in ("cold", "warm", "steady")}
        for name, figures in measure(case, parts).items():
            key = "gold" if name == "gold-1" else name
            kept = {split: {"recall@20": figures[split]["recall@20"]} for split in ("valid", "test", "forget")}
            row.setdefault(key, {})["quality"] = kept
        done["requests"][text] = row
        done["environment"], done["peak_memory_bytes"] = environment(), peak_memory()
        write_json(words.out, done)
        print(text, {m: row[m]["speed_up"] for m in words.methods}, flush=True)


def table(model) -> jax.Array:
    """Output rows of a trained or unlearned model."""
    return embed(model.params, model.data.graphs, model.data.features, model=model.model)


if __name__ == "__main__":
    main()
