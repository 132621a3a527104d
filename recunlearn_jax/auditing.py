"""Audit a model on disk against its original and retrained models on disk; see `audit.examine` for what is measured."""

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recunlearn_jax import ledger, results, runs
from recunlearn_jax.audit.base import Attempt, Case, Replay, Subject
from recunlearn_jax.audit.checks import CHECKS
from recunlearn_jax.audit.examine import examine
from recunlearn_jax.environment import environment
from recunlearn_jax.errors import InputError, check_type
from recunlearn_jax.manifest import mark
from recunlearn_jax.recommender import Recommender
from recunlearn_jax.requests import difference, retained
from recunlearn_jax.unlearn.driver import find


def audit_runs(
    model: str | Path,
    original: str | Path,
    golds: Sequence[str | Path],
    *,
    coupled: str | Path | None = None,
    sequence: bool = True,
    data: str | Path | None = None,
) -> dict[str, Any]:
    """The audit of an unlearned model, with its original beside it.

    Args:
        model: folder of the unlearned model.
        original: folder of the model it was unlearned from.
        golds: folders of models retrained on the same retained data, for the same request.
        coupled: folder of the coupled Gold, for the checks that ask what the removal changed; they are left out where None.
        sequence: run check 10, which answers the request again.
        data: where the original's data is now, if it was moved.

    Returns:
        Results as `comparison.compare` gives them, for two models. The request is not among them: what was forgotten is read from the two
        data sets.

    Raises:
        InputError: a folder holds no run, or the runs do not belong together.
    """
    if isinstance(golds, str | Path):
        golds = [golds]
    check_type(golds, Sequence, "golds", "of folders of retrained models")
    manifest = runs.manifest_of(model)
    if manifest["kind"] != "unlearned":
        raise InputError(f"{model}: holds no unlearned model; audit judges answers to requests")
    if len(golds) < 3:
        raise InputError(f"{len(golds)} Golds given; at least 3 are needed to know how far a Gold may be from another")
    begun = runs.manifest_of(original)
    if "model_digest" not in begun or manifest.get("from_model") != mark(begun):
        raise InputError(f"{original}: is not the original of {model}, which was made from another model")
    before, answer = runs.load(original, data=data), runs.load(model)
    forget_set = difference(before.dataset, answer.dataset)
    retrained = {}
    for i, folder in enumerate(golds, 1):
        gold = runs.load(folder)
        if gold.dataset.checksum != answer.dataset.checksum:
            raise InputError(f"{folder}: is no Gold for {model}; it was trained on other data than is retained there")
        made = runs.manifest_of(folder)
        made_by = made.get("method", "gold")
        if made_by != "gold":
            raise InputError(f"{folder}: is no Gold; it was made by the method {made_by}")
        if "grown_from" in made:
            raise InputError(f"{folder}: is no Gold; its training began from another model")
        if gold.config != before.config:
            raise InputError(f"{folder}: is no Gold; it was trained with other settings than {original}")
        if any(np.array_equal(other.rows, gold.rows) for other in retrained.values()):
            raise InputError(f"{folder}: is the same model as an earlier Gold; train each with another --seed")
        if np.array_equal(answer.rows, gold.rows):
            raise InputError(f"{folder}: is the model that is audited")
        retrained[f"gold-{i}"] = gold
    replays = {} if coupled is None else {"coupled-1": Replay(before, _coupled(coupled, original, answer))}
    method = manifest["method"]
    attempt = Attempt(method, find(method, manifest["settings"])[1], manifest["seed"])
    case = Case(before.dataset, forget_set, retained(before.dataset, forget_set), {}, before, retrained, replays)
    checks = [name for name in CHECKS if name != "likelihood" and (sequence or name != "sequence")]
    found = examine(case, [Subject("original", before), Subject(method, answer, attempt)], checks)
    figures = found.pop("figures")
    return {
        "data": before.dataset.name,
        "data_checksum": answer.dataset.checksum,
        "summary": before.dataset.summary(),
        "request": None,
        "request_digest": manifest["request_digest"],
        "forgotten": forget_set.counts(),
        "config": manifest["config"],
        "settings": {method: manifest["settings"]},
        "seed": manifest["seed"],
        "environment": environment(),
        "time": time.strftime("%Y-%m-%d"),
        "models": {name: {"figures": row} for name, row in figures.items()},
        "golds": list(retrained),
        "coupled": list(replays),
        **found,
    }


def verdict_of(found: dict[str, Any]) -> dict[str, Any]:
    """What the ledger says of an audit: the model, its verdict, and a digest of all figures."""
    (name,) = [name for name in results.methods_of(found) if name != "original"]
    outside = [figure for figure, said in found["verdicts"].get(name, {}).items() if said["verdict"] != results.INSIDE]
    return {
        "method": name,
        "request_digest": found["request_digest"],
        "verdict": {
            "outside": outside,
            "checked": len(found["verdicts"].get(name, {})),
            "golds": len(found["golds"]),
            "finite": name not in found["not_finite"],
        },
        "audit": hashlib.sha256(ledger.canonical(found)).hexdigest(),
    }


def _coupled(folder: str | Path, original: str | Path, answer: Recommender) -> Recommender:
    """The coupled Gold of an original."""
    gold, manifest = runs.load(folder), runs.manifest_of(folder)
    begun = runs.manifest_of(original)
    of_it = manifest.get("from_model") == mark(begun) and gold.info.get("replays") == begun["info"].get("seed")
    if manifest.get("method") != "coupled" or not of_it:
        raise InputError(
            f"{folder}: is no coupled Gold of {original}; make it with `recunlearn unlearn --method coupled`"
        )
    if gold.dataset.checksum != answer.dataset.checksum:
        raise InputError(f"{folder}: was retrained on other data than the answer retains")
    return gold
