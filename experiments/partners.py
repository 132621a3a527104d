"""How far would `delta` get if it knew the rows of the other side as retraining leaves them?

    python experiments/partners.py DATA_FOLDER [CASE ...]

Goes on from experiments/forgetting.py (runs/forgetting/CASE, original and first coupled Gold). A row that has lost a pair is
computed by delta's equation, without turn and size, from its partners' rows: as they were before the request, as delta's answer has
them, and as the coupled Gold has them. The figure is R^2, the share of the row's change from original to coupled Gold that is met. Cases
are written as they come.
"""

import sys
from pathlib import Path

import numpy as np
from forgetting import CASES, PLANTED, RUNS, dataset_of

from recunlearn_jax import runs
from recunlearn_jax.audit import make_case
from recunlearn_jax.config import PRESETS, config_to_dict
from recunlearn_jax.environment import environment
from recunlearn_jax.files import read_json, write_json
from recunlearn_jax.recommender import Recommender, set_up
from recunlearn_jax.requests import ForgetSet, parse
from recunlearn_jax.sides import KINDS, OTHER
from recunlearn_jax.unlearn import prepare
from recunlearn_jax.unlearn.delta import Settings, followed
from recunlearn_jax.unlearn.neighbourhood import phi

RESULT = Path(__file__).parent / "results" / "partners.json"


def met(original: Recommender, coupled: Recommender, answered: Recommender, forget_set: ForgetSet) -> dict[str, float]:
    """R^2 of users and of items, from the rows of three models."""
    record, settings, old = prepare(original, "delta").record, Settings(), original.setup.sides
    new = old.without(original.dataset.train, forget_set.places)
    assert new.lost is not None
    table = {kind: name for name, kind in original.backbone.id_tables().items()}
    across = {"users": settings.shed_users, "items": settings.shed_items}
    found = {}
    for kind in KINDS:
        rows = new.lost[kind][new.degree[kind][new.lost[kind]] > 0]
        if not len(rows):
            continue
        own, share = record.tables[kind][rows], 1 - new.degree[kind][rows] / old.degree[kind][rows]
        strength = settings.follow * record.strengths[kind]
        before = phi(old.of(kind, rows).near(record.tables[OTHER[kind]]))
        change = np.asarray(coupled.params[table[kind]])[rows] - own
        for name, model in (("original", original), ("delta", answered), ("coupled Gold", coupled)):
            after = phi(new.of(kind, rows).near(np.asarray(model.params[table[OTHER[kind]]])))
            moved = followed(own, before, after, record.weights[kind], strength, share[:, None], across[kind])
            missed = moved - own - change
            found[f"{kind} from {name}"] = float(1 - np.square(missed).sum() / np.square(change).sum())
    return found


def main(folder: Path, cases: list[str]) -> None:
    config = PRESETS["faithful"]
    rows = read_json(RESULT)["rows"] if RESULT.exists() else {}
    for name in cases:
        asked = CASES[name]
        dataset = dataset_of(folder, asked.data)
        case = make_case(dataset, parse(list(asked.words), asked.seed), config, PLANTED if asked.planted else None)
        setup = set_up(case.dataset, config)
        known = (setup, set_up(case.retain, config, setup.sizes))
        parts = RUNS / name / "parts"
        original, coupled, answered = (runs.load(parts / part, known) for part in ("original", "coupled-1", "delta"))
        rows[name] = met(original, coupled, answered, case.forget_set)
        print(name, rows[name], flush=True)
        write_json(RESULT, {"config": config_to_dict(config), "environment": environment(), "rows": rows})


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or list(CASES))
