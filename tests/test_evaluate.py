"""Ranking metrics against the reference's own numbers and a slow Python oracle; tasks; serving."""

import doctest
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recunlearn_jax import evaluate, recommend
from recunlearn_jax.arrays import power_of_two
from recunlearn_jax.backbones.mgcn import Settings
from recunlearn_jax.config import Config
from recunlearn_jax.dataset import Dataset
from recunlearn_jax.errors import InputError
from recunlearn_jax.evaluate import (
    METRICS,
    NEVER,
    forget_task,
    held_out_task,
    metrics_at_k,
    pair_scores,
    ranking_metrics,
    ranking_task,
    ranks_found,
    relevant_ranks,
    report,
    top_items,
)
from recunlearn_jax.graph import with_item_graphs
from recunlearn_jax.interop import params_from_mmrec_state_dict
from recunlearn_jax.recommender import embed, set_up
from recunlearn_jax.stopwatch import stopwatch
from recunlearn_jax.synthetic import toy

ORACLE = np.load(Path(__file__).parent / "fixtures" / "mgcn_small.npz", allow_pickle=False)
USERS, ITEMS = 7, 12
KS = (1, 3, 5, 12, 40)  # 40 is more than there are items
NO_PAIRS = np.zeros((0, 2), np.int32)

top_items_of = jax.jit(top_items, static_argnames="k")


# The reference's evaluation of the model that it trained for five steps.


@pytest.fixture(scope="module")
def reference():
    """Data set and Z of the reference's trained parameters."""
    config = json.loads(str(ORACLE["config"]))
    rows = ORACLE["interactions"]
    splits = {s: rows[rows[:, 2] == label, :2].astype(np.int32) for label, s in enumerate(("train", "valid", "test"))}
    features = {m: ORACLE[f"{m}_feat"] for m in ("image", "text")}
    plain = Dataset(name="oracle", num_users=90, num_items=60, **splits, features=features)
    dataset = with_item_graphs(plain, config["knn_k"])
    setup = set_up(dataset, Config(model=Settings(embedding_size=config["embedding_size"])))
    state = {k.removeprefix("adam/param/"): ORACLE[k] for k in ORACLE.files if k.startswith("adam/param/")}
    return dataset, embed(params_from_mmrec_state_dict(state), setup.data, backbone=setup.backbone)


def test_scores_that_are_no_numbers_are_never_the_best():
    """NaN compares with nothing: all of a broken model's items would have rank 1."""
    dataset = toy(40, 30, pairs_per_user=5, clusters=2, modalities=())
    task = held_out_task(dataset, "test")
    assert task is not None
    embedding = np.random.default_rng(0).normal(size=(70, 4)).astype(np.float32)
    before = ranking_metrics(jnp.asarray(embedding), task, (5,))
    assert before["recall@5"] > 0
    broken = ranking_metrics(jnp.full((70, 4), jnp.nan), task, (5,))
    assert set(broken.values()) == {0}
    half = embedding.copy()
    half[np.unique(dataset.test[:20, 0])] = np.nan
    assert ranking_metrics(jnp.asarray(half), task, (5,))["recall@5"] <= before["recall@5"]


@pytest.mark.parametrize("split", ["valid", "test"])
def test_lists_of_the_reference(reference, split):
    dataset, embedding = reference
    task = held_out_task(dataset, split)
    users = ORACLE[f"eval_users/{split}"]
    real = task.users[0][task.real[0]]
    ranked = np.argsort(real)  # a task has users with much to find first
    np.testing.assert_array_equal(real[ranked], users)
    top = top_items_of(embedding[task.users[0]], embedding[90:], task.masked[0], task.hidden, k=20)
    np.testing.assert_array_equal(top[ranked], ORACLE[f"top20/{split}"])
    held_back = dataset.replace(valid=NO_PAIRS, test=NO_PAIRS)  # the reference hides what is in train alone
    np.testing.assert_array_equal(recommend(embedding, held_back, users, 20), ORACLE[f"top20/{split}"])


@pytest.mark.parametrize("split", ["valid", "test"])
def test_metrics_of_the_reference(reference, split):
    """The lists are the same, so only rounding is left: their means are float64, ours float32 sums of 88 numbers in [0, 1]."""
    dataset, embedding = reference
    ours = ranking_metrics(embedding, held_out_task(dataset, split), (5, 10, 20))
    for metric in ("recall", "ndcg", "precision", "map"):
        for k in (5, 10, 20):
            assert ours[f"{metric}@{k}"] == pytest.approx(float(ORACLE[f"metrics/{split}/{metric}@{k}"]), abs=1e-6)


# A slow oracle on small random data. Embeddings are small whole numbers: scores are exact and often tie.


def oracle_list(embedding, user, excluded):
    """All candidates of a user, best first; the lower id wins a tie."""
    scores = embedding[USERS:] @ embedding[user]
    return sorted((item for item in range(ITEMS) if item not in excluded), key=lambda item: (-scores[item], item))


def oracle_metrics(embedding, relevant, masked, users, ks, hidden=()):
    totals = {f"{name}@{k}": 0.0 for name in METRICS for k in ks}
    for user in users:
        wanted = {item for u, item in relevant.tolist() if u == user}
        own = {item for u, item in masked.tolist() if u == user}
        ranked = oracle_list(embedding, user, own | set(hidden))
        for k in ks:
            cut = min(k, ITEMS)
            hits = [item in wanted for item in ranked[:cut]]
            if not wanted:
                continue
            possible = min(len(wanted), cut)
            gain = sum(1 / math.log2(rank + 2) for rank, hit in enumerate(hits) if hit)
            ideal = sum(1 / math.log2(rank + 2) for rank in range(possible))
            precisions = [sum(hits[: rank + 1]) / (rank + 1) for rank, hit in enumerate(hits) if hit]
            totals[f"recall@{k}"] += sum(hits) / len(wanted)
            totals[f"precision@{k}"] += sum(hits) / cut
            totals[f"ndcg@{k}"] += gain / ideal
            totals[f"map@{k}"] += sum(precisions) / possible
            totals[f"hit@{k}"] += any(hits)
    return {name: total / len(users) for name, total in totals.items()}


def random_case(seed):
    """Embedding, relevant and masked pairs (disjoint); always as many of each, so that everything compiles once."""
    rng = np.random.default_rng(seed)
    embedding = rng.integers(-2, 3, (USERS + ITEMS, 3)).astype(np.float32)
    pairs = rng.permutation(np.stack(np.divmod(np.arange(USERS * ITEMS), ITEMS), axis=1)).astype(np.int32)
    return embedding, pairs[:20], pairs[20:45]


def task_of(relevant, masked, hidden=None):
    """A task for all users, padded to the lengths of `random_case`."""
    task = ranking_task(relevant, masked, ITEMS, users=np.arange(USERS), hidden=hidden)

    def widen(pairs, size):
        return np.pad(pairs, ((0, 0), (0, size - pairs.shape[1]), (0, 0)), constant_values=task.users.shape[1])

    return task._replace(relevant=widen(task.relevant, 32), masked=widen(task.masked, 32))


def agree(ours, theirs):
    assert ours == pytest.approx(theirs, abs=2e-6)  # float32 against float64


@settings(deadline=None, max_examples=30, database=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_metrics_on_random_data(seed):
    """Everyone is ranked for, with or without something to find; the largest K is beyond the number of items."""
    embedding, relevant, masked = random_case(seed)
    for hidden in (np.zeros(ITEMS, bool), np.isin(np.arange(ITEMS), [seed % ITEMS, 5])):
        shown = relevant[~hidden[relevant[:, 1]]]
        theirs = oracle_metrics(embedding, shown, masked, range(USERS), KS, np.flatnonzero(hidden))
        agree(ranking_metrics(jnp.asarray(embedding), task_of(shown, masked, hidden), KS), theirs)


def test_items_that_cannot_be_shown_are_never_found():
    """With fewer candidates than K the end of a list is empty; a relevant item that is masked or hidden is no hit there."""
    embedding, relevant, masked = random_case(0)
    hidden = np.isin(np.arange(ITEMS), relevant[:3, 1])
    masked = np.concatenate([masked[3:], relevant[5:8]])
    theirs = oracle_metrics(embedding, relevant, masked, range(USERS), KS, np.flatnonzero(hidden))
    assert theirs["recall@12"] < 0.8
    agree(ranking_metrics(jnp.asarray(embedding), task_of(relevant, masked, hidden), KS), theirs)


def test_more_to_find_than_ranks():
    """One user with every item relevant: all ranks are hits, NDCG and MAP are 1; the six users with nothing to find count 0."""
    embedding, *_ = random_case(1)
    relevant = np.stack([np.full(ITEMS, 3), np.arange(ITEMS)], axis=1)
    ours = ranking_metrics(jnp.asarray(embedding), task_of(relevant, NO_PAIRS), KS)
    agree(ours, oracle_metrics(embedding, relevant, NO_PAIRS, range(USERS), KS))
    for name in ("ndcg@3", "map@3", "precision@40", "recall@12"):
        assert USERS * ours[name] == pytest.approx(1)
    assert USERS * ours["recall@3"] == pytest.approx(3 / ITEMS)


def test_users_to_rank_for():
    """A subset in any order, pairs of others are not looked at; by default everyone with something to find."""
    embedding, relevant, masked = random_case(2)
    relevant = relevant[relevant[:, 0] != 6]
    task = ranking_task(relevant, masked, ITEMS, users=np.array([6, 5, 0]))
    assert task.users[task.real].tolist() == [5, 0, 6]  # 3, 3 and 0 items to find
    theirs = oracle_metrics(embedding, relevant, masked, [5, 0, 6], KS)
    agree(ranking_metrics(jnp.asarray(embedding), task, KS), theirs)
    task = ranking_task(relevant, masked, ITEMS)
    users = task.users[task.real]
    assert sorted(users.tolist()) == np.unique(relevant[:, 0]).tolist()
    assert np.all(np.diff(np.bincount(relevant[:, 0])[users]) <= 0)


@pytest.mark.parametrize("block", [1, 3])
def test_block_size_does_not_matter(block):
    """Blocks of users, the last one padded and empty ones behind it; the other tests have all 7 users in one."""
    embedding, relevant, masked = random_case(3)
    task = ranking_task(relevant, masked, ITEMS, users=np.arange(USERS), block=block)
    assert task.filled == -(-USERS // block)
    assert task.users.shape == (power_of_two(int(task.filled)), block)
    agree(
        ranking_metrics(jnp.asarray(embedding), task, KS), oracle_metrics(embedding, relevant, masked, range(USERS), KS)
    )


def test_tasks_of_about_the_same_size_compile_nothing():
    """Such as those of what is left of a split after one small request or another: no size crosses a power of two."""
    rng = np.random.default_rng(5)
    embedding = jnp.asarray(rng.integers(-2, 3, (200, 3)), jnp.float32)
    pairs = np.stack(np.divmod(rng.permutation(150 * 50), 50), axis=1)
    relevant, masked = pairs[:240], pairs[240:1100]

    def metrics(left):
        to_find, known = (part[part[:, 0] < left] for part in (relevant, masked))
        return ranking_metrics(embedding, ranking_task(to_find, known, 50, block=16), KS)

    metrics(150)
    with stopwatch() as seconds:
        found = [metrics(left) for left in (149, 145, 140)]
    assert seconds.programs == 0
    assert len({metrics["recall@5"] for metrics in found}) == 3


def test_examples():
    result = doctest.testmod(evaluate)
    assert result.attempted > 0
    assert result.failed == 0


def test_vmap_over_k_is_one_k_at_a_time():
    rng = np.random.default_rng(4)
    rows = np.sort(rng.integers(0, USERS + 1, 20)).astype(np.int32)  # row USERS is padding
    ranks = rng.integers(1, ITEMS, 20)
    ranks = jnp.asarray(ranks[np.lexsort((ranks, rows))], jnp.int32)
    found = jnp.asarray(np.bincount(rows, minlength=USERS)[:USERS], jnp.int32)
    ks = jnp.array([1, 2, 7, 12], jnp.int32)
    together = jax.jit(jax.vmap(metrics_at_k, (None, None, None, 0)))(ranks, rows, found, ks)
    one = jax.jit(metrics_at_k)
    for k, ours in zip(ks, together, strict=True):
        np.testing.assert_allclose(ours, one(ranks, rows, found, k), rtol=1e-6)
    embedding, relevant, masked = random_case(4)
    task = task_of(relevant, masked)
    several = ranking_metrics(jnp.asarray(embedding), task, KS)
    alone = ranking_metrics(jnp.asarray(embedding), task, (3,))
    agree(alone, {name: several[name] for name in alone})


def test_lists_of_other_users_compile_nothing():
    """Sizes that follow the users asked for are padded."""
    rng = np.random.default_rng(3)
    dataset = toy(60, 40, pairs_per_user=6, clusters=2, modalities=())
    embedding = jnp.asarray(rng.normal(size=(100, 4)), jnp.float32)
    every = np.unique(dataset.train[:, 0])
    whole = recommend(embedding, dataset, every, 7)
    recommend(embedding, dataset, every[:13], 7)
    with stopwatch() as seconds:
        for count in (12, 14, 16):
            chosen = rng.permutation(every)[:count]
            np.testing.assert_array_equal(
                recommend(embedding, dataset, chosen, 7), whole[np.searchsorted(every, chosen)]
            )
    assert seconds.programs == 0
    assert recommend(embedding, dataset, np.array([]), 7).shape == (0, 7)
    with pytest.raises(InputError, match="users are float64; whole numbers are allowed"):
        recommend(embedding, dataset, np.array([1.5]), 7)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("k", [3, ITEMS])
def test_masked_and_hidden_items_are_in_no_list(seed, k):
    """Best first, -1 where candidates run out."""
    embedding, _, masked = random_case(seed)
    hidden = np.isin(np.arange(ITEMS), [1, 8])
    task = task_of(np.zeros((0, 2), int), masked, hidden)
    top = top_items_of(embedding[:USERS], embedding[USERS:], task.masked[0], hidden, k=k)
    for user in range(USERS):
        own = {item for u, item in masked.tolist() if u == user}
        best = oracle_list(embedding, user, own | {1, 8})[:k]
        assert top[user].tolist() == best + [-1] * (k - len(best))


@settings(deadline=None, max_examples=30, database=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_ranks_are_places_in_the_list(seed):
    """Of every user alone, ties included; what is masked has no place."""
    embedding, relevant, masked = random_case(seed)
    masked = np.concatenate([masked, relevant[:2]])
    hidden = np.isin(np.arange(ITEMS), [seed % ITEMS])
    relevant = relevant[np.argsort(relevant[:, 0], kind="stable")]
    scores = embedding[USERS:] @ embedding[:USERS].T
    scores[masked[:, 1], masked[:, 0]] = -np.inf
    starts = np.searchsorted(relevant[:, 0], np.arange(USERS + 1)).astype(np.int32)
    ours = jax.jit(relevant_ranks)(scores, hidden, relevant, starts)
    theirs = []
    for user in range(USERS):
        own = {item for u, item in masked.tolist() if u == user} | set(np.flatnonzero(hidden).tolist())
        places = {item: place for place, item in enumerate(oracle_list(embedding, user, own), start=1)}
        theirs += sorted(places.get(item, NEVER) for u, item in relevant.tolist() if u == user)
    assert ours.tolist() == theirs


# Tasks


def small_dataset(**changes):
    train = np.array([[0, 0], [0, 1], [1, 2], [2, 0], [2, 3], [5, 4]], np.int32)
    valid = np.array([[0, 2], [1, 3], [4, 1]], np.int32)  # user 4 has no train pair
    plain = Dataset("small", USERS, ITEMS, train, valid, np.array([[1, 4], [5, 0]], np.int32))
    return plain.replace(**changes)


def pairs_in(task, part):
    """(user, item) pairs of a task of one block, without padding."""
    rows = np.asarray(getattr(task, part)[0])
    rows = rows[rows[:, 0] < task.users.shape[1]]
    return {(int(task.users[0, row]), int(item)) for row, item in rows}


def test_held_out_task():
    removed = np.isin(np.arange(ITEMS), [7])
    task = held_out_task(small_dataset(removed_items=removed), "valid")
    assert task.users.tolist() == [[0, 1]]
    assert pairs_in(task, "relevant") == {(0, 2), (1, 3)}
    assert pairs_in(task, "masked") == {(0, 0), (0, 1), (1, 2)}
    np.testing.assert_array_equal(task.hidden, removed)
    assert pairs_in(held_out_task(small_dataset(), "test"), "relevant") == {(1, 4), (5, 0)}
    assert held_out_task(small_dataset(valid=NO_PAIRS), "valid") is None
    assert held_out_task(small_dataset(train=np.array([[3, 3]], np.int32)), "valid") is None


def test_forget_task():
    """Retained train items are masked; forgotten ones stay candidates, even where the item is shown to nobody any more."""
    data = small_dataset(valid=NO_PAIRS)
    forgotten = data.train[[1, 4]]
    retain = data.replace(train=np.delete(data.train, [1, 4], axis=0), removed_items=np.isin(np.arange(ITEMS), [3]))
    task = forget_task(retain, forgotten)
    assert task.users.tolist() == [[0, 2]]
    assert pairs_in(task, "relevant") == {(0, 1), (2, 3)}
    assert pairs_in(task, "masked") == {(0, 0), (2, 0)}
    assert not task.hidden.any()
    # Users 0 and 2 like item 0 best, which they keep, then what they forgot.
    embedding = np.zeros((USERS + ITEMS, 2), np.float32)
    embedding[[0, 2]] = 1
    embedding[USERS : USERS + 4] = np.float32([[9, 9], [5, 5], [1, 1], [6, 6]])
    ours = ranking_metrics(jnp.asarray(embedding), task, (1, 2))
    assert ours["recall@1"] == 0.5  # item 3 is ahead of item 1, which user 2 never had
    assert ours["recall@2"] == 1
    assert forget_task(retain, NO_PAIRS) is None


def test_report_leaves_out_what_there_is_not():
    embedding, relevant, masked = random_case(5)
    task = task_of(relevant, masked)
    ours = report(jnp.asarray(embedding), {"valid": task, "test": None}, KS)
    assert ours == {"valid": ranking_metrics(jnp.asarray(embedding), task, KS)}
    assert set(ours["valid"]) == {f"{name}@{k}" for name in METRICS for k in KS}


def test_pair_scores():
    embedding, *_ = random_case(6)
    nodes = np.array([[0, USERS], [3, USERS + 5], [USERS, USERS + 1]], np.int32)
    theirs = [embedding[a] @ embedding[b] for a, b in nodes]
    np.testing.assert_array_equal(pair_scores(jnp.asarray(embedding), jnp.asarray(nodes)), theirs)


# Serving


@pytest.mark.parametrize("k", [1, 4, ITEMS, 50])
def test_recommend(k):
    """Best first, nothing the user has in any split and no removed item; -1 where nothing is left."""
    embedding, *_ = random_case(7)
    dataset = small_dataset(removed_items=np.isin(np.arange(ITEMS), [7, 9]))
    users = np.array([5, 0, 2])
    ours = recommend(jnp.asarray(embedding), dataset, users, k)
    size = min(k, ITEMS)
    assert ours.shape == (3, size)
    for user, row in zip(users, ours, strict=True):
        every = np.concatenate([dataset.train, dataset.valid, dataset.test]).tolist()
        best = oracle_list(embedding, user, {item for u, item in every if u == user} | {7, 9})[:size]
        assert row.tolist() == best + [-1] * (size - len(best))


def test_recommend_by_default_gives_20_or_all():
    embedding, *_ = random_case(8)
    assert recommend(jnp.asarray(embedding), small_dataset(), np.array([1])).shape == (1, ITEMS)


@pytest.mark.parametrize(
    ("users", "k", "message"),
    [
        ([0, 3], 2, "user 3 has no interaction"),  # in the id space, without train pairs
        ([99], 2, "user 99 has no interaction"),
        ([0, -1], 2, "user -1 has no interaction"),
        ([0, 1, 0], 2, "named twice"),
        (0, 2, r"users: shape \(\); a list of users"),
        ([[0, 1]], 2, r"users: shape \(1, 2\); a list of users"),
        ([0], 0, "k is 0; a whole number of at least 1"),
    ],
)
def test_recommend_refuses(users, k, message):
    embedding, *_ = random_case(9)
    with pytest.raises(InputError, match=message):
        recommend(jnp.asarray(embedding), small_dataset(), np.array(users), k)


def test_rows_of_other_data_are_refused():
    """An index beyond the rows would read the last one, and the numbers would look like any other."""
    embedding, relevant, masked = random_case(10)
    rows, dataset, task = jnp.asarray(embedding), small_dataset(), task_of(relevant, masked)
    ranked = (lambda rows: ranking_metrics(rows, task, KS), lambda rows: ranks_found(rows, task))
    for few in (rows[:-1], rows[:ITEMS], rows[0]):
        for call in (*ranked, lambda few: recommend(few, dataset, np.array([0]))):
            with pytest.raises(InputError, match="embedding: shape"):
                call(few)
    known = ranking_task(relevant, masked, ITEMS, num_users=USERS)
    for other in (jnp.concatenate([rows, rows]), rows[:-1]):
        with pytest.raises(InputError, match="embedding: shape"):
            recommend(other, dataset, np.array([0]))
        with pytest.raises(InputError, match="the task expects 19 rows"):
            ranking_metrics(other, known, KS)
    assert ranking_metrics(rows, known, KS) == ranking_metrics(rows, task, KS)
    assert [int(held_out_task(dataset, "valid").rows), int(forget_task(dataset, relevant).rows)] == [19, 19]


def test_a_model_or_nothing_in_the_place_of_rows_or_a_task(unchecked):
    embedding, relevant, masked = random_case(10)
    rows = jnp.asarray(embedding)
    for call in (
        lambda: ranking_metrics({}, task_of(relevant, masked), KS),
        lambda: recommend({}, small_dataset(), np.array([0])),
    ):
        with pytest.raises(InputError, match=r"embedding: a dict given; .*such as `model\.rows`"):
            call()
    with pytest.raises(InputError, match="task: None given; a RankingTask is expected"):
        ranking_metrics(rows, None, KS)
    with pytest.raises(InputError, match="dataset: 'shop' given"):
        recommend(rows, "shop", np.array([0]))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"relevant": [[1, ITEMS]]}, "relevant: pair 0 is of user 1 and item 12; there are items 0 to 11"),
        ({"masked": [[1, 2], [0, -1]]}, "masked: pair 1 is of user 0 and item -1"),
        ({"relevant": [[-1, 2]]}, "relevant: pair 0 is of user -1"),
        ({"relevant": [1, 2]}, r"relevant: shape \(2,\)"),
        ({"masked": [[0.5, 2.0]]}, "masked: shape .* dtype float64"),
        ({"hidden": np.zeros(5, bool)}, r"hidden: shape \(5,\), dtype bool; bool \[12\]"),
        ({"hidden": np.zeros(ITEMS)}, "hidden: .* dtype float64"),
        ({"block": 0}, "block is 0"),
    ],
)
def test_a_task_is_of_items_that_there_are(words, told, unchecked):
    _, relevant, masked = random_case(10)
    with pytest.raises(InputError, match=told):
        ranking_task(**{"relevant": relevant, "masked": masked, "num_items": ITEMS, **words})
    with pytest.raises(InputError, match="split is 'bogus'; valid and test are held out"):
        held_out_task(small_dataset(), "bogus")


@pytest.mark.parametrize("k", [0, -1, 2.5, "20", None, True])
def test_lengths_of_lists_are_whole_numbers(k, unchecked):
    embedding, relevant, masked = random_case(11)
    rows = jnp.asarray(embedding)
    with pytest.raises(InputError, match=r"k is .*; a whole number of at least 1"):
        ranking_metrics(rows, task_of(relevant, masked), (1, k))
    with pytest.raises(InputError, match=r"k is .*; a whole number of at least 1"):
        recommend(rows, small_dataset(), np.array([0]), k)
    task = task_of(relevant, masked)
    assert ranking_metrics(rows, task, jnp.array([1, 5])) == ranking_metrics(rows, task, (1, 5))
    assert ranking_metrics(rows, task, 5) == ranking_metrics(rows, task, (5,))
