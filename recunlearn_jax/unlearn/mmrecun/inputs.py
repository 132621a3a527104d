"""What the steps of a request read, in arrays whose sizes follow the original data set: on the neighbourhood of the rows that move, or on
the whole graph."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from recunlearn_jax.backbones.base import Linear, Params
from recunlearn_jax.graph import HostGraphs
from recunlearn_jax.sampling import Sampler, build_sampler
from recunlearn_jax.unlearn.base import Problem, row_masks
from recunlearn_jax.unlearn.mmrecun.neighbourhood import (
    gather,
    neighbourhood,
    padded_length,
    reach,
    senders_of,
    taken,
)
from recunlearn_jax.unlearn.mmrecun.objective import Inputs, Part, Reach, on_neighbourhood, on_whole_graph
from recunlearn_jax.unlearn.mmrecun.stop import linear_margin_of_unseen, margin_of_unseen

MOST_NEGATIVES = 16384  # beyond so many items, negatives come from a random part of them, drawn once a request


class Made(NamedTuple):
    """A request made ready for its steps."""

    inputs: Inputs
    added: Params  # zeros, before the first step
    retain: Reach
    forget: Reach
    applied: Callable[[Params, Params], Params]
    """(parameters, what the steps added) -> parameters."""
    nodes: list[int]  # users and items that the steps see


def local_inputs(problem: Problem, params: Params, moving: tuple[np.ndarray, np.ndarray], settings: Any) -> Made:
    """For a backbone that is linear in its id tables, of which some rows move: the neighbourhood of those rows.

    Args:
        problem: of the request.
        params: with the rows that start anew.
        moving: bool [|U|], bool [|I|].
        settings: of the method.
    """
    original, backbone, retain = problem.original, problem.original.backbone, problem.retain
    data, sizes, linear, modalities = original.dataset, original.sizes, backbone.linear, backbone.modalities
    assert linear is not None
    forgotten = data.train[problem.forget_set.forget]
    concerned = _concerned(problem)
    moving_users, moving_items = moving
    # The whole graphs, for every modality of the original, so that one program serves requests of all kinds.
    before, after = linear.host(data, modalities), linear.host(retain.dataset, modalities)
    same = retain.backbone.modalities == modalities
    edited = retain.data.graphs if same else linear.device(after, sizes.pairs, sizes.neighbours)
    gates = _gates(params, original.data.features, linear=linear)

    repair = retain.dataset.train
    candidates = np.flatnonzero(np.bincount(repair[:, 1], minlength=data.num_items))
    if len(candidates) > MOST_NEGATIVES:
        drawn = np.random.default_rng(problem.forget_set.request.seed)
        candidates = np.sort(drawn.choice(candidates, MOST_NEGATIVES, False))
    # No pair is left where only rows of forgotten users or items move: retain batches weigh nothing then.
    repair = repair[moving_users[repair[:, 0]] | moving_items[repair[:, 1]]]
    senders = senders_of(before, np.concatenate(moving), *linear.layers)
    chosen = reach(senders)
    for pairs in (repair, forgotten):
        chosen[pairs[:, 0]] = True
        chosen[data.num_users + pairs[:, 1]] = True
    chosen[data.num_users + candidates] = True
    nodes = gather(chosen, data.num_users)
    inside = chosen[data.train[:, 0]] & chosen[data.num_users + data.train[:, 1]]
    history = nodes.local(data.train[inside])
    negatives = np.searchsorted(nodes.items, candidates)

    def part(whole: HostGraphs, graphs: Any, pairs: np.ndarray) -> Part:
        sampler = build_sampler(
            nodes.local(pairs),
            history,
            nodes.num_users,
            nodes.num_items,
            candidates=negatives,
            capacity=padded_length(len(pairs), sizes.pairs),
            history_capacity=padded_length(len(history), sizes.pairs),
        )
        rows = _rows(params, graphs, gates, linear=linear)
        return Part(sampler, neighbourhood(whole, rows, nodes, linear, sizes, senders))

    on_original = settings.forget_graph == "original"
    forget = part(before, original.data.graphs, forgotten) if on_original else part(after, edited, forgotten)
    here = np.searchsorted(nodes.items, np.flatnonzero(concerned))
    nothing = np.zeros(data.num_items, bool)
    lost = {m: nodes.of_items(problem.forget_set.features.get(m, nothing)) for m in modalities}
    first = _rows(
        params, original.data.graphs, gates, linear=linear
    )  # the branch is the original's, whatever graph the terms see
    local = linear.resized(nodes.num_users, nodes.num_items)
    tables = backbone.id_tables()
    place = {"users": nodes.of_users(moving_users), "items": nodes.of_items(moving_items)}
    inputs = Inputs(
        retain=part(after, edited, repair),
        forget=forget,
        gates={m: gate[nodes.padded[1]] for m, gate in gates.items()},
        moving={name: place[rows][:, None] for name, rows in tables.items()},
        branch=_branch(taken(first, *map(jnp.asarray, nodes.padded), linear=linear), lost, linear=local),
        branch_items=jnp.asarray(np.pad(here, (0, nodes.num_items - len(here))), jnp.int32),
        num_branch_items=jnp.int32(len(here)),
        forget_degree=nodes.of_users(np.bincount(forgotten[:, 0], minlength=data.num_users)),
        unseen=jnp.float32(
            linear_margin_of_unseen(problem, params, edited, gates) if _holds(problem, settings) else _ALWAYS
        ),
    )
    ids = dict(zip(("users", "items"), nodes.padded, strict=True))
    lengths = {"users": nodes.num_users, "items": nodes.num_items}
    added = {name: jnp.zeros((lengths[rows], *params[name].shape[1:])) for name, rows in tables.items()}

    def applied(params, added):  # what is behind the real ids adds 0
        return {**params, **{name: params[name].at[ids[rows]].add(added[name]) for name, rows in tables.items()}}

    return Made(
        inputs,
        added,
        on_neighbourhood(local),
        on_neighbourhood(local),
        applied,
        [len(nodes.users), len(nodes.items)],
    )


def whole_inputs(problem: Problem, params: Params, moving: tuple[np.ndarray, np.ndarray], settings: Any) -> Made:
    """For any backbone, whether some rows move or everything: the whole graph; arguments as for `local_inputs`."""
    original, backbone, retain = problem.original, problem.original.backbone, problem.retain
    data, modalities = original.dataset, backbone.modalities
    repair = retain.dataset.train
    if settings.scope == "touched":
        repair = repair[moving[0][repair[:, 0]] | moving[1][repair[:, 1]]]
    forgotten = data.train[problem.forget_set.forget]
    concerned = _concerned(problem)
    branch = None
    if backbone.linear is not None:
        nothing = np.zeros(data.num_items, bool)
        lost = {m: jnp.asarray(problem.forget_set.features.get(m, nothing), jnp.float32) for m in modalities}
        gates = _gates(params, original.data.features, linear=backbone.linear)
        rows = _rows(params, original.data.graphs, gates, linear=backbone.linear)
        branch = _branch(rows, lost, linear=backbone.linear)
    items = np.flatnonzero(concerned)

    def sampler_of(pairs: np.ndarray) -> Sampler:
        """Negatives, of forgotten pairs too, come from items that are retained."""
        sizes = {"capacity": original.sizes.pairs, "history_capacity": original.sizes.pairs}
        ids = (data.num_users, data.num_items)
        return build_sampler(pairs, data.train, *ids, candidates=retain.dataset.train[:, 1], **sizes)

    on_original = settings.forget_graph == "original"
    seen = original if on_original else retain
    inputs = Inputs(
        retain=Part(sampler_of(repair), retain.data),
        forget=Part(sampler_of(forgotten), seen.data),
        gates=None,
        moving=row_masks(*moving, backbone) if settings.scope == "touched" else None,
        branch=branch,
        branch_items=jnp.asarray(np.pad(items, (0, data.num_items - len(items))), jnp.int32),
        num_branch_items=jnp.int32(len(items)),
        forget_degree=jnp.asarray(np.bincount(forgotten[:, 0], minlength=data.num_users), jnp.float32),
        unseen=jnp.float32(margin_of_unseen(problem, params) if _holds(problem, settings) else _ALWAYS),
    )
    names = backbone.id_tables() if settings.scope == "touched" else params
    added = jax.tree.map(jnp.zeros_like, {name: params[name] for name in names})

    def applied(params, added):
        return {**params, **jax.tree.map(jnp.add, {name: params[name] for name in added}, added)}

    return Made(
        inputs,
        added,
        on_whole_graph(retain.backbone),
        on_whole_graph(seen.backbone),
        applied,
        [data.num_users, data.num_items],
    )


_ALWAYS = -np.inf


def _concerned(problem: Problem) -> np.ndarray:
    """Items that lose a feature row which the model reads, bool [|I|]."""
    lost = [rows for m, rows in problem.forget_set.features.items() if m in problem.original.backbone.modalities]
    return np.logical_or.reduce([np.zeros(problem.original.dataset.num_items, bool), *lost])


def _holds(problem: Problem, settings: Any) -> bool:
    """Whether the forget terms stop counting once forgotten pairs stand out no more than unseen ones."""
    on_original = settings.forget_graph == "original"
    return settings.forget_until == "unseen" and on_original and bool(problem.forget_set.forget.any())


@functools.partial(jax.jit, static_argnames="linear")
def _rows(params: Params, graphs: Any, gates: Any, *, linear: Linear) -> Any:
    return linear.propagated(params, graphs, gates)


@functools.partial(jax.jit, static_argnames="linear")
def _gates(params: Params, features: Any, *, linear: Linear) -> Any:
    return linear.gates(params, features)


@functools.partial(jax.jit, static_argnames="linear")
def _branch(rows: Any, lost: Any, *, linear: Linear) -> jax.Array:
    return linear.branch(rows, lost)
