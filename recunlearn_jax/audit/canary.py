"""Check 7, canaries: planted users whose trace can be read in rows that are not theirs.

Each group of added users shares an otherwise unrelated item pair (a, b). All of them are forgotten. A model that has forgotten ranks b
from a as a model that never saw them does; re-initialising the users' own rows does not achieve that, since the trace sits in the rows of
a and b. The median over all pairs is judged and the lowest tenth, too: a few pairs that stay near each other do not show in the median.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from recunlearn_jax.audit.base import Case, Check, Measure, Planted, Row, Subject
from recunlearn_jax.audit.planting import add_users
from recunlearn_jax.dataset import Dataset
from recunlearn_jax.errors import InputError
from recunlearn_jax.evaluate import ranks_found, task_on
from recunlearn_jax.verdict import Figure

# Number of interactions of items that a few users know: the model has learnt a place for them, and eight canaries show in it.
RARE = (3, 20)


class Canaries(NamedTuple):
    """What was planted."""

    pairs: np.ndarray  # int32 [n, 2], the item pairs (a, b)
    users: np.ndarray  # int32 [n * group], the added users, all to be forgotten


def plant(
    dataset: Dataset,
    count: int,
    *,
    group: int = 8,
    fillers: int = 3,
    popularity: tuple[int, int] = RARE,
    spared: np.ndarray | None = None,
    seed: int = 0,
) -> tuple[Dataset, Canaries]:
    """Add groups of users to the train set; each group shares one item pair that no other user has.

    Args:
        dataset: to plant in. No item graph depends on interactions, so the graphs stay unchanged.
        count: n, number of pairs.
        group: users per pair.
        fillers: further items per user, drawn by popularity, so that canaries look like users.
        popularity: least and most interactions of the items in a pair.
        spared: items that must not be in a pair.
        seed: of all draws.

    Returns:
        The data set with count * group more users, and what was planted.

    Raises:
        InputError: the data has too few items for so many unrelated pairs.
    """
    rng = np.random.default_rng([seed, 11])
    train = dataset.train
    known = np.bincount(train[:, 1], minlength=dataset.num_items)
    least, most = popularity
    eligible = np.flatnonzero((known >= least) & (known <= most) & ~dataset.removed_items)
    eligible = np.setdiff1d(eligible, [] if spared is None else spared)
    if count < 1 or 2 * count > len(eligible):
        raise InputError(
            f"{count} canaries asked for; with {len(eligible)} items of {least} to {most} interactions, "
            f"1 to {len(eligible) // 2} are possible"
        )
    chosen = rng.permutation(eligible)
    history = [set() for _ in range(dataset.num_items)]
    for user, item in train.tolist():
        history[item].add(user)
    pairs = []
    while len(pairs) < count and len(chosen) > 1:
        a, rest = chosen[0], chosen[1:]
        unrelated = [i for i, b in enumerate(rest) if not history[a] & history[b]]
        if unrelated:
            pairs.append((a, rest[unrelated[0]]))
            rest = np.delete(rest, unrelated[0])
        chosen = rest
    if len(pairs) < count:
        raise InputError(f"{count} canaries asked for; only {len(pairs)} unrelated item pairs were found")
    weights, drawn = known / known.sum(), min(fillers + 2, np.count_nonzero(known))
    histories = []
    for a, b in pairs:
        for _ in range(group):
            others = rng.choice(dataset.num_items, drawn, replace=False, p=weights)
            histories.append(np.array([a, b, *[o for o in others if o not in (a, b)][:fillers]]))
    planted, users = add_users(dataset, histories)
    return planted, Canaries(np.array(pairs, np.int32), users)


def canary_ranks(embedding: jax.Array, canaries: Canaries, num_users: int) -> np.ndarray:
    """Rank of b among all other items by cosine to a, in the output rows; 1 is the nearest. Chance is about |I| / 2.

    Args:
        embedding: Z, float [|U| + |I|, d].
        canaries: what was planted.
        num_users: |U|.

    Returns:
        int [n].
    """
    items = embedding[num_users:]
    unit = items / jnp.maximum(jnp.linalg.norm(items, axis=1, keepdims=True), 1e-12)
    a, b = jnp.asarray(canaries.pairs).T
    cosine = (unit[a] @ unit.T).at[jnp.arange(len(a)), a].set(-jnp.inf)
    own = jnp.take_along_axis(cosine, b[:, None], axis=1)
    return np.asarray(1 + jnp.sum(cosine > own, axis=1))


def canary_exposure(embedding: jax.Array, canaries: Canaries, retain: Dataset, k: int = 20) -> float | None:
    """Over all canaries and the retained users who have a but not b, the share who are shown b among the first k.

    Args:
        embedding: Z, float [|U| + |I|, d].
        canaries: what was planted.
        retain: data without the canary users.
        k: list length.

    Returns:
        In [0, 1]; None if nobody has a without b.
    """
    has = retain.train_matrix.tocsc()
    shown = [
        (user, b)
        for a, b in canaries.pairs
        for user in np.setdiff1d(has[:, [a]].nonzero()[0], has[:, [b]].nonzero()[0])
    ]
    if not shown:
        return None
    return float(np.mean(ranks_found(embedding, task_on(retain, np.array(shown))) <= k))


def plant_for_check(dataset: Dataset, count: int, taken: np.ndarray, seed: int) -> tuple[Dataset, Planted]:
    """`plant` in the form of `Check.plant`."""
    dataset, canaries = plant(dataset, count, spared=taken, seed=seed)
    return dataset, Planted(canaries.users, canaries.pairs.ravel(), canaries)


def prepare(case: Case) -> Measure:
    """Ranks of b from a, and how often b is shown to those who have only a."""
    canaries: Canaries | None = case.planted.get("canary")

    def measure(subject: Subject) -> Row:
        if canaries is None:
            return {}
        rows = subject.model.rows
        ranks = canary_ranks(rows, canaries, case.dataset.num_users)
        median, tenth = (float(np.quantile(ranks, share)) for share in (0.5, 0.1))
        row = {
            "canary median rank": median,
            "canary lowest tenth": tenth,
            "canary in top 20": float(np.mean(ranks <= 20)),
            "canary log10 rank": float(np.log10(median)),
            "canary log10 lowest tenth": float(np.log10(tenth)),
        }
        shown = canary_exposure(rows, canaries, case.retain, 20)
        return row if shown is None else row | {"canary exposure@20": shown}

    return measure


FIGURES = (
    Figure("canary log10 rank", "erased", 0.05),
    Figure("canary log10 lowest tenth", "erased", 0.05),
    Figure("canary exposure@20", "remembered", 0.01),
)
CHECK = Check(7, FIGURES, prepare, usual=True, plant=plant_for_check, version=2)
