"""Going on with training on data that has grown: numbers, rows, and what was removed."""

import numpy as np
import pytest
import scipy.sparse
from toys import features_of, sorted_pairs

from recunlearn_jax.config import Config, TrainConfig
from recunlearn_jax.dataset import Dataset
from recunlearn_jax.errors import InputError
from recunlearn_jax.growth import grow, grown_params, merged
from recunlearn_jax.recommender import set_up
from recunlearn_jax.train import fit, initial_params
from recunlearn_jax.unlearn import answer

USERS, ITEMS = ["ann", "bob", "cem", "dee"], [f"B{i}" for i in range(6)]
TRAIN = [(0, 0), (0, 1), (1, 1), (1, 2), (2, 3), (2, 4), (3, 0), (3, 5)]


def known(names=True, **changes):
    ids = {"user_ids": USERS, "item_ids": ITEMS} if names else {}
    features = {"image": np.abs(features_of(6)) + np.float32(0.1)}
    return Dataset("shop", 4, 6, TRAIN, [(0, 2)], [(1, 3)], features, **ids).replace(**changes)


def grown(users=(*USERS, "eve"), items=(*ITEMS, "B6"), more=(("eve", "B6"), ("eve", "B0"), ("ann", "B6")), drop=()):
    """The shop with a user, an item and pairs more, numbered in another order."""
    users, items = sorted(users, reverse=True), sorted(items, reverse=True)
    names = [(USERS[u], ITEMS[i]) for u, i in TRAIN] + list(more)
    pairs = [(users.index(u), items.index(i)) for u, i in names if u in users and i in items and u not in drop]
    features = {"image": np.stack([np.full(3, 1.0 + int(name[1:])) for name in items]).astype(np.float32)}
    held_out = [(users.index("bob"), items.index("B3"))] if "B3" in items and "bob" in users else []
    return Dataset("shop", len(users), len(items), pairs, held_out, [], features, user_ids=users, item_ids=items)


def test_what_is_known_keeps_its_number():
    dataset, notes = merged(known(), grown())
    assert dataset.user_ids.tolist() == [*USERS, "eve"]
    assert dataset.item_ids.tolist() == [*ITEMS, "B6"]
    assert set(map(tuple, dataset.train.tolist())) == {*TRAIN, (4, 6), (4, 0), (0, 6)}
    np.testing.assert_array_equal(dataset.features["image"][:, 0], np.arange(7) + 1.0)  # rows went with their items
    assert notes == [
        "1 new user",
        "1 new item",
        "3 new interactions",
        "no longer there: 1 interaction of the model's data; training alone does not forget what it has learned",
    ]


def test_item_graphs_of_the_grown_data_speak_the_models_numbers():
    now = grown()
    graph = scipy.sparse.csr_array(np.triu(np.arange(1, 50, dtype=np.float32).reshape(7, 7)))
    dataset, _ = merged(known(), now.replace(similarities={"image": graph}))
    places = [now.item_ids.tolist().index(name) for name in dataset.item_ids]
    np.testing.assert_array_equal(dataset.similarities["image"].toarray(), graph.toarray()[np.ix_(places, places)])
    assert merged(known(), now)[0].similarities == {}
    # By numbers alone, a file may still have edges of an item that was removed.
    features = np.where(np.arange(6)[:, None] == 5, 0, known().features["image"])
    release = known(False, train=TRAIN[:-1], features={"image": features}, removed_items=np.eye(6, dtype=bool)[5])
    again = release.replace(removed_items=[], similarities={"image": scipy.sparse.csr_array(np.ones((6, 6)))})
    edges = merged(release, again)[0].similarities["image"].toarray()
    np.testing.assert_array_equal(edges, np.pad(np.ones((5, 5)), (0, 1)))


@pytest.mark.parametrize("backbone", ["vbpr", "mgcn"])
def test_new_content_of_a_known_item_is_taken_up(backbone):
    """And told, since it may be content that an earlier request removed."""
    before = known()
    features = before.features["image"].copy()
    features[3] = 0
    config = Config(backbone, train=TrainConfig(batch_size=8, max_epochs=1))
    model = fit(before.replace(features={"image": features}), config)
    dataset, notes = merged(model.dataset, before)
    assert any("image of 1 known item that had none" in note for note in notes)
    fresh = initial_params(set_up(dataset, model.config), 3)
    params = grown_params(model, fresh, dataset)
    for name, rows in model.backbone.tables.items():
        if rows == "items":
            of_content = model.backbone.of_modality(name) is not None
            kept = np.arange(6) != 3 if of_content else np.ones(6, bool)
            np.testing.assert_array_equal(params[name][kept], model.params[name][kept])
            assert np.array_equal(params[name][3], fresh[name][3]) == of_content


def test_numbers_alone():
    """Without ids of the operator's the numbers are the same in both."""
    more = known(False).replace(
        num_users=5, num_items=7, removed_users=[], removed_items=[], features={"image": np.ones((7, 3), np.float32)}
    )
    dataset, _ = merged(known(False), more.replace(train=sorted_pairs([*TRAIN, (4, 6)])))
    assert (dataset.num_users, dataset.num_items, len(dataset.user_ids)) == (5, 7, 0)
    smaller = Dataset("shop", 3, 6, TRAIN[:6], [], [], {"image": np.ones((6, 3), np.float32)})
    assert merged(known(False), smaller)[0].num_users == 4
    with pytest.raises(InputError, match="one of the data sets has user ids"):
        merged(known(), more)


def model_of(dataset):
    train = TrainConfig(batch_size=8, learning_rate=0.01, max_epochs=2)
    return fit(dataset, Config("vbpr", None, train))


def test_trained_rows_stay_and_new_ones_are_fresh():
    model = model_of(known())
    dataset, _ = merged(model.dataset, grown())
    fresh = initial_params(set_up(dataset, model.config), 3)
    params = grown_params(model, fresh, dataset)
    for name, rows, count in (("user_embedding", 4, 5), ("item_embedding", 6, 7)):
        assert len(params[name]) == count
        np.testing.assert_array_equal(params[name][:rows], model.params[name])
        np.testing.assert_array_equal(params[name][rows:], fresh[name][rows:])
    np.testing.assert_array_equal(params["image_projection"], model.params["image_projection"])
    trained = grow(model, dataset, seed=3)
    assert len(trained.history) == 2
    assert not np.array_equal(trained.params["user_embedding"][:4], model.params["user_embedding"])
    again = grow(model, dataset, seed=3)
    np.testing.assert_array_equal(trained.rows, again.rows)


def test_what_was_removed_stays_removed():
    original = model_of(known())
    release = answer(original, ["users:ann", "items:B5"], "surgery")
    with pytest.raises(InputError, match=r"user ann was removed by an earlier request .* --readmit user:ann"):
        merged(release.dataset, grown())
    without_ann = grown(users=[u for u in (*USERS, "eve") if u != "ann"])
    with pytest.raises(InputError, match="item B5 was removed"):
        merged(release.dataset, without_ann)
    clean = grown(users=["bob", "cem", "dee", "eve"], items=[i for i in (*ITEMS, "B6") if i != "B5"])
    dataset, _ = merged(release.dataset, clean)
    assert dataset.removed_users.tolist() == [True, False, False, False, False]
    assert dataset.removed_items.tolist() == [False] * 5 + [True, False]
    trained = grow(release, dataset)
    assert not np.isin([0], trained.dataset.train[:, 0]).any()
    # let in again, ann is a new user: her old number stays empty
    dataset, _ = merged(release.dataset, grown(items=[i for i in (*ITEMS, "B6") if i != "B5"]), ["user:ann"])
    assert dataset.user_ids.tolist() == ["", "bob", "cem", "dee", "eve", "ann"]
    assert dataset.removed_ids.among("user", ["ann"]) == []
    assert dataset.removed_ids.among("item", ["B5"]) == ["B5"]
    # an id that was removed and that nothing stands by gets no number, and is written nowhere
    beside = clean.replace(num_users=clean.num_users + 1, user_ids=[*clean.user_ids, "ann"], removed_users=[])
    assert "ann" not in merged(release.dataset, beside)[0].user_ids
    with pytest.raises(InputError, match=r"readmit 'ann': expected user:ID or item:ID"):
        merged(release.dataset, clean, ["ann"])


@pytest.mark.parametrize("with_ids", [True, False])
def test_data_that_are_not_merged_are_refused(with_ids):
    """Else whom an earlier request removed would come back, or rows of one would go on as another's."""
    before = known(with_ids)
    release = answer(model_of(before), {"users": ["ann" if with_ids else 0]}, "surgery")
    for other in (
        before,
        before.replace(num_users=5, removed_users=[], user_ids=[*before.user_ids, "eve"] if with_ids else []),
    ):
        with pytest.raises(InputError, match="does not begin with the 4 users" if with_ids else "user 0 was removed"):
            grow(release, other)
    if with_ids:
        bob, *others = before.user_ids[::-1]
        with pytest.raises(InputError, match="does not begin with the 4 users"):
            grow(model_of(before), before.replace(user_ids=[bob, *others]))
    else:
        again, _ = merged(release.dataset, before, ["user:0"])
        with pytest.raises(InputError, match="--readmit user:0"):
            grow(release, again)
        assert grow(release, again, readmit=["user:0"]).dataset.removed_users.sum() == 0
    few = Dataset("shop", 2, 6, train=[[0, 0], [1, 1]], valid=[], test=[], features=before.features)
    with pytest.raises(InputError, match="does not begin with the 4 users"):
        grow(release, few)
    for wrong in (("run", before), (release, "data")):
        with pytest.raises(InputError, match=r"(model|dataset): .* given"):
            grow(*wrong)
    with pytest.raises(InputError, match="grown: None given; a Dataset is expected"):
        merged(before, None)


def test_other_content_is_refused():
    model = model_of(known())
    for features in ({}, {"image": np.ones((7, 4), np.float32)}, {"text": np.ones((7, 3), np.float32)}):
        dataset = merged(model.dataset, grown())[0].replace(features=features)
        with pytest.raises(InputError, match="they must be the same"):
            grow(model, dataset)
