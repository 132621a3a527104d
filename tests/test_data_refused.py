"""Folders of data sets that are refused: what is said names the file, the place, the value and the rule."""

import json
import os
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import assert_refused, item_graph
from toys import NUM_ITEMS, features_of, small_dataset, write_folder, write_interactions

from recunlearn_jax.data import read_dataset, write_dataset
from recunlearn_jax.dataset import SPLITS
from recunlearn_jax.errors import InputError

# Refusals: folders and interactions


def test_missing_folder(tmp_path):
    assert_refused(tmp_path / "nowhere", tmp_path / "nowhere", "no such folder", ".inter")
    (tmp_path / "file").write_text("")
    assert_refused(tmp_path / "file", tmp_path / "file", "no such folder")


@pytest.mark.parametrize("count", [0, 2])
def test_not_one_inter_file(tmp_path, count):
    for i in range(count):
        write_interactions(tmp_path / f"{i}.inter")
    assert_refused(tmp_path, tmp_path, f"{count} .inter files", "exactly one")


HEADER = "userID\titemID\tx_label\n"
BAD_FILES = {
    "empty": ("", ["header", "userID, itemID, x_label"]),
    "another header": ("user\titem\tlabel\n0\t0\t0\n", ["header", "'user'", "without userID, itemID, x_label"]),
    "no label": ("userID\titemID\n0\t0\n", ["header", "without x_label"]),
    "commas": ("userID,itemID,x_label\n0,0,0\n", ["header", "tab separated"]),
    "header only": (HEADER, ["no interactions", "at least one train pair"]),
    "word in the first row": (HEADER + "x\t0\t0\n0\t1\t0\n", ["row 2", "'x'", "whole number"]),
    "word for a user": (HEADER + "0\t0\t0\nx\t1\t0\n", ["row 3", "'x'", "whole number"]),
    "fraction for an item": (HEADER + "0\t0\t0\n1\t1.5\t0\n", ["row 3", "'1.5'", "whole number"]),
    "no digit in the label": (HEADER + "0\t0\t0\n1\t1\t\n", ["row 3", "''", "whole number"]),
    "digits of no use": (HEADER + "0\t0\t0\n" + "9" * 30 + "\t1\t0\n", ["row 3", "9" * 30, "whole number"]),
    "more users than int32 counts": (HEADER + "0\t0\t0\n3000000000\t1\t0\n", ["row 3", "2147483646"]),
    "more items than int32 counts": (HEADER + "0\t0\t0\n1\t4000000000000000000\t0\n", ["row 3", "2147483646"]),
    "negative user": (HEADER + "0\t0\t0\n-1\t1\t0\n1\t2\t0\n", ["row 3", "userID -1", "0 to 1"]),
    "negative item": (HEADER + "0\t0\t0\n1\t-5\t0\n", ["row 3", "itemID -5", "0 to 3"]),
    "label 3": (HEADER + "0\t0\t0\n1\t1\t3\n", ["row 3", "x_label 3", "0 (train), 1 (valid), 2 (test)"]),
    "negative label": (HEADER + "0\t0\t-1\n", ["row 2", "x_label -1", "0 (train), 1 (valid), 2 (test)"]),
    "duplicate in train": (HEADER + "0\t1\t0\n1\t1\t0\n0\t1\t0\n", ["rows 2 and 4", "(0, 1)", "duplicate in train"]),
    "duplicate in test": (HEADER + "0\t0\t0\n1\t1\t2\n1\t1\t2\n", ["rows 3 and 4", "(1, 1)", "duplicate in test"]),
    "train and valid": (HEADER + "0\t1\t0\n0\t1\t1\n", ["rows 2 and 3", "(0, 1)", "both train and valid", "overlap"]),
    "test and train": (HEADER + "0\t0\t0\n0\t1\t2\n0\t1\t0\n", ["rows 3 and 4", "both test and train", "overlap"]),
    "no train pair": (HEADER + "0\t0\t1\n1\t1\t2\n", ["x_label 0", "nothing to train on"]),
    "last row cut off": (HEADER + "0\t0\t0\n1\t1\t0\n1\t", ["row 4", "2 fields", "truncated"]),
    "last label cut off": (HEADER + "0\t0\t0\n1\t1\t0\n1\t2\t", ["row 4", "whole number"]),
    "a field too many": (HEADER + "0\t0\t0\n1\t1\t0\t5\n", ["row 3", "4 fields", "the header 3"]),
    "a column twice": ("userID\titemID\tx_label\tuserID\n0\t0\t0\t1\n", ["'userID' twice"]),
    "blank row": (HEADER + "0\t0\t0\n\n1\t1\t0\n", ["row 3", "at the end only"]),
    "comment": (HEADER + "0\t0\t0\n#1\t1\t0\n", ["row 3", "'#1'", "whole number"]),
    "no text": (b"\x93NUMPY\xff\xfe\x00", ["header"]),
    "no text further down": (HEADER.encode() + b"0\t0\t0\n\xff\xfe\t1\t0\n", ["row 3"]),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_interactions(tmp_path, case):
    content, parts = BAD_FILES[case]
    folder = write_folder(tmp_path / "shop", features={"image": features_of(4)})
    path = folder / "shop.inter"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert_refused(folder, path, *parts)


# Refusals: features


def with_value(value, dtype=np.float32):
    array = features_of(NUM_ITEMS).astype(dtype)
    array[2, 1] = value
    return array


BAD_FEATURES = {
    "NaN": (with_value(np.nan), ["row 2", "NaN or inf", "finite"]),
    "inf": (with_value(np.inf), ["row 2", "NaN or inf", "finite"]),
    "minus inf in float16": (with_value(-np.inf, np.float16), ["row 2", "NaN or inf", "finite"]),
    "beyond float32": (with_value(1e300, np.float64), ["row 2", "NaN or inf", "float32"]),
    "1-d": (np.ones(NUM_ITEMS, np.float32), ["shape (4,)", "[items, width]"]),
    "3-d": (np.ones((NUM_ITEMS, 2, 2), np.float32), ["shape (4, 2, 2)", "[items, width]"]),
    "no columns": (np.ones((NUM_ITEMS, 0), np.float32), ["shape (4, 0)", "[items, width]"]),
    "complex": (np.ones((NUM_ITEMS, 2), np.complex64), ["complex64", "float array"]),
    "text": (np.full((NUM_ITEMS, 2), "1"), ["<U1", "float array"]),
}


@pytest.mark.parametrize("case", BAD_FEATURES)
def test_bad_features(tmp_path, case):
    array, parts = BAD_FEATURES[case]
    folder = write_folder(tmp_path / "shop", features={"image": array})
    assert_refused(folder, folder / "image_feat.npy", *parts)


def test_modalities_with_different_numbers_of_rows(tmp_path):
    """The one that disagrees with the interactions is blamed; where none agrees, the shorter one."""
    folder = write_folder(tmp_path / "shop", features={"image": features_of(4), "text": features_of(6)})
    assert_refused(folder, folder / "text_feat.npy", "6 feature rows", "items 0 to 3 in the interactions")
    folder = write_folder(tmp_path / "short", features={"image": features_of(2)})
    assert_refused(folder, folder / "image_feat.npy", "2 feature rows", "items 0 to 3 in the interactions")
    folder = write_folder(tmp_path / "longer", features={"image": features_of(5), "text": features_of(6)})
    assert_refused(folder, folder / "image_feat.npy", "5 feature rows", "6 items by another feature file")


def test_feature_rows_against_the_size_in_retained(tmp_path):
    write_dataset(small_dataset(2), tmp_path / "small")
    np.save(tmp_path / "small" / "image_feat.npy", features_of(8))
    assert_refused(
        tmp_path / "small", tmp_path / "small" / "image_feat.npy", "8 feature rows", "7 items by retained.json"
    )


@pytest.mark.parametrize("kept", [0, 3, 40, 127, 128, 150, -1])
def test_truncated_features(tmp_path, kept):
    folder = write_folder(tmp_path / "shop", features={"image": features_of(4)})
    path = folder / "image_feat.npy"
    path.write_bytes(path.read_bytes()[:kept])
    assert_refused(folder, path, "unreadable or truncated", "one row an item")


@pytest.mark.parametrize("content", ["zip", "cut zip", "text"])
def test_feature_file_of_another_kind(tmp_path, content):
    folder = write_folder(tmp_path / "shop")
    path = folder / "image_feat.npy"
    np.savez(tmp_path / "zip.npz", features_of(4))
    zipped = (tmp_path / "zip.npz").read_bytes()
    path.write_bytes({"zip": zipped, "cut zip": zipped[:50], "text": b"0.1 0.2\n"}[content])
    assert_refused(folder, path, "plain float array")


class Trap:
    """Creates a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_nothing_is_unpickled(tmp_path):
    trap = tmp_path / "sprung"
    array = np.array([[Trap(trap)], [1.0], [2.0], [3.0]], object)
    folder = write_folder(tmp_path / "shop")
    path = folder / "image_feat.npy"

    np.save(path, array, allow_pickle=True)
    np.load(path, allow_pickle=True)
    assert trap.is_dir()  # the trap works
    trap.rmdir()
    assert_refused(folder, path, "object array", "unpickled")

    path.write_bytes(pickle.dumps(array))
    assert_refused(folder, path, "plain float array")

    np.save(path, features_of(4))
    graph = folder / "image_knn2_adj.npz"
    np.savez(graph, format=b"csr", shape=(4, 4), data=array[:, 0], indices=np.zeros(4, int), indptr=np.arange(5))
    assert_refused(folder, graph, "damaged")
    graph.write_bytes(pickle.dumps(array))
    assert_refused(folder, graph, "damaged")

    (folder / "retained.json").write_bytes(pickle.dumps(array))
    assert_refused(folder, folder / "retained.json", "num_users")
    assert not trap.exists()


# Refusals: retained.json


SPACE = {"num_users": 3, "num_items": 4, "removed_users": [1], "removed_items": [2]}
BAD_SPACES = {
    "not JSON": "num_users: 3",
    "not text": b"\xff\xfe",
    "a list": [],
    "no size": {key: SPACE[key] for key in SPACE if key != "num_items"},
    "no removed users": {key: SPACE[key] for key in SPACE if key != "removed_users"},
    "negative size": {**SPACE, "num_users": -1},
    "endless size": {**SPACE, "num_users": float("inf")},
    "enormous size": {**SPACE, "num_users": 10**15},
    "removed user unknown": {**SPACE, "removed_users": [3]},
    "negative removed user": {**SPACE, "removed_users": [-1]},
    "removed item unknown": {**SPACE, "removed_items": [0, 4]},
    "removed items null": {**SPACE, "removed_items": None},
    "removed items a mask": {**SPACE, "removed_items": [True, False, False, False]},
    "removed items one number": {**SPACE, "removed_items": 2},
    "removed items nested": {**SPACE, "removed_items": [[2]]},
}


@pytest.mark.parametrize("case", BAD_SPACES)
def test_bad_retained_file(tmp_path, case):
    folder = write_folder(tmp_path / "shop")
    content = BAD_SPACES[case]
    path = folder / "retained.json"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    assert_refused(folder, path, "num_users")


def test_ids_beyond_the_retained_space(tmp_path):
    folder = write_folder(tmp_path / "shop")
    (folder / "retained.json").write_text(json.dumps({**SPACE, "num_users": 2}))
    assert_refused(folder, folder / "shop.inter", "row 6", "userID 2", "0 to 1")
    (folder / "retained.json").write_text(json.dumps({**SPACE, "num_items": 3}))
    assert_refused(folder, folder / "shop.inter", "row 7", "itemID 3", "0 to 2")


# Damage


def damaged(content: bytes, draw) -> bytes:
    """Cut off somewhere, or with up to three bytes changed."""
    if draw(st.booleans()):
        return content[: draw(st.integers(0, len(content) - 1))]
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        changed[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return bytes(changed)


@pytest.mark.parametrize("name", ["image_feat.npy", "image_knn2_adj.npz", "shop.inter", "retained.json"])
def test_damage_is_refused_or_harmless(tmp_path_factory, name):
    """Whatever happens to a file: either an InputError that names it, or data that keep every rule."""
    features = {"image": features_of(4)}
    folder = tmp_path_factory.mktemp("damage") / "shop"
    write_folder(folder, features=features, graphs={"image_knn2_adj.npz": item_graph()})
    space = {"num_users": 3, "num_items": 4, "removed_users": [1], "removed_items": [2]}
    (folder / "retained.json").write_text(json.dumps(space))
    content = (folder / name).read_bytes()

    @given(st.data())
    def check(data):
        (folder / name).write_bytes(damaged(content, data.draw))
        try:
            dataset = read_dataset(folder)
        except InputError as error:
            if not str(error).startswith(str(folder)):
                raise
            return
        pairs = np.vstack([getattr(dataset, split) for split in SPLITS])
        assert len(dataset.train)
        assert (pairs >= 0).all()
        assert (pairs < [dataset.num_users, dataset.num_items]).all()
        assert dataset.features["image"].shape[0] == dataset.num_items
        assert np.isfinite(dataset.features["image"]).all()
        assert np.isfinite(dataset.similarities["image"].toarray()).all()

    check()
