"""What each part of delta and of mmrecun does, and each setting of the other methods, on tiktok: pairs:5%, and users:5% with 20 canaries;
request seed 0.

    python experiments/ablation.py TIKTOK_FOLDER [CASE ...]

The defaults were chosen on this request seed; experiments/forgetting.py reports on others. The original, an independent Gold and
the coupled one are kept under runs/ablation; each variation is written as it comes, and those in experiments/results are skipped.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any

from originals import unscaled

from recunlearn_jax import results, runs
from recunlearn_jax.audit import examine, make_case
from recunlearn_jax.audit.base import Replay, Subject
from recunlearn_jax.audit.examine import usual_checks
from recunlearn_jax.comparison import PARTS, compare
from recunlearn_jax.config import PRESETS, config_to_dict
from recunlearn_jax.data import read_dataset
from recunlearn_jax.environment import environment
from recunlearn_jax.requests import parse
from recunlearn_jax.stopwatch import Seconds
from recunlearn_jax.unlearn import answer, prepare

RESULTS = Path(__file__).parent / "results"
RUNS = Path("runs/ablation")
COUPLED = "coupled Gold"
WHOLE_MODEL = "delta, gradient through the whole model"  # by autodiff on all of the edited data, in place of layers that are known
UNSCALED = "delta, rows follow all that the regressions say (lambda 1)"
# variation: method, and those of its settings that differ from the defaults
Variations = dict[str, tuple[str, dict[str, Any]]]
PARTS_OF_METHODS: Variations = {
    "surgery": ("surgery", {}),
    "delta": ("delta", {}),
    WHOLE_MODEL: ("delta", {}),
    UNSCALED: ("delta", {}),
    "delta, no row turns (turn_users 0, turn_items 0)": ("delta", {"turn_users": 0.0, "turn_items": 0.0}),
    "delta, items do not turn (turn_items 0)": ("delta", {"turn_items": 0.0}),
    "delta, rows do not follow (follow 0)": ("delta", {"follow": 0.0}),
    "delta, the rest goes only along the change (shed_users 0, shed_items 0)": (
        "delta",
        {"shed_users": 0.0, "shed_items": 0.0},
    ),
    "delta, the rest of items goes as that of users (shed_items 1)": ("delta", {"shed_items": 1.0}),
    "delta, sizes as the other parts give them (resize 0)": ("delta", {"resize": 0.0}),
    "delta, every user near a forgotten pair moves (least 0)": ("delta", {"least": 0.0}),
    "mmrecun": ("mmrecun", {}),
    "mmrecun, no forget terms (alpha 1)": ("mmrecun", {"alpha": 1.0}),
    "mmrecun, ascent instead of swap": ("mmrecun", {"reverse": "ascent"}),
    "mmrecun, no negated contrast": ("mmrecun", {"forget_contrast": 0.0}),
}
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
    "pairs": ("pairs:5%", 0, "pairs", PARTS_OF_METHODS),
    "users_canaries": ("users:5%", 20, "users_canaries", PARTS_OF_METHODS),
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
        compare(dataset, request, config, methods=[], golds={"independent": 1, "coupled": 1}, plant=plant, out=out)
        original, gold, coupled = (runs.load(out / PARTS / part) for part in ("original", "gold-1", "coupled-1"))
        case = make_case(dataset, request, config, plant)._replace(
            original=original, golds={"Gold": gold}, replays={COUPLED: Replay(original, coupled)}
        )
        path = RESULTS / f"ablation_{name}.json"
        done: dict[str, Any] = results.read(path) if path.exists() else {"models": {}}
        done |= {
            "data": dataset.name,
            "data_checksum": dataset.checksum,
            "request": words,
            "request_seed": 0,
            "planted": plant,
            "config": config_to_dict(config),
            "environment": environment(),
            "golds": ["Gold"],
            "coupled": [COUPLED],
        }
        models = {"original": original, "Gold": gold, COUPLED: coupled}
        for variation in [*models, *variations]:
            method, settings = variations.get(variation, ("", {}))
            preparation = None
            if done["models"].get(variation, {}).get("settings") == settings:
                continue
            if variation in models:
                made = models[variation]
            else:
                model = original
                if variation == WHOLE_MODEL:
                    backbone = dataclasses.replace(original.backbone, id_layers=None)
                    model = dataclasses.replace(original, setup=dataclasses.replace(original.setup, backbone=backbone))
                memory = prepare(model, method, settings, seed=1)
                if variation == UNSCALED:
                    memory = unscaled(memory)
                made = answer(model, case.forget_set, method, settings, seed=1, memory=memory)
                preparation = told(memory.seconds) if memory.seconds else None
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
