"""Generated data."""

import numpy as np
import pytest
from toys import assert_same, sorted_pairs

from recunlearn_jax.data import read_dataset, write_dataset
from recunlearn_jax.dataset import SPLITS
from recunlearn_jax.errors import InputError
from recunlearn_jax.synthetic import toy

SMALL = {"num_users": 60, "num_items": 120, "pairs_per_user": 6, "clusters": 4, "feature_size": 8}


def test_toy_follows_its_seed_only():
    assert toy(**SMALL).checksum == toy(**SMALL).checksum
    assert toy(**SMALL, seed=1).checksum != toy(**SMALL).checksum


def test_toy_has_what_it_promises():
    dataset = toy(**SMALL)
    assert (dataset.num_users, dataset.num_items) == (60, 120)
    pairs = np.vstack([getattr(dataset, split) for split in SPLITS])
    assert len(np.unique(pairs, axis=0)) == len(pairs) == 60 * 6  # distinct items, disjoint splits
    for split, each in zip(SPLITS, (4, 1, 1), strict=True):
        part = getattr(dataset, split)
        assert part.dtype == np.int32
        assert (np.bincount(part[:, 0], minlength=60) == each).all()
        np.testing.assert_array_equal(part, sorted_pairs(part.tolist()))
    assert (pairs >= 0).all()
    assert (pairs < [60, 120]).all()
    assert dataset.modalities == ("image", "text")
    for features in dataset.features.values():
        assert features.shape == (120, 8)
        assert features.dtype == np.float32
    assert toy(**SMALL, modalities=()).features == {}


def test_toy_is_a_data_set_like_any_other(tmp_path):
    write_dataset(toy(**SMALL), tmp_path / "toy")
    assert_same(read_dataset(tmp_path / "toy"), toy(**SMALL))


@pytest.mark.parametrize("taste", [0.0, 0.5, 0.85, 1.0])
def test_toy_users_prefer_their_cluster(taste):
    """A draw that is not by taste hits the own cluster too, one time in C."""
    dataset = toy(800, 800, clusters=8, taste=taste)
    pairs = np.vstack([getattr(dataset, split) for split in SPLITS])
    share = np.mean(pairs[:, 0] % 8 == pairs[:, 1] % 8)
    assert share == pytest.approx(taste + (1 - taste) / 8, abs=0.05)


def test_toy_features_show_the_clusters():
    dataset = toy(**SMALL, noise=0.2)
    for features in dataset.features.values():
        centres = np.stack([features[c::4].mean(axis=0) for c in range(4)])
        nearest = np.argmin(((features[:, None] - centres) ** 2).sum(axis=2), axis=1)
        assert (nearest == np.arange(120) % 4).mean() > 0.95


IMPOSSIBLE = {
    "too few pairs": {"pairs_per_user": 2},
    "too many pairs": {"pairs_per_user": 16},
    "too few items": {"num_items": 40},
    "no items": {"num_items": 0},
    "too many clusters": {"clusters": 60},
    "no cluster": {"clusters": 0},
    "no users": {"num_users": 0},
    "taste above 1": {"taste": 1.5},
    "negative taste": {"taste": -0.1},
    "features without width": {"feature_size": 0},
    "negative noise": {"noise": -1.0},
    "noise that is no number": {"noise": float("nan")},
    "negative seed": {"seed": -1},
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_toy_of_impossible_size(case):
    setting, value = next(iter(IMPOSSIBLE[case].items()))
    with pytest.raises(InputError) as caught:
        toy(**{**SMALL, setting: value})
    assert str(value) in str(caught.value) or "pairs_per_user" in str(caught.value)


def test_clusters_follow_the_size_unless_given():
    """Small data has fewer of them, and the defaults stay what they were."""
    assert toy(120, 80).checksum == toy(120, 80, clusters=2).checksum
    assert toy(100, 40, pairs_per_user=5).checksum == toy(100, 40, pairs_per_user=5, clusters=4).checksum
    assert toy(300, 800).checksum == toy(300, 800, clusters=8).checksum
    with pytest.raises(InputError, match="pairs_per_user 14 is out of range"):
        toy(120, 20)
