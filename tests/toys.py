"""Small data that tests share: a data set in memory, and MMRec folders written by hand."""

import json
from pathlib import Path

import numpy as np
import scipy.sparse

from recunlearn_jax.dataset import SPLITS, Dataset
from recunlearn_jax.graph import knn_similarities
from recunlearn_jax.requests import parse, resolve
from recunlearn_jax.unlearn import Problem, prepare
from recunlearn_jax.unlearn.driver import problem_of

NO_PAIRS = np.zeros((0, 2), np.int32)
NAMES = ("audio", "image", "text")

ROWS = ((0, 0, 0), (0, 1, 0), (1, 1, 0), (1, 2, 1), (2, 0, 2), (2, 3, 0))
"""userID, itemID, x_label of a valid file: 3 users, 4 items, 4 / 1 / 1 pairs. The first of them stands in row 2 of the file."""
NUM_USERS, NUM_ITEMS = 3, 4


def sorted_pairs(pairs) -> np.ndarray:
    """int32 [n, 2] in the order in which a data set holds its pairs."""
    pairs = np.array(sorted({tuple(pair) for pair in pairs}), np.int32).reshape(-1, 2)
    return pairs


def features_of(num_items: int, width: int = 3, seed: int = 0) -> np.ndarray:
    """Positive features, so that all cosines are positive; the last item lacks the modality."""
    features = np.random.default_rng(seed).uniform(0.1, 1, (num_items, width)).astype(np.float32)
    features[-1] = 0
    return features


def small_dataset(modalities: int = 2, graphs: bool = True) -> Dataset:
    """5 users, 7 items, up to three modalities with item graphs; user 4 and item 6 have no pair."""
    features = {name: features_of(7, 2 + i, seed=i) for i, name in enumerate(NAMES[:modalities])}
    return Dataset(
        name="small",
        num_users=5,
        num_items=7,
        train=sorted_pairs([(0, 0), (0, 1), (1, 1), (1, 2), (2, 3), (2, 4), (3, 0), (3, 5)]),
        valid=sorted_pairs([(0, 2), (2, 5), (3, 1)]),
        test=sorted_pairs([(0, 3), (1, 4), (3, 2)]),
        features=features,
        similarities={m: knn_similarities(x, 3) for m, x in features.items()} if graphs else {},
    )


def write_interactions(path: Path, rows=ROWS, header=("userID", "itemID", "x_label")) -> None:
    """A tab separated .inter file."""
    lines = ["\t".join(map(str, line)) for line in (header, *rows)]
    path.write_text("".join(line + "\n" for line in lines))


def write_folder(folder: Path, rows=ROWS, features=None, graphs=None) -> Path:
    """An MMRec folder named like its .inter file: features by modality, graphs by file name, both written unchecked."""
    folder.mkdir(parents=True)
    write_interactions(folder / f"{folder.name}.inter", rows)
    for modality, array in (features or {}).items():
        np.save(folder / f"{modality}_feat.npy", array, allow_pickle=False)
    for name, graph in (graphs or {}).items():
        scipy.sparse.save_npz(folder / name, graph)
    return folder


def posed(original, words, method="surgery", settings=None, seed=0) -> Problem:
    """The problem of a request, as a method is given it."""
    return problem_of(prepare(original, method, settings), resolve(parse(list(words), seed), original.dataset))


def assert_same(ours: Dataset, theirs: Dataset):
    """Two data sets hold the same, in the same types."""
    assert (ours.name, ours.num_users, ours.num_items) == (theirs.name, theirs.num_users, theirs.num_items)
    for split in SPLITS:
        assert getattr(ours, split).dtype == np.int32
        np.testing.assert_array_equal(getattr(ours, split), getattr(theirs, split))
    assert ours.modalities == theirs.modalities
    for m in theirs.modalities:
        assert ours.features[m].dtype == np.float32
        np.testing.assert_array_equal(ours.features[m], theirs.features[m])
    assert set(ours.similarities) == set(theirs.similarities)
    for m, graph in theirs.similarities.items():
        assert ours.similarities[m].dtype == np.float32
        np.testing.assert_array_equal(ours.similarities[m].toarray(), graph.toarray())
    np.testing.assert_array_equal(ours.removed_users, theirs.removed_users)
    np.testing.assert_array_equal(ours.removed_items, theirs.removed_items)
    assert ours.checksum == theirs.checksum


def as_set(pairs):
    """Pairs as a set of plain Python."""
    return {tuple(pair) for pair in pairs.tolist()}


def ids(mask):
    """Where a mask is true."""
    return np.flatnonzero(mask).tolist()


def write_request(folder, values):
    """A request file: text as it is, anything else as JSON."""
    path = folder / "request.json"
    path.write_text(values if isinstance(values, str) else json.dumps(values))
    return path
