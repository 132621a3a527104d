"""The audit of a case: figures of all checks, bands from Golds, verdicts, and how often a Gold itself is accused."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from recunlearn_jax import checkpoint, runs
from recunlearn_jax.audit.case import Case
from recunlearn_jax.audit.examine import Keep, Subject, at_once, closeness, examine, forgetting, utility
from recunlearn_jax.audit.sequence import answer_in_turn, in_parts
from recunlearn_jax.audit.shadows import (
    Candidates,
    attack,
    candidates,
    shadow_data,
    shadow_request,
    train_shadows,
)
from recunlearn_jax.audit.verdict import INSIDE, bands, false_alarms, judged_figures, verdicts
from recunlearn_jax.config import Config, from_dict
from recunlearn_jax.errors import InputError
from recunlearn_jax.evaluate import held_out_task, pair_margins, ranking_metrics
from recunlearn_jax.requests import Request, resolve, retained
from recunlearn_jax.train import Trained, embed, embedding_of
from recunlearn_jax.unlearn import METHODS, UNREPEATABLE

SEQUENCE = 5  # parts of a request that is answered one after the other


class Extra(NamedTuple):
    """Figures of one method from a check that needs the method, and those of each Gold under the same check."""

    own: dict[str, float]
    golds: list[dict[str, float]]


def audit(
    case: Case,
    original: Trained,
    subjects: Mapping[str, Subject],
    golds: Mapping[str, Subject],
    extras: Mapping[str, Sequence[Extra]] | None = None,
    keep: Keep = at_once,
) -> dict[str, Any]:
    """Examine models and judge them by where a further Gold would fall.

    Args:
        case: data and request.
        original: the model before the request.
        subjects: name -> model to judge.
        golds: name -> retrained model; two or more give bands, three or more a false-alarm rate.
        extras: name of a subject -> further figures (`sequence_figures`, `likelihood_figures`).
        keep: see `audit.examine.examine`.

    Returns:
        {"figures": name -> figure -> value, "bands": figure -> ..., "verdicts": name -> figure -> {"verdict", "suspicion"},
        "misses": name -> number of figures outside, "false_alarms": ...}. The bands of a figure from extras are those of
        the method: name/figure.
    """
    figures = examine(case, subjects, golds, original, keep)
    gold_rows = {name: figures[name] for name in golds}
    asked = {name: list((extras or {}).get(name, ())) for name in subjects}
    # One number of figures for all models: those that any of them is judged by.
    further = {figure for found in asked.values() for extra in found for figure in extra.own}
    count = len(judged_figures(list(gold_rows.values()))) + len(further)
    common = bands(list(gold_rows.values()), count)
    shown = {name: band._asdict() for name, band in common.items()}
    judged = {}
    for name in subjects:
        row, rows = dict(figures[name]), [dict(gold) for gold in gold_rows.values()]
        for extra in asked[name]:
            row |= extra.own
            rows = [gold | under for gold, under in zip(rows, extra.golds, strict=True)]
        own_bands = bands(rows, count)
        shown |= {f"{name}/{f}": own_bands[f]._asdict() for f in own_bands if f not in common}
        judged[name] = verdicts(row, own_bands)
        figures[name] = row
    misses = {name: sum(v["verdict"] != INSIDE for v in found.values()) for name, found in judged.items()}
    return {
        "figures": figures,
        "golds": list(golds),
        "bands": shown,
        "verdicts": judged,
        "misses": misses,
        "false_alarms": false_alarms(gold_rows, count),
    }


def sequence_figures(
    case: Case,
    original: Trained,
    method: str,
    config: Config,
    golds: Mapping[str, Subject],
    *,
    seed: int,
    parts: int = SEQUENCE,
) -> Extra:
    """Check 10: the request in parts, one after the other, against Golds trained once on what is retained in the end.

    Args:
        case: whose request is cut.
        original: the model before it.
        method: in `unlearn.METHODS`.
        config: all settings.
        golds: name -> retrained model.
        seed: of the method.
        parts: to cut into.
    """
    answer = answer_in_turn(
        jax.random.key(seed), original, in_parts(case.forget_set, case.dataset, parts), METHODS[method], config
    )
    subject = Subject(embed(answer.params, answer.data.graphs, answer.data.features, model=answer.model))
    chosen = ("test recall@20", "forget recall@20", "BPR divergence forget")
    checks = [utility(case), forgetting(case), closeness(case, golds)]

    def figures(name, subject):
        row = {figure: value for check in checks for figure, value in check(name, subject).items()}
        return {f"sequence {figure}": row[figure] for figure in chosen if figure in row}

    return Extra(figures("sequence", subject), [figures(name, gold) for name, gold in golds.items()])


class Shadows(NamedTuple):
    """Shadow models of a case, ready to forget by any method."""

    models: list[Trained]
    chosen: Candidates
    quality: dict[str, float]  # valid Recall@20: mean and least of the shadows


def make_shadows(
    case: Case,
    config: Config,
    *,
    count: int,
    epochs: int,
    seed: int = 0,
    together: int = 1,
    run: Path | None = None,
    on_epoch: Callable[[int], None] = lambda epoch: None,
) -> Shadows:
    """Train the shadow models of a case.

    Args:
        case: whose request has forgotten pairs.
        config: settings of training.
        count: even, at least 4.
        epochs: of training each, the original's best one.
        seed: of candidates and training.
        together: shadows side by side, see `audit.shadows.train_epochs`.
        run: folder for checkpoints.
        on_epoch: called after each epoch.
    """
    chosen = candidates(case, count, seed)
    models = train_shadows(
        shadow_data(case, chosen), config, epochs, seed=seed, together=together, run=run, on_epoch=on_epoch
    )
    task = held_out_task(models[0].dataset, "valid")
    recalls = [ranking_metrics(embedding_of(m), task, (20,))["recall@20"] for m in models] if task is not None else []
    return Shadows(models, chosen, {"mean": float(np.mean(recalls)), "least": min(recalls)} if recalls else {})


def likelihood_figures(
    case: Case,
    shadows: Shadows,
    method: str,
    config: Config,
    subject: Subject,
    golds: Mapping[str, Subject],
    *,
    seed: int,
) -> Extra:
    """Check 5, U-LiRA: the attack on a method's answer, and the same attack on each Gold.

    Args:
        case: data and request.
        shadows: from `make_shadows`.
        method: in `unlearn.METHODS`, by which the shadows forget; "original" for shadows that forget nothing.
        config: all settings.
        subject: the method's answer.
        golds: name -> retrained model.
        seed: of the method.
    """
    pairs = jnp.asarray(shadows.chosen.pairs)
    shift = case.dataset.num_users

    def scores(embedding):
        return np.asarray(pair_margins(embedding, pairs, num_users=shift))

    of_shadows = []
    for i, shadow in enumerate(shadows.models):
        if method == "original":
            of_shadows.append(scores(embedding_of(shadow)))
            continue
        request = shadow_request(case, shadow.dataset, shadows.chosen.pairs[shadows.chosen.inside[i]])
        answer = METHODS[method](jax.random.fold_in(jax.random.key(seed), i), shadow, request, config)
        of_shadows.append(scores(embed(answer.params, answer.data.graphs, answer.data.features, model=answer.model)))
    stacked = np.stack(of_shadows)
    return Extra(
        attack(scores(subject.embedding), stacked, shadows.chosen),
        [attack(scores(gold.embedding), stacked, shadows.chosen) for gold in golds.values()],
    )


def audit_runs(model: Path, original: Path, golds: Sequence[Path], *, sequence: bool = True) -> dict[str, Any]:
    """The audit of an unlearned model on disk, with its original beside it.

    Args:
        model: folder that `recunlearn unlearn` wrote.
        original: folder of the model it was unlearned from.
        golds: folders of models retrained on the same retained data, by the same request.
        sequence: run check 10, which answers the request again.

    Returns:
        {"data", "request", "forgotten", "seed", "environment", "audit": see `audit`}.

    Raises:
        InputError: a folder holds no run, or the runs do not belong together.
    """
    manifest = checkpoint.read_json(model / checkpoint.MANIFEST)
    if manifest.get("kind") != "unlearned":
        raise InputError(f"{model}: holds no unlearned model; audit judges what `recunlearn unlearn` wrote")
    if len(golds) < 3:
        raise InputError(f"{len(golds)} Golds given; at least 3 are needed to know how far a Gold may be from another")
    before, answer = runs.load(original), runs.load(model)
    if manifest["original_data_checksum"] != checkpoint.read_json(original / checkpoint.MANIFEST)["data_checksum"]:
        raise InputError(f"{original}: is not the original of {model}; its data has another checksum")
    # The request is kept as it was asked: shares are drawn again by its seed.
    forget_set = resolve(Request(**manifest["request"]), before.dataset)
    retain = retained(before.dataset, forget_set)
    retrained = {}
    for i, folder in enumerate(golds, 1):
        gold = runs.load(folder)
        if gold.dataset.checksum != answer.dataset.checksum:
            raise InputError(f"{folder}: is no Gold for {model}; it was trained on other data than is retained there")
        made_by = checkpoint.read_json(folder / checkpoint.MANIFEST).get("method", "gold")
        if made_by != "gold":
            raise InputError(f"{folder}: is no Gold; it was made by the method {made_by}")
        retrained[f"gold-{i}"] = Subject(embedding_of(gold), gold.model, gold.params)
        if any(np.array_equal(retrained[f"gold-{j}"].embedding, retrained[f"gold-{i}"].embedding) for j in range(1, i)):
            raise InputError(f"{folder}: is the same model as an earlier Gold; train each with another --seed")
    case = Case(before.dataset, None, forget_set, retain)
    name, config = manifest["method"], from_dict(manifest["config"], where=str(model / checkpoint.MANIFEST))
    subjects = {
        "original": Subject(embedding_of(before), before.model, before.params),
        name: Subject(embedding_of(answer), answer.model, answer.params),
    }
    extras = {}
    if sequence and name not in UNREPEATABLE:
        extras[name] = [sequence_figures(case, before, name, config, retrained, seed=manifest["seed"])]
    return {
        "data": before.dataset.name,
        "request": manifest["request"],
        "forgotten": forget_set.counts(),
        "seed": manifest["seed"],
        "environment": checkpoint.environment(),
        "audit": audit(case, before, subjects, retrained, extras),
    }


def kept(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A dictionary from a JSON file, made and written where it is not there yet."""
    if not path.exists():
        checkpoint.write_json(path, make())
    return checkpoint.read_json(path)
