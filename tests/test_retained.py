"""The forget set and the data that remain, over mixes of everything, against sets of plain Python."""

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from toys import NAMES, as_set, ids, small_dataset, sorted_pairs

from recunlearn_jax import requests
from recunlearn_jax.data import read_dataset, write_dataset
from recunlearn_jax.dataset import SPLITS, Dataset
from recunlearn_jax.errors import InputError
from recunlearn_jax.graph import knn_similarities
from recunlearn_jax.requests import Request, forget_pairs, resolve, retained


@st.composite
def datasets(draw):
    """2 to 6 users, 3 to 7 items, up to two modalities that some items lack, up to one item removed earlier."""
    num_users, num_items = draw(st.integers(2, 6)), draw(st.integers(3, 7))
    removed = np.isin(np.arange(num_items), draw(st.lists(st.integers(0, num_items - 1), max_size=1)))
    grid = [(user, item) for user in range(num_users) for item in range(num_items) if not removed[item]]
    pairs = draw(st.lists(st.sampled_from(grid), min_size=2, max_size=25, unique=True))
    labels = [0, 0, *draw(st.lists(st.sampled_from([0, 0, 1, 2]), min_size=len(pairs) - 2, max_size=len(pairs) - 2))]
    splits = {
        split: sorted_pairs(pair for pair, label in zip(pairs, labels, strict=True) if label == number)
        for number, split in enumerate(SPLITS)
    }
    features = {}
    for name in NAMES[: draw(st.integers(0, 2))]:
        array = np.random.default_rng(draw(st.integers(0, 99))).uniform(0.1, 1, (num_items, 2)).astype(np.float32)
        array[draw(st.lists(st.integers(1, num_items - 1), max_size=2))] = 0
        array[removed] = 0
        features[name] = array
    graphs = {m: knn_similarities(x, 3) for m, x in features.items()} if draw(st.booleans()) else {}
    return Dataset(
        "drawn", num_users, num_items, **splits, features=features, similarities=graphs, removed_items=removed
    )


@st.composite
def data_and_requests(draw):
    """Ids named in any order, some twice, pairs whether they are in train, held out or nowhere, and shares."""
    dataset = draw(datasets())
    user, item = st.integers(0, dataset.num_users - 1), st.integers(0, dataset.num_items - 1)
    share = st.sampled_from(["30%", "50%"])

    def some(entries, most):
        return st.just(()) | st.lists(entries, min_size=1, max_size=most) | share

    modality = {
        m: draw(st.just("all") | st.lists(item, min_size=1, max_size=4) | share)
        for m in dataset.modalities
        if draw(st.booleans())
    }
    request = Request(
        users=draw(some(user, 2)),
        items=draw(some(item, 2)),
        pairs=draw(some(st.tuples(user, item), 6)),
        modality=modality,
        seed=draw(st.integers(0, 3)),
    )
    return dataset, request


def resolved(dataset, request):
    """The forget set, or None where the request is refused for one of the reasons that a mix at random can have."""
    try:
        return resolve(request, dataset)
    except InputError as error:
        if not any(reason in str(error) for reason in ("is empty", "leaves nothing to train on", "is none")):
            raise
        return None


@given(data_and_requests())
def test_forget_set_is_the_union_of_its_parts(drawn):
    dataset, request = drawn
    forget_set = resolved(dataset, request)
    if forget_set is None:
        return
    users, items, pairs = ids(forget_set.users), ids(forget_set.items), as_set(forget_set.pairs)
    for named, mask in ((request.users, users), (request.items, items)):
        assert isinstance(named, str) or set(named) == set(mask)
    assert isinstance(request.pairs, str) or set(request.pairs) == pairs
    for m, chosen in request.modality.items():
        rows = ids(forget_set.features[m])
        assert isinstance(chosen, str) or set(chosen) == set(rows)
        assert chosen != "all" or len(rows) == dataset.num_items
    forgotten = {(u, i) for u, i in dataset.train.tolist() if u in users or i in items or (u, i) in pairs}
    assert as_set(forget_pairs(dataset, forget_set)) == forgotten
    assert as_set(forget_set.absent_pairs(dataset)) == pairs - as_set(dataset.train)


@pytest.mark.parametrize("gone", [[], [0], [7], [0, 1, 6, 7], [3], range(8)])
def test_pairs_that_are_left(gone, monkeypatch):
    """In pieces or by a mask."""
    pairs = small_dataset(0).train
    for piece in (1, 1000):
        monkeypatch.setattr(requests, "_PIECE", piece)
        left = requests._left(pairs, np.array(gone, int))
        np.testing.assert_array_equal(left, np.delete(pairs, list(gone), axis=0))
        assert left.dtype == np.int32


@given(data_and_requests())
def test_retained_and_forgotten_partition_train(drawn):
    dataset, request = drawn
    forget_set = resolved(dataset, request)
    if forget_set is None:
        return
    kept, forgotten = retained(dataset, forget_set).train, forget_pairs(dataset, forget_set)
    assert len(kept)
    np.testing.assert_array_equal(sorted_pairs([*kept.tolist(), *forgotten.tolist()]), dataset.train)
    assert len(kept) + len(forgotten) == len(dataset.train)


@given(data_and_requests())
def test_nothing_forgotten_is_retained(drawn):
    dataset, request = drawn
    forget_set = resolved(dataset, request)
    if forget_set is None:
        return
    after = retained(dataset, forget_set)
    named = as_set(forget_set.pairs)
    for split in SPLITS:
        pairs = getattr(after, split)
        assert pairs.dtype == np.int32
        assert not forget_set.users[pairs[:, 0]].any()
        assert not forget_set.items[pairs[:, 1]].any()
        assert not as_set(pairs) & named
        kept = [
            (u, i)
            for u, i in getattr(dataset, split).tolist()
            if not forget_set.users[u] and not forget_set.items[i] and (u, i) not in named
        ]
        np.testing.assert_array_equal(pairs, sorted_pairs(kept))  # and nothing else is lost
    assert ids(after.removed_users) == ids(forget_set.users)
    assert ids(after.removed_items) == ids(forget_set.items | dataset.removed_items)
    assert (after.num_users, after.num_items) == (dataset.num_users, dataset.num_items)


@given(data_and_requests())
def test_forgotten_features_and_edges_are_gone(drawn):
    dataset, request = drawn
    forget_set = resolved(dataset, request)
    if forget_set is None:
        return
    after = retained(dataset, forget_set)
    for m in dataset.modalities:
        gone = forget_set.items | forget_set.features.get(m, np.zeros(dataset.num_items, bool))
        expected = np.where(gone[:, None], 0, dataset.features[m])
        if m in request.modality:
            assert (m in after.modalities) == expected.any()
        if m not in after.modalities:
            assert not expected.any()
            assert m not in after.similarities
            continue
        assert after.features[m].dtype == np.float32
        np.testing.assert_array_equal(after.features[m], expected)
        assert (m in after.similarities) == (m in dataset.similarities)
        if m in dataset.similarities:
            graph = after.similarities[m]
            weights = dataset.similarities[m].toarray()
            weights[gone], weights[:, gone] = 0, 0
            np.testing.assert_array_equal(graph.toarray(), weights)
            assert graph.dtype == np.float32
            assert not gone[graph.indices].any()  # no edge is left behind with a weight of zero
            assert not np.diff(graph.indptr)[gone].any()


@given(data_and_requests())
def test_forgetting_twice_is_forgetting_once(drawn):
    dataset, request = drawn
    forget_set = resolved(dataset, request)
    if forget_set is None:
        return
    once = retained(dataset, forget_set)
    again = Request(
        users=ids(forget_set.users),
        items=ids(forget_set.items),
        pairs=forget_set.pairs.tolist(),
        modality={m: ids(rows) for m, rows in forget_set.features.items() if m in once.modalities},
    )
    second = resolved(once, again)
    if second is not None:  # None: nothing but a whole modality was named, and that is gone
        assert not second.forget.any()
        assert retained(once, second).checksum == once.checksum


@given(data_and_requests())
def test_one_request_after_another_is_both_at_once(drawn):
    dataset, request = drawn
    everything = resolved(dataset, request)
    if everything is None:
        return
    first = Request(users=ids(everything.users), pairs=everything.pairs.tolist())
    second = Request(items=ids(everything.items), modality={m: ids(x) for m, x in everything.features.items()})
    data = dataset
    for part in (first, second):
        if part.describe() != "nothing":
            data = retained(data, resolve(part, data))
    assert data.checksum == retained(dataset, everything).checksum


@given(data_and_requests())
def test_retained_data_keep_the_rules_of_data_sets(tmp_path_factory, drawn):
    dataset, request = drawn
    forget_set = resolved(dataset, request)
    if forget_set is None:
        return
    after = retained(dataset, forget_set)
    assert after.replace().checksum == after.checksum  # a copy is checked as any data set is
    folder = tmp_path_factory.mktemp("retained") / "data"
    write_dataset(after, folder)
    back = read_dataset(folder)
    assert back.checksum == after.checksum
    for m, graph in after.similarities.items():
        assert isinstance(graph, scipy.sparse.csr_array)
        np.testing.assert_array_equal(back.similarities[m].toarray(), graph.toarray())
