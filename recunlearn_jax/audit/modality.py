"""Check 2, modality: how much of a forgotten modality's item graph can still be read in the output rows."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from recunlearn_jax.audit.base import Case, Check, Measure, Row, Subject
from recunlearn_jax.dataset import Dataset
from recunlearn_jax.graph import with_item_graphs
from recunlearn_jax.verdict import Figure

NEIGHBOURS = 10  # in the item graph, if the data has none of its own


def modality_overlap(
    embedding: jax.Array, original: Dataset, features: Mapping[str, np.ndarray], block: int = 1024
) -> float | None:
    """Share of an item's neighbours in the forgotten modality's graph that are among its k nearest items by output cosine.

    k is the largest number of neighbours that any item has in that graph.

    Args:
        embedding: Z, float [|U| + |I|, d].
        original: the data before the request, with item graphs.
        features: modality -> bool [|I|], the forgotten feature rows.
        block: items at a time.

    Returns:
        Mean over the affected items and modalities, in [0, 1]; None if no affected item has a neighbour.
    """
    items = embedding[original.num_users :]
    unit = items / jnp.maximum(jnp.linalg.norm(items, axis=1, keepdims=True), 1e-12)
    shares = []
    for modality, rows in features.items():
        graph = original.similarities[modality]
        k = int(np.diff(graph.indptr).max(initial=1))
        chosen = np.flatnonzero(rows & (np.diff(graph.indptr) > 0))
        for start in range(0, len(chosen), block):
            part = chosen[start : start + block]
            nearest = np.asarray(jax.lax.top_k(unit[part] @ unit.T, k)[1])
            for item, near in zip(part, nearest, strict=True):
                own = graph.indices[graph.indptr[item] : graph.indptr[item + 1]]
                others = own[own != item]
                if len(others):
                    shares.append(np.isin(others, near).mean())
    return float(np.mean(shares)) if shares else None


def prepare(case: Case) -> Measure:
    """`modality_overlap` on the feature rows that the request forgets."""
    original = with_item_graphs(case.dataset, NEIGHBOURS) if case.forget_set.features else case.dataset

    def measure(subject: Subject) -> Row:
        if not case.forget_set.features:
            return {}
        value = modality_overlap(subject.model.rows, original, case.forget_set.features)
        return {} if value is None else {"modality overlap": value}

    return measure


CHECK = Check(2, (Figure("modality overlap", "remembered"),), prepare, usual=True)
