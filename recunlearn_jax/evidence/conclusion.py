"""The top of the page: what an audit says in one sentence, and what that rests on."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from recunlearn_jax.errors import counted
from recunlearn_jax.evidence.readings import Reading, blind, judged, looking, question_of, with_status
from recunlearn_jax.evidence.text import listed
from recunlearn_jax.evidence.words import DOES, RETRAINED
from recunlearn_jax.results import golds_of


class Conclusion(NamedTuple):
    """What an audit says."""

    state: Literal["passed", "failed", "open"]
    word: str
    sentence: str
    outside: list[str]  # figures, in words
    basis: list[str]  # sentences


def conclusion(method: str, audit: Mapping[str, Any] | None, found: Sequence[Reading]) -> Conclusion:
    """The conclusion about a model from its audit, if it has one."""
    if audit is None:
        sentence = "Nothing shows yet whether this model still remembers the removed data."
        basis = (
            f"The removal was carried out, but the model has not been compared with retrained models ({RETRAINED})."
            " Until it has been, assume that traces may remain."
        )
        return Conclusion("open", "Not audited yet", sentence, [], [basis])
    if method in audit["not_finite"]:
        sentence = "The model's outputs are not finite numbers. It is broken: it can be neither used nor judged."
        return Conclusion("failed", "Not passed", sentence, [], ["No figure could be measured."])
    basis = [_count(audit, found), *_control(audit, found), *_blind(found)]
    outside = with_status(found, "outside")
    if outside:
        return Conclusion("failed", "Not passed", _misses(outside), [*map(_outside, outside)], basis)
    if not looking(found):
        sentence = "No figure of this audit looks for the removed data; it tells only how well the model works."
        return Conclusion("open", "Not settled", sentence, [], basis)
    total = len(judged(found))
    sentence = f"In all {total} figures checked, this model looks like one that never saw the removed data."
    return Conclusion("passed", "Passed", sentence, [], basis)


def _misses(outside: Sequence[Reading]) -> str:
    """What the model does, with the number of figures that say so."""
    misses = Counter(reading.miss for reading in outside)
    words = [f"{DOES[miss]} ({counted(n, 'figure')})" for miss, n in misses.items()]
    return f"This model {listed(words)}."


def _outside(reading: Reading) -> str:
    title, value = question_of(reading).title, reading.told(reading.value)
    return f"{title}: {value}, where retrained models have {reading.range_words}; {reading.words.label}."


def _count(audit: Mapping[str, Any], found: Sequence[Reading]) -> str:
    """How many figures lie in range."""
    borderline = len(with_status(found, "borderline"))
    within, total = len(with_status(found, "inside")) + borderline, len(judged(found))
    golds = f"{len(golds_of(audit))} retrained models lie ({RETRAINED})"
    further = f" {borderline} of these {'is' if borderline == 1 else 'are'} borderline." if borderline else ""
    return f"{within} of {total} figures lie where {golds}.{further}"


def _control(audit: Mapping[str, Any], found: Sequence[Reading]) -> list[str]:
    """Whether the audit finds the data where it is: in the model from before the removal."""
    before = audit["verdicts"].get("original", {})
    looked = [before[reading.name]["verdict"] for reading in looking(found) if reading.name in before]
    seen, total = looked.count("under-forgotten"), f"{len(looked)} figures that look for the removed data"
    if seen:
        return [f"Control: in the model from before the removal, {seen} of the {total} find it."]
    if looked:
        return [
            f"Caution: none of the {total} finds it in the model from before the removal."
            " This audit could not have told whether the data was removed."
        ]
    return []


def _blind(found: Sequence[Reading]) -> list[str]:
    """How many figures say nothing, since their range includes every possible miss."""
    n, total = len(blind(found)), len(judged(found))
    told = f"{n} of the {total} figures could not have been out of range; “What no check can show” names them."
    return [told] if n else []
