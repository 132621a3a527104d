"""The formulas of delta in plain numpy, float64: neighbourhoods, regressions, gradients; and the data they are tried on."""

import numpy as np

PAIRS = np.array([[0, 0], [0, 1], [1, 1], [2, 0], [2, 2], [2, 4], [3, 2], [5, 1], [5, 4]], np.int32)
USERS, ITEMS = 6, 5  # user 4 and item 3 have no pair


def seen(pairs, num_users, num_items, kind):
    """Pairs as a matrix, float64: a row for each user, or for each item."""
    matrix = np.zeros((num_users, num_items))
    matrix[tuple(pairs.T)] = 1
    return matrix if kind == "users" else matrix.T


def oracle_phi(matrix, partners):
    """Row by row, in float64."""
    out, width = [], partners.shape[1]
    for row in matrix:
        held, degree = np.flatnonzero(row), row.sum()
        mean = partners[held].mean(axis=0) if degree else np.zeros(width)
        spread = sum((partners[j] / np.sqrt(degree * matrix[:, j].sum()) for j in held), np.zeros(width))
        log = np.log(1 + degree)
        out.append([*mean, *spread, *(log * mean), log, 1])
    return np.array(out)


def oracle_psi(matrix, own, partners, weights):
    """Edge by edge, in float64: phi of each partner's row less what its phi loses with the row."""
    out = []
    for row, held in enumerate(matrix):
        heard = partners.copy()
        for j in np.flatnonzero(held):
            (full,) = oracle_phi(matrix.T[[j]], own)
            without = matrix.T[[j]].copy()
            without[0, row] = 0
            # Its neighbours' degrees stay as they are: the row still has its other partners.
            (less,) = oracle_phi(without, own)
            held_by = np.flatnonzero(without[0])
            root = np.sqrt(max(without.sum(), 1) * matrix.sum(axis=1)[held_by])
            less[own.shape[1] : 2 * own.shape[1]] = (own[held_by] / root[:, None]).sum(axis=0)
            held_by = np.flatnonzero(matrix[:, j])
            root = np.sqrt(matrix[:, j].sum() * matrix.sum(axis=1)[held_by])
            full[own.shape[1] : 2 * own.shape[1]] = (own[held_by] / root[:, None]).sum(axis=0)
            heard[j] = partners[j] - (full - less) @ weights
        degrees = matrix.sum(axis=0)
        here = np.flatnonzero(held)
        mean = heard[here].mean(axis=0) if len(here) else np.zeros(heard.shape[1])
        spread = sum((heard[j] / np.sqrt(held.sum() * degrees[j]) for j in here), np.zeros(heard.shape[1]))
        log = np.log(1 + held.sum())
        out.append([*mean, *spread, *(log * mean), log, 1])
    return np.array(out)


def oracle_ridge(inputs, targets, penalty):
    """As least squares with further rows, one a column, whose targets are 0."""
    weight = np.sqrt(penalty * np.square(inputs).sum() / inputs.shape[1])
    inputs = np.vstack([inputs, weight * np.eye(inputs.shape[1])])
    targets = np.vstack([targets, np.zeros((inputs.shape[1], targets.shape[1]))])
    return np.linalg.lstsq(inputs, targets, rcond=None)[0]


def gradient_by_hand(z, data, negatives, kept):
    """Of the mean BPR of some pairs by rows z, float64."""
    gradient = np.zeros_like(z)
    for (u, i), j in zip(data.train[kept], negatives[kept], strict=True):
        plus, minus = data.num_users + i, data.num_users + j
        c = -1 / (1 + np.exp(z[u] @ (z[plus] - z[minus]))) / kept.sum()
        gradient[u] += c * (z[plus] - z[minus])
        gradient[plus] += c * z[u]
        gradient[minus] -= c * z[u]
    return gradient


def a_hat_by_hand(data, pairs):
    size = data.num_users + data.num_items
    a = np.zeros((size, size))
    a[pairs[:, 0], data.num_users + pairs[:, 1]] = 1
    a += a.T
    root = np.sqrt(np.maximum(a.sum(axis=1), 1))
    return a / root / root[:, None]
