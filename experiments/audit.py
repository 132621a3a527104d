"""The audit on tiktok: every method and every check, five Golds, request seeds 1 and 2; the tables of docs/evidence.md.

    python experiments/audit.py TIKTOK_FOLDER [CASE ...]

The settings of mmrecun were chosen on request seed 0; the other methods have the settings in their files. Each case goes on where it
was cut off (runs/audit/CASE), and a case whose result is in experiments/results is skipped.
"""

import sys
from pathlib import Path

from recunlearn_jax import report, results
from recunlearn_jax.audit import CHECKS
from recunlearn_jax.comparison import compare
from recunlearn_jax.config import PRESETS
from recunlearn_jax.data import read_dataset
from recunlearn_jax.process import keep_freed_memory
from recunlearn_jax.requests import parse

RESULTS = Path(__file__).parent / "results"
RUNS = Path("runs/audit")
METHODS = ("surgery", "finetune", "mmrecun", "ascent", "rrl", "scif", "amnesiac")
SHARDED = {"pairs_seed1": ("sisa", "receraser")}  # these train originals of their own: in one case only
GOLDS = 5
# case: request, request seed, canary pairs, shilling targets, shadow models
CASES = {
    "pairs_seed1": ("pairs:5%", 1, 0, 0, 16),
    "users_seed1": ("users:5%", 1, 20, 4, 0),
    "pairs_seed2": ("pairs:5%", 2, 0, 0, 0),
    "users_seed2": ("users:5%", 2, 20, 4, 0),
}


def main(folder: Path, cases: list[str]) -> None:
    keep_freed_memory()
    dataset = read_dataset(folder)
    for case in cases:
        result = RESULTS / f"audit_{dataset.name}_{case}.json"
        if result.exists():
            continue
        request, seed, canaries, shills, shadows = CASES[case]
        found = compare(
            dataset,
            parse([request], seed),
            PRESETS["faithful"],
            methods=METHODS + SHARDED.get(case, ()),
            golds=GOLDS,
            plant={"canary": canaries, "shilling": shills},
            checks=[check for check in CHECKS if shadows or check != "likelihood"],
            shadows=shadows,
            out=RUNS / case,
            tell=lambda line, case=case: print(case, line, flush=True),
        )
        results.write(result, found)
        report.audit_plot(found, RESULTS / f"audit_{dataset.name}_{case}.png")
        print(report.audit_markdown(found), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or list(CASES))
