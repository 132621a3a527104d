"""Host graphs against dense numpy: A_hat, kNN item graphs, their normalisation, and the jraph form."""

from typing import Any, cast

import jraph
import numpy as np
import pytest
import scipy.sparse

from recunlearn_jax.dataset import Dataset
from recunlearn_jax.graph import (
    bipartite,
    equal_neighbours,
    from_jraph,
    host_graphs,
    items_to_users,
    keep_items,
    knn_similarities,
    normalize,
    to_jraph,
    users_to_items,
    with_item_graphs,
)

USERS, ITEMS = 6, 5
# user 4 and item 3 have no interaction
PAIRS = np.array([[0, 0], [0, 1], [1, 1], [2, 0], [2, 2], [2, 4], [3, 2], [5, 1], [5, 4]], np.int32)


def dense_a_hat(pairs, num_users, num_items):
    a = np.zeros((num_users + num_items,) * 2)
    for user, item in pairs:
        a[user, num_users + item] = a[num_users + item, user] = 1
    degree = a.sum(axis=1)
    root = np.array([d**-0.5 if d else 0 for d in degree])
    return root[:, None] * a * root[None, :]


def dense_knn(features, k):
    """Row by row; ties go to whichever comes first, so only for features without ties."""
    features = np.asarray(features, np.float64)
    present = [i for i, row in enumerate(features) if row.any()]
    out = np.zeros((len(features),) * 2)
    for i in present:
        cosines = {
            j: features[i] @ features[j] / np.linalg.norm(features[i]) / np.linalg.norm(features[j]) for j in present
        }
        for j in sorted(cosines, key=lambda j: -cosines[j])[:k]:
            out[i, j] = cosines[j]
    return out


def random_features(seed, items=11, width=4):
    return np.random.default_rng(seed).normal(size=(items, width)).astype(np.float32)


def test_bipartite():
    a_hat = bipartite(PAIRS, USERS, ITEMS)
    theirs = dense_a_hat(PAIRS, USERS, ITEMS)
    np.testing.assert_allclose(a_hat.toarray(), theirs, rtol=1e-6)
    assert a_hat.dtype == np.float32
    assert a_hat.nnz == 2 * len(PAIRS)
    assert a_hat.has_sorted_indices
    np.testing.assert_array_equal(a_hat.toarray(), a_hat.toarray().T)


def test_nodes_without_edges_stay_without():
    for pairs in (PAIRS, PAIRS[:0]):
        a_hat = bipartite(pairs, USERS, ITEMS).toarray()
        assert np.isfinite(a_hat).all()
        for node in (4, USERS + 3):
            assert not a_hat[node].any()
            assert not a_hat[:, node].any()


def test_order_of_pairs_does_not_matter():
    shuffled = PAIRS[np.random.default_rng(0).permutation(len(PAIRS))]
    np.testing.assert_array_equal(bipartite(shuffled, USERS, ITEMS).toarray(), bipartite(PAIRS, USERS, ITEMS).toarray())


def test_the_blocks_of_a_hat():
    a_hat = bipartite(PAIRS, USERS, ITEMS)
    a_hat.check_format(full_check=True)
    dense = a_hat.toarray()
    for ours, block in (
        (items_to_users(a_hat, USERS), dense[:USERS, USERS:]),
        (users_to_items(a_hat, USERS), dense[USERS:, :USERS]),
    ):
        np.testing.assert_array_equal(ours.toarray(), block)
        assert ours.nnz == len(PAIRS)
        ours.check_format(full_check=True)


@pytest.mark.parametrize("k", [1, 3, 11])
@pytest.mark.parametrize("block", [1, 4, 1024])
def test_knn(k, block):
    """At k = 11 all neighbours; blocks of rows give the same as all rows at once."""
    features = random_features(1)
    ours = knn_similarities(features, k, block)
    np.testing.assert_allclose(ours.toarray(), dense_knn(features, k), atol=1e-6)
    assert ours.dtype == np.float32
    assert (np.diff(ours.indptr) == k).all()
    np.testing.assert_allclose(ours.diagonal(), 1, atol=1e-6)  # an item is among its own neighbours


def test_knn_does_not_depend_on_length_of_features():
    features = random_features(2)
    longer = features * np.geomspace(1e-3, 1e3, len(features)).astype(np.float32)[:, None]
    np.testing.assert_allclose(
        knn_similarities(longer, 3).toarray(), knn_similarities(features, 3).toarray(), atol=1e-6
    )


@pytest.mark.parametrize("block", [2, 1024])
def test_items_without_features_have_no_edges(block):
    features = random_features(3)
    features[[0, 4, 10]] = 0
    ours = knn_similarities(features, 5, block).toarray()
    np.testing.assert_allclose(ours, dense_knn(features, 5), atol=1e-6)
    for item in (0, 4, 10):
        assert not ours[item].any()
        assert not ours[:, item].any()


def test_more_neighbours_than_items():
    features = random_features(4)
    features[2] = 0
    ours = knn_similarities(features, 100)
    np.testing.assert_allclose(ours.toarray(), dense_knn(features, 100), atol=1e-6)
    assert (np.diff(ours.indptr) == np.where(np.arange(11) == 2, 0, 10)).all()


def test_no_features_at_all():
    empty = knn_similarities(np.zeros((4, 3), np.float32), 2)
    assert empty.shape == (4, 4)
    assert empty.nnz == 0
    assert normalize(empty).nnz == 0


def test_ties_keep_k_of_the_best():
    """Six copies of one item and two others: any k of the copies are right, the values are all 1."""
    features = np.float32([[1, 2]] * 6 + [[2, -1], [0, 1]])
    ours = knn_similarities(features, 4)
    assert (np.diff(ours.indptr) == 4).all()
    rows = ours.toarray()[:6]
    np.testing.assert_allclose(rows[rows != 0], 1, atol=1e-6)
    assert not rows[:, 6:].any()


def test_normalize():
    """Directed: degrees are those of the rows, on both ends of an edge."""
    similarities = knn_similarities(np.abs(random_features(5)), 3)
    similarities = similarities + scipy.sparse.csr_array(np.diag(np.full(10, 0.5, np.float32), 1))
    dense = similarities.toarray().astype(np.float64)
    degree = dense.sum(axis=1)
    theirs = dense / np.sqrt(degree[:, None] * degree[None, :])
    assert np.abs(theirs - theirs.T).max() > 0.1
    ours = normalize(similarities)
    np.testing.assert_allclose(ours.toarray(), theirs, rtol=1e-5)
    assert ours.dtype == np.float32


def test_normalize_leaves_rows_without_edges():
    features = np.abs(random_features(6))
    features[[1, 5]] = 0
    ours = normalize(knn_similarities(features, 3)).toarray()
    assert np.isfinite(ours).all()
    assert not ours[[1, 5]].any()
    assert not ours[:, [1, 5]].any()


def test_weights_of_item_graphs_are_copies():
    """scipy sorts in place: what becomes of one graph must not reach the one it was made from."""
    similarities = scipy.sparse.csr_array(
        ([1.0, 2, 3], [2, 0, 1], [0, 2, 3, 3]), (3, 3), dtype=np.float32
    )  # not in order
    before = similarities.toarray()
    for made in (normalize(similarities), equal_neighbours(similarities)):
        expected = made.toarray()
        made.sort_indices()
        np.testing.assert_array_equal(made.toarray(), expected)
        np.testing.assert_array_equal(similarities.toarray(), before)
    np.testing.assert_allclose(equal_neighbours(similarities).toarray(), [[0.5, 0, 0], [0, 1, 0], [0, 0, 0]])


def test_keep_items():
    similarities = knn_similarities(random_features(10), 4)
    kept = ~np.isin(np.arange(11), [0, 3, 10])
    ours = keep_items(similarities, kept)
    np.testing.assert_array_equal(ours.toarray(), similarities.toarray() * kept[:, None] * kept)
    assert ours.nnz == np.count_nonzero(ours.toarray())
    assert keep_items(similarities, np.ones(11, bool)).nnz == similarities.nnz
    assert keep_items(similarities, np.zeros(11, bool)).nnz == 0


@pytest.mark.parametrize("capacity", [None, 9, 20])
def test_jraph_round_trip(capacity):
    matrix = scipy.sparse.random_array((7, 7), density=9 / 49, rng=np.random.default_rng(7), dtype=np.float32).tocsr()
    assert matrix.nnz == 9
    made = to_jraph(matrix, capacity)
    assert isinstance(made, jraph.GraphsTuple)
    graph, size = cast(Any, made), capacity or 9
    for array, dtype in ((graph.edges, np.float32), (graph.senders, np.int32), (graph.receivers, np.int32)):
        assert array.shape == (size,)
        assert array.dtype == dtype
    assert (np.diff(graph.receivers) >= 0).all()
    assert not graph.edges[9:].any()
    assert (graph.n_node.tolist(), graph.n_edge.tolist()) == ([7], [9])
    dense = np.zeros((7, 7), np.float32)
    np.add.at(dense, (graph.receivers, graph.senders), graph.edges)  # w_ij runs from sender j to receiver i
    np.testing.assert_array_equal(dense, matrix.toarray())
    back = from_jraph(graph)
    np.testing.assert_array_equal(back.toarray(), matrix.toarray())
    assert back.nnz == 9


def test_jraph_of_a_graph_without_edges():
    empty = scipy.sparse.csr_array((3, 3), dtype=np.float32)
    for capacity in (None, 4):
        graph: Any = to_jraph(empty, capacity)
        assert graph.edges.shape == (capacity or 0,)
        assert from_jraph(graph).nnz == 0


def test_capacity_below_the_number_of_edges():
    with pytest.raises(ValueError, match="negative"):
        to_jraph(bipartite(PAIRS, USERS, ITEMS), 2 * len(PAIRS) - 1)


def small_dataset(**changes):
    image, text = random_features(8, ITEMS), random_features(9, ITEMS, 2)
    image[1], text[[1, 3]] = 0, 0
    none = np.zeros((0, 2), np.int32)
    plain = Dataset("small", USERS, ITEMS, PAIRS, none, none, features={"text": text, "image": image})
    return plain.replace(**changes)


def test_items_without_a_feature_lack_the_modality():
    dataset = with_item_graphs(small_dataset(), 2)
    ours = host_graphs(dataset)
    users = [True] * dataset.num_users
    assert ours.available["image"].tolist() == [*users, True, False, True, True, True]
    assert ours.available["text"].tolist() == [*users, True, False, True, False, True]
    assert not ours.item_item["text"].toarray()[[1, 3]].any()
    assert not ours.item_item["text"].toarray()[:, [1, 3]].any()
    assert host_graphs(small_dataset(features={})).available == {}
    assert sorted(host_graphs(dataset, ("image",)).item_item) == ["image"]


def test_item_graphs_from_a_file_win():
    given = scipy.sparse.csr_array(np.eye(ITEMS, dtype=np.float32))
    attached = with_item_graphs(small_dataset(similarities={"text": given}), 2)
    assert attached.similarities["text"] is given
    theirs = knn_similarities(attached.features["image"], 2)
    np.testing.assert_array_equal(attached.similarities["image"].toarray(), theirs.toarray())
    assert with_item_graphs(attached, 4) is attached
