"""Commands that use a model: `evaluate`, `recommend`, `settings`."""

import dataclasses
import json
from pathlib import Path

import tyro

from recunlearn_jax import settings
from recunlearn_jax.commands.options import Settings
from recunlearn_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Ranking metrics of a model on valid and test and, given its original, on what was forgotten."""

    model: tyro.conf.Positional[Path]
    """Folder of a model."""
    original: Path | None = None
    """Folder of the model it was unlearned from: the pairs of its train set that are no longer in this model's form the forget set."""
    k: tuple[int, ...] = (10, 20)
    """List lengths."""
    json: bool = False
    """Print JSON instead of a table."""
    data: Path | None = None
    """Where the model's data is now, if it was moved."""

    def run(self) -> None:
        import numpy as np

        from recunlearn_jax import runs
        from recunlearn_jax.dataset import pair_keys
        from recunlearn_jax.evaluate import forget_task, held_out_task, report

        if not self.k or min(self.k) < 1:
            raise InputError(f"--k {' '.join(map(str, self.k))}: list lengths of at least 1 are allowed")
        model = runs.load(self.model, data=self.data)
        tasks = {split: held_out_task(model.dataset, split) for split in ("valid", "test")}
        if self.original:
            before = runs.load(self.original).dataset
            if (before.num_users, before.num_items) != (model.dataset.num_users, model.dataset.num_items):
                raise InputError(f"{self.original}: is no original of {self.model}; its ids run over another range")
            had, has = (pair_keys(d.train, d.num_items) for d in (before, model.dataset))
            if not np.isin(has, had).all():
                raise InputError(
                    f"{self.original}: is no original of {self.model}, which holds train pairs that it has not"
                )
            tasks["forget"] = forget_task(model.dataset, before.train[~np.isin(had, has)])
        metrics = report(model.rows, tasks, self.k)
        if self.json:
            print(json.dumps(metrics, indent=1))
        else:
            for split, values in metrics.items():
                print(split + "  " + "  ".join(f"{name} {value:.4f}" for name, value in values.items()))


@dataclasses.dataclass(frozen=True)
class Recommend:
    """The best items for some users, leaving out what they already have in train, valid or test and what was removed."""

    model: tyro.conf.Positional[Path]
    """Folder of a model."""
    users: tyro.conf.Positional[tuple[str, ...]]
    """User ids."""
    k: int = 20
    """Length of the lists."""
    data: Path | None = None
    """Where the model's data is now, if it was moved."""

    def run(self) -> None:
        from recunlearn_jax import runs
        from recunlearn_jax.requests import NUMBER

        if not self.users:
            raise InputError("no user named; give at least one user id")
        model = runs.load(self.model, data=self.data)
        numbers = [model.dataset.number("user", int(word) if NUMBER.fullmatch(word) else word) for word in self.users]
        for word, items in zip(self.users, model.recommend(numbers, self.k), strict=True):
            print(f"{word}\t{' '.join(model.dataset.word('item', item) for item in items if item >= 0)}")


@dataclasses.dataclass(frozen=True)
class ShowSettings:
    """Print the settings of a preset and of every method as JSON: a file to edit and pass as --settings."""

    preset: tyro.conf.Positional[str] = "faithful"
    backbone: str | None = None
    """mgcn, lightgcn, vbpr, freedom, mf, ease or a registered one, at its own defaults; if not given, the preset's."""

    def run(self) -> None:
        from recunlearn_jax.config import config_to_dict
        from recunlearn_jax.unlearn import METHODS

        config, chosen = Settings(preset=self.preset, backbone=self.backbone).resolve(list(METHODS))
        groups = config_to_dict(config) | {name: settings.to_dict(kind) for name, kind in chosen.items()}
        print(json.dumps({name: values for name, values in groups.items() if values != {}}, indent=1))
