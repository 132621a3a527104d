"""How long a raw review file takes to become a data folder, and how much memory: generated files in both forms of the Amazon reviews.

    python benchmarks/prepare.py OUT.json [--lines 1000000]

The file of 2014 is JSON in gzip with texts, names that are not ASCII, lines without an item and lines that come twice; that of 2023 has its
own keys and times in milliseconds. Users and items are drawn so that a few have much and most have little. Each file is prepared to its
5-core, split by time, in a process of its own; its wall-clock seconds, the interpreter's start included, and its peak resident memory are
kept.
"""

import argparse
import gzip
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

CHUNK = 50_000
NAMES = ("Zoë", "Σοφία", "山田", "Ann", "José", "Ольга")
WORDS = np.array(
    ["the", "of", "a", "good", "read", "—", "naïve", "“quoted”", "100%", "\\", "plot,", "ends.", "😀", "würde"]
)


def draws(lines: int, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Users, items, ratings and times of a chunk of lines; one line in a hundred is that before it."""
    users, items = max(1, lines // 8), max(1, lines // 40)
    for start in range(0, lines, CHUNK):
        size = min(CHUNK, lines - start)
        chosen = [(n * rng.random(size) ** 2).astype(np.int64) for n in (users, items)]
        chosen += [rng.integers(1, 6, size), 1_300_000_000 + rng.integers(0, 10**8, size)]
        before = np.arange(size) - (rng.random(size) < 0.01) * (np.arange(size) > 0)
        yield tuple(column[before] for column in chosen)  # type: ignore[misc]


def texts(size: int, rng: np.random.Generator) -> list[str]:
    """Some sixty words each."""
    return [" ".join(WORDS[picked]) for picked in rng.integers(0, len(WORDS), (size, 60))]


def write_2014(path: Path, lines: int) -> None:
    rng = np.random.default_rng(2014)
    with gzip.open(path, "wt", compresslevel=1, encoding="utf-8") as out:
        for users, items, ratings, times in draws(lines, rng):
            incomplete = rng.random(len(users)) < 0.001
            columns = (users.tolist(), items.tolist(), ratings.tolist(), times.tolist(), texts(len(users), rng))
            for user, item, rating, moment, text, lacks in zip(*columns, incomplete.tolist(), strict=True):
                review: dict[str, Any] = {"reviewerID": f"A{user:013X}", "asin": f"B{item:09d}"}
                review |= {"reviewerName": NAMES[user % len(NAMES)], "helpful": [0, 1], "reviewText": text}
                review |= {"overall": float(rating), "unixReviewTime": moment, "reviewTime": "07 1, 2013"}
                if lacks:
                    del review["asin"]
                out.write(json.dumps(review, ensure_ascii=user % 2 == 0) + "\n")


def write_2023(path: Path, lines: int) -> None:
    rng = np.random.default_rng(2023)
    with gzip.open(path, "wt", compresslevel=1, encoding="utf-8") as out:
        for users, items, ratings, times in draws(lines, rng):
            columns = (users.tolist(), items.tolist(), ratings.tolist(), times.tolist(), texts(len(users), rng))
            for user, item, rating, moment, text in zip(*columns, strict=True):
                review = {"rating": float(rating), "title": "Five", "text": text, "images": [], "asin": f"B{item:09d}X"}
                review |= {"parent_asin": f"B{item:09d}", "user_id": f"AE{user:026X}", "timestamp": 1000 * moment + 7}
                out.write(json.dumps(review | {"helpful_vote": 0, "verified_purchase": True}) + "\n")


def prepared(path: Path, folder: Path) -> dict[str, Any]:
    """Seconds and bytes of a process that prepares a file, and what it said."""
    said = folder.with_suffix(".json")
    start = time.perf_counter()
    process = os.spawnv(
        os.P_NOWAIT, sys.executable, [sys.executable, __file__, str(said), "--prepare", str(path), str(folder)]
    )
    _, status, used = os.wait4(process, 0)
    seconds = time.perf_counter() - start
    if status:
        raise RuntimeError(f"{path.name}: the process ended with status {status}")
    told = json.loads(said.read_text())
    return told | {"seconds": seconds, "peak_bytes": used.ru_maxrss * 1024, "file_bytes": path.stat().st_size}


def prepare_one(said: Path, path: Path, folder: Path) -> None:
    """What the measured process does."""
    from recunlearn_jax.preparation import Options, prepare

    dataset, notes = prepare(path, folder, Options(k_core=5, split="time"))
    said.write_text(json.dumps({"summary": dataset.summary(), "notes": notes}))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument(
        "--prepare", type=Path, nargs=2, help="prepare this file into this folder; out is where it tells"
    )
    words = parser.parse_args()
    if words.prepare:
        prepare_one(words.out, *words.prepare)
        return
    result: dict[str, Any] = {"lines": words.lines, "files": {}}
    with tempfile.TemporaryDirectory() as scratch:
        for name, write in (("reviews_2014.json.gz", write_2014), ("reviews_2023.jsonl.gz", write_2023)):
            path = Path(scratch) / name
            write(path, words.lines)
            result["files"][name] = prepared(path, Path(scratch) / name.partition(".")[0])
            path.unlink()
            print(name, result["files"][name], flush=True)
    from recunlearn_jax.environment import environment
    from recunlearn_jax.files import write_json

    # Last, because it starts jax, whose threads are not to be in the way of new processes.
    write_json(words.out, result | {"environment": environment(), "polars": metadata.version("polars")})


if __name__ == "__main__":
    main()
