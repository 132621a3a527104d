"""What the partners of a row say of it, and how much of that is an echo of the row itself.

    phi(a)  = [ mean ; spread ; log(1 + d_a) mean ; log(1 + d_a) ; 1 ] of the rows of a's partners, see `Near`
    W       = argmin |phi W - E|^2 + penalty |W|^2, a ridge regression of the trained rows on their phi
    lambda  = <E, psi W> / |psi W|^2, psi being phi of the partners' rows without what the row itself has put there

Partners were trained with the row, so part of what they say of it is what it said to them: a user with one item has a row that is hardly
more than that item's. W takes this echo for knowledge. It tells how rows differ; how a row changes with its partners is less, most of all
early in training, when items have taught their users and not yet learnt from them. lambda is the slope that is left when the row's own
part is taken out of each partner, as that partner's regression V has it:

    psi(a)  = phi of x_u = E_u - [phi(u) - phi(u without a)] V over the partners u of a
"""

import numpy as np

from recunlearn_jax.sides import OTHER, ByKind, Near, Nodes, Sides


def phi(near: Near) -> np.ndarray:
    """The neighbourhood of n rows, float32 [n, 3 d + 2]."""
    log_degree = np.log1p(near.degree).astype(np.float32)[:, None]
    return np.hstack([near.mean, near.spread, near.mean * log_degree, log_degree, np.ones_like(log_degree)])


def ridge(inputs: np.ndarray, targets: np.ndarray, penalty: float) -> np.ndarray:
    """W that minimises |X W - Y|^2 + p tr(X^T X) / k |W|^2, float32 [k, d].

    Args:
        inputs: X, float32 [n, k].
        targets: Y, float32 [n, d].
        penalty: p.

    Examples:
        >>> x = np.eye(2, dtype=np.float32)
        >>> ridge(x, 3 * x, 0.5).round(4).tolist()
        [[2.0, 0.0], [0.0, 2.0]]
    """
    # WHY float64: where all degrees are nearly the same, so are columns of X, and rounding would show.
    wide = inputs.astype(np.float64)
    gram = wide.T @ wide
    gram[np.diag_indices_from(gram)] += penalty * np.trace(gram) / len(gram)
    return np.linalg.solve(gram, wide.T @ targets).astype(np.float32)


def without_echo(data: Sides, tables: ByKind, kind: Nodes, weights: np.ndarray) -> np.ndarray:
    """psi of all users or all items, float32 [n, 3 d + 2].

    Everything is linear in the rows, so no edge is looked at by itself: what a partner's phi loses with one edge is a part of its own, a
    part of the row's, and factors of its degree.

    Args:
        data: before the request.
        tables: E, float32 [n, d] for users and items.
        kind: of the rows.
        weights: V, of their partners, float32 [3 d + 2, d'].
    """
    own, other = tables[kind], OTHER[kind]
    width = own.shape[1]
    of_mean, of_spread, of_log_mean, of_log, constant = np.split(weights, [width, 2 * width, 3 * width, 3 * width + 1])
    near, degree = data.of(other).near(own), data.degree[other].astype(np.float32)[:, None]
    left = np.maximum(degree - 1, 0)
    log_left = np.log1p(left)
    share = np.where(left > 0, 1 / np.maximum(left, 1), 0).astype(np.float32)
    # mean without a = share (d mean - E_a); spread without a = sqrt(share) (sqrt(d) spread - E_a / sqrt(d_a)).
    factors = (share, np.sqrt(share), log_left * share)
    theirs = (near.mean @ of_mean, near.spread @ of_spread, near.mean @ of_log_mean)
    scales = (degree, np.sqrt(degree), degree)
    rest = tables[other] - phi(near) @ weights + log_left * of_log + constant
    for factor, part, scale in zip(factors, theirs, scales, strict=True):
        rest = rest + factor * scale * part
    root = np.sqrt(np.maximum(data.degree[kind], 1)).astype(np.float32)[:, None]
    echoes = (own @ of_mean, own @ of_spread / root, own @ of_log_mean)

    side = data.of(kind)

    def seen(matrix) -> np.ndarray:
        return matrix @ rest - sum((matrix @ factor) * echo for factor, echo in zip(factors, echoes, strict=True))

    return phi(Near(seen(side.mean), seen(side.spread), side.degree))


def strength(rows: np.ndarray, said: np.ndarray) -> float:
    """<E, S> / |S|^2, of rows on what is said of them; 1 where nothing is.

    Args:
        rows: E, float32 [n, d].
        said: S, float32 [n, d].

    Examples:
        >>> strength(np.array([[2.0, 0.0]]), np.array([[4.0, 4.0]]))
        0.25
    """
    square = float(np.sum(said * said, dtype=np.float64))
    return float(np.sum(rows * said, dtype=np.float64)) / square if square else 1.0
