"""MMRecUN (Sinha et al. 2025, arXiv 2405.15328): reverse BPR and a negated contrast on the forget set, BPR on the retain set.

What the paper leaves open is a setting of `UnlearnConfig`, each with its default and the experiment behind it in docs/unlearning.md: the
form of reverse BPR, the graph of the forget terms, which rows move, and the stop. The stop sees neither Gold nor test: it compares the
margin of forgotten pairs with that of pairs the model never saw, the valid pairs of retained users.

Modality data has no forget pairs. There the reverse term is a negated contrast between the affected items' output rows and the branch
F_m that the original computed from the forgotten modality.
"""

import functools
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from recunlearn_jax import losses
from recunlearn_jax.config import Config, UnlearnConfig
from recunlearn_jax.data import Dataset
from recunlearn_jax.graph import bipartite
from recunlearn_jax.models import MGCN, Graphs, Propagated, batch_views, user_item_graphs
from recunlearn_jax.requests import ForgetSet, forget_pairs
from recunlearn_jax.sampling import Sampler, build_sampler, draw_negatives, draw_pairs
from recunlearn_jax.stopwatch import stopwatch
from recunlearn_jax.train import OPTIMIZER, TrainData, Trained, descend
from recunlearn_jax.unlearn.base import Retain, Unlearned, edit, reset_rows, strip


class Work(NamedTuple):
    """Everything a step reads; an argument of the compiled program. Shapes follow the original data set, never the request."""

    retain: TrainData  # edited graphs; its sampler holds the retained pairs to repair with
    forget: TrainData  # graphs of the forget terms; its sampler holds D_f
    moving_users: jax.Array  # float32 [|U|, 1], 1 for rows of the user table that move
    moving_items: jax.Array  # float32 [|I|, 1]
    branch: jax.Array  # float32 [|I|, d], sum of the F_m rows of forgotten modality data
    branch_items: jax.Array  # int32 [|I|], the items concerned; the first num_branch_items are real
    num_branch_items: jax.Array  # int32 scalar
    forget_degree: jax.Array  # float32 [|U|], number of forget pairs of each user
    unseen: jax.Array  # float32 scalar, margin of pairs never trained on; -inf: do not stop early


class State(NamedTuple):
    """What a step changes."""

    params: Any
    opt_state: Any
    step: jax.Array  # int32 scalar
    margin: jax.Array  # float32 scalar, mean over users of the margin d of their forget pairs, in the last batch


def init(params: Any, config: UnlearnConfig) -> State:
    """State before the first step."""
    return State(params, OPTIMIZER.init(_moving(params, config)), jnp.int32(0), jnp.float32(jnp.inf))


def step(key: jax.Array, state: State, work: Work, *, model: MGCN, config: UnlearnConfig) -> tuple[State, jax.Array]:
    """One step of the objective on a retain batch and a forget batch.

    Returns:
        The new state and the loss, float scalar.
    """
    retain_key, forget_key, branch_key = jax.random.split(jax.random.fold_in(key, state.step), 3)
    *retain_batch, retain_weights = draw_pairs(retain_key, work.retain.sampler, config.batch_size)
    *forget_batch, forget_weights = draw_pairs(forget_key, work.forget.sampler, config.batch_size)
    contrast = (config.retain_contrast, config.forget_contrast) if model.modalities else (0, 0)

    def objective(moving):
        params = {**state.params, **moving}

        def views(data, batch):
            return batch_views(model, params, data.graphs, data.features, *batch)

        forget = views(work.forget, forget_batch)
        loss = losses.mmrecun(
            views(work.retain, retain_batch),
            forget,
            alpha=config.alpha,
            retain_contrast=contrast[0],
            forget_contrast=contrast[1],
            l2_weight=config.l2_weight,
            temperature=config.temperature,
            reverse=config.reverse,
            retain_weights=retain_weights,
            forget_weights=forget_weights,
        )
        branch = jax.lax.cond(
            work.num_branch_items > 0,
            lambda: branch_contrast(branch_key, params, work, model, config),
            lambda: jnp.float32(0),
        )
        positive, negative = losses.scores(forget)
        return loss - (1 - config.alpha) * config.forget_contrast * branch, positive - negative

    (loss, margins), gradients = jax.value_and_grad(objective, has_aux=True)(_moving(state.params, config))
    users = forget_weights / jnp.maximum(
        work.forget_degree[forget_batch[0]], 1
    )  # every user counts once, not every pair
    margin = jnp.sum(margins * users) / jnp.maximum(jnp.sum(users), 1e-12)
    if config.scope == "touched":
        masks = {"user_embedding": work.moving_users, "item_embedding": work.moving_items}
        gradients = jax.tree.map(jnp.multiply, gradients, masks)
    moved, opt_state = descend(gradients, state.opt_state, _moving(state.params, config), config.learning_rate)
    return State({**state.params, **moved}, opt_state, state.step + 1, margin), loss


def branch_contrast(key: jax.Array, params: Any, work: Work, model: MGCN, config: UnlearnConfig) -> jax.Array:
    """InfoNCE between output rows of items and the forgotten modality's branch; it enters the objective negated."""
    rows = jax.random.randint(key, (config.batch_size,), 0, jnp.maximum(work.num_branch_items, 1))
    items = work.branch_items[rows]
    out = cast(
        jax.Array, model.apply({"params": params}, work.retain.graphs, work.retain.features, items, method="items")
    )
    return losses.info_nce(out, work.branch[items], temperature=config.temperature)


@functools.partial(jax.jit, static_argnames=("model", "config"))
def run(key: jax.Array, params: Any, work: Work, *, model: MGCN, config: UnlearnConfig) -> tuple[State, jax.Array]:
    """Steps until the stopping rule or `config.steps`; one compiled program for requests of any kind and size.

    Returns:
        The last state and the loss of its step.
    """

    def unfinished(carry):
        state, _ = carry
        return (state.step < config.steps) & (state.margin > work.unseen)

    def body(carry):
        return step(key, carry[0], work, model=model, config=config)

    return jax.lax.while_loop(unfinished, body, (init(params, config), jnp.float32(0)))


def mmrecun(key: jax.Array, original: Trained, forget_set: ForgetSet, config: Config) -> Unlearned:
    """Answer a request with the MMRecUN objective; see `unlearn` for the contract.

    Rows of forgotten users and items are re-initialised before release whatever the settings: a released model carries none of them.
    """
    settings = config.unlearn
    with stopwatch() as seconds:
        retain = edit(original, forget_set, config)
        params = strip(original.params, retain)
        reset_key, run_key = jax.random.split(key)
        if settings.surgery_first:
            params = reset_rows(jax.random.fold_in(reset_key, 1), params, forget_set)
        work = prepare(original, forget_set, retain, params, settings)
        state, loss = run(run_key, params, work, model=retain.model, config=settings)
        params = jax.block_until_ready(reset_rows(reset_key, state.params, forget_set))
    info = {
        "steps": int(state.step),
        "loss": float(loss),
        "forget_margin": float(state.margin),
        "unseen_margin": float(work.unseen),
    }
    return Unlearned(retain.model, params, retain.dataset, retain.data, info, seconds)


def prepare(original: Trained, forget_set: ForgetSet, retain: Retain, params: Any, config: UnlearnConfig) -> Work:
    """Samplers, graphs and masks of a request, in arrays as large as the original's."""
    data, model = original.dataset, retain.model
    forgotten = forget_pairs(data, forget_set)
    moving_users, moving_items = touched_rows(data, forgotten, config.touched_degree)
    moving_users |= forget_set.users
    repair = retain.dataset.train
    if config.scope == "touched":
        near = repair[moving_users[repair[:, 0]] | moving_items[repair[:, 1]]]
        repair = near if len(near) else repair

    def sampler(pairs) -> Sampler:
        return build_sampler(
            pairs,
            data.train,
            data.num_users,
            data.num_items,
            candidates=np.unique(retain.dataset.train[:, 1]),
            capacity=len(data.train),
            history_capacity=len(data.train),
        )

    graphs = retain.data.graphs
    if config.forget_graph == "original":
        graphs = _restrict(original.data.graphs, model.modalities)
    branch, concerned = forgotten_branch(original, forget_set)
    stops = config.stop == "unseen" and config.forget_graph == "original" and len(forgotten) > 0
    return Work(
        retain=retain.data._replace(sampler=sampler(repair)),
        forget=TrainData(graphs, retain.data.features, sampler(forgotten)),
        moving_users=jnp.asarray(moving_users[:, None], jnp.float32),
        moving_items=jnp.asarray(moving_items[:, None], jnp.float32),
        branch=branch,
        branch_items=jnp.asarray(np.pad(concerned, (0, data.num_items - len(concerned))), jnp.int32),
        num_branch_items=jnp.int32(len(concerned)),
        forget_degree=jnp.asarray(np.bincount(forgotten[:, 0], minlength=data.num_users), jnp.float32),
        unseen=margin_of_unseen(original, retain, params) if stops else jnp.float32(-jnp.inf),
    )


def touched_rows(data: Dataset, forgotten: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Users and items of the forget pairs, bool [|U|] and [|I|]; with a limit, only those with at most so many train pairs.

    A popular item's row is held by many others; what one forgotten user left in it is small, and moving it costs everyone.
    """
    masks = []
    for column, size in ((0, data.num_users), (1, data.num_items)):
        mask = np.zeros(size, bool)
        mask[forgotten[:, column]] = True
        if limit:
            mask &= np.bincount(data.train[:, column], minlength=size) <= limit
        masks.append(mask)
    return masks[0], masks[1]


def margin_of_unseen(original: Trained, retain: Retain, params: Any) -> jax.Array:
    """Mean over users of the margin of retained valid pairs whose edges are put into the graph, before the first step.

    The forget terms see forgotten pairs with their edges in place. This is the same situation for pairs that no training step has seen:
    the graph knows them, the parameters do not. A forgotten pair with this margin stands out no more than they do. On tiktok it comes
    within 8 % of what a Gold model gives the forgotten pairs on that graph, for users:5% and for pairs:5% (docs/unlearning.md).

    Returns:
        float32 scalar; -inf where there is no such pair, so that all steps are done.
    """
    data = retain.dataset
    pairs = data.valid[np.isin(data.valid[:, 0], data.train[:, 0])]
    if not len(pairs):
        return jnp.float32(-jnp.inf)
    capacity = len(original.dataset.train) + len(original.dataset.valid)
    linked = bipartite(np.concatenate([data.train, pairs]), data.num_users, data.num_items)
    user_item, item_user = user_item_graphs(linked, data.num_users, original.config.model, capacity)
    graphs = retain.data.graphs._replace(user_item=user_item, item_user=item_user)
    rows = np.pad(pairs, ((0, len(original.dataset.valid) - len(pairs)), (0, 0)))
    weights = 1 / np.bincount(pairs[:, 0], minlength=data.num_users)[rows[:, 0]] * (np.arange(len(rows)) < len(pairs))
    seen = retain.data._replace(graphs=graphs)
    return _mean_margin(
        jax.random.key(0), params, seen, jnp.asarray(rows), jnp.asarray(weights, jnp.float32), model=retain.model
    )


@functools.partial(jax.jit, static_argnames="model")
def _mean_margin(key, params, data: TrainData, pairs, weights, *, model):
    users, items = pairs.T
    negatives = draw_negatives(key, data.sampler, users)
    positive, negative = losses.scores(batch_views(model, params, data.graphs, data.features, users, items, negatives))
    return jnp.sum((positive - negative) * weights) / jnp.sum(weights)


def forgotten_branch(original: Trained, forget_set: ForgetSet) -> tuple[jax.Array, np.ndarray]:
    """Sum of the original's F_m rows over forgotten modality data, [|I|, d], and the items concerned."""
    model, data = original.model, original.data
    total = jnp.zeros((model.num_items, model.embedding_size))
    concerned = np.zeros(model.num_items, bool)
    if forget_set.features:
        views = cast(
            Propagated, model.apply({"params": original.params}, data.graphs, data.features, method="propagated")
        )
        for m, rows in forget_set.features.items():
            total = total + views.modal[m][model.num_users :] * jnp.asarray(rows[:, None], jnp.float32)
            concerned |= rows
    return total, np.flatnonzero(concerned)


def _restrict(graphs: Graphs, modalities: tuple[str, ...]) -> Graphs:
    return graphs._replace(
        item_item={m: graphs.item_item[m] for m in modalities}, available={m: graphs.available[m] for m in modalities}
    )


def _moving(params: Any, config: UnlearnConfig) -> Any:
    """The parameters that the steps differentiate: with scope touched only the id tables, which leaves the rest out of the program."""
    return params if config.scope == "all" else {name: params[name] for name in ("user_embedding", "item_embedding")}
