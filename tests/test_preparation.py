"""Preparing: every format gives the same data, cleaning and splitting do what they say, and every refusal is one sentence."""

import gzip
import json
import os
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from safetensors.numpy import save_file

from recunlearn_jax.data import read_dataset
from recunlearn_jax.dataset import SPLITS, Dataset
from recunlearn_jax.errors import InputError
from recunlearn_jax.preparation import Options, k_core, prepare, split

# user, item, rating, time; ids that a careless reader would change
ROWS = [
    ("007", "10", 5.0, 100),
    ("7", "9", 1.0, 200),
    ("ann", "10", 4.0, 300),
    ("zoë", "1e3", 3.0, 400),
    ("日本", "10", 5.0, 500),
    ("ann", "true", 2.0, 600),
    ("007", "9", 4.5, 700),
    ("a,b", "1.0", 4.0, 800),
    ("ann", "null", 4.0, 900),
    (" x ", "NA", 4.0, 1000),
]
HEADER = ("user_id", "item_id", "rating", "timestamp")


def quoted(cell):
    return f'"{cell}"' if "," in str(cell) else str(cell)


def table(rows=ROWS, header=HEADER, separator=","):
    return "".join(separator.join(map(quoted, row)) + "\n" for row in ([header] if header else []) + list(rows))


def json_lines(rows=ROWS, keys=("reviewerID", "asin", "overall", "unixReviewTime"), dump=json.dumps, **more):
    return "".join(dump({"title": "å {", **dict(zip(keys, row, strict=True)), **more}) + "\n" for row in rows)


def parquet(path, rows=ROWS, header=HEADER, **types):
    pl.DataFrame(list(rows), list(header), orient="row").cast(types).write_parquet(path)


def write(path, content):
    """Text or bytes into a file; packed where the name says so."""
    content = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def named(pairs, dataset):
    return {(dataset.user_ids[user], dataset.item_ids[item]) for user, item in pairs.tolist()}


def pairs_of(dataset: Dataset):
    """All pairs by the ids of the operator."""
    return set().union(*(named(getattr(dataset, name), dataset) for name in SPLITS))


def refusal(*words, **options):
    with pytest.raises(InputError) as caught:
        prepare(*words, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# Formats

RECBOLE = ("user_id:token", "item_id:token", "rating:float", "timestamp:float")
AMAZON_2023 = ("user_id", "parent_asin", "rating", "timestamp")
FORMATS = {
    "shop.csv": table(),
    "shop.csv.gz": table(),
    "plain-text": table(),
    "crlf.csv": table().replace("\n", "\r\n"),
    "mark.csv": "\ufeff" + table(),
    "other-order.csv": table([row[::-1] for row in ROWS], HEADER[::-1]),
    "quoted.csv": table(header=('"user_id"', '"item_id"', '"rating"', '"timestamp"')),
    "no-end.csv": table().removesuffix("\n"),
    "text-between.csv": table([(*row, 'one\nand, ""two""') for row in ROWS], (*HEADER, "review")),
    "shop.tsv": table(separator="\t"),
    "tabs.txt": table(separator="\t").replace('"', ""),
    "shop.inter": table(header=RECBOLE, separator="\t").replace('"', ""),
    "mmrec.inter": table(separator="\t"),
    "ratings_Shop.csv": table(header=None),
    "ratings_Shop.csv.gz": table(header=None),
    "reviews_Shop_5.json.gz": json_lines(reviewText="so\nso", helpful=[1, 2]),
    "reviews_Shop.json.gz": json_lines(dump=repr, helpful=[1, 2]),
    "mixed.json": json_lines(ROWS[:5]) + json_lines(ROWS[5:], dump=repr),
    "blank-lines.jsonl": "\ufeff" + json_lines().replace("\n", "\n\n"),
    "escaped.jsonl": json_lines(dump=lambda x: json.dumps(x, ensure_ascii=False)),
    "texts.jsonl": json_lines([(*row[:2], str(row[2]), str(row[3])) for row in ROWS]),
    "Shop.jsonl.gz": json_lines(keys=AMAZON_2023, asin="a variant", images=[{"hi": None}]),
    "Shop.5core.csv.gz": table([(*row, "x y") for row in ROWS], (*AMAZON_2023, "history")),
    "shop.parquet": None,
    "shop.pq": None,
}


def interactions(tmp_path, name):
    path = tmp_path / name
    if FORMATS[name] is None:
        parquet(path)
        return path
    return write(path, FORMATS[name])


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_pairs(tmp_path, name):
    path = interactions(tmp_path, name)
    dataset, notes = prepare(path, tmp_path / "shop", Options(split="leave_one_out", min_rating=2))
    assert pairs_of(dataset) == {row[:2] for row in ROWS if row[2] >= 2}
    assert named(dataset.test, dataset) == {("ann", "null")}
    assert named(dataset.valid, dataset) == {("ann", "true")}
    assert notes[0].startswith(f"10 rows read from {name}")
    assert notes[1] == "1 interaction dropped with a rating below 2"
    assert notes[2].startswith(
        "split leave_one_out: 7 / 1 / 1 pairs for train / valid / test, a user's last pairs by time"
    )
    assert notes[3:] == ["2 held-out pairs kept although the user or the item has no train pair"]
    ours = read_dataset(tmp_path / "shop")
    assert ours.checksum == dataset.checksum
    assert ours.user_ids.tolist() == sorted({row[0] for row in ROWS if row[2] >= 2})
    assert ours.item_ids.tolist() == sorted({row[1] for row in ROWS if row[2] >= 2})


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        *(("shop.csv", "csv"), ("shop.tsv", "tsv"), ("shop.inter", "recbole"), ("ratings_Shop.csv", "ratings")),
        *(("Shop.jsonl.gz", "json"), ("shop.parquet", "parquet")),
    ],
)
def test_a_format_can_be_named(tmp_path, name, chosen):
    """Whatever the file is called."""
    path = interactions(tmp_path, name).rename(tmp_path / "something")
    dataset, _ = prepare(path, tmp_path / "shop", Options(format=chosen))
    assert pairs_of(dataset) == {row[:2] for row in ROWS}


def test_order_of_rows_does_not_matter(tmp_path):
    for name, rows in (("one", ROWS), ("two", ROWS[::-1])):
        prepare(write(tmp_path / f"{name}.csv", table(rows)), tmp_path / name, Options(split="time"))
    assert read_dataset(tmp_path / "one").checksum == read_dataset(tmp_path / "two").checksum


def test_whole_number_ids_of_parquet_and_json(tmp_path):
    rows = [(7, 2**63 - 1), (8, 10)]
    parquet(tmp_path / "shop.parquet", rows, ("user", "item"))
    write(tmp_path / "shop.json", "".join(json.dumps({"user": u, "item": i}) + "\n" for u, i in [*rows, (9, 10**30)]))
    dataset, _ = prepare(tmp_path / "shop.parquet", tmp_path / "p")
    assert pairs_of(dataset) == {("7", "9223372036854775807"), ("8", "10")}
    dataset, _ = prepare(tmp_path / "shop.json", tmp_path / "j")
    assert pairs_of(dataset) == {("7", "9223372036854775807"), ("8", "10"), ("9", "1" + "0" * 30)}


def test_types_of_parquet(tmp_path):
    """Categories as ids, texts as ratings, moments as times, columns with names that are patterns."""
    path = tmp_path / "shop.parquet"
    types = {"^u$": pl.Categorical, "rating": pl.String, "timestamp": pl.Datetime("us")}
    parquet(path, header=("^u$", "*", "rating", "timestamp"), **types)
    options = Options(user_column="^u$", item_column="*", split="leave_one_out", min_rating=2)
    dataset, _ = prepare(path, tmp_path / "shop", options)
    assert pairs_of(dataset) == {row[:2] for row in ROWS if row[2] >= 2}
    assert named(dataset.test, dataset) == {("ann", "null")}


def test_many_json_lines_come_in_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr("recunlearn_jax.sources.CHUNK", 7)
    monkeypatch.setattr("recunlearn_jax.sources.SAMPLE", 3)
    rows = [(f"u{n % 11}", f"i{n}", 1.0, n) for n in range(100)]
    dataset, _ = prepare(write(tmp_path / "shop.json.gz", json_lines(rows)), tmp_path / "shop")
    assert pairs_of(dataset) == {row[:2] for row in rows}


@pytest.mark.parametrize(
    "header", ["userID,itemID", "User-ID,asin", "reviewerID,product_id", "uid,iid", "USER,Movie Id"]
)
def test_usual_column_names(tmp_path, header):
    dataset, _ = prepare(write(tmp_path / "shop.csv", f"{header}\na,b\n"), tmp_path / "shop")
    assert pairs_of(dataset) == {("a", "b")}


def test_columns_can_be_named(tmp_path):
    path = write(tmp_path / "shop.csv", "user,who,item,stars,when\nx,a,p,1,2\ny,a,q,5,1\nz,b,p,5,3\nw,a,r,5,4\n")
    options = Options(user_column="who", rating_column="stars", time_column="when", min_rating=1, split="leave_one_out")
    dataset, _ = prepare(path, tmp_path / "shop", options)
    assert named(dataset.test, dataset) == {("a", "r")}
    assert named(dataset.valid, dataset) == {("a", "p")}


# Cleaning

TWICE = [("a", "p", 1, 30), ("a", "q", 5, 5), ("a", "p", 5, 10), ("a", "p", 3, 20), ("b", "p", 5, 1)]


@pytest.mark.parametrize(
    ("how", "duplicates", "rating"),
    [("random", "first", 1), ("random", "last", 3), ("leave_one_out", "first", 5), ("leave_one_out", "last", 1)],
)
def test_first_or_last_of_duplicates(tmp_path, how, duplicates, rating):
    """By place in the file, and by time where it is read."""
    path = write(tmp_path / "shop.csv", table([*TWICE, ("b", "q", 9, 9)]))
    for least in (rating, rating + 1):
        folder = tmp_path / f"shop{least}"
        dataset, notes = prepare(path, folder, Options(split=how, duplicates=duplicates, min_rating=least))
        assert (("a", "p") in pairs_of(dataset)) == (least == rating)
        assert f"2 rows dropped as duplicates; the {duplicates} of a pair is kept" in notes


def test_duplicates_can_be_refused(tmp_path):
    path = write(tmp_path / "shop.csv", table(TWICE))
    message = refusal(path, tmp_path / "shop", Options(duplicates="refuse"))
    assert message.startswith(f"{path}: rows 2 and 4 hold the same pair ('a', 'p')")
    prepare(write(path, table(TWICE[:2])), tmp_path / "shop", Options(duplicates="refuse"))


def test_incomplete_rows_are_counted(tmp_path):
    rows = [*ROWS, ("", "x", 1, 1), ("y", "", 1, 1), ("y", "x", "", 1), ("y", "x", 1, ""), ("u",), ()]
    path = write(tmp_path / "shop.csv", table(rows))
    dataset, notes = prepare(path, tmp_path / "one", Options(split="time", min_rating=0))
    assert pairs_of(dataset) == {row[:2] for row in ROWS}
    assert notes[1] == "6 rows dropped without user or item or rating or time; the first is row 12"
    dataset, notes = prepare(path, tmp_path / "two")  # what is not read need not be there
    assert pairs_of(dataset) == {row[:2] for row in ROWS} | {("y", "x")}
    assert notes[1] == "4 rows dropped without user or item; the first is row 12"


@pytest.mark.parametrize("first", ["", "a"])
def test_the_first_row_may_be_incomplete(tmp_path, first):
    path = write(tmp_path / "shop.csv", f"user,item,rating\n{first}\nb,c,5\n")
    dataset, notes = prepare(path, tmp_path / "shop", Options(min_rating=4))
    assert pairs_of(dataset) == {("b", "c")}
    assert notes[1] == "1 row dropped without user or item or rating; the first is row 2"


def test_incomplete_lines_are_counted(tmp_path):
    lines = ['{"user": "u"}', '{"user": null, "item": "x"}', '{"user": "", "item": "x"}', "{}"]
    path = write(tmp_path / "shop.json", json_lines(ROWS[:2], ("user", "item", "rating", "time")) + "\n".join(lines))
    dataset, notes = prepare(path, tmp_path / "shop")
    assert pairs_of(dataset) == {row[:2] for row in ROWS[:2]}
    assert notes[1] == "4 rows dropped without user or item; the first is line 3"


def test_incomplete_rows_of_parquet_are_counted(tmp_path):
    parquet(tmp_path / "shop.parquet", [("a", "x"), (None, "x"), ("b", None)], ("user", "item"))
    dataset, notes = prepare(tmp_path / "shop.parquet", tmp_path / "shop")
    assert pairs_of(dataset) == {("a", "x")}
    assert notes[1] == "2 rows dropped without user or item; the first is row 2"


def naive_k_core(pairs, k):
    """One user or item at a time."""
    pairs = list(pairs)
    while True:
        counts = Counter(("user", u) for u, _ in pairs) + Counter(("item", i) for _, i in pairs)
        few = next((name for name, count in counts.items() if count < k), None)
        if few is None:
            return pairs
        pairs = [(u, i) for u, i in pairs if few not in {("user", u), ("item", i)}]


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), unique=True), st.integers(0, 5))
def test_k_core(pairs, k):
    array = np.array(pairs, np.int64).reshape(-1, 2)
    kept = k_core(array[:, 0], array[:, 1], k)
    assert list(map(tuple, array[kept].tolist())) == naive_k_core(pairs, k)


def test_k_core_leaves_no_gap_in_the_ids(tmp_path):
    rng = np.random.default_rng(0)
    rows = [(f"u{u}", f"i{i}", 1, 1) for u, i in zip(rng.zipf(1.5, 400) % 50, rng.zipf(1.5, 400) % 50, strict=True)]
    dataset, notes = prepare(write(tmp_path / "shop.csv", table(rows)), tmp_path / "shop", Options(k_core=3))
    pairs = np.vstack([getattr(dataset, name) for name in SPLITS])
    for column, ids in ((0, dataset.user_ids), (1, dataset.item_ids)):
        assert np.bincount(pairs[:, column], minlength=len(ids)).min() >= 3
    assert pairs_of(dataset) == set(naive_k_core(sorted({row[:2] for row in rows}), 3))
    assert any(note.endswith("interactions dropped by the 3-core") for note in notes)


# Splits


def all_pairs(users, items):
    return np.stack(np.divmod(np.arange(users * items), items), axis=1)


@pytest.mark.parametrize("number", [1, 9, 10, 25, 400])
def test_random_split(number):
    pairs = all_pairs(20, 20)[np.random.default_rng(1).permutation(400)[:number]]
    labels = split(pairs, None, Options(seed=3))
    assert np.bincount(labels, minlength=3).tolist() == [number - 2 * (number // 10), number // 10, number // 10]
    back = split(pairs[::-1], None, Options(seed=3))[::-1]
    np.testing.assert_array_equal(labels, back)  # the order of the rows does not matter
    if number > 20:
        assert (labels != split(pairs, None, Options(seed=4))).any()


def test_leave_one_out():
    users = np.array([0, 1, 0, 2, 0, 1, 3, 3, 3, 0])
    labels = split(np.stack([users, np.arange(10)], axis=1), None, Options(split="leave_one_out"))
    assert labels.tolist() == [0, 0, 0, 0, 1, 0, 0, 1, 2, 2]


@given(st_numpy.arrays(np.int64, st.integers(1, 60), elements=st.integers(-3, 20)))
def test_split_by_time(times):
    times.sort()
    labels = split(np.zeros((len(times), 2), int), times, Options(split="time"))
    assert (np.diff(labels) >= 0).all()
    assert (labels == 0).sum() >= 0.8 * len(times)
    for moment in np.unique(times):
        assert len(np.unique(labels[times == moment])) == 1
    if len(np.unique(times)) == len(times) >= 10:
        assert abs((labels == 1).sum() - len(times) / 10) <= 1
        assert abs((labels == 2).sum() - len(times) / 10) <= 1


@pytest.mark.parametrize("how", ["random", "leave_one_out", "time"])
def test_splits_of_a_file(tmp_path, how):
    rng = np.random.default_rng(0)
    chosen = rng.permutation(900)[:500]
    rows = [
        (f"u{n % 30}", f"i{n // 30}", 1, 10**9 + int(t)) for n, t in zip(chosen, rng.integers(0, 99, 500), strict=True)
    ]
    path = write(tmp_path / "shop.csv", table(rows))
    dataset, notes = prepare(path, tmp_path / "one", Options(split=how))
    assert prepare(path, tmp_path / "two", Options(split=how)).dataset.checksum == dataset.checksum
    differs = prepare(path, tmp_path / "other", Options(split=how, seed=1)).dataset.checksum != dataset.checksum
    assert differs == (how == "random")
    parts = {name: named(getattr(dataset, name), dataset) for name in SPLITS}
    assert sum(map(len, parts.values())) == len(pairs_of(dataset)) == 500
    sizes = " / ".join(str(len(part)) for part in parts.values())
    assert notes[-1].startswith(f"split {how}: {sizes} pairs") or notes[-2].startswith(f"split {how}: {sizes} pairs")
    times = {row[:2]: row[3] for row in rows}
    if how == "time":
        bounds = [[times[pair] for pair in parts[name]] for name in SPLITS]
        assert max(bounds[0]) < min(bounds[1]) <= max(bounds[1]) < min(bounds[2])
    if how == "leave_one_out":
        last = {pair[0]: times[pair] for pair in parts["test"]}
        assert len(last) == len(parts["test"]) == len(parts["valid"]) == 30
        assert all(times[user, item] <= last[user] for user, item in parts["train"] | parts["valid"])


def test_leave_one_out_without_times_goes_by_the_file(tmp_path):
    rows = [("a", "z"), ("a", "y"), ("b", "z"), ("a", "x")]
    path = write(tmp_path / "shop.csv", table(rows, HEADER[:2]))
    dataset, notes = prepare(path, tmp_path / "shop", Options(split="leave_one_out"))
    assert (named(dataset.valid, dataset), named(dataset.test, dataset)) == ({("a", "y")}, {("a", "x")})
    assert notes[1].endswith("a user's last pairs by their order in the file, which has no time column")
    assert notes[2] == "2 held-out pairs kept although the user or the item has no train pair"


# Features

VALUES = {"10": [1.0, 2.0], "9": [3.0, -4.0], "1e3": [np.nan, np.nan], "true": [5.0, 6.5], "nobody's": [7.0, 8.0]}


def ids_beside(path, ids=tuple(VALUES)):
    write(path.with_name(path.name + ".ids.txt"), "\ufeff" + "\r\n".join(ids) + "\n")


def feature_file(path, ids=tuple(VALUES), values=None):
    """A feature file of the kind that its name tells."""
    values = np.array(list(VALUES.values()) if values is None else values)
    kind = path.name.partition(".")[2]
    if kind == "npz":
        np.savez(path, ids=np.array(ids), features=values)
    elif kind == "npy":
        np.save(path, values)
        ids_beside(path, ids)
    elif kind == "safetensors":
        save_file({"features": values, "other": values}, path)
        ids_beside(path, ids)
    elif kind == "list.parquet":
        pl.DataFrame({"asin": ids, "vector": list(values)}).write_parquet(path)
    elif kind == "array.parquet":
        pl.DataFrame({"asin": ids, "vector": values}).write_parquet(path)
    elif kind == "parquet":
        pl.DataFrame({"asin": ids, **dict(zip("xy", values.T, strict=True))}).write_parquet(path)
    else:
        separator = "\t" if "tsv" in kind else ","
        rows = [[name, *row] for name, row in zip(ids, values.tolist(), strict=True)]
        write(path, table(rows, ("asin", "0", "1"), separator))
    return path


FEATURE_FILES = [
    f"f.{k}" for k in ("npz", "npy", "safetensors", "csv", "csv.gz", "tsv", "parquet", "list.parquet", "array.parquet")
]


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


# Refusals of interactions


def cut(data):
    packed = gzip.compress(data.encode())
    return packed[: len(packed) // 2]


BAD_FILES = {
    "empty": ("shop.csv", "", "the file is empty"),
    "blank": ("shop.csv", " \n\n", "the file is empty"),
    "empty gzip": ("shop.csv.gz", "", "the file is empty"),
    "truncated gzip": ("shop.csv", cut(table(ROWS * 50)), "a damaged or truncated gzip file"),
    "truncated gzip of JSON": ("shop.json", cut(json_lines(ROWS * 50)), "a damaged or truncated gzip file"),
    "damaged gzip": ("shop.csv", gzip.compress(table().encode())[:-8] + b"\0" * 8, "a damaged or truncated gzip file"),
    "gzip of nothing": ("shop.csv", b"\x1f\x8b", "a damaged or truncated gzip file"),
    "gzip of something else": ("shop.csv", b"\x1f\x8b" + b"x" * 99, "a damaged or truncated gzip file"),
    "binary": ("shop.csv", bytes(range(256)), "holds NUL bytes"),
    "UTF-16": ("shop.csv", table().encode("utf-16"), "holds NUL bytes"),
    "latin header": ("shop.csv", "user,item,größe\na,b,c\n".encode("latin-1"), "line 1 holds b'\\xf6'"),
    "latin ids": ("shop.csv", "user,item\na,b\nzoë,c\n".encode("latin-1"), "line 3 holds b'\\xeb'; only UTF-8"),
    "latin text": ("shop.csv", "user,item,t\na,b,c\nz,c,ë\n".encode("latin-1"), "line 3 holds b'\\xeb'; only UTF-8"),
    "latin JSON": (
        "shop.json",
        '{"user": "a", "item": "b"}\n{"user": "ë"}\n'.encode("latin-1"),
        "line 2 holds b'\\xeb'",
    ),
    "damaged Parquet": ("shop.parquet", b"PAR1 and more PAR1", "no Parquet file"),
    "CSV called Parquet": ("shop.parquet", table(), "no Parquet file"),
    "Parquet called CSV": ("shop.csv", b"PAR1 and more PAR1", "no Parquet file"),
    "CSV called JSON": ("shop.json", table(), "line 1 is 'user_id,item_id,rating,timestamp'; one JSON object"),
    "a JSON list": ("shop.json", "[\n{}\n]\n", "line 1 is '['; one JSON object a line"),
    "JSON numbers": ("shop.json", json_lines(ROWS[:2]) + "17\n", "line 3 is '17'; one JSON object"),
    "broken JSON": ("shop.json", json_lines(ROWS[:2]) + '{"user": \n', "line 3 is '{\"user\":'; one JSON object"),
    "code": ("shop.json", json_lines(ROWS[:2]) + "{'a': print()}\n", "line 3 is \"{'a': print()}\"; one JSON object"),
    "deep JSON": ("shop.json", json_lines(ROWS[:2]) + '{"a":' * 9999 + "\n", 'line 3 is \'{"a":{"a":{'),
    "deep literal": ("shop.json", json_lines(ROWS[:2]) + "{'a':" + "-" * 9999 + "1}\n", "line 3 is \"{'a':-----"),
    "huge whole number": (
        "shop.json",
        json_lines(ROWS[:2]) + '{"user": ' + "9" * 5000 + "}\n",
        'line 3 is \'{"user": 999',
    ),
    "huge hex number": (
        "shop.json",
        '{"user": 1, "item": 1}\n{\'user\': 0x' + "f" * 9000 + "}\n",
        "line 2 has a int as user",
    ),
    "half a surrogate pair": ("shop.json", '{"user": "\\ud800", "item": "b"}\n', "line 1 has '\\ud800' as user"),
    "JSON float ids": (
        "shop.json",
        '{"user": 7.0, "item": "b"}\n',
        "line 1 has 7.0 as user; a string of characters or",
    ),
    "JSON true as id": ("shop.json", '{"user": "a", "item": true}\n', "line 1 has True as item"),
    "JSON list as id": ("shop.json", '{"user": "a", "item": ["b"]}\n', "line 1 has a list as item"),
    "JSON without items": (
        "shop.json",
        '{"user": "a", "thing": "b"}\n',
        "no item column; the columns are 'user', 'thing'",
    ),
    "JSON without keys": ("shop.json", "{}\n", "no user column; the columns are"),
    "no user column": ("shop.csv", "who,item\na,b\n", "no user column; the columns are 'who', 'item' (--user-column)"),
    "two user columns": ("shop.csv", "user,user_id,item\na,b,c\n", "'user', 'user_id' may each be the user column"),
    "a name twice": ("shop.csv", "user,item,item\na,b,c\n", "two columns are called 'item'; each name is allowed once"),
    "a million columns": ("shop.csv", ",".join(f"c{n}" for n in range(10**6)), "line 1 is longer than 1048576 bytes"),
    "too many columns": ("shop.csv", "," * 10**5 + "\n", "100001 columns; at most 65536"),
    "a header of control characters": ("shop.csv", "\x01\x02\n\x03\n", "the columns are '\\x01\\x02'"),
    "a header with an open quote": ("shop.csv", '"user,item\na,b\n', "line 1 is no header"),
    "an open quote": ("shop.csv", 'user,item\na,b\nc,"d\ne,f\n', "line 3 has a cell with a broken quote"),
    "text after a quote": ("shop.csv", 'user,item\na,b\n"c"c,d\ne,f\n', "line 3 has a cell with a broken quote"),
    "a long line": ("shop.csv", "user,item,x\na,b,c\nd,e,f,g\n", "line 3 has 4 cells, but the table 3 columns"),
    "header only": ("shop.csv", "user,item\n", "no interaction is left (0 rows read"),
    "all incomplete": ("shop.csv", "user,item\na,\n,b\n", "2 rows dropped without user or item; the first is row 2"),
    "half a character at the end": ("shop.csv", "user,item\na,b\nz,ë".encode()[:-1], "line 3 holds b'\\xc3'"),
    "NUL in an id": ("shop.csv", "user,item\n" + "a,b\n" * 300_000 + "a\0,b\n", "row 300002 has user 'a\\x00'"),
    "line break in an id": (
        "shop.csv",
        'user,item\na,b\n"a\nb",c\n',
        "row 3 has user 'a\\nb'; ids without control characters",
    ),
    "tab in an id": ("shop.csv", "user,item\na,b\na,b\tc\n", "row 3 has item 'b\\tc'"),
    "line separator in an id": ("shop.csv", "user,item\na,b\na,b\u2028c\n", "row 3 has item 'b\\u2028c'"),
    "control character in JSON": ("shop.json", '{"user": "a\\u0007", "item": "b"}\n', "line 1 has user 'a\\x07'"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_interactions(tmp_path, case):
    name, content, part = BAD_FILES[case]
    path = write(tmp_path / name, content)
    message = refusal(path, tmp_path / "shop")
    assert message.startswith(f"{path}: ")
    assert part in message
    assert os.listdir(tmp_path) == [name]


def test_values_in_messages_are_short(tmp_path):
    path = write(tmp_path / "shop.csv", "user,item,rating\na,b," + "x" * 10**5 + "\n")
    message = refusal(path, tmp_path / "shop", Options(min_rating=1))
    assert "x" * 40 in message
    assert len(message) < 250 + len(str(path))


RATED = Options(min_rating=1)
TIMED = Options(split="time")
BAD_NUMBERS = {
    "a word as rating": (RATED, "a,b,c,1", "row 2 has rating 'c'; a finite number is allowed"),
    "NaN as rating": (RATED, "a,b,nan,1", "row 2 has rating 'nan'"),
    "inf as rating": (RATED, "a,b,inf,1", "row 2 has rating 'inf'"),
    "a date as time": (TIMED, "a,b,1,2020-01-01", "row 2 has time '2020-01-01'; a whole number within 64 bits"),
    "a huge time": (TIMED, "a,b,1," + "9" * 400, "row 2 has time '999999"),
}


@pytest.mark.parametrize("case", BAD_NUMBERS)
def test_bad_numbers(tmp_path, case):
    options, line, part = BAD_NUMBERS[case]
    path = write(tmp_path / "shop.csv", table([line.split(",")]))
    assert part in refusal(path, tmp_path / "shop", options)
    prepare(path, tmp_path / "shop")  # a column that is not read may hold anything


@pytest.mark.parametrize("value", ["1e400", "NaN", "true", "[5]", '"5 stars"', str(10**400)])
def test_bad_numbers_of_json(tmp_path, value):
    path = write(tmp_path / "shop.json", f'{{"user": "a", "item": "b", "rating": {value}}}\n')
    assert refusal(path, tmp_path / "shop", RATED).startswith(f"{path}: line 1 has ")


def test_bad_types_of_parquet(tmp_path):
    path = tmp_path / "shop.parquet"
    parquet(path, [(1.5, "b", [1], 1)])
    assert "column 'user_id' is of type Float64" in refusal(path, tmp_path / "shop")
    parquet(path, [("a", "b", [1], 1)])
    assert "column 'rating' is of type List" in refusal(path, tmp_path / "shop", RATED)


def test_columns_that_are_missing_or_meant_twice(tmp_path):
    path = write(tmp_path / "shop.csv", table(header=("user", "item", "stars", "when")))
    message = refusal(path, tmp_path / "shop", TIMED)
    assert message == f"{path}: no time column; the columns are 'user', 'item', 'stars', 'when' (--time-column)"
    assert "no item column called 'x'" in refusal(path, tmp_path / "shop", Options(item_column="x"))
    assert "column 'item' is to be user and item" in refusal(path, tmp_path / "shop", Options(user_column="item"))
    path = write(tmp_path / "ratings.csv", table([row[:3] for row in ROWS], None))
    assert "no time column; the columns are 'user', 'item', 'rating'" in refusal(path, tmp_path / "shop", TIMED)


@pytest.mark.parametrize("chosen", ["recbole", "ratings", "json", "parquet"])
def test_a_format_that_is_not_that_of_the_file(tmp_path, chosen):
    path = write(tmp_path / "shop.csv", table([(*row, 1) for row in ROWS], (*HEADER, "more")))
    assert refusal(path, tmp_path / "shop", Options(format=chosen)).startswith(f"{path}: ")


BAD_OPTIONS = [
    ({"format": "xlsx"}, "format: 'xlsx' is not one of"),
    ({"split": "user"}, "split: 'user' is not one of 'random', 'leave_one_out', 'time'"),
    ({"duplicates": "all"}, "duplicates: 'all' is not one of"),
    ({"k_core": -1}, "k_core: -1; a whole number of at least 0"),
    ({"seed": -1}, "seed: -1; a whole number"),
    ({"min_rating": float("nan")}, "min_rating: nan; a finite number is allowed"),
]


@pytest.mark.parametrize(("options", "part"), BAD_OPTIONS)
def test_bad_options(options, part):
    with pytest.raises(InputError) as caught:
        Options(**options)
    assert part in str(caught.value)


def test_too_strict_options_say_what_became_of_the_rows(tmp_path):
    path = write(tmp_path / "shop.csv", table())
    message = refusal(path, tmp_path / "shop", Options(k_core=3, min_rating=2))
    assert message.startswith(f"{path}: no interaction is left (10 rows read from shop.csv")
    assert message.endswith("1 interaction dropped with a rating below 2; 9 interactions dropped by the 3-core)")


def test_what_is_no_file(tmp_path):
    """Told before anything is opened: a pipe that nobody writes to would be waited for."""
    os.mkfifo(tmp_path / "pipe.csv")
    assert "is no regular file" in refusal(tmp_path / "pipe.csv", tmp_path / "shop")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "socket"))
        assert "is no regular file" in refusal(tmp_path / "socket", tmp_path / "shop")
    assert "is no regular file" in refusal(Path("/dev/zero"), tmp_path / "shop")
    assert "is a folder" in refusal(tmp_path, tmp_path / "shop")
    assert "no such file" in refusal(tmp_path / "none.csv", tmp_path / "shop")


def test_what_is_refused_leaves_no_folder(tmp_path):
    """Nor one that was made to hold it."""
    write(tmp_path / "a.csv", table())
    np.save(tmp_path / "image.npy", np.zeros((2, 2)))
    with pytest.raises(InputError, match=r"no such file; image\.npy needs it"):
        prepare(tmp_path / "a.csv", tmp_path / "new" / "deep" / "shop", features={"image": tmp_path / "image.npy"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "image.npy"]


def test_names_that_polars_would_take_for_patterns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(Path("other.csv"), "user,item\nx,y\n")
    for number, name in enumerate(("*.csv", "[o]ther.csv", "~", "user=1")):
        dataset, _ = prepare(write(Path(name), "user,item\na,b\n"), Path(f"out/shop{number}"))
        assert pairs_of(dataset) == {("a", "b")}
    Path("user=1").unlink()
    Path("user=1").mkdir()
    parquet(Path("user=1/shop.parquet"), [("a", "b")], ("who", "item"))
    assert "no user column; the columns are 'who', 'item'" in refusal(Path("user=1/shop.parquet"), Path("out/shop"))


def test_folder_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr("recunlearn_jax.preparation.read_interactions", lambda *words: pytest.fail("the work began"))
    path = write(tmp_path / "shop.csv", table())
    (tmp_path / "there").mkdir()
    assert "exists already" in refusal(path, tmp_path / "there")
    assert "shop.csv" in refusal(path, path / "shop")
    assert "is no plain name" in refusal(path, tmp_path / "-shop")
    assert "is no plain name" in refusal(path, tmp_path / "shop", features={"a/b": path})


def damaged(content, rng):
    """Some bytes changed, taken out or put in, or the end cut off."""
    place = int(rng.integers(len(content)))
    some = rng.integers(0, 256, rng.integers(1, 6), np.uint8).tobytes()
    mild = bytes(rng.choice(list(b',\t\n\r"{}: '), 1).astype(np.uint8))
    return [
        content[:place],
        content[:place] + some + content[place:],
        content[:place] + mild + content[place + 1 :],
        content[:place] + content[place + len(some) :],
        content[:place] + some + content[place + len(some) :],
    ][rng.integers(5)]


@pytest.mark.parametrize("name", [*FORMATS, *FEATURE_FILES])
def test_damage_is_told_or_harmless(tmp_path, name):
    path, whole = tmp_path / name, write(tmp_path / "whole.csv", table())
    content = (feature_file(path) if name in FEATURE_FILES else interactions(tmp_path, name)).read_bytes()
    rng = np.random.default_rng(0)
    for turn in range(2 if "parquet" in name or "pq" in name else 25):
        path.write_bytes(damaged(content, rng))
        folder = tmp_path / f"shop{turn}"
        try:
            if name in FEATURE_FILES:
                prepare(whole, folder, features={"image": path})
            else:
                prepare(path, folder, Options(split="leave_one_out", min_rating=1))
        except InputError as error:
            if not str(error).startswith(str(path)):
                raise
            assert not folder.exists()


@pytest.mark.slow
def test_benchmark(tmp_path):
    """It runs, and its figures hang together."""
    script = Path(__file__).parent.parent / "benchmarks" / "prepare.py"
    subprocess.run([sys.executable, script, tmp_path / "out.json", "--lines", "3000"], check=True, capture_output=True)
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["lines"] == 3000
    for told in result["files"].values():
        assert told["notes"][0].startswith("3,000 rows read")
        assert 0 < told["seconds"] < 600
        assert 2**20 < told["peak_bytes"] < 2**31


def test_prepare_needs_no_jax():
    code = "import sys; sys.modules['jax'] = None; import recunlearn_jax.preparation"
    subprocess.run([sys.executable, "-c", code], check=True)
