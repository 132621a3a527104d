"""Requests resolved against data, and shares."""

import functools
import json

import numpy as np
import pytest
from refusals import told
from toys import NO_PAIRS, as_set, ids, small_dataset, sorted_pairs, write_request

from recunlearn_jax.data import read_dataset, write_dataset
from recunlearn_jax.dataset import Dataset
from recunlearn_jax.errors import InputError
from recunlearn_jax.requests import Request, difference, forget_pairs, parse, read_request, resolve, retained, to_json
from recunlearn_jax.synthetic import toy

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
    message = told(resolve, parse(words), small_dataset(2))
    for part in parts:
        assert part in message


def test_data_without_modalities_says_so():
    assert "it has: none" in told(resolve, parse(["modality:audio"]), small_dataset(0))


@pytest.mark.parametrize(
    "request_", [Request(), Request(users=[], items=[], pairs=[]), Request(modality={"audio": []})]
)
def test_empty_request(request_):
    message = told(resolve, request_, small_dataset(1))
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
    message = told(resolve, parse(words), small_dataset(1))
    assert "forgets all 8 train pairs" in message
    assert "leaves nothing to train on" in message
    assert "ask for less" in message


@pytest.mark.parametrize("request_", [Request(users=[1.5]), Request(items=[True]), Request(pairs=[(1.0, 2.0)])])
def test_ids_that_are_no_ids(request_):
    """A request may be built directly; 1.5 must not forget user 1."""
    assert "of ids" in told(resolve, request_, small_dataset())


def test_what_is_too_large_to_be_written():
    """Numbers of thousands of digits, and lists that are deep in one another."""
    deep = functools.reduce(lambda inner, _: [inner], range(5000), [])
    words = parse([f"users:{'9' * 5000}"])
    for request in (words, Request(items=[10**5000]), Request(pairs=deep), Request(users=[1], seed=10**5000)):
        assert len(told(resolve, request, small_dataset())) <= 600


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
    assert "users" in told(resolve, Request(users=np.array([True, False])), small_dataset())


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
    assert "no modality 'text'; it has: audio" in told(resolve, parse(["modality:text"]), after)


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
        (str(write_request(tmp_path, {"users": ["zoë, x", 7], "pairs": [["a-b", "B0"]]})),): ["users:4,1", "pairs:3-0"],
    }
    for spoken, numbered in words.items():
        ours, theirs = resolve(parse(spoken), dataset), resolve(parse(numbered), plain)
        assert ours.checksum == theirs.checksum
        assert as_set(ours.pairs) == as_set(theirs.pairs)
    message = told(resolve, parse(["users:0"]), dataset)
    assert "unknown user '0'; ids of the data are such as ann, 7" in message
    assert "entry 1 is 'a-b-B0'" in told(parse, ["pairs:a-b-B0"])
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


@pytest.mark.parametrize("dataset", [small_dataset(2), named_dataset()], ids=["numbers", "names"])
def test_what_was_removed_may_be_asked_for_again(dataset):
    """As a retried request does, by number or by a name that is in the data no more; what nobody ever knew is refused."""
    user, item = dataset.word("user", 2), dataset.word("item", 1)
    words = [f"users:{user}", f"items:{item}", f"modality:image:{item}", f"pairs:{user}-{item}"]
    after = retained(dataset, resolve(parse(words[:2]), dataset))
    again = resolve(parse(words), after)
    assert retained(after, again).checksum == after.checksum
    said = again.notes(after)
    assert f"1 named users (first: {user}) were removed earlier; nothing is left of them to forget" in said
    assert f"1 named items (first: {item}) were removed earlier; nothing is left of them to forget" in said
    told_of_pairs = {
        True: "1 named pairs are of users or items that were removed earlier",
        False: "1 named pairs (first: 2-1) are nowhere in the data; forgotten earlier, or a mistake?",
    }
    assert told_of_pairs[len(dataset.user_ids) > 0] in said
    more = resolve(parse([f"users:{user},{dataset.word('user', 1)}"]), after)
    assert more.users[1]
    assert len(more.notes(after)) == 1
    assert not resolve(parse(["users:40%"]), after).notes(after)
    assert "unknown user 'nobody'; " in told(resolve, parse(["users:nobody"]), after)
    assert "unknown item 'nothing' in a pair; " in told(resolve, parse([f"pairs:{user}-nothing"]), after)


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
    message = told(resolve, parse(["users:1%"]), many_users())
    assert "1% of 40 users is none" in message
    assert "ask for a larger share or name ids" in message


def test_every_user_is_drawn_sometimes():
    drawn = sum(resolve(parse(["users:20%"], seed), many_users()).users.astype(int) for seed in range(60))
    assert (drawn[:40] > 0).all()
    assert drawn[:40].max() < 30  # of 60; 12 are expected
    assert not drawn[40:].any()
