"""Requests in words, files and mappings: what they mean, and what is refused."""

import collections
import dataclasses
import doctest
import json

import numpy as np
import pytest
from refusals import told
from toys import small_dataset, write_request

from recunlearn_jax import requests
from recunlearn_jax.requests import Request, parse, read_request, resolve, to_json

# The grammar of the command line


@pytest.mark.parametrize(
    ("words", "request_"),
    [
        ([], Request()),
        (["users:5%"], Request(users="5%")),
        (["users:3"], Request(users=[3])),
        (["users:3,14"], Request(users=[3, 14])),
        (["items:0.5%"], Request(items="0.5%")),
        (["items:12,99"], Request(items=[12, 99])),
        (["pairs:5%"], Request(pairs="5%")),
        (["pairs:3-12"], Request(pairs=[(3, 12)])),
        (["pairs:3-12,3-40"], Request(pairs=[(3, 12), (3, 40)])),
        (["modality:audio"], Request(modality={"audio": "all"})),
        (["modality:audio:all"], Request(modality={"audio": "all"})),
        (["modality:audio:5%"], Request(modality={"audio": "5%"})),
        (["modality:audio:12,99"], Request(modality={"audio": [12, 99]})),
        (
            ["modality:text", "pairs:1-2", "items:5%", "users:3", "modality:audio:7"],
            Request(users=[3], items="5%", pairs=[(1, 2)], modality={"text": "all", "audio": [7]}),
        ),
    ],
)
def test_words(words, request_):
    assert parse(words) == request_
    assert parse(words, seed=4) == dataclasses.replace(request_, seed=4)


BAD_WORDS = {
    "users": ["'users'", "expected users:..."],
    "users:": ["'users:'", "expected users:..."],
    "groups:3": ["'groups:3'", "users:..., items:..., pairs:..., modality:NAME"],
    ":3": ["':3'", "expected users:..."],
    "users:,3": ["'users:,3'", "entry 1 is ''"],
    "users:@nowhere.txt": ["nowhere.txt: no such file"],
    "users:3,": ["'users:3,'", "ids such as 12,99"],
    "pairs:3": ["'pairs:3'", "pairs such as 3-12,3-40"],
    "pairs:all": ["'pairs:all'", "pairs such as 3-12,3-40"],
    "pairs:3-12-4": ["'pairs:3-12-4'", "pairs such as 3-12,3-40"],
    "modality": ["'modality'", "modality:NAME"],
    "modality:": ["'modality:'", "modality:NAME"],
}


@pytest.mark.parametrize("word", BAD_WORDS)
def test_bad_words(word):
    for words in ([word], ["items:1", word] if not word.startswith("items") else ["users:1", word]):
        message = told(parse, words)
        for part in BAD_WORDS[word]:
            assert part in message


def test_modality_with_an_empty_list_is_not_the_whole_modality():
    """modality:audio:$IDS with an empty variable must not forget everything."""
    assert "modality:audio:" in told(parse, ["modality:audio:"])


SHARES = ["0%", "100%", "150%", "-3%", "x%", "%", "5%%", "nan%", "inf%"]


@pytest.mark.parametrize("share", SHARES)
def test_bad_shares(tmp_path, share):
    """As words, in a file, and in a request that is built directly."""
    rule = "more than 0% and less than 100%"
    dataset = small_dataset(1)
    for kind in ("users", "items", "pairs"):
        for message in (
            told(parse, [f"{kind}:{share}"]),
            told(read_request, write_request(tmp_path, {kind: share})),
            told(resolve, Request(**{kind: share}), dataset),
        ):
            assert share in message
            assert rule in message
    for message in (
        told(parse, [f"modality:audio:{share}"]),
        told(read_request, write_request(tmp_path, {"modality": {"audio": share}})),
        told(resolve, Request(modality={"audio": share}), dataset),
    ):
        assert share in message
        assert rule in message


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["users:3", "users:4"], "users is"),
        (["pairs:5%", "items:1", "pairs:1-1"], "pairs is"),
        (["modality:audio", "modality:audio:3"], "modality audio is"),
    ],
)
def test_a_kind_named_twice(words, name):
    message = told(parse, words)
    assert f"{words[-1]!r}: {name} named twice" in message
    assert "join the ids with commas" in message
    assert len(parse(["modality:audio", "modality:image"]).modality) == 2


def test_description():
    assert Request().describe() == "nothing"
    long = Request(users=list(range(1000))).describe()
    assert long.startswith("users:0,1,2,")
    assert len(long) < 80
    words = ["users:5%", "items:1,2", "pairs:3-12,3-40", "modality:audio", "modality:image:5%", "modality:text:1"]
    assert parse(words).describe() == " ".join(words)
    assert parse(parse(words).describe().split()) == parse(words)


def test_examples_in_docstrings():
    assert doctest.testmod(requests).attempted > 0
    assert doctest.testmod(requests).failed == 0


# The grammar of files


@pytest.mark.parametrize(
    ("values", "request_"),
    [
        ({}, Request()),
        ({"users": [3, 14]}, Request(users=[3, 14])),
        ({"users": "5%"}, Request(users="5%")),
        ({"items": [0]}, Request(items=[0])),
        ({"pairs": [[3, 12], [3, 40]]}, Request(pairs=[[3, 12], [3, 40]])),
        ({"pairs": "5%", "seed": 3}, Request(pairs="5%", seed=3)),
        ({"modality": "audio"}, Request(modality={"audio": "all"})),
        ({"modality": ["audio", "text"]}, Request(modality={"audio": "all", "text": "all"})),
        ({"modality": {"audio": "all", "image": [12, 99]}}, Request(modality={"audio": "all", "image": [12, 99]})),
        ({"modality": {"audio": "5%"}}, Request(modality={"audio": "5%"})),
    ],
)
def test_files(tmp_path, values, request_):
    path = write_request(tmp_path, values)
    for ours in (read_request(path), parse([str(path)])):
        assert to_json(ours) == json.loads(json.dumps(to_json(ours)))  # plain lists and texts
        assert [list(getattr(ours, kind)) for kind in ("users", "items", "pairs")] == [
            list(getattr(request_, kind)) for kind in ("users", "items", "pairs")
        ]
        assert (ours.modality, ours.seed) == (request_.modality, request_.seed)
    assert read_request(path, seed=9).seed == values.get("seed", 9)


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ("{", ["not valid JSON"]),
        ([], ["an object with the keys users, items, pairs, modality, seed"]),
        ({"usrs": [1]}, ["an object with the keys users", "usrs"]),
        ({"users": 5}, ["users", "5 given", "a list of ids"]),
        ({"users": None}, ["users", "None given", "a list of ids"]),
        ({"users": "all"}, ["users", "'all' is no share"]),
        ({"users": "5"}, ["users", "'5' is no share"]),
        ({"users": [""]}, ["users", "a list of ids"]),
        ({"items": [1.0]}, ["items", "1.0 given", "a list of ids"]),
        ({"items": [True]}, ["items", "True given", "a list of ids"]),
        ({"items": {"1": 2}}, ["items", "a list of ids"]),
        ({"pairs": [3, 12]}, ["pairs", "(user, item) pairs of ids"]),
        ({"pairs": [[3, 12], [3]]}, ["pairs", "(user, item) pairs of ids"]),
        ({"pairs": [[3, 12.0]]}, ["pairs", "(user, item) pairs of ids"]),
        ({"modality": None}, ["modality", "None"]),
        ({"modality": 5}, ["modality", "5"]),
        ({"modality": [5]}, ["modality", "5"]),
        ({"modality": [["audio"]]}, ["modality", "audio"]),
        ({"modality": {"audio": None}}, ["modality audio", "None given"]),
        ({"modality": {"audio": "none"}}, ["modality audio", "'none' is no share"]),
        ({"modality": {"audio": [[1, 2]]}}, ["modality audio", "a list of ids"]),
    ],
)
def test_bad_files(tmp_path, values, parts):
    path = write_request(tmp_path, values)
    for message in (told(read_request, path), told(parse, [str(path)])):
        assert message.startswith(str(path))
        for part in parts:
            assert part in message


def test_missing_file(tmp_path):
    message = told(parse, [str(tmp_path / "nowhere.json")])
    assert message.startswith(str(tmp_path / "nowhere.json"))
    assert "no such file" in message
    assert "one .json file" in told(parse, ["a.json", "users:3"])
    for share in ("users:1_0%", "users:\u0665%", "items: 5%", "pairs:nan%"):
        assert "is no share" in told(parse, [share])
    kept = tmp_path / "kept.json"
    for twice in ('{"users": [3], "users": [14]}', '{"modality": {"image": [1], "image": [2]}}'):
        kept.write_text(twice)
        assert "stands twice in an object" in told(read_request, kept)
    ids = tmp_path / "ids.json"
    ids.write_text("3\n14\n")
    assert parse([f"users:@{ids}"]).users == [3, 14]  # a file of ids, whatever its name


@pytest.mark.parametrize("seed", ["x", 1.5, None, -1, True, [1]])
def test_bad_seeds(tmp_path, seed):
    """Wherever it is noticed, the message speaks of the seed."""
    path = write_request(tmp_path, {"users": "40%", "seed": seed})
    assert "seed" in told(lambda: resolve(read_request(path), small_dataset()))
    assert "seed" in told(resolve, Request(users="40%", seed=seed), small_dataset())


def test_a_recorded_request_can_be_asked_again(tmp_path):
    dataset = small_dataset(2)
    words = ["users:1", "items:40%", "pairs:0-1,2-3", "modality:image:2,3", "modality:audio:20%"]
    request = parse(words, seed=3)
    again = read_request(write_request(tmp_path, to_json(request)))
    assert again.seed == 3
    assert resolve(again, dataset).checksum == resolve(request, dataset).checksum


WRITTEN = {
    "one word": "users:1",
    "words": ["users:1"],
    "a tuple of words": ("users:1",),
    "an array of words": np.array(["users:1"]),
    "a list of another kind": collections.UserList(["users:1"]),
    "a kept request": {"salt": "a", "request": {"users": [1]}},
    "a mapping": {"users": [1]},
    "a mapping with an array": {"users": np.array([1])},
    "a request": Request(users=[1]),
}


@pytest.mark.parametrize("how", WRITTEN)
def test_a_request_is_taken_however_it_is_written(how):
    dataset = small_dataset(2)
    assert resolve(WRITTEN[how], dataset).checksum == resolve(parse(["users:1"]), dataset).checksum


def test_a_mapping_is_read_like_a_file(tmp_path):
    for values in ({"modality": "audio"}, {"modality": ["audio"], "seed": 3}, {"items": "40%", "pairs": [[0, 1]]}):
        given = json.loads(json.dumps(values))
        assert requests.as_request(given) == read_request(write_request(tmp_path, values))
        assert given == values  # what was handed in stays as it was


@pytest.mark.parametrize(
    ("given", "part"),
    [
        (None, "None given; expected words such as"),
        (3, "3 given; expected words"),
        ([3, 14], "[3, 14] given; expected words"),
        ({"user": [3]}, "request: a request is an object with the keys users, items, pairs, modality, seed"),
        ({3: "users"}, "request: a request is an object with the keys"),
        ({"users": 3}, "request: users: 3 given; expected a share"),
        ({"modality": None}, "request: modality None given"),
        ({"users": "5%", "seed": -1}, "request: seed -1 given"),
        (["user:3"], "'user:3'"),
    ],
)
def test_what_is_no_request(given, part):
    assert part in told(resolve, given, small_dataset(2))
