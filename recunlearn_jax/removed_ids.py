"""Digests of what was removed, so that it is recognised if it comes back; the ids themselves are not kept.

Each is BLAKE2b of the kind and the id under a random salt. Anyone who holds the folder can test whether a given id is among them, but
cannot read an id from them.
"""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from recunlearn_jax.errors import InputError
from recunlearn_jax.files import read_json, write_json

FILE = "removed_ids.json"


class RemovedIds(NamedTuple):
    """What earlier requests removed."""

    salt: bytes = b""
    digests: frozenset[str] = frozenset()

    def with_more(self, kind: str, words: Iterable[str]) -> "RemovedIds":
        """A copy with more ids of a kind; the salt is drawn with the first ids.

        Args:
            kind: "user" or "item".
            words: ids.
        """
        words = list(words)
        if not words:
            return self
        salt = self.salt or os.urandom(16)
        return RemovedIds(salt, self.digests | {_digest(salt, kind, word) for word in words})

    def without(self, kind: str, words: Iterable[str]) -> "RemovedIds":
        """A copy without some ids, which are let in again."""
        return self._replace(digests=self.digests - {_digest(self.salt, kind, word) for word in words})

    def among(self, kind: str, words: Iterable[str]) -> list[str]:
        """Those of the given ids that were removed."""
        return [word for word in words if _digest(self.salt, kind, word) in self.digests] if self.digests else []


def _digest(salt: bytes, kind: str, word: str) -> str:
    return hashlib.blake2b(f"{kind}\t{word}".encode(), key=salt, digest_size=16).hexdigest()


def read_removed_ids(folder: Path) -> RemovedIds:
    """Read the digests of a data folder; none if there is no such file.

    Raises:
        InputError: the file has another form.
    """
    path = folder / FILE
    if not path.exists():
        return RemovedIds()
    values = read_json(path)
    try:
        salt, digests = bytes.fromhex(values["salt"]), frozenset(values["digests"])
        if len(salt) != 16 or not all(len(bytes.fromhex(digest)) == 16 for digest in digests):
            raise ValueError
    except (TypeError, ValueError, KeyError) as error:
        raise InputError(f"{path}: damaged; a salt and a list of digests, hexadecimal, are expected") from error
    return RemovedIds(salt, digests) if digests else RemovedIds()


def write_removed_ids(folder: Path, removed: RemovedIds) -> None:
    """Write the digests into a data folder, if there are any."""
    if removed.digests:
        write_json(folder / FILE, {"salt": removed.salt.hex(), "digests": sorted(removed.digests)})
