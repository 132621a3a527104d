"""recunlearn_jax: make a multi-modal recommender forget, and measure it against retraining.

Names are imported when they are first used, so that `recunlearn_jax.losses` can be used without flax and the command line starts fast.
"""

import importlib
from typing import Any

_HOMES = {
    "Config": "config",
    "TrainConfig": "config",
    "PRESETS": "config",
    "BACKBONES": "backbones",
    "Backbone": "backbones",
    "Dataset": "dataset",
    "read_dataset": "data",
    "write_dataset": "data",
    "toy": "synthetic",
    "Request": "requests",
    "as_request": "requests",
    "parse": "requests",
    "read_request": "requests",
    "resolve": "requests",
    "retained": "requests",
    "Recommender": "recommender",
    "fit": "train",
    "train_stacked": "stacked",
    "set_up": "recommender",
    "grow": "growth",
    "merged": "growth",
    "METHODS": "unlearn",
    "Method": "unlearn",
    "answer": "unlearn",
    "prepare": "unlearn",
    "CHECKS": "audit",
    "Check": "audit",
    "ranking_metrics": "evaluate",
    "ranking_task": "evaluate",
    "held_out_task": "evaluate",
    "forget_task": "evaluate",
    "recommend": "serving",
    "compare": "comparison",
    "InputError": "errors",
    "Note": "errors",
}
_MODULES = ("losses", "interop", "graph", "propagate", "runs", "ledger", "results", "report", "process")

__all__ = [*_HOMES, *_MODULES]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version(__name__)
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
