"""Twenty successive requests of 0.25 % of the users each: drift against a coupled Gold of the whole, beside one request for all.

    python experiments/sequence.py TIKTOK_FOLDER

Goes on from the models of experiments/forgetting.py for tiktok_users_5_seed1, and trains those that are missing; the planted canary users
leave with the requests, too.
"""

import sys
from pathlib import Path

from forgetting import PLANTED, RUNS

from recunlearn_jax import runs
from recunlearn_jax.audit.base import Attempt, Replay, Subject
from recunlearn_jax.audit.case import make_case
from recunlearn_jax.audit.checks import CHECKS
from recunlearn_jax.audit.sequence import answer_in_turn, in_parts
from recunlearn_jax.comparison import PARTS, compare
from recunlearn_jax.config import PRESETS, config_to_dict
from recunlearn_jax.data import read_dataset
from recunlearn_jax.environment import environment
from recunlearn_jax.files import write_json
from recunlearn_jax.process import keep_freed_memory
from recunlearn_jax.recommender import set_up
from recunlearn_jax.requests import parse
from recunlearn_jax.unlearn import answer
from recunlearn_jax.unlearn.driver import find

RESULT = Path(__file__).parent / "results" / "sequence_tiktok.json"
METHODS = ("delta", "surgery", "finetune", "mmrecun")
REQUESTS = 20


def main(folder: Path) -> None:
    keep_freed_memory()
    parts, config = RUNS / "tiktok_users_5_seed1" / PARTS, PRESETS["faithful"]
    dataset, request = read_dataset(folder), parse(["users:5%"], 1)
    least = {"independent": 1, "coupled": 1}
    compare(dataset, request, config, methods=[], golds=least, plant=PLANTED, checks=["utility"], out=parts.parent)
    case = make_case(dataset, request, config, PLANTED)
    setup = set_up(case.dataset, config)
    known = (setup, set_up(case.retain, config, setup.sizes))
    original, gold = (runs.load(parts / name, known) for name in ("original", "coupled-1"))
    case = case._replace(original=original, replays={"coupled-1": Replay(original, gold)})
    measures = [CHECKS[name].prepare(case) for name in ("utility", "forgetting", "effect", "canary", "relearn")]
    requests = in_parts(case.forget_set, case.dataset, REQUESTS)
    found = {}
    for method in METHODS:
        settings = find(method, None)[1]
        turns = answer_in_turn(original, requests, method, settings)
        models = {"one request": answer(original, case.forget_set, method, seed=1), f"{REQUESTS} requests": turns}
        for name, model in models.items():
            subject = Subject(method, model, Attempt(method, settings, 1))
            row = {figure: value for measure in measures for figure, value in measure(subject).items()}
            found[f"{method}, {name}"] = {"figures": row}
            print(
                method,
                name,
                {k: round(v, 4) for k, v in row.items() if "similarities" in k or "canary" in k},
                flush=True,
            )
    counts = [len(part.users) for part in requests]
    about = {"config": config_to_dict(config), "environment": environment(), "requests": REQUESTS, "users": counts}
    write_json(RESULT, {**about, "models": found})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
