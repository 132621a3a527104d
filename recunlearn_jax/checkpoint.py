"""Parameter trees (Orbax) and the training log on disk; `runs` says what else a folder holds. Nothing is ever half written, and what is
read is what was written: every tree is stored with the sizes and digests of its files.

RUN/log.jsonl            one line per epoch, for people to follow; nothing reads it
RUN/model/               the released parameters, nothing else (no optimizer moments)
RUN/state/epoch-000NN/   while training: parameters, optimizer state, the best parameters so far, and the log up to there
"""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from orbax.checkpoint import v1 as orbax

from recunlearn_jax.errors import InputError
from recunlearn_jax.files import digest_of, read_json, unreadable, write_json, write_text
from recunlearn_jax.mesh import devices_in_use, row_sharding

LOG, MODEL, STATE, DIGESTS, HISTORY = "log.jsonl", "model", "state", "digests.json", "history.json"


def save_tree(path: Path, tree: Any, history: Iterable[dict[str, Any]] | None = None) -> None:
    """Write a tree of arrays as an Orbax checkpoint at `path`, replacing one that is there; written beside it, then renamed.

    Args:
        path: a folder.
        tree: of arrays.
        history: the log up to here, kept with a training state.

    Raises:
        InputError: it cannot be written, for lack of space or permission.
    """
    path = path.absolute()
    beside = path.with_name(path.name + ".writing")
    with unreadable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f"{beside.name}*"):  # by a killed process; Orbax itself writes beside this
            shutil.rmtree(left, ignore_errors=True)
        try:
            orbax.save(str(beside), tree)
        except (ValueError, RuntimeError) as error:  # what the store raises on a full disk, among other things
            raise InputError(f"{path}: the parameters cannot be written ({error})") from error
        if history is not None:
            write_json(beside / HISTORY, list(history))
        write_json(beside / DIGESTS, _digests(beside))
        if path.exists():
            old = path.with_name(path.name + ".old")
            shutil.rmtree(old, ignore_errors=True)
            path.rename(old)
            beside.rename(path)
            shutil.rmtree(old)
        else:
            beside.rename(path)


def _digests(folder: Path) -> dict[str, list[Any]]:
    """File -> [size, SHA-256], for every file in a folder except the list itself."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != DIGESTS]
    return {path.relative_to(folder).as_posix(): [path.stat().st_size, digest_of(path)] for path in files}


def check_tree(path: Path) -> None:
    """Check that the files of a checkpoint are those that were written.

    Raises:
        InputError: a file was changed, cut short or lost, or there is no checkpoint.
    """
    if not path.is_dir():
        raise InputError(f"{path}: no checkpoint there; train first, or check the folder")
    written = read_json(path / DIGESTS)
    if not isinstance(written, dict):
        raise InputError(f"{path / DIGESTS}: holds no list of files; restore it, or make the model anew")
    with unreadable(path):
        found = _digests(path)
    wrong = [name for name in sorted({*written, *found}) if written.get(name) != found.get(name)]
    if wrong:
        raise InputError(
            f"{path / wrong[0]}: is not as it was written (changed, cut or lost); restore it, or make the model anew"
        )


def load_tree(path: Path, like: Any) -> Any:
    """Read a tree of arrays onto the device, or over the mesh if one is set.

    Args:
        path: written by `save_tree`.
        like: tree of arrays or ShapeDtypeStructs with the expected structure, shapes and dtypes.

    Raises:
        InputError: there is no checkpoint, it has another structure or other shapes, or it is not as it was written.
    """
    check_tree(path)
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=row_sharding(x.shape)), like)
    try:
        tree = orbax.load(str(path.absolute()), abstract)
    except (ValueError, KeyError, OSError) as error:
        raise InputError(
            f"{path}: the checkpoint does not fit this model and data, or is damaged ({str(error)[:200]})"
        ) from error
    if devices_in_use() > 1:
        return tree
    # WHY through numpy: loaded arrays are bound to their device, and a program compiled for unbound ones would be compiled again.
    return jax.tree.map(lambda x: jnp.array(np.asarray(x)), tree)


def saved_epochs(run: Path) -> list[int]:
    """Epochs of the complete training states of a run, ascending."""
    names = [p.name.removeprefix("epoch-") for p in (run / STATE).glob("epoch-*")] if (run / STATE).is_dir() else []
    return sorted(int(name) for name in names if name.isdigit())


def state_path(run: Path, epoch: int) -> Path:
    """Folder of the training state after `epoch` epochs."""
    return run / STATE / f"epoch-{epoch:05d}"


def keep_only(run: Path, epoch: int) -> None:
    """Remove the training states of all other epochs, and what a killed run left half written."""
    for path in (run / STATE).iterdir():
        if path != state_path(run, epoch):
            shutil.rmtree(path)


def read_history(path: Path) -> list[dict[str, Any]]:
    """The log up to a training state, from its folder."""
    return read_json(path / HISTORY)


def write_log(run: Path, entries: Iterable[dict[str, Any]]) -> None:
    """Replace a run's log."""
    write_text(run / LOG, "".join(json.dumps(entry) + "\n" for entry in entries))


def append_log(run: Path, entry: dict[str, Any]) -> None:
    """Add one line to a run's log."""
    with (run / LOG).open("a") as out:
        out.write(json.dumps(entry) + "\n")
