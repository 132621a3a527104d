"""Does how long the original trained change what `delta` does?

    python experiments/training_length.py TIKTOK_FOLDER

The same training, ended after each of some numbers of epochs; each original has its coupled Gold, and answers pairs:5% with 20 canary
pairs planted. Request seed 0 and training seed 10, with which nothing else is reported. Rows are written as they come.
"""

import sys
from pathlib import Path

from originals import unscaled

from recunlearn_jax.audit import examine, make_case
from recunlearn_jax.audit.base import Replay, Subject
from recunlearn_jax.config import PRESETS, config_to_dict
from recunlearn_jax.data import read_dataset
from recunlearn_jax.environment import environment
from recunlearn_jax.files import read_json, write_json
from recunlearn_jax.process import keep_freed_memory
from recunlearn_jax.recommender import set_up
from recunlearn_jax.requests import parse
from recunlearn_jax.train import train
from recunlearn_jax.unlearn import answer, prepare

RESULT = Path(__file__).parent / "results" / "training_length_tiktok.json"
EPOCHS, SEED = (12, 25, 50), 10
CHECKS = ["utility", "forgetting", "membership", "canary", "effect"]
# One setting away from the defaults each.
AWAY = (
    ("follow", 0.8),
    ("follow", 1.2),
    ("turn_users", 0.0),
    ("turn_users", 0.6),
    ("turn_items", 0.0),
    ("turn_items", 0.4),
    ("shed_users", 0.5),
    ("shed_items", 0.0),
    ("shed_items", 1.0),
    ("resize", 0.0),
)
SETTINGS = {"delta": {}, **{f"delta, {setting} {value:g}": {setting: value} for setting, value in AWAY}}
UNSCALED = "delta, lambda 1"


def main(folder: Path) -> None:
    keep_freed_memory()
    config = PRESETS["faithful"]
    case = make_case(read_dataset(folder), parse(["pairs:5%"], 0), config, {"canary": 20})
    setup = set_up(case.dataset, config)
    made = {"config": config_to_dict(config), "data_checksum": case.dataset.checksum, "environment": environment()}
    found = read_json(RESULT) if RESULT.exists() else {"rows": {}, "strengths": {}}
    rows, strengths = found["rows"], found["strengths"]
    for epochs in (n for n in EPOCHS if str(n) not in rows):
        original = train(setup, SEED, epochs=epochs)
        coupled = answer(original, case.forget_set, "coupled")
        models = {"original": original, "coupled Gold": coupled}
        models |= {name: answer(original, case.forget_set, "delta", settings) for name, settings in SETTINGS.items()}
        memory = prepare(original, "delta")
        models[UNSCALED] = answer(original, case.forget_set, "delta", memory=unscaled(memory))
        subjects = [Subject(name, model) for name, model in models.items()]
        judged = case._replace(original=original, replays={"coupled-1": Replay(original, coupled)})
        rows[str(epochs)] = examine(judged, subjects, CHECKS)["figures"]
        strengths[str(epochs)] = memory.record.strengths
        write_json(RESULT, {**made, "rows": rows, "strengths": strengths})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
