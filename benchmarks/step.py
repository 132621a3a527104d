"""One training step against its floors, epoch, propagation layouts, evaluation: what the device could do and what we reach.

    python benchmarks/step.py OUT.json [--data FOLDER] [--frozen] [--preset faithful] [--set train.batch_size=512 ...]

Without a folder it runs on generated data of TikTok's size. Floors: floating-point operations of the step's dense matrix products over the
measured rate of a large one, and the bytes that must move at least (Adam reads and writes parameter and two moments and reads the gradient;
each propagation reads its edges and reads and writes a row a node) over the measured bandwidth.
"""

import argparse
import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters.partial_eval import dce_jaxpr
from timing import bandwidth, gemm_rate, peak_memory, seconds, settings

from recunlearn_jax import losses
from recunlearn_jax.data import read_dataset
from recunlearn_jax.dataset import Dataset
from recunlearn_jax.environment import environment
from recunlearn_jax.evaluate import held_out_task, ranking_metrics
from recunlearn_jax.graph import bipartite
from recunlearn_jax.process import keep_freed_memory
from recunlearn_jax.propagate import layout, propagate
from recunlearn_jax.recommender import embed, init_params, set_up
from recunlearn_jax.sampling import draw_pairs
from recunlearn_jax.synthetic import toy
from recunlearn_jax.train import epoch_data, init_state, train_epoch


def propagation(dataset: Dataset, size: int) -> dict:
    """Forward and backward product with A_hat in each layout; that they agree is checked before they are timed."""
    a_hat = bipartite(dataset.train, dataset.num_users, dataset.num_items)
    x = jax.random.normal(jax.random.key(2), (a_hat.shape[0], size))
    forward = jax.jit(propagate)
    pull = jax.jit(lambda graph, x: jax.vjp(lambda x: propagate(graph, x), x)[1](x)[0])
    layouts = {kind: layout(a_hat, kind) for kind in ("segment", "csr")}
    for function in (forward, pull):
        np.testing.assert_allclose(function(layouts["csr"], x), function(layouts["segment"], x), rtol=1e-4, atol=1e-5)
    return {
        kind: {"forward": seconds(lambda g=g: forward(g, x)), "backward": seconds(lambda g=g: pull(g, x))}
        for kind, g in layouts.items()
    }


def matrix_operations(function: Callable, *arguments, choices: Sequence[int] = ()) -> float:
    """Floating-point operations of the dense matrix products that a function needs, 2 m n k each.

    WHY not the compiler's own count: that takes the body of a loop once, however often it runs.

    Args:
        choices: the branch that is taken at each point, in program order, where branches cost differently.
    """
    jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    taken = list(choices)
    # A frozen table's gradient is never computed.
    total = _operations(dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[0], taken)
    if taken:
        raise ValueError(f"{len(taken)} choices more than the function has")
    return total


def _operations(jaxpr, choices: list[int]) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            total += 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)
        inner = [_operations(getattr(part, "jaxpr", part), choices) for part in _inner(equation.params)]
        count = sum(inner)  # everything that an equation holds is run, but of branches one
        if equation.primitive.name == "cond":
            count = inner[_taken(equation.params, choices)] if len(set(inner)) > 1 else inner[0]
        total += count * equation.params.get("length", 1)
    return total


def _taken(parameters: dict[str, Any], choices: list[int]) -> int:
    """The branch for this platform, where there is one for each, else the next of the choices."""
    platforms = parameters.get("branches_platforms")
    if not platforms:
        return choices.pop(0)
    own = jax.default_backend()
    return next(i for i, names in enumerate(platforms) if names is None or own in names)


def contrast_choices(batch: tuple[jax.Array, ...]) -> list[int]:
    """Which of InfoNCE's compiled sizes a batch of triplets takes on a CPU, for its items and for its users."""
    if jax.default_backend() != "cpu":
        return []
    users, positives, _, _ = batch
    sizes = losses.distinct_sizes(len(users))
    return [int(np.searchsorted(sizes, len(np.unique(ids)))) for ids in (positives, users)]


def _inner(parameters: dict[str, Any]) -> list:
    values = [part for value in parameters.values() for part in (value if isinstance(value, tuple) else (value,))]
    return [part for part in values if hasattr(getattr(part, "jaxpr", part), "eqns")]


def floor(flops: float, params, dataset: Dataset, size: int) -> dict[str, float]:
    """What the step must compute and move, and the seconds that takes at the measured rates."""
    trained = sum(p.size for p in jax.tree.leaves(params))
    nodes, pairs = dataset.num_users + dataset.num_items, len(dataset.train)
    modalities = len(dataset.modalities)
    # Forward and backward: two layers on 2 n edges, R_hat on n, and one item graph a modality; 8 bytes an edge, 8 d a node of each.
    edges = 2 * (2 * 2 * pairs + pairs + sum(s.nnz for s in dataset.similarities.values()))
    rows = 2 * (2 * nodes + modalities * nodes + modalities * dataset.num_items)
    moved = 28 * trained + 8 * edges + 8 * size * rows
    rate, width = gemm_rate(), bandwidth()
    rates = {"gemm_flops_per_second": rate, "bytes_per_second": width}
    return rates | {"flops": flops, "bytes": moved, "seconds": flops / rate + moved / width}


def main() -> None:
    keep_freed_memory()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--frozen", action="store_true", help="do not train the raw features")
    parser.add_argument("--preset", default="faithful")
    parser.add_argument("--set", nargs="*", default=[], help="single settings, such as train.batch_size=512")
    words = parser.parse_args()
    config = settings(words.preset, words.set)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, trainable_features=not words.frozen))
    if words.data:
        dataset = read_dataset(words.data)
    else:
        dataset = toy(9308, 6710, pairs_per_user=8, clusters=16, modalities=("audio", "image"), feature_size=128)
    setup = set_up(dataset, config)
    dataset, data, backbone = setup.dataset, setup.data, setup.backbone
    params = init_params(jax.random.key(0), data, backbone=backbone)
    batch = draw_pairs(jax.random.key(1), data.sampler, config.train.batch_size)
    size = config.model.embedding_size
    result = {"summary": dataset.summary(), "trainable_features": not words.frozen, "environment": environment()}
    result["propagation"] = propagation(dataset, size)

    gradient = jax.jit(
        jax.value_and_grad(lambda p, data, batch: backbone.loss(p, data, batch, config.train.batch_size))
    )
    steady = jax.jit(epoch_data, static_argnames="backbone")(jax.random.key(0), data, backbone=backbone)
    result["gradient"] = seconds(lambda: gradient(params, steady, batch))
    rows = [jax.random.normal(jax.random.key(i), (config.train.batch_size, size)) for i in (3, 4)]
    contrast = jax.jit(jax.value_and_grad(losses.info_nce, (0, 1)))
    result["info_nce"] = seconds(lambda: contrast(*rows))

    operations = matrix_operations(gradient, params, steady, batch, choices=contrast_choices(batch))
    result["floor"] = floor(operations, params, dataset, size)
    box = [init_state(jax.tree.map(jnp.copy, params))]  # donated: each epoch goes on from the last one's state

    def epoch():
        box[0], loss = train_epoch(box[0], data, jax.random.key(0), backbone=backbone, config=config.train)
        return loss

    steps = -(-len(dataset.train) // config.train.batch_size)
    whole = seconds(epoch, repeats=5)
    result["step"] = {name: whole[name] / steps for name in ("median", "min", "max")} | {"n": whole["n"]}
    result["floor"]["achieved"] = result["floor"]["seconds"] / result["step"]["median"]

    task = held_out_task(dataset, "valid")
    if task is not None:
        table = embed(box[0].params, data, backbone=backbone)
        result["evaluation"] = seconds(lambda: jnp.float32(ranking_metrics(table, task, (20,))["recall@20"]))
        result["evaluated_users"] = int(task.real.sum())
    result["peak_memory_bytes"] = peak_memory()
    words.out.parent.mkdir(parents=True, exist_ok=True)
    words.out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"step {1e3 * result['step']['median']:.1f} ms, floor {1e3 * result['floor']['seconds']:.1f} ms; {words.out}")


if __name__ == "__main__":
    main()
