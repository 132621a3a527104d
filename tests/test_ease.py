"""EASE: the solution, and deletions that are what solving anew gives, in any order and mixture."""

import functools

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

import recunlearn_jax as ru
from recunlearn_jax.backbones import ease
from recunlearn_jax.errors import InputError
from recunlearn_jax.unlearn import METHODS
from recunlearn_jax.unlearn import ease as deletion

TABLE = ease.TABLE


@functools.cache
def solved():
    """So many items that small requests are worth an edit."""
    market = ru.toy(120, 200, pairs_per_user=8, clusters=4, feature_size=4)
    return ru.fit(market, ru.Config("ease", ease.Settings(penalty=3.0, content_weight=2.0)))


@pytest.fixture(scope="module")
def original():
    return solved()


@pytest.fixture(scope="module")
def market(original):
    return original.dataset


def far(a, b):
    """The largest difference, as a share of the largest number."""
    return np.abs(np.asarray(a) - np.asarray(b)).max() / np.abs(np.asarray(b)).max()


def test_scores_are_those_of_ridge_regressions_of_each_item_on_all_others(market, original):
    """The definition, one regression an item: its own weight is 0, and content stands below the interactions as further rows."""
    x = ease.interactions(market).toarray()
    below = [np.sqrt(2.0) * (rows / np.linalg.norm(rows, axis=1, keepdims=True)).T for rows in market.features.values()]
    every = np.vstack([x, *below])
    rows = np.asarray(original.rows)
    scores = rows[: market.num_users] @ rows[market.num_users :].T
    for item in range(0, market.num_items, 7):
        others = np.delete(every, item, axis=1)
        weights = np.linalg.solve(others.T @ others + 3.0 * np.eye(market.num_items - 1), others.T @ every[:, item])
        np.testing.assert_allclose(scores[:, item], np.delete(x, item, axis=1) @ weights, rtol=1e-3, atol=1e-5)


def test_it_finds_the_clusters(original):
    task = ru.held_out_task(original.dataset, "valid")
    assert ru.ranking_metrics(original.rows, task, (20,))["recall@20"] > 2 * 20 / 200  # twice of what chance finds
    assert original.info == {"epochs": 0, "best_epoch": 0, "seed": 0}


REQUESTS = {
    "a user": ["users:3"],
    "items": ["items:5,9"],
    "both": ["users:3,4", "items:5,9"],
    "pairs": ["pairs:1%"],
    "feature rows": ["modality:image:2,3"],
    "a modality": ["modality:image"],
    "all of them": ["users:7", "items:1", "pairs:1%", "modality:text:3,6"],
}


@pytest.mark.parametrize("words", REQUESTS.values(), ids=REQUESTS)
def test_a_deletion_is_what_solving_anew_gives(original, words):
    answered, gold = (ru.answer(original, words, method) for method in ("ease", "gold"))
    assert not answered.info["solved_anew"]
    assert answered.info["rank"] > 0
    assert answered.info["drift"] < 1e-4
    assert far(answered.params[TABLE], gold.params[TABLE]) < 1e-6
    np.testing.assert_allclose(answered.rows, gold.rows, atol=1e-5)
    assert far(original.params[TABLE], gold.params[TABLE]) > 1e-4  # there was something to do


@settings(max_examples=12)
@given(
    seed=st.integers(0, 2**16),
    kinds=st.lists(st.sampled_from(["users", "items", "pairs", "feature rows"]), min_size=1, max_size=6),
)
def test_any_sequence_of_deletions_is_what_solving_once_gives(seed, kinds):
    rng = np.random.default_rng(seed)
    model = solved()
    for kind in kinds:
        data = model.dataset
        if kind == "users":
            word = f"users:{rng.choice(np.unique(data.train[:, 0]))}"
        elif kind == "items":
            word = f"items:{rng.choice(np.flatnonzero(~data.removed_items))}"
        elif kind == "pairs":
            word = f"pairs:{'-'.join(map(str, rng.choice(data.train)))}"
        else:
            word = f"modality:image:{rng.choice(np.flatnonzero(data.features['image'].any(axis=1)))}"
        model = ru.answer(model, [word], "ease")
    anew = ease.solve(model.dataset, model.config.model)
    assert far(model.params[TABLE], anew) < 1e-5


def test_few_feature_rows_are_an_edit_of_rank_two_each(original):
    """And many, or a whole modality, one of the modality's width."""
    wide = ru.fit(
        ru.toy(40, 120, pairs_per_user=5, clusters=2, feature_size=24), ru.Config("ease", ease.Settings(2.0, 1.5))
    )
    for words, rank in ((["modality:image:3"], 2), (["modality:image:3,8,30"], 6), (["modality:image"], 24)):
        answered, gold = (ru.answer(wide, words, method) for method in ("ease", "gold"))
        assert (answered.info["rank"], answered.info["solved_anew"]) == (rank, False)
        assert far(answered.params[TABLE], gold.params[TABLE]) < 1e-6


def test_an_edit_that_is_no_cheaper_is_solved_anew(original):
    answered, gold = (ru.answer(original, ["users:50%"], method) for method in ("ease", "gold"))
    assert answered.info["solved_anew"]
    np.testing.assert_array_equal(answered.params[TABLE], gold.params[TABLE])


def test_a_solution_that_has_drifted_is_solved_anew(original):
    """Whoever edited the matrix before: the residual tells, and the answer is exact all the same."""
    params = {TABLE: original.params[TABLE].at[3, 4].add(0.01)}
    drifted = ru.Recommender(original.setup, params)
    answered, gold = ru.answer(drifted, ["users:3"], "ease"), ru.answer(original, ["users:3"], "gold")
    assert answered.info["solved_anew"]
    assert answered.info["drift"] > deletion.DRIFT
    np.testing.assert_array_equal(answered.params[TABLE], gold.params[TABLE])


def test_a_trained_model_is_replaced_by_ease_before_the_request(shop):
    trained = ru.fit(shop, ru.Config("mf", train=ru.TrainConfig(max_epochs=1)))
    memory = ru.prepare(trained, "ease")
    assert memory.original.backbone.name == "ease"
    answered = ru.answer(trained, ["users:3"], "ease", memory=memory)
    assert far(answered.params[TABLE], ease.solve(answered.dataset, ease.Settings())) < 1e-6
    chosen = ease.Settings(penalty=7.0)
    assert ru.prepare(trained, "ease", {"penalty": 7.0}).original.config.model == chosen
    with pytest.raises(InputError, match="leave the settings out"):
        ru.prepare(solved(), "ease", chosen)


def test_what_takes_steps_is_refused(original):
    for name, method in METHODS.items():
        if not method.exact:
            with pytest.raises(
                InputError, match=f"method '{name}': 'ease' is solved in closed form .* choose from ease, gold, coupled"
            ):
                ru.answer(original, ["users:3"], name)
    with pytest.raises(InputError, match="output rows of"):
        ru.set_up(ru.toy(10, 60_000, pairs_per_user=3), ru.Config("ease"))


def test_low_rank_edits_against_numpy():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(9, 12)) * (rng.random((9, 12)) < 0.5)
    whole = rows.T @ rows + 2 * np.eye(12)
    inverse = np.linalg.inv(whole).astype(np.float32)
    chosen = scipy.sparse.csr_array(rows[[1, 4]])
    less = whole - rows[[1, 4]].T @ rows[[1, 4]]
    np.testing.assert_allclose(deletion.edited(inverse, chosen, -np.ones(2)), np.linalg.inv(less), atol=1e-5)
    kept = np.delete(np.arange(12), [2, 7])
    cut = deletion.without_items(inverse, np.array([2, 7]), 2.0)
    np.testing.assert_allclose(cut[np.ix_(kept, kept)], np.linalg.inv(whole[np.ix_(kept, kept)]), atol=1e-5)
    np.testing.assert_array_equal(cut[[2, 7]], 0.5 * np.eye(12)[[2, 7]])
    assert deletion.drift(cut, ru.toy(5, 12, pairs_per_user=3, clusters=1), ease.Settings(penalty=2.0)) > 0.1
