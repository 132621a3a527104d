"""Unlearning against our own full retraining: cold, warm and steady, with the quality of the answer in the same row.

    python benchmarks/unlearning.py OUT.json --data FOLDER [--requests users:5% pairs:5%] [--plain users:1%] [--canaries 20]

cold: a new process with an empty compilation cache; warm: a new process with a filled one; steady: a process that has answered a request
before. Seconds run from the request to usable parameters and graph; starting Python and reading data and model are on neither side. Gold
trains to its early stop, validation included, once a request, steady; its cold and warm seconds add what compiling it took in such a
process. Each finished request is written at once, and the same command skips it.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from timing import peak_memory, settings

from recunlearn_jax import runs
from recunlearn_jax.audit import Case, Subject, examine
from recunlearn_jax.audit.canary import Canaries, plant
from recunlearn_jax.audit.case import with_users
from recunlearn_jax.config import Config, config_to_dict
from recunlearn_jax.data import read_dataset, write_dataset
from recunlearn_jax.environment import environment
from recunlearn_jax.errors import InputError
from recunlearn_jax.files import write_json
from recunlearn_jax.process import keep_freed_memory
from recunlearn_jax.recommender import Recommender
from recunlearn_jax.requests import Request, parse, read_request, resolve, retained, to_json
from recunlearn_jax.train import fit
from recunlearn_jax.unlearn import answer, prepare
from recunlearn_jax.unlearn.driver import find

STEADY = 5  # answers to time in one process, each to another request seed
PROCESSES = 3  # new processes, cold and warm each, unless --processes says otherwise
SEED = 1  # of the request whose quality is measured, and of the canaries


def first_answer(run: Path, request: Path, method: str) -> dict[str, float]:
    """What a new process prints: seconds of one answer; for gold only those of one epoch, for the compiler's share."""
    original = runs.load(run)
    if method == "gold":
        setup = dataclasses.replace(original.setup, config=one_epoch(original.config))
        original = dataclasses.replace(original, setup=setup)
    seconds = answer(original, read_request(request), method, seed=SEED).seconds
    return {"total": seconds.total, "compiling": seconds.compiling}


def one_epoch(config: Config) -> Config:
    """The settings with a training of one epoch."""
    return dataclasses.replace(config, train=dataclasses.replace(config.train, max_epochs=1))


def in_new_process(arguments: list[str], cache: Path) -> dict[str, float]:
    environment_ = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    done = subprocess.run(
        [sys.executable, __file__, "--answer", *arguments], env=environment_, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    keep_freed_memory()
    if sys.argv[1:2] == ["--answer"]:
        run, path, method = sys.argv[2:]
        print(json.dumps(first_answer(Path(run), Path(path), method)))
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--requests", nargs="*", default=["users:5%", "pairs:5%"])
    parser.add_argument("--plain", nargs="*", default=["users:1%"], help="requests without the canary users")
    parser.add_argument(
        "--canaries", type=int, default=20, help="item pairs to plant, known to eight users each; 0 for none"
    )
    parser.add_argument("--methods", nargs="+", default=["delta"])
    parser.add_argument("--preset", default="faithful")
    parser.add_argument("--set", nargs="*", default=[], help="single settings, such as train.batch_size=512")
    parser.add_argument(
        "--processes",
        type=int,
        default=PROCESSES,
        help="new ones, cold and warm each; 0 measures the steady seconds alone",
    )
    parser.add_argument("--run", type=Path, help="folder of the original, trained there where it holds none")
    words = parser.parse_args()
    done: dict[str, Any] = json.loads(words.out.read_text()) if words.out.exists() else {"requests": {}}
    asked = [text for text in [*words.requests, *words.plain] if text not in done["requests"]]
    if not asked:
        return
    config, before = settings(words.preset, words.set), read_dataset(words.data)
    run = words.run or Path("runs/bench") / before.name
    dataset, canaries = plant(before, words.canaries, seed=SEED) if words.canaries else (before, None)
    folder = run.parent / f"{run.name}-data"
    if not folder.exists():
        write_dataset(dataset, folder)
    planted, dataset = dataset, read_dataset(folder)
    if dataset.checksum != planted.checksum:
        raise InputError(
            f"{folder}: holds other data than {words.data} with {words.canaries} canaries; delete it or name another --run"
        )
    runs.begin(run, dataset, folder, config, 0)
    if not runs.finished(run):
        runs.finish(run, fit(dataset, config, seed=0, run=run), {})
    original = runs.load(run)
    fit(dataset, one_epoch(config))  # compiles, as a process that has trained before has done
    done |= {"summary": dataset.summary(), "data_checksum": dataset.checksum, "config": config_to_dict(config)}
    done["settings"] = {method: dataclasses.asdict(find(method, None)[1]) for method in words.methods}
    for text in asked:
        planted = canaries if text in words.requests else None

        def request(seed: int, text=text, planted=planted) -> Request:
            drawn = parse([text], seed)
            return with_users(drawn, before, dataset, planted.users) if planted else drawn

        done["requests"][text] = row(run, original, request, planted, words.methods, words.processes)
        done["environment"], done["peak_memory_bytes"] = environment(), peak_memory()
        write_json(words.out, done)
        print(text, {m: done["requests"][text][m]["speed_up"] for m in words.methods}, flush=True)


def row(
    run: Path,
    original: Recommender,
    request: Callable[[int], Request],
    canaries: Canaries | None,
    methods: Sequence[str],
    processes: int,
) -> dict[str, dict[str, Any]]:
    """One request: seconds of Gold and of each method, and the quality of what each gave.

    Args:
        run: folder of the original.
        original: the same in memory.
        request: of a request seed.
        canaries: that the request contains.
        methods: names in `METHODS`.
        processes: new ones to start, cold and warm each.
    """
    forget_set = resolve(request(SEED), original.dataset)
    gold = answer(original, forget_set, "gold", seed=7)
    subjects = [Subject("original", original)]
    told = {key: value for key, value in gold.info.items() if key != "curve"}
    rows: dict[str, dict[str, Any]] = {"gold": {"steady": gold.seconds.running, "info": told}, "original": {}}
    for method in methods:
        # The first answer compiles; the last one is to the request whose quality is measured. Each is prepared for.
        answers, preparing = [], []
        for seed in range(SEED + STEADY, SEED - 1, -1):
            memory = prepare(original, method, seed=SEED)
            assert memory.seconds is not None
            preparing.append(memory.seconds.total)
            answers.append(answer(original, request(seed), method, seed=SEED, memory=memory))
        steady = [a.seconds.total for a in answers[1:]]
        subjects.append(Subject(method, answers[-1]))
        rows[method] = {
            "steady": statistics.median(steady),
            "steady_samples": steady,
            "preparing": statistics.median(preparing[1:]),
            "programs_after_the_first": sum(a.seconds.programs for a in answers[1:]),
            "info": answers[-1].info,
        }
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "request.json"
        write_json(path, to_json(request(SEED)))
        for method in ["gold", *methods]:
            for i in range(processes):
                for kind in ("cold", "warm"):
                    seen = in_new_process([str(run), str(path), method], Path(place) / f"{method}-{i}")
                    sample = rows["gold"]["steady"] + seen["compiling"] if method == "gold" else seen["total"]
                    rows[method].setdefault(f"{kind}_samples", []).append(sample)
            if processes:
                for kind in ("cold", "warm"):
                    rows[method][kind] = statistics.median(rows[method][f"{kind}_samples"])
    kinds = ("cold", "warm", "steady") if processes else ("steady",)
    for method in methods:
        own = rows[method]
        own["speed_up"] = {k: rows["gold"][k] / own[k] for k in kinds}
        own["speed_up"]["unprepared"] = rows["gold"]["steady"] / (own["steady"] + own["preparing"])
    planted = {"canary": canaries} if canaries else {}
    case = Case(original.dataset, forget_set, retained(original.dataset, forget_set), planted, original, {"gold": gold})
    for name, figures in examine(case, subjects, ["utility", "forgetting", "canary"])["figures"].items():
        quality = {split: {"recall@20": figures[f"{split} recall@20"]} for split in ("valid", "test", "forget")}
        if canaries:
            quality["canary"] = {"median_rank": figures["canary median rank"]}
        rows[name]["quality"] = quality
    return rows | {"forgotten": forget_set.counts()}


if __name__ == "__main__":
    main()
