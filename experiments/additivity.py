"""Is the effect of a removal the sum of the effects of its parts?

    python experiments/additivity.py TIKTOK_FOLDER

A request is dealt into parts of the same size at random; each part is answered by a coupled Gold of its own, and the sum of their effects
is held against the effect of the whole request. A method that gives every part an influence of its own and adds them up would reach this
progress and collateral if it knew every influence exactly. `delta` stands beside, on the same model.
Request seed 1, training seed 0; runs in runs/replay and runs/additivity go on where they were cut off, and rows are written as they come.
"""

import sys
from pathlib import Path

import numpy as np

from recunlearn_jax.audit.case import make_case
from recunlearn_jax.audit.effect import changed, decomposed, probes, values
from recunlearn_jax.config import PRESETS, config_to_dict
from recunlearn_jax.data import read_dataset
from recunlearn_jax.environment import environment
from recunlearn_jax.files import read_json, write_json
from recunlearn_jax.process import keep_freed_memory
from recunlearn_jax.requests import ForgetSet, Request, named, parse
from recunlearn_jax.train import fit
from recunlearn_jax.unlearn import answer

RESULT = Path(__file__).parent / "results" / "additivity_tiktok.json"
RUNS = Path("runs/additivity")
REQUESTS, PARTS, SEED = ("users:5%", "items:5%", "pairs:5%"), (2, 4, 16), 1


def dealt(dataset, forget_set: ForgetSet, parts: int) -> list[Request]:
    """A request in parts of the same size, at random."""
    rng = np.random.default_rng(5)
    whole = np.flatnonzero(forget_set.users), np.flatnonzero(forget_set.items), forget_set.pairs
    shares = (np.array_split(rng.permutation(ids), parts) for ids in whole)
    return [named(dataset, users, items, pairs, {}) for users, items, pairs in zip(*shares, strict=True)]


def main(folder: Path) -> None:
    keep_freed_memory()
    dataset, config = read_dataset(folder), PRESETS["faithful"]
    original = fit(dataset, config, run=Path("runs/replay/original"))
    made = {"config": config_to_dict(config), "data_checksum": dataset.checksum, "environment": environment()}
    rows = read_json(RESULT)["rows"] if RESULT.exists() else {}
    for word in REQUESTS:
        case, kind = make_case(original.dataset, parse([word], SEED), config), word.partition(":")[0]
        found = probes(case)
        before = values(original, found)

        def effect(request: ForgetSet | Request, name: str, found=found, before=before) -> dict[str, np.ndarray]:
            return changed(values(answer(original, request, "coupled", work=RUNS / name), found), before)

        whole, row = effect(case.forget_set, kind), rows.setdefault(word, {})
        for parts in (n for n in PARTS if str(n) not in row):
            asked = dealt(original.dataset, case.forget_set, parts)
            of_parts = [effect(request, f"{kind}-{parts}-{i}") for i, request in enumerate(asked)]
            added = {probe: np.sum([part[probe] for part in of_parts], axis=0) for probe in whole}
            row[str(parts)] = decomposed(added, whole)
            write_json(RESULT, {**made, "epochs": original.info["best_epoch"], "rows": rows})
        delta = values(answer(original, case.forget_set, "delta", seed=SEED), found)
        row["delta"] = decomposed(changed(delta, before), whole)
        write_json(RESULT, {**made, "epochs": original.info["best_epoch"], "rows": rows})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
