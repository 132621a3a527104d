"""Every loss against a slow float64 oracle: values, gradients, weights, extremes, signs."""

import doctest
import functools
import subprocess
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from loss_cases import (
    CASES,
    FORGET_ROWS,
    ROWS,
    batch_of,
    close,
    every_case,
    expected,
    finite,
    oracle_bpr,
    oracle_contrast,
    oracle_info_nce,
    oracle_mgcn,
    oracle_mmrecun,
    oracle_reverse_bpr,
    oracle_row_l2,
    oracle_scores,
    weights_of,
    wide,
)

from recunlearn_jax import losses
from recunlearn_jax.losses import Views
from recunlearn_jax.stopwatch import stopwatch

PADDED = [1, 2, 5, 6]  # rows of weight 0 in the tests of padding
GARBAGE = (np.nan, np.inf, -np.inf, 1e30)  # what they may hold


@functools.cache
def compiled_gradient(name: str) -> Callable:
    """Value and gradient in all arrays of a batch, compiled once a shape for this file."""
    case = CASES[name]
    return jax.jit(jax.value_and_grad(lambda batch, weights: case.loss(*batch, **weights, **case.settings)))


def numeric_gradient(function, tree):
    """Central differences in float64, entry by entry."""
    leaves, structure = jax.tree.flatten(wide(tree))
    gradients = []
    for leaf in leaves:
        gradient = np.zeros_like(leaf)
        for index in np.ndindex(leaf.shape):
            kept = leaf[index]
            around = []
            for shift in (1e-6, -1e-6):
                leaf[index] = kept + shift
                around.append(function(jax.tree.unflatten(structure, leaves)))
            leaf[index] = kept
            gradient[index] = (around[0] - around[1]) / 2e-6
        gradients.append(gradient)
    return jax.tree.unflatten(structure, gradients)


def test_weights_may_be_arrays_and_compile_nothing_anew():
    """Of the jitted losses: alpha and the L2 weight, which choose no program."""
    rng = np.random.default_rng(4)
    views = losses.Views(*(jnp.asarray(rng.normal(size=(8, 4)), jnp.float32) for _ in range(7)))
    for i, (alpha, weight) in enumerate([(0.3, 1e-3), (0.1, 1e-2), (0.7, 1e-2)]):
        given = jnp.float32(alpha), jnp.float32(weight)
        with stopwatch() as seconds:
            ours = losses.mmrecun_jit(views, views, alpha=given[0], l2_weight=given[1])
        assert seconds.programs == (0 if i else 1)
        np.testing.assert_allclose(ours, losses.mmrecun(views, views, alpha=alpha, l2_weight=weight), rtol=1e-5)


@every_case
def test_value(case):
    """Plain, without and with weights; jitted; and for several batches at once."""
    batch, weights = batch_of(case, 0), weights_of(case, 1)
    close(case.loss(*batch, **case.settings), expected(case, batch, None))
    theirs = expected(case, batch, weights)
    close(case.loss(*batch, **weights, **case.settings), theirs)
    close(case.jitted(*batch, **weights, **case.settings), theirs)


@every_case
def test_vmap_is_a_loop(case):
    batch, weights = batch_of(case, 2, lead=(3,)), weights_of(case, 3, lead=(3,))
    together = jax.vmap(lambda batch, weights: case.jitted(*batch, **weights, **case.settings))(batch, weights)
    alone = [expected(case, *jax.tree.map(lambda x, i=i: x[i], (batch, weights))) for i in range(3)]
    close(together, np.array(alone))


@pytest.mark.parametrize(
    ("jitted", "oracle", "kind"),
    [(losses.mgcn_jit, oracle_mgcn, "mgcn"), (losses.mmrecun_jit, oracle_mmrecun, "mmrecun")],
)
def test_default_settings(jitted, oracle, kind):
    batch = batch_of(CASES[kind], 15)
    ones = (np.ones(ROWS), np.ones(FORGET_ROWS))[: len(batch)]
    close(jitted(*batch), oracle(*wide(batch), *ones))


@pytest.mark.parametrize("name", ["info_nce", "info_nce cold"])
def test_vmapped_gradient_is_a_loop(name):
    """The hand-written backward pass has batching rules of its own."""
    case = CASES[name]
    batch, weights = batch_of(case, 2, lead=(3,)), weights_of(case, 3, lead=(3,))
    together = jax.vmap(compiled_gradient(name))(batch, weights)
    for i in range(3):
        alone = compiled_gradient(name)(*jax.tree.map(lambda x, i=i: x[i], (batch, weights)))
        close(jax.tree.map(lambda x, i=i: x[i], together), alone)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("weighted", [False, True])
def test_gradient(name, weighted):
    case = CASES[name]
    batch = batch_of(case, 4)
    weights = weights_of(case, 5) if weighted else None
    _, ours = compiled_gradient(name)(batch, weights or {})
    close(ours, numeric_gradient(lambda batch: expected(case, batch, weights), batch), 1e-4)


@jax.jit
@functools.partial(jax.value_and_grad, argnums=(0, 1, 2))
def naive_info_nce(x, y, temperature, weights):
    x, y = (table / jnp.linalg.norm(table, axis=1, keepdims=True) for table in (x, y))
    logits = x @ y.T / temperature
    columns = jnp.broadcast_to(weights, logits.shape)
    values = jax.scipy.special.logsumexp(logits, axis=1, b=columns) - jnp.diag(logits)
    return 3 * jnp.sum(values * weights) / jnp.sum(weights)


@pytest.mark.parametrize("temperature", [0.2, 0.01, "traced"])
def test_info_nce_backward_is_that_of_the_naive_form(temperature):
    """32 rows; the bounded path, the row-maximum path, and a temperature that is itself differentiated."""
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=(2, 32, 8)).astype(np.float32)
    x[3] = 2 * y[3]  # a logit at its bound
    traced = temperature == "traced"
    value = np.float32(0.07 if traced else temperature)

    def scaled(x, y, tau, weights):
        return 3 * losses.info_nce(x, y, temperature=tau if traced else temperature, weights=weights)

    ours = jax.jit(jax.value_and_grad(scaled, (0, 1, 2) if traced else (0, 1)))
    random = rng.uniform(0, 1, 32).astype(np.float32) * (np.arange(32) % 5 > 0)
    for weights in (None, random):
        ours_value, ours_gradient = ours(x, y, value, weights)
        theirs_value, theirs_gradient = naive_info_nce(
            x, y, value, np.ones(32, np.float32) if weights is None else weights
        )
        close(ours_value, theirs_value)
        close(ours_gradient, theirs_gradient[: len(ours_gradient)], 1e-4)


@functools.cache
def repeated_rows(temperature: float) -> tuple[Callable, Callable]:
    """Value and gradient of InfoNCE of rows taken from two tables, and the same for several pairs of tables at once with ids; compiled
    once a temperature."""

    def loss(x, y, weights, ids, given):
        return losses.info_nce(x[ids], y[ids], temperature=temperature, weights=weights, ids=ids if given else None)

    gradient = jax.jit(jax.value_and_grad(loss, (0, 1)), static_argnums=4)
    together = jax.vmap(lambda x, y, weights, ids: gradient(x, y, weights, ids, True), in_axes=(0, 0, None, None))
    return gradient, jax.jit(together)


@pytest.mark.parametrize("temperature", [0.2, 0.01])
@pytest.mark.parametrize("distinct", [2, 11, 12, 13, 24, 25, 32])
def test_repeated_rows_are_computed_once(distinct, temperature):
    """Around every number of rows that is compiled for 32: value, and gradient in the tables that the rows are taken from."""
    rng = np.random.default_rng(distinct)
    x, y = rng.normal(size=(2, 40, 8)).astype(np.float32)
    ids = rng.permutation(40)[:distinct]
    ids = rng.permutation(np.concatenate([ids, rng.choice(ids, 32 - distinct)])).astype(np.int32)
    real = (np.arange(32) < 29).astype(np.float32)  # the last rows of a short batch
    ids[29] = ids[:29].max()  # one of them names a real row
    gradient, together = repeated_rows(temperature)
    for weights in (None, real, real * rng.uniform(0.2, 2, 32).astype(np.float32), 0 * real):
        theirs = gradient(x, y, weights, ids, False)
        close(gradient(x, y, weights, ids, True), theirs, 1e-4)
    both = together(np.stack([x, y]), np.stack([y, x]), real, ids)
    close(jax.tree.map(lambda rows: rows[1], both), gradient(y, x, real, ids, False), 1e-4)


def test_ids_reach_the_contrast():
    """With ids in the views a row is looked up among its equals: unequal rows of one id are not what the contrast compares."""
    rng = np.random.default_rng(0)
    views = Views(*rng.normal(size=(7, 6, 4)).astype(np.float32))
    ids = np.array([0, 1, 2, 3, 3, 3], np.int32)
    once = jax.tree.map(lambda rows: rows[np.array([0, 1, 2, 3, 3, 3])], views)
    for name in ("user_ids", "positive_ids"):
        close(losses.contrast_jit(once._replace(**{name: ids})), losses.contrast_jit(once))
        assert losses.contrast_jit(views._replace(**{name: ids})) != losses.contrast_jit(views)


def rows_of(tree, rows):
    return jax.tree.map(lambda x: x[rows], tree)


def with_padding(case, batch, content):
    """Rows overwritten with content, and weights of 0 for them and 1 for the others."""

    def overwrite(x):
        x = x.copy()
        x[PADDED] = np.reshape(np.float32(content), (-1,) + (1,) * (x.ndim - 1))
        return x

    weights = {}
    for name, rows in zip(case.weight_names, (ROWS, FORGET_ROWS), strict=False):
        weights[name] = (~np.isin(np.arange(rows), PADDED)).astype(np.float32)
    return jax.tree.map(overwrite, batch), weights


@pytest.mark.parametrize("name", CASES)
def test_padded_rows_do_not_count(name):
    """Value and gradient are those of the batch without them, to the bit the same whatever they hold; their own gradient is 0."""
    case = CASES[name]
    batch = batch_of(case, 7)

    def alone(batch):
        real = jax.tree.map(lambda x: np.delete(x, PADDED, axis=0), batch)
        weights = [np.ones(rows - len(PADDED)) for rows in (ROWS, FORGET_ROWS)][: len(case.weight_names)]
        return case.oracle(*wide(real), *weights, **case.settings)

    value, gradient = compiled_gradient(name)(*with_padding(case, batch, np.zeros(4)))
    close(value, alone(batch))
    close(gradient, numeric_gradient(alone, batch), 1e-4)
    assert all((g == 0).all() for g in jax.tree.leaves(rows_of(gradient, np.array(PADDED))))
    for content in ((1, -2, 3, 40), GARBAGE):
        again = compiled_gradient(name)(*with_padding(case, batch, content))
        jax.tree.map(np.testing.assert_array_equal, again, (value, gradient))


@pytest.mark.parametrize("temperature", [0.2, 0.03, 0.01])
def test_opposite_rows(temperature):
    """All real cosines are near -1, so exponentials are as small as they get, and a padded column's logit of 0 lies far above."""
    rows = 6
    x = np.tile(np.float32([[1, 0.5, 0]]), (rows, 1))
    x[:, 2] = np.linspace(0, 0.2, rows)
    batch, ones = (x, -x), np.ones(rows, np.float32)

    def oracle(batch):
        x, y = wide(batch)
        return oracle_info_nce(x, y, ones, temperature)

    loss = jax.jit(jax.value_and_grad(functools.partial(losses.info_nce, temperature=temperature), (0, 1)))
    padded = (np.pad(table, ((0, 2), (0, 0))) for table in batch)
    padded_value, padded_gradient = loss(*padded, weights=np.pad(ones, (0, 2)))
    for value, gradient in (loss(*batch), (padded_value, rows_of(padded_gradient, slice(rows)))):
        close(value, oracle(batch))
        close(gradient, numeric_gradient(oracle, batch), 1e-3)


@pytest.mark.parametrize("name", CASES)
def test_weights_of_zero_give_zero(name):
    case = CASES[name]
    batch, weights = with_padding(case, batch_of(case, 8), GARBAGE)
    value, gradient = compiled_gradient(name)(batch, jax.tree.map(np.zeros_like, weights))
    assert float(value) == 0
    assert finite(gradient)


@pytest.mark.parametrize("name", CASES)
def test_extreme_inputs_stay_finite(name):
    """Huge, tiny and zero rows, each kind alone and side by side."""
    case = CASES[name]
    batch = batch_of(case, 9)

    def scaled(scales):
        return jax.tree.map(lambda x: (x.T * np.resize(np.float32(scales), len(x))).T, batch)

    for scales in ([case.huge], [1e-12], [1e-20], [1e-38], [0], [case.huge, 0, 1e-20, 1, 1e-12]):
        value, gradient = compiled_gradient(name)(scaled(scales), {})
        assert finite(value), scales
        assert finite(gradient), scales


@pytest.mark.parametrize("name", ["info_nce", "info_nce cold"])
def test_info_nce_does_not_depend_on_length(name):
    x, y = batch_of(CASES[name], 10)
    value, _ = compiled_gradient(name)((x, y), {})
    close(compiled_gradient(name)((x * np.float32(1e20), y * np.float32(1e-10)), {})[0], value)


@pytest.mark.parametrize("form", ["swap", "ascent"])
def test_descent_on_reverse_bpr_lowers_forgotten_pairs(form):
    rng = np.random.default_rng(11)
    tables = tuple(jnp.asarray(rng.normal(size=(6, 4)), jnp.float32) for _ in range(3))

    def margins(tables):
        user, forgotten, negative = tables
        return jnp.sum(user * forgotten, axis=1), jnp.sum(user * negative, axis=1)

    @jax.jit
    def step(tables):
        gradients = jax.grad(lambda t: losses.reverse_bpr(*margins(t), form=form))(tables)
        return jax.tree.map(lambda t, g: t - 0.1 * g, tables, gradients)

    before = margins(tables)
    for _ in range(20):
        tables = step(tables)
    after = margins(tables)
    assert (after[0] - after[1] < before[0] - before[1]).all()
    assert losses.reverse_bpr(*after, form=form) < losses.reverse_bpr(*before, form=form)
    assert losses.bpr(*after) > losses.bpr(*before)


@functools.cache
def mmrecun_gradient():
    """Gradient of MMRecUN in both batches with every setting traced: one program for the tests below."""
    names = ("alpha", "retain_contrast", "forget_contrast", "l2_weight")
    gradient = jax.grad(lambda batch, settings: losses.mmrecun(*batch, **dict(zip(names, settings, strict=True))))
    return jax.jit(gradient)


def test_views_without_side_rows():
    """Such a model has no contrast: with a weight of a Python 0 it is trained as any, else it is refused, eager and under jit."""
    (full,) = batch_of(CASES["mgcn"], 18)
    views, ones = Views(full.user, full.positive, full.negative), np.ones(ROWS)
    size = oracle_row_l2(*wide(views[:3]), ones)
    base = oracle_bpr(*oracle_scores(wide(views)), ones)
    close(losses.mgcn_jit(views, contrast_weight=0), base + 1e-4 * size)
    close(losses.mmrecun_retain_jit(views, contrast_weight=0), 0.5 * base + 1e-4 * size)
    lost = oracle_reverse_bpr(*oracle_scores(wide(views)), ones)
    close(losses.mmrecun_forget_jit(views, contrast_weight=0), 0.5 * lost + 1e-4 * size)
    both = losses.mmrecun_jit(views, views, retain_contrast=0, forget_contrast=0)
    close(both, 0.5 * base + 0.5 * lost + 2e-4 * size)
    for partial in (views, full._replace(user_side=None), full._replace(positive_content=None)):
        for loss in (losses.contrast, losses.mgcn, losses.mmrecun_retain, losses.mmrecun_forget):
            for refusing in (loss, jax.jit(loss)):
                with pytest.raises(ValueError, match="views without side and content rows have no contrast"):
                    refusing(partial)


def test_table_norms_of_zero_rows():
    """A norm has no derivative at 0; the gradient there is 0, beside a table whose is not."""
    zeros, table = np.zeros((3, 2), np.float32), np.float32([[3, 4], [0, 0], [0, 12]])
    value, gradients = jax.jit(jax.value_and_grad(losses.table_norms, (0, 1)))(zeros, table)
    assert float(value) == pytest.approx(13 / 3)
    np.testing.assert_array_equal(gradients[0], zeros)
    np.testing.assert_allclose(gradients[1], table / 13 / 3, rtol=1e-6)


@pytest.mark.parametrize(("alpha", "silent"), [(1, 1), (0, 0)])
def test_alpha_at_its_ends_leaves_only_l2_of_the_other_side(alpha, silent):
    batches = batch_of(CASES["mmrecun"], 12)
    batch = batches[silent]
    gradients = mmrecun_gradient()(batches, np.float32([alpha, 0.5, 0.5, 0.25]))
    for name in ("user", "positive", "negative"):
        close(getattr(gradients[silent], name), 0.25 * getattr(batch, name) / len(batch.user))
    for name in ("user_side", "user_content", "positive_side", "positive_content"):
        np.testing.assert_array_equal(getattr(gradients[silent], name), 0)
    assert all(np.abs(g).max() > 1e-3 for g in jax.tree.leaves(gradients[1 - silent]))
    without_l2 = mmrecun_gradient()(batches, np.float32([alpha, 0.5, 0.5, 0]))
    assert all((g == 0).all() for g in jax.tree.leaves(without_l2[silent]))


def test_contrast_is_negated_on_the_forget_set():
    """Side and content rows enter by the contrast alone, so their gradient is its gradient, times + or - its weight."""
    batches = batch_of(CASES["mmrecun"], 12)
    gradients = mmrecun_gradient()(batches, np.float32([0.25, 0.8, 0.4, 0]))
    for batch, gradient, factor in zip(batches, gradients, (0.25 * 0.8, -0.75 * 0.4), strict=True):
        ones = np.ones(len(batch.user))
        plain = numeric_gradient(lambda views, ones=ones: oracle_contrast(views, ones), batch)
        for name in ("user_side", "user_content", "positive_side", "positive_content"):
            close(getattr(gradient, name), factor * getattr(plain, name), 1e-4)


@pytest.mark.parametrize("zero", [0, 0.0, np.zeros((), np.float32)], ids=["int", "float", "array"])
def test_contrast_weight_of_zero(zero):
    """A Python 0 leaves the term out, an array of 0 multiplies it; the value is the same."""
    (views,) = batch_of(CASES["mgcn"], 13)
    ones = np.ones(ROWS)
    size = oracle_row_l2(*wide((views.user, views.positive, views.negative)), ones)
    close(losses.mgcn(views, contrast_weight=zero), oracle_bpr(*oracle_scores(wide(views)), ones) + 1e-4 * size)
    retain, forget = batch_of(CASES["mmrecun"], 13)
    ours = losses.mmrecun(retain, forget, retain_contrast=zero, forget_contrast=zero)
    theirs = CASES["mmrecun"].oracle(
        *wide((retain, forget)), ones, np.ones(FORGET_ROWS), retain_contrast=0, forget_contrast=0
    )
    close(ours, theirs)


def test_docstring_examples():
    result = doctest.testmod(losses)
    assert result.attempted >= 5
    assert result.failed == 0


def test_needs_neither_flax_nor_optax():
    program = """
import sys
for name in ("flax", "optax", "jraph", "scipy"):
    sys.modules[name] = None
from recunlearn_jax import losses
import jax.numpy as jnp
print(float(losses.row_l2(jnp.array([[3.0, 4.0]]))))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "12.5"


def test_two_kinds_of_floats_are_taken_as_the_wider():
    x, y = (np.random.default_rng(i).normal(size=(6, 3)) for i in range(2))
    with jax.numpy_dtype_promotion("standard"):
        value, (to_x, to_y) = jax.value_and_grad(losses.info_nce, (0, 1))(
            jnp.asarray(x, jnp.float16), jnp.asarray(y, jnp.float32)
        )
    assert (value.dtype, to_x.dtype, to_y.dtype) == (jnp.float32, jnp.float16, jnp.float32)
    close(value, oracle_info_nce(x.astype(np.float16).astype(np.float64), y, np.ones(6)))
