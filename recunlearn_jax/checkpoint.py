"""Parameter trees (Orbax) and the log of a training on disk; `runs` says what else a folder holds. Nothing is ever half written.

RUN/log.jsonl            one line an epoch
RUN/model/               the released parameters, nothing else (no optimizer moments)
RUN/state/epoch-000NN/   while training: parameters, optimizer state and the best parameters so far
"""

import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from orbax.checkpoint import v1 as orbax

from recunlearn_jax.errors import InputError
from recunlearn_jax.mesh import devices_in_use, row_sharding

LOG, MODEL, STATE = "log.jsonl", "model", "state"


def save_tree(path: Path, tree: Any) -> None:
    """Write a tree of arrays as an Orbax checkpoint at `path`, replacing one that is there; beside first, then renamed."""
    path = path.absolute()
    beside = path.with_name(path.name + ".writing")
    shutil.rmtree(beside, ignore_errors=True)
    orbax.save(str(beside), tree)
    if path.exists():
        old = path.with_name(path.name + ".old")
        shutil.rmtree(old, ignore_errors=True)
        path.rename(old)
        beside.rename(path)
        shutil.rmtree(old)
    else:
        beside.rename(path)


def load_tree(path: Path, like: Any) -> Any:
    """Read a tree of arrays onto the device, or over the mesh that is set.

    Args:
        path: written by `save_tree`.
        like: tree of arrays or ShapeDtypeStructs with the expected structure, shapes and dtypes.

    Raises:
        InputError: nothing is there, or what is there has another structure or other shapes.
    """
    if not path.is_dir():
        raise InputError(f"{path}: no checkpoint there; train first, or check the folder")
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=row_sharding(x.shape)), like)
    try:
        tree = orbax.load(str(path.absolute()), abstract)
    except (ValueError, KeyError, OSError) as error:
        raise InputError(
            f"{path}: the checkpoint does not fit this model and data, or is damaged ({str(error)[:200]})"
        ) from error
    if devices_in_use() > 1:
        return tree
    # WHY through numpy: what is loaded is bound to its device, and a program compiled for arrays that are not would be compiled again.
    return jax.tree.map(lambda x: jnp.array(np.asarray(x)), tree)


def saved_epochs(run: Path) -> list[int]:
    """Epochs of the complete training states of a run, ascending."""
    names = [p.name.removeprefix("epoch-") for p in (run / STATE).glob("epoch-*")] if (run / STATE).is_dir() else []
    return sorted(int(name) for name in names if name.isdigit())


def state_path(run: Path, epoch: int) -> Path:
    """Where the training state after `epoch` epochs stands."""
    return run / STATE / f"epoch-{epoch:05d}"


def keep_only(run: Path, epoch: int) -> None:
    """Remove the training states of all other epochs, and what a killed run left half written."""
    for path in (run / STATE).iterdir():
        if path != state_path(run, epoch):
            shutil.rmtree(path)


def read_log(run: Path) -> Iterator[dict[str, Any]]:
    """Entries of a run's log; a last line that a killed run left incomplete is dropped."""
    path = run / LOG
    if path.exists():
        for line in path.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                yield json.loads(line)


def write_log(run: Path, entries: Iterable[dict[str, Any]]) -> None:
    """Replace a run's log."""
    beside = run / (LOG + ".writing")
    beside.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    beside.rename(run / LOG)


def append_log(run: Path, entry: dict[str, Any]) -> None:
    """Add one line to a run's log."""
    with (run / LOG).open("a") as out:
        out.write(json.dumps(entry) + "\n")
