"""A model in a folder: saved with everything needed to serve it, judge it and unlearn from it again."""

import dataclasses
from pathlib import Path
from typing import Any

import jax

from recunlearn_jax import checkpoint
from recunlearn_jax.config import Config, from_dict, to_dict
from recunlearn_jax.data import Dataset, read_dataset, write_dataset
from recunlearn_jax.errors import InputError
from recunlearn_jax.graph import with_item_graphs
from recunlearn_jax.models import build_model, init_params
from recunlearn_jax.requests import ForgetSet, to_json
from recunlearn_jax.stopwatch import Seconds
from recunlearn_jax.train import Trained, train_data
from recunlearn_jax.unlearn import Unlearned


def begin(run: Path, dataset: Dataset, folder: Path, config: Config, seed: int) -> None:
    """Write the manifest of a training run before its first epoch, or check that a killed one is being resumed as it was begun.

    Raises:
        InputError: the folder holds a run of other data, settings or seed.
    """
    manifest = {
        "kind": "trained",
        "data": str(folder.absolute()),
        "data_checksum": dataset.checksum,
        "config": to_dict(config),
        "seed": seed,
    }
    if (run / checkpoint.MANIFEST).exists():
        earlier = checkpoint.read_json(run / checkpoint.MANIFEST)
        # Settings that are newer than the run had their defaults then.
        earlier["config"] = to_dict(from_dict(earlier.get("config", {}), where=str(run / checkpoint.MANIFEST)))
        different = [key for key in ("kind", "data_checksum", "config", "seed") if earlier.get(key) != manifest[key]]
        if different:
            raise InputError(
                f"{run}: holds a run with another {' and another '.join(different)}; choose another folder, or the same settings to resume"
            )
        return
    if run.exists() and any(run.iterdir()):
        raise InputError(f"{run}: is not empty and holds no run; choose a new folder")
    checkpoint.write_json(run / checkpoint.MANIFEST, manifest | {"environment": checkpoint.environment()})


def finish(run: Path, trained: Trained, outcome: dict[str, Any]) -> None:
    """Save the best parameters and complete the manifest of a training run."""
    checkpoint.save_tree(run / checkpoint.MODEL, trained.params)
    manifest = checkpoint.read_json(run / checkpoint.MANIFEST)
    checkpoint.write_json(run / checkpoint.MANIFEST, manifest | {"best": trained.best, "outcome": outcome})


def release(
    run: Path,
    unlearned: Unlearned,
    original: Path,
    forget_set: ForgetSet,
    method: str,
    seed: int,
    config: Config,
    outcome,
) -> None:
    """Save a model that has answered a request: parameters, retained data, manifest; nothing of what was forgotten.

    Raises:
        InputError: the folder exists already.
    """
    if run.exists():
        raise InputError(f"{run}: exists already; choose another folder, so that no earlier model is overwritten")
    beside = run.with_name(run.name + ".writing")
    if beside.exists():
        raise InputError(f"{beside}: left by a run that was cut off; remove it first")
    checkpoint.save_tree(beside / checkpoint.MODEL, unlearned.params)
    write_dataset(unlearned.dataset, beside / checkpoint.DATA)
    manifest = {
        "kind": "unlearned",
        "method": method,
        "request": to_json(forget_set.request),
        "forget_checksum": forget_set.checksum,
        "forgotten": forget_set.counts(),
        "original_data_checksum": checkpoint.read_json(original / checkpoint.MANIFEST)["data_checksum"],
        "data_checksum": unlearned.dataset.checksum,
        "config": to_dict(config),
        "seed": seed,
        "info": unlearned.info,
        "seconds": dataclasses.asdict(unlearned.seconds),
        "outcome": outcome,
        "environment": checkpoint.environment(),
    }
    checkpoint.write_json(beside / checkpoint.MANIFEST, manifest)
    beside.rename(run)


def load(run: str | Path) -> Trained:
    """A model with its data, ready to serve, judge or unlearn from.

    Args:
        run: folder of a trained or unlearned model.

    Raises:
        InputError: the folder holds no finished run, or its data has changed since.
    """
    run = Path(run)
    manifest = checkpoint.read_json(run / checkpoint.MANIFEST)
    if not (run / checkpoint.MODEL).is_dir():
        raise InputError(f"{run}: training has not finished; run the same train command again to resume it")
    folder = Path(manifest["data"]) if manifest["kind"] == "trained" else run / checkpoint.DATA
    dataset = read_dataset(folder)
    if manifest["kind"] == "trained" and dataset.checksum != manifest["data_checksum"]:
        raise InputError(
            f"{folder}: the data has changed since {run} was trained on it (checksum {dataset.checksum[:12]}, "
            f"recorded {manifest['data_checksum'][:12]}); restore it, or train again"
        )
    config = from_dict(manifest["config"], where=str(run / checkpoint.MANIFEST))
    dataset = with_item_graphs(dataset, config.model.neighbours)
    data = train_data(dataset, config)
    model = build_model(dataset, config.model)
    like = jax.eval_shape(lambda: init_params(jax.random.key(0), model, data.graphs, data.features))
    params = checkpoint.load_tree(run / checkpoint.MODEL, like)
    return Trained(model, params, dataset, data, config, list(checkpoint.read_log(run)), Seconds())
