"""Preparing interactions: every format gives the same data, and cleaning and splitting do what they say."""

import json
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
from shop_files import FORMATS, HEADER, ROWS, interactions, json_lines, named, pairs_of, parquet, refusal, table, write

from recunlearn_jax.data import read_dataset
from recunlearn_jax.dataset import SPLITS
from recunlearn_jax.preparation import Options, k_core, prepare, split

# Formats


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


# The whole


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
