"""Requests on tiktok, answered by every method and compared with two or three Gold models: the tables of the README.

    python experiments/requests.py TIKTOK_FOLDER [CASE ...]

The settings of mmrecun were chosen on request seed 0; everything here has request seed 1 or 2. Each case goes on where it was cut off
(runs/requests/CASE), and a case whose result is in experiments/results is skipped.
"""

import shutil
import sys
from pathlib import Path

from recunlearn_jax import report, results
from recunlearn_jax.comparison import PARTS, compare
from recunlearn_jax.config import PRESETS
from recunlearn_jax.data import read_dataset
from recunlearn_jax.requests import parse

RESULTS = Path(__file__).parent / "results"
RUNS = Path("runs/requests")
# case: request, request seed, canary pairs, Gold models
CASES = {
    "users_seed1": ("users:5%", 1, 0, 3),
    "pairs_seed1": ("pairs:5%", 1, 0, 3),
    "users_canaries_seed1": ("users:5%", 1, 20, 3),
    "items_seed1": ("items:5%", 1, 0, 3),
    "users_seed2": ("users:5%", 2, 0, 2),
    "pairs_seed2": ("pairs:5%", 2, 0, 2),
    "modality_audio_seed1": ("modality:audio", 1, 0, 2),
}


def main(folder: Path, cases: list[str]) -> None:
    dataset = read_dataset(folder)
    for case in cases:
        result = RESULTS / f"{dataset.name}_{case}.json"
        if result.exists():
            continue
        request, seed, canaries, golds = CASES[case]
        out = RUNS / case
        shared = RUNS / "original"  # the same data and training seed in all cases without canaries
        if not canaries and shared.exists() and not (out / PARTS / "original").exists():
            shutil.copytree(shared, out / PARTS / "original")
        found = compare(
            dataset,
            parse([request], seed),
            PRESETS["faithful"],
            plant={"canary": canaries},
            golds=golds,
            out=out,
            tell=lambda line, case=case: print(case, line, flush=True),
        )
        if not canaries and not shared.exists():
            # Its figures are those of one request.
            shutil.copytree(out / PARTS / "original", shared, ignore=shutil.ignore_patterns("figures"))
        results.write(result, found)
        report.plots(found, RESULTS / f"{dataset.name}_{case}")
        print(report.markdown(found), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or list(CASES))
