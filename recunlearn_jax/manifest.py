"""The manifest of a model folder: what the model is and how it was made. Imports no jax."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recunlearn_jax import sealed
from recunlearn_jax.ledger import commitment

FILE = "manifest.json"
SCHEMA_VERSION = 3


def mark(manifest: Mapping[str, Any]) -> str:
    """How other folders and the ledger identify a model: a commitment to its parameters that only a holder of its folder can check.

    WHY not a plain digest: parameters follow from the data (directly for EASE, with seed and device for others), so anyone who had a
    digest of the parameters before a removal could find out by trial what had been in the data.
    """
    return commitment(manifest["data_salt"], manifest["model_digest"])


def write(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest of a folder, to a file beside it that is then renamed."""
    sealed.write(folder / FILE, manifest, SCHEMA_VERSION)


def read(folder: Path) -> dict[str, Any]:
    """The manifest of a folder.

    Raises:
        InputError: there is none, it is of another version, or it is not as it was written.
    """
    return sealed.read(folder / FILE, SCHEMA_VERSION, "model", "; is this the folder of a run?")
