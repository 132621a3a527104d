"""The losses of MGCN and MMRecUN as pure functions of jax.numpy, for use in any training loop.

This module imports nothing from the rest of the package and needs neither flax nor optax. Every loss comes in two forms: a plain
function to call inside your own jitted step, and a jitted one of the same name with the suffix `_jit`, whose keywords are static where
the value chooses the program.

    d = s_up - s_un is the margin of a triplet (user u, positive or forgotten item p, negative item n).

`weights` are 0 for padded rows and 1 for real ones (any non-negative value works); means are weighted means, and rows of weight 0
take no part in any of them, nor in the columns of InfoNCE. A batch whose weights are all 0 gives 0.

Sources: BPR, Rendle et al. 2009 (arXiv 1205.2618). MGCN, Yu et al. 2023 (arXiv 2308.03588). MMRecUN, Sinha et al. 2025
(arXiv 2405.15328). InfoNCE, van den Oord et al. 2018 (arXiv 1807.03748).
"""

import functools
import math
from typing import Literal, NamedTuple, cast

import jax
import jax.numpy as jnp

_SMALLEST_BOUNDED_TEMPERATURE = 0.03
_BLOCK, _LARGE_BLOCK = 512, 8192  # rows of InfoNCE's exponentials at a time, on a CPU and elsewhere
_DISTINCT_SHARES = (3 / 8, 3 / 4, 1)  # of a batch, see `distinct_sizes`; more of them take longer to compile
_EPS = 1e-12  # inside the norm: a zero row (a user without edges) keeps a zero value and a finite gradient


def bpr(positive_scores: jax.Array, negative_scores: jax.Array, *, weights: jax.Array | None = None) -> jax.Array:
    """Bayesian personalised ranking, mean of -log sigmoid(d).

    Args:
        positive_scores: float [B], s_up.
        negative_scores: float [B], s_un.
        weights: float [B] or None for ones.

    Returns:
        float scalar, >= 0.

    Raises:
        ValueError: shapes that differ; nothing is broadcast.

    Reference: arXiv 1205.2618, eq. 4 (without the regulariser).

    Examples:
        >>> round(float(bpr(jnp.array([2.0, 0.0]), jnp.array([0.0, 0.0]))), 4)
        0.41
    """
    _check_vectors(positive_scores=positive_scores, negative_scores=negative_scores, weights=weights)
    margin = _counted(positive_scores, weights) - _counted(negative_scores, weights)
    return _mean(jax.nn.softplus(-margin), weights)


def reverse_bpr(
    forget_scores: jax.Array,
    negative_scores: jax.Array,
    *,
    form: Literal["swap", "ascent"] = "swap",
    weights: jax.Array | None = None,
) -> jax.Array:
    """Reverse BPR: minimising it lowers forgotten pairs below negatives.

    swap:   mean of -log sigmoid(-d), bounded below by 0; its gradient dies out once a pair is forgotten.
    ascent: mean of +log sigmoid(d), unbounded below; needs a stop or clipping.

    Args:
        forget_scores: float [B], scores of forgotten pairs.
        negative_scores: float [B], scores of the same users with items they never had.
        form: static.
        weights: float [B] or None for ones.

    Returns:
        float scalar.

    Raises:
        ValueError: an unknown form, or shapes that differ.

    Reference: reverse objective of MMRecUN (arXiv 2405.15328); which of the two forms the paper uses is our reading, so both are here.

    Examples:
        >>> round(float(reverse_bpr(jnp.array([2.0]), jnp.array([0.0]))), 4)
        2.1269
    """
    _check_form(form=form)
    _check_vectors(forget_scores=forget_scores, negative_scores=negative_scores, weights=weights)
    margin = _counted(forget_scores, weights) - _counted(negative_scores, weights)
    return _mean(jax.nn.softplus(margin) if form == "swap" else -jax.nn.softplus(-margin), weights)


def info_nce(
    x: jax.Array,
    y: jax.Array,
    *,
    temperature: float = 0.2,
    weights: jax.Array | None = None,
    ids: jax.Array | None = None,
) -> jax.Array:
    """InfoNCE of matching rows, mean_i [ log sum_j exp(x_i.y_j / tau) - x_i.y_i / tau ] over L2-normalised rows.

    j runs over all rows of the batch, the positive and duplicates included; one direction only. Under differentiation the gradient is
    computed with the value, by blocks of rows, and no softmax is computed twice. With a Python temperature of 0.03 or more, at most 512
    rows of the B x B matrix are held at a time on a CPU, 8,192 elsewhere; with a lower or traced one, all rows are, for their maxima.

    In a batch of pairs, busy users and popular items occur many times. With `ids`, a CPU computes each once and weighs it by how often
    it occurs: the same value for a fraction of the products. The gradient of equal rows is then placed at one of them, which makes no
    difference to the table they were taken from. (On a CPU under vmap every compiled number of rows is computed; leave ids out there.)

    Args:
        x: float [B, d], anchors.
        y: float [B, d], their positives; all rows serve as candidates.
        temperature: tau > 0.
        weights: float [B] or None for ones; also weighs y_j in the sum over columns.
        ids: int [B] or None; rows with equal ids must be equal, in x and in y.

    Returns:
        float scalar.

    Raises:
        ValueError: shapes that differ; TypeError: an argument that is no array of numbers.

    Reference: arXiv 2308.03588, contrastive loss; arXiv 1807.03748, eq. 4.

    Examples:
        >>> round(float(info_nce(jnp.eye(2), jnp.eye(2), temperature=1.0)), 4)
        0.3133
    """
    _check_tables(x=x, y=y)
    _check_rows(x, weights=weights, ids=ids)
    _check_numbers(temperature=temperature)
    dtype = x.dtype if x.dtype == y.dtype else jnp.promote_types(x.dtype, y.dtype)
    columns = jnp.ones(x.shape[0], dtype) if weights is None else weights.astype(dtype)
    x, y = (_counted(rows, weights).astype(dtype) for rows in (x, y))
    x, y = _unit(x) / temperature, _unit(y)
    # Cosines are at most 1, so 1 / tau bounds every logit: as long as exp(-2 / tau) is a normal float32, no row maximum is needed,
    # which saves the passes over the B x B matrix that it costs.
    bounded = isinstance(temperature, (int, float)) and temperature >= _SMALLEST_BOUNDED_TEMPERATURE
    shift = jnp.full(x.shape[0], 1 / temperature, x.dtype) if bounded else _row_maxima(x, y, columns)
    spread = cast(jax.Array, _log_sum_exp(x, y, columns, shift, ids))
    return spread - jnp.sum(_shares(columns) * jnp.sum(x * y, axis=-1))


def distinct_sizes(rows: int) -> tuple[int, ...]:
    """Numbers of distinct rows for which InfoNCE of a batch with ids is compiled; the smallest that holds them is computed.

    Examples:
        >>> distinct_sizes(2048)
        (768, 1536, 2048)
    """
    return tuple(math.ceil(share * rows) for share in _DISTINCT_SHARES)


def row_l2(*tables: jax.Array, batch_size: int | None = None, weights: jax.Array | None = None) -> jax.Array:
    """Half the squared norm of the rows a batch reads, (|a|^2 + |b|^2 + ...) / (2 batch size).

    Args:
        tables: float [B, d] each: rows of users, positives, negatives.
        batch_size: divisor; the reference divides a short batch by the configured size too. None divides by the sum of weights.
        weights: float [B] or None for ones.

    Returns:
        float scalar, to be multiplied by the regularisation weight.

    Raises:
        ValueError: shapes that differ; TypeError: an argument that is no array of numbers.

    Reference: arXiv 2308.03588, final objective, as in MMRec's implementation.

    Examples:
        >>> float(row_l2(jnp.array([[3.0, 4.0]])))
        12.5
    """
    _check_tables(**{f"tables[{i}]": table for i, table in enumerate(tables)})
    _check_rows(tables[0], weights=weights)
    _check_batch_size(batch_size)
    squares = jnp.asarray(sum(jnp.sum(jnp.square(_counted(table, weights)), axis=-1) for table in tables))
    if batch_size is None:
        return 0.5 * _mean(squares, weights)
    total = jnp.sum(squares if weights is None else squares * weights)
    return 0.5 * total / jnp.asarray(batch_size, total.dtype)


def table_norms(*tables: jax.Array, weights: jax.Array | None = None) -> jax.Array:
    """Norms of the rows a batch reads, each table as one matrix, (|a|_F + |b|_F + ...) / B; not squared.

    Args:
        tables: float [B, d] each: rows of users, positives, negatives.
        weights: float [B] or None for ones; B is their sum.

    Returns:
        float scalar, to be multiplied by the regularisation weight.

    Raises:
        ValueError: shapes that differ; TypeError: an argument that is no array of numbers.

    Reference: the regulariser of VBPR and others in MMRec (arXiv 2302.04473).

    Examples:
        >>> float(table_norms(jnp.array([[3.0, 4.0]]), jnp.array([[0.0, 1.0]])))
        6.0
    """
    _check_tables(**{f"tables[{i}]": table for i, table in enumerate(tables)})
    _check_rows(tables[0], weights=weights)
    rows = jnp.float32(tables[0].shape[0]) if weights is None else jnp.sum(weights)
    squares = [jnp.sum(jnp.square(_counted(table, weights))) for table in tables]
    norms = [jnp.where(s > 0, jnp.sqrt(jnp.where(s > 0, s, 1)), 0) for s in squares]  # no NaN gradient at 0
    return jnp.asarray(sum(norms)) / jnp.where(rows > 0, rows, 1)


class Views(NamedTuple):
    """What a model knows about a batch of triplets, float [B, d] each: output rows; if it has them, the two views that MGCN's contrast
    compares; and ids."""

    user: jax.Array
    positive: jax.Array
    negative: jax.Array
    user_side: jax.Array | None = None
    user_content: jax.Array | None = None
    positive_side: jax.Array | None = None
    positive_content: jax.Array | None = None
    # int [B]; if given, rows with the same id are equal, and the contrast computes each once.
    user_ids: jax.Array | None = None
    positive_ids: jax.Array | None = None


def contrast(views: Views, *, temperature: float = 0.2, weights: jax.Array | None = None) -> jax.Array:
    """MGCN's self-supervised task: InfoNCE(side_p, content_p) + InfoNCE(side_u, content_u).

    Args:
        views: of a batch, with [B, d] rows.
        temperature: tau.
        weights: float [B] or None for ones.

    Raises:
        ValueError: the views to compare are missing, or shapes differ.

    Reference: arXiv 2308.03588, contrastive loss.
    """
    _check_kind(views)
    pairs = (views.positive_side, views.positive_content, views.user_side, views.user_content)
    if any(rows is None for rows in pairs):
        raise ValueError("views without side and content rows have no contrast; set its weight to a Python 0")
    _check_views(views, weights)
    positive_side, positive_content, user_side, user_content = cast(tuple[jax.Array, ...], pairs)
    settings = {"temperature": temperature, "weights": weights}
    items = info_nce(positive_side, positive_content, ids=views.positive_ids, **settings)
    return items + info_nce(user_side, user_content, ids=views.user_ids, **settings)


def scores(views: Views) -> tuple[jax.Array, jax.Array]:
    """s_up and s_un of a batch, float [B] each: inner products of output rows.

    Raises:
        ValueError: shapes that differ; TypeError: an argument that is no array of numbers.
    """
    _check_kind(views)
    _check_tables(user=views.user, positive=views.positive, negative=views.negative)
    return jnp.sum(views.user * views.positive, axis=-1), jnp.sum(views.user * views.negative, axis=-1)


def mgcn(
    views: Views,
    *,
    contrast_weight: float | jax.Array = 0.01,
    l2_weight: float | jax.Array = 1e-4,
    temperature: float = 0.2,
    batch_size: int | None = None,
    weights: jax.Array | None = None,
) -> jax.Array:
    """MGCN's training loss, BPR + reg L2 + cl CL.

    Args:
        views: of a batch, with [B, d] rows.
        contrast_weight: cl; a Python 0 leaves the contrast out of the program (LightGCN).
        l2_weight: reg.
        temperature: tau.
        batch_size: divisor of L2, see `row_l2`.
        weights: float [B] or None for ones.

    Returns:
        float scalar.

    Raises:
        ValueError: shapes that differ, or a contrast weight other than a Python 0 for views without a contrast.

    Reference: arXiv 2308.03588, final objective.
    """
    _check_views(views, weights)
    _check_numbers(contrast_weight=contrast_weight, l2_weight=l2_weight, temperature=temperature)
    views = jax.tree.map(lambda rows: _counted(rows, weights), views)
    loss = bpr(*scores(views), weights=weights)
    loss += l2_weight * row_l2(views.user, views.positive, views.negative, batch_size=batch_size, weights=weights)
    if isinstance(contrast_weight, (int, float)) and contrast_weight == 0:
        return loss
    return loss + contrast_weight * contrast(views, temperature=temperature, weights=weights)


def mmrecun(
    retain: Views,
    forget: Views,
    *,
    alpha: float | jax.Array = 0.5,
    retain_contrast: float | jax.Array = 0.01,
    forget_contrast: float | jax.Array = 0.01,
    l2_weight: float | jax.Array = 1e-4,
    temperature: float = 0.2,
    reverse: Literal["swap", "ascent"] = "swap",
    retain_weights: jax.Array | None = None,
    forget_weights: jax.Array | None = None,
) -> jax.Array:
    """The MMRecUN objective for one retain batch and one forget batch.

        alpha [BPR(D_r) + cl CL(D_r)] + (1 - alpha) [RBPR(D_f) - cl_f CL(D_f)] + reg L2 over the rows of both batches

    The contrastive task is negated on the forget set.

    Args:
        retain: views of a batch of D_r, [B, d] rows.
        forget: views of a batch of D_f, [B', d] rows.
        alpha: in [0, 1], weight of the retain terms.
        retain_contrast, forget_contrast: cl and cl_f; a Python 0 leaves the term out of the program.
        l2_weight: reg.
        temperature: tau.
        reverse: form of reverse BPR, static.
        retain_weights, forget_weights: float [B], [B'] or None for ones.

    Returns:
        float scalar.

    Raises:
        ValueError: shapes that differ, or a contrast weight other than a Python 0 for views without a contrast.

    Reference: arXiv 2405.15328, objective; the place of alpha and of the weights is our reading.
    """
    _check_views(retain, retain_weights, "retain")
    _check_views(forget, forget_weights, "forget")
    _check_numbers(retain_contrast=retain_contrast, forget_contrast=forget_contrast)
    shared = {"alpha": alpha, "l2_weight": l2_weight, "temperature": temperature}
    keep = mmrecun_retain(retain, contrast_weight=retain_contrast, weights=retain_weights, **shared)
    return keep + mmrecun_forget(
        forget, contrast_weight=forget_contrast, reverse=reverse, weights=forget_weights, **shared
    )


def mmrecun_retain(
    views: Views,
    *,
    alpha: float | jax.Array = 0.5,
    contrast_weight: float | jax.Array = 0.01,
    l2_weight: float | jax.Array = 1e-4,
    temperature: float = 0.2,
    weights: jax.Array | None = None,
) -> jax.Array:
    """The part of `mmrecun` that reads the retain batch: alpha [BPR(D_r) + cl CL(D_r)] + reg L2 over its rows; arguments as
    there."""
    _check_views(views, weights)
    _check_numbers(alpha=alpha, contrast_weight=contrast_weight, l2_weight=l2_weight, temperature=temperature)
    views = jax.tree.map(lambda rows: _counted(rows, weights), views)
    keep = mgcn(views, contrast_weight=contrast_weight, l2_weight=0.0, temperature=temperature, weights=weights)
    return alpha * keep + l2_weight * row_l2(views.user, views.positive, views.negative, weights=weights)


def mmrecun_forget(
    views: Views,
    *,
    alpha: float | jax.Array = 0.5,
    contrast_weight: float | jax.Array = 0.01,
    l2_weight: float | jax.Array = 1e-4,
    temperature: float = 0.2,
    reverse: Literal["swap", "ascent"] = "swap",
    weights: jax.Array | None = None,
) -> jax.Array:
    """The part of `mmrecun` that reads the forget batch: (1 - alpha) [RBPR(D_f) - cl_f CL(D_f)] + reg L2 over its rows; arguments as
    there."""
    _check_views(views, weights)
    _check_numbers(alpha=alpha, contrast_weight=contrast_weight, l2_weight=l2_weight, temperature=temperature)
    views = jax.tree.map(lambda rows: _counted(rows, weights), views)
    _check_form(reverse=reverse)
    lose = reverse_bpr(*scores(views), form=reverse, weights=weights)
    if not (isinstance(contrast_weight, (int, float)) and contrast_weight == 0):
        lose = lose - contrast_weight * contrast(views, temperature=temperature, weights=weights)
    return (1 - alpha) * lose + l2_weight * row_l2(views.user, views.positive, views.negative, weights=weights)


def bpr_divergence(scores_a: jax.Array, scores_b: jax.Array, *, weights: jax.Array | None = None) -> jax.Array:
    """BPR divergence of two models on the same pairs, mean of (s_a - s_b)^2.

    Args:
        scores_a, scores_b: float [n], scores of the same pairs (u, i) under models a and b.
        weights: float [n] or None for ones.

    Returns:
        float scalar, >= 0.

    Raises:
        ValueError: shapes that differ; TypeError: an argument that is no array of numbers.

    Reference: arXiv 2405.15328, the paper's replacement for KL divergence in sparse data.

    Examples:
        >>> float(bpr_divergence(jnp.array([1.0, 2.0]), jnp.array([1.0, 0.0])))
        2.0
    """
    _check_vectors(scores_a=scores_a, scores_b=scores_b, weights=weights)
    return _mean(jnp.square(_counted(scores_a, weights) - _counted(scores_b, weights)), weights)


_REAL = (jnp.floating, jnp.integer, jnp.bool_)
_OPTIONAL = ("weights", "ids")  # arguments that may be None


def _shape(name: str, array: jax.Array | None) -> tuple[int, ...]:
    """Shape of an argument, which must be an array of numbers. Checked while tracing, so it costs nothing at run time."""
    if array is None or not _is_real(array):
        dtype = getattr(array, "dtype", None)
        kind = f"an array of {dtype}" if dtype is not None else f"a {type(array).__name__}"
        raise TypeError(f"{name} is {kind}; an array of numbers is allowed")
    return array.shape


def _check_form(**values: str) -> None:
    """Check that every value is a form of reverse BPR."""
    for name, value in values.items():
        if not isinstance(value, str) or value not in ("swap", "ascent"):
            given = repr(value[:20]) if isinstance(value, str) else f"is a {type(value).__name__}, which"
            raise ValueError(f"{name} {given} is not one of 'swap', 'ascent'")


def _check_numbers(**values: float | jax.Array) -> None:
    """Check that every value is one number, of Python or of jax."""
    for name, value in values.items():
        if not isinstance(value, (int, float)) and (getattr(value, "shape", None) != () or not _is_real(value)):
            raise TypeError(f"{name} is a {type(value).__name__}; one number is allowed")
        if isinstance(value, int) and abs(value) >= 2**31:
            raise ValueError(
                f"{name} is a whole number of {len(str(abs(value)))} digits; those below 2^31, and floats, are allowed"
            )


def _check_batch_size(batch_size: int | None) -> None:
    """Check that this is a number to divide by, or None."""
    if batch_size is None:
        return
    _check_numbers(batch_size=batch_size)
    if isinstance(batch_size, (int, float)) and not batch_size > 0:
        raise ValueError(f"batch_size is {batch_size}; a number above 0, or None, is allowed")


def _is_real(value: object) -> bool:
    dtype = getattr(value, "dtype", None)
    return dtype is not None and any(jnp.issubdtype(dtype, kind) for kind in _REAL)


def _check_vectors(**arrays: jax.Array | None) -> None:
    """Check that every array given is [B]."""
    given = {name: _shape(name, array) for name, array in arrays.items() if array is not None or name not in _OPTIONAL}
    first, shape = next(iter(given.items()))
    for name, other in given.items():
        if len(other) != 1 or other != shape:
            raise ValueError(f"{name} has shape {list(other)}; one axis is allowed, as long as {first} {list(shape)}")


def _check_tables(**arrays: jax.Array) -> None:
    """Check that every array is [B, d], and that there is one."""
    if not arrays:
        raise TypeError("no tables are given; at least one is needed")
    shapes = {name: _shape(name, array) for name, array in arrays.items()}
    first, shape = next(iter(shapes.items()))
    for name, other in shapes.items():
        if len(other) != 2 or other != shape:
            raise ValueError(
                f"{name} has shape {list(other)}; [rows, d] is allowed, the shape of {first} {list(shape)}"
            )


def _check_rows(table: jax.Array, **arrays: jax.Array | None) -> None:
    """Check that every array given has one entry per row of the table."""
    for name, array in arrays.items():
        if array is None and name in _OPTIONAL:
            continue
        shape = _shape(name, array)
        if shape != table.shape[:1]:
            raise ValueError(f"{name} has shape {list(shape)}; [{table.shape[0]}] is allowed, one a row")


def _check_kind(views: Views, name: str = "views") -> None:
    if not isinstance(views, Views):
        raise TypeError(f"{name} is a {type(views).__name__}; Views are expected")


def _check_views(views: Views, weights: jax.Array | None, of: str = "") -> None:
    """Check that every array of a batch is [B, d], and that ids and weights are [B].

    Args:
        of: name of the argument, if there are several; its weights are then named `of`_weights.
    """
    _check_kind(views, of or "views")
    tables = {name: rows for name, rows in views._asdict().items() if rows is not None}
    ids = {name: tables.pop(name) for name in ("user_ids", "positive_ids") if name in tables}
    before, own = (f"{of}.", f"{of}_weights") if of else ("", "weights")
    _check_tables(**{before + name: rows for name, rows in tables.items()})
    _check_rows(views.user, **{before + name: rows for name, rows in ids.items()})
    if weights is not None:
        _check_rows(views.user, **{own: weights})


def _mean(values: jax.Array, weights: jax.Array | None) -> jax.Array:
    """Weighted mean; 0 where the weights sum to 0."""
    if weights is None:
        return jnp.mean(values)
    total = jnp.sum(weights)
    return jnp.sum(values * weights) / jnp.where(total > 0, total, 1)


def _counted(rows: jax.Array, weights: jax.Array | None) -> jax.Array:
    """The rows, those of weight 0 set to 0, so that nothing in the padding, not even inf or NaN, reaches value or gradient."""
    if weights is None:
        return rows
    return jnp.where((weights > 0).reshape(-1, *[1] * (rows.ndim - 1)), rows, 0)


def _unit(x: jax.Array) -> jax.Array:
    """Rows of length 1; a row shorter than 1e-12 is divided by 1e-12, as PyTorch's normalize does, without its NaN gradient at 0.

    The largest entry is divided out first, so that neither huge nor tiny rows leave the range of float32 when squared.
    """
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis=-1, keepdims=True))
    scaled = x / jnp.where(largest > _EPS, largest, 1)
    square = jnp.sum(jnp.square(scaled), axis=-1, keepdims=True)
    return scaled * jnp.where(largest > _EPS, jax.lax.rsqrt(jnp.where(largest > _EPS, square, 1)), 1 / _EPS)


def _row_maxima(x: jax.Array, y: jax.Array, columns: jax.Array) -> jax.Array:
    """Largest logit of each row over the columns that count, [B]."""
    largest = jnp.max(jnp.where(columns > 0, x @ y.T, -jnp.inf), axis=1)
    return jax.lax.stop_gradient(jnp.where(jnp.isfinite(largest), largest, 0))


def _distinct(ids: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """One row of each id that counts, int32 [B], and the sum of its weights, float [B]; weights after the last of them are 0."""
    counted = jnp.where(weights > 0, ids, jnp.iinfo(ids.dtype).max)
    order = jnp.argsort(counted)
    ordered = counted[order]
    group = jnp.cumsum(jnp.concatenate([jnp.zeros(1, bool), ordered[1:] != ordered[:-1]]))
    return jnp.zeros_like(order).at[group].set(order), jnp.zeros_like(weights).at[group].add(weights[order])


def _shares(columns: jax.Array) -> jax.Array:
    """The weight of each row in the mean over all, [B]; 0 where no row counts."""
    total = jnp.sum(columns)
    return columns / jnp.where(total > 0, total, 1)


@jax.custom_vjp
def _log_sum_exp(x: jax.Array, y: jax.Array, columns: jax.Array, shift: jax.Array, ids: jax.Array | None) -> jax.Array:
    """sum_i share_i log sum_j columns_j exp(x_i.y_j), scalar; shift [B] keeps the exponentials in range. Differentiable in x and y."""
    return _log_sum_exp_forward(x, y, columns, shift, ids)[0]


def _log_sum_exp_forward(x, y, columns, shift, ids):
    on_a_cpu = _all_rows if ids is None else functools.partial(_distinct_rows, ids)
    # WHY not everywhere: a GPU is done with all rows before it has found the distinct ones.
    return jax.lax.platform_dependent(
        x, y, columns, shift, cpu=on_a_cpu, default=functools.partial(_first_rows, x.shape[0], _LARGE_BLOCK)
    )


def _all_rows(x, y, columns, shift):
    return _first_rows(x.shape[0], _BLOCK, x, y, columns, shift)


def _distinct_rows(ids, x, y, columns, shift):
    """Value and gradients of `_log_sum_exp` from one row of each id, which gets the gradient of all rows with that id."""
    rows = x.shape[0]
    first, columns = _distinct(ids, columns)
    sizes = distinct_sizes(rows)
    # The smallest of the sizes that holds all rows that count; the last size holds every row.
    choice = jnp.sum(jnp.sum(columns > 0) > jnp.asarray(sizes[:-1]))
    programs = [functools.partial(_first_rows, size, _BLOCK) for size in sizes]
    value, gradients = jax.lax.switch(choice, programs, x[first], y[first], columns, shift[first])
    place = jnp.where(columns > 0, first, rows)
    return value, tuple(jnp.zeros_like(x).at[place].set(g, mode="drop") for g in gradients)


def _first_rows(size, block, x, y, columns, shift):
    """Value and gradients of `_log_sum_exp`, from the first `size` rows, `block` of them at a time."""
    beyond = x.shape[0] - size
    x, y, columns, shift = (rows[:size] for rows in (x, y, columns, shift))
    share = _shares(columns)
    # WHY blocks: half a thousand rows of exponentials stay in a CPU's cache between the three products that read them.
    blocks = -(-size // block)
    padding = -size % blocks
    cut = [jnp.pad(rows, ((0, padding),) + ((0, 0),) * (rows.ndim - 1)) for rows in (x, share, shift)]
    weighted = columns[:, None] * y

    def one_block(to_y, some):
        x, share, shift = some
        # No counted logit lies above its shift; a padded one may, and must not overflow.
        exponentials = jnp.exp(jnp.minimum(x @ y.T - shift[:, None], 0))
        total = exponentials @ columns
        total = jnp.where(total > 0, total, 1)
        scale = (share / total)[:, None]
        # The softmax is never written out: its scales move to the thin factors of each product. The barrier keeps XLA from turning the
        # second product into exponentials.T @ (...), which on a CPU runs at half the speed.
        to_y = to_y + jax.lax.optimization_barrier((scale * x).T) @ exponentials
        return to_y, (jnp.sum(share * (shift + jnp.log(total))), scale * (exponentials @ weighted))

    to_y, (values, to_x) = jax.lax.scan(
        one_block, jnp.zeros_like(y.T), [rows.reshape(blocks, -1, *rows.shape[1:]) for rows in cut]
    )
    gradients = to_x.reshape(-1, x.shape[1])[:size], columns[:, None] * to_y.T
    return jnp.sum(values), tuple(jnp.pad(rows, ((0, beyond), (0, 0))) for rows in gradients)


def _log_sum_exp_backward(gradients, g):
    to_x, to_y = gradients
    return g * to_x, g * to_y, None, None, None


_log_sum_exp.defvjp(_log_sum_exp_forward, _log_sum_exp_backward)


bpr_jit = jax.jit(bpr)
reverse_bpr_jit = jax.jit(reverse_bpr, static_argnames="form")
info_nce_jit = jax.jit(info_nce, static_argnames="temperature")
row_l2_jit = jax.jit(row_l2, static_argnames="batch_size")
table_norms_jit = jax.jit(table_norms)
contrast_jit = jax.jit(contrast, static_argnames="temperature")
mgcn_jit = jax.jit(mgcn, static_argnames=("contrast_weight", "temperature", "batch_size"))
mmrecun_jit = jax.jit(mmrecun, static_argnames=("retain_contrast", "forget_contrast", "temperature", "reverse"))
mmrecun_retain_jit = jax.jit(mmrecun_retain, static_argnames=("contrast_weight", "temperature"))
mmrecun_forget_jit = jax.jit(mmrecun_forget, static_argnames=("contrast_weight", "temperature", "reverse"))
bpr_divergence_jit = jax.jit(bpr_divergence)
