"""Train, forget, retrain and compare on a mesh of the devices there are: TPU cores, GPUs, or the fake CPU devices of a test.

    python experiments/tpu/mesh.py OUT.json [--data FOLDER] [--devices 8] [--epochs 3] [--request users:5%] [--set model.embedding_size=16]

Without a folder it runs on generated data whose numbers of users and items divide by eight. Training runs a fixed number of epochs, so that
the figures of different numbers of devices can be laid side by side: they agree to float32 rounding.
"""

import argparse
import dataclasses
from pathlib import Path

import jax
import numpy as np

from recunlearn_jax import settings
from recunlearn_jax.config import PRESETS, config_from_dict, config_to_dict
from recunlearn_jax.data import read_dataset
from recunlearn_jax.environment import environment
from recunlearn_jax.evaluate import forget_task, held_out_task, report
from recunlearn_jax.files import write_json
from recunlearn_jax.mesh import device_mesh
from recunlearn_jax.requests import forget_pairs, parse, resolve, retained
from recunlearn_jax.synthetic import toy
from recunlearn_jax.train import fit
from recunlearn_jax.unlearn import METHODS, answer

ANSWERS = ("delta", "mmrecun", "gold")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--devices", type=int)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--request", nargs="+", default=["users:5%"])
    parser.add_argument("--preset", default="toy")
    parser.add_argument("--set", nargs="+", default=[], help="such as model.embedding_size=16 or mmrecun.steps=3")
    words = parser.parse_args()
    defaults = {method: settings.to_dict(METHODS[method].Settings()) for method in ANSWERS}
    groups = settings.override(config_to_dict(PRESETS[words.preset]) | defaults, words.set)
    methods = {method: groups.pop(method) for method in ANSWERS}
    config = config_from_dict(groups)
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, max_epochs=words.epochs))
    dataset = toy(800, 400, pairs_per_user=10) if words.data is None else read_dataset(words.data)
    mesh = device_mesh(words.devices)
    with jax.set_mesh(mesh):
        original = fit(dataset, config)
        forget_set = resolve(parse(words.request), original.dataset)
        answers = {method: answer(original, forget_set, method, methods[method], seed=1) for method in ANSWERS}
        retain = retained(original.dataset, forget_set)
        tasks = {split: held_out_task(retain, split) for split in ("valid", "test")}
        tasks["forget"] = forget_task(retain, forget_pairs(original.dataset, forget_set))
        models = {}
        for name, m in {"original": original, **answers}.items():
            models[name] = {
                "metrics": report(m.rows, tasks, (20,)),
                "mean_square_of_rows": float(np.mean(np.square(np.asarray(m.rows)))),
                "seconds": dataclasses.asdict(m.seconds),
            }
        rows = {n: x.addressable_shards[0].data.shape[0] for n, x in original.params.items() if "embedding" in n}
    losses = [entry["loss"] for entry in original.history]
    result = {
        "devices": mesh.size,
        "config": config_to_dict(config),
        "settings": methods,
        "losses": losses,
        "models": models,
        "rows_on_a_device": rows,
    }
    write_json(words.out, result | {"summary": dataset.summary(), "environment": environment()})
    print(
        f"{mesh.size} devices: losses {losses}, test Recall@20 {models['original']['metrics']['test']['recall@20']:.4f}"
    )


if __name__ == "__main__":
    main()
