"""What a run leaves on disk: parameter trees (Orbax), its manifest, and its log. Nothing is ever half written.

RUN/manifest.json        what was run: data and its checksum, request, seeds, settings, versions, outcome
RUN/log.jsonl            one line an epoch
RUN/model/               the released parameters, nothing else (no optimizer moments)
RUN/data/                for an unlearned model: the retained data, see `data.write_dataset`
RUN/state/epoch-000NN/   while training: parameters, optimizer state and the best parameters so far
"""

import json
import os
import platform
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import v1 as orbax

from recunlearn_jax.errors import InputError

MANIFEST, LOG, MODEL, STATE, DATA = "manifest.json", "log.jsonl", "model", "state", "data"


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
    """Read a tree of arrays onto the default device.

    Args:
        path: written by `save_tree`.
        like: tree of arrays or ShapeDtypeStructs with the expected structure, shapes and dtypes.

    Raises:
        InputError: nothing is there, or what is there has another structure or other shapes.
    """
    if not path.is_dir():
        raise InputError(f"{path}: no checkpoint there; train first, or check the folder")
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), like)
    try:
        return orbax.load(str(path.absolute()), abstract)
    except (ValueError, KeyError, OSError) as error:
        raise InputError(
            f"{path}: the checkpoint does not fit this model and data, or is damaged ({str(error)[:200]})"
        ) from error


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


def write_json(path: Path, values: Any) -> None:
    """Write JSON beside, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".writing")
    with beside.open("w") as out:
        json.dump(values, out, indent=1, allow_nan=False)
        out.write("\n")
        out.flush()
        os.fsync(out.fileno())
    beside.rename(path)


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: missing or not JSON.
    """
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); is this the folder of a run?") from error
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error})") from error


def read_log(run: Path) -> Iterator[dict[str, Any]]:
    """Entries of a run's log; a last line that a killed run left incomplete is dropped."""
    path = run / LOG
    if path.exists():
        for line in path.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                yield json.loads(line)


def write_log(run: Path, entries: list[dict[str, Any]]) -> None:
    """Replace a run's log."""
    beside = run / (LOG + ".writing")
    beside.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    beside.rename(run / LOG)


def append_log(run: Path, entry: dict[str, Any]) -> None:
    """Add one line to a run's log."""
    with (run / LOG).open("a") as out:
        out.write(json.dumps(entry) + "\n")


def _processor() -> str:
    """Model, family and widest vector instructions where Linux tells them: one name may stand for machines of very different speed."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n", maxsplit=1)[0].splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    vectors = [
        name for name in ("avx512f", "avx2", "asimd") if name in told.get("flags", told.get("Features", "")).split()
    ]
    parts = [told.get("model name", platform.machine()), f"family {told.get('cpu family', 'unknown')}", *vectors[:1]]
    return ", ".join(parts)


def environment() -> dict[str, Any]:
    """Versions and hardware a result depends on."""
    packages = ("recunlearn_jax", "jax", "jaxlib", "flax", "optax", "jraph", "numpy", "scipy", "orbax-checkpoint")
    return {
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in packages},
        "platform": platform.platform(terse=True),
        "processor": _processor(),
        "device": jax.devices()[0].device_kind,
        "devices": len(jax.devices()),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }
