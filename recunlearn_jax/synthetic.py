"""A synthetic multi-modal data set to look at: clusters of users and items, and features that show them, at any size."""

import numpy as np

from recunlearn_jax.dataset import Dataset
from recunlearn_jax.errors import InputError


def toy(
    num_users: int = 1500,
    num_items: int = 800,
    *,
    pairs_per_user: int = 14,
    clusters: int | None = None,
    modalities: tuple[str, ...] = ("image", "text"),
    feature_size: int = 32,
    taste: float = 0.85,
    noise: float = 0.5,
    seed: int = 0,
) -> Dataset:
    """Clustered interactions with matching features.

    User u and item i belong to clusters u mod C and i mod C. A user draws items of their own cluster with probability `taste`, any item
    otherwise, popular ones (small i) more often. An item's features are its cluster's centre plus noise. Of each user's pairs the first
    two drawn are held out, one for valid and one for test.

    Args:
        num_users, num_items: |U| and |I|.
        pairs_per_user: distinct items each user draws, at least 3.
        clusters: C; if None, 8, or fewer if there are not enough items for so many.
        modalities: names; an empty tuple gives no features.
        feature_size: width of every modality.
        taste: probability of an own-cluster draw, in [0, 1].
        noise: standard deviation of the feature noise; the centres have standard deviation 1.
        seed: the same seed gives the same data set on every machine.

    Raises:
        InputError: a setting is out of range, or a user could not draw that many distinct items.
    """
    if clusters is None:
        clusters = min(8, max(1, num_items // max(2 * pairs_per_user, 1)))
    ranges = {
        "num_users": (num_users, 1, 10**8),
        "num_items": (num_items, 1, 10**7),
        "clusters": (clusters, 1, max(num_items, 1)),
        "feature_size": (feature_size, 1, 2**16),
        "seed": (seed, 0, 2**63),
    }
    for name, (value, low, high) in ranges.items():
        if not low <= value <= high:
            raise InputError(f"{name} is {value}; a whole number from {low} to {high} is allowed")
    if len(set(modalities)) != len(modalities):
        raise InputError(f"modalities {', '.join(modalities)}: one is named twice; each once is allowed")
    numbers = num_users * max(pairs_per_user, 0) + num_items * feature_size * len(modalities)
    if numbers > 10**9:
        raise InputError(f"{numbers} pairs and feature entries are asked for; 10^9 together are allowed")
    if not 0 <= taste <= 1:
        raise InputError(f"taste is {taste}; a probability from 0 to 1 is allowed")
    if not 0 <= noise < np.inf:
        raise InputError(f"noise is {noise}; a finite number that is not negative is allowed")
    if not 3 <= pairs_per_user <= num_items // (2 * clusters):
        raise InputError(
            f"pairs_per_user {pairs_per_user} is out of range: 3 to items / (2 clusters) = {num_items // (2 * clusters)} are allowed"
        )
    rng = np.random.default_rng(seed)
    chosen = np.concatenate(
        [
            _distinct_items(
                rng, np.arange(start, min(start + 65536, num_users)), num_items, pairs_per_user, clusters, taste
            )
            for start in range(0, num_users, 65536)
        ]
    )
    features = {}
    for modality in modalities:
        centres = rng.normal(size=(clusters, feature_size))
        features[modality] = (
            centres[np.arange(num_items) % clusters] + noise * rng.normal(size=(num_items, feature_size))
        ).astype(np.float32)
    return Dataset(
        name="toy",
        num_users=num_users,
        num_items=num_items,
        train=_pairs(chosen[:, 2:]),
        valid=_pairs(chosen[:, :1]),
        test=_pairs(chosen[:, 1:2]),
        features=features,
    )


def _distinct_items(rng, users, num_items, count, clusters, taste) -> np.ndarray:
    """[len(users), count] items, distinct in each row, in random order; rows are redrawn until they hold enough."""
    chosen = np.full((len(users), count), -1, np.int64)
    todo = np.arange(len(users))
    while len(todo):
        shape = (len(todo), 2 * count)
        cluster = np.where(rng.random(shape) < taste, users[todo, None] % clusters, rng.integers(clusters, size=shape))
        members = (num_items - cluster + clusters - 1) // clusters
        items = (members * rng.random(shape) ** 2).astype(
            np.int64
        ) * clusters + cluster  # density of a rank r: 1 / sqrt(r)
        order = np.argsort(items, axis=1, kind="stable")
        ordered = np.take_along_axis(items, order, axis=1)
        repeated = np.pad(ordered[:, 1:] == ordered[:, :-1], ((0, 0), (1, 0)))
        first = np.zeros(shape, bool)
        np.put_along_axis(first, order, ~repeated, axis=1)
        enough = first.sum(axis=1) >= count
        kept = np.argsort(~first[enough], axis=1, kind="stable")[:, :count]
        chosen[todo[enough]] = np.take_along_axis(items[enough], kept, axis=1)
        todo = todo[~enough]
    return chosen


def _pairs(items: np.ndarray) -> np.ndarray:
    users = np.repeat(np.arange(len(items), dtype=np.int32), items.shape[1])
    pairs = np.stack([users, items.reshape(-1).astype(np.int32)], axis=1)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
