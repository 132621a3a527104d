"""What experiments share: originals, trained by the first case that needs one and copied by the others, and delta without its lambda."""

import shutil
from pathlib import Path
from typing import Any

from recunlearn_jax.comparison import PARTS, compare
from recunlearn_jax.unlearn.base import Memory


def compared(name: str, out: Path, shared: Path, *what: Any, **how: Any) -> dict[str, Any]:
    """`compare` of a case, its lines told under its name.

    Args:
        name: of the case.
        out: its folder, where it goes on when it was cut off.
        shared: folder of the originals that its experiment shares.
        what, how: as for `compare`.
    """
    earlier = shared if shared.exists() else None
    found = compare(*what, **how, out=out, originals=earlier, tell=lambda line: print(name, line, flush=True))
    for original in (out / PARTS).glob("original*"):
        if not (shared / original.name).exists():
            shutil.copytree(original, shared / original.name)
    return found


def unscaled(memory: Memory) -> Memory:
    """Of delta, with lambda at 1: rows follow all that the regressions say."""
    return memory._replace(record=memory.record._replace(strengths={"users": 1.0, "items": 1.0}))
