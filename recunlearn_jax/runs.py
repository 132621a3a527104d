"""A model in a folder: saved with everything needed to serve it, judge it and unlearn from it again.

The format is one, whatever command wrote it, so every command works on every folder:

RUN/manifest.json    kind ("trained" or "unlearned"), data and its checksum, config, sizes, seed, how it was made, environment
RUN/model/           the parameters, nothing else
RUN/data/            the retained data, where the folder is a release; else the manifest names a folder
RUN/log.jsonl, RUN/state/    of a training, see `checkpoint`
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recunlearn_jax import checkpoint
from recunlearn_jax.backbones.base import Sizes
from recunlearn_jax.config import Config, config_from_dict, config_to_dict
from recunlearn_jax.data import Dataset, read_dataset, write_dataset
from recunlearn_jax.environment import environment
from recunlearn_jax.errors import InputError
from recunlearn_jax.files import read_json, write_json
from recunlearn_jax.recommender import Recommender, Setup, recommender, set_up, shapes
from recunlearn_jax.requests import ForgetSet, to_json
from recunlearn_jax.stopwatch import Seconds
from recunlearn_jax.unlearn.driver import find

SCHEMA_VERSION = 2
MANIFEST, DATA = "manifest.json", "data"


def begin(run: Path, dataset: Dataset, folder: Path, config: Config, seed: int) -> None:
    """Write the manifest of a training run before its first epoch, or check that a killed one is being resumed as it was begun.

    Raises:
        InputError: the folder holds a run of other data, settings or seed.
    """
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "kind": "trained",
        "data": str(folder.absolute()),
        "data_checksum": dataset.checksum,
        "config": config_to_dict(config),
        "seed": seed,
    }
    if (run / MANIFEST).exists():
        earlier = manifest_of(run)
        # Settings that are newer than the run had their defaults then.
        earlier["config"] = config_to_dict(config_from_dict(earlier["config"], str(run / MANIFEST)))
        different = [key for key in ("kind", "data_checksum", "config", "seed") if earlier.get(key) != manifest[key]]
        if different:
            raise InputError(
                f"{run}: holds a run with another {' and another '.join(different)}; choose another folder, or the same settings to resume"
            )
        return
    if run.exists() and any(run.iterdir()):
        raise InputError(f"{run}: is not empty and holds no run; choose a new folder")
    write_json(run / MANIFEST, manifest | {"environment": environment()})


def finish(run: Path, trained: Recommender, outcome: dict[str, Any]) -> None:
    """Save the best parameters and complete the manifest of a training run."""
    checkpoint.save_tree(run / checkpoint.MODEL, trained.params)
    write_json(run / MANIFEST, manifest_of(run) | {"best": trained.best, "outcome": outcome} | _made(trained))


def finished(run: Path) -> bool:
    """Whether a folder holds a model that is complete: its manifest is completed after its parameters are saved."""
    return (run / MANIFEST).exists() and "info" in manifest_of(run)


def save(run: Path, model: Recommender, data: str, facts: Mapping[str, Any]) -> None:
    """Save a model whose data stands elsewhere; the manifest comes last.

    Args:
        run: folder, which may hold the log and states of the model's training.
        model: to be saved.
        data: folder of its data, relative to the run.
        facts: `kind` and how it was made.
    """
    checkpoint.save_tree(run / checkpoint.MODEL, model.params)
    write_json(run / MANIFEST, _described(model, data) | dict(facts))


def release(run: Path, model: Recommender, facts: Mapping[str, Any]) -> None:
    """Save a model that has answered a request: parameters, retained data, manifest; nothing of what was forgotten.

    Args:
        run: new folder.
        model: the answer.
        facts: from `answer_facts`, and what else there is to say.

    Raises:
        InputError: the folder exists already.
    """
    if run.exists():
        raise InputError(f"{run}: exists already; choose another folder, so that no earlier model is overwritten")
    beside = run.with_name(run.name + ".writing")
    if beside.exists():
        raise InputError(f"{beside}: left by a run that was cut off; remove it first")
    write_dataset(model.dataset, beside / DATA)
    save(beside, model, DATA, facts)
    beside.rename(run)


def answer_facts(
    original: Recommender, forget_set: ForgetSet, method: str, settings: Any, seed: int, checksum: str | None = None
) -> dict[str, Any]:
    """What the manifest of an answer says of how it was made.

    Args:
        original: before the request.
        forget_set: resolved on it.
        method, settings, seed: as for `unlearn.answer`.
        checksum: of the original's data as it was read; that of its completed data where None.
    """
    return {
        "kind": "unlearned",
        "method": method,
        "settings": dataclasses.asdict(find(method, settings)[1]),
        "request": to_json(forget_set.request),
        "forget_checksum": forget_set.checksum,
        "forgotten": forget_set.counts(),
        "original_data_checksum": checksum or original.dataset.checksum,
        "seed": seed,
    }


def _described(model: Recommender, data: str) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "data": data,
        "data_checksum": model.dataset.checksum,
        "config": config_to_dict(model.config),
        "environment": environment(),
        **_made(model),
    }


def _made(model: Recommender) -> dict[str, Any]:
    """Sizes, info and seconds."""
    sizes = {**model.sizes._asdict(), "neighbours": dict(model.sizes.neighbours)}
    return {"sizes": sizes, "info": _finite(model.info), "seconds": dataclasses.asdict(model.seconds)}


def _finite(value: Any) -> Any:
    """The same with null for what no JSON number can say: NaN and inf, of a method that diverged."""
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def manifest_of(run: str | Path) -> dict[str, Any]:
    """The manifest of a folder.

    Raises:
        InputError: there is none, or one of another version.
    """
    path = Path(run) / MANIFEST
    manifest = read_json(path)
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if version != SCHEMA_VERSION:
        raise InputError(
            f"{path}: schema_version is {version!r}, this version reads {SCHEMA_VERSION}; make the model anew"
        )
    return manifest


def load(run: str | Path, known: Sequence[Setup] = ()) -> Recommender:
    """A model with its data, ready to serve, judge or unlearn from; over the mesh where one is set.

    Args:
        run: folder that train, unlearn or a comparison wrote.
        known: data sets that are set up already; one that fits is taken instead of reading the folder's data.

    Raises:
        InputError: the folder holds no finished model, or its data has changed since.
    """
    run = Path(run)
    manifest = manifest_of(run)
    if not finished(run):
        raise InputError(f"{run}: training has not finished; run the same train command again to resume it")
    config = config_from_dict(manifest["config"], str(run / MANIFEST))
    fitting = (s for s in known if s.config == config and s.dataset.checksum == manifest["data_checksum"])
    setup = next(fitting, None) or _read_setup(run, manifest, config)
    params = checkpoint.load_tree(run / checkpoint.MODEL, shapes(setup))
    return recommender(
        setup,
        params,
        history=tuple(checkpoint.read_log(run)),
        info=manifest["info"],
        seconds=Seconds(**manifest["seconds"]),
    )


def _read_setup(run: Path, manifest: dict[str, Any], config: Config) -> Setup:
    folder = run / manifest["data"]  # an absolute path stands for itself
    dataset = read_dataset(folder)
    if dataset.checksum != manifest["data_checksum"]:
        raise InputError(
            f"{folder}: the data has changed since {run} was made on it (checksum {dataset.checksum[:12]}, "
            f"recorded {manifest['data_checksum'][:12]}); restore it, or train again"
        )
    return set_up(dataset, config, Sizes(**manifest["sizes"]))
