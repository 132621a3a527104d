"""Every compiled entry point exports for cpu, cuda and tpu in the portable layout, and the exported program computes the same."""

import re

import jax
import numpy as np
import pytest

from recunlearn_jax import losses
from recunlearn_jax.config import Config, ModelConfig, TrainConfig, UnlearnConfig
from recunlearn_jax.evaluate import held_out_task, rank
from recunlearn_jax.graph import with_item_graphs
from recunlearn_jax.models import build_model, init_params
from recunlearn_jax.requests import parse, resolve
from recunlearn_jax.stopwatch import Seconds
from recunlearn_jax.synthetic import toy
from recunlearn_jax.train import Trained, embed, init_state, train_data, train_epoch
from recunlearn_jax.unlearn.base import edit
from recunlearn_jax.unlearn.mmrecun import TABLES, moving_rows, prepare, run

CONFIG = Config(
    model=ModelConfig(embedding_size=8, neighbours=3, layout="segment"),
    train=TrainConfig(batch_size=64),
    unlearn=UnlearnConfig(steps=3, batch_size=32),
)
KEY = jax.random.key_data(jax.random.key(1))


@pytest.fixture(scope="module")
def original():
    dataset = with_item_graphs(toy(40, 32, pairs_per_user=4, clusters=4, feature_size=4), 3)
    data, model = train_data(dataset, CONFIG), build_model(dataset, CONFIG.model)
    params = init_params(jax.random.key(0), model, data.graphs, data.features)
    return Trained(model, params, dataset, data, CONFIG, [], Seconds())


def train(original):
    def function(params, data, key):
        key = jax.random.wrap_key_data(key)
        return train_epoch(init_state(params), data, key, model=original.model, config=CONFIG.train)

    return function, (original.params, original.data, KEY)


def unlearn(original):
    forget_set = resolve(parse(["users:5%", "pairs:2%"]), original.dataset)
    moving = moving_rows(original.dataset, forget_set, 25)
    retain = edit(original, forget_set, CONFIG)
    nodes, work = prepare(original, forget_set, retain, original.params, moving, CONFIG.unlearn)
    model = original.model.clone(num_users=nodes.num_users, num_items=nodes.num_items)
    rest = {name: value for name, value in original.params.items() if name not in TABLES}
    moved = {name: jax.numpy.zeros((len(work.moving[name]), 8)) for name in TABLES}

    def function(moved, rest, work, key):
        return run(jax.random.wrap_key_data(key), moved, rest, work, model=model, config=CONFIG.unlearn)

    return function, (moved, rest, work, KEY)


def evaluate(original):
    table = embed(original.params, original.data.graphs, original.data.features, model=original.model)
    ks = np.array([5, 20], np.int32)
    return rank, (
        table,
        held_out_task(original.dataset, "test"),
        ks,
    )


def forward(original):
    return (lambda *rows: embed(*rows, model=original.model)), (
        original.params,
        original.data.graphs,
        original.data.features,
    )


def objective(original):
    rows = jax.random.normal(jax.random.key(3), (14, 6, 4))
    return jax.value_and_grad(losses.mmrecun_jit), (losses.Views(*rows[:7]), losses.Views(*rows[7:]))


@pytest.mark.parametrize("entry", [train, unlearn, evaluate, forward, objective])
def test_exported_program_computes_the_same(entry, original):
    function, arguments = entry(original)
    leaves, tree = jax.tree.flatten(arguments)
    flat = jax.jit(lambda *leaves: jax.tree.leaves(function(*jax.tree.unflatten(tree, leaves))))
    exported = jax.export.export(flat, platforms=("cpu", "cuda", "tpu"))(*leaves)
    again = jax.export.deserialize(exported.serialize())
    assert again.platforms == ("cpu", "cuda", "tpu")
    for ours, theirs in zip(again.call(*leaves), flat(*leaves), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("entry", [train, unlearn, evaluate, forward])
def test_no_data_is_a_constant_of_a_program(entry, original):
    """A forgotten edge must not survive in a compilation cache: no table of numbers in a program is as long as what data holds."""
    longest = min(len(original.dataset.train), original.dataset.num_items)
    function, arguments = entry(original)
    program = jax.jit(function).lower(*arguments).as_text()
    tables = re.findall(r"dense<[\[\"].*?> : tensor<([0-9x]*)x[a-z]", program)
    assert all(np.prod([int(n) for n in shape.split("x")]) < longest for shape in tables)
    closed = jax.jit(lambda: original.dataset.train + 1).lower().as_text()  # what the search must find
    assert re.search(r"dense<[\[\"].*?> : tensor<80x2xi32>", closed)
