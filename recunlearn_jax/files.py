"""JSON files that are never half written. Imports no jax."""

import json
import os
from pathlib import Path
from typing import Any

from recunlearn_jax.errors import InputError


def write_json(path: Path, values: Any) -> None:
    """Write JSON beside, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".writing")
    with beside.open("w") as out:
        json.dump(values, out, indent=1, allow_nan=False)
        out.write("\n")
        out.flush()
        os.fsync(out.fileno())
    beside.rename(path)


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: missing or not JSON.
    """
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); is this the folder of a run?") from error
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error})") from error
