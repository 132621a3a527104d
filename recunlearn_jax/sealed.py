"""JSON objects stored with their version and a digest: whoever reads one can rely on it being as it was written. Imports no jax."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recunlearn_jax.errors import InputError, shown
from recunlearn_jax.files import read_json, write_json
from recunlearn_jax.ledger import canonical


def write(path: Path, values: Mapping[str, Any], version: int) -> dict[str, Any]:
    """Write an object beside `path`, then rename; returns it with its version and digest, which replace any it already has."""
    own = {"schema_version": version, "digest": _digest({**values, "schema_version": version})}
    sealed = own | dict(values) | own  # the first `own` puts them first in the file
    write_json(path, sealed)
    return sealed


def _digest(values: Mapping[str, Any]) -> str:
    """SHA-256 of an object without its digest, in the form it has after being written."""
    written = {key: value for key, value in values.items() if key != "digest"}
    return hashlib.sha256(canonical(json.loads(json.dumps(written)))).hexdigest()


def read(path: Path, version: int, what: str, hint: str = "") -> dict[str, Any]:
    """Read an object.

    Args:
        path: of the file.
        version: the one that is read.
        what: what is to be made anew if the file is of no use.
        hint: end of the message if there is no file.

    Raises:
        InputError: there is no object, it is of another version, or it is not as it was written.
    """
    found = read_json(path, hint)
    if not isinstance(found, dict) or "schema_version" not in found:
        raise InputError(f"{path}: holds no {what}")
    if found["schema_version"] != version:
        given = shown(found["schema_version"])
        raise InputError(f"{path}: schema_version is {given}, this version reads {version}; make the {what} anew")
    try:
        whole = found.get("digest") == _digest(found)
    except ValueError:  # text that is not Unicode
        whole = False
    if not whole:
        raise InputError(f"{path}: is not as it was written (changed or damaged); make the {what} anew")
    return found
