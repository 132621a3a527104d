"""The ledger of a model folder: an append-only record of what was done, each entry bound to the one before by its hash. Imports no jax.

`ledger.jsonl` has one JSON object per line. The hash of an entry is the SHA-256 of its JSON without `hash`, keys in order and no spaces.
`previous` is the hash of the entry before, so that no entry can be changed, dropped or inserted without every later hash failing.
The last hash, kept elsewhere, also shows whether entries were dropped at the end.

It says how much was forgotten, and nothing in it reveals what. Requests are recorded as keyed digests, data sets and models as commitments:
SHA-256 of a salt and the checksum or digest. The salt is in the manifest of the folder that holds them. Anyone who had a plain checksum of
the data before a removal, or a digest of the parameters that follow from it, could find out by trial which pair had been in the data.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from recunlearn_jax.errors import InputError
from recunlearn_jax.files import as_path, parsed_json, read_json, read_text, write_text

FILE = "ledger.jsonl"
FIRST = "0" * 64
Entry = dict[str, Any]


def canonical(values: Any) -> bytes:
    """JSON with keys in order and no spaces, UTF-8."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def extended(entries: Sequence[Entry], event: str, facts: Mapping[str, Any]) -> list[Entry]:
    """The entries with one more.

    Args:
        entries: those so far, oldest first.
        event: "trained", "grown", "unlearned" or "audited".
        facts: what is recorded about the event, JSON values.
    """
    entry = {
        "event": event,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        **facts,
        "previous": entries[-1]["hash"] if entries else FIRST,
    }
    return [*entries, entry | {"hash": hash_of(entry)}]


def hash_of(entry: Mapping[str, Any]) -> str:
    """SHA-256 of an entry without its own hash."""
    return hashlib.sha256(canonical({key: value for key, value in entry.items() if key != "hash"})).hexdigest()


def broken_at(entries: Iterable[Mapping[str, Any]]) -> int | None:
    """Index of the first entry that does not follow from the one before it; None where all do."""
    previous = FIRST
    for index, entry in enumerate(entries):
        if entry.get("previous") != previous or entry.get("hash") != hash_of(entry):
            return index
        previous = entry["hash"]
    return None


def read(folder: str | Path) -> list[Entry]:
    """The entries of a model folder, oldest first; none where there is no ledger.

    Raises:
        InputError: a line is no entry, or does not follow from the one before.
    """
    path = as_path(folder, "folder") / FILE
    if not path.exists():
        return []
    entries = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        try:
            entry = parsed_json(line)
            canonical(entry)
        except (ValueError, RecursionError):
            entry = None
        if not _is_entry(entry):
            raise InputError(f"{path}: line {number} is no entry of a ledger")
        entries.append(entry)
    bad = broken_at(entries)
    if bad is not None:
        raise InputError(
            f"{path}: entry {bad + 1} does not follow from the one before it; the ledger was changed after it was written"
        )
    return entries


def _is_entry(entry: Any) -> bool:
    """Whether a line has the form of an entry, as far as `told` reads it."""
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("event", "time")):
        return False
    words = (entry.get(key) for key in ("method", "model", "from_model", "request_digest"))
    counts, verdict = entry.get("forgotten") or {}, entry.get("verdict") or {"outside": [], "checked": 0}
    return (
        all(word is None or isinstance(word, str) for word in words)
        and isinstance(counts, dict)
        and all(type(count) is int for count in counts.values())
        and isinstance(verdict, dict)
        and isinstance(verdict.get("outside"), list)
        and "checked" in verdict
    )


def write(folder: str | Path, entries: Iterable[Entry]) -> None:
    """Write the ledger of a folder, to a file beside it that is then renamed."""
    write_text(as_path(folder, "folder") / FILE, "".join(canonical(entry).decode() + "\n" for entry in entries))


def new_salt() -> str:
    """16 random bytes, hexadecimal."""
    return os.urandom(16).hex()


def commitment(salt: str, value: str) -> str:
    """Digest that lets anyone who holds the salt check a value, but lets nobody else find it by trial."""
    return hashlib.sha256(f"{salt}\t{value}".encode()).hexdigest()


def request_digest(salt: str, request: Mapping[str, Any]) -> str:
    """Commitment to a request in the form of `requests.to_json`."""
    return commitment(salt, canonical(request).decode())


def told(entry: Mapping[str, Any]) -> str:
    """One line for people."""
    counts = entry.get("forgotten") or {}
    kinds = ("users", "items", "pairs")
    names = [*kinds, *(name for name in counts if name not in kinds)]
    forgotten = ", ".join(f"{counts[name]:,} {name}" for name in names if counts.get(name))
    verdict = entry.get("verdict") or {}
    parts = [
        entry["time"],
        entry["event"],
        f"by {entry['method']}" if "method" in entry else "",
        f"forgot {forgotten}" if forgotten else "",
        f"request {entry['request_digest'][:12]}" if "request_digest" in entry else "",
        f"model {entry['model'][:12]}" if "model" in entry else "",
        f"from {entry['from_model'][:12]}" if entry.get("from_model") else "",
        f"{len(verdict['outside'])} of {verdict['checked']} figures outside" if verdict else "",
        f"hash {entry['hash'][:12]}",
    ]
    return "  ".join(part for part in parts if part)


def answering(entries: Sequence[Entry], path: str | Path) -> int:
    """Number, from 1, of the entry that answers a kept request.

    Args:
        entries: of a ledger.
        path: written by `unlearn --keep-request`.

    Raises:
        InputError: no entry does, or the file has another form.
    """
    kept = read_json(as_path(path, "path"))
    try:
        digest = request_digest(kept["salt"], kept["request"])
    except (TypeError, LookupError, ValueError) as error:  # of another form, or with half a surrogate pair in it
        raise InputError(f"{path}: is no request kept by `recunlearn unlearn --keep-request`") from error
    numbers = [number for number, entry in enumerate(entries, 1) if entry.get("request_digest") == digest]
    if not numbers:
        raise InputError(f"{path}: no entry of the ledger answers this request")
    return numbers[0]
