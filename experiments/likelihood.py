"""U-LiRA with 16 shadow models: can someone who knows how a method's answers look tell which pairs were learnt and forgotten? Tiktok.

    python experiments/likelihood.py TIKTOK_FOLDER [KIND ...]

KIND is users or pairs; 5 % of them, request seed 1, preset fast. Shadows forget by the method under attack; Golds are attacked with the
same shadows. Each kind goes on where it was cut off (runs/likelihood/KIND); one whose result is in experiments/results is skipped.
"""

import sys
from pathlib import Path

from originals import compared

from recunlearn_jax import results
from recunlearn_jax.config import PRESETS
from recunlearn_jax.data import read_dataset
from recunlearn_jax.process import keep_freed_memory
from recunlearn_jax.requests import parse

RESULTS = Path(__file__).parent / "results"
RUNS = Path("runs/likelihood")
METHODS = ("delta", "surgery", "finetune", "mmrecun")
GOLDS, SHADOWS, SEED = 5, 16, 1


def main(folder: Path, kinds: list[str]) -> None:
    keep_freed_memory()
    for kind in kinds or ["users", "pairs"]:
        result = RESULTS / f"likelihood_{kind}.json"
        if result.exists():
            continue
        found = compared(
            kind,
            RUNS / kind,
            RUNS / "shared",
            read_dataset(folder),
            parse([f"{kind}:5%"], SEED),
            PRESETS["fast"],
            methods=METHODS,
            golds={"independent": GOLDS, "coupled": 0},
            checks=["utility", "forgetting", "membership", "likelihood"],
            shadows=SHADOWS,
        )
        results.write(result, found)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
