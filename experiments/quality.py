"""Does training reach the reference's quality? Seeds 0, 1, 2 with several settings, one result file a case.

    python experiments/quality.py DATA_FOLDERS_PARENT [CASE ...]

DATA_FOLDERS_PARENT holds the MMRec folders tiktok and baby. What is already in experiments/results is skipped, and a training run that was
cut off is resumed from runs/quality, so the same command goes on where it stopped. The cases of a precision that this device lacks are
emulated by experiments/precision.py.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any

from recunlearn_jax.backbones.mgcn import Settings
from recunlearn_jax.config import PRESETS, Config, TrainConfig, config_to_dict
from recunlearn_jax.data import read_dataset
from recunlearn_jax.environment import environment
from recunlearn_jax.evaluate import held_out_task, report
from recunlearn_jax.files import read_json, write_json
from recunlearn_jax.results import SCHEMA_VERSION
from recunlearn_jax.train import fit

RESULTS = Path(__file__).parent / "results"
FROZEN = Config(model=Settings(trainable_features=False))
TENSORFLOAT32, BFLOAT16 = (Config(train=TrainConfig(precision=name)) for name in ("tensorfloat32", "bfloat16"))
CONSTANT_RATE = TrainConfig(decay=1.0)  # as MMRec trains VBPR and FREEDOM
# case: data set, settings
CASES = {
    "tiktok": ("tiktok", PRESETS["faithful"]),
    "tiktok_frozen": ("tiktok", FROZEN),
    "tiktok_fast": ("tiktok", PRESETS["fast"]),
    "tiktok_tensorfloat32": ("tiktok", TENSORFLOAT32),
    "tiktok_bfloat16": ("tiktok", BFLOAT16),
    "tiktok_vbpr": ("tiktok", Config("vbpr", train=CONSTANT_RATE)),
    "tiktok_freedom": ("tiktok", Config("freedom", train=CONSTANT_RATE)),
    "baby": ("baby", PRESETS["faithful"]),
    "baby_lightgcn": ("baby", Config("lightgcn")),
}
SEEDS = (0, 1, 2)


def main(parent: Path, cases: list[str]) -> None:
    for case in cases:
        folder, config = CASES[case]
        path = RESULTS / f"quality_{case}.json"
        done: dict[str, Any] = read_json(path) if path.exists() else {"schema_version": SCHEMA_VERSION, "runs": []}
        dataset = read_dataset(parent / folder)
        for seed in SEEDS:
            if any(run["seed"] == seed for run in done["runs"]):
                continue
            trained = fit(dataset, config, seed=seed, run=Path("runs/quality") / f"{case}-{seed}")
            tasks = {split: held_out_task(trained.dataset, split) for split in ("valid", "test")}
            done["runs"].append(
                {
                    "seed": seed,
                    "metrics": report(trained.rows, tasks, (10, 20)),
                    "best_epoch": trained.best["epoch"],
                    "epochs": len(trained.history),
                    "seconds": dataclasses.asdict(trained.seconds),
                }
            )
            done |= {
                "data": dataset.name,
                "data_checksum": dataset.checksum,
                "summary": dataset.summary(),
                "config": config_to_dict(config),
            }
            write_json(path, done | {"environment": environment()})
            print(case, seed, done["runs"][-1], flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or list(CASES))
