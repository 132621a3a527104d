"""Checks by name: one file each, one line here.

`register` adds one from outside the package; from then on comparisons and audits measure it, judge it and keep its figures, even for
comparisons made before it was registered.
"""

from recunlearn_jax.audit import (
    canary,
    coins,
    cooccurrence,
    dip,
    divergence,
    diversity,
    dose,
    effect,
    forgetting,
    groups,
    likelihood,
    membership,
    modality,
    overlap,
    relearn,
    sequence,
    shilling,
    update,
    utility,
)
from recunlearn_jax.audit.base import Check
from recunlearn_jax.errors import InputError
from recunlearn_jax.settings import check_name
from recunlearn_jax.verdict import Figure

CHECKS: dict[str, Check] = {
    "utility": utility.CHECK,
    "forgetting": forgetting.CHECK,
    "modality": modality.CHECK,
    "divergence": divergence.CHECK,
    "overlap": overlap.CHECK,
    "membership": membership.CHECK,
    "likelihood": likelihood.CHECK,
    "coins": coins.CHECK,
    "relearn": relearn.CHECK,
    "canary": canary.CHECK,
    "dose": dose.CHECK,
    "shilling": shilling.CHECK,
    "groups": groups.CHECK,
    "diversity": diversity.CHECK,
    "cooccurrence": cooccurrence.CHECK,
    "sequence": sequence.CHECK,
    "effect": effect.CHECK,
    "dip": dip.CHECK,
    "update": update.CHECK,
}


def register(name: str, check: Check) -> None:
    """Add a check under an unused name.

    Raises:
        InputError: see `settings.check_name`; or a figure's name is taken or contains a /.
    """
    check_name(name, "check", CHECKS)
    odd = [figure.name for figure in check.figures if "/" in figure.name]
    if odd:
        raise InputError(
            f"check {name!r}: the figure {odd[0]!r} has a /, which stands between a figure and a Gold; choose another name"
        )
    taken = {figure.name for figure in judged_figures(list(CHECKS))}
    double = [figure.name for figure in check.figures if figure.name in taken]
    if double:
        raise InputError(f"check {name!r}: the figure {double[0]!r} is another check's; choose another name for it")
    CHECKS[name] = check


def judged_figures(names: list[str]) -> list[Figure]:
    """Figures of some checks, in their order."""
    return [figure for name in names for figure in CHECKS[name].figures]
