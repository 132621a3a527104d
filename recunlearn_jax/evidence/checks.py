"""What the checks found: an answer to each question with its pictures, and what was measured without a verdict or not at all."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from recunlearn_jax.errors import counted
from recunlearn_jax.evidence.drawing import Drawing, drawing
from recunlearn_jax.evidence.readings import Reading, judged, question_of, with_status
from recunlearn_jax.evidence.text import capital, listed
from recunlearn_jax.evidence.words import DOES, GROUPS, PROBES, QUESTIONS, STATUS_WORDS, Question, Status
from recunlearn_jax.results import figure_of

DRAWN_AT_MOST = 2


class Answer(NamedTuple):
    """A check as the page shows it."""

    question: Question
    status: Status
    text: str
    drawings: list[Drawing]
    more: str  # about the figures that are not drawn


def answers(found: Sequence[Reading]) -> list[tuple[str, list[Answer]]]:
    """Titles of groups, and the answers of each, the worst first."""
    own: dict[Question, list[Reading]] = {question: [] for question in QUESTIONS.values()}
    for reading in judged(found):
        own.setdefault(question_of(reading), []).append(reading)
    given = [_answer(question, rows) for question, rows in own.items() if rows]
    ranked = [answer for status in STATUS_WORDS for answer in given if answer.status == status]
    groups = [(title, [row for row in ranked if row.question.group == group]) for group, title in GROUPS.items()]
    return [(title, rows) for title, rows in groups if rows]


def _answer(question: Question, found: Sequence[Reading]) -> Answer:
    """The answer to a question: its first figure is drawn, and those that are not within range."""
    ranked = sorted(found, key=lambda reading: question.figures.index(reading.name))
    drawn = list(dict.fromkeys([ranked[0], *with_status(ranked, "outside"), *with_status(ranked, "borderline")]))
    rest = [reading for reading in ranked if reading not in drawn[:DRAWN_AT_MOST]]
    more = [
        f"{counted(n, 'more figure')} {word.lower()}"
        for status, word in STATUS_WORDS.items()
        if (n := len(with_status(rest, status)))
    ]
    return Answer(
        question,
        next(status for status in STATUS_WORDS if with_status(found, status)),
        _text(question, found),
        [drawing(reading) for reading in drawn[:DRAWN_AT_MOST]],
        ", ".join(more),
    )


def _text(question: Question, found: Sequence[Reading]) -> str:
    missed = dict.fromkeys(reading.miss for reading in with_status(found, "outside"))
    if missed:
        return f"This model {listed([DOES[miss] for miss in missed])}."
    if with_status(found, "borderline"):
        return "Within the range for all figures together; out of that for one alone, as one in twenty is by chance."
    return question.answer


def without_verdict(method: str, audit: Mapping[str, Any], found: Sequence[Reading]) -> list[tuple[str, str]]:
    """What was measured but is not judged: titles, and what was found."""
    row = audit["models"][method]
    titles = dict.fromkeys(question_of(reading).title.lower() for reading in with_status(found, "unjudged"))
    seeded = (
        "These follow the random start of training more than the forgetting, and this model started from the one before."
        " Values in the appendix."
    )
    rows = [
        ("Effect of the removal", effect(row)),
        ("Comparing old and new", update(row)),
        (capital(listed([*titles])), seeded if titles else ""),
    ]
    return [(title, text) for title, text in rows if text]


def effect(row: Mapping[str, Any]) -> str:
    """How much of the effect of retraining the model shows, and how much else; empty if it was not measured."""
    reached, beside = [], []
    for probe, words in PROBES.items():
        progress, collateral = (figure_of(row, f"{part} {probe}") for part in ("progress", "collateral"))
        if progress is not None and collateral is not None:
            reached.append(f"{progress:.0%} in {words}")
            beside.append(f"{collateral:.0%}")
    if not reached:
        return ""
    return (
        f"Of what retraining changes, this model changes {listed(reached)}. Besides, it makes other changes, {listed(beside)} as large."
        " Repeating the original training without the data would give 100% and 0%."
    )


def update(row: Mapping[str, Any]) -> str:
    """What someone who has the model before and after can learn; empty if it was not measured."""
    parts = []
    for kind, words in (("items", "affected items"), ("pairs", "removed interactions")):
        own, aim = (figure_of(row, f"update AUC {kind}{of}") for of in ("", ", coupled Gold"))
        if own is not None and aim is not None:
            parts.append(f"{words} in {own:.0%} of comparisons (after retraining: {aim:.0%}; chance: 50%)")
    return f"Someone who kept the model from before and compares can point out {listed(parts)}." if parts else ""


def absent(method: str, audit: Mapping[str, Any], found: Sequence[Reading]) -> list[str]:
    """Checks that the audit does not have, and why."""
    answered = {question_of(reading) for reading in found}
    reasons: dict[str, list[str]] = {}
    for question in QUESTIONS.values():
        if question not in answered:
            reasons.setdefault(question.absent, []).append(question.title.lower())
    if not effect(audit["models"][method]):
        titles = ["effect of the removal", "comparing old and new"]
        reasons["they need a retraining that repeats the original's"] = titles
    return [f"{listed(titles)} ({reason})" for reason, titles in reasons.items()]


def unnoticed(found: Sequence[Reading]) -> list[str]:
    """Differences from retrained models that are too small to be noticed, for the first figure of each check that looks for traces."""
    return [
        f"{question.title.lower()}, {_half(reading)}"
        for reading in judged(found)
        if (question := question_of(reading)).group == "trace" and question.figures[0] == reading.name
    ]


def _half(reading: Reading) -> str:
    """Half the width of the range."""
    half = reading.high - reading.mean
    if reading.words.form == "share":
        return f"{100 * half:.1f} percentage points"
    return counted(round(half), "step") if reading.words.form == "steps" else reading.told(half)
