"""What each part and setting of mmrecun and of the other methods does, on tiktok: pairs:5%, and users:5% with 20 canaries; request seed 0.

    python experiments/ablation.py TIKTOK_FOLDER [CASE ...]

The defaults were chosen on this; experiments/requests.py and audit.py report on other request seeds. The original and one Gold are kept
under runs/ablation; each variation is written as it comes, and those in experiments/results are skipped.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any

from recunlearn_jax import results, runs
from recunlearn_jax.audit import examine, make_case
from recunlearn_jax.audit.base import Subject
from recunlearn_jax.audit.examine import usual_checks
from recunlearn_jax.comparison import PARTS, compare
from recunlearn_jax.config import PRESETS, config_to_dict
from recunlearn_jax.data import read_dataset
from recunlearn_jax.environment import environment
from recunlearn_jax.requests import parse
from recunlearn_jax.stopwatch import Seconds
from recunlearn_jax.unlearn import answer, prepare

GRAPH_KEPT = "graph not edited (rows of the defaults on the original graph)"
RESULTS = Path(__file__).parent / "results"
RUNS = Path("runs/ablation")
# what is changed: settings of mmrecun that differ from the defaults
CHANGES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "touched rows keep their values": {"reset": "none"},
    "the same, alpha 0.5": {"reset": "none", "alpha": 0.5},
    "the same, alpha 0.5, all parameters move (learning rate 1e-3)": {
        "reset": "none",
        "alpha": 0.5,
        "scope": "all",
        "learning_rate": 1e-3,
        "touched_degree": 0,
    },
    "only forgotten users and items start anew": {"reset": "forgotten"},
    "no forget terms (alpha 1)": {"alpha": 1.0},
    "alpha 0.5": {"alpha": 0.5},
    "forget terms count to the end": {"forget_until": "end"},
    "ascent instead of swap": {"reverse": "ascent"},
    "forget terms on the edited graph": {"forget_graph": "edited"},
    "no negated contrast": {"forget_contrast": 0.0},
    "no L2": {"l2_weight": 0.0},
    "no retain terms (alpha 0)": {"alpha": 0.0},
    "touched degree 10": {"touched_degree": 10},
    "touched degree unlimited": {"touched_degree": 0},
    "60 steps": {"steps": 60},
    GRAPH_KEPT: {},
}
# variation: method, and those of its settings that differ from the defaults
Variations = dict[str, tuple[str, dict[str, Any]]]
MMRECUN: Variations = {name: ("mmrecun", changes) for name, changes in CHANGES.items()}
COMPETITORS: Variations = {
    **{f"ascent, {steps} steps": ("ascent", {"steps": steps}) for steps in (30, 60, 100, 200)},
    **{
        f"rrl, Fisher weight {weight:g}, {steps} steps": ("rrl", {"fisher_weight": weight, "steps": steps})
        for weight in (0.001, 0.01, 0.1)
        for steps in (60, 100, 300)
    },
    **{f"scif, damping {damping:g}": ("scif", {"damping": damping}) for damping in (1e-4, 1e-5, 5e-6, 3e-6, 1e-6)},
    "amnesiac": ("amnesiac", {}),
}
# case: request, canaries, where original and Gold are, variations
CASES = {
    "pairs": ("pairs:5%", 0, "pairs", MMRECUN),
    "users_canaries": ("users:5%", 20, "users_canaries", MMRECUN),
    "competitors": ("pairs:5%", 0, "pairs", COMPETITORS),
}


def told(seconds: Seconds) -> dict[str, float]:
    """As results have it."""
    return dataclasses.asdict(seconds) | {"running": seconds.running}


def main(folder: Path, cases: list[str]) -> None:
    dataset = read_dataset(folder)
    config = PRESETS["faithful"]
    for name in cases:
        words, canaries, place, variations = CASES[name]
        request, plant, out = parse([words], 0), {"canary": canaries} if canaries else {}, RUNS / place
        compare(dataset, request, config, methods=[], golds=1, plant=plant, out=out)
        original, gold = (runs.load(out / PARTS / part) for part in ("original", "gold-1"))
        case = make_case(dataset, request, config, plant)._replace(original=original, golds={"Gold": gold})
        path = RESULTS / f"ablation_{name}.json"
        done: dict[str, Any] = results.read(path) if path.exists() else {"models": {}, "golds": ["Gold"]}
        done |= {
            "data": dataset.name,
            "data_checksum": dataset.checksum,
            "request": words,
            "request_seed": 0,
            "planted": plant,
            "config": config_to_dict(config),
            "environment": environment(),
        }
        models = {"original": original, "Gold": gold}
        for variation in [*models, *variations]:
            method, settings = variations.get(variation, ("", {}))
            preparation = None
            if done["models"].get(variation, {}).get("settings") == settings:
                continue
            if variation in models:
                made = models[variation]
            else:
                memory = prepare(original, method, settings, seed=1)
                made = answer(original, case.forget_set, method, settings, seed=1, memory=memory)
                preparation = told(memory.seconds) if memory.seconds and memory.original is not original else None
            if variation == GRAPH_KEPT:
                made = dataclasses.replace(made, data=made.data._replace(graphs=original.data.graphs))
            subjects = [] if variation == "Gold" else [Subject(variation, made)]
            row = examine(case, subjects, [*usual_checks(), "cooccurrence"])["figures"][variation]
            done["models"][variation] = {
                "figures": row,
                "seconds": told(made.seconds),
                "preparation": preparation,
                "speed_up": gold.seconds.running / max(made.seconds.running, 1e-9),
                "info": {key: value for key, value in made.info.items() if key != "curve"},
                "settings": settings,
            }
            results.write(path, done)
            print(
                name,
                variation,
                row["test recall@20"],
                row["forget recall@20"],
                row.get("canary median rank"),
                flush=True,
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or list(CASES))
