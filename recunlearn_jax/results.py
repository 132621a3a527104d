"""Results of comparisons and audits on disk: one JSON object with a schema version, readable without jax.

`docs/results.md` describes every key.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recunlearn_jax.errors import InputError
from recunlearn_jax.files import read_json, write_json
from recunlearn_jax.ledger import canonical

SCHEMA_VERSION = 3
INSIDE = "inside"  # the verdict on a figure that is no miss


def write(path: Path, results: Mapping[str, Any]) -> dict[str, Any]:
    """Write results beside, then rename; returns them with their schema version and digest."""
    versioned = {**results, "schema_version": SCHEMA_VERSION}
    versioned = {"schema_version": SCHEMA_VERSION, "digest": digest_of(versioned), **versioned}
    write_json(path, versioned)
    return versioned


def digest_of(results: Mapping[str, Any]) -> str:
    """SHA-256 of results without their digest, as they are once they were written."""
    written = {key: value for key, value in results.items() if key != "digest"}
    return hashlib.sha256(canonical(json.loads(json.dumps(written)))).hexdigest()


def is_whole(found: Mapping[str, Any]) -> bool:
    """Whether what was read is what was written, by its digest."""
    try:
        return found.get("digest") == digest_of(found)
    except ValueError:  # a text that is no Unicode
        return False


def read(path: Path) -> dict[str, Any]:
    """Results from a file.

    Raises:
        InputError: no results, those of another schema, or not as they were written.
    """
    found = read_json(path)
    if not isinstance(found, dict) or "models" not in found:
        raise InputError(f"{path}: holds no results of a comparison or an audit")
    version = str(found.get("schema_version"))[:20]
    if version != str(SCHEMA_VERSION):
        raise InputError(
            f"{path}: schema_version is {version!r}, this version reads {SCHEMA_VERSION}; make the results anew"
        )
    if not is_whole(found):
        raise InputError(f"{path}: is not as it was written (changed or damaged); make the results anew")
    return found


def figure_of(row: Mapping[str, Any], figure: str) -> float | None:
    """A figure of a model by its name, or one of its seconds, or its speed-up; None where there is none.

    Examples:
        >>> figure_of({"figures": {"test recall@20": 0.1}, "seconds": {"running": 2.0}}, "seconds running")
        2.0
    """
    group, _, name = figure.partition(" ")
    if group in {"seconds", "preparation"} and name:
        return (row.get(group) or {}).get(name)
    return row["figures"].get(figure, row.get(figure))


def golds_of(results: Mapping[str, Any]) -> list[str]:
    """Names of the retrained models."""
    return list(results["golds"])


def coupled_of(results: Mapping[str, Any]) -> list[str]:
    """Names of the coupled Golds."""
    return list(results.get("coupled", ()))


def methods_of(results: Mapping[str, Any]) -> list[str]:
    """Names of the models that are no Gold, in the order of the comparison."""
    golds = {*results["golds"], *coupled_of(results)}
    return [name for name in results["models"] if name not in golds]
