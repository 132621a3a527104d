"""Check 9, lost co-occurrences. Does the model still hold the similarities that only forgotten users taught it?

Items that occurred together in a history, but nowhere in the retained data, have lost what made them similar. Their similarities should
follow the original's no more closely than Gold's do.
"""

import jax
import jax.numpy as jnp
import numpy as np

from recunlearn_jax.audit.base import Case, Check, Measure, Row, Subject
from recunlearn_jax.dataset import Dataset
from recunlearn_jax.requests import forget_pairs
from recunlearn_jax.verdict import Figure

_AT_ONCE = 500


def lost_cooccurrences(original: Dataset, retain: Dataset, forgotten: np.ndarray, most: int = 20000) -> np.ndarray:
    """Item pairs that shared a user through a forgotten pair and share none in the retained data, int32 [n, 2].

    Args:
        original, retain: the data before and after the request.
        forgotten: int [n, 2], D_f.
        most: if there are more, a sample (always the same) of at most this many.
    """
    users = np.unique(forgotten[:, 0])
    before = original.train_matrix[users]
    gone = before.copy()
    gone.data = gone.data - retain.train_matrix[users][gone.nonzero()]
    gone.eliminate_zeros()
    together = (gone.T @ before).tocoo()
    a, b = np.minimum(together.row, together.col), np.maximum(together.row, together.col)
    pairs = np.unique(np.stack([a, b], axis=1)[a != b], axis=0)
    by_item = retain.train_matrix.tocsc()
    chosen = np.random.default_rng(5).permutation(len(pairs))[: 2 * most]
    pairs = pairs[chosen]
    # A few pairs at a time: the columns of thousands of items may be larger than the data by far.
    blocks = np.array_split(pairs, 1 + len(pairs) // _AT_ONCE)
    left = np.concatenate(
        [np.ravel(by_item[:, a].multiply(by_item[:, b]).sum(axis=0)) for a, b in (x.T for x in blocks)]
    )
    lost = pairs[left == 0][:most]
    return lost[np.lexsort(lost.T[::-1])].astype(np.int32)


def cosines(embedding: jax.Array, item_pairs: np.ndarray, num_users: int) -> np.ndarray:
    """Cosine of the output rows of item pairs, float [n].

    Args:
        embedding: Z, float [|U| + |I|, d].
        item_pairs: int [n, 2].
        num_users: |U|.
    """
    items = embedding[num_users:]
    unit = items / jnp.maximum(jnp.linalg.norm(items, axis=1, keepdims=True), 1e-12)
    a, b = jnp.asarray(item_pairs).T
    return np.asarray(jnp.sum(unit[a] * unit[b], axis=1))


def correlation(cosines_a: np.ndarray, cosines_b: np.ndarray) -> float | None:
    """Pearson's correlation of two models' similarities on the same item pairs; None where one has no variance."""
    if len(cosines_a) < 3 or not np.std(cosines_a) or not np.std(cosines_b):
        return None
    return float(np.corrcoef(cosines_a, cosines_b)[0, 1])


def prepare(case: Case) -> Measure:
    """Correlation with the original's similarities on lost co-occurrences."""
    if case.original is None:
        return lambda subject: {}
    pairs = lost_cooccurrences(case.dataset, case.retain, forget_pairs(case.dataset, case.forget_set))
    own = cosines(case.original.rows, pairs, case.dataset.num_users)

    def measure(subject: Subject) -> Row:
        value = correlation(own, cosines(subject.model.rows, pairs, case.dataset.num_users))
        return {} if value is None else {"similarity correlation": value}

    return measure


CHECK = Check(9, (Figure("similarity correlation", "remembered", seeded=True),), prepare, version=2)
