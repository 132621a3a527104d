"""What each part and setting of mmrecun and of the other methods does, on tiktok: pairs:5%, and users:5% with 20 canaries; request seed 0.

    python experiments/ablation.py TIKTOK_FOLDER [CASE ...]

The defaults were chosen on this; experiments/requests.py and audit.py report on other request seeds. The original and one Gold are kept
under runs/ablation; each variation is written as it comes, and those in experiments/results are skipped.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import jax

from recunlearn_jax import checkpoint
from recunlearn_jax.audit.case import make_case
from recunlearn_jax.audit.examine import similarities
from recunlearn_jax.comparison import PARTS, Part, measure, trained_in
from recunlearn_jax.config import PRESETS, Config, to_dict
from recunlearn_jax.data import read_dataset
from recunlearn_jax.requests import ForgetSet, parse
from recunlearn_jax.train import Trained, embed
from recunlearn_jax.unlearn import METHODS
from recunlearn_jax.unlearn.base import Unlearned

GRAPH_KEPT = "graph not edited (rows of the defaults on the original graph)"
RESULTS = Path(__file__).parent / "results"
RUNS = Path("runs/ablation")
# what is changed: settings of the config that differ from the defaults
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
# variation: method, and what is changed; keywords of the method where it is not mmrecun
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


def answer(method: str, changes: dict[str, Any], original: Trained, forget_set: ForgetSet, config: Config) -> Unlearned:
    """The answer of a variation."""
    if method == "mmrecun":
        config, changes = dataclasses.replace(config, unlearn=dataclasses.replace(config.unlearn, **changes)), {}
    return METHODS[method](jax.random.key(1), original, forget_set, config, **changes)


def main(folder: Path, cases: list[str]) -> None:
    dataset = read_dataset(folder)
    config = PRESETS["faithful"]
    for name in cases:
        words, canaries, place, variations = CASES[name]
        case = make_case(dataset, parse([words], 0), config, canaries)
        out = RUNS / place / PARTS
        original, original_part = trained_in(out / "original", case.dataset, config, 0, None, lambda entry: None)
        _, gold = trained_in(out / "gold-1", case.retain, config, 100, case.dataset, lambda entry: None)
        path = RESULTS / f"ablation_{name}.json"
        done: dict[str, Any] = checkpoint.read_json(path) if path.exists() else {"models": {}}
        done |= {
            "data": dataset.name,
            "data_checksum": dataset.checksum,
            "request": words,
            "request_seed": 0,
            "canaries": canaries,
            "config": to_dict(config),
            "environment": checkpoint.environment(),
        }
        models = {"original": original_part, "Gold": gold}
        correlation = similarities(case, original)
        for variation in [*models, *variations]:
            method, changes = variations.get(variation, ("", {}))
            known = done["models"].get(variation, {})
            if known.get("settings") == changes and "similarity_correlation" in known:
                continue
            if variation in models:
                part = models[variation]
            else:
                made = answer(method, changes, original, case.forget_set, config)
                graphs = original.data.graphs if variation == GRAPH_KEPT else made.data.graphs
                rows = embed(made.params, graphs, made.data.features, model=made.model)
                part = Part(rows, made.seconds, made.info, [])
            row = measure(case, {"gold-1": gold, variation: part})[variation]
            row["similarity_correlation"] = correlation(variation, part.subject).get("similarity correlation")
            row.get("canary", {}).pop("ranks", None)
            done["models"][variation] = row | {"settings": changes}
            checkpoint.write_json(path, done)
            print(name, variation, row["test"]["recall@20"], row["forget"]["recall@20"], row.get("canary"), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or list(CASES))
