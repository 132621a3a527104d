"""Answers of SISA and RecEraser, added to results of the paper's experiments that lack them: on Sports they take hours.

    python experiments/paper_shards.py DATA_FOLDER METHOD CASE ...

The cases are of one data set, such as sports_users, and have a result of experiments/paper.py. Their original is trained once, and so
are the shards that are in service before a request. Work goes on where it was cut off (runs/paper_shards); an answer that a
result already holds is skipped. The Golds of those results are not at hand, so that divergences from them are left out.
"""

import argparse
from pathlib import Path
from typing import Any

from paper import CASES, REQUESTS, RESULTS, SEED

from recunlearn_jax import results
from recunlearn_jax.audit.base import Attempt, Subject
from recunlearn_jax.audit.case import make_case
from recunlearn_jax.audit.examine import examine
from recunlearn_jax.comparison import Part, row_of
from recunlearn_jax.config import PRESETS, config_to_dict
from recunlearn_jax.data import read_dataset
from recunlearn_jax.environment import environment
from recunlearn_jax.process import keep_freed_memory
from recunlearn_jax.recommender import set_up
from recunlearn_jax.requests import parse
from recunlearn_jax.settings import seed_after
from recunlearn_jax.train import train
from recunlearn_jax.unlearn import answer, prepare
from recunlearn_jax.unlearn.driver import find

RUNS = Path("runs/paper_shards")
CHECKS = ("utility", "forgetting")


def main() -> None:
    keep_freed_memory()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path, help="of the folders of the data sets")
    parser.add_argument("method", choices=["sisa", "receraser"])
    parser.add_argument("cases", nargs="+", choices=list(CASES))
    words = parser.parse_args()
    (data,) = {CASES[case][0] for case in words.cases}
    dataset, config, method = read_dataset(words.folder / data), PRESETS["faithful"], words.method
    cases = {case: make_case(dataset, parse(REQUESTS[CASES[case][1]], SEED), config, None) for case in words.cases}
    setup = set_up(cases[words.cases[0]].dataset, config)
    original = train(setup, 0, run=RUNS / data / "original", on_epoch=lambda entry: print(entry, flush=True))
    attempt = Attempt(method, find(method, None)[1], seed_after(0, 1))
    memory = prepare(original, method, seed=attempt.seed, work=RUNS / data / method)
    before = f"{method} original"
    print(f"{before}: {memory.seconds}", flush=True)
    for name, case in cases.items():
        if method in read_of(name, setup.dataset.checksum, config)["models"]:
            continue
        work = RUNS / data / method / name
        model = answer(original, case.forget_set, method, seed=attempt.seed, memory=memory, work=work)
        made = {"commit": environment()["commit"], "changed": environment()["changed"]}
        parts = {method: Part(model, made, attempt, memory.seconds), before: Part(memory.original, made)}
        subjects = [Subject("original", original)] + [Subject(n, part.model, part.attempt) for n, part in parts.items()]
        found = examine(case._replace(original=original), subjects, list(CHECKS))
        print(name, found["figures"], flush=True)
        write(name, parts, found, setup.dataset.checksum, config)


def read_of(name: str, checksum: str, config: Any) -> dict[str, Any]:
    """The result of a case, which must be of this data and these settings."""
    found = results.read(RESULTS / f"paper_{name}.json")
    assert (found["data_checksum"], found["config"]) == (checksum, config_to_dict(config)), name
    return found


def write(name: str, parts: dict[str, Part], found: dict[str, Any], checksum: str, config: Any) -> None:
    """The result of a case with some models more, before its Golds."""
    kept = read_of(name, checksum, config)
    models = kept["models"]
    golds = {gold: models.pop(gold) for gold in kept["golds"]}
    seconds = sum(row["seconds"]["running"] for row in golds.values()) / len(golds)
    for model, part in parts.items():
        models[model] = row_of(part, found["figures"][model], seconds)
        kept["verdicts"][model], kept["misses"][model] = {}, 0
        if part.attempt is not None:
            kept["settings"][model] = vars(part.attempt.settings)
    results.write(RESULTS / f"paper_{name}.json", kept | {"models": models | golds})


if __name__ == "__main__":
    main()
