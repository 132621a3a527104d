"""Preparing features: every kind of file gives the same features, and what is refused is told in one sentence."""

import gzip
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file
from shop_files import FEATURE_FILES, VALUES, feature_file, ids_beside, refusal, table, write

from recunlearn_jax.data import read_dataset
from recunlearn_jax.preparation import Options, prepare


@pytest.mark.parametrize("name", FEATURE_FILES)
def test_every_feature_file_gives_the_same_features(tmp_path, name):
    path = feature_file(tmp_path / name)
    dataset, notes = prepare(write(tmp_path / "shop.csv", table()), tmp_path / "shop", features={"image": path})
    features = dataset.features["image"]
    assert features.dtype == np.float32
    for item, row in zip(dataset.item_ids, features, strict=True):
        assert row.tolist() == ([0, 0] if item == "1e3" else VALUES.get(item, [0, 0]))
    assert notes[-2] == "image: 4 of 7 items lack the feature"
    assert notes[-1] == "image: 1 row left out, of no item"
    assert read_dataset(tmp_path / "shop").checksum == dataset.checksum


def test_missing_features_of_tables(tmp_path):
    """Empty cells, and a list that is null; the id column may be any."""
    write(tmp_path / "f.csv", "x,item,y\n1,10,2\n,9,\n")
    pl.DataFrame({"item": ["10", "9"], "v": [[1, 2], None]}).write_parquet(tmp_path / "f.parquet")
    features = {"csv": tmp_path / "f.csv", "parquet": tmp_path / "f.parquet"}
    path = write(tmp_path / "shop.csv", "user,item\na,9\nb,10\n")
    dataset, _ = prepare(path, tmp_path / "shop", Options(item_column="item"), features=features)
    for values in dataset.features.values():
        assert values.tolist() == [[1, 2], [0, 0]]


@pytest.mark.parametrize("dtype", [np.int64, np.uint8])
def test_whole_number_ids_of_features(tmp_path, dtype):
    np.savez(tmp_path / "f.npz", ids=np.array([10, 9], dtype), features=np.eye(2, dtype=np.float16))
    pl.DataFrame({"id": [10, 9], "x": [1, 0], "y": [0, 1]}).write_parquet(tmp_path / "f.parquet")
    features = {"npz": tmp_path / "f.npz", "parquet": tmp_path / "f.parquet"}
    path = write(tmp_path / "shop.csv", "user,item\na,9\nb,10\n")
    dataset, _ = prepare(path, tmp_path / "shop", features=features)
    for values in dataset.features.values():
        assert values.tolist() == [[1, 0], [0, 1]]


def bad_npz(**arrays):
    def make(path):
        np.savez(path, **({"ids": np.array(["10", "9"]), "features": np.eye(2)} | arrays))

    return make


def bad_table(text):
    return lambda path: write(path, text)


def bad_parquet(**columns):
    return lambda path: pl.DataFrame(columns).write_parquet(path)


def bad_array(values, ids=("10", "9")):
    def make(path):
        np.save(path, values)
        if ids is not None:
            ids_beside(path, ids)

    return make


BAD_FEATURES = {
    "unknown kind": ("f.txt", bad_table("x"), "features are read from .npz"),
    "no such file": ("f.npz", lambda path: None, "no such file"),
    "a folder": ("f.npz", Path.mkdir, "is a folder"),
    "a pipe": ("f.csv", os.mkfifo, "is no regular file"),
    "npz: no ids": ("f.npz", lambda path: np.savez(path, features=np.eye(2)), "no array 'ids'; it holds 'features'"),
    "npz: no features": ("f.npz", lambda path: np.savez(path, ids=np.arange(2)), "no array 'features'"),
    "npz: object ids": ("f.npz", bad_npz(ids=np.array(["10", 9], object)), "unpickled"),
    "npz: float ids": ("f.npz", bad_npz(ids=np.array([10.0, 9.0])), "dtype float64; a row of strings or whole"),
    "npz: no archive": ("f.npz", bad_table("what"), "unreadable"),
    "npz: id twice": ("f.npz", bad_npz(ids=np.array(["10", "10"])), "item '10' has two rows"),
    "npz: an empty id": ("f.npz", bad_npz(ids=np.array(["10", ""])), "item '' is no id"),
    "npz: fewer ids": ("f.npz", bad_npz(ids=np.array(["10"])), "1 ids, but 2 rows"),
    "npz: a vector": ("f.npz", bad_npz(features=np.ones(2)), "shape (2,)"),
    "npz: no width": ("f.npz", bad_npz(features=np.ones((2, 0))), "shape (2, 0)"),
    "npz: words": ("f.npz", bad_npz(features=np.full((2, 2), "x")), "dtype <U1"),
    "npz: inf": ("f.npz", bad_npz(features=np.diag([1, np.inf])), "item '9' has inf"),
    "npz: beyond float32": ("f.npz", bad_npz(features=np.diag([1, 1e39])), "item '9' has inf"),
    "npz: some NaN": ("f.npz", bad_npz(features=np.diag([np.nan, 1])), "item '10' has inf (as float32) or some NaN"),
    "npz: no item": ("f.npz", bad_npz(ids=np.array(["ten", "nine"])), "none of its 2 ids, such as 'ten', is an item"),
    "npy: no ids": ("f.npy", bad_array(np.eye(2), None), "needs it, with the item of each row"),
    "npy: fewer ids": ("f.npy", bad_array(np.eye(3)), "2 ids, but 3 rows"),
    "npy: objects": ("f.npy", bad_array(np.array([[{}]])), "unpickled"),
    "npy: a blank line": ("f.npy", bad_array(np.eye(3), ("10", "", "9")), "item '' is no id"),
    "safetensors: damaged": ("f.safetensors", lambda path: (write(path, "what"), ids_beside(path)), "damaged"),
    "safetensors: no ids": ("f.safetensors", bad_table("what"), "needs it"),
    "safetensors: no such tensor": (
        "f.safetensors",
        lambda path: (save_file({"x": np.eye(2)}, path), ids_beside(path)),
        "no tensor 'features'; it holds 'x'",
    ),
    "csv: a word": ("f.csv", bad_table("item,x\n10,1\n9,what\n"), "line 3 has 'what'; a number is allowed there"),
    "csv: a long line": ("f.csv", bad_table("item,x\n10,1\n9,1,2\n"), "line 3 has 3 cells, but the table 2 columns"),
    "csv: a short line": ("f.csv", bad_table("item,x,y\n10,1,2\n9,1\n"), "item '9' has inf (as float32) or some NaN"),
    "csv: no id": ("f.csv", bad_table("item,x\n10,1\n,2\n"), "row 3 has no item id"),
    "csv: one column": ("f.csv", bad_table("item\n10\n"), "at least one of numbers"),
    "csv: a name twice": ("f.csv", bad_table("item,x,x\n10,1,2\n"), "two columns are called 'x'"),
    "csv: no header": ("f.csv", bad_table("10,0.5,1.5\n9,2,3\n"), "but names of columns are expected there"),
    "csv: empty": ("f.csv", bad_table(""), "the file is empty"),
    "csv: header only": ("f.csv", bad_table("item,x\n"), "shape (0, 1)"),
    "csv: latin": ("f.csv", bad_table(b"item,x\n10,1\n\xe4,1\n"), "line 3 holds b'\\xe4'"),
    "csv: cut off": ("f.csv.gz", lambda path: path.write_bytes(gzip.compress(b"item,x\n10,1\n")[:-9]), "gzip"),
    "parquet: damaged": ("f.parquet", bad_table("what"), "no Parquet file"),
    "parquet: float ids": ("f.parquet", bad_parquet(item=[10.0], x=[1.0]), "of type Float64; ids are strings or whole"),
    "parquet: words": ("f.parquet", bad_parquet(item=["10"], x=["a"]), "numbers, or a single column of lists"),
    "parquet: two lists": ("f.parquet", bad_parquet(item=["10"], x=[[1]], y=[[1]]), "a single column of lists"),
    "parquet: two widths": (
        "f.parquet",
        bad_parquet(item=["10", "9"], x=[[1, 2], [1]]),
        "row 2 has 1 numbers, others 2",
    ),
    "parquet: no widths": (
        "f.parquet",
        bad_parquet(item=["10"], x=pl.Series([None], dtype=pl.List(pl.Int8))),
        "(1, 0)",
    ),
    "parquet: no id": ("f.parquet", bad_parquet(item=["10", None], x=[1, 2]), "row 2 has no item id"),
}


@pytest.mark.parametrize("case", BAD_FEATURES)
def test_bad_features(tmp_path, case):
    name, make, part = BAD_FEATURES[case]
    path = tmp_path / name
    make(path)
    message = refusal(write(tmp_path / "shop.csv", table()), tmp_path / "shop", features={"image": path})
    assert message.startswith(str(path))
    assert part in message
    assert not list(tmp_path.glob("shop*/"))
