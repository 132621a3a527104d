"""Answers of one method, put into results of the paper's experiments that lack them or have those of other settings.

    python experiments/paper_answers.py DATA_FOLDER METHOD CASE ...

The cases are of one data set, such as sports_users, and have a result of experiments/paper.py. Their original is trained once more, and
shards that are in service before a request are trained once for all cases: on Sports, SISA and RecEraser take hours. Work goes on where
it was cut off (runs/paper_answers). The Golds of those results are not at hand, so divergences from them are left out.
"""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from paper import CASES, METHODS, REQUESTS, RESULTS, SEED

from recunlearn_jax import results
from recunlearn_jax.audit.base import Attempt, Subject
from recunlearn_jax.audit.case import make_case
from recunlearn_jax.audit.examine import examine
from recunlearn_jax.comparison import Part, row_of
from recunlearn_jax.config import PRESETS, config_to_dict
from recunlearn_jax.data import read_dataset
from recunlearn_jax.environment import commit
from recunlearn_jax.process import keep_freed_memory
from recunlearn_jax.recommender import set_up
from recunlearn_jax.requests import parse
from recunlearn_jax.settings import seed_after
from recunlearn_jax.train import train
from recunlearn_jax.unlearn import answer, prepare
from recunlearn_jax.unlearn.driver import find

RUNS = Path("runs/paper_answers")
CHECKS = ("utility", "forgetting")


def main() -> None:
    keep_freed_memory()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path, help="of the folders of the data sets")
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("cases", nargs="+", choices=list(CASES))
    words = parser.parse_args()
    (data,) = {CASES[case][0] for case in words.cases}
    dataset, config = read_dataset(words.folder / data), PRESETS["faithful"]
    method, settings = find(words.method, None)
    cases = {case: make_case(dataset, parse(REQUESTS[CASES[case][1]], SEED), config, None) for case in words.cases}
    setup = set_up(cases[words.cases[0]].dataset, config)
    original = train(setup, 0, run=RUNS / data / "original", on_epoch=lambda entry: print(entry, flush=True))
    attempt = Attempt(words.method, settings, seed_after(0, 1))
    work, before = RUNS / data / words.method, f"{words.method} original"
    memory = None
    for name, case in cases.items():
        kept = read_of(name, setup.dataset.checksum, config)
        if kept["settings"].get(words.method) == dataclasses.asdict(settings):
            continue
        if memory is None or method.in_place:  # a memory that is written in place serves one answer
            memory = prepare(original, words.method, seed=attempt.seed, work=work)
            print(f"{words.method}, prepared: {memory.seconds}", flush=True)
        model = answer(original, case.forget_set, words.method, seed=attempt.seed, memory=memory, work=work / name)
        parts = {words.method: Part(model, commit(), attempt, memory.seconds)}
        if method.own_model:
            parts[before] = Part(memory.original, commit())
        subjects = [Subject("original", original)] + [Subject(n, part.model, part.attempt) for n, part in parts.items()]
        figures = examine(case._replace(original=original), subjects, list(CHECKS))["figures"]
        print(name, figures, flush=True)
        results.write(RESULTS / f"paper_{name}.json", put_into(kept, parts, figures))


def read_of(name: str, checksum: str, config: Any) -> dict[str, Any]:
    """The result of a case, which must be of this data and these settings."""
    found = results.read(RESULTS / f"paper_{name}.json")
    assert (found["data_checksum"], found["config"]) == (checksum, config_to_dict(config)), name
    return found


def put_into(kept: dict[str, Any], parts: dict[str, Part], figures: dict[str, Any]) -> dict[str, Any]:
    """A result with some models anew, or before its Golds where they are further ones."""
    golds = {name: kept["models"][name] for name in kept["golds"]}
    models = {name: row for name, row in kept["models"].items() if name not in golds}
    seconds = sum(row["seconds"]["running"] for row in golds.values()) / len(golds)
    models |= {name: row_of(part, figures[name], seconds) for name, part in parts.items()}
    fresh = {
        "settings": {p.attempt.method: dataclasses.asdict(p.attempt.settings) for p in parts.values() if p.attempt},
        "verdicts": {name: {} for name in parts},
        "misses": {name: 0 for name in parts},
    }
    return kept | {key: kept[key] | value for key, value in fresh.items()} | {"models": models | golds}


if __name__ == "__main__":
    main()
