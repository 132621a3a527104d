"""Check 7, coins: a lower bound on epsilon from one run, and no guarantee of anything.

The second item of each canary was drawn at random from items like it, so which of them it is was left to chance. An attacker who sees
the model looks at it and at other items that could have been drawn, M in all, and guesses the one nearest to the first item. If the
answers to any two requests are within e^(2 epsilon) of each other, as they are if each is within e^epsilon of what retraining gives, then
each guess is right with probability at most e^(2 epsilon) / (M - 1 + e^(2 epsilon)), whatever the others. So with v of r guesses right

    epsilon >= log((M - 1) p / (1 - p)) / 2,   p the one-sided Clopper-Pearson bound of v / r at 95 %

with delta 0. Auditing in one run: Steinke, Nasr and Jagielski 2023 (arXiv 2305.08846). Any of the M could have been drawn, except
that canaries are planted in a certain order; knowing it gained nothing on generated data (9.5 % right, where chance is 10 %).
"""

import jax
import jax.numpy as jnp
import numpy as np

from recunlearn_jax.audit.base import Case, Check, Measure, Row, Subject
from recunlearn_jax.audit.canary import RARE, Canaries
from recunlearn_jax.dataset import Dataset
from recunlearn_jax.verdict import Figure

AMONG = 10  # M, if that many items could have been drawn
LEVEL = 0.95


def candidates(
    dataset: Dataset, canaries: Canaries, spared: np.ndarray, *, among: int = AMONG, seed: int = 0
) -> np.ndarray:
    """First item, second item, and items that could have been in its place, int32 [n, 1 + M]; no item is in two rows.

    Args:
        dataset: with the planted users.
        canaries: rare ones, as `canary.plant` plants them.
        spared: bool [|I|], items that cannot be candidates; canaries with one of them are left out.
        among: M; fewer if there are not enough items.
        seed: of the draw.
    """
    before = dataset.train[dataset.train[:, 0] < canaries.users.min()]
    known = np.bincount(before[:, 1], minlength=dataset.num_items)
    free = (known >= RARE[0]) & (known <= RARE[1]) & ~dataset.removed_items & ~spared
    free[canaries.pairs] = False
    pairs = canaries.pairs[~spared[canaries.pairs].any(axis=1)]
    others = min(among - 1, int(free.sum()) // max(len(pairs), 1))
    rng, rows = np.random.default_rng([seed, 12]), []
    for a, b in pairs:
        related = np.unique(before[np.isin(before[:, 0], before[before[:, 1] == a, 0]), 1])
        drawn = rng.permutation(np.setdiff1d(np.flatnonzero(free), related))[:others]
        if len(drawn) == others:
            rows.append([a, b, *drawn])
            free[drawn] = False
    return np.array(rows, np.int32).reshape(-1, 2 + others)


def right_guesses(embedding: jax.Array, rows: np.ndarray, num_users: int) -> int:
    """How many second items are nearer to the first than all others that could have been drawn, by cosine of output rows.

    Args:
        embedding: Z, float [|U| + |I|, d].
        rows: from `candidates`.
        num_users: |U|.
    """
    items = embedding[num_users + jnp.asarray(rows)]
    unit = items / jnp.maximum(jnp.linalg.norm(items, axis=-1, keepdims=True), 1e-12)
    cosine = jnp.einsum("nd,nmd->nm", unit[:, 0], unit[:, 1:])
    # If all are equally near, none is nearest.
    return int(jnp.sum(cosine[:, 0] > jnp.max(cosine[:, 1:], axis=1)))


def epsilon_at_least(right: int, guesses: int, among: int) -> float:
    """The lower bound on epsilon; 0 if the guesses are no better than chance.

    Examples:
        >>> epsilon_at_least(2, 20, 10), round(epsilon_at_least(20, 20, 10), 2)
        (0.0, 2.01)
    """
    from scipy.stats import beta

    if not right:
        return 0.0
    least = float(beta.ppf(1 - LEVEL, right, guesses - right + 1))
    return max(0.0, float(np.log((among - 1) * least / (1 - least)) / 2))


def prepare(case: Case) -> Measure:
    """Share of right guesses on the canaries, and the bound."""
    canaries: Canaries | None = case.planted.get("canary")
    rows = np.zeros((0, 3), np.int32)
    if canaries is not None:
        taken = case.forget_set.items.copy()
        for dose in case.planted.get("dose", []):  # other checks planted on these items, so they could not be drawn
            taken[dose.canaries.pairs] = True
        if "shilling" in case.planted:
            taken[case.planted["shilling"].targets] = True
        rows = candidates(case.dataset, canaries, taken)
    if not len(rows) or rows.shape[1] < 3:
        return lambda subject: {}

    def measure(subject: Subject) -> Row:
        right = right_guesses(subject.model.rows, rows, case.dataset.num_users)
        bound = epsilon_at_least(right, len(rows), rows.shape[1] - 1)
        return {"coins guessed": right / len(rows), "epsilon at least": bound}

    return measure


CHECK = Check(7, (Figure("coins guessed", "remembered", 0.05),), prepare, source="arXiv 2305.08846")
