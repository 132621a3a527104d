"""The replay of a stream: train, then take up what comes and answer requests one by one, and retrain Golds at each quarter of the requests.

OUT/stream.json      the result, described in `replay`
OUT/plan.json        what was asked for; another stream in the same folder is refused
OUT/state/           parameters and log after the last training, update or quarter; a killed replay resumes there, to the same bits
OUT/original, OUT/gold-*, OUT/retrained-*   trainings under way
"""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from recunlearn_jax import checkpoint, folders, settings
from recunlearn_jax.audit.canary import Canaries, canary_ranks, plant
from recunlearn_jax.audit.lists import top_lists
from recunlearn_jax.audit.overlap import overlap
from recunlearn_jax.backbones import backbone_kind
from recunlearn_jax.backbones.base import Sizes, shape_of
from recunlearn_jax.comparison import claim
from recunlearn_jax.config import Config, config_to_dict
from recunlearn_jax.dataset import Dataset, pair_keys
from recunlearn_jax.environment import environment
from recunlearn_jax.errors import InputError, check_type, shown
from recunlearn_jax.evaluate import forget_task, held_out_task, ranking_metrics
from recunlearn_jax.files import as_path, write_json
from recunlearn_jax.recommender import Recommender, set_up, shapes
from recunlearn_jax.requests import resolve, retained
from recunlearn_jax.stopwatch import stopwatch
from recunlearn_jax.stream.clock import Clock
from recunlearn_jax.stream.guard import Guard, Spent, objection
from recunlearn_jax.stream.learning import Learning, begun, grown, learned, neighbours_of, sizes_of_stream
from recunlearn_jax.stream.plan import Learn, Plan, Quarter, Remove, make_plan
from recunlearn_jax.train import train
from recunlearn_jax.unlearn import answer, prepare
from recunlearn_jax.unlearn.driver import find

PLAN, RESULT = "plan.json", "stream.json"
K = 20
COMPARED = 1000  # users whose lists are compared with the Golds'
WATCHED_FIGURE = f"watched recall@{K}"
WATCHED = 5000  # users whose valid pairs the guard looks at; with a thousand, chance alone moves Recall by some percent
_BLOCK = 1000


class Stream(NamedTuple):
    """What does not change while a stream is replayed."""

    whole: Dataset  # everything that ever comes
    canaries: Canaries | None
    plan: Plan
    config: Config
    sizes: Sizes
    learning: Learning
    guard: Guard
    method: str
    golds: int
    seed: int
    out: Path


def replay(
    dataset: Dataset,
    clock: Clock,
    config: Config,
    *,
    requests: int = 200,
    updates: int = 20,
    begin: float = 0.7,
    canaries: int = 10,
    golds: int = 2,
    method: str = "delta",
    learning: Learning | None = None,
    guard: Guard | None = None,
    seed: int = 0,
    out: str | Path,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Replay a data set as a stream with removal requests; the same call resumes one interrupted at any time.

    Args:
        dataset: everything that ever comes.
        clock: when its train pairs come.
        config: of the recommender.
        requests, updates, begin: see `plan.make_plan`.
        canaries: item pairs to plant, each known to eight users whom one of the first requests removes.
        golds: models retrained at each quarter of the requests; two or more show how far Golds are from each other, 0 leaves them out.
        method: that answers the requests.
        learning: how new interactions are learned; its defaults if None.
        guard: when exact retraining is due; its defaults if None.
        seed: of the plan and the model; Golds have others.
        out: folder.
        tell: receives one line per event.

    Returns:
        {"events": the log, "config", "environment", ...}, the content of OUT/stream.json. An event is a dictionary: "event" is "original",
        "learn", "remove", "retrain" or "quarter"; seconds are wall-clock time, "compiling" the part spent in the compiler.

    Raises:
        InputError: see `plan.make_plan`; a backbone or a method that a stream cannot use; or OUT holds another stream.
    """
    settings.check_seed(seed)
    out = as_path(out, "out")
    check_type(dataset, Dataset, "dataset", "`read_clock` reads a data folder")
    check_type(clock, Clock, "clock", "`read_clock` and `clock_of` make one")
    check_type(config, Config, "config", "such as `PRESETS['fast']`")
    check_type(learning or Learning(), Learning, "learning", "such as `Learning(epochs=2)`")
    check_type(guard or Guard(), Guard, "guard", "such as `Guard()`")
    if len(clock.times) != len(dataset.train):
        raise InputError(
            f"clock: {len(clock.times)} times; the data has {len(dataset.train)} train pairs, so it is not the clock of these data"
        )
    for name, count in (("golds", golds), ("canaries", canaries), ("requests", requests), ("updates", updates)):
        if type(count) is not int or count < 0:
            raise InputError(f"{name} is {shown(count)}; a whole number of at least 0 is allowed")
    chosen = find(method, None)[0]
    if chosen.retrains or chosen.exact or chosen.own_model:
        raise InputError(
            f"method {method!r} retrains, or prepares for data that stays as it is; a stream takes methods such as delta"
        )
    if backbone_kind(config.backbone).make(shape_of(dataset), config.model).solve is not None:
        raise InputError(
            f"backbone {config.backbone!r} is solved in closed form and cannot go on learning; choose another"
        )
    learning, guard = learning or Learning(), guard or Guard()
    planted, found = plant(dataset, canaries, seed=seed) if canaries else (dataset, None)
    plan = make_plan(planted, clock, requests=requests, updates=updates, begin=begin, canaries=found, seed=seed)
    sizes = sizes_of_stream(planted, neighbours_of(config.model))
    stream = Stream(planted, found, plan, config, sizes, learning, guard, method, golds, seed, out)
    identity = {
        "data": dataset.name,
        "data_checksum": dataset.checksum,
        "clock": clock.kind,
        "plan_digest": hashlib.sha256(repr(plan.events).encode() + plan.arrivals.tobytes()).hexdigest(),
        "config": config_to_dict(config),
        "method": method,
        "learning": settings.to_dict(learning),
        "guard": settings.to_dict(guard),
        "requests": requests,
        "updates": updates,
        "begin": begin,
        "canaries": canaries,
        "golds": golds,
        "seed": seed,
    }
    with folders.working(out, PLAN):
        claim(out, PLAN, identity, "stream")
        log = _replayed(stream, tell)
        result = {
            **identity,
            "summary": planted.summary(),
            "arrivals": {"before": plan.begin, "in the stream": len(plan.arrivals) - plan.begin},
            "environment": environment(),
            "time": time.strftime("%Y-%m-%d"),
            "events": log,
        }
        write_json(out / RESULT, result)
    return result


def _replayed(stream: Stream, tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """The log of all events."""
    watched = _watched(stream)
    model, log, done = _resumed(stream, watched, tell)
    for index, event in enumerate(stream.plan.events[done:], done):
        model, entries = _after(event, index, model, log, watched, stream)
        log += [{"index": index, **entry} for entry in entries]
        for entry in entries:
            tell(_line(entry))
        if len(entries) > 1 or not isinstance(event, Remove):  # trained, or compared
            _keep(stream, model, log, index + 1)
            folders.discard(_retraining(stream, index))
    return log


def _after(
    event: Learn | Remove | Quarter, index: int, model: Recommender, log: list, watched: np.ndarray, stream: Stream
) -> tuple[Recommender, list[dict[str, Any]]]:
    """The model after an event, and entries of the log."""
    key = jax.random.fold_in(jax.random.key(stream.seed), index)
    if isinstance(event, Quarter):
        return model, [_compared(event, index, model, stream)]
    if isinstance(event, Learn):
        model, entry = _learn(key, event, model, stream)
        entry |= watched_recall(model, watched)
    else:
        model, entry = _remove(event, model, stream)
    why = objection(stream.guard, spent_after([*log, entry]))
    if why is None:
        return model, [entry]
    with stopwatch() as seconds:
        setup = set_up(model.dataset, stream.config, stream.sizes, model.setup)
        model = train(setup, settings.seed_after(stream.seed, 10**6 + index), run=_retraining(stream, index))
        jax.block_until_ready(model.rows)
    spent = {
        "why": why,
        "seconds": (seconds + model.seconds).total,
        **watched_recall(model, watched),
    }
    return model, [entry, {"event": "retrain", **spent}]


def _learn(key: jax.Array, event: Learn, model: Recommender, stream: Stream) -> tuple[Recommender, dict[str, Any]]:
    arrivals = stream.plan.arrivals[event.start : event.stop]
    before = model.dataset
    with stopwatch() as seconds:
        dataset = grown(before, stream.whole, arrivals, neighbours_of(stream.config.model))
        model = learned(key, model, dataset, event, stream.plan, stream.learning)
        jax.block_until_ready(model.rows)
    new = {
        f"new {kind}": len(np.setdiff1d(dataset.train[:, c], before.train[:, c]))
        for c, kind in enumerate(("users", "items"))
    }
    pairs = len(dataset.train) - len(before.train)
    taken = {"pairs": pairs, "grown": pairs / len(before.train), **new}
    return model, {"event": "learn", **taken, "seconds": seconds.total, "compiling": seconds.compiling}


def _remove(event: Remove, model: Recommender, stream: Stream) -> tuple[Recommender, dict[str, Any]]:
    pairs, seed = len(model.dataset.train), settings.seed_after(stream.seed, event.number)
    memory = prepare(model, stream.method, seed=seed)  # in the idle time before the request
    assert memory.seconds is not None
    start = time.perf_counter()
    forget_set = resolve(event.request, model.dataset)
    resolving = time.perf_counter() - start
    model = answer(model, forget_set, stream.method, seed=seed, memory=memory)
    start = time.perf_counter()
    jax.block_until_ready(model.rows)
    entry = {
        "event": "remove",
        "number": event.number,
        "kind": event.kind,
        **forget_set.counts(),
        "share": float(forget_set.forget.sum() / pairs),
        "seconds": resolving + model.seconds.total,
        "compiling": model.seconds.compiling,
        "rows_seconds": time.perf_counter() - start,
        "preparing_seconds": memory.seconds.total,
    }
    return model, entry


def spent_after(log: list[dict[str, Any]]) -> Spent:
    """What the guard counts, from the entries of a log."""
    spent = Spent()
    for entry in log:
        if entry["event"] in {"original", "retrain"}:
            spent = Spent()
        if "share" in entry:
            spent = spent.answered(entry["share"])
        if "grown" in entry:
            spent = spent.grown(entry["grown"])
        if WATCHED_FIGURE in entry:
            spent = spent.measured(entry[WATCHED_FIGURE])
    return spent


def _watched(stream: Stream) -> np.ndarray:
    """Users whose valid pairs the guard looks at, int [n]: some of those who are there from the beginning."""
    first = begun(stream.whole, stream.plan, 0)
    users = np.intersect1d(first.valid[:, 0], first.train[:, 0])
    return np.sort(np.random.default_rng([stream.seed, 23]).permutation(users)[:WATCHED])


def watched_recall(model: Recommender, users: np.ndarray) -> dict[str, float]:
    """Valid Recall@20 of the given users who are still there, as an entry of the log has it; empty if nobody is left.

    Computed on the host, so that another number of pairs compiles nothing.
    """
    dataset = model.dataset
    here = np.intersect1d(users, np.intersect1d(dataset.valid[:, 0], dataset.train[:, 0]))
    if not len(here):
        return {}
    rows = np.asarray(model.rows)
    parts = [_found(rows, dataset, here[start : start + _BLOCK]) for start in range(0, len(here), _BLOCK)]
    return {WATCHED_FIGURE: float(np.mean(np.concatenate(parts)))}


def _found(rows: np.ndarray, dataset: Dataset, users: np.ndarray) -> np.ndarray:
    """Share of each user's valid pairs that is among the 20 best, [n]."""
    scores = rows[users] @ rows[dataset.num_users :].T
    place = np.full(dataset.num_users, -1)
    place[users] = np.arange(len(users))
    own = dataset.train[place[dataset.train[:, 0]] >= 0]
    scores[place[own[:, 0]], own[:, 1]] = -np.inf
    scores[:, dataset.removed_items] = -np.inf
    k = min(K, dataset.num_items)
    least = np.partition(scores, -k, axis=1)[:, -k]
    valid = dataset.valid[place[dataset.valid[:, 0]] >= 0]
    at = place[valid[:, 0]]
    hit = scores[at, valid[:, 1]] >= least[at]
    return np.bincount(at, hit, len(users)) / np.bincount(at, minlength=len(users))


def _compared(event: Quarter, index: int, model: Recommender, stream: Stream) -> dict[str, Any]:
    """The model in service beside Golds trained on the same data."""
    setup = set_up(model.dataset, stream.config, stream.sizes, model.setup)
    users = np.sort(
        np.random.default_rng([stream.seed, 24]).permutation(np.unique(model.dataset.train[:, 0]))[:COMPARED]
    )
    gone = _removed_pairs(stream, index, model.dataset)

    def figures(of: Recommender) -> dict[str, float]:
        found = {}
        for split in ("valid", "test"):
            task = held_out_task(of.dataset, split)
            measured = ranking_metrics(of.rows, task, (K,)) if task is not None else {}
            found |= {f"{split} {name}@{K}": measured[f"{name}@{K}"] for name in ("recall", "ndcg") if measured}
        task = forget_task(of.dataset, gone)
        if task is not None:
            found[f"removed pairs recall@{K}"] = ranking_metrics(of.rows, task, (K,))[f"recall@{K}"]
        if stream.canaries is not None:
            ranks = canary_ranks(of.rows, stream.canaries, of.dataset.num_users)
            found |= {
                "canary median rank": float(np.median(ranks)),
                "canary lowest tenth": float(np.quantile(ranks, 0.1)),
            }
        return found

    rows, lists = [], []
    for i in range(stream.golds):
        folder = stream.out / f"gold-{event.number}-{i + 1}"
        with stopwatch() as seconds:
            gold = train(setup, settings.seed_after(stream.seed, 1000 * event.number + i + 1), run=folder)
        rows.append({**figures(gold), "seconds": (seconds + gold.seconds).running, "epochs": gold.info["epochs"]})
        lists.append(top_lists(gold.rows, gold.dataset, users, K))
        folders.discard(folder)
    own = top_lists(model.rows, model.dataset, users, K)
    between = [overlap(a, b) for i, a in enumerate(lists) for b in lists[:i]]
    return {
        "event": "quarter",
        "number": event.number,
        "pairs": len(model.dataset.train),
        "removed users": int(model.dataset.removed_users.sum()),
        "removed items": int(model.dataset.removed_items.sum()),
        "stream": figures(model),
        "golds": rows,
        f"overlap@{K} with Golds": float(np.mean([overlap(own, others) for others in lists])) if lists else None,
        f"overlap@{K} between Golds": float(np.mean(between)) if between else None,
    }


def _removed_pairs(stream: Stream, index: int, dataset: Dataset) -> np.ndarray:
    """Pairs that requests so far named individually and whose user and item are still there, int [n, 2]."""
    asked = [e.request.pairs for e in stream.plan.events[:index] if isinstance(e, Remove) and len(e.request.pairs)]
    pairs = np.array(
        [(stream.whole.number("user", u), stream.whole.number("item", i)) for some in asked for u, i in some], np.int64
    ).reshape(-1, 2)
    here = ~dataset.removed_users[pairs[:, 0]] & ~dataset.removed_items[pairs[:, 1]]
    still = np.isin(pair_keys(pairs, dataset.num_items), pair_keys(dataset.train, dataset.num_items))
    return pairs[here & ~still]


def _retraining(stream: Stream, index: int) -> Path:
    return stream.out / f"retrained-{index}"


def _keep(stream: Stream, model: Recommender, log: list[dict[str, Any]], done: int) -> None:
    checkpoint.save_tree(checkpoint.state_path(stream.out, done), {"params": model.params}, log)
    checkpoint.keep_only(stream.out, done)


def _resumed(
    stream: Stream, watched: np.ndarray, tell: Callable[[str], None]
) -> tuple[Recommender, list[dict[str, Any]], int]:
    """Model, log and number of events done: from the last checkpoint, or the first training."""
    neighbours = neighbours_of(stream.config.model)
    dataset = begun(stream.whole, stream.plan, neighbours)
    saved = checkpoint.saved_epochs(stream.out)
    if not saved:
        with stopwatch() as seconds:
            original = train(set_up(dataset, stream.config, stream.sizes), stream.seed, run=stream.out / "original")
            jax.block_until_ready(original.rows)
        spent = seconds + original.seconds
        recall = watched_recall(original, watched)
        entry = {"event": "original", "pairs": len(dataset.train), "seconds": spent.total, "compiling": spent.compiling}
        log = [entry | {"epochs": original.info["epochs"], **recall}]
        tell(_line(log[0]))
        _keep(stream, original, log, 0)
        folders.discard(stream.out / "original")
        saved = [0]
    # The data of that moment is rebuilt from the plan, which costs no training.
    for event in stream.plan.events[: saved[-1]]:
        if isinstance(event, Learn):
            dataset = grown(dataset, stream.whole, stream.plan.arrivals[event.start : event.stop], neighbours)
        elif isinstance(event, Remove):
            dataset = retained(dataset, resolve(event.request, dataset))
    path = checkpoint.state_path(stream.out, saved[-1])
    setup = set_up(dataset, stream.config, stream.sizes)
    params = checkpoint.load_tree(path, {"params": shapes(setup)})["params"]
    return Recommender(setup, params), checkpoint.read_history(path), saved[-1]


def _line(entry: dict[str, Any]) -> str:
    """One event as a line for people."""
    match entry["event"]:
        case "original":
            return f"original: {entry['pairs']:,} pairs, {entry['epochs']} epochs, {entry['seconds']:.1f} s"
        case "learn":
            new = f"{entry['new users']} new users, {entry['new items']} new items"
            watched = f"; watched Recall@20 {entry[WATCHED_FIGURE]:.4f}" if WATCHED_FIGURE in entry else ""
            return f"learn: {entry['pairs']:,} pairs, {new}, {entry['seconds']:.1f} s{watched}"
        case "remove":
            return f"request {entry['number']}: {entry['kind']}, {entry['pairs']:,} pairs, {entry['seconds']:.2f} s"
        case "retrain":
            return f"the guard: {entry['why']}; retrained in {entry['seconds']:.1f} s"
    name = f"test ndcg@{K}"
    if name not in entry["stream"]:
        return f"quarter {entry['number']}"
    beside = f", Golds {np.mean([gold[name] for gold in entry['golds']]):.4f}" if entry["golds"] else ""
    return f"quarter {entry['number']}: test NDCG@{K} {entry['stream'][name]:.4f}{beside}"
