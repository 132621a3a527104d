"""Committed results, and how a table of them is written in Markdown."""

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from recunlearn_jax.files import read_json
from recunlearn_jax.unlearn import METHODS

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "experiments" / "results"
BENCHMARKS = ROOT / "benchmarks" / "results"


def every(folder: Path, begins: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Committed results whose names begin so: what follows in the name, and the content. Numbers in names count: 5 before 10."""
    paths = folder.glob(f"{begins}*.json")
    for path in sorted(paths, key=lambda path: [part.zfill(9) for part in re.split(r"(\d+)", path.stem)]):
        yield path.stem.removeprefix(begins), read_json(path)


def titled(result: Mapping[str, Any], name: str) -> str:
    """A method's name in a table, marked where it has other settings today: that result is of an earlier version of it."""
    kept = result["settings"].get(name)
    if kept is None or kept.keys() == {field.name for field in dataclasses.fields(METHODS[name].Settings)}:
        return name
    return f"{name}, earlier"


def written(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown."""
    title, *lines = ["| " + " | ".join(map(str, line)) + " |\n" for line in (header, *rows)]
    return "".join([title, "|" + "---|" * len(header) + "\n", *lines])
