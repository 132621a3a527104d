"""What forgetting depends on: which modalities the model has, how active those are who leave, and the backbone. Tiktok, request seed 1.

    python experiments/variations.py TIKTOK_FOLDER [GROUP ...]

    modalities   image and audio, each alone, none: users:5% and items:5%
    activity     drawn at random, the most active, the least active users, and pairs of such: 1, 5 and 10 % of them
    backbones    MGCN, LightGCN, VBPR, FREEDOM, MF: users:5% and pairs:5%

Preset fast, and one independent Gold a case: differences of a few thousandths of Recall say nothing. Each case
goes on where it was cut off (runs/variations/CASE); results are written as they come, and those that are there are skipped.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from originals import compared

from recunlearn_jax import results
from recunlearn_jax.config import PRESETS, Config, with_backbone
from recunlearn_jax.data import read_dataset
from recunlearn_jax.dataset import Dataset
from recunlearn_jax.process import keep_freed_memory
from recunlearn_jax.requests import Request, parse

RESULTS = Path(__file__).parent / "results"
RUNS = Path("runs/variations")
METHODS = ("delta", "surgery", "mmrecun")
BACKBONES = ("mgcn", "lightgcn", "vbpr", "freedom", "mf")
SHARES = (1, 5, 10)
SEED = 1
BOTH = "modalities_image_and_audio"


class Asked(NamedTuple):
    """One case: its name, the data, the request, and who may share its original."""

    group: str
    name: str
    data: Dataset
    request: Request
    config: Config
    original: str


def cases(dataset: Dataset) -> Iterator[Asked]:
    """All of them."""
    fast = PRESETS["fast"]
    for chosen in (("image", "audio"), ("image",), ("audio",), ()):
        name = "_and_".join(chosen) or "none"
        data = dataset.replace(features={m: dataset.features[m] for m in chosen})
        for words in ("users:5%", "items:5%"):
            yield Asked("modalities", f"{name}_{words[:5]}", data, parse([words], SEED), fast, f"modalities_{name}")
    for kind in ("users", "pairs"):
        for who in ("random", "most", "least"):
            for share in SHARES:
                asked = request_of(dataset, kind, who, share)
                yield Asked("activity", f"{kind}_{who}_{share}", dataset, asked, fast, BOTH)
    for name in BACKBONES:
        config = fast if name == "mgcn" else with_backbone(fast, name)
        original = BOTH if name == "mgcn" else f"backbones_{name}"
        for words in ("users:5%", "pairs:5%"):
            yield Asked("backbones", f"{name}_{words[:5]}", dataset, parse([words], SEED), config, original)


def request_of(dataset: Dataset, kind: str, who: str, share: int) -> Request:
    """A request for a share of the users or pairs, by how many train pairs the users have; ties are broken at random."""
    if who == "random":
        return parse([f"{kind}:{share}%"], SEED)
    rng = np.random.default_rng([SEED, 31])
    degree = np.bincount(dataset.train[:, 0], minlength=dataset.num_users)
    users = rng.permutation(np.flatnonzero(degree))
    order = users[np.argsort(-degree[users] if who == "most" else degree[users], kind="stable")]
    if kind == "users":
        return Request(users=np.sort(order[: round(len(order) * share / 100)]).tolist(), seed=SEED)
    place = np.empty(dataset.num_users, int)
    place[order] = np.arange(len(order))
    pairs = rng.permutation(dataset.train)
    pairs = pairs[np.argsort(place[pairs[:, 0]], kind="stable")][: round(len(pairs) * share / 100)]
    return Request(pairs=pairs.tolist(), seed=SEED)


def main(folder: Path, groups: list[str]) -> None:
    keep_freed_memory()
    for asked in cases(read_dataset(folder)):
        result = RESULTS / f"variations_{asked.group}_{asked.name}.json"
        if (groups and asked.group not in groups) or result.exists():
            continue
        out, shared = RUNS / f"{asked.group}_{asked.name}", RUNS / f"shared_{asked.original}"
        found = compared(
            asked.name,
            out,
            shared,
            asked.data,
            asked.request,
            asked.config,
            methods=METHODS,
            golds={"independent": 1, "coupled": 0},
            checks=["utility", "forgetting", "divergence", "overlap", "diversity"],
        )
        # Requests that name thousands of pairs are told by their numbers.
        found["request"] = {"group": asked.group, "name": asked.name, "forgotten": found["forgotten"]}
        results.write(result, found)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
