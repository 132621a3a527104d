"""What a replay of the original's training differs by: nothing removed, one pair, sixty, a twentieth; beside a model of another seed.

    python experiments/replay.py TIKTOK_FOLDER

And how much of the effect of a removal the last epochs make: training goes on without the forgotten pairs from r epochs before its end. A
method that knew all of training's state then, and repeated these epochs exactly, would reach the progress and collateral given.
Request seed 1, training seed 0; runs in runs/replay go on where they were cut off.
"""

import sys
from pathlib import Path

import jax
import numpy as np

from recunlearn_jax.audit.case import make_case
from recunlearn_jax.audit.effect import changed, decomposed, probes, values
from recunlearn_jax.audit.lists import top_lists
from recunlearn_jax.audit.overlap import overlap
from recunlearn_jax.config import PRESETS, config_to_dict
from recunlearn_jax.data import read_dataset
from recunlearn_jax.environment import environment
from recunlearn_jax.evaluate import pair_scores
from recunlearn_jax.files import write_json
from recunlearn_jax.losses import bpr_divergence_jit
from recunlearn_jax.process import keep_freed_memory
from recunlearn_jax.recommender import Recommender, set_up
from recunlearn_jax.requests import Request, parse
from recunlearn_jax.sampling import replayed
from recunlearn_jax.train import fit, train
from recunlearn_jax.unlearn import answer

RESULT = Path(__file__).parent / "results" / "replay_tiktok.json"
RUNS = Path("runs/replay")


def apart(model: Recommender, other: Recommender) -> dict[str, float]:
    """How far two models are from one another, on users and pairs that the first one retains."""
    data = model.dataset
    users = np.unique(data.train[:, 0])
    lists = [top_lists(m.rows, data, users) for m in (model, other)]
    nodes = data.train + np.array([0, data.num_users])
    divergence = bpr_divergence_jit(pair_scores(model.rows, nodes), pair_scores(other.rows, nodes))
    return {"overlap@20": overlap(*lists), "BPR divergence retain": float(divergence)}


def after_the_last_epochs(original: Recommender, request: Request, epochs: int) -> dict[str, dict[str, float]]:
    """Progress and collateral of training that leaves the forgotten pairs out from some epoch on, number of epochs -> figures."""
    case = make_case(original.dataset, request, original.config)
    setup = set_up(case.retain, original.config, original.sizes)
    sampler = replayed(setup.data.sampler, ~case.forget_set.forget)
    without = setup.with_sampler(sampler)
    found = probes(case)
    before = values(original, found)
    whole = values(train(without, 0, epochs=epochs, run=RUNS / "late-all"), found)
    rows = {}
    for last in (1, 5, epochs // 4, epochs // 2, 3 * epochs // 4):
        run = RUNS / f"late-{last}"
        train(original.setup, 0, epochs=epochs - last, run=run)
        model = train(without, 0, epochs=epochs, run=run)  # goes on from that epoch, with its optimizer
        rows[str(last)] = decomposed(changed(values(model, found), before), changed(whole, before))
    return rows


def main(folder: Path) -> None:
    keep_freed_memory()
    dataset, config = read_dataset(folder), PRESETS["faithful"]
    original = fit(dataset, config, run=RUNS / "original")
    setup, epochs = original.setup, original.info["best_epoch"]
    sampler = replayed(setup.data.sampler, np.ones(len(dataset.train), bool))
    same = train(setup.with_sampler(sampler), 0, epochs=epochs, run=RUNS / "same")
    equal = all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(original.params), jax.tree.leaves(same.params), strict=True)
    )
    rows = {"nothing": apart(same, original) | {"pairs": 0, "bits equal": equal}}
    rng = np.random.default_rng(1)
    for count in (1, 60):
        pairs = dataset.train[rng.choice(len(dataset.train), count, replace=False)]
        words = ["pairs:" + ",".join(f"{u}-{i}" for u, i in pairs.tolist())]
        rows[f"{count} pairs"] = apart(answer(original, words, "coupled", work=RUNS / f"{count}"), original) | {
            "pairs": count
        }
    for word in ("users:5%", "pairs:5%"):
        request = parse([word], 1)
        replay = answer(original, request, "coupled", work=RUNS / word.replace(":", "_").replace("%", ""))
        rows[word] = apart(replay, original) | {"pairs": len(dataset.train) - len(replay.dataset.train)}
    another = fit(dataset, config, seed=1, run=RUNS / "another", sizes=original.sizes)
    rows["another seed"] = apart(another, original) | {"pairs": 0}
    late = after_the_last_epochs(original, parse(["users:5%"], 1), epochs)
    found = {"config": config_to_dict(config), "data_checksum": dataset.checksum, "environment": environment()}
    write_json(RESULT, {**found, "epochs": epochs, "rows": rows, "last epochs": late})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
