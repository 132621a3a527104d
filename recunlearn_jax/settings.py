"""Settings as frozen dataclasses: plain dictionaries in and out, files in, single values on top. Imports no jax.

Every choice is a field of a dataclass that is defined beside what it controls: `TrainConfig` in `config`, `Settings` in each backbone's
and each method's file. The type of a field says what is allowed, such as `Count` or `Annotated[int, Ge(1)]`; a class that is `Checked`
enforces this however it is made.
"""

import dataclasses
import difflib
import functools
import json
import math
import operator
import re
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt

from recunlearn_jax.errors import InputError, shown
from recunlearn_jax.files import as_path, parsed_json, read_text

_LARGEST = 2**31 - 1  # of int32
Count = Annotated[int, Ge(1), Le(_LARGEST)]
CountFromZero = Annotated[int, Ge(0), Le(_LARGEST)]
Width = Annotated[int, Ge(1), Le(2**16)]
Layers = Annotated[int, Ge(0), Le(64)]
Batch = Annotated[int, Ge(1), Le(2**24)]
Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]
# What a bound allows, and its wording in messages.
_BOUNDS = {
    Ge: ("ge", operator.ge, "at least"),
    Gt: ("gt", operator.gt, "above"),
    Le: ("le", operator.le, "at most"),
    Lt: ("lt", operator.lt, "below"),
}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


class Checked:
    """Base of a settings dataclass whose values are checked when it is made, whether in Python or from a file.

    Raises:
        InputError: a value has another type than its field says, or lies outside its bounds.

    Examples:
        >>> @dataclasses.dataclass(frozen=True)
        ... class Settings(Checked):
        ...     steps: Count = 30
        >>> Settings(steps=0)
        Traceback (most recent call last):
        recunlearn_jax.errors.InputError: steps: 0; a whole number of at least 1 and at most 2147483647 is allowed
    """

    def __post_init__(self):
        for name, hint in _hints(type(self)).items():
            object.__setattr__(self, name, _checked(getattr(self, name), hint, name))


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)


def to_dict(settings: Any) -> dict[str, Any]:
    """Plain nested dictionary of a settings dataclass."""
    return dataclasses.asdict(settings)


def from_dict(values: Any, kind: type, where: str) -> Any:
    """Settings from a dictionary; missing keys keep their defaults.

    Args:
        values: name -> value.
        kind: a dataclass.
        where: beginning of the error message.

    Raises:
        InputError: a key is unknown (a similar known key is suggested) or a value has the wrong type.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"{where}: expected a table of settings, got {shown(values)}")
    hints = _hints(kind)
    arguments = {}
    for key, value in values.items():
        if key not in hints:
            raise InputError(f"{where}: unknown setting {shown(key)}{suggestion(str(key), hints, 'known settings')}")
        arguments[key] = _checked(value, hints[key], f"{where}.{key}")
    return kind(**arguments)


def check_name(name: str, kind: str, taken: Iterable[str]) -> None:
    """Check that something may be registered under a name, which becomes a folder, a key and a word of the command line.

    Raises:
        InputError: the name is taken, reserved, or has another form.
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
    bounds: list[Any] = []
    if typing.get_origin(hint) is types.UnionType:  # a type, or None
        if value is None:
            return value
        hint = next(kind for kind in typing.get_args(hint) if kind is not type(None))
    if typing.get_origin(hint) is Annotated:
        hint, *bounds = typing.get_args(hint)
    if typing.get_origin(hint) is Literal:
        if value not in typing.get_args(hint):
            raise InputError(f"{where}: {shown(value)} is not one of {', '.join(map(repr, typing.get_args(hint)))}")
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < 2**1000 else math.inf
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise InputError(f"{where}: {shown(value)} is not of type {hint.__name__}; {_allowed(hint, bounds)} is allowed")
    if (isinstance(value, float) and not math.isfinite(value)) or not all(_within(value, bound) for bound in bounds):
        raise InputError(f"{where}: {shown(value)}; {_allowed(hint, bounds)} is allowed")
    return value


def _within(value: Any, bound: Any) -> bool:
    name, holds, _ = _BOUNDS[type(bound)]
    return holds(value, getattr(bound, name))


def _allowed(hint: type, bounds: Sequence[Any]) -> str:
    kind = {int: "a whole number", float: "a finite number", bool: "true or false", str: "text"}.get(
        hint, hint.__name__
    )
    said = [f"{_BOUNDS[type(bound)][2]} {getattr(bound, _BOUNDS[type(bound)][0])}" for bound in bounds]
    return f"{kind} {'of ' if bounds and isinstance(bounds[0], (Ge, Le)) else ''}{' and '.join(said)}".strip()


def read_file(path: str | Path) -> dict[str, Any]:
    """The groups of a .json or .toml file, not yet checked.

    Raises:
        InputError: the file is missing, cannot be parsed, or is no table of groups.
    """
    path = as_path(path, "path")
    if path.suffix not in {".json", ".toml"}:
        raise InputError(f"{path}: settings are read from .json or .toml files")
    text = read_text(path)
    try:
        values = parsed_json(text) if path.suffix == ".json" else tomllib.loads(text)
    except RecursionError as error:
        raise InputError(f"{path}: lists or tables stand too deep in one another") from error
    except ValueError as error:
        raise InputError(f"{path}: not valid {path.suffix[1:].upper()} ({error})") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected a table of settings, got {shown(values)}")
    return values


def override(groups: Mapping[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """Groups of settings with single values on top, such as `train.batch_size=512`.

    Args:
        groups: group -> name -> value.
        words: each group.name=value; the value is read as JSON, else as text.

    Raises:
        InputError: a word has another form, or names a group that is not there.

    Examples:
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
        changed[group][name] = _read_value(text)
    return changed


def _read_value(text: str) -> Any:
    """A value as it is written on the command line: JSON, a number in any usual form, else text."""
    try:
        return json.loads(text.lower() if text in {"True", "False"} else text)
    except (ValueError, RecursionError):
        return float(text) if _NUMBER.fullmatch(text) else text


def check_seed(seed: Any, where: str = "seed") -> int:
    """A seed that all random generators take.

    Raises:
        InputError: it is anything else.
    """
    return _checked(seed, CountFromZero, where)


def seed_after(seed: int, steps: int) -> int:
    """The seed that comes `steps` after another; 0 follows the largest, so that every seed has some after it.

    Examples:
        >>> seed_after(7, 100), seed_after(2**31 - 1, 1)
        (107, 0)
    """
    return (seed + steps) % (_LARGEST + 1)
