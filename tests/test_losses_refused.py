"""What losses refuse: shapes that do not fit, what is no array or no number; each by the argument's name."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from loss_cases import CASES, batch_of, every_case, weights_of

from recunlearn_jax import losses
from recunlearn_jax.losses import Views


def other_shapes(array):
    """The array in shapes that numpy would broadcast to its own, or that fit nothing."""
    yield array[..., None]
    yield array[:1]
    yield array[:-1]
    yield array[0]
    if array.ndim > 1:
        yield array[:, :1]


@every_case
def test_shapes_that_differ_are_refused(case):
    """Every array of every loss, one at a time, with weights and without; eager and under jit. Nothing is broadcast."""
    batch = batch_of(case, 16)
    if isinstance(batch[0], Views):
        batch = tuple(
            views._replace(user_ids=np.arange(len(views.user)), positive_ids=np.arange(len(views.user)))
            for views in batch
        )
    leaves, tree = jax.tree.flatten((batch, weights_of(case, 17)))
    plain = functools.partial(case.loss, **case.settings)
    for place, leaf in enumerate(leaves):
        for other in other_shapes(leaf):
            batch, weights = jax.tree.unflatten(tree, [*leaves[:place], other, *leaves[place + 1 :]])
            tries = [weights] if place >= len(jax.tree.leaves(batch)) else [weights, {}]
            for loss, given in itertools.product((plain, functools.partial(case.jitted, **case.settings)), tries):
                with pytest.raises(ValueError, match="has shape"):
                    loss(*batch, **given)


def test_column_of_scores_is_refused():
    """[B, 1] against [B] would be broadcast to all pairs of rows, a loss that looks like one."""
    column, row = jnp.ones((4, 1)), jnp.ones(4)
    for loss in (losses.bpr, losses.bpr_jit, losses.reverse_bpr, losses.reverse_bpr_jit, losses.bpr_divergence):
        with pytest.raises(ValueError, match="one axis is allowed"):
            loss(column, row)
        with pytest.raises(ValueError, match="one axis is allowed"):
            loss(row, column)
        with pytest.raises(ValueError, match=r"weights has shape \[4, 1\]"):
            loss(row, row, weights=column)


def test_unknown_form():
    scores = jnp.zeros(2)
    for loss in (losses.reverse_bpr, losses.reverse_bpr_jit):
        with pytest.raises(ValueError, match="form 'backwards' is not one of 'swap', 'ascent'"):
            loss(scores, scores, form="backwards")
    retain, forget = batch_of(CASES["mmrecun"], 14)
    with pytest.raises(ValueError, match="backwards"):
        losses.mmrecun(retain, forget, reverse="backwards")


@pytest.mark.parametrize(
    "wrong",
    [[1.0, 2.0], ["a", "b"], np.array(["a", "b"]), np.array([None, 1]), np.ones(2, complex), "ab", 1.0, {"a": 1}],
)
def test_arguments_that_are_no_arrays_of_numbers_are_named(wrong):
    right, table = jnp.ones(2), jnp.ones((2, 3))
    calls = {
        "negative_scores": lambda: losses.bpr(right, wrong),
        "forget_scores": lambda: losses.reverse_bpr(wrong, right),
        "weights": lambda: losses.info_nce(table, table, weights=wrong),
        r"tables\[1\]": lambda: losses.row_l2(table, wrong),
        "scores_b": lambda: losses.bpr_divergence(right, wrong),
    }
    for name, call in calls.items():
        with pytest.raises(TypeError, match=f"^{name} is an? .*; an array of numbers is allowed"):
            call()


def test_what_is_missing_or_of_another_kind_is_named():
    right, table = jnp.ones(2), jnp.ones((2, 3))
    with pytest.raises(TypeError, match="positive_scores is a NoneType"):
        losses.bpr(None, right)
    with pytest.raises(TypeError, match=r"tables\[0\] is a NoneType"):
        losses.row_l2(None)
    for wrong in ([0.2], "0.2", jnp.ones(1), None):
        with pytest.raises(TypeError, match=r"temperature is an? \w+; one number is allowed"):
            losses.info_nce(table, table, temperature=wrong)
    with pytest.raises(TypeError, match="no tables are given"):
        losses.row_l2()
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    for wrong in (["swap"], deep, None, 10**5000):
        with pytest.raises(ValueError, match=r"form is an? \w+, which is not one of"):
            losses.reverse_bpr(right, right, form=wrong)
    with pytest.raises(ValueError, match="form 'swop' is not one of"):
        losses.reverse_bpr(right, right, form="swop")
    views = losses.Views(table, table, table, table, table, table, table)
    for wrong in ("swop", ["swap"], math.nan):
        with pytest.raises(ValueError, match=r"reverse .* is not one of"):
            losses.mmrecun(views, views, reverse=wrong)
    for call in (losses.scores, losses.contrast, losses.mgcn):
        with pytest.raises(TypeError, match=r"views is a (str|tuple); Views are expected"):
            call("views" if call is losses.scores else (table, table, table))


def test_numbers_that_are_none_are_told():
    table = jnp.ones((2, 3))
    views = losses.Views(table, table, table, table, table, table, table)
    with pytest.raises(ValueError, match="temperature is a whole number of 10 digits; those below 2"):
        losses.info_nce(table, table, temperature=2**31)
    with pytest.raises(ValueError, match="alpha is a whole number of 401 digits"):
        losses.mmrecun_retain(views, alpha=10**400)
    for wrong in ("8", [8], jnp.ones(2), np.array("8")):
        with pytest.raises(TypeError, match=r"batch_size is an? .*; one number is allowed"):
            losses.row_l2(table, batch_size=wrong)
    for wrong in (0, -3, float("nan")):
        with pytest.raises(ValueError, match=r"batch_size is .*; a number above 0"):
            losses.mgcn(views, batch_size=wrong)
    assert float(losses.row_l2(table, batch_size=3)) == 1.0
    assert float(jax.jit(losses.row_l2)(table, batch_size=jnp.int32(3))) == 1.0


def test_the_argument_at_fault_is_named_where_there_are_two_batches():
    right, wrong, views = jnp.ones((2, 3)), jnp.ones((2, 4)), losses.Views
    good = views(right, right, right, right, right, right, right)
    with pytest.raises(ValueError, match=r"forget.negative has shape \[2, 4\]; .* the shape of forget.user"):
        losses.mmrecun(good, good._replace(negative=wrong))
    with pytest.raises(ValueError, match=r"retain_weights has shape \[3\]"):
        losses.mmrecun(good, good, retain_weights=jnp.ones(3))
    with pytest.raises(ValueError, match=r"forget.user_ids has shape \[5\]"):
        losses.mmrecun(good, good._replace(user_ids=jnp.arange(5)))
    with pytest.raises(TypeError, match="forget is a tuple; Views are expected"):
        losses.mmrecun(good, (right, right, right))
