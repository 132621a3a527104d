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

from recunlearn_jax import checkpoint
from recunlearn_jax.config import PRESETS, Config, ModelConfig, TrainConfig, to_dict
from recunlearn_jax.data import read_dataset
from recunlearn_jax.evaluate import held_out_task, report
from recunlearn_jax.train import embedding_of, fit

RESULTS = Path(__file__).parent / "results"
FROZEN = Config(model=ModelConfig(trainable_features=False))
TENSORFLOAT32, BFLOAT16 = (Config(train=TrainConfig(precision=name)) for name in ("tensorfloat32", "bfloat16"))
# case: data set, with its modalities, settings
CASES = {
    "tiktok": ("tiktok", True, PRESETS["faithful"]),
    "tiktok_frozen": ("tiktok", True, FROZEN),
    "tiktok_fast": ("tiktok", True, PRESETS["fast"]),
    "tiktok_tensorfloat32": ("tiktok", True, TENSORFLOAT32),
    "tiktok_bfloat16": ("tiktok", True, BFLOAT16),
    "baby": ("baby", True, PRESETS["faithful"]),
    "baby_lightgcn": ("baby", False, PRESETS["faithful"]),
}
SEEDS = (0, 1, 2)


def main(parent: Path, cases: list[str]) -> None:
    for case in cases:
        folder, modalities, config = CASES[case]
        path = RESULTS / f"quality_{case}.json"
        done: dict[str, Any] = checkpoint.read_json(path) if path.exists() else {"runs": []}
        dataset = read_dataset(parent / folder)
        if not modalities:
            dataset = dataset.replace(features={}, similarities={})
        for seed in SEEDS:
            if any(run["seed"] == seed for run in done["runs"]):
                continue
            trained = fit(dataset, config, seed=seed, run=Path("runs/quality") / f"{case}-{seed}")
            tasks = {split: held_out_task(trained.dataset, split) for split in ("valid", "test")}
            done["runs"].append(
                {
                    "seed": seed,
                    "metrics": report(embedding_of(trained), tasks, (10, 20)),
                    "best_epoch": trained.best["epoch"],
                    "epochs": len(trained.history),
                    "seconds": dataclasses.asdict(trained.seconds),
                }
            )
            done |= {
                "data": dataset.name,
                "data_checksum": dataset.checksum,
                "summary": dataset.summary(),
                "config": to_dict(config),
            }
            checkpoint.write_json(path, done | {"environment": checkpoint.environment()})
            print(case, seed, done["runs"][-1], flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or list(CASES))
