"""The manifest of a model folder: what the model is and how it was made. Imports no jax."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recunlearn_jax import sealed
from recunlearn_jax.ledger import commitment

FILE = "manifest.json"
SCHEMA_VERSION = 3


def mark(manifest: Mapping[str, Any]) -> str:
    """What other folders, and the ledger, know a model by: a commitment to its parameters that only who holds its folder can check.

    WHY no plain digest: parameters follow from the data (of EASE at once, of others with seed and device), so that whoever had a digest of
    those before a removal could find out by trial what had been in the data.
    """
    return commitment(manifest["data_salt"], manifest["model_digest"])


def write(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest of a folder; beside, then renamed."""
    sealed.write(folder / FILE, manifest, SCHEMA_VERSION)


def read(folder: Path) -> dict[str, Any]:
    """The manifest of a folder.

    Raises:
        InputError: there is none, one of another version, or one that is not as it was written.
    """
    return sealed.read(folder / FILE, SCHEMA_VERSION, "model", "; is this the folder of a run?")
