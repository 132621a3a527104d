"""MMRecUN (Sinha et al. 2025, arXiv 2405.15328): reverse BPR and a negated contrast on the forget set, BPR on the retain set.

What the paper leaves open is a setting of `UnlearnConfig`, each with its default and the experiment behind it in docs/unlearning.md: the
form of reverse BPR, the graph of the forget terms, which rows are re-initialised and move, and how long the forget terms count: while
forgotten pairs stand out more than pairs the model never saw, the valid pairs of retained users. Neither Gold nor test is looked at.

Modality data has no forget pairs. There the reverse term is a negated contrast between the affected items' output rows and the branch
F_m that the original computed from the forgotten modality.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from recunlearn_jax import losses
from recunlearn_jax.config import Config, UnlearnConfig
from recunlearn_jax.data import Dataset
from recunlearn_jax.graph import HostGraphs, bipartite, host_graphs, items_to_users
from recunlearn_jax.mesh import place, spread
from recunlearn_jax.models import MGCN, Graphs, Propagated, device_graphs, fused_items, fused_views, propagated_rows
from recunlearn_jax.products import Features
from recunlearn_jax.propagate import layout
from recunlearn_jax.requests import ForgetSet, forget_pairs
from recunlearn_jax.sampling import Sampler, build_sampler, draw_negatives, draw_pairs
from recunlearn_jax.stopwatch import stopwatch
from recunlearn_jax.train import OPTIMIZER, Trained, descend
from recunlearn_jax.unlearn.base import Retain, Unlearned, edit, reset_rows, strip
from recunlearn_jax.unlearn.neighbourhood import (
    Neighbourhood,
    Nodes,
    Sizes,
    gather,
    neighbourhood,
    reach,
    room,
    senders_of,
)

TABLES = ("user_embedding", "item_embedding")
MOST_NEGATIVES = 16384  # beyond so many items, negatives come from a random part of them, drawn once a request


class Side(NamedTuple):
    """One of the two graphs, with the pairs that are drawn on it."""

    sampler: Sampler
    hood: Neighbourhood


class Work(NamedTuple):
    """Everything a step reads beside the parameters; an argument of the compiled program. S users and T items, padded (see `Nodes`).

    With scope touched these are the nodes of the request's neighbourhood, with scope all every node.
    """

    retain: Side  # edited graph; pairs to repair with
    forget: Side  # graph of the forget terms; D_f
    gates: Mapping[
        str, jax.Array
    ]  # modality -> [T, d] of the original, the part of it that scope touched never changes
    features: Mapping[str, Features]  # modality -> [|I|, d_m]; read with scope all only
    moving: dict[str, jax.Array]  # table -> float32 [S, 1] or [T, 1], 1 for rows that move
    branch: jax.Array  # float32 [T, d], sum of the F_m rows of forgotten modality data
    branch_items: jax.Array  # int32 [T], the items concerned; the first num_branch_items are real
    num_branch_items: jax.Array  # int32 scalar
    forget_degree: jax.Array  # float32 [S], number of forget pairs of each user
    unseen: jax.Array  # float32 scalar, margin of pairs never trained on; -inf: the forget terms always count


class State(NamedTuple):
    """What a step changes."""

    moved: Any  # scope touched: what is added to the rows of the two id tables; scope all: the parameters
    opt_state: Any
    step: jax.Array  # int32 scalar
    margin: jax.Array  # float32 scalar, mean over users of the margin d of their forget pairs, in the last batch


def init(moved: Any) -> State:
    """State before the first step."""
    return State(moved, OPTIMIZER.init(moved), jnp.int32(0), jnp.float32(jnp.inf))


def touched_only(model: MGCN, params: Any, moved: Any, work: Work, side: Side) -> Propagated:
    """Rows before the fuser when only id rows move: the constant of the request and what the moved rows add."""
    added = propagated_rows(model, {**params, **moved}, side.hood.graphs, work.gates)
    base = side.hood.base
    return Propagated(
        base.content + added.content,
        base.user_modal + added.user_modal,
        base.item_modal + added.item_modal,
        base.available,
    )


def everything(model: MGCN, params: Any, moved: Any, work: Work, side: Side) -> Propagated:
    """Rows before the fuser when all parameters move."""
    gates = cast(dict, model.apply({"params": moved}, work.features, method="gates"))
    return propagated_rows(model, moved, side.hood.graphs, gates)


ROWS = {"touched": touched_only, "all": everything}


def step(
    key: jax.Array, state: State, params: Any, work: Work, *, model: MGCN, config: UnlearnConfig
) -> tuple[State, jax.Array]:
    """One step of the objective on a retain batch and a forget batch.

    Returns:
        The new state and the loss, float scalar.
    """
    retain_key, forget_key, branch_key = jax.random.split(jax.random.fold_in(key, state.step), 3)
    *retain_batch, retain_weights = spread(draw_pairs(retain_key, work.retain.sampler, config.batch_size))
    *forget_batch, forget_weights = spread(draw_pairs(forget_key, work.forget.sampler, config.batch_size))
    contrast = (config.retain_contrast, config.forget_contrast) if model.modalities else (0, 0)
    shared = {"alpha": config.alpha, "l2_weight": config.l2_weight, "temperature": config.temperature}
    rows = ROWS[config.scope]

    def keep(moved):
        every = {**params, **moved}
        retain_rows = rows(model, params, moved, work, work.retain)
        loss = losses.mmrecun_retain(
            fused_views(model, every, retain_rows, *retain_batch),
            contrast_weight=contrast[0],
            weights=retain_weights,
            **shared,
        )
        branch = jax.lax.cond(
            work.num_branch_items > 0,
            lambda: branch_contrast(branch_key, every, retain_rows, work, model, config),
            lambda: jnp.float32(0),
        )
        return loss - (1 - config.alpha) * config.forget_contrast * branch

    def forget_views(moved):
        views = fused_views(model, {**params, **moved}, rows(model, params, moved, work, work.forget), *forget_batch)
        positive, negative = losses.scores(views)
        return views, positive - negative

    def lose(moved):
        views, margins = forget_views(moved)
        loss = losses.mmrecun_forget(
            views, contrast_weight=contrast[1], reverse=config.reverse, weights=forget_weights, **shared
        )
        return loss, margins

    def with_forget_terms(moved):
        (loss, margins), gradients = jax.value_and_grad(lose, has_aux=True)(moved)
        return loss, margins, gradients

    def margins_only(moved):
        return jnp.float32(0), forget_views(moved)[1], jax.tree.map(jnp.zeros_like, moved)

    loss, gradients = jax.value_and_grad(keep)(state.moved)
    # Where nothing stands out the forget terms are 0, and so are their gradients: such a step needs the margins alone.
    standing_out = (state.margin > work.unseen) & jnp.any(forget_weights > 0)
    lost, margins, added = jax.lax.cond(standing_out, with_forget_terms, margins_only, state.moved)
    loss, gradients = loss + lost, jax.tree.map(jnp.add, gradients, added)
    # Every user counts once, not every pair.
    users = forget_weights / jnp.maximum(work.forget_degree[forget_batch[0]], 1)
    margin = jnp.sum(margins * users) / jnp.maximum(jnp.sum(users), 1e-12)
    if config.scope == "touched":
        gradients = jax.tree.map(jnp.multiply, gradients, work.moving)
    moved, opt_state = descend(gradients, state.opt_state, state.moved, config.learning_rate)
    return State(moved, opt_state, state.step + 1, margin), loss


def branch_contrast(
    key: jax.Array, params: Any, rows: Propagated, work: Work, model: MGCN, config: UnlearnConfig
) -> jax.Array:
    """InfoNCE between output rows of items and the forgotten modality's branch; it enters the objective negated."""
    chosen = jax.random.randint(key, (config.batch_size,), 0, jnp.maximum(work.num_branch_items, 1))
    items = work.branch_items[chosen]
    out = fused_items(model, params, rows, items)
    return losses.info_nce(out.embedding, work.branch[items], temperature=config.temperature)


@functools.partial(jax.jit, static_argnames=("model", "config"))
def run(
    key: jax.Array, moved: Any, params: Any, work: Work, *, model: MGCN, config: UnlearnConfig
) -> tuple[State, jax.Array]:
    """All steps; one compiled program for requests of any kind and size.

    Returns:
        The last state and the loss of its step.
    """

    def body(_, carry):
        return step(key, carry[0], params, work, model=model, config=config)

    return jax.lax.fori_loop(0, config.steps, body, (init(moved), jnp.float32(0)))


def mmrecun(key: jax.Array, original: Trained, forget_set: ForgetSet, config: Config) -> Unlearned:
    """Answer a request with the MMRecUN objective; see `unlearn` for the contract.

    Rows of forgotten users and items are re-initialised before release whatever the settings: a released model carries none of them.
    """
    settings = config.unlearn
    with stopwatch() as seconds:
        retain = edit(original, forget_set, config)
        reset_key, run_key = jax.random.split(key)
        moving = moving_rows(original.dataset, forget_set, settings.touched_degree)
        rows = {"none": ([], []), "forgotten": (forget_set.users, forget_set.items), "touched": moving}[settings.reset]
        params = reset_rows(jax.random.fold_in(reset_key, 1), original.params, *rows)
        nodes, work = prepare(original, forget_set, retain, params, moving, settings)
        work = place(work)
        model = original.model.clone(num_users=nodes.num_users, num_items=nodes.num_items)
        moved = params
        if settings.scope == "touched":
            moved = {name: jnp.zeros((len(work.moving[name]), model.embedding_size)) for name in TABLES}
        rest = {name: value for name, value in params.items() if name not in moved}
        state, loss = run(run_key, moved, rest, work, model=model, config=settings)
        answer = state.moved
        if settings.scope == "touched":
            ids = dict(zip(TABLES, nodes.padded, strict=True))  # what is behind the real ids adds 0
            answer = {**params, **{name: params[name].at[ids[name]].add(state.moved[name]) for name in TABLES}}
        answer = jax.block_until_ready(reset_rows(reset_key, strip(answer, retain), forget_set.users, forget_set.items))
    info = {
        "steps": int(state.step),
        "loss": float(loss),
        "forget_margin": float(state.margin),
        "unseen_margin": float(work.unseen) if np.isfinite(work.unseen) else None,
        "moving_rows": int(sum(x.sum() for x in work.moving.values())),
        "neighbourhood": [len(nodes.users), len(nodes.items)],
    }
    return Unlearned(retain.model, answer, retain.dataset, retain.data, info, seconds)


def prepare(
    original: Trained,
    forget_set: ForgetSet,
    retain: Retain,
    params: Any,
    moving: tuple[np.ndarray, np.ndarray],
    config: UnlearnConfig,
) -> tuple[Nodes, Work]:
    """Everything the steps of a request read, in arrays whose sizes follow the original data set."""
    data, model, settings = original.dataset, original.model, original.config.model
    forgotten = forget_pairs(data, forget_set)
    concerned = np.logical_or.reduce([np.zeros(data.num_items, bool), *forget_set.features.values()])
    moving_users, moving_items = moving
    # The whole graphs, for every modality of the original, so that one program serves requests of all kinds.
    before, after = host_graphs(data), host_graphs(retain.dataset, model.modalities)
    sizes = Sizes(len(original.sizes.train), {m: original.sizes.similarities[m].nnz for m in model.modalities})
    same = retain.model.modalities == model.modalities
    edited = retain.data.graphs if same else device_graphs(after, settings, sizes.pairs, sizes.neighbours)
    gates = cast(dict, _gates(params, original.data.features, model=model))

    repair = retain.dataset.train
    candidates = np.flatnonzero(np.bincount(repair[:, 1], minlength=data.num_items))
    if len(candidates) > MOST_NEGATIVES:
        candidates = np.sort(np.random.default_rng(forget_set.request.seed).choice(candidates, MOST_NEGATIVES, False))
    if config.scope == "touched":
        # No pair is left where only rows of forgotten users or items move: retain batches weigh nothing then.
        repair = repair[moving_users[repair[:, 0]] | moving_items[repair[:, 1]]]
        senders = senders_of(before, np.concatenate(moving), model.user_item_layers, model.item_item_layers)
        chosen = reach(senders)
        for pairs in (repair, forgotten):
            chosen[pairs[:, 0]] = True
            chosen[data.num_users + pairs[:, 1]] = True
        chosen[data.num_users + candidates] = True
    else:
        senders, chosen = None, np.ones(data.num_users + data.num_items, bool)
    nodes = gather(chosen, data.num_users)
    inside = chosen[data.train[:, 0]] & chosen[data.num_users + data.train[:, 1]]
    history = nodes.local(data.train[inside])
    kept = np.searchsorted(nodes.items, candidates)

    def side(whole: HostGraphs, graphs: Graphs, pairs: np.ndarray) -> Side:
        sampler = build_sampler(
            nodes.local(pairs),
            history,
            nodes.num_users,
            nodes.num_items,
            candidates=kept,
            capacity=room(len(pairs), sizes.pairs),
            history_capacity=room(len(history), sizes.pairs),
        )
        rows = _rows(params, graphs, gates, model=model)
        return Side(sampler, neighbourhood(whole, rows, nodes, settings, sizes, senders))

    on_original = config.forget_graph == "original"
    holds = config.forget_until == "unseen" and on_original and len(forgotten) > 0
    forget = side(before, original.data.graphs, forgotten) if on_original else side(after, edited, forgotten)
    here = np.searchsorted(nodes.items, np.flatnonzero(concerned))
    lost = {m: nodes.of_items(forget_set.features.get(m, np.zeros(data.num_items, bool))) for m in model.modalities}
    degree = np.bincount(forgotten[:, 0], minlength=data.num_users)
    return nodes, Work(
        retain=side(after, edited, repair),
        forget=forget,
        gates={m: gate[nodes.padded[1]] for m, gate in gates.items()},
        features=original.data.features if config.scope == "all" else {},
        moving={TABLES[0]: nodes.of_users(moving_users)[:, None], TABLES[1]: nodes.of_items(moving_items)[:, None]},
        branch=_branch(forget.hood.base, lost),
        branch_items=jnp.asarray(np.pad(here, (0, nodes.num_items - len(here))), jnp.int32),
        num_branch_items=jnp.int32(len(here)),
        forget_degree=nodes.of_users(degree),
        unseen=margin_of_unseen(original, retain, params, edited, gates) if holds else jnp.float32(-jnp.inf),
    )


@functools.partial(jax.jit, static_argnames="model")
def _rows(params, graphs, gates, *, model):
    return propagated_rows(model, params, graphs, gates)


@functools.partial(jax.jit, static_argnames="model")
def _gates(params, features, *, model):
    return model.apply({"params": params}, features, method="gates")


@jax.jit
def _branch(rows: Propagated, lost: Mapping[str, jax.Array]) -> jax.Array:
    """Sum of the F_m rows of items over the modalities they lose, [T, d]."""
    shares = [lost[m][:, None] for m in rows.available]
    if not shares:
        return jnp.zeros_like(rows.content[len(rows.user_modal) :])
    modal = jnp.split(rows.item_modal, len(shares), axis=1)
    return jnp.asarray(sum(share * f for share, f in zip(shares, modal, strict=True)))


def moving_rows(data: Dataset, forget_set: ForgetSet, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Users and items whose rows carry what is forgotten, bool [|U|] and [|I|]: the forgotten ones themselves, the two ends of each forget
    pair, and items that lose a feature row; with a limit, only those with at most so many train pairs.

    A popular item's row is held by many others; what one forgotten user left in it is small, and moving it costs everyone.
    """
    forgotten = forget_pairs(data, forget_set)
    masks = []
    for column, whole in ((0, forget_set.users), (1, forget_set.items)):
        mask = np.bincount(forgotten[:, column], minlength=len(whole)) > 0
        if column == 1:
            mask = np.logical_or.reduce([mask, *forget_set.features.values()])
        if limit:
            mask &= np.bincount(data.train[:, column], minlength=len(whole)) <= limit
        masks.append(mask | whole)
    return masks[0], masks[1]


def margin_of_unseen(
    original: Trained, retain: Retain, params: Any, edited: Graphs, gates: Mapping[str, jax.Array]
) -> jax.Array:
    """Mean over users of the margin of retained valid pairs whose edges are put into the graph, before the first step.

    The forget terms see forgotten pairs with their edges in place. This is the same situation for pairs that no training step has seen:
    the graph knows them, the parameters do not. A forgotten pair with this margin stands out no more than they do.

    Returns:
        float32 scalar; -inf where there is no such pair, so that the forget terms always count.
    """
    data, settings = retain.dataset, original.config.model
    trained = np.bincount(data.train[:, 0], minlength=data.num_users) > 0
    pairs = data.valid[trained[data.valid[:, 0]]]
    if not len(pairs):
        return jnp.float32(-jnp.inf)
    capacity = len(original.sizes.train) + len(original.sizes.valid)
    linked = bipartite(np.concatenate([data.train, pairs]), data.num_users, data.num_items)
    graphs = edited._replace(
        user_item=layout(linked, settings.layout, 2 * capacity),
        item_user=layout(items_to_users(linked, data.num_users), settings.layout, capacity),
    )
    rows = np.pad(pairs, ((0, len(original.sizes.valid) - len(pairs)), (0, 0)))
    # Padding names user 0, who may have no pair: its share is 0 all the same, not 0 * inf.
    share = 1 / np.maximum(np.bincount(pairs[:, 0], minlength=data.num_users), 1)
    weights = share[rows[:, 0]] * (np.arange(len(rows)) < len(pairs))
    return _mean_margin(
        jax.random.key(0),
        params,
        graphs,
        gates,
        retain.data.sampler,
        jnp.asarray(rows),
        jnp.asarray(weights, jnp.float32),
        model=original.model,
    )


@functools.partial(jax.jit, static_argnames="model")
def _mean_margin(key, params, graphs, gates, sampler: Sampler, pairs, weights, *, model):
    users, items = pairs.T
    rows = propagated_rows(model, params, graphs, gates)
    views = fused_views(model, params, rows, users, items, draw_negatives(key, sampler, users))
    positive, negative = losses.scores(views)
    return jnp.sum((positive - negative) * weights) / jnp.sum(weights)
