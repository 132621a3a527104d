"""Backbones by name: one file each, one line here.

`register` adds one from outside the package; from then on it trains, forgets by every method and is audited like any other.
"""

from recunlearn_jax.backbones import ease, freedom, lightgcn, mf, mgcn, vbpr
from recunlearn_jax.backbones.base import Backbone, BackboneKind
from recunlearn_jax.errors import InputError
from recunlearn_jax.settings import check_name, suggestion

__all__ = ["BACKBONES", "Backbone", "BackboneKind", "backbone_kind", "register"]

BACKBONES: dict[str, BackboneKind] = {
    "mgcn": mgcn.KIND,
    "lightgcn": lightgcn.KIND,
    "vbpr": vbpr.KIND,
    "freedom": freedom.KIND,
    "mf": mf.KIND,
    "ease": ease.KIND,
}


def register(name: str, kind: BackboneKind) -> None:
    """Add a backbone under a name that is free.

    Raises:
        InputError: see `settings.check_name`.
    """
    check_name(name, "backbone", BACKBONES)
    BACKBONES[name] = kind


def backbone_kind(name: str) -> BackboneKind:
    """The entry for a name.

    Raises:
        InputError: the name is unknown.
    """
    if name not in BACKBONES:
        raise InputError(f"backbone {name!r} is not known{suggestion(name, BACKBONES, 'choose from')}")
    return BACKBONES[name]
