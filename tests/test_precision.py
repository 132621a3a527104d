"""Precision of training's products: what a device lacks is refused, what it has is in the program, emulation rounds every factor."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recunlearn_jax.audit.likelihood import train_shadows
from recunlearn_jax.backbones.mgcn import Settings
from recunlearn_jax.config import Config, TrainConfig
from recunlearn_jax.errors import InputError
from recunlearn_jax.recommender import Recommender, init_params, set_up
from recunlearn_jax.synthetic import toy
from recunlearn_jax.train import fit, init_state, train_epoch
from recunlearn_jax.unlearn import answer

pytestmark = pytest.mark.slow

EXPERIMENTS = Path(__file__).parent.parent / "experiments"


DATA = toy(60, 40, pairs_per_user=5, clusters=2, feature_size=8)


def setup_in(precision, layout="segment"):
    """A toy data set; the layout is by default the one that every device can compile."""
    return set_up(
        DATA,
        Config(
            model=Settings(embedding_size=8, layout=layout),
            train=TrainConfig(precision=precision, batch_size=64, learning_rate=5e-3, max_epochs=1),
        ),
    )


def epoch_in(precision, layout="segment"):
    """An epoch's function and arguments."""
    setup = setup_in(precision, layout)
    state = init_state(init_params(jax.random.key(0), setup.data, backbone=setup.backbone))
    epoch = functools.partial(train_epoch, backbone=setup.backbone, config=setup.config.train)
    return epoch, (state, setup.data, jax.random.key(1))


@pytest.mark.parametrize("precision", ["bfloat16", "tensorfloat32"])
def test_whatever_trains_refuses_a_precision_that_is_not_there(precision):
    """A CPU would quietly compute in float32."""
    setup = setup_in(precision)
    original = Recommender(setup, init_params(jax.random.key(0), setup.data, backbone=setup.backbone))
    methods = ("gold", "finetune", "amnesiac", "sisa", "receraser")
    trainings = [functools.partial(answer, original, ["users:5%"], name) for name in methods]
    trainings.append(functools.partial(fit, DATA, setup.config))
    trainings.append(functools.partial(train_shadows, [original.dataset], setup.config, 1, seed=0))
    for training in trainings:
        with pytest.raises(
            InputError, match=f"train.precision: '{precision}' is not there on this cpu; allowed: float32"
        ):
            training()


@pytest.mark.parametrize(
    ("precision", "platform", "sign"),
    [
        ("float32", "tpu", "HIGHEST"),
        ("float32", "cuda", "HIGHEST"),
        ("bfloat16", "tpu", "lhs_precision_type = bf16"),
        ("bfloat16", "cuda", "lhs_precision_type = bf16"),
        ("tensorfloat32", "cuda", "lhs_precision_type = tf32"),
    ],
)
def test_every_product_of_an_epoch_is_in_the_precision(precision, platform, sign):
    epoch, arguments = epoch_in(precision)
    leaves, tree = jax.tree.flatten(arguments)
    flat = jax.jit(lambda *leaves: jax.tree.leaves(epoch(*jax.tree.unflatten(tree, leaves))))
    program = jax.export.export(flat, platforms=[platform])(*leaves).mlir_module()
    products = [line for line in program.splitlines() if "stablehlo.dot_general" in line]
    assert len(products) > 10
    assert [line for line in products if sign not in line] == []


def test_emulation_rounds_both_factors_wherever_a_product_stands(monkeypatch):
    monkeypatch.syspath_prepend(EXPERIMENTS)
    from precision import rounded_products

    def function(x, w, turns, product):
        loop = jax.lax.fori_loop(0, turns, lambda i, total: total + jnp.tanh(product(x, w)), jnp.zeros((5, 4)))
        scanned, rows = jax.lax.scan(lambda c, _: (c + product(x, w), product(x, w)), jnp.zeros((5, 4)), length=2)
        branch = jax.lax.cond(turns > 2, lambda: jax.jit(product)(x, w), lambda: x[:, :4])
        # The derivative of a square: its product with the transpose is rounded too.
        _, back = jax.lax.scan(lambda c, row: (c + product(row[None], w), c), jnp.zeros((1, 4)), x, reverse=True)
        return loop, scanned, rows, branch, back, jax.grad(lambda w: jnp.sum(jnp.square(product(x, w))))(w)

    def by_hand(x, w):
        return jax.lax.reduce_precision(x, 8, 7) @ jax.lax.reduce_precision(w, 8, 7)

    x, w = jax.random.normal(jax.random.key(0), (5, 6)), jax.random.normal(jax.random.key(1), (6, 4))
    emulated = jax.jit(rounded_products(functools.partial(function, product=jnp.matmul), 7))(x, w, 3)
    values = function(x, w, 3, by_hand)[:-1]
    for ours, theirs in zip(emulated, values, strict=False):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    np.testing.assert_allclose(emulated[-1], by_hand(x.T, 2 * by_hand(x, w)), rtol=1e-6)
    assert not np.allclose(emulated[-1], 2 * x.T @ (x @ w), rtol=1e-3)


def test_emulation_refuses_what_it_would_leave_unrounded(monkeypatch):
    monkeypatch.syspath_prepend(EXPERIMENTS)
    from precision import rounded_products

    with pytest.raises(ValueError, match="holds matrix products"):
        rounded_products(jax.checkpoint(jnp.matmul), 7)(jnp.ones((2, 3)), jnp.ones((3, 2)))


@pytest.mark.parametrize("layout", ["segment", "csr"])
def test_an_emulated_epoch_is_the_epoch_but_for_rounding(layout, monkeypatch):
    monkeypatch.syspath_prepend(EXPERIMENTS)
    from precision import rounded_products

    epoch, arguments = epoch_in("float32", layout)
    rounded = jax.jit(lambda *arguments: [rounded_products(epoch, bits)(*arguments)[0].params for bits in (23, 7)])
    tables = dict(zip((23, 7), rounded(*arguments), strict=True))
    state, _ = epoch(*arguments)
    distance = {
        bits: max(jax.tree.leaves(jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), ours, state.params)))
        for bits, ours in tables.items()
    }
    assert distance[23] < 1e-6
    assert 1e-5 < distance[7] < 1e-1
