"""MMRecUN (Sinha et al. 2025, arXiv 2405.15328): reverse BPR and a negated contrast on the forget set, BPR on the retain set.

    objective      one step of the objective, and all of them in one program
    inputs         what the steps read, made once a request
    stop           how long the forget terms count
    neighbourhood  the part of the graph that steps on a few rows can reach
    (`unlearn.selection`: which rows carry what is forgotten)

What the paper leaves open is a setting, each with its default and the experiment behind it in docs/unlearning.md: the form of reverse
BPR, the graph of the forget terms, which rows are re-initialised and move, and how long the forget terms count. Neither Gold nor test is
looked at.

Modality data has no forget pairs. There the reverse term is a negated contrast between the affected items' output rows and the branch
F_m that the original computed from the forgotten modality. A backbone without such a branch (any that is not `linear`) has no forget
term then.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import jax
import numpy as np

from recunlearn_jax.backbones.base import Params
from recunlearn_jax.mesh import place
from recunlearn_jax.recommender import redraw
from recunlearn_jax.unlearn.base import Method, Problem
from recunlearn_jax.unlearn.mmrecun.inputs import local_inputs, whole_inputs
from recunlearn_jax.unlearn.mmrecun.objective import run
from recunlearn_jax.unlearn.selection import touched


@dataclass(frozen=True)
class Settings:
    """MMRecUN (arXiv 2405.15328) as implemented here."""

    steps: int = 30
    """Number of steps."""
    batch_size: int = 512
    """Pairs in each step's retain batch and in its forget batch."""
    learning_rate: float = 1e-2
    alpha: float = 0.98
    """Weight of the retain terms; the forget terms weigh 1 - alpha."""
    retain_contrast: float = 0.01
    forget_contrast: float = 0.01
    """Weight of the negated InfoNCE terms on the forget set."""
    l2_weight: float = 1e-4
    temperature: float = 0.2
    reverse: Literal["swap", "ascent"] = "swap"
    """Form of reverse BPR: -log sigmoid(-d), bounded, or +log sigmoid(d), unbounded."""
    forget_graph: Literal["original", "edited"] = "original"
    """Graph on which the forget terms are computed."""
    reset: Literal["none", "forgotten", "touched"] = "touched"
    """Rows re-initialised before the steps: none, those of forgotten users and items, or every row the request touches."""
    scope: Literal["touched", "all"] = "touched"
    """Which parameters move: the embedding rows the request touches, or everything."""
    touched_degree: int = 25
    """Only users and items with at most this many train pairs count as touched; 0 means no limit."""
    forget_until: Literal["unseen", "end"] = "unseen"
    """unseen: the forget terms count only while forgotten pairs stand out more than the valid pairs of retained users, which no step has
    seen; end: they count in every step."""


# What no step reads; at one value there, so that another choice does not compile the steps anew.
BEFORE_THE_STEPS: dict[str, Any] = {
    field.name: field.default
    for field in dataclasses.fields(Settings)
    if field.name in {"forget_graph", "reset", "scope", "touched_degree", "forget_until"}
}


def mmrecun(key: jax.Array, problem: Problem, settings: Settings) -> tuple[Params, dict[str, Any]]:
    """Steps of the MMRecUN objective.

    Where the backbone's rows are linear in its id tables, steps on the touched rows run on their neighbourhood, else on the whole graph.
    """
    original, forget_set, backbone = problem.original, problem.forget_set, problem.original.backbone
    reset_key, run_key = jax.random.split(key)
    moving = touched(original.dataset, forget_set, settings.touched_degree, backbone.modalities)
    nobody = (np.zeros_like(forget_set.users), np.zeros_like(forget_set.items))
    reset = {"none": nobody, "forgotten": (forget_set.users, forget_set.items), "touched": moving}[settings.reset]
    params = redraw(reset_key, original.params, original.data, *reset, backbone=backbone)
    local = settings.scope == "touched" and backbone.linear is not None
    made = (local_inputs if local else whole_inputs)(problem, params, moving, settings)
    state, loss = run(
        run_key,
        made.added,
        params,
        place(made.inputs),
        retain=made.retain,
        forget=made.forget,
        contrast=backbone.contrast,
        settings=dataclasses.replace(settings, **BEFORE_THE_STEPS),
    )
    unseen = float(made.inputs.unseen)
    info = {
        "steps": int(state.step),
        "loss": float(loss),
        "forget_margin": float(state.margin),
        "unseen_margin": unseen if np.isfinite(unseen) else None,
        "moving_rows": int(sum(rows.sum() for rows in moving)),
        "neighbourhood": made.nodes,
    }
    return made.applied(params, state.added), info


METHOD = Method(Settings, mmrecun, source="arXiv 2405.15328")
