"""Originals that the cases of an experiment share: trained by the first that needs one, copied by the others."""

import shutil
from pathlib import Path

from recunlearn_jax.comparison import PARTS


def keep(out: Path, shared: Path) -> None:
    """Copy what a comparison in `out` trained into the folder that later ones name as their `originals`."""
    for original in (out / PARTS).glob("original*"):
        if not (shared / original.name).exists():
            shutil.copytree(original, shared / original.name)
