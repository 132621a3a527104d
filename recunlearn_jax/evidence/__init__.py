"""The evidence report: one self-contained HTML page on an answered request, for a reader who is not an engineer.

What the page says comes from the manifest of a release, its ledger and its audit; `evidence.html.jinja` lays it out. Same input, same
bytes: nothing is read from a clock or a disk. No identifier of what was forgotten is read, so none can be shown. Imports no jax.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from recunlearn_jax.errors import InputError
from recunlearn_jax.evidence import text, words
from recunlearn_jax.evidence.checks import absent, answers, unnoticed, without_verdict
from recunlearn_jax.evidence.conclusion import conclusion
from recunlearn_jax.evidence.readings import blind, judged, readings
from recunlearn_jax.ledger import Entry, canonical
from recunlearn_jax.manifest import mark
from recunlearn_jax.verdict import LEVEL

_MADE = ("seed", "settings", "outcome", "config", "sizes", "seconds", "environment")


def page(manifest: Mapping[str, Any], entries: Sequence[Entry], audit: Mapping[str, Any] | None) -> str:
    """The report as one HTML page.

    Args:
        manifest: of a release.
        entries: of its ledger, from `ledger.read`.
        audit: results of its audit, or None.

    Raises:
        InputError: the ledger does not record this model or this audit, or the audit is of another model.
    """
    number, audited = _recorded(manifest, entries)
    _check(manifest, audit, audited)
    method = manifest["method"]
    found = readings(method, audit) if audit else []
    trained = [entry["seconds"] for entry in entries if entry["event"] == "trained"]
    return _template().render(
        manifest=manifest,
        made={key: manifest[key] for key in _MADE if key in manifest},
        entries=entries,
        number=number,
        entry=entries[number - 1],
        audited=audited,
        audit=audit,
        trained=trained[-1] if trained else None,
        gaps=_gaps(manifest),
        conclusion=conclusion(method, audit, found),
        found=found,
        judged=judged(found),
        blind=blind(found),
        unnoticed=unnoticed(found),
        groups=answers(found),
        unjudged=without_verdict(method, audit, found) if audit else [],
        absent=absent(method, audit, found) if audit else [],
        level=LEVEL,
        words=words,
    )


def _gaps(manifest: Mapping[str, Any]) -> bool:
    """Whether item graphs were cut: an item that had a removed one among its neighbours has one neighbour fewer."""
    graphs = any(manifest.get("sizes", {}).get("neighbours", {}).values())
    content = [n for kind, n in manifest["forgotten"].items() if kind not in ("users", "pairs")]
    return graphs and any(content)


def _recorded(manifest: Mapping[str, Any], entries: Sequence[Entry]) -> tuple[int, Entry | None]:
    """Number of the ledger's entry on this model, from 1, and its last entry on an audit of it."""
    number = max((n for n, entry in enumerate(entries, 1) if entry["event"] == "unlearned"), default=0)
    if not number or entries[number - 1]["model"] != mark(manifest):
        raise InputError("ledger.jsonl: its last removal is not the one that made this model; restore the release")
    audits = [entry for entry in entries[number:] if entry["event"] == "audited"]
    return number, audits[-1] if audits else None


def _check(manifest: Mapping[str, Any], audit: Mapping[str, Any] | None, audited: Entry | None) -> None:
    """Refuse an audit that was changed, left out or made of another model."""
    digest = None if audit is None else hashlib.sha256(canonical(audit)).hexdigest()
    if digest != (None if audited is None else audited["audit"]):
        raise InputError("audit.json: is not what the ledger records as the last audit; audit this release again")
    if audit is None:
        return
    if manifest["method"] not in audit["models"]:
        raise InputError(f"audit.json: judges no model made by {manifest['method']}; audit this release")
    for key in ("request_digest", "data_checksum", "seed"):
        if audit[key] != manifest[key]:
            raise InputError(f"audit.json: {key} is {audit[key]}, in the release {manifest[key]}; audit this release")


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {name: getattr(text, name) for name in ("counted", "removed", "capital", "date", "duration")}
    return environment.get_template("evidence.html.jinja")
