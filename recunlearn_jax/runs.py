"""A model in a folder: saved with everything needed to serve it, judge it and unlearn from it again.

All commands write the same format, so every command works on every folder:

RUN/manifest.json    kind ("trained" or "unlearned"), data and its checksum, config, sizes, seed, how it was made, its log, environment
RUN/model/           the parameters, nothing else
RUN/data/            the retained data, if the folder is a release; else the manifest names a folder
RUN/ledger.jsonl     what was done to get here, see `ledger`
RUN/log.jsonl, RUN/state/    of a training, see `checkpoint`
"""

import dataclasses
import hashlib
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from recunlearn_jax import checkpoint, folders, ledger
from recunlearn_jax import manifest as manifests
from recunlearn_jax.backbones.base import Params, Sizes, flat
from recunlearn_jax.config import Config, config_from_dict, config_to_dict
from recunlearn_jax.data import put_dataset, read_dataset
from recunlearn_jax.dataset import Dataset
from recunlearn_jax.environment import environment
from recunlearn_jax.errors import InputError, Note
from recunlearn_jax.files import as_path
from recunlearn_jax.recommender import Recommender, Setup, set_up, shapes
from recunlearn_jax.requests import ForgetSet, to_json
from recunlearn_jax.stopwatch import Seconds
from recunlearn_jax.unlearn.driver import find

SCHEMA_VERSION, MANIFEST, DATA = manifests.SCHEMA_VERSION, manifests.FILE, "data"


def begin(
    run: str | Path,
    dataset: Dataset,
    folder: str | Path,
    config: Config,
    seed: int,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write the manifest of a training run before its first epoch, or check that a killed run is being resumed as it was begun.

    A run that left no checkpoint, such as one that diverged, may begin anew with other settings. If the data has moved, its new place is
    recorded.

    Args:
        run: folder, which this process holds (`folders.working`).
        dataset, folder: the data and where it is.
        config, seed: of the training.
        facts: what else goes into the manifest.

    Raises:
        InputError: the folder holds a run with other data, settings or seed, or something other than a run.
    """
    run = as_path(run, "run")
    manifest = {
        "kind": "trained",
        "data": str(as_path(folder, "folder").absolute()),
        "data_checksum": dataset.checksum,
        "config": config_to_dict(config),
        "seed": seed,
        **(facts or {}),
    }
    if (run / MANIFEST).exists():
        earlier = manifest_of(run)
        # Settings added since the run was begun had their defaults then.
        earlier["config"] = config_to_dict(config_from_dict(earlier["config"], str(run / MANIFEST)))
        different = _differences(earlier, manifest, ("kind", "data_checksum", "config", "seed", *(facts or {})))
        if not different:
            if earlier.get("data") != manifest["data"]:
                manifests.write(run, earlier | {"data": manifest["data"]})
            return
        if finished(run) or checkpoint.saved_epochs(run):
            raise InputError(
                f"{run}: holds a run with another {' and another '.join(different)}; choose another folder, or the same settings to resume"
            )
    elif not folders.unclaimed(run, MANIFEST):
        raise InputError(f"{run}: is not empty and holds no run; choose a new folder")
    manifests.write(run, manifest | {"data_salt": ledger.new_salt(), "environment": environment()})


def _differences(earlier: Mapping[str, Any], now: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    """What is different; single settings by name and value."""
    found = []
    for key in keys:
        old, new = earlier.get(key), now[key]
        if key == "config" and old is not None:
            for group in new:
                a, b = (x[group] if isinstance(x[group], dict) else {"": x[group]} for x in (old, new))
                found += [f"{group}{'.' if n else ''}{n} ({a.get(n)} there, {b[n]} now)" for n in b if a.get(n) != b[n]]
        elif old != new:
            found.append(key if key == "data_checksum" else f"{key} ({old} there, {new} now)")
    return found


def finish(
    run: str | Path, trained: Recommender, outcome: dict[str, Any], entries: Sequence[ledger.Entry] = ()
) -> None:
    """Save the best parameters and complete the manifest of a training run.

    Args:
        run: folder, begun.
        trained: the model.
        outcome: its metrics.
        entries: ledger of the model that training continued from.
    """
    run = as_path(run, "run")
    checkpoint.save_tree(run / checkpoint.MODEL, trained.params)
    manifest = manifest_of(run) | {"best": trained.best, "outcome": outcome} | _made(trained)
    event = "grown" if manifest.get("grown_from") else "trained"
    _record(run, manifest, entries, event, {"from_model": manifest.get("grown_from")})
    manifests.write(run, manifest)


def finished(run: str | Path) -> bool:
    """Whether a folder holds a model that is complete: its manifest is completed after its parameters are saved."""
    return (as_path(run, "run") / MANIFEST).exists() and "info" in manifest_of(run)


def save(
    run: str | Path, model: Recommender, data: str, facts: Mapping[str, Any], entries: Sequence[ledger.Entry] = ()
) -> dict[str, Any]:
    """Save a model whose data is elsewhere; the manifest is written last.

    Args:
        run: folder, which may hold the log and states of the model's training.
        model: to be saved.
        data: folder of its data, relative to the run.
        facts: `kind` and how it was made.
        entries: ledger of the model it was made from.

    Returns:
        The manifest.

    Raises:
        InputError: the facts lack `kind`; nothing is written then.
    """
    return _saved(as_path(run, "run"), model, _described(model, data, facts), entries)


def _saved(run: Path, model: Recommender, manifest: dict[str, Any], entries: Sequence[ledger.Entry]) -> dict[str, Any]:
    checkpoint.save_tree(run / checkpoint.MODEL, model.params)
    made_from = {key: manifest.get(key) for key in ("from_model", "method", "settings", "request_digest", "forgotten")}
    _record(
        run, manifest, entries, manifest["kind"], {key: value for key, value in made_from.items() if value is not None}
    )
    manifests.write(run, manifest)
    return manifest


def release(
    run: str | Path, model: Recommender, facts: Mapping[str, Any], entries: Sequence[ledger.Entry] = ()
) -> None:
    """Save a model that has answered a request: parameters, retained data, manifest, ledger; nothing of what was forgotten.

    Args:
        run: folder that is being written, from `folders.new`.
        model: the answer.
        facts: from `answer_facts`, and anything else to record.
        entries: ledger of the original.

    Raises:
        InputError: the model is not finite (a method whose settings go too far may cause this), or the facts lack `kind`. Nothing is
            written then.
    """
    odd = [name for name, table in flat(model.params).items() if not np.isfinite(np.asarray(table)).all()]
    if odd:
        raise InputError(
            f"the answer is not finite (in {odd[0]}), so nothing is released; smaller settings of the method may help"
        )
    run, manifest = as_path(run, "run"), _described(model, DATA, facts)
    put_dataset(model.dataset, run / DATA)
    _saved(run, model, manifest, entries)


def _record(
    run: Path, manifest: Mapping[str, Any], entries: Sequence[ledger.Entry], event: str, facts: Mapping[str, Any]
) -> None:
    """Write the ledger of a model that was just made: the entries of the model before it, and its own."""
    about = {
        "model": manifests.mark(manifest),
        "data": ledger.commitment(manifest["data_salt"], manifest["data_checksum"]),
        "seed": manifest.get("seed"),
        "seconds": round(manifest["seconds"]["total"], 3),
    }
    ledger.write(run, ledger.extended(entries, event, {**about, **facts}))


def answer_facts(
    forget_set: ForgetSet,
    method: str,
    settings: Any,
    seed: int,
    salt: str = "",
    from_model: str | None = None,
) -> dict[str, Any]:
    """What the manifest of an answer says about how it was made; the request only by its digest.

    Args:
        forget_set: resolved on the original's data.
        method, settings, seed: as for `unlearn.answer`.
        salt: of the request's digest; drawn if empty, and then nobody can check the digest.
        from_model: `manifest.mark` of the original; None if it is in no folder.
    """
    return {
        "kind": "unlearned",
        "method": method,
        "settings": dataclasses.asdict(find(method, settings)[1]),
        "request_digest": ledger.request_digest(salt or ledger.new_salt(), to_json(forget_set.request)),
        "forgotten": forget_set.counts(),
        **({} if from_model is None else {"from_model": from_model}),
        "seed": seed,
    }


def digest(params: Params) -> str:
    """SHA-256 of parameters: names, shapes, types and bytes."""
    found = hashlib.sha256()
    for name, array in sorted(flat(params).items()):
        values = np.asarray(jax.device_get(array))
        found.update(f"{name} {values.dtype} {values.shape}".encode() + values.tobytes())
    return found.hexdigest()


def _described(model: Recommender, data: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of a model; made before anything is written, since facts may lack what it needs."""
    if "kind" not in facts:
        raise InputError(
            f"facts: kind is missing among {', '.join(facts) or 'none'}; `answer_facts` has it for an answer"
        )
    return {
        "data": data,
        "data_checksum": model.dataset.checksum,
        "data_salt": ledger.new_salt(),
        "config": config_to_dict(model.config),
        "environment": environment(),
        **_made(model),
        **facts,
    }


def _made(model: Recommender) -> dict[str, Any]:
    """Sizes, log, info and seconds."""
    sizes = {**model.sizes._asdict(), "neighbours": dict(model.sizes.neighbours)}
    return {
        "model_digest": digest(model.params),
        "sizes": sizes,
        "history": _finite(list(model.history)),
        "info": _finite(model.info),
        "seconds": dataclasses.asdict(model.seconds),
    }


def _finite(value: Any) -> Any:
    """The same with null for what no JSON number can express: NaN and inf, from a method that diverged."""
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def manifest_of(run: str | Path) -> dict[str, Any]:
    """The manifest of a folder.

    Raises:
        InputError: there is none, it is of another version, or it was changed.
    """
    return manifests.read(as_path(run, "run"))


def ledger_of(run: str | Path) -> list[ledger.Entry]:
    """The ledger of a model folder, to be continued.

    Raises:
        InputError: see `ledger.read`; or its last model is not the one that the folder holds.
    """
    run = as_path(run, "run")
    entries, made = ledger.read(run), manifest_of(run)
    models = [entry["model"] for entry in entries if "model" in entry]
    held = manifests.mark(made) if "model_digest" in made else None
    if models[-1:] != ([held] if held else []):
        raise InputError(f"{run / ledger.FILE}: does not end with the model of this folder; restore the ledger")
    return entries


def load(run: str | Path, known: Sequence[Setup] = (), data: str | Path | None = None) -> Recommender:
    """A model with its data, ready to serve, judge or unlearn from; over the mesh if one is set.

    Args:
        run: folder that train, unlearn or a comparison wrote.
        known: data sets that are set up already; one that fits is taken instead of reading the folder's data.
        data: where the data is now, if not where the manifest says; recorded in the manifest.

    Raises:
        InputError: the folder holds no finished model, or its data or parameters have changed since.
    """
    run = as_path(run, "run")
    manifest = manifest_of(run)
    if "info" not in manifest:
        raise InputError(f"{run}: training has not finished; run the same train command again to resume it")
    config = config_from_dict(manifest["config"], str(run / MANIFEST))
    fitting = (s for s in known if s.config == config and s.dataset.checksum == manifest["data_checksum"])
    setup = next(fitting, None) or _read_setup(run, manifest, config, data)
    params = checkpoint.load_tree(run / checkpoint.MODEL, shapes(setup))
    return Recommender(
        setup,
        params,
        history=tuple(manifest["history"]),
        info=manifest["info"],
        seconds=Seconds(**manifest["seconds"]),
    )


def _read_setup(run: Path, manifest: dict[str, Any], config: Config, data: str | Path | None) -> Setup:
    recorded = run / manifest["data"]  # an absolute path stands for itself
    folder = as_path(data or recorded, "data")
    if not folder.exists():
        raise InputError(
            f"{folder}: the data of {run} is not there; put it back, or name the place where it stands now with "
            f"`recunlearn evaluate {run} --data FOLDER`, which records it"
        )
    dataset = read_dataset(folder)
    if dataset.checksum != manifest["data_checksum"]:
        raise InputError(
            f"{folder}: is not the data {run} was made on (checksum {dataset.checksum[:12]}, recorded "
            f"{manifest['data_checksum'][:12]}); restore it, name the right one, or train again"
        )
    if folder.absolute() != recorded.absolute():
        try:
            manifests.write(run, manifest | {"data": str(folder.absolute())})
        except InputError as error:  # a read-only folder
            warnings.warn(f"{error}; where the data stands now is not recorded", Note, stacklevel=2)
    return set_up(dataset, config, Sizes(*(manifest["sizes"][name] for name in Sizes._fields)))
