"""What determines a trained model besides the data and the seed: the backbone, its settings and those of training. Named presets."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from annotated_types import Gt, Le

from recunlearn_jax import settings
from recunlearn_jax.backbones import BACKBONES, backbone_kind
from recunlearn_jax.backbones.mgcn import Settings as MGCNSettings
from recunlearn_jax.errors import InputError, check_type
from recunlearn_jax.precision import Precision
from recunlearn_jax.settings import Batch, Checked, Count, CountFromZero, Positive


@dataclass(frozen=True)
class TrainConfig(Checked):
    """Training as in the reference (MMRec): Adam with betas 0.9 and 0.999."""

    batch_size: Batch = 2048
    learning_rate: Positive = 1e-3
    decay: Annotated[float, Gt(0), Le(1)] = 0.96
    """Factor of the learning rate per `decay_epochs` epochs, applied smoothly."""
    decay_epochs: Positive = 50.0
    precision: Precision = "float32"
    """Precision of the factors of matrix products; sums stay float32. GPUs have tensorfloat32 and bfloat16, TPUs bfloat16."""
    max_epochs: Count = 1000
    patience: CountFromZero = 20
    """Stop when valid Recall@20 has not improved for more than this many epochs."""
    checkpoint_every: Count = 5
    """Epochs between checkpoints of the training state."""

    @property
    def of_an_epoch(self) -> "TrainConfig":
        """The settings that a compiled epoch reads; the others get their defaults, so that changing them compiles nothing anew."""
        unread = {f.name: f.default for f in dataclasses.fields(self) if f.name in _BETWEEN_EPOCHS}
        return dataclasses.replace(self, **unread)


_BETWEEN_EPOCHS = ("max_epochs", "patience", "checkpoint_every")


@dataclass(frozen=True)
class Config:
    """A backbone's name, its settings and those of training.

    Examples:
        >>> Config("vbpr").model.embedding_size
        64

    Raises:
        InputError: an unknown backbone, or settings of another one.
    """

    backbone: str = "mgcn"
    model: Any = None
    """`Settings` of the backbone; its defaults where None."""
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self):
        kind = backbone_kind(self.backbone).Settings
        if self.model is None:
            object.__setattr__(self, "model", kind())
        elif not isinstance(self.model, kind):
            raise InputError(
                f"config: the settings of {self.backbone} are {kind.__module__}.Settings; got {self.model!r}"
            )
        check_type(self.train, TrainConfig, "config.train", "such as `TrainConfig(max_epochs=5)`")


PRESETS: dict[str, Config] = {
    # recunlearn train --data FOLDER: the reference's settings; tiktok reaches test Recall@20 of about 0.10.
    "faithful": Config(),
    # More and smaller steps reach the same quality sooner; found on tiktok with seeds other than those reported (docs/performance.md).
    "fast": Config(
        model=MGCNSettings(contrast_weight=3e-3), train=TrainConfig(batch_size=512, learning_rate=1.5e-3, patience=5)
    ),
    # make demo: the toy data set, smaller batches and a shorter wait for improvement.
    "toy": Config(train=TrainConfig(batch_size=1024, learning_rate=5e-3, patience=5, max_epochs=60)),
}


def config_to_dict(config: Config) -> dict[str, Any]:
    """{"backbone": name, "model": settings, "train": settings}."""
    return settings.to_dict(config)


def config_from_dict(values: Any, where: str = "settings") -> Config:
    """Config from what `config_to_dict` gives; missing groups and settings keep their defaults.

    Raises:
        InputError: a group or setting is unknown, a value has the wrong type, or `values` is not a table.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"{where}: expected a table of settings, got {values!r}")
    unknown = [name for name in values if name not in {"backbone", "model", "train"}]
    if unknown:
        hint = settings.suggestion(str(unknown[0]), ("backbone", "model", "train"), "known groups")
        raise InputError(f"{where}: unknown group {unknown[0]!r}{hint}")
    name = values.get("backbone", "mgcn")
    if not isinstance(name, str):
        raise InputError(f"{where}.backbone: {name!r} is not one of {', '.join(map(repr, BACKBONES))}")
    return Config(
        backbone=name,
        model=settings.from_dict(values.get("model", {}), backbone_kind(name).Settings, f"{where}.model"),
        train=settings.from_dict(values.get("train", {}), TrainConfig, f"{where}.train"),
    )


def with_backbone(config: Config, name: str) -> Config:
    """The config with another backbone at its defaults; unchanged if it already has that backbone."""
    return config if config.backbone == name else Config(backbone=name, train=config.train)
