"""Requests: the grammar, resolving against data, and the data that remain, against sets of plain Python."""

import collections
import dataclasses
import doctest
import functools
import json

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from toys import NAMES, NO_PAIRS, small_dataset, sorted_pairs

from recunlearn_jax import requests
from recunlearn_jax.data import read_dataset, write_dataset
from recunlearn_jax.dataset import SPLITS, Dataset
from recunlearn_jax.errors import InputError
from recunlearn_jax.graph import knn_similarities
from recunlearn_jax.requests import Request, difference, forget_pairs, parse, read_request, resolve, retained, to_json
from recunlearn_jax.synthetic import toy


def refusal(function, *arguments):
    with pytest.raises(InputError) as caught:
        function(*arguments)
    return str(caught.value)


def written(tmp_path, values):
    path = tmp_path / "request.json"
    path.write_text(values if isinstance(values, str) else json.dumps(values))
    return path


def as_set(pairs):
    return {tuple(pair) for pair in pairs.tolist()}


def ids(mask):
    return np.flatnonzero(mask).tolist()


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
        message = refusal(parse, words)
        for part in BAD_WORDS[word]:
            assert part in message


def test_modality_with_an_empty_list_is_not_the_whole_modality():
    """modality:audio:$IDS with an empty variable must not forget everything."""
    assert "modality:audio:" in refusal(parse, ["modality:audio:"])


SHARES = ["0%", "100%", "150%", "-3%", "x%", "%", "5%%", "nan%", "inf%"]


@pytest.mark.parametrize("share", SHARES)
def test_bad_shares(tmp_path, share):
    """As words, in a file, and in a request that is built directly."""
    rule = "more than 0% and less than 100%"
    dataset = small_dataset(1)
    for kind in ("users", "items", "pairs"):
        for message in (
            refusal(parse, [f"{kind}:{share}"]),
            refusal(read_request, written(tmp_path, {kind: share})),
            refusal(resolve, Request(**{kind: share}), dataset),
        ):
            assert share in message
            assert rule in message
    for message in (
        refusal(parse, [f"modality:audio:{share}"]),
        refusal(read_request, written(tmp_path, {"modality": {"audio": share}})),
        refusal(resolve, Request(modality={"audio": share}), dataset),
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
    message = refusal(parse, words)
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
    path = written(tmp_path, values)
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
    path = written(tmp_path, values)
    for message in (refusal(read_request, path), refusal(parse, [str(path)])):
        assert message.startswith(str(path))
        for part in parts:
            assert part in message


def test_missing_file(tmp_path):
    message = refusal(parse, [str(tmp_path / "nowhere.json")])
    assert message.startswith(str(tmp_path / "nowhere.json"))
    assert "no such file" in message
    assert "one .json file" in refusal(parse, ["a.json", "users:3"])
    for share in ("users:1_0%", "users:\u0665%", "items: 5%", "pairs:nan%"):
        assert "is no share" in refusal(parse, [share])
    kept = tmp_path / "kept.json"
    for twice in ('{"users": [3], "users": [14]}', '{"modality": {"image": [1], "image": [2]}}'):
        kept.write_text(twice)
        assert "stands twice in an object" in refusal(read_request, kept)
    ids = tmp_path / "ids.json"
    ids.write_text("3\n14\n")
    assert parse([f"users:@{ids}"]).users == [3, 14]  # a file of ids, whatever its name


@pytest.mark.parametrize("seed", ["x", 1.5, None, -1, True, [1]])
def test_bad_seeds(tmp_path, seed):
    """Wherever it is noticed, the message speaks of the seed."""
    path = written(tmp_path, {"users": "40%", "seed": seed})
    assert "seed" in refusal(lambda: resolve(read_request(path), small_dataset()))
    assert "seed" in refusal(resolve, Request(users="40%", seed=seed), small_dataset())


def test_a_recorded_request_can_be_asked_again(tmp_path):
    dataset = small_dataset(2)
    words = ["users:1", "items:40%", "pairs:0-1,2-3", "modality:image:2,3", "modality:audio:20%"]
    request = parse(words, seed=3)
    again = read_request(written(tmp_path, to_json(request)))
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
        assert requests.as_request(given) == read_request(written(tmp_path, values))
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
    assert part in refusal(resolve, given, small_dataset(2))


# Resolving


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["users:5"], ["unknown user 5", "users 0 to 4"]),
        (["users:1,-1"], ["unknown user '-1'", "users 0 to 4"]),
        (["users:1_0"], ["unknown user '1_0'", "users 0 to 4"]),
        (["users:+1"], ["unknown user '+1'", "users 0 to 4"]),
        (["users:01"], ["unknown user '01'", "users 0 to 4"]),
        (["users:\u0661"], ["unknown user '\u0661'", "users 0 to 4"]),
        (["users:1.5"], ["unknown user '1.5'", "users 0 to 4"]),
        (["users:3-4"], ["unknown user '3-4'", "users 0 to 4"]),
        (["users:all"], ["unknown user 'all'", "users 0 to 4"]),
        (["items:x"], ["unknown item 'x'", "items 0 to 6"]),
        (["pairs:3-x"], ["unknown item 'x' in a pair", "items 0 to 6"]),
        (["modality:audio:x"], ["unknown item 'x'", "items 0 to 6"]),
        (["items:0,7"], ["unknown item 7", "items 0 to 6"]),
        (["pairs:0-0,5-0"], ["unknown user 5 in a pair", "users 0 to 4"]),
        (["pairs:0-7"], ["unknown item 7 in a pair", "items 0 to 6"]),
        (["modality:smell"], ["no modality 'smell'", "audio, image"]),
        (["modality:text:1"], ["no modality 'text'", "audio, image"]),
        (["modality:audio:7"], ["unknown item 7", "items 0 to 6"]),
        (["users:" + "9" * 30], ["9" * 20]),
        (["items:" + "9" * 19], ["9" * 19]),
        (["pairs:0-" + "9" * 30], ["9" * 20]),
    ],
)
def test_unknown_ids(words, parts):
    message = refusal(resolve, parse(words), small_dataset(2))
    for part in parts:
        assert part in message


def test_data_without_modalities_says_so():
    assert "it has: none" in refusal(resolve, parse(["modality:audio"]), small_dataset(0))


@pytest.mark.parametrize(
    "request_", [Request(), Request(users=[], items=[], pairs=[]), Request(modality={"audio": []})]
)
def test_empty_request(request_):
    message = refusal(resolve, request_, small_dataset(1))
    assert "the request is empty" in message
    assert "name users, items, pairs or a modality" in message


@pytest.mark.parametrize(
    "words",
    [
        ["users:0,1,2,3"],
        ["items:0,1,2,3,4,5"],
        ["users:99%"],
        ["users:0,1", "items:0,3,4,5"],
        ["pairs:0-0,0-1,1-1,1-2,2-3,2-4,3-0,3-5", "modality:audio"],
    ],
)
def test_request_that_leaves_nothing(words):
    message = refusal(resolve, parse(words), small_dataset(1))
    assert "forgets all 8 train pairs" in message
    assert "leaves nothing to train on" in message
    assert "ask for less" in message


@pytest.mark.parametrize("request_", [Request(users=[1.5]), Request(items=[True]), Request(pairs=[(1.0, 2.0)])])
def test_ids_that_are_no_ids(request_):
    """A request may be built directly; 1.5 must not forget user 1."""
    assert "of ids" in refusal(resolve, request_, small_dataset())


def test_what_is_too_large_to_be_written():
    """Numbers of thousands of digits, and lists that are deep in one another."""
    deep = functools.reduce(lambda inner, _: [inner], range(5000), [])
    words = parse([f"users:{'9' * 5000}"])
    for request in (words, Request(items=[10**5000]), Request(pairs=deep), Request(users=[1], seed=10**5000)):
        with pytest.raises(InputError) as caught:
            resolve(request, small_dataset())
        assert len(str(caught.value)) <= 600


def test_numbers_of_files_are_finite(tmp_path):
    for number in ("NaN", "-Infinity", "1e999"):
        (tmp_path / "request.json").write_text(f'{{"users": [{number}]}}')
        with pytest.raises(InputError, match=f"not valid JSON .{number} is no finite number"):
            read_request(tmp_path / "request.json")


def test_ids_may_be_arrays():
    request = Request(users=np.array([1]), items=np.array([3, 4]), pairs=np.array([[0, 1]]))
    words = ["users:1", "items:3,4", "pairs:0-1"]
    assert resolve(request, small_dataset()).checksum == resolve(parse(words), small_dataset()).checksum
    assert to_json(request) == to_json(parse(words)) == json.loads(json.dumps(to_json(request)))
    assert "users" in refusal(resolve, Request(users=np.array([True, False])), small_dataset())


def test_a_mix_by_hand():
    dataset = small_dataset(2)
    words = ["users:1", "items:3", "pairs:0-1,3-1,4-4", "modality:audio", "modality:image:0,1"]
    forget_set = resolve(parse(words), dataset)
    assert forget_pairs(dataset, forget_set).tolist() == [[0, 1], [1, 1], [1, 2], [2, 3]]
    assert forget_set.counts() == {
        "users": 1,
        "items": 1,
        "pairs": 4,
        "audio feature rows": 7,
        "image feature rows": 2,
    }
    assert forget_set.absent_pairs(dataset).tolist() == [[3, 1], [4, 4]]
    after = retained(dataset, forget_set)
    assert after.train.tolist() == [[0, 0], [2, 4], [3, 0], [3, 5]]
    assert after.valid.tolist() == [[0, 2], [2, 5]]  # 3-1 was named as a pair
    assert after.test.tolist() == [[3, 2]]
    assert after.modalities == ("image",)
    assert after.features["image"].any(axis=1).tolist() == [False, False, True, False, True, True, False]
    assert (ids(after.removed_users), ids(after.removed_items)) == ([1], [3])
    assert (after.num_users, after.num_items) == (5, 7)


def test_data_and_forget_set_are_not_changed():
    dataset = small_dataset(2)
    forget_set = resolve(parse(["users:1", "items:3", "modality:image:0"]), dataset)
    checksum = forget_set.checksum
    retained(dataset, forget_set)
    assert dataset.replace().checksum == small_dataset(2).checksum
    assert forget_set.checksum == checksum


def test_pairs_that_are_not_in_train_change_nothing_there():
    dataset = small_dataset(1)
    forget_set = resolve(parse(["pairs:0-2,4-6,1-2"]), dataset)
    assert forget_pairs(dataset, forget_set).tolist() == [[1, 2]]
    assert forget_set.absent_pairs(dataset).tolist() == [[0, 2], [4, 6]]
    only_absent = resolve(parse(["pairs:0-3,4-6"]), dataset)
    assert not only_absent.forget.any()
    assert only_absent.absent_pairs(dataset).tolist() == [[0, 3], [4, 6]]
    after = retained(dataset, only_absent)
    np.testing.assert_array_equal(after.train, dataset.train)
    np.testing.assert_array_equal(after.valid, dataset.valid)
    assert as_set(after.test) == as_set(dataset.test) - {(0, 3)}
    assert not after.removed_users.any()
    assert len(resolve(parse(["pairs:1-2"]), dataset).absent_pairs(dataset)) == 0


def test_modality_whose_last_rows_go_with_their_items_disappears():
    """However its rows went, a modality with no row left is no modality of the data."""
    dataset = small_dataset(2, graphs=False)
    image = dataset.features["image"] * (np.arange(7) < 2)[:, None]
    dataset = dataset.replace(features={**dataset.features, "image": image.astype(np.float32)})
    for words in (["modality:image:0,1"], ["items:0,1"], ["items:0", "modality:image:1"]):
        assert retained(dataset, resolve(parse(words), dataset)).modalities == ("audio",)
    assert retained(dataset, resolve(parse(["items:0"]), dataset)).modalities == ("audio", "image")


def test_a_modality_that_is_gone_already_is_harmless_and_told():
    dataset = small_dataset(2)
    after = retained(dataset, resolve(parse(["modality:image"]), dataset))
    assert after.removed_modalities == ("image",)
    again = resolve(parse(["modality:image", "users:1"]), after)
    assert again.notes(after) == ["modality image was removed earlier; nothing is left of it to forget"]
    assert again.counts() == {"users": 1, "items": 0, "pairs": 2}
    assert "no modality 'text'; it has: audio" in refusal(resolve, parse(["modality:text"]), after)


def test_a_modality_without_any_row_is_not_touched():
    """It is of no use, but the request does not name it."""
    dataset = small_dataset(2, graphs=False)
    dataset = dataset.replace(features={**dataset.features, "image": np.zeros((7, 3), np.float32)})
    after = retained(dataset, resolve(parse(["users:1"]), dataset))
    assert (after.modalities, after.removed_modalities) == (("audio", "image"), ())


def test_named_pairs_that_are_not_in_train_are_told():
    dataset = small_dataset(0)
    forget_set = resolve(parse(["pairs:0-0,0-2,0-3,1-4,4-6"]), dataset)
    assert forget_set.notes(dataset) == [
        "1 named pairs (first: 0-2) stand in valid, not in train, and leave it",
        "2 named pairs (first: 0-3) stand in test, not in train, and leave it",
        "1 named pairs (first: 4-6) are nowhere in the data; forgotten earlier, or a mistake?",
    ]


def named_dataset():
    return small_dataset(2).replace(user_ids=["ann", "7", "007", "a-b", "zoë, x"], item_ids=[f"B{i}" for i in range(7)])


def test_requests_speak_the_operators_ids(tmp_path):
    dataset, plain = named_dataset(), small_dataset(2)
    (tmp_path / "users.txt").write_text("a-b\nzoë, x\n")
    (tmp_path / "pairs.txt").write_text("a-b\tB0\nann\tB1")
    words = {
        ("users:ann,007",): ["users:0,2"],
        ("users:7",): ["users:1"],
        (f"users:@{tmp_path / 'users.txt'}",): ["users:3,4"],
        (f"pairs:@{tmp_path / 'pairs.txt'}",): ["pairs:3-0,0-1"],
        ("pairs:ann-B1", "modality:audio:B3"): ["pairs:0-1", "modality:audio:3"],
        (str(written(tmp_path, {"users": ["zoë, x", 7], "pairs": [["a-b", "B0"]]})),): ["users:4,1", "pairs:3-0"],
    }
    for spoken, numbered in words.items():
        ours, theirs = resolve(parse(spoken), dataset), resolve(parse(numbered), plain)
        assert ours.checksum == theirs.checksum
        assert as_set(ours.pairs) == as_set(theirs.pairs)
    message = refusal(resolve, parse(["users:0"]), dataset)
    assert "unknown user '0'; ids of the data are such as ann, 7" in message
    assert "entry 1 is 'a-b-B0'" in refusal(parse, ["pairs:a-b-B0"])
    assert (
        resolve(parse(["pairs:ann-B6"]), dataset)
        .notes(dataset)[0]
        .startswith("1 named pairs (first: ann-B6) are nowhere")
    )


def test_what_is_removed_has_no_name_left(tmp_path):
    dataset = named_dataset()
    after = retained(dataset, resolve(parse(["users:007", "items:B1"]), dataset))
    assert after.user_ids.tolist() == ["ann", "7", "", "a-b", "zoë, x"]
    assert after.item_ids.tolist()[:3] == ["B0", "", "B2"]
    assert read_dataset(write_dataset(after, tmp_path / "after")).checksum == after.checksum
    assert "unknown user '007'" in refusal(resolve, parse(["users:007"]), after)


@pytest.mark.parametrize(
    "words",
    [
        ["users:1"],
        ["items:1,4"],
        ["users:40%", "items:2"],
        ["pairs:0-1,0-2,1-4"],
        ["modality:image"],
        ["modality:image:1,2", "modality:audio:0"],
        ["users:2", "items:0", "pairs:0-1", "modality:audio", "modality:image:3"],
    ],
)
def test_what_was_forgotten_is_read_from_the_data_alone(words):
    """`difference` finds the forget set that `retained` was given, whatever the request."""
    before = small_dataset(2)
    forget_set = resolve(parse(words, 3), before)
    after = retained(before, forget_set)
    found = difference(before, after)
    assert found.checksum == forget_set.checksum
    assert retained(before, found).checksum == after.checksum
    with pytest.raises(InputError, match="not what is left"):
        difference(after, before)


def test_a_modality_of_zeros_goes_when_it_is_named():
    """And is known as removed; rows of zeros alone are none that an earlier request can have left."""
    plain = small_dataset(2)
    zeros = {**plain.features, "image": np.zeros_like(plain.features["image"])}
    dataset = plain.replace(features=zeros, similarities={})
    left = retained(dataset, resolve(parse(["modality:image"]), dataset))
    assert (left.modalities, left.removed_modalities) == (("audio",), ("image",))
    assert retained(dataset, resolve(parse(["items:1"]), dataset)).modalities == ("audio", "image")


# Shares


def test_a_forget_set_of_other_data_is_refused():
    """Of as many pairs, even: what it calls removed would be left with pairs."""
    first, second = (toy(60, 40, pairs_per_user=5, clusters=2, seed=seed) for seed in (0, 1))
    assert len(first.train) == len(second.train)
    with pytest.raises(InputError, match="resolved on other data"):
        retained(second, resolve(parse(["items:5,6,7"]), first))
    there = {*map(tuple, second.train.tolist())}
    moved = [
        pair
        for row, pair in enumerate(first.train.tolist())
        if tuple(pair) in there and pair != second.train[row].tolist()
    ]
    with pytest.raises(InputError, match="resolved on other data"):
        retained(second, resolve(Request(pairs=moved[:1]), first))
    larger = toy(61, 40, pairs_per_user=5, clusters=2)
    with pytest.raises(InputError, match="resolved on other data"):
        retained(larger, resolve(parse(["users:3"]), first))


def many_users():
    """40 users with 5 train pairs each over 50 items, and 10 users and 10 items without any."""
    rng = np.random.default_rng(0)
    train = [(user, item) for user in range(40) for item in rng.choice(50, 5, replace=False)]
    features = np.ones((60, 2), np.float32) * (np.arange(60) % 3 > 0)[:, None]  # 40 items have them
    return Dataset("many", 50, 60, sorted_pairs(train), NO_PAIRS, NO_PAIRS, {"audio": features.astype(np.float32)})


@pytest.mark.parametrize("share", ["5%", "12.5%", "50%", "2.6%"])
@pytest.mark.parametrize("seed", [0, 1])
def test_shares_draw_the_right_number(share, seed):
    dataset = many_users()
    items = np.unique(dataset.train[:, 1])

    def count(population):
        return round(population * float(share[:-1]) / 100)

    forget_set = resolve(Request(users=share, seed=seed), dataset)
    assert forget_set.users.sum() == count(40)
    assert forget_set.forget.sum() == 5 * count(40)  # users without train pairs are not drawn
    forget_set = resolve(Request(items=share, seed=seed), dataset)
    assert forget_set.items.sum() == count(len(items))
    assert set(ids(forget_set.items)) <= set(items.tolist())
    forget_set = resolve(Request(pairs=share, seed=seed), dataset)
    assert forget_set.forget.sum() == len(forget_set.pairs) == count(200)
    assert not len(forget_set.absent_pairs(dataset))
    assert not forget_set.users.any()
    rows = resolve(Request(modality={"audio": share}, seed=seed), dataset).features["audio"]
    assert rows.sum() == count(40)
    assert dataset.features["audio"].any(axis=1)[rows].all()  # items that lack the modality are not drawn


@pytest.mark.parametrize("words", [["users:20%"], ["items:20%"], ["pairs:20%"], ["modality:audio:20%"]])
def test_shares_follow_the_seed_only(words):
    checksums = [resolve(parse(words, seed), many_users()).checksum for seed in (0, 1, 2)]
    assert len(set(checksums)) == 3
    assert [resolve(parse(words, seed), many_users()).checksum for seed in (0, 1, 2)] == checksums
    for seed, checksum in zip((2, 1, 0), checksums[::-1], strict=True):  # in any order, whatever numpy's own state is
        np.random.seed(seed + 5)
        assert resolve(parse(words, seed), many_users()).checksum == checksum


def test_a_share_of_nothing():
    message = refusal(resolve, parse(["users:1%"]), many_users())
    assert "1% of 40 users is none" in message
    assert "ask for a larger share or name ids" in message


def test_every_user_is_drawn_sometimes():
    drawn = sum(resolve(parse(["users:20%"], seed), many_users()).users.astype(int) for seed in range(60))
    assert (drawn[:40] > 0).all()
    assert drawn[:40].max() < 30  # of 60; 12 are expected
    assert not drawn[40:].any()


# Properties over mixes of everything


@st.composite
def datasets(draw):
    """2 to 6 users, 3 to 7 items, up to two modalities that some items lack, up to one item removed earlier."""
    num_users, num_items = draw(st.integers(2, 6)), draw(st.integers(3, 7))
    removed = np.isin(np.arange(num_items), draw(st.lists(st.integers(0, num_items - 1), max_size=1)))
    grid = [(user, item) for user in range(num_users) for item in range(num_items) if not removed[item]]
    pairs = draw(st.lists(st.sampled_from(grid), min_size=2, max_size=25, unique=True))
    labels = [0, 0, *draw(st.lists(st.sampled_from([0, 0, 1, 2]), min_size=len(pairs) - 2, max_size=len(pairs) - 2))]
    splits = {
        split: sorted_pairs(pair for pair, label in zip(pairs, labels, strict=True) if label == number)
        for number, split in enumerate(SPLITS)
    }
    features = {}
    for name in NAMES[: draw(st.integers(0, 2))]:
        array = np.random.default_rng(draw(st.integers(0, 99))).uniform(0.1, 1, (num_items, 2)).astype(np.float32)
        array[draw(st.lists(st.integers(1, num_items - 1), max_size=2))] = 0
        array[removed] = 0
        features[name] = array
    graphs = {m: knn_similarities(x, 3) for m, x in features.items()} if draw(st.booleans()) else {}
    return Dataset(
        "drawn", num_users, num_items, **splits, features=features, similarities=graphs, removed_items=removed
    )


@st.composite
def data_and_requests(draw):
    """Ids named in any order, some twice, pairs whether they are in train, held out or nowhere, and shares."""
    dataset = draw(datasets())
    user, item = st.integers(0, dataset.num_users - 1), st.integers(0, dataset.num_items - 1)
    share = st.sampled_from(["30%", "50%"])

    def some(entries, most):
        return st.just(()) | st.lists(entries, min_size=1, max_size=most) | share

    modality = {
        m: draw(st.just("all") | st.lists(item, min_size=1, max_size=4) | share)
        for m in dataset.modalities
        if draw(st.booleans())
    }
    request = Request(
        users=draw(some(user, 2)),
        items=draw(some(item, 2)),
        pairs=draw(some(st.tuples(user, item), 6)),
        modality=modality,
        seed=draw(st.integers(0, 3)),
    )
    return dataset, request


def resolved(dataset, request):
    """The forget set, or None where the request is refused for one of the reasons that a mix at random can have."""
    try:
        return resolve(request, dataset)
    except InputError as error:
        if not any(reason in str(error) for reason in ("is empty", "leaves nothing to train on", "is none")):
            raise
        return None


@given(data_and_requests())
def test_forget_set_is_the_union_of_its_parts(drawn):
    dataset, request = drawn
    forget_set = resolved(dataset, request)
    if forget_set is None:
        return
    users, items, pairs = ids(forget_set.users), ids(forget_set.items), as_set(forget_set.pairs)
    for named, mask in ((request.users, users), (request.items, items)):
        assert isinstance(named, str) or set(named) == set(mask)
    assert isinstance(request.pairs, str) or set(request.pairs) == pairs
    for m, chosen in request.modality.items():
        rows = ids(forget_set.features[m])
        assert isinstance(chosen, str) or set(chosen) == set(rows)
        assert chosen != "all" or len(rows) == dataset.num_items
    forgotten = {(u, i) for u, i in dataset.train.tolist() if u in users or i in items or (u, i) in pairs}
    assert as_set(forget_pairs(dataset, forget_set)) == forgotten
    assert as_set(forget_set.absent_pairs(dataset)) == pairs - as_set(dataset.train)


@pytest.mark.parametrize("gone", [[], [0], [7], [0, 1, 6, 7], [3], range(8)])
def test_pairs_that_are_left(gone, monkeypatch):
    """In pieces or by a mask."""
    pairs = small_dataset(0).train
    for piece in (1, 1000):
        monkeypatch.setattr(requests, "_PIECE", piece)
        left = requests._left(pairs, np.array(gone, int))
        np.testing.assert_array_equal(left, np.delete(pairs, list(gone), axis=0))
        assert left.dtype == np.int32


@given(data_and_requests())
def test_retained_and_forgotten_partition_train(drawn):
    dataset, request = drawn
    forget_set = resolved(dataset, request)
    if forget_set is None:
        return
    kept, forgotten = retained(dataset, forget_set).train, forget_pairs(dataset, forget_set)
    assert len(kept)
    np.testing.assert_array_equal(sorted_pairs([*kept.tolist(), *forgotten.tolist()]), dataset.train)
    assert len(kept) + len(forgotten) == len(dataset.train)


@given(data_and_requests())
def test_nothing_forgotten_is_retained(drawn):
    dataset, request = drawn
    forget_set = resolved(dataset, request)
    if forget_set is None:
        return
    after = retained(dataset, forget_set)
    named = as_set(forget_set.pairs)
    for split in SPLITS:
        pairs = getattr(after, split)
        assert pairs.dtype == np.int32
        assert not forget_set.users[pairs[:, 0]].any()
        assert not forget_set.items[pairs[:, 1]].any()
        assert not as_set(pairs) & named
        kept = [
            (u, i)
            for u, i in getattr(dataset, split).tolist()
            if not forget_set.users[u] and not forget_set.items[i] and (u, i) not in named
        ]
        np.testing.assert_array_equal(pairs, sorted_pairs(kept))  # and nothing else is lost
    assert ids(after.removed_users) == ids(forget_set.users)
    assert ids(after.removed_items) == ids(forget_set.items | dataset.removed_items)
    assert (after.num_users, after.num_items) == (dataset.num_users, dataset.num_items)


@given(data_and_requests())
def test_forgotten_features_and_edges_are_gone(drawn):
    dataset, request = drawn
    forget_set = resolved(dataset, request)
    if forget_set is None:
        return
    after = retained(dataset, forget_set)
    for m in dataset.modalities:
        gone = forget_set.items | forget_set.features.get(m, np.zeros(dataset.num_items, bool))
        expected = np.where(gone[:, None], 0, dataset.features[m])
        if m in request.modality:
            assert (m in after.modalities) == expected.any()
        if m not in after.modalities:
            assert not expected.any()
            assert m not in after.similarities
            continue
        assert after.features[m].dtype == np.float32
        np.testing.assert_array_equal(after.features[m], expected)
        assert (m in after.similarities) == (m in dataset.similarities)
        if m in dataset.similarities:
            graph = after.similarities[m]
            weights = dataset.similarities[m].toarray()
            weights[gone], weights[:, gone] = 0, 0
            np.testing.assert_array_equal(graph.toarray(), weights)
            assert graph.dtype == np.float32
            assert not gone[graph.indices].any()  # no edge is left behind with a weight of zero
            assert not np.diff(graph.indptr)[gone].any()


@given(data_and_requests())
def test_forgetting_twice_is_forgetting_once(drawn):
    dataset, request = drawn
    forget_set = resolved(dataset, request)
    if forget_set is None:
        return
    once = retained(dataset, forget_set)
    again = Request(
        users=ids(forget_set.users),
        items=ids(forget_set.items),
        pairs=forget_set.pairs.tolist(),
        modality={m: ids(rows) for m, rows in forget_set.features.items() if m in once.modalities},
    )
    second = resolved(once, again)
    if second is not None:  # None: nothing but a whole modality was named, and that is gone
        assert not second.forget.any()
        assert retained(once, second).checksum == once.checksum


@given(data_and_requests())
def test_one_request_after_another_is_both_at_once(drawn):
    dataset, request = drawn
    everything = resolved(dataset, request)
    if everything is None:
        return
    first = Request(users=ids(everything.users), pairs=everything.pairs.tolist())
    second = Request(items=ids(everything.items), modality={m: ids(x) for m, x in everything.features.items()})
    data = dataset
    for part in (first, second):
        if part.describe() != "nothing":
            data = retained(data, resolve(part, data))
    assert data.checksum == retained(dataset, everything).checksum


@given(data_and_requests())
def test_retained_data_keep_the_rules_of_data_sets(tmp_path_factory, drawn):
    dataset, request = drawn
    forget_set = resolved(dataset, request)
    if forget_set is None:
        return
    after = retained(dataset, forget_set)
    assert after.replace().checksum == after.checksum  # a copy is checked as any data set is
    folder = tmp_path_factory.mktemp("retained") / "data"
    write_dataset(after, folder)
    back = read_dataset(folder)
    assert back.checksum == after.checksum
    for m, graph in after.similarities.items():
        assert isinstance(graph, scipy.sparse.csr_array)
        np.testing.assert_array_equal(back.similarities[m].toarray(), graph.toarray())
