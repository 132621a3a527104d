"""Every compiled entry point exports for cpu, cuda and tpu in the portable layout, and the exported program computes the same."""

import functools
import re
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
import pytest
from toys import posed

from recunlearn_jax import losses
from recunlearn_jax.backbones.mgcn import Settings
from recunlearn_jax.config import Config, TrainConfig
from recunlearn_jax.evaluate import held_out_task, rank
from recunlearn_jax.recommender import Recommender, embed, init_params, set_up
from recunlearn_jax.synthetic import toy
from recunlearn_jax.train import init_state, train_epoch
from recunlearn_jax.unlearn import mmrecun
from recunlearn_jax.unlearn.base import forget_sampler
from recunlearn_jax.unlearn.gradients import bpr_gradient

pytestmark = pytest.mark.slow

CONFIG = Config(model=Settings(embedding_size=8, neighbours=3, layout="segment"), train=TrainConfig(batch_size=64))
STEPS = mmrecun.Settings(steps=3, batch_size=32)
KEY = jax.random.key_data(jax.random.key(1))


@pytest.fixture(scope="module")
def original():
    setup = set_up(toy(40, 32, pairs_per_user=4, clusters=4, feature_size=4), CONFIG)
    return Recommender(setup, init_params(jax.random.key(0), setup.data, backbone=setup.backbone))


def train(original):
    def function(params, data, key):
        key = jax.random.wrap_key_data(key)
        return train_epoch(init_state(params), data, key, backbone=original.backbone, config=CONFIG.train)

    return function, (original.params, original.data, KEY)


def unlearn(original):
    problem = posed(original, ["users:5%", "pairs:2%"])
    retain, forget = problem.retain, original.data._replace(sampler=forget_sampler(problem))

    def function(params, retain, forget, key):
        chosen = {"backbones": (original.backbone, original.backbone), **mmrecun.arguments(STEPS)}
        return mmrecun.run(jax.random.wrap_key_data(key), params, retain, forget, **chosen)

    return function, (original.params, retain.data, forget, KEY)


def gradient(original):
    pairs = original.dataset.train
    triplets = (*pairs.T, np.roll(pairs[:, 1], 1))
    function = functools.partial(bpr_gradient, backbone=original.backbone)
    return function, (original.params, original.data, triplets, np.ones(len(pairs), np.float32))


def evaluate(original):
    return rank, (original.rows, held_out_task(original.dataset, "test"), np.array([5, 20], np.int32))


def forward(original):
    return (lambda *rows: embed(*rows, backbone=original.backbone)), (original.params, original.data)


def objective(original):
    rows = jax.random.normal(jax.random.key(3), (14, 6, 4))
    return jax.value_and_grad(losses.mmrecun_jit), (losses.Views(*rows[:7]), losses.Views(*rows[7:]))


class Program(NamedTuple):
    """An entry point on flat arguments, and the same exported."""

    flat: Callable
    leaves: list
    exported: jax.export.Exported


@pytest.fixture(scope="module")
def program_of(original):
    """Entry point -> its program, traced and exported once."""

    @functools.cache
    def made(entry):
        function, arguments = entry(original)
        leaves, tree = jax.tree.flatten(arguments)
        flat = jax.jit(lambda *leaves: jax.tree.leaves(function(*jax.tree.unflatten(tree, leaves))))
        return Program(flat, leaves, jax.export.export(flat, platforms=("cpu", "cuda", "tpu"))(*leaves))

    return made


@pytest.mark.parametrize("entry", [train, unlearn, gradient, evaluate, forward, objective])
def test_exported_program_computes_the_same(entry, program_of):
    flat, leaves, exported = program_of(entry)
    again = jax.export.deserialize(exported.serialize())
    assert again.platforms == ("cpu", "cuda", "tpu")
    for ours, theirs in zip(again.call(*leaves), flat(*leaves), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("entry", [train, unlearn, gradient, evaluate, forward])
def test_no_data_is_a_constant_of_a_program(entry, original, program_of):
    """A forgotten edge must not survive in a compilation cache: no table of numbers in a program is as long as what data holds."""
    longest = min(len(original.dataset.train), original.dataset.num_items)
    program = program_of(entry).exported.mlir_module()
    tables = re.findall(r"dense<[\[\"].*?> : tensor<([0-9x]*)x[a-z]", program)
    assert all(np.prod([int(n) for n in shape.split("x")]) < longest for shape in tables)
    closing = jax.jit(lambda: original.dataset.train + 1)  # what the search must find
    closed = jax.export.export(closing, platforms=("cpu", "cuda", "tpu"))().mlir_module()
    assert re.search(r"dense<[\[\"].*?> : tensor<80x2xi32>", closed)
