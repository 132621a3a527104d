"""LightGCN: MGCN's user-item view alone, whatever content the data has.

    E0 = [E_U; E_I],  E_{l+1} = A_hat E_l,  Z = mean(E_0 .. E_L)
    loss = BPR + reg L2 over the output rows of the batch

Source: He et al. 2020 (arXiv 2002.02126). What is ours: L2 is taken over output rows, as in MGCN, and not over E0.
"""

import dataclasses
import functools
from dataclasses import dataclass

from recunlearn_jax.backbones import mgcn
from recunlearn_jax.backbones.base import Backbone, BackboneKind, Shape
from recunlearn_jax.settings import Checked, Layers, NotNegative, Width


@dataclass(frozen=True)
class Settings(Checked):
    """LightGCN."""

    embedding_size: Width = 64
    """Width d of every embedding."""
    user_item_layers: Layers = 2
    """Propagations over the user-item graph."""
    l2_weight: NotNegative = 1e-4
    layout: mgcn.Layout = "auto"
    """How graphs are propagated, see `propagate.layout`."""


@functools.cache
def make(shape: Shape, settings: Settings) -> Backbone:
    """LightGCN for a shape of data."""
    without = mgcn.make(shape._replace(modalities=()), mgcn.Settings(**dataclasses.asdict(settings)))
    return dataclasses.replace(without, name="lightgcn", shape=shape)


KIND = BackboneKind(Settings, make)
