"""The ledger: bound entry by entry, and silent about what was forgotten."""

import json

import pytest

from recunlearn_jax import ledger
from recunlearn_jax.errors import InputError


def entries_of(count=4):
    entries = []
    for number in range(count):
        entries = ledger.extended(entries, "unlearned", {"method": "delta", "model": f"{number:064x}", "seed": 0})
    return entries


def test_round_trip(tmp_path):
    assert ledger.read(tmp_path) == []
    written = entries_of()
    ledger.write(tmp_path, written)
    found = ledger.read(tmp_path)
    assert found == written
    assert [entry["model"][-1] for entry in found] == ["0", "1", "2", "3"]
    assert found[0]["previous"] == ledger.FIRST
    assert ledger.broken_at(found) is None


TAMPERED = {
    "a value changed": lambda e: [e[0], e[1] | {"method": "gold"}, *e[2:]],
    "a value changed and hashed anew": lambda e: [
        e[0],
        (changed := e[1] | {"method": "gold"}) | {"hash": ledger.hash_of(changed)},
        *e[2:],
    ],
    "a key more": lambda e: [e[0], e[1] | {"note": ""}, *e[2:]],
    "an entry dropped": lambda e: [e[0], *e[2:]],
    "the first one dropped": lambda e: e[1:],
    "two swapped": lambda e: [e[0], e[2], e[1], e[3]],
    "one twice": lambda e: [e[0], e[1], e[1], *e[2:]],
    "no hash": lambda e: [{key: value for key, value in e[0].items() if key != "hash"}, *e[1:]],
}


@pytest.mark.parametrize("case", TAMPERED)
def test_every_change_is_noticed(tmp_path, case):
    ledger.write(tmp_path, TAMPERED[case](entries_of()))
    with pytest.raises(InputError, match="does not follow from the one before it"):
        ledger.read(tmp_path)


def line_of(**changed):
    return json.dumps({"event": "unlearned", "time": "2026-01-01T00:00:00+00:00", **changed})


NO_ENTRIES = ["", "[]", "x", "1", "[" * 100_000, "null", "{}", line_of(time=1), line_of(event=None), line_of(model=3)]
NO_ENTRIES += [line_of(seed=float("nan")), line_of(seed=0).replace(": 0", ": 1e999"), line_of(method="\ud800")]
NO_ENTRIES += [line_of(forgotten={"users": "2"}), line_of(forgotten=[2]), line_of(verdict={"outside": 1, "checked": 2})]


@pytest.mark.parametrize("line", NO_ENTRIES)
def test_lines_that_are_no_entry(tmp_path, line):
    ledger.write(tmp_path, entries_of())
    with (tmp_path / ledger.FILE).open("a") as out:
        out.write(line + "\n")
    with pytest.raises(InputError, match="line 5 is no entry of a ledger"):
        ledger.read(tmp_path)


def test_a_kept_request_is_found_by_its_digest_alone(tmp_path):
    request, salt = {"users": ["ann"], "items": [], "pairs": [], "modality": {}, "seed": 0}, ledger.new_salt()
    digest = ledger.request_digest(salt, request)
    entries = ledger.extended(entries_of(2), "unlearned", {"request_digest": digest})
    path = tmp_path / "request.json"
    path.write_text(json.dumps({"request": request, "salt": salt}))
    assert ledger.answering(entries, path) == 3
    for other in ({**request, "users": ["bob"]}, {**request, "seed": 1}):
        path.write_text(json.dumps({"request": other, "salt": salt}))
        with pytest.raises(InputError, match="no entry of the ledger answers this request"):
            ledger.answering(entries, path)
    assert ledger.request_digest(ledger.new_salt(), request) != digest  # nobody without the salt finds it by trial
    for text in ("[]", "{}", '{"request": 1}', '{"request": "\\ud800", "salt": ""}'):
        path.write_text(text)
        with pytest.raises(InputError, match="is no request kept by"):
            ledger.answering(entries, path)


def test_lines_for_people():
    entry = ledger.extended([], "unlearned", {"method": "delta", "forgotten": {"items": 0, "pairs": 31, "users": 2}})[0]
    assert "unlearned  by delta  forgot 2 users, 31 pairs" in ledger.told(entry)
    verdict = {"outside": ["membership AUC"], "checked": 18, "golds": 3}
    assert "1 of 18 figures outside" in ledger.told(ledger.extended([], "audited", {"verdict": verdict})[0])
