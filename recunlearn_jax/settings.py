"""Settings as frozen dataclasses: plain dictionaries in and out, files in, single values on top. Imports no jax.

Whatever can be chosen is a field of a dataclass that stands beside what it chooses: `TrainConfig` in `config`, `Settings` in each
backbone's and each method's file.
"""

import dataclasses
import difflib
import json
import re
import tomllib
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from recunlearn_jax.errors import InputError


def to_dict(settings: Any) -> dict[str, Any]:
    """Plain nested dictionary of a settings dataclass."""
    return dataclasses.asdict(settings)


def from_dict(values: Any, kind: type, where: str) -> Any:
    """Settings from a dictionary; missing keys keep their defaults.

    Args:
        values: name -> value.
        kind: a dataclass.
        where: begins the message of a refusal.

    Raises:
        InputError: a key is unknown (a similar known key is suggested) or a value has the wrong type.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"{where}: expected a table of settings, got {values!r}")
    hints = typing.get_type_hints(kind)
    arguments = {}
    for key, value in values.items():
        if key not in hints:
            raise InputError(f"{where}: unknown setting {key!r}{suggestion(key, hints, 'known settings')}")
        arguments[key] = _checked(value, hints[key], f"{where}.{key}")
    return kind(**arguments)


def check_name(name: str, kind: str, taken: Iterable[str]) -> None:
    """Whether something may be registered under a name; it becomes a folder, a key and a word of the command line.

    Raises:
        InputError: it is taken, reserved, or has another form.
    """
    if name in taken:
        raise InputError(f"{kind} {name!r}: the name is taken; choose another")
    if not re.fullmatch("[a-z][a-z0-9_]{0,39}", name) or name in {"original", "model", "train", "backbone"}:
        raise InputError(
            f"{kind} {name!r}: a name begins with a letter and has small letters, digits and _ only; "
            "original, model, train and backbone are taken"
        )


def suggestion(word: str, known: Iterable[str], title: str) -> str:
    """End of a message about an unknown word: the closest known one, or all of them."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; {title}: {', '.join(known)}"


def _checked(value: Any, hint: Any, where: str) -> Any:
    if typing.get_origin(hint) is Literal:
        if value not in typing.get_args(hint):
            raise InputError(f"{where}: {value!r} is not one of {', '.join(map(repr, typing.get_args(hint)))}")
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise InputError(f"{where}: {value!r} is not of type {hint.__name__}")
    return value


def read_file(path: str | Path) -> dict[str, Any]:
    """The groups of a .json or .toml file, not yet checked.

    Raises:
        InputError: the file is missing, cannot be parsed, or is no table of groups.
    """
    path = Path(path)
    if path.suffix not in {".json", ".toml"}:
        raise InputError(f"{path}: settings are read from .json or .toml files")
    try:
        text = path.read_text()
        values = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise InputError(f"{path}: not valid {path.suffix[1:].upper()} ({error})") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected a table of settings, got {values!r}")
    return values


def override(groups: Mapping[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """Groups of settings with single values on top, such as `train.batch_size=512`.

    Args:
        groups: group -> name -> value.
        words: each group.name=value; the value is read as JSON, else as text.

    Raises:
        InputError: a word has another form, or a group that is not there.

    >>> override({"train": {"batch_size": 2048}}, ["train.batch_size=512"])
    {'train': {'batch_size': 512}}
    """
    changed: dict[str, Any] = {
        name: dict(values) if isinstance(values, Mapping) else values for name, values in groups.items()
    }
    for word in words:
        path, equals, text = word.partition("=")
        group, dot, name = path.partition(".")
        if not equals or not dot:
            raise InputError(f"--set {word}: expected group.name=value, such as train.batch_size=512")
        if not isinstance(changed.get(group), dict):
            known = [key for key, values in changed.items() if isinstance(values, dict)]
            raise InputError(f"--set {word}: unknown group {group!r}{suggestion(group, known, 'known groups')}")
        try:
            value: Any = json.loads(text.lower() if text in {"True", "False"} else text)
        except ValueError:
            value = text
        changed[group][name] = value
    return changed
