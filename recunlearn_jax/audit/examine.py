"""Run all checks on all models of a case, and judge them by where a further Gold would fall. Comparisons and audits both use this."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

from recunlearn_jax.audit.base import Case, Check, Row, Subject
from recunlearn_jax.audit.checks import CHECKS, judged_figures
from recunlearn_jax.errors import InputError
from recunlearn_jax.unlearn import METHODS
from recunlearn_jax.verdict import Measured, judgement

Figures = dict[str, Row]  # model -> figures; more than one model where a check needs the method
Keep = Callable[[str, str, Check, Callable[[], Figures]], Figures]
"""(model, name of the check, check, make) -> the model's figures, either stored earlier or made now."""


def at_once(model: str, name: str, check: Check, make: Callable[[], Figures]) -> Figures:
    """A `Keep` that stores nothing."""
    del model, name, check
    return make()


def usual_checks() -> list[str]:
    """Names of the checks that every comparison measures."""
    return [name for name, check in CHECKS.items() if check.usual]


def examine(
    case: Case,
    subjects: Sequence[Subject],
    checks: Sequence[str],
    keep: Keep = at_once,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Measure and judge models.

    Args:
        case: with its original and Golds.
        subjects: models to judge.
        checks: names in `CHECKS`.
        keep: returns stored figures where they were measured before.
        tell: receives a line for each check that takes long.

    Returns:
        {"figures": name -> figure -> value, "checks": name -> version, "judged": the figures that are judged, "audited": whether a check
        beyond the usual ones ran, "not_finite": names, and what `verdict.judgement` gives}. A model whose output rows are not finite has no
        figures and is named under "not_finite".

    Raises:
        InputError: a Gold's output rows are not finite.
    """
    not_finite = [s.name for s in subjects if not bool(jnp.isfinite(s.model.rows).all())]
    golds = [Subject(name, gold) for name, gold in case.golds.items()]
    broken = [gold.name for gold in golds if not bool(jnp.isfinite(gold.model.rows).all())]
    if broken:
        raise InputError(f"{broken[0]}: its output rows are not finite; such a model cannot be a yardstick")
    judged = [subject for subject in subjects if subject.name not in not_finite]
    own: dict[str, Row] = {subject.name: {} for subject in [*subjects, *golds]}
    of_golds: dict[str, dict[str, Row]] = {subject.name: {} for subject in judged}
    for name in checks:
        check, prepared = CHECKS[name], _once(CHECKS[name], case)
        if check.needs == "replays" and not case.replays:
            continue
        if check.needs != "method":
            for subject in [*judged, *golds]:
                if check.needs in {"params", "replays"} and not _alike(subject, case):
                    continue  # an ensemble or EASE, which has no tables, rows and scores to compare with the original's
                make = functools.partial(_measured, prepared, subject)
                own[subject.name] |= keep(subject.name, name, check, make)[subject.name]
            continue
        for subject in judged:
            if subject.attempt is None and subject.name != "original":
                continue
            if subject.attempt is not None and METHODS[subject.attempt.method].retrains:
                continue
            make = functools.partial(_measured_with_golds, prepared, subject, golds)
            found = keep(subject.name, name, check, make)
            tell(f"{subject.name}: {name}")
            own[subject.name] |= found[subject.name]
            for gold in golds:
                of_golds[subject.name][gold.name] = {**of_golds[subject.name].get(gold.name, {}), **found[gold.name]}
    figures = judged_figures(list(checks))
    kept_seed = {s.name for s in judged if _starts_from_original(s)}
    measured = {name: Measured(own[name], of_golds[name], name in kept_seed) for name in of_golds}
    verdict = judgement(figures, measured, {gold.name: own[gold.name] for gold in golds})
    origin = {
        figure.name: {"check": CHECKS[name].number, "source": CHECKS[name].source}
        for name in checks
        for figure in CHECKS[name].figures
    }
    return {
        "figures": own,
        "checks": {name: CHECKS[name].version for name in checks},
        "judged": [figure._asdict() | origin[figure.name] for figure in figures],
        "audited": any(not CHECKS[name].usual for name in checks),
        "not_finite": not_finite,
        **verdict,
    }


def _starts_from_original(subject: Subject) -> bool:
    return subject.name == "original" or (subject.attempt is not None and not METHODS[subject.attempt.method].retrains)


def _alike(subject: Subject, case: Case) -> bool:
    """Whether a model has the parameters of the original's backbone."""
    return case.original is None or subject.model.config.backbone == case.original.config.backbone


def _measured(prepared: Callable[[], Any], subject: Subject) -> Figures:
    return {subject.name: _finite(prepared()(subject))}


def _measured_with_golds(prepared: Callable[[], Any], subject: Subject, golds: Sequence[Subject]) -> Figures:
    measure = prepared()(subject)
    return {other.name: _finite(measure(other)) for other in [subject, *golds]}


def _finite(row: Row) -> Row:
    """The row without figures that are not finite, which come from cases with no data for them."""
    return {name: value for name, value in row.items() if math.isfinite(value)}


def _once(check: Check, case: Case) -> Callable[[], Any]:
    """What a check prepares from a case, made on first use: stored figures do not need it."""
    return functools.cache(lambda: check.prepare(case))
