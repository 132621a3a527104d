"""The main job: train an original, answer a request with each method, retrain Gold, and put everything side by side.

Every model's output rows and timing are kept under OUT/parts as soon as they exist; a comparison that was cut off goes on from there.
"""

import dataclasses
import functools
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from recunlearn_jax import checkpoint
from recunlearn_jax.audit.canary import canary_ranks
from recunlearn_jax.audit.case import Case, make_case
from recunlearn_jax.audit.examine import Subject
from recunlearn_jax.audit.modality import modality_overlap
from recunlearn_jax.audit.verdict import prediction_band
from recunlearn_jax.auditing import Extra, audit, kept, likelihood_figures, make_shadows, sequence_figures
from recunlearn_jax.config import PRESETS, Config, to_dict
from recunlearn_jax.data import Dataset
from recunlearn_jax.errors import InputError
from recunlearn_jax.evaluate import forget_task, held_out_task, pair_scores, report
from recunlearn_jax.losses import bpr_divergence_jit
from recunlearn_jax.models import MGCN, build_model, init_params
from recunlearn_jax.requests import ForgetSet, Request, forget_pairs, to_json
from recunlearn_jax.stopwatch import Seconds
from recunlearn_jax.train import Trained, embed, fit, train_data
from recunlearn_jax.unlearn import METHODS, UNREPEATABLE
from recunlearn_jax.unlearn.sharded import SCHEMES, answer_by_shards

KS = (20, 500, 1000, 1500)
PARTS = "parts"


class Part(NamedTuple):
    """One model of a comparison."""

    embedding: jax.Array  # Z
    seconds: Seconds
    info: dict[str, Any]
    curve: list[float | None]  # valid metric by epoch, for models that were trained
    model: MGCN | None = None  # None for ensembles of shard models
    params: Any = None

    @property
    def subject(self) -> Subject:
        """The part as the audit takes it."""
        return Subject(self.embedding, self.model, self.params)


def compare(
    dataset: Dataset,
    request: Request,
    config: Config = PRESETS["faithful"],
    *,
    methods: Sequence[str] = ("surgery", "finetune", "mmrecun"),
    golds: int = 3,
    canaries: int = 0,
    shills: int = 0,
    audited: bool = False,
    shadows: int = 0,
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
        methods: names in `unlearn.METHODS` and `unlearn.sharded.SCHEMES`; Gold is always there.
        golds: number of Gold models; their training seeds follow `seed`.
        canaries: number of item pairs to plant, 0 for none.
        shills: number of items that planted users push, 0 for none.
        audited: run all checks of the audit too; a `results["audit"]` is added, see `auditing.audit`.
        shadows: with `audited`, number of shadow models for U-LiRA, 0 for none.
        seed: of the original and of the methods.
        out: folder for parts and results; what it already holds is not computed again.
        tell: receives one line a stage.
        on_epoch: receives each epoch's log entry.

    Returns:
        The content of OUT/results.json, described in docs/results.md.

    Raises:
        InputError: see `make_case`; or OUT holds another comparison.
    """
    known = [m for m in (*METHODS, *SCHEMES) if m != "gold"]
    unknown = [m for m in methods if m not in known]
    if unknown:
        raise InputError(f"method {unknown[0]!r} is not known; choose from {', '.join(known)}")
    if golds < 1:
        raise InputError(f"golds is {golds}; at least 1 Gold model is needed to compare with")
    if shadows and (shadows < 4 or shadows % 2):
        raise InputError(f"{shadows} shadows asked for; 0 or an even number of at least 4 is allowed")
    if shadows and not audited:
        raise InputError(f"{shadows} shadows asked for; the attack they serve is part of the audit and needs --audit")
    identity = {
        "data": dataset.name,
        "data_checksum": dataset.checksum,
        "request": to_json(request),
        "config": to_dict(config),
        "canaries": canaries,
        "shills": shills,
        "seed": seed,
    }
    _claim(out, identity)
    case = make_case(dataset, request, config, canaries, shills)
    tell(f"{case.dataset.summary()}; to forget: {_counted(case.forget_set)}")

    original, part = trained_in(out / PARTS / "original", case.dataset, config, seed, None, on_epoch)
    parts = {"original": part}
    tell(f"original: best epoch {part.info['best_epoch']}, {part.seconds.total:.1f} s")
    for name in methods:
        parts |= answered(out / PARTS, name, original, case, config, seed + 1)
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
    if audited:
        results["audit"] = examined(out / PARTS, case, original, parts, config, shadows, seed + 1, tell)
    checkpoint.write_json(out / "results.json", results)
    return results


def answered(folder: Path, name: str, original: Trained, case: Case, config: Config, seed: int) -> dict[str, Part]:
    """The answer of one method by its name, from `folder` where it is there; a method with shards brings its own original along."""
    made = [name, f"{name} original"] if name in SCHEMES else [name]
    if not all((folder / part / "part.json").exists() for part in made):
        if name in SCHEMES:
            answer = answer_by_shards(name, seed, original, case.forget_set, config, folder / f"{name} shards")
            for part, ensemble in zip(made, (answer.unlearned, answer.original), strict=True):
                info = {"trained_shards": ensemble.trained_shards}
                _save_part(folder / part, Part(ensemble.embedding, ensemble.seconds, info, []))
        else:
            answer = METHODS[name](jax.random.key(seed), original, case.forget_set, config)
            checkpoint.save_tree(folder / name / checkpoint.MODEL, answer.params)
            embedding = embed(answer.params, answer.data.graphs, answer.data.features, model=answer.model)
            _save_part(folder / name, Part(embedding, answer.seconds, answer.info, []))
    loaded = {part: _load_part(folder / part) for part in made}
    if name in METHODS:
        model, params = _load_model(folder / name, case.retain, config, case.dataset)
        loaded[name] = loaded[name]._replace(model=model, params=params)
    return loaded


def examined(
    folder: Path,
    case: Case,
    original: Trained,
    parts: dict[str, Part],
    config: Config,
    shadows: int,
    seed: int,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """The audit of all models of a comparison; what takes long is kept in `folder`."""
    golds = {name: part.subject for name, part in parts.items() if name.startswith("gold-")}
    subjects = {name: part.subject for name, part in parts.items() if name not in golds}
    methods = [name for name in subjects if name in METHODS]
    extras: dict[str, list[Extra]] = {name: [] for name in subjects}
    quality = {}
    for name in methods:
        if name in UNREPEATABLE:
            continue
        path = folder / name / f"sequence-{len(golds)}.json"
        made = kept(path, lambda name=name: sequence_figures(case, original, name, config, golds, seed=seed)._asdict())
        extras[name].append(Extra(**made))
        tell(f"{name}: answered in parts")
    if shadows:
        epochs = parts["original"].info["best_epoch"]

        @functools.cache
        def models():  # where every attack is kept, none is loaded
            return make_shadows(
                case,
                config,
                count=shadows,
                epochs=epochs,
                run=folder / f"shadows-{shadows}",
                on_epoch=lambda epoch: tell(f"{shadows} shadows: epoch {epoch} of {epochs}"),
            )

        quality = kept(folder / f"shadows-{shadows}" / "quality.json", lambda: models().quality)
        for name in ["original", *methods]:

            def attack(name=name):
                found = likelihood_figures(case, models(), name, config, subjects[name], golds, seed=seed)
                return found._asdict()

            path = folder / name / f"likelihood-{shadows}-{len(golds)}.json"
            extras[name].append(Extra(**kept(path, attack)))
            tell(f"{name}: attacked with {shadows} shadows")

    def keep(name, make):
        return kept(folder / name / f"figures-{len(golds)}.json", make)

    found = audit(case, original, subjects, golds, extras, keep)
    return found | {"shadows": shadows, "shadow_valid_recall@20": quality}


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
    """Where a further Gold would fall at 95 %, each figure on its own, for the figures that the table shows; see `prediction_band`.

    Returns:
        figure -> {"mean", "low", "high", "n"}; with too few Golds for a spread low and high are None.
    """
    golds = [row for name, row in models.items() if name.startswith("gold-")]
    band = {}
    for figure in FIGURES:
        values = [v for v in (figure_of(row, figure) for row in golds) if v is not None]
        if values:
            among = figure.startswith("divergence")
            found = prediction_band(np.array(values), sides=2, figures=1, among_golds=among)
            band[figure] = {"mean": found.mean, "low": found.low, "high": found.high, "n": found.n}
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
    if not (folder / "part.json").exists():
        trained = fit(dataset, config, seed=seed, run=folder, like=like, on_epoch=on_epoch)
        checkpoint.save_tree(folder / checkpoint.MODEL, trained.params)
        embedding = embed(trained.params, trained.data.graphs, trained.data.features, model=trained.model)
        info = {"epochs": len(trained.history), "best_epoch": trained.best["epoch"], "seed": seed}
        curve = [entry.get("recall@20") for entry in trained.history]
        _save_part(folder, Part(embedding, trained.seconds, info, curve))
    part = _load_part(folder)
    model, params = _load_model(folder, dataset, config, like)
    data = train_data(dataset, config, like)
    history = list(checkpoint.read_log(folder))
    trained = Trained(model, params, dataset, data, config, history, part.seconds)
    return trained, part._replace(model=model, params=params)


def _load_model(folder: Path, dataset: Dataset, config: Config, like: Dataset | None) -> tuple[MGCN, Any]:
    data = train_data(dataset, config, like)
    model = build_model(dataset, config.model)
    shapes = jax.eval_shape(lambda: init_params(jax.random.key(0), model, data.graphs, data.features))
    return model, checkpoint.load_tree(folder / checkpoint.MODEL, shapes)


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
