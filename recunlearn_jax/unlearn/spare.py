"""A second copy of the parts of a model that an answer changes: made before any request, written in place by the first answer to take it.

Without one, an answer lays out the graphs of the retained data and copies whole tables. With one, it writes the rows that the method moved,
the rows that are removed and the edges that change: its seconds follow the request, and the result is the same to the bit.
"""

import dataclasses
from typing import Any

import jax
import numpy as np

from recunlearn_jax import edges
from recunlearn_jax.backbones.base import Params
from recunlearn_jax.dataset import Dataset
from recunlearn_jax.in_place import own, write
from recunlearn_jax.mesh import devices_in_use
from recunlearn_jax.recommender import Recommender, Setup, on_device, tell_full_users
from recunlearn_jax.sides import Sides
from recunlearn_jax.unlearn.base import Moved, Problem, Spare, id_tables
from recunlearn_jax.unlearn.removal import content_tables, without_content

NOTHING = np.zeros(0, np.int64)


def spare(served: Recommender) -> Spare | None:
    """A spare copy of a model without gaps; None if its backbone lays graphs out anew, or if arrays are spread over a mesh.

    The programs that write into it are compiled here.
    """
    setup, backbone = served.setup, served.backbone
    if backbone.rewrite is None or devices_in_use() > 1:
        return None
    params = without_content(served.params, setup)
    params |= {name: own(table) for name, table in id_tables(params, backbone).items()}
    made = Spare(params, jax.tree.map(own, setup.graphs), edges.places_by_item(setup.sides))
    made = made._replace(
        graphs=_rewritten(made, setup, setup.sides.without(setup.dataset.train, NOTHING), setup.dataset)
    )
    ids = id_tables(params, backbone)
    no_rows = Moved(dict.fromkeys(ids, NOTHING), {name: np.asarray(table[:0]) for name, table in ids.items()})
    return made._replace(params=_written(params, no_rows))


def without_gaps(model: Recommender) -> Recommender:
    """The model with its graphs laid out anew if they were written in place: their gaps can tell which pairs were removed."""
    setup = model.setup
    if not setup.gaps:
        return model
    clean = dataclasses.replace(setup, graphs=setup.backbone.graphs(setup.dataset, setup.sizes), gaps=False)
    served = dataclasses.replace(model, setup=clean)
    if "rows" in model.__dict__:  # they are the same
        served.__dict__["rows"] = model.rows
    return served


def edited(made: Spare, before: Setup, left: Sides, dataset: Dataset) -> Setup:
    """What `set_up` gives for the retained data, from the spare graphs, which are used up.

    Args:
        made: the spare copy of the model before.
        before: that model's setup.
        left: its pairs by user and by item, without those that go.
        dataset: the retained data, with the same modalities.
    """
    tell_full_users(dataset, left.degree["users"], left.degree["items"])
    graphs = _rewritten(made, before, left, dataset)
    features = on_device(dataset, before.backbone, before)
    return Setup(before.config, before.backbone, dataset, before.sizes, graphs, features, gaps=True)


def _rewritten(made: Spare, before: Setup, left: Sides, dataset: Dataset) -> Any:
    assert before.backbone.rewrite is not None
    edit = edges.edit(before.sides, left, made.by_item)
    return before.backbone.rewrite(made.graphs, edit, before.dataset, dataset, before.sizes)


def released(made: Spare, moved: Moved, problem: Problem) -> Params:
    """Parameters that may be released (see `removal.remove`), written into the spare tables, which are used up.

    Args:
        made: the spare copy of the model before.
        moved: by a method.
        problem: what the method was given.
    """
    retain, forget_set = problem.retain, problem.forget_set
    gone = {"users": retain.dataset.removed_users, "items": retain.dataset.removed_items}
    rows = {name: np.flatnonzero(gone[kind]) for name, kind in retain.backbone.id_tables().items()}
    fresh = {name: np.asarray(problem.fresh[name])[some] for name, some in rows.items()}
    params = _written(_written(made.params, moved), Moved(rows, fresh))
    goes = {"users": forget_set.users.any(), "items": forget_set.items.any() or bool(forget_set.features)}
    if any(goes[kind] for kind in content_tables(retain.backbone).values()):
        params = without_content(params, retain)
    return params


def _written(params: Params, moved: Moved) -> Params:
    return {**params, **{name: write(params[name], rows, moved.values[name]) for name, rows in moved.rows.items()}}
