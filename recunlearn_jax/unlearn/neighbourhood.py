"""What the partners of a row say about it, and how much of that is an echo of the row itself.

    phi(a)  = [ mean ; spread ; log(1 + d_a) mean ; log(1 + d_a) ; 1 ] of the rows of a's partners, see `Near`
    W       = a ridge regression of the trained rows E on their phi, see `ridge`
    lambda  = <E, psi W> / |psi W|^2, psi being phi of the partners' rows without what the row itself contributed

Items have shaped each user's row, so part of what it says about an item is the item's own influence coming back: the row of a user with
one item is hardly more than that item's. A regression cannot tell the two apart, and overstates how much an item changes when a user
leaves, most of all early in training, when items have taught their users and not yet learnt from them. So the item's contribution, as the
regression V of users estimates it, is taken out of each user's row; the item is predicted from what is left, and lambda is the slope of
the rows on that prediction. The same is done for users.

    psi(a)  = phi of x_u = E_u - [phi(u) - phi(u without a)] V over the partners u of a
"""

import numpy as np
import scipy.sparse

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


def said_without_echo(
    data: Sides, near: dict[Nodes, Near], tables: ByKind, kind: Nodes, rows: np.ndarray, weights: ByKind
) -> np.ndarray:
    """psi W of some users or items, float32 [k, d].

    Everything is linear in the rows, so no edge is handled on its own: what a partner's phi loses with one edge is a part of that phi and
    a part of the row, by factors that depend on the partner's degree.

    Args:
        data: before the request.
        near: of all users and of all items.
        tables: E, float32 [n, d] for users and items.
        kind, rows: which of them, int [k].
        weights: W and V, float32 [3 d + 2, d] for users and items.
    """
    own, other = tables[kind], OTHER[kind]
    width = own.shape[1]
    of_mean, of_spread, of_log_mean, of_log, constant = np.split(
        weights[other], [width, 2 * width, 3 * width, 3 * width + 1]
    )
    degree = data.degree[other].astype(np.float32)[:, None]
    left = np.maximum(degree - 1, 0)
    share = np.where(left > 0, 1 / np.maximum(left, 1), 0).astype(np.float32)
    log_degree, log_left = np.log1p(degree), np.log1p(left)
    # phi V by blocks; without a, mean = share (d mean - E_a) and spread = sqrt(share) (sqrt(d) spread - E_a / sqrt(d_a)).
    of_partners = near[other]
    mean, spread = of_partners.mean @ of_mean, of_partners.spread @ of_spread
    log_mean = of_partners.mean @ of_log_mean
    full = mean + spread + log_degree * (log_mean + of_log) + constant
    without = (
        share * degree * (mean + log_left * log_mean) + np.sqrt(share * degree) * spread + log_left * of_log + constant
    )
    partners = tables[other] - full + without
    # The part of E_a that is still to be taken off, by factors of the partner's degree.
    root = np.sqrt(np.maximum(data.degree[kind][rows], 1)).astype(np.float32)[:, None]
    echoes = (
        (share, own[rows] @ of_mean),
        (np.sqrt(share), own[rows] @ of_spread / root),
        (share * log_left, own[rows] @ of_log_mean),
    )
    side = data.of(kind, rows)

    def seen(matrix: scipy.sparse.csr_array) -> np.ndarray:
        return matrix @ partners - sum((matrix @ factor) * echo for factor, echo in echoes)

    return phi(Near(seen(side.mean), seen(side.spread), side.degree)) @ weights[kind]


def strength(rows: np.ndarray, said: np.ndarray) -> float:
    """<E, S> / |S|^2, the slope of rows on what is said about them, from 0 to 2.

    Where S is below a hundredth of E, partners only echo and the slope would be noise, so the strength is 0.

    Args:
        rows: E, float32 [n, d].
        said: S, float32 [n, d].

    Examples:
        >>> strength(np.array([[2.0, 0.0]]), np.array([[4.0, 4.0]]))
        0.25
    """
    own, heard = (float(np.sum(x * x, dtype=np.float64)) for x in (rows, said))
    if heard <= 1e-4 * own:
        return 0.0
    return min(max(float(np.sum(rows * said, dtype=np.float64)) / heard, 0.0), 2.0)
