"""The paper's three experiments with every method: 5 % of the users, of the items, of both, on tiktok, Baby and Sports.

    python experiments/paper.py DATA_FOLDER [CASE ...] [--methods delta surgery ...]

DATA_FOLDER holds the folders of the data sets; a case is named such as baby_items. Request seed 1, which no setting was chosen on;
ranking metrics of what is retained and of what is forgotten, and one independent Gold a case (three on tiktok), since audits with more
Golds are in experiments/forgetting.py. Each case goes on where it was cut off (runs/paper/CASE); one whose result is in
experiments/results is skipped. The cases of a data set share their original.
"""

import argparse
from pathlib import Path

from originals import compared

from recunlearn_jax import results
from recunlearn_jax.config import PRESETS
from recunlearn_jax.data import read_dataset
from recunlearn_jax.process import keep_freed_memory
from recunlearn_jax.requests import parse

RESULTS = Path(__file__).parent / "results"
RUNS = Path("runs/paper")
GOLDS = {"tiktok": 3, "baby": 1, "sports": 1}
REQUESTS = {"users": ["users:5%"], "items": ["items:5%"], "both": ["users:5%", "items:5%"]}
METHODS = ("delta", "surgery", "finetune", "mmrecun", "ascent", "rrl", "scif", "amnesiac", "sisa", "receraser")
SEED = 1
CASES = {f"{data}_{kind}": (data, kind) for data in GOLDS for kind in REQUESTS}


def main() -> None:
    keep_freed_memory()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path, help="of the folders of the data sets")
    parser.add_argument("cases", nargs="*", default=list(CASES))
    parser.add_argument("--methods", nargs="+", default=METHODS, help="paper_answers.py adds those that take hours")
    words = parser.parse_args()
    for case in words.cases:
        result = RESULTS / f"paper_{case}.json"
        if result.exists():
            continue
        data, kind = CASES[case]
        out, shared = RUNS / case, RUNS / f"shared_{data}"
        found = compared(
            case,
            out,
            shared,
            read_dataset(words.folder / data),
            parse(REQUESTS[kind], SEED),
            PRESETS["faithful"],
            methods=words.methods,
            golds={"independent": GOLDS[data], "coupled": 0},
            checks=["utility", "forgetting", "divergence"],
        )
        results.write(result, found)


if __name__ == "__main__":
    main()
