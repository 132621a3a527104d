"""What several commands share: where settings come from, devices, and what is shown while they run."""

import contextlib
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recunlearn_jax import settings
from recunlearn_jax.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from recunlearn_jax.config import Config


@dataclasses.dataclass(frozen=True)
class Settings:
    """Where the settings of a run come from."""

    preset: str = "faithful"
    """A named preset, see `recunlearn settings`."""
    backbone: str | None = None
    """mgcn, lightgcn, vbpr, freedom, mf, ease or a registered one, at its own defaults; if not given, the preset's."""
    settings: Path | None = None
    """A .json or .toml file of settings; replaces the preset."""
    set: tuple[str, ...] = ()
    """Single settings on top, such as train.batch_size=512 mmrecun.steps=30."""

    def resolve(self, methods: Sequence[str] = ()) -> tuple["Config", dict[str, Any]]:
        """The settings these options describe: of the model, and of each method by its name."""
        from recunlearn_jax.config import PRESETS, config_from_dict, config_to_dict, with_backbone
        from recunlearn_jax.unlearn.driver import find

        if self.preset not in PRESETS:
            raise InputError(f"--preset {self.preset}: unknown; choose from {', '.join(PRESETS)}")
        chosen = {name: find(name, None)[1] for name in methods}
        config = PRESETS[self.preset] if self.backbone is None else with_backbone(PRESETS[self.preset], self.backbone)
        groups = config_to_dict(config) | {name: settings.to_dict(kind) for name, kind in chosen.items()}
        where = "settings"
        if self.settings:
            read, where = settings.read_file(self.settings), str(self.settings)
            groups = {name: values for name, values in read.items() if name in groups or not _is_method(name)}
            if self.backbone is not None and groups.get("backbone", self.backbone) != self.backbone:
                raise InputError(f"--backbone {self.backbone}: {self.settings} has settings of {groups['backbone']}")
            groups = {"backbone": config.backbone, "model": {}, "train": {}} | {key: {} for key in chosen} | groups
        groups = settings.override(groups, self.set)
        of_methods = {name: find(name, groups.pop(name))[1] for name in chosen}
        return config_from_dict(groups, where), of_methods


def _is_method(name: str) -> bool:
    from recunlearn_jax.unlearn import METHODS

    return name in METHODS


@contextlib.contextmanager
def devices(count: int | None):
    """A mesh over this many devices while a command runs; none if no number is given."""
    if count is None:
        yield
        return
    import jax

    from recunlearn_jax.mesh import device_mesh

    if not 1 <= count <= len(jax.devices()):
        raise InputError(f"--devices {count}: there are {len(jax.devices())}; 1 to {len(jax.devices())} is allowed")
    with jax.set_mesh(device_mesh(count)):
        yield


@contextlib.contextmanager
def progress(total: int):
    """Show epochs on a terminal, nothing elsewhere; gives the callback for an epoch's log entry."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda entry: None
        return
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("epoch", total=total)

        def on_epoch(entry):
            valid = f", valid Recall@20 {entry['recall@20']:.4f}" if "recall@20" in entry else ""
            bar.update(
                task, completed=entry["epoch"], description=f"epoch {entry['epoch']}, loss {entry['loss']:.4f}{valid}"
            )

        yield on_epoch


def metrics(outcome: dict[str, Any]) -> str:
    return "; ".join(
        f"{split} Recall@20 {v['recall@20']:.4f} NDCG@20 {v['ndcg@20']:.4f}" for split, v in outcome.items()
    )


def console() -> "Console":
    """A console as wide as the terminal, or wide enough for a table in a file."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 200)
