"""The driver of every method: it alone edits the data, keeps the time, removes what must not be released, and checks the result.

words -> Request -> ForgetSet -> Problem (the data edited once) -> Method.forget -> removal and checks -> Recommender
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from recunlearn_jax import settings as settings_
from recunlearn_jax.backbones.base import check_tables
from recunlearn_jax.config import config_to_dict
from recunlearn_jax.errors import InputError, check_type, shown
from recunlearn_jax.evaluate import forget_task, held_out_task, report
from recunlearn_jax.files import as_path, read_json, write_json
from recunlearn_jax.recommender import Recommender, fresh_ids, set_up
from recunlearn_jax.requests import Asked, ForgetSet, forget_pairs, resolve, retained
from recunlearn_jax.stopwatch import Seconds, stopwatch
from recunlearn_jax.unlearn.base import Memory, Method, Moved, Problem
from recunlearn_jax.unlearn.methods import METHODS
from recunlearn_jax.unlearn.removal import changed, left_over, put_in, remove, that_stay
from recunlearn_jax.unlearn.spare import edited, released, without_gaps
from recunlearn_jax.unlearn.spare import spare as spare_of


def answer(
    original: Recommender,
    request: ForgetSet | Asked,
    method: str = "delta",
    settings: Any = None,
    *,
    seed: int = 0,
    memory: Memory | None = None,
    work: str | Path | None = None,
) -> Recommender:
    """Answer a removal request: the model without what is to be forgotten.

    Args:
        original: a recommender, which may be the answer to an earlier request.
        request: words such as ["users:5%", "items:7"], a mapping such as {"users": "5%", "items": [7]}, a `Request`, or a forget set
            resolved on the original's data.
        method: name in `METHODS`.
        settings: of the method; its defaults if None.
        seed: of the method.
        memory: from `prepare`, for methods that prepare; made here if None. The first answer that takes it writes into its spare copy of
            the model; a later one is the same but slower.
        work: folder where a method may keep long work, so that the same call can resume it.

    Returns:
        A recommender of the retained data. Every row of a forgotten user, item or feature is that of a fresh model, and the
        recommender holds no reference to the original. `info` is what the method reports; `seconds` run from the resolved request to usable
        parameters and graph. They include what had to be prepared here, except for a model that had to be in service before: its seconds
        are in `info` as `preparation_seconds`.

    Raises:
        InputError: a request, method, settings, memory or work folder that does not fit.
        TypeError: the backbone or the method is at fault: an undeclared table, or parameters of another form.
        RuntimeError: the method copied a row of a forgotten user or item.

    Examples:
        >>> import recunlearn_jax as ru
        >>> original = ru.fit(ru.toy(60, 40, pairs_per_user=5, clusters=2), ru.Config("mf", train=ru.TrainConfig(max_epochs=2)))
        >>> answered = ru.answer(original, ["users:3,14"], "surgery")
        >>> answered.dataset.removed_users.nonzero()[0].tolist()
        [3, 14]
    """
    check_type(original, Recommender, "original", "`runs.load` reads a model folder")
    chosen, settings = find(method, settings)
    settings_.check_seed(seed)
    work = None if work is None else as_path(work, "work")
    forget_set = resolved(request, original)
    check_tables(original.backbone, original.params)
    if original.backbone.solve is not None and not chosen.exact:
        exact = ", ".join(name for name, entry in METHODS.items() if entry.exact)
        raise InputError(
            f"method {method!r}: {original.backbone.name!r} is solved in closed form and forgets exactly; choose from {exact}"
        )
    if chosen.retrains and "ensemble_of" in original.info:
        raise InputError(
            f"method {method!r}: the model is an ensemble of {original.info['ensemble_of']} models, which it does not hold; "
            "retrain from the model that was trained first"
        )
    if memory is not None:
        _check_memory(memory, original, method, settings, seed)
    _claim(work, "request", method, settings, seed, original, forget_set)
    forget_key = _keys(seed)[1]
    in_service_before = memory is None and chosen.own_model
    if in_service_before:
        memory = _prepared(original, method, settings, seed, work)
    with stopwatch() as seconds:
        memory = memory or _prepared(original, method, settings, seed, work)
        problem = problem_of(memory, forget_set, work)
        served, retain, fresh = problem.original, problem.retain, problem.fresh
        made, info = chosen.forget(forget_key, problem, settings)
        if not isinstance(made, Moved):
            params = remove(fresh, made, served, retain, method)
            written = changed(params, served, retain)
        else:
            made = that_stay(made, retain, served, method)
            written = made.values
            if memory.spare is not None and problem.left is not None:
                params = released(memory.spare, made, problem)
            else:
                params = remove(fresh, put_in(served.params, made), served, retain, method)
        jax.block_until_ready(params)
        left = left_over(written, fresh, retain, served, forget_set)
    if left:
        raise RuntimeError(
            f"method {method!r}: rows of forgotten users or items stand in {', '.join(left)}; nothing is released"
        )
    earlier = info.pop("earlier", Seconds())
    if in_service_before and served is not original and memory.seconds is not None:
        info["preparation_seconds"] = round(memory.seconds.total, 3)
    return Recommender(retain, params, info=info, seconds=seconds + earlier)


def prepare(
    original: Recommender, method: str, settings: Any = None, *, seed: int = 0, work: str | Path | None = None
) -> Memory:
    """What a method does before any request comes; `answer` with the same seed and this memory does not repeat it.

    Args:
        original: the model to be in service.
        method, settings, seed, work: as for `answer`.

    Returns:
        What the method remembers and, for methods that move single rows, a spare copy of the model that an answer overwrites in place. Its
        `original` is to be in service from then on: the model given, on graphs without gaps (see `Setup`), or one that the method made.
    """
    check_type(original, Recommender, "original", "`runs.load` reads a model folder")
    chosen, settings = find(method, settings)
    settings_.check_seed(seed)
    work = None if work is None else as_path(work, "work")
    if not chosen.in_place:
        return _prepared(original, method, settings, seed, work)
    with stopwatch() as seconds:
        memory = _prepared(without_gaps(original), method, settings, seed, work)
        spare = spare_of(memory.original)
    return memory._replace(of=original, spare=spare, seconds=seconds)


def _prepared(original: Recommender, method: str, settings: Any, seed: int, work: Path | None) -> Memory:
    """What must be known before a method can answer."""
    _claim(work, "preparation", method, settings, seed, original)
    with stopwatch() as seconds:
        prepare_key, _, fresh_key = _keys(seed)
        memory = METHODS[method].prepare(prepare_key, original, settings, work)
        served = memory.original
        fresh = fresh_ids(fresh_key, backbone=served.backbone)
        jax.block_until_ready((served.params, fresh))
    spent = seconds + (memory.seconds or Seconds())
    return memory._replace(of=original, settings=settings, seed=seed, fresh=fresh, seconds=spent)


@jax.jit
def _keys(seed: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Keys for preparing, for forgetting, and for the rows that replace forgotten ones; in one program, for which the first answer of a
    process waits."""
    return tuple(jax.random.split(jax.random.key(seed), 3))


def problem_of(memory: Memory, forget_set: ForgetSet, work: Path | None = None) -> Problem:
    """What a method is given: the data edited once, and set up.

    Args:
        memory: from `prepare`.
        forget_set: resolved on the data of its original.
        work: folder where a method may keep long work.
    """
    assert memory.seed is not None
    assert memory.fresh is not None
    served, fresh, spare = memory.original, memory.fresh, memory.spare
    dataset = retained(served.dataset, forget_set)
    if spare is not None and not spare.taken and dataset.modalities == served.dataset.modalities:
        left = served.setup.sides.without(served.dataset.train, forget_set.places)
        retain = edited(spare, served.setup, left, dataset)
        return Problem(served, forget_set, retain, fresh, memory.record, left, work)
    retain = set_up(dataset, served.config, served.sizes, served.setup)
    if retain.backbone is not served.backbone:
        fresh = fresh_ids(_keys(memory.seed)[2], backbone=retain.backbone)
    return Problem(served, forget_set, retain, fresh, memory.record, work=work)


def _check_memory(memory: Memory, original: Recommender, method: str, settings: Any, seed: int) -> None:
    """Check that a memory was made for this model, these settings and this seed.

    Raises:
        InputError: it was not.
    """
    check_type(memory, Memory, "memory", "`prepare` makes one")
    if original is not memory.of and original is not memory.original:
        raise InputError(f"method {method!r}: its memory was prepared for another model; prepare anew")
    for name, kept, asked in (("settings", memory.settings, settings), ("seed", memory.seed, seed)):
        if kept != asked:
            raise InputError(
                f"method {method!r}: its memory was prepared with {name} {kept}, not {asked}; prepare anew"
            )


def _claim(
    work: Path | None,
    stage: str,
    method: str,
    settings: Any,
    seed: int,
    original: Recommender,
    forget_set: ForgetSet | None = None,
) -> None:
    """Bind a work folder to what is done in it, so that work for another request, seed or setting is never resumed there."""
    if work is None:
        return
    path = work / f"{stage}.json"
    identity = {
        "method": method,
        "settings": settings_.to_dict(settings),
        "seed": seed,
        "config": config_to_dict(original.config),
        "data_checksum": original.dataset.checksum,
        "forget_checksum": "" if forget_set is None else forget_set.checksum,
    }
    if path.exists() and read_json(path) != identity:
        raise InputError(
            f"{work}: holds work on another request, or with other settings or another seed; choose another folder"
        )
    if not path.exists():
        write_json(path, identity)


def outcome(original: Recommender, answered: Recommender, forget_set: ForgetSet) -> dict[str, Any]:
    """What an answer changed: ranking metrics at 20 of both models on the retained valid and test pairs and on the forgotten ones."""
    tasks = {split: held_out_task(answered.dataset, split) for split in ("valid", "test")}
    tasks["forget"] = forget_task(answered.dataset, forget_pairs(original.dataset, forget_set))
    return {"before": report(original.rows, tasks, (20,)), "after": report(answered.rows, tasks, (20,))}


def find(method: str, settings: Any) -> tuple[Method, Any]:
    """A method by its name, and its settings: as given, from a dictionary, or the defaults.

    Raises:
        InputError: an unknown method or setting, or settings of another method.
    """
    if not isinstance(method, str) or method not in METHODS:
        hint = settings_.suggestion(str(method), METHODS, "choose from")
        raise InputError(f"method {shown(method)} is not known{hint}")
    chosen = METHODS[method]
    if settings is None:
        settings = chosen.Settings()
    elif isinstance(settings, Mapping):
        settings = settings_.from_dict(settings, chosen.Settings, method)
    elif not isinstance(settings, chosen.Settings):
        raise InputError(f"{method}: settings are {chosen.Settings.__module__}.Settings; got {settings!r}")
    return chosen, settings


def resolved(request: ForgetSet | Asked, original: Recommender) -> ForgetSet:
    """The forget set of a request on the original's data."""
    if not isinstance(request, ForgetSet):
        return resolve(request, original.dataset)
    if len(request.forget) != len(original.dataset.train):
        raise InputError(
            f"request: a forget set of {len(request.forget)} train pairs; the model's data has {len(original.dataset.train)}"
        )
    return request
