"""Results of comparisons and audits on disk: one JSON object with a schema version, readable without jax.

`docs/results.md` describes every key.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recunlearn_jax import sealed
from recunlearn_jax.errors import InputError
from recunlearn_jax.files import as_path

SCHEMA_VERSION = 3
INSIDE = "inside"  # the verdict on a figure that is no miss


def write(path: str | Path, results: Mapping[str, Any]) -> dict[str, Any]:
    """Write results to a file beside, then rename it; returns them with their schema version and digest."""
    return sealed.write(as_path(path, "path"), results, SCHEMA_VERSION)


def read(path: str | Path) -> dict[str, Any]:
    """Results from a file.

    Raises:
        InputError: the file holds no results, those of another schema, or results changed since they were written.
    """
    found = sealed.read(as_path(path, "path"), SCHEMA_VERSION, "results")
    if "models" not in found:
        raise InputError(f"{path}: holds no results of a comparison or an audit")
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
    """Names of the models that are not Golds, in the order of the comparison."""
    golds = {*results["golds"], *coupled_of(results)}
    return [name for name in results["models"] if name not in golds]
