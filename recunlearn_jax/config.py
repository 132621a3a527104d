"""Settings: frozen dataclasses, named presets, JSON and TOML in, JSON out. Imports no jax, so that parsing is quick."""

import dataclasses
import difflib
import json
import tomllib
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from recunlearn_jax.errors import InputError

Precision = Literal["float32", "tensorfloat32", "bfloat16"]


@dataclass(frozen=True)
class ModelConfig:
    """MGCN (arXiv 2308.03588). With no modality in the data the same settings give LightGCN."""

    embedding_size: int = 64
    """Width d of every embedding."""
    user_item_layers: int = 2
    """Propagations over the user-item graph."""
    item_item_layers: int = 1
    """Propagations over each modality's item graph."""
    neighbours: int = 10
    """k of the item graphs that are built from features; a graph file beside the features wins."""
    trainable_features: bool = True
    """Train the raw feature tables too, as the reference does; False keeps them frozen and is faster."""
    layout: Literal["auto", "segment", "csr"] = "auto"
    """How graphs are propagated: jraph's segment_sum or compressed rows; auto takes csr on CPU, else segment."""


@dataclass(frozen=True)
class TrainConfig:
    """Training as the reference does it (method of MMRec's MGCN), Adam with betas 0.9 and 0.999."""

    batch_size: int = 2048
    learning_rate: float = 1e-3
    decay: float = 0.96
    """Factor of the learning rate per `decay_epochs` epochs, applied smoothly."""
    decay_epochs: float = 50.0
    l2_weight: float = 1e-4
    contrast_weight: float = 0.01
    """Weight of the InfoNCE terms."""
    temperature: float = 0.2
    precision: Precision = "float32"
    """Of the factors of matrix products; sums stay float32. GPUs have tensorfloat32 and bfloat16, TPUs bfloat16."""
    max_epochs: int = 1000
    patience: int = 20
    """Stop when valid Recall@20 has not improved for more than this many epochs."""
    checkpoint_every: int = 5
    """Epochs between checkpoints of the training state."""


@dataclass(frozen=True)
class UnlearnConfig:
    """MMRecUN (arXiv 2405.15328) as implemented here, and the shared settings of the iterative methods."""

    steps: int = 30
    """Number of steps."""
    batch_size: int = 512
    """Pairs in each step's retain batch and in its forget batch."""
    learning_rate: float = 1e-2
    alpha: float = 0.98
    """Weight of the retain terms; the forget terms weigh 1 - alpha."""
    retain_contrast: float = 0.01
    forget_contrast: float = 0.01
    """Weight of the negated InfoNCE terms on the forget set."""
    l2_weight: float = 1e-4
    temperature: float = 0.2
    reverse: Literal["swap", "ascent"] = "swap"
    """Form of reverse BPR: -log sigmoid(-d), bounded, or +log sigmoid(d), unbounded."""
    forget_graph: Literal["original", "edited"] = "original"
    """Graph on which the forget terms are computed."""
    reset: Literal["none", "forgotten", "touched"] = "touched"
    """Rows re-initialised before the steps: none, those of forgotten users and items, or every row the request touches."""
    scope: Literal["touched", "all"] = "touched"
    """Which parameters move: the embedding rows the request touches, or everything."""
    touched_degree: int = 25
    """Only users and items with at most this many train pairs count as touched; 0 means no limit."""
    finetune_epochs: int = 5
    """Epochs of the method finetune."""
    forget_until: Literal["unseen", "end"] = "unseen"
    """unseen: the forget terms count only while forgotten pairs stand out more than the valid pairs of retained users, which no step has
    seen; end: they count in every step."""


@dataclass(frozen=True)
class Config:
    """Everything that decides a run beside the data and the seed."""

    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    unlearn: UnlearnConfig = field(default_factory=UnlearnConfig)


PRESETS: dict[str, Config] = {
    # recunlearn train --data FOLDER: the reference's settings; tiktok reaches test Recall@20 of about 0.10.
    "faithful": Config(),
    # More and smaller steps: sooner at the same quality; found on tiktok with other seeds than those reported (docs/performance.md).
    "fast": Config(train=TrainConfig(batch_size=512, learning_rate=1.5e-3, contrast_weight=3e-3, patience=5)),
    # make demo: the toy data set, smaller batches and a shorter wait for improvement.
    "toy": Config(train=TrainConfig(batch_size=1024, learning_rate=5e-3, patience=5, max_epochs=60)),
}


def to_dict(config: Any) -> dict[str, Any]:
    """Plain nested dictionary of a settings dataclass."""
    return dataclasses.asdict(config)


def from_dict(values: dict[str, Any], kind: type = Config, where: str = "settings") -> Any:
    """Settings from a nested dictionary; missing keys keep their defaults.

    Raises:
        InputError: a key is unknown (a similar known key is suggested) or a value has the wrong type.
    """
    if not isinstance(values, dict):
        raise InputError(f"{where}: expected a table of settings, got {values!r}")
    hints = typing.get_type_hints(kind)
    arguments = {}
    for key, value in values.items():
        if key not in hints:
            close = difflib.get_close_matches(key, hints, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; known settings: {', '.join(hints)}"
            raise InputError(f"{where}: unknown setting {key!r}{hint}")
        arguments[key] = _checked(value, hints[key], f"{where}.{key}")
    return kind(**arguments)


def _checked(value: Any, hint: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_dict(value, typing.cast(type, hint), where)
    if typing.get_origin(hint) is Literal:
        if value not in typing.get_args(hint):
            raise InputError(f"{where}: {value!r} is not one of {', '.join(map(repr, typing.get_args(hint)))}")
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise InputError(f"{where}: {value!r} is not of type {hint.__name__}")
    return value


def load_config(path: str | Path) -> Config:
    """Settings from a .json or .toml file.

    Raises:
        InputError: the file is missing, cannot be parsed, or holds an unknown key or a wrong type.
    """
    path = Path(path)
    if path.suffix not in {".json", ".toml"}:
        raise InputError(f"{path}: settings are read from .json or .toml files")
    try:
        text = path.read_text()
        values = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise InputError(f"{path}: not valid {path.suffix[1:].upper()} ({error})") from error
    return from_dict(values, Config, str(path))
