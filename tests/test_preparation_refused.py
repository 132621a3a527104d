"""What cannot be prepared is refused in one sentence, and damage is told or harmless."""

import gzip
import os
import socket
from pathlib import Path

import numpy as np
import pytest
from shop_files import (
    FEATURE_FILES,
    FORMATS,
    HEADER,
    ROWS,
    feature_file,
    interactions,
    json_lines,
    pairs_of,
    parquet,
    refusal,
    table,
    write,
)

from recunlearn_jax.errors import InputError
from recunlearn_jax.preparation import Options, prepare


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
