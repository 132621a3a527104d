"""The manifest of a model folder: what the model is and how it was made. It stands with a digest, as results do. Imports no jax."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recunlearn_jax.errors import InputError
from recunlearn_jax.files import read_json, write_json
from recunlearn_jax.results import digest_of, is_whole

FILE = "manifest.json"
SCHEMA_VERSION = 3


def write(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest of a folder; beside, then renamed."""
    versioned = {**manifest, "schema_version": SCHEMA_VERSION}
    write_json(folder / FILE, {**versioned, "digest": digest_of(versioned)})


def read(folder: Path) -> dict[str, Any]:
    """The manifest of a folder.

    Raises:
        InputError: there is none, one of another version, or one that is not as it was written.
    """
    path = folder / FILE
    manifest = read_json(path, "; is this the folder of a run?")
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if version != SCHEMA_VERSION:
        raise InputError(
            f"{path}: schema_version is {str(version)[:20]!r}, this version reads {SCHEMA_VERSION}; make the model anew"
        )
    if not is_whole(manifest):
        raise InputError(f"{path}: is not as it was written (changed or damaged); restore it, or make the model anew")
    return manifest
