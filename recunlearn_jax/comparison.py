"""The main job: train an original, answer a request with each method, retrain Gold, and put everything side by side.

Every model's output rows and timing are kept under OUT/parts as soon as they exist; a comparison that was cut off goes on from there.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from recunlearn_jax import checkpoint
from recunlearn_jax.audit.canary import Canaries, canary_ranks, plant
from recunlearn_jax.audit.modality import modality_overlap
from recunlearn_jax.config import PRESETS, Config, to_dict
from recunlearn_jax.data import Dataset
from recunlearn_jax.errors import InputError
from recunlearn_jax.evaluate import forget_task, held_out_task, pair_scores, report
from recunlearn_jax.graph import with_item_graphs
from recunlearn_jax.losses import bpr_divergence_jit
from recunlearn_jax.models import build_model, init_params
from recunlearn_jax.requests import ForgetSet, Request, forget_pairs, resolve, retained, to_json
from recunlearn_jax.stopwatch import Seconds
from recunlearn_jax.train import Trained, embed, fit, train_data
from recunlearn_jax.unlearn import METHODS

KS = (20, 500, 1000, 1500)
PARTS = "parts"


class Part(NamedTuple):
    """One model of a comparison."""

    embedding: jax.Array  # Z
    seconds: Seconds
    info: dict[str, Any]
    curve: list[float | None]  # valid metric by epoch, for models that were trained


class Case(NamedTuple):
    """What is compared: the data, the request and the original."""

    dataset: Dataset  # with canaries, with item graphs
    canaries: Canaries | None
    forget_set: ForgetSet
    retain: Dataset


def make_case(dataset: Dataset, request: Request, config: Config, canaries: int = 0) -> Case:
    """Plant canaries and resolve the request; canary users are forgotten in addition to it.

    Raises:
        InputError: see `requests.resolve` and `audit.canary.plant`.
    """
    dataset = with_item_graphs(dataset, config.model.neighbours)
    planted = None
    if canaries:
        before, (dataset, planted) = dataset, plant(dataset, canaries, seed=request.seed)
        request = with_canaries(request, before, planted)
    forget_set = resolve(request, dataset)
    return Case(dataset, planted, forget_set, retained(dataset, forget_set))


def with_canaries(request: Request, dataset: Dataset, planted: Canaries) -> Request:
    """The request with the canary users in addition; a share of users is drawn among those of the data set without them."""
    users = np.flatnonzero(resolve(request, dataset).users) if request.describe() != "nothing" else np.zeros(0, int)
    return dataclasses.replace(request, users=[*users.tolist(), *planted.users.tolist()])


def compare(
    dataset: Dataset,
    request: Request,
    config: Config = PRESETS["faithful"],
    *,
    methods: Sequence[str] = ("surgery", "finetune", "mmrecun"),
    golds: int = 3,
    canaries: int = 0,
    seed: int = 0,
    out: Path,
    tell: Callable[[str], None] = lambda line: None,
    on_epoch: Callable[[dict[str, Any]], None] = lambda entry: None,
) -> dict[str, Any]:
    """Compare ways of answering a request.

    Args:
        dataset: to train the original on.
        request: to be answered.
        config: settings of training and unlearning.
        methods: names in `unlearn.METHODS`; Gold is always there.
        golds: number of Gold models; their training seeds follow `seed`.
        canaries: number of item pairs to plant, 0 for none.
        seed: of the original and of the methods.
        out: folder for parts and results; what it already holds is not computed again.
        tell: receives one line a stage.
        on_epoch: receives each epoch's log entry.

    Returns:
        The content of OUT/results.json, described in docs/results.md.

    Raises:
        InputError: see `make_case`; or OUT holds another comparison.
    """
    unknown = [m for m in methods if m not in METHODS or m == "gold"]
    if unknown:
        raise InputError(
            f"method {unknown[0]!r} is not known; choose from {', '.join(m for m in METHODS if m != 'gold')}"
        )
    if golds < 1:
        raise InputError(f"golds is {golds}; at least 1 Gold model is needed to compare with")
    identity = {
        "data": dataset.name,
        "data_checksum": dataset.checksum,
        "request": to_json(request),
        "config": to_dict(config),
        "canaries": canaries,
        "seed": seed,
    }
    _claim(out, identity)
    case = make_case(dataset, request, config, canaries)
    tell(f"{case.dataset.summary()}; to forget: {_counted(case.forget_set)}")

    original, part = trained_in(out / PARTS / "original", case.dataset, config, seed, None, on_epoch)
    parts = {"original": part}
    tell(f"original: best epoch {part.info['best_epoch']}, {part.seconds.total:.1f} s")
    for name in methods:
        folder = out / PARTS / name
        if not (folder / "part.json").exists():
            answer = METHODS[name](jax.random.key(seed + 1), original, case.forget_set, config)
            embedding = embed(answer.params, answer.data.graphs, answer.data.features, model=answer.model)
            _save_part(folder, Part(embedding, answer.seconds, answer.info, []))
        parts[name] = _load_part(folder)
        tell(f"{name}: {parts[name].seconds.running:.2f} s and {parts[name].seconds.compiling:.1f} s compiling")
    for i in range(1, golds + 1):
        folder = out / PARTS / f"gold-{i}"
        parts[f"gold-{i}"] = trained_in(folder, case.retain, config, seed + 100 * i, case.dataset, on_epoch)[1]
        tell(
            f"gold {i} of {golds}: best epoch {parts[f'gold-{i}'].info['best_epoch']}, {parts[f'gold-{i}'].seconds.total:.1f} s"
        )
    results = {
        **identity,
        "forgotten": case.forget_set.counts(),
        "forget_checksum": case.forget_set.checksum,
        "summary": case.dataset.summary(),
        "environment": checkpoint.environment(),
        "time": time.strftime("%Y-%m-%d"),
        "models": measure(case, parts),
    }
    results["gold"] = gold_band(results["models"])
    results["curves"] = {name: part.curve for name, part in parts.items() if part.curve}
    checkpoint.write_json(out / "results.json", results)
    return results


def measure(case: Case, parts: dict[str, Part]) -> dict[str, dict[str, Any]]:
    """All figures of all models.

    Args:
        case: what is compared.
        parts: name -> model; Golds are named gold-1, gold-2, ...

    Returns:
        name -> {"valid": metrics, "test": metrics, "forget": metrics, "divergence": ..., "canary": ..., "seconds": ..., "info": ...}
    """
    forgotten = forget_pairs(case.dataset, case.forget_set)
    tasks = {split: held_out_task(case.retain, split) for split in ("valid", "test")}
    tasks["forget"] = forget_task(case.retain, forgotten)
    shift = np.array([0, case.dataset.num_users])
    pairs = {"forget": jnp.asarray(forgotten + shift), "retain": jnp.asarray(case.retain.train + shift)}
    golds = {name: part.embedding for name, part in parts.items() if name.startswith("gold-")}
    gold_seconds = float(np.mean([parts[name].seconds.running for name in golds]))
    models = {}
    for name, part in parts.items():
        row: dict[str, Any] = report(part.embedding, tasks, KS)
        others = [z for other, z in golds.items() if other != name]
        row["divergence"] = {
            side: float(
                np.mean([bpr_divergence_jit(pair_scores(part.embedding, p), pair_scores(z, p)) for z in others])
            )
            for side, p in pairs.items()
            if others and len(p)
        }
        if case.canaries is not None:
            ranks = canary_ranks(part.embedding, case.canaries, case.dataset.num_users)
            row["canary"] = {
                "median_rank": float(np.median(ranks)),
                "in_top_20": float(np.mean(ranks <= 20)),
                "ranks": ranks.tolist(),
            }
        if case.forget_set.features:
            row["modality_overlap"] = modality_overlap(part.embedding, case.dataset, case.forget_set.features)
        row["seconds"] = dataclasses.asdict(part.seconds) | {"running": part.seconds.running}
        row["speed_up"] = gold_seconds / max(part.seconds.running, 1e-9)
        row["info"] = part.info
        models[name] = row
    return models


def gold_band(models: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Where a further Gold would fall: mean +- t(n-1) sd sqrt(1 + 1/n) at 95 %, for the figures that the table shows.

    Returns:
        figure -> {"mean", "low", "high", "n"}; with too few Golds for a spread low and high are None.
    """
    golds = [row for name, row in models.items() if name.startswith("gold-")]
    band = {}
    for figure in FIGURES:
        values = [v for v in (figure_of(row, figure) for row in golds) if v is not None]
        if values:
            n, mean = len(values), float(np.mean(values))
            # Two Golds have one divergence, to each other: no spread to take a band from.
            band[figure] = {"mean": mean, "low": None, "high": None, "n": n}
            if n > (2 if figure.startswith("divergence") else 1):
                half = float(scipy.stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) * np.sqrt(1 + 1 / n))
                band[figure] |= {"low": mean - half, "high": mean + half}
    return band


FIGURES = (
    "valid recall@20",
    "valid ndcg@20",
    "test recall@20",
    "test ndcg@20",
    "forget recall@20",
    "forget recall@500",
    "forget recall@1000",
    "forget recall@1500",
    "divergence forget",
    "divergence retain",
    "canary median_rank",
    "modality_overlap",
)


def figure_of(row: dict[str, Any], figure: str) -> float | None:
    """A figure of a model by its name in `FIGURES`; None where the comparison does not have it."""
    value: Any = row
    for key in figure.split(" "):
        if not isinstance(value, dict) or key not in value:
            return None
        value = value[key]
    return value


def trained_in(
    folder: Path, dataset: Dataset, config: Config, seed: int, like: Dataset | None, on_epoch
) -> tuple[Trained, Part]:
    """Train or resume in `folder`, or load what is finished there."""
    if (folder / "part.json").exists():
        data = train_data(dataset, config, like)
        model = build_model(dataset, config.model)
        shapes = jax.eval_shape(lambda: init_params(jax.random.key(0), model, data.graphs, data.features))
        params = checkpoint.load_tree(folder / checkpoint.MODEL, shapes)
        part = _load_part(folder)
        return Trained(model, params, dataset, data, config, list(checkpoint.read_log(folder)), part.seconds), part
    trained = fit(dataset, config, seed=seed, run=folder, like=like, on_epoch=on_epoch)
    checkpoint.save_tree(folder / checkpoint.MODEL, trained.params)
    embedding = embed(trained.params, trained.data.graphs, trained.data.features, model=trained.model)
    info = {"epochs": len(trained.history), "best_epoch": trained.best["epoch"], "seed": seed}
    curve = [entry.get("recall@20") for entry in trained.history]
    part = Part(embedding, trained.seconds, info, curve)
    _save_part(folder, part)
    return trained, part


def _save_part(folder: Path, part: Part) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "embedding.npy", np.asarray(part.embedding))
    checkpoint.write_json(
        folder / "part.json", {"seconds": dataclasses.asdict(part.seconds), "info": part.info, "curve": part.curve}
    )


def _load_part(folder: Path) -> Part:
    saved = checkpoint.read_json(folder / "part.json")
    embedding = jnp.asarray(np.load(folder / "embedding.npy", allow_pickle=False))
    return Part(embedding, Seconds(**saved["seconds"]), saved["info"], saved["curve"])


def _claim(out: Path, identity: dict[str, Any]) -> None:
    path = out / "comparison.json"
    identity = json.loads(json.dumps(identity))  # as it reads back: tuples are lists there
    if path.exists() and checkpoint.read_json(path) != identity:
        raise InputError(f"{out}: holds a comparison of other data, request or settings; choose another folder")
    if not path.exists():
        checkpoint.write_json(path, identity)


def _counted(forget_set: ForgetSet) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in forget_set.counts().items() if count)
