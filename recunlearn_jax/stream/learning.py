"""Taking up what came: the data grows, item graphs grow by the new items alone, and the model goes on learning from what is new.

The id space covers the whole stream from the beginning, so no size changes and nothing is compiled twice; users and items that have
not come yet have no pair, no content and no place in a graph.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from recunlearn_jax.backbones.base import Sizes
from recunlearn_jax.dataset import Dataset
from recunlearn_jax.graph import grown_similarities, knn_similarities
from recunlearn_jax.recommender import Recommender, fresh_content, fresh_ids, replace_rows, set_up
from recunlearn_jax.sampling import build_sampler
from recunlearn_jax.settings import Checked, Count, NotNegative
from recunlearn_jax.stream.plan import Learn, Plan
from recunlearn_jax.train import check_finite, init_state, train_epoch


@dataclass(frozen=True)
class Learning(Checked):
    """How new interactions are learned."""

    epochs: Count = 2
    """Passes over the new pairs and the old ones mixed in."""
    rehearsal: NotNegative = 1.0
    """Number of old pairs per new one, drawn anew each time, so that what is known is not overwritten."""


def sizes_of_stream(whole: Dataset, neighbours: int) -> Sizes:
    """Array sizes that hold the data set at any time of a stream.

    Args:
        whole: everything that ever comes.
        neighbours: of an item in each item graph; 0 where the backbone reads none.
    """
    graphs = dict.fromkeys(whole.modalities, whole.num_items * neighbours) if neighbours else {}
    return Sizes(len(whole.train), graphs)


def begun(whole: Dataset, plan: Plan, neighbours: int) -> Dataset:
    """The data before the stream: the first arrivals, and the content of their items.

    Args:
        whole: everything that ever comes; its own item graphs hold items that have not come yet, so graphs are built from features.
        plan: of the stream.
        neighbours: of an item in each item graph; 0 for none.
    """
    train = plan.arrivals[: plan.begin]
    came = _among(train[:, 1], whole.num_items)
    features = {m: np.where(came[:, None], rows, np.float32(0)) for m, rows in whole.features.items()}
    graphs = {m: knn_similarities(rows, neighbours) for m, rows in features.items()} if neighbours else {}
    empty = np.zeros((0, 2), np.int32)
    dataset = whole.replace(train=train, valid=empty, test=empty, features=features, similarities=graphs)
    return _with_held_out(dataset, whole)


def grown(dataset: Dataset, whole: Dataset, arrivals: np.ndarray, neighbours: int) -> Dataset:
    """The data with what came since; what was removed stays removed.

    Args:
        dataset: before.
        whole: everything that ever comes.
        arrivals: int [n, 2], train pairs that came.
        neighbours: of an item in each item graph; 0 for none.
    """
    pairs = welcome(dataset, arrivals)
    known = _among(dataset.train[:, 1], dataset.num_items)
    new = np.setdiff1d(pairs[:, 1], np.flatnonzero(known))
    features, graphs = {}, {}
    for m, rows in dataset.features.items():
        unseen = new[~rows[new].any(axis=1)]
        features[m] = rows
        if len(unseen):
            features[m] = rows.copy()
            features[m][unseen] = whole.features[m][unseen]
        if neighbours:
            graphs[m] = grown_similarities(dataset.similarities[m], features[m], unseen, neighbours)
    train = np.concatenate([dataset.train, pairs])
    return _with_held_out(dataset.replace(train=train, features=features, similarities=graphs), whole)


def welcome(dataset: Dataset, arrivals: np.ndarray) -> np.ndarray:
    """The arrivals whose user and item were not removed, int [m, 2]."""
    return arrivals[~dataset.removed_users[arrivals[:, 0]] & ~dataset.removed_items[arrivals[:, 1]]]


def learned(
    key: jax.Array, model: Recommender, dataset: Dataset, event: Learn, plan: Plan, learning: Learning
) -> Recommender:
    """The model after it has taken up what came.

    Args:
        key: typed PRNG key.
        model: in service.
        dataset: its data with what came, from `grown`.
        event: what came.
        plan: of the stream; its largest update decides the size of the program.
        learning: settings.

    Raises:
        InputError: the loss is not finite.
    """
    setup = set_up(dataset, model.config, model.sizes, model.setup)
    draw, train_key = jax.random.split(key)
    users, items = (
        _among(dataset.train[:, c], n) & ~_among(model.dataset.train[:, c], n)
        for c, n in ((0, dataset.num_users), (1, dataset.num_items))
    )
    fresh = {
        **fresh_ids(draw, backbone=setup.backbone),
        **fresh_content(draw, setup.data, backbone=setup.backbone),
    }
    new_rows = {"users": users, "items": items}
    masks = {name: new_rows[setup.backbone.tables[name]] for name in fresh}
    params = replace_rows(model.params, fresh, masks)

    new = welcome(dataset, plan.arrivals[event.start : event.stop])
    rng = np.random.default_rng(int(jax.random.bits(draw, dtype=jnp.uint32)))
    count = min(round(learning.rehearsal * len(new)), len(model.dataset.train))
    old = model.dataset.train[rng.choice(len(model.dataset.train), count, replace=False)]
    largest = max(e.stop - e.start for e in plan.events if isinstance(e, Learn))
    sampler = build_sampler(
        np.concatenate([new, old]),
        dataset.train,
        dataset.num_users,
        dataset.num_items,
        capacity=largest + round(learning.rehearsal * largest),
        history_capacity=setup.sizes.pairs,
    )
    data = setup.data._replace(sampler=sampler)
    state = init_state(jax.tree.map(jnp.copy, params))  # donated to the first epoch
    for epoch in range(1, 1 + (learning.epochs if len(new) else 0)):
        state, loss = train_epoch(
            state, data, train_key, backbone=setup.backbone, config=setup.config.train.of_an_epoch
        )
        check_finite({"epoch": epoch, "loss": float(loss)}, setup.config.train)
    return Recommender(setup, jax.block_until_ready(state.params))


def neighbours_of(model: object) -> int:
    """k of a backbone's item graphs, from its settings; 0 if it reads none."""
    return getattr(model, "neighbours", 0)


def _among(ids: np.ndarray, size: int) -> np.ndarray:
    """bool [size]: which ids occur."""
    return np.bincount(ids, minlength=size) > 0


def _with_held_out(dataset: Dataset, whole: Dataset) -> Dataset:
    """The data with those held-out pairs whose user and item have come and were not removed."""
    users = _among(dataset.train[:, 0], dataset.num_users) & ~dataset.removed_users
    items = _among(dataset.train[:, 1], dataset.num_items) & ~dataset.removed_items
    here = {
        s: pairs[users[pairs[:, 0]] & items[pairs[:, 1]]] for s, pairs in (("valid", whole.valid), ("test", whole.test))
    }
    return dataset.replace(**here)
