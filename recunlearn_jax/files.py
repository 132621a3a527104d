"""Text and JSON files: none is ever half written, and reading never hangs and trusts nothing. Imports no jax."""

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recunlearn_jax.errors import InputError, shown


def as_path(given: str | Path, name: str) -> Path:
    """A path that a caller gave, as text or as a path.

    Raises:
        InputError: it is something else, or text that no path can hold.

    Examples:
        >>> as_path("runs/model", "run").name
        'model'
    """
    if not isinstance(given, str | Path) or "\0" in str(given):
        raise InputError(f"{name}: {shown(given)} given; a path is expected, as text or as a Path")
    return Path(given)


def regular(path: Path, hint: str = "") -> Path:
    """The path, if it can be read as a file: a pipe or a device might never end.

    Args:
        path: of a file.
        hint: end of the message if nothing is there.

    Raises:
        InputError: nothing is there, or something other than a file.
    """
    with unreadable(path):
        if not path.exists():
            raise InputError(f"{path}: no such file{hint}")
        if not path.is_file():
            raise InputError(f"{path}: is {'a folder' if path.is_dir() else 'no regular file'}; a file is expected")
    return path


@contextlib.contextmanager
def unreadable(path: Path) -> Iterator[None]:
    """Report what the system refuses about a path as something the user can fix."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be read or written ({error.strerror or error})") from error


def read_text(path: Path, hint: str = "") -> str:
    """The text of a UTF-8 file; a byte-order mark is skipped.

    Raises:
        InputError: the file is missing, not a regular file, or not UTF-8.
    """
    with unreadable(path):
        try:
            return regular(path, hint).read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: byte {error.start} is no UTF-8 text") from error


def read_json(path: Path, hint: str = "") -> Any:
    """Read a JSON file.

    Raises:
        InputError: the file is missing or not JSON.
    """
    text = read_text(path, hint)
    try:
        return parsed_json(text)
    except RecursionError as error:
        raise InputError(f"{path}: lists or objects stand too deep in one another") from error
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error})") from error


def parsed_json(text: str) -> Any:
    """Parse JSON as it is written here: every number is finite, and every key of an object occurs once.

    Raises:
        ValueError: it is not JSON, or holds any other number, or a key twice (Python would keep the last).
        RecursionError: lists or objects are nested too deeply.
    """
    return json.loads(text, parse_constant=_finite, parse_float=_finite, object_pairs_hook=_once)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)[:60]!r} stands twice in an object")
    return found


def _finite(text: str) -> float:
    if not math.isfinite(float(text)):
        raise ValueError(f"{text[:60]} is no finite number")
    return float(text)


def write_json(path: Path, values: Any) -> None:
    """Write JSON to a file beside the path, then rename it.

    Raises:
        InputError: the place cannot be written to.
    """
    write_text(path, json.dumps(values, indent=1, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write text to a file beside the path, then rename it.

    Raises:
        InputError: the place cannot be written to.
    """
    with unreadable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(path.name + ".writing")
        try:
            with beside.open("w", encoding="utf-8") as out:
                out.write(text)
                out.flush()
                os.fsync(out.fileno())
            beside.rename(path)
        except OSError:
            beside.unlink(missing_ok=True)
            raise


def digest_of(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
