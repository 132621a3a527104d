"""How much forgetting against how much retaining: alpha of mmrecun from 0 to 1, and the share that delta's rows follow, on tiktok.

    python experiments/alpha.py TIKTOK_FOLDER

Goes on from the models of experiments/forgetting.py for users:5% and pairs:5%, request seed 1. In MMRecUN's objective alpha weighs what is
retained and 1 - alpha what is forgotten; the paper leaves its choice open. delta trains nothing, and its counterpart is `follow`, the share
of the predicted change that rows move.
"""

import sys
from pathlib import Path
from typing import Any

from forgetting import PLANTED, RUNS

from recunlearn_jax import runs
from recunlearn_jax.audit.base import Attempt, Replay, Subject
from recunlearn_jax.audit.case import make_case
from recunlearn_jax.audit.checks import CHECKS
from recunlearn_jax.config import PRESETS, config_to_dict
from recunlearn_jax.data import read_dataset
from recunlearn_jax.environment import environment
from recunlearn_jax.files import read_json, write_json
from recunlearn_jax.process import keep_freed_memory
from recunlearn_jax.recommender import set_up
from recunlearn_jax.requests import parse
from recunlearn_jax.unlearn import answer
from recunlearn_jax.unlearn.driver import find

RESULT = Path(__file__).parent / "results" / "alpha_tiktok.json"
VALUES = tuple(i / 8 for i in range(9))
SWEPT = (("mmrecun", "alpha"), ("delta", "follow"))
CASES = {"users:5%": "tiktok_users_5_seed1", "pairs:5%": "tiktok_pairs_5_seed1"}


def main(folder: Path) -> None:
    keep_freed_memory()
    config, found = PRESETS["faithful"], {}
    for words, name in CASES.items():
        parts = RUNS / name / "parts"
        case = make_case(read_dataset(folder), parse([words], 1), config, PLANTED)
        setup = set_up(case.dataset, config)
        known = (setup, set_up(case.retain, config, setup.sizes))
        original, gold = (runs.load(parts / part, known) for part in ("original", "coupled-1"))
        case = case._replace(original=original, replays={"coupled-1": Replay(original, gold)})
        measures = [CHECKS[check].prepare(case) for check in ("utility", "forgetting", "effect", "canary")]
        found[words] = {}
        for method, setting in SWEPT:
            for value in VALUES:
                settings = find(method, {setting: value})[1]
                model = answer(original, case.forget_set, method, settings, seed=1)
                subject = Subject(method, model, Attempt(method, settings, 1))
                figures = {figure: x for measure in measures for figure, x in measure(subject).items()}
                row = {"figures": figures, "seconds": model.seconds.running, "steps": model.info.get("steps")}
                found[words][f"{method} {setting} {value:g}"] = row
                print(words, method, value, round(figures["forget recall@20"], 4), flush=True)
                about = {"config": config_to_dict(config), "environment": environment(), "values": list(VALUES)}
                write_json(RESULT, {**about, "models": found})


def draw(found: dict[str, Any], path: Path) -> None:
    """Curves over the swept value, a column a request: the effect above, ranking quality below."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, len(found["models"]), figsize=(9, 6), sharex=True, sharey="row")
    for column, (words, models) in enumerate(found["models"].items()):
        for colour, (method, setting) in zip(("tab:red", "tab:blue"), SWEPT, strict=True):
            rows = [models[f"{method} {setting} {value:g}"]["figures"] for value in found["values"]]
            lines = (
                (0, "progress similarities", "-", "progress"),
                (0, "collateral similarities", ":", "collateral"),
                (1, "valid recall@20", "-", "valid Recall@20"),
                (1, "forget recall@20", ":", "forget Recall@20"),
            )
            for line, name, style, label in lines:
                values = [row[name] for row in rows]
                said = f"{label}, {method}"
                axes[line, column].plot(found["values"], values, style, color=colour, marker=".", label=said)
        axes[0, column].set_title(f"tiktok, {words}", fontsize=10)
        axes[1, column].set_xlabel("alpha of mmrecun, follow of delta")
    axes[0, 0].axhline(1, color="grey", linewidth=0.5)
    for line in (0, 1):
        axes[line, -1].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    draw(read_json(RESULT), RESULT.with_suffix(".png"))
