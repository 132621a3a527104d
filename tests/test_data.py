"""Data sets: folders in and out, the checksum, every refusal, graphs as stored and as used, generated data."""

import itertools
import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from toys import NO_PAIRS, NUM_ITEMS, ROWS, features_of, small_dataset, sorted_pairs, write_folder, write_interactions

from recunlearn_jax.data import read_dataset, write_dataset
from recunlearn_jax.dataset import SPLITS, Dataset
from recunlearn_jax.errors import InputError, Note
from recunlearn_jax.folders import LOCK
from recunlearn_jax.graph import knn_similarities, normalize, with_item_graphs
from recunlearn_jax.item_graph import similarities_from_weights
from recunlearn_jax.removed_ids import RemovedIds
from recunlearn_jax.synthetic import toy


def refusal(folder):
    """The message with which a folder is refused."""
    with pytest.raises(InputError) as caught:
        read_dataset(folder)
    return str(caught.value)


def assert_refused(folder, path, *parts):
    """The message begins with the file and names each of the parts: the row, the value, the rule."""
    message = refusal(folder)
    assert message.startswith(f"{path}: ")
    for part in parts:
        assert part in message


def assert_same(ours: Dataset, theirs: Dataset):
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


# Round trips


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("modalities", [0, 1, 2, 3])
def test_round_trip(tmp_path, modalities, graphs):
    dataset = small_dataset(modalities, graphs)
    folder = tmp_path / "new" / "small"
    assert write_dataset(dataset, folder) == folder
    assert_same(read_dataset(folder), dataset)
    assert_same(read_dataset(str(folder)), dataset)
    assert os.listdir(tmp_path / "new") == ["small"]  # nothing is left beside it


def test_removed_ids_that_are_lost_are_missed(tmp_path):
    """Without them a removed user who comes back would be a new one."""
    removed = RemovedIds().with_more("user", ["ann", "bob"])
    folder = write_dataset(small_dataset().replace(removed_ids=removed), tmp_path / "small")
    path = folder / "removed_ids.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"digests": values["digests"][:1]}))
    with pytest.raises(InputError, match=r"removed_ids.json: holds 1 removed ids, and by retained.json there were 2"):
        read_dataset(folder)
    path.unlink()
    with pytest.raises(InputError, match=r"holds 0 removed ids, and by retained.json there were 2"):
        read_dataset(folder)
    space = json.loads((folder / "retained.json").read_text())
    del space["removed_ids"]  # as earlier versions wrote it
    (folder / "retained.json").write_text(json.dumps(space))
    assert not read_dataset(folder).removed_ids.digests


def test_round_trip_keeps_removed_ids(tmp_path):
    """The last user and the last item have no pair; without retained.json the id space would shrink."""
    users, items = np.arange(5) >= 3, np.isin(np.arange(7), [0, 6])
    dataset = small_dataset(0).replace(
        train=sorted_pairs([(0, 1), (1, 2)]), valid=NO_PAIRS, test=sorted_pairs([(2, 5)])
    )
    dataset = dataset.replace(removed_users=users, removed_items=items)
    write_dataset(dataset, tmp_path / "small")
    ours = read_dataset(tmp_path / "small")
    assert_same(ours, dataset)
    assert (ours.num_users, ours.num_items) == (5, 7)
    assert np.flatnonzero(ours.removed_users).tolist() == [3, 4]
    assert np.flatnonzero(ours.removed_items).tolist() == [0, 6]
    write_dataset(ours, tmp_path / "again")
    assert_same(read_dataset(tmp_path / "again"), dataset)


def test_round_trip_with_item_graphs_of_few_items(tmp_path):
    """With fewer items than neighbours, cosines below zero would be among the nearest."""
    features = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    assert (features @ features.T < 0).any()
    dataset = with_item_graphs(small_dataset(0).replace(features={"image": features}), 10)
    write_dataset(dataset, tmp_path / "small")
    assert_same(read_dataset(tmp_path / "small"), dataset)


def test_existing_output_folder_is_left_alone(tmp_path):
    for folder in (tmp_path / "empty", write_folder(tmp_path / "shop")):
        folder.mkdir(exist_ok=True)
        before = sorted((p.name, p.read_bytes()) for p in folder.iterdir())
        with pytest.raises(InputError, match="exists already") as caught:
            write_dataset(small_dataset(), folder)
        assert str(caught.value).startswith(f"{folder}: ")
        assert sorted((p.name, p.read_bytes()) for p in folder.iterdir()) == before


def test_rest_of_a_cut_off_writing_is_replaced(tmp_path):
    write_folder(tmp_path / "small.writing", features={"stale": features_of(NUM_ITEMS)})
    with pytest.raises(InputError, match="not made by this program"):
        write_dataset(small_dataset(), tmp_path / "small")
    (tmp_path / "small.writing" / LOCK).touch()  # the mark of a folder that is ours
    write_dataset(small_dataset(), tmp_path / "small")
    assert_same(read_dataset(tmp_path / "small"), small_dataset())
    assert os.listdir(tmp_path) == ["small"]


KILLS = """
import os, shutil, sys
from pathlib import Path
from toys import small_dataset
from recunlearn_jax.data import read_dataset, write_dataset

dataset, root, changes = small_dataset(1), Path(sys.argv[1]), {"os.rename", "os.remove", "os.mkdir", "os.rmdir"}
for moment in range(1, 1000):
    child = os.fork()
    if not child:
        count = 0
        def watch(event, given):
            global count
            count += event in changes or (event == "open" and given[2] & (os.O_WRONLY | os.O_RDWR) > 0)
            if count == moment:
                os.kill(os.getpid(), 9)
        sys.addaudithook(watch)
        write_dataset(dataset, root / "small")
        os._exit(0)
    killed = os.waitpid(child, 0)[1]
    if not (root / "small").exists():
        write_dataset(dataset, root / "small")
    assert read_dataset(root / "small").checksum == dataset.checksum
    assert os.listdir(root) == ["small"]
    shutil.rmtree(root / "small")
    if not killed:
        break
print(moment)
"""


def test_writing_may_be_killed_before_any_of_its_changes(tmp_path):
    """What is left then is no obstacle to the same call."""
    command = [sys.executable, "-c", KILLS, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent, check=False)
    assert ended.returncode == 0, ended.stderr
    assert 10 < int(ended.stdout) < 999


# The checksum


def test_order_in_the_files_does_not_matter(tmp_path):
    """Rows, columns, memory layout, byte order and line ends."""
    features = features_of(NUM_ITEMS)
    plain = read_dataset(write_folder(tmp_path / "plain" / "shop", ROWS, {"image": features}))
    other = write_folder(tmp_path / "shop", ROWS, {"image": np.asfortranarray(features.astype(">f8"))})
    write_interactions(other / "shop.inter", [row[::-1] for row in reversed(ROWS)], ("x_label", "itemID", "userID"))
    (other / "shop.inter").write_bytes((other / "shop.inter").read_bytes().replace(b"\n", b"\r\n"))
    assert_same(read_dataset(other), plain)
    assert plain.train.tolist() == [[0, 0], [0, 1], [1, 1], [2, 3]]
    assert plain.valid.tolist() == [[1, 2]]
    assert plain.test.tolist() == [[2, 0]]


def moved_edge(graph):
    """The same weights, with the first edge of item 0 leading to the item that it did not lead to."""
    graph = graph.copy()
    graph.indices[0] = np.setdiff1d(np.arange(graph.shape[0]), graph.indices[: graph.indptr[1]])[0]
    return graph


CHANGES = {
    "nothing": lambda d: {},
    "one more user": lambda d: {"num_users": 6, "removed_users": np.zeros(6, bool)},
    "no content": lambda d: {"features": {}, "similarities": {}},
    "one more item": lambda d: {"num_items": 8, "removed_items": np.zeros(8, bool), "features": {}, "similarities": {}},
    "ids of users": lambda d: {"user_ids": ["a", "b", "c", "d", "e"]},
    "other ids of users": lambda d: {"user_ids": ["a", "b", "c", "d", "f"]},
    "ids of items": lambda d: {"item_ids": ["a", "b", "c", "d", "e", "f", "g"]},
    "a train pair less": lambda d: {"train": d.train[1:]},
    "another item in a pair": lambda d: {"train": sorted_pairs([*d.train[1:].tolist(), (0, 6)])},
    "another user in a pair": lambda d: {"train": sorted_pairs([*d.train[1:].tolist(), (4, 0)])},
    "a valid pair less": lambda d: {"valid": d.valid[:-1]},
    "a test pair less": lambda d: {"test": d.test[:-1]},
    "valid and test swapped": lambda d: {"valid": d.test, "test": d.valid},
    "a pair moved from train to valid": lambda d: {"train": d.train[1:], "valid": np.vstack([d.train[:1], d.valid])},
    "the last bit of a feature": lambda d: {"features": {**d.features, "audio": nudged(d.features["audio"], (2, 1))}},
    "two modalities swapped": lambda d: {"features": {"audio": d.features["image"], "image": d.features["audio"]}},
    "a modality renamed": lambda d: {
        "features": {"audio": d.features["audio"], "text": d.features["image"]},
        "similarities": {"audio": d.similarities["audio"], "text": d.similarities["image"]},
    },
    "a modality less": lambda d: {"features": {"audio": d.features["audio"]}, "similarities": {}},
    "a graph less": lambda d: {"similarities": {"audio": d.similarities["audio"]}},
    "two graphs swapped": lambda d: {
        "similarities": {"audio": d.similarities["image"], "image": d.similarities["audio"]}
    },
    "a graph weight": lambda d: {"similarities": {**d.similarities, "audio": d.similarities["audio"] * np.float32(2)}},
    "a graph edge": lambda d: {"similarities": {**d.similarities, "audio": moved_edge(d.similarities["audio"])}},
    "a removed user": lambda d: {"removed_users": np.arange(5) == 4},
    "one more user, removed": lambda d: {"num_users": 6, "removed_users": np.arange(6) == 5},
    "one more user, another removed": lambda d: {"num_users": 6, "removed_users": np.arange(6) == 4},
    "a removed item": lambda d: {"removed_items": np.arange(7) == 6},
}


def nudged(array, place):
    array = array.copy()
    array[place] = np.nextafter(array[place], np.float32(2))
    return array


def test_every_change_of_content_changes_the_checksum():
    dataset = small_dataset(2)
    checksums = {name: dataset.replace(**change(dataset)).checksum for name, change in CHANGES.items()}
    for one, other in itertools.combinations(checksums, 2):
        assert checksums[one] != checksums[other], (one, other)
    assert checksums["nothing"] == dataset.checksum == small_dataset(2).checksum
    assert len(dataset.checksum) == 64


# The constructor checks what the reader checks


BAD_CONTENT = {
    "user out of range": ({"train": [[0, 0], [5, 1]]}, "train: pair 1 has user 5; allowed are 0 to 4"),
    "item out of range": ({"test": [[0, 7]]}, "test: pair 0 has item 7; allowed are 0 to 6"),
    "negative item": ({"valid": [[0, -1]]}, "valid: pair 0 has item -1"),
    "a pair twice": ({"train": [[0, 0], [0, 0]]}, r"train: the pair \(0, 0\) stands there twice"),
    "a pair twice, apart": ({"train": [[1, 0], [0, 0], [1, 0]]}, r"train: the pair \(1, 0\) stands there twice"),
    "float pairs": ({"train": [[0.0, 1.0]]}, "train: shape .*, dtype float64; whole-number pairs"),
    "flat pairs": ({"train": [0, 1]}, "train: shape"),
    "triplets": ({"train": [[0, 1, 2]]}, "train: shape"),
    "no train pair": ({"train": []}, "train: no pair"),
    "in train and test": ({"test": [[0, 1]]}, r"the pair \(0, 1\) is in both train and test"),
    "in valid and test": ({"test": [[0, 2]]}, r"the pair \(0, 2\) is in both valid and test"),
    "no users": ({"num_users": 0}, "num_users is 0"),
    "half an item": ({"num_items": 7.5}, "num_items is 7.5"),
    "items beyond int32": ({"num_items": 2**31}, "num_items is 2147483648"),
    "features of another height": ({"features": {"audio": features_of(6)}, "similarities": {}}, "shape .6, 3."),
    "NaN": ({"features": {"audio": np.full((7, 1), np.nan)}, "similarities": {}}, "row 0 holds NaN"),
    "features as text": ({"features": {"audio": np.full((7, 1), "a")}, "similarities": {}}, "dtype <U1"),
    "a graph of no modality": ({"features": {}}, "similarities of 'audio'"),
    "a graph of another size": ({"similarities": {"audio": scipy.sparse.csr_array((6, 6))}}, "similarities of 'audio'"),
    "a mask of another size": ({"removed_users": np.ones(4, bool)}, r"removed_users: shape \(4,\)"),
    "a mask of numbers": ({"removed_items": np.arange(7)}, "removed_items: .*dtype int64"),
    "ids too few": ({"user_ids": ["a"]}, "user_ids: 1 ids; 5 are expected"),
    "an id twice": ({"user_ids": ["a", "b", "a", "c", "d"]}, "user_ids: an id stands there twice"),
    "an id with a line break": ({"user_ids": ["a\n", "b", "", "c", "d"]}, "'a.+n' is no id"),
    "ids that are numbers": ({"user_ids": [1, 2, 3, 4, 5]}, "user_ids: 1 is no id"),
    "an id that is empty": (
        {"user_ids": ["a", "b", "", "c", "d"]},
        r"user_ids: the id of user 2 \(line 3 in a file\) is empty",
    ),
    "an id of what was removed": (
        {"item_ids": list("abcdefg"), "removed_items": np.arange(7) == 6},
        "item_ids: item 6 was removed by an earlier request, and its id 'g' is still there",
    ),
    "a path as name": ({"name": "../shop"}, "'../shop' is no plain name"),
    "an absolute name": ({"name": "/shop"}, "is no plain name"),
    "a hidden name": ({"name": ".shop"}, "is no plain name"),
    "a path as modality": ({"features": {"a/b": features_of(7)}, "similarities": {}}, "'a/b' is no plain name"),
    "a name with a line break": ({"name": "a\nb"}, "is no plain name"),
    "features in a list": ({"features": [features_of(7)], "similarities": {}}, "features: a list"),
    "no graphs": ({"similarities": None}, "similarities: a NoneType"),
    "a graph of complex numbers": (
        {"similarities": {"audio": scipy.sparse.csr_array((7, 7), dtype=complex)}},
        "complex128",
    ),
    "a graph with NaN": (
        {"similarities": {"audio": scipy.sparse.csr_array(np.full((7, 7), np.nan))}},
        "'audio': NaN or inf",
    ),
    "a graph by columns": ({"similarities": {"audio": scipy.sparse.csc_array((7, 7))}}, "a csc_array; a CSR matrix"),
    "a dense graph": ({"similarities": {"audio": np.eye(7)}}, "similarities of 'audio': a ndarray"),
    "removed modalities in a word": ({"removed_modalities": "text"}, "removed_modalities is 'text'"),
    "no id in the place of one": ({"user_ids": ["a", None, "c", "d", "e"]}, "user_ids: None is no id"),
    "ids in a word": ({"user_ids": "abcde"}, "user_ids is 'abcde'"),
    "removed ids in a list": ({"removed_ids": ["ann"]}, "removed_ids is .'ann'"),
    "a size of thousands of digits": ({"num_items": 10**5000}, "num_items is a int too large to show"),
    "pairs of several lengths": ({"train": [[0, 1], [2]]}, "train: is no array"),
    "a name that is a list": ({"name": ["shop"]}, "'shop'. is no plain name"),
}


@pytest.mark.parametrize("case", BAD_CONTENT)
def test_a_data_set_is_checked_however_it_came_about(case):
    changes, rule = BAD_CONTENT[case]
    with pytest.raises(InputError, match=rule):
        small_dataset().replace(**changes)


def test_pairs_are_put_in_order():
    dataset = small_dataset()
    shuffled = dataset.replace(train=dataset.train[::-1].astype(np.uint16).tolist())
    assert_same(shuffled, dataset)


def test_item_graphs_are_put_in_order():
    """Entries in any order or in parts, float64, scipy's older type: the data set is the same, and what was given is left as it was."""
    dataset = small_dataset()
    graph = dataset.similarities["audio"]
    backwards = np.concatenate([np.arange(b - 1, a - 1, -1) for a, b in itertools.pairwise(graph.indptr)])
    halves = scipy.sparse.csr_array(
        (np.repeat(graph.data[backwards], 2) / 2, np.repeat(graph.indices[backwards], 2), 2 * graph.indptr), graph.shape
    )
    given = halves.indices.copy()
    for other in (halves, halves.astype(np.float64), scipy.sparse.csr_matrix(halves)):
        assert_same(dataset.replace(similarities={**dataset.similarities, "audio": other}), dataset)
    np.testing.assert_array_equal(halves.indices, given)
    assert dataset.replace(name="other").similarities["audio"] is graph


def test_operators_ids(tmp_path):
    """They stand in the folder, and everything that names a user or an item speaks them."""
    ids = {
        "user_ids": ["ann", "007", "a\u00a0b \U0001f468\u200d\U0001f469", "zoë", ""],
        "item_ids": [f"B0{i}" for i in range(7)],
        "removed_users": np.arange(5) == 4,
    }
    dataset = small_dataset().replace(**ids)
    read = read_dataset(write_dataset(dataset, tmp_path / "small"))
    assert_same(read, dataset)
    assert [read.number("user", word) for word in ("zoë", "007")] == [3, 1]
    assert (read.number("item", "B06"), read.word("item", 6), read.word("user", 0)) == (6, "B06", "ann")
    for word in ("bob", "", 7, "0"):
        with pytest.raises(InputError, match=f"unknown user '{word}'; ids of the data are such as ann, 007"):
            read.number("user", word)
    plain = small_dataset()
    assert (plain.number("item", 6), plain.word("item", 6)) == (6, "6")
    for word in ("0", 7, -1):
        with pytest.raises(InputError, match=f"unknown item {word!r}; the data has items 0 to 6"):
            plain.number("item", word)


# What is read


TOLERATED = {
    "empty lines at the end": lambda text: text + "\n\n",
    "a byte-order mark": lambda text: "\ufeff" + text,
    "labels as other tools write them": lambda text: text.replace("\t0\n", "\t0.0\n"),
    "ids as other tools write them": lambda text: text.replace("\n2\t", "\n2.0\t"),
    "no line end at the end": lambda text: text.removesuffix("\n"),
}


@pytest.mark.parametrize("case", TOLERATED)
def test_tolerated(tmp_path, case):
    folder = write_folder(tmp_path / "shop", features={"image": features_of(4)})
    plain = read_dataset(folder)
    path = folder / "shop.inter"
    path.write_text(TOLERATED[case](path.read_text()), encoding="utf-8")
    assert_same(read_dataset(folder), plain)


def test_files_of_the_system_beside_ours_are_passed_over(tmp_path):
    folder = write_folder(tmp_path / "shop", features={"image": features_of(4)})
    plain = read_dataset(folder)
    for name in ("._shop.inter", "._image_feat.npy", "._image_knn2_adj.npz", ".DS_Store"):
        (folder / name).write_bytes(b"\0\5\x16\7")
    assert_same(read_dataset(folder), plain)


@pytest.mark.parametrize(
    "name", ["shop.inter", "image_feat.npy", "image_knn2_adj.npz", "retained.json", "user_ids.txt"]
)
def test_a_pipe_is_refused_and_not_waited_for(tmp_path, name):
    folder = write_folder(tmp_path / "shop", features={"image": features_of(4)})
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    assert_refused(folder, folder / name, "is no regular file")


GAPS = {
    "user id": (((0, 0, 0), (2_000_000_000, 1, 0)), "users, and 1999999999 of these numbers never occur"),
    "item id": (((0, 0, 0), (1, 2_000_000_000, 0)), "items, and 1999999999 of these numbers never occur"),
}


@pytest.mark.parametrize("case", GAPS)
def test_large_gaps_in_the_numbers(tmp_path, case):
    rows, rule = GAPS[case]
    folder = write_folder(tmp_path / "shop", rows)
    assert_refused(folder, folder / "shop.inter", rule)


def test_what_was_removed_does_not_come_back(tmp_path):
    gone = np.arange(7) == 6
    folder = write_dataset(
        small_dataset().replace(removed_users=np.arange(5) == 4, removed_items=gone), tmp_path / "small"
    )
    text = (folder / "small.inter").read_text()
    for row, rule in (
        ("4\t0\t0", "user 4 was removed"),
        ("0\t6\t1", "item 6 was removed"),
        ("9\t0\t0", "by retained.json"),
    ):
        (folder / "small.inter").write_text(text + row + "\n")
        assert rule in refusal(folder)
    (folder / "small.inter").write_text(text)
    np.save(folder / "image_feat.npy", np.ones((7, 3), np.float32))
    assert_refused(folder, folder, "item 6 was removed", "its row of features 'image' is not zero")


@pytest.mark.parametrize("size", [1e20, 1e38, 1e-25, 1e-38, 3e-45])
def test_item_graph_of_features_of_any_size(size):
    """A cosine does not depend on the size of the rows."""
    features = features_of(7).astype(np.float64)
    ours = knn_similarities((features * size).astype(np.float32), 3)
    if size > 1e-40:
        np.testing.assert_allclose(
            ours.toarray(), knn_similarities(features.astype(np.float32), 3).toarray(), atol=1e-5
        )
    assert ours.nnz == 18  # 6 items with the modality, 3 neighbours each


@pytest.mark.parametrize("seed", range(5))
def test_optional_columns_in_any_order(tmp_path, seed):
    folder = write_folder(tmp_path / "shop")
    plain = read_dataset(folder)
    header = np.array(["userID", "itemID", "x_label", "rating", "timestamp", "order"])
    rows = [(*row, 4.5, 1700000000 + n, n) for n, row in enumerate(ROWS)]
    order = np.random.default_rng(seed).permutation(6)
    write_interactions(folder / "shop.inter", [[row[column] for column in order] for row in rows], header[order])
    assert_same(read_dataset(folder), plain)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4", np.int32, np.uint8])
def test_features_are_read_as_float32(tmp_path, dtype):
    stored = np.array([[1, 2.25], [3, 0], [0, 0], [200, 7]]).astype(dtype)
    dataset = read_dataset(write_folder(tmp_path / "shop", features={"image": stored}))
    assert dataset.features["image"].dtype == np.float32
    np.testing.assert_array_equal(dataset.features["image"], stored.astype(np.float32))


def test_sizes_without_features_and_with_more_feature_rows_than_items_used(tmp_path):
    assert read_dataset(write_folder(tmp_path / "none")).num_items == 4
    more = read_dataset(write_folder(tmp_path / "more", features={"image": features_of(9)}))
    assert (more.num_users, more.num_items) == (3, 9)
    assert len(more.removed_items) == 9
    assert not more.removed_items.any()


def test_summary_names_sizes_and_modalities():
    assert small_dataset(2).summary() == (
        "small: 5 users x 7 items, 8 / 3 / 3 train / valid / test pairs, audio 2-d, image 3-d"
    )
    assert "no modality" in small_dataset(0).summary()


SHARED = Path(__file__).parents[2] / "shared" / "data"
SIZES = {
    "tiktok": (9308, 6710, (59541, 3051, 6130), ("audio", "image"), ()),
    "baby": (19445, 7050, (118551, 20559, 21682), ("image", "text"), ("image", "text")),
}
AT_HAND = [name for name in SIZES if (SHARED / name).is_dir()]

if AT_HAND:  # these files belong to others and do not come with the project

    @pytest.mark.parametrize("name", AT_HAND)
    def test_public_data(name):
        users, items, pairs, modalities, with_graphs = SIZES[name]
        dataset = read_dataset(SHARED / name)
        assert (dataset.name, dataset.num_users, dataset.num_items) == (name, users, items)
        assert tuple(len(getattr(dataset, split)) for split in SPLITS) == pairs
        assert dataset.modalities == modalities
        assert all(x.shape == (items, 128) and x.dtype == np.float32 for x in dataset.features.values())
        assert tuple(dataset.similarities) == with_graphs
        for m, graph in dataset.similarities.items():
            stored = scipy.sparse.load_npz(SHARED / name / f"{m}_knn10_adj.npz")
            assert abs(normalize(graph) - scipy.sparse.csr_array(stored)).max() < 1e-6
            assert graph.data.max() < 1 + 1e-5


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


# Refusals: item graphs


def item_graph(size=NUM_ITEMS):
    return scipy.sparse.csr_matrix(
        np.eye(size, dtype=np.float32) + np.float32(0.5) * np.eye(size, k=1, dtype=np.float32)
    )


def with_weight(value, dtype=np.float32):
    graph = item_graph().astype(dtype)
    graph.data[3] = value
    return graph


def written_graph(path, **changes):
    """A graph file of which some arrays are others."""
    graph = item_graph()
    arrays = {"shape": graph.shape, "data": graph.data, "indices": graph.indices, "indptr": graph.indptr}
    np.savez(path, **{"format": b"csr", **arrays, **changes})


BAD_ARRAYS = {
    # scipy checks no index where the last pointer is 0, and its compiled code then reads memory that is not its own
    "last pointer 0": {"indptr": [0, 2_000_000_000, 0, 0, 0], "data": [1.0], "indices": [0]},
    "last pointer 0, no entries": {
        "indptr": [0, 2_000_000_000, 0, 0, 0],
        "data": np.zeros(0),
        "indices": np.zeros(0, int),
    },
    "falling pointers": {"indptr": [0, 5, 3, 5, 7]},
    "first pointer not 0": {"indptr": [1, 2, 4, 6, 7]},
    "negative pointer": {"indptr": [0, -2, 4, 6, 7]},
    "pointer beyond the entries": {"indptr": [0, 2, 4, 6, 8]},
    "pointers too few": {"indptr": [0, 2, 4, 7]},
    "pointers in a table": {"indptr": [[0, 2], [4, 7]]},
    "column too large": {"indices": [0, 1, 1, 2, 2, 3, 4]},
    "column negative": {"indices": [0, 1, 1, 2, 2, 3, -1]},
    "column beyond int64": {"indices": np.array([0, 1, 1, 2, 2, 3, 2**64 - 1], np.uint64)},
    "an index less": {"indices": [0, 1, 1, 2, 2, 3]},
    "data of two dimensions": {"data": np.ones((7, 1))},
    "data a number": {"data": np.float32(1)},
    "shape of three": {"shape": (4, 4, 1)},
    "negative shape": {"shape": (-4, -4)},
    "shape of floats": {"shape": (4.0, 4.0)},
    "huge shape": {"shape": (2**40, 2**40)},
    "pointers of floats": {"indptr": [0.0, 2.0, 4.0, 6.0, 7.0]},
    "format a list": {"format": ["csr", "csr"]},
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_every_array_of_a_graph_is_checked_before_it_is_used(tmp_path, case):
    folder = write_folder(tmp_path / "shop", features={"image": features_of(4)})
    path = folder / "image_knn2_adj.npz"
    written_graph(path)
    read_dataset(folder)
    written_graph(path, **BAD_ARRAYS[case])
    assert_refused(folder, path, "damaged, or no scipy CSR matrix")


BAD_GRAPHS = {
    "one item more": (item_graph(5), ["shape (5, 5)", "4 items"]),
    "not square": (scipy.sparse.csr_matrix(np.ones((4, 5), np.float32)), ["shape (4, 5)", "4 items"]),
    "negative weight": (with_weight(-0.1), ["finite and not negative"]),
    "NaN": (with_weight(np.nan), ["finite and not negative"]),
    "inf": (with_weight(np.inf), ["finite and not negative"]),
    "beyond float32": (with_weight(1e300, np.float64), ["finite and not negative"]),
    "complex": (with_weight(1j, np.complex64), ["damaged", "complex64"]),
    "another format": (item_graph().tocsc(), ["no scipy CSR matrix", "csc"]),
    "no degrees": (
        scipy.sparse.csr_matrix(np.array([[2, 0, 0, 0], [0, 0, 9, 0], [0, 9, 0, 0], [0, 0, 0, 2]], np.float32)),
        ["do not come from a normalised graph", "s_ii = 1"],
    ),
}


@pytest.mark.parametrize("case", BAD_GRAPHS)
def test_bad_graphs(tmp_path, case):
    graph, parts = BAD_GRAPHS[case]
    features = {"image": features_of(NUM_ITEMS)}
    folder = write_folder(tmp_path / "shop", features=features, graphs={"image_knn2_adj.npz": graph})
    assert_refused(folder, folder / "image_knn2_adj.npz", *parts)


def test_graph_without_features(tmp_path):
    name = "text_knn2_adj.npz"
    folder = write_folder(tmp_path / "shop", features={"image": features_of(4)}, graphs={name: item_graph()})
    assert_refused(folder, folder / name, "no feature file", "<modality>_knn<k>_adj.npz")


@pytest.mark.parametrize(
    "name",
    [
        *("image_adj.npz", "imageknn2_adj.npz", "train_adj.npz", "image_feat.npz", "image_feat.pt", "image_feat.NPY"),
        *("feat_image.npy", "all-MiniLM.npy", "image_feat.parquet"),
    ],
)
def test_what_looks_like_features_and_is_not_read_is_named(tmp_path, name):
    folder = write_folder(tmp_path / "shop", features={"image": features_of(4)})
    (folder / name).write_bytes(b"x")
    with pytest.warns(Note, match=f"{re.escape(name)} not read; features are read from <modality>_feat.npy"):
        assert read_dataset(folder).modalities == ("image",)


def test_two_graphs_of_one_modality(tmp_path):
    graphs = {"image_knn2_adj.npz": item_graph(), "image_knn5_adj.npz": item_graph()}
    folder = write_folder(tmp_path / "shop", features={"image": features_of(4)}, graphs=graphs)
    assert_refused(folder, folder / "image_knn5_adj.npz", "second item graph for image")


@pytest.mark.parametrize("kept", [0, 1, 0.1, 0.5, 0.9, 0.999])
def test_truncated_graph(tmp_path, kept):
    graphs = {"image_knn2_adj.npz": item_graph()}
    folder = write_folder(tmp_path / "shop", features={"image": features_of(4)}, graphs=graphs)
    path = folder / "image_knn2_adj.npz"
    content = path.read_bytes()
    path.write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    assert_refused(folder, path, "damaged")


CSR = {"data": np.ones(4, np.float32), "indices": np.arange(4), "indptr": np.arange(5)}
WRONG_INSIDE = {
    "index too large": {**CSR, "indices": np.array([0, 1, 2, 10**6])},
    "negative index": {**CSR, "indices": np.array([0, 1, 2, -1])},
    "pointers that fall": {**CSR, "indptr": np.array([0, 3, 1, 3, 4])},
    "pointers beyond the end": {**CSR, "indptr": np.array([0, 1, 2, 3, 10**6])},
    "no pointers": {"data": CSR["data"], "indices": CSR["indices"]},
    "format is a number": {**CSR, "format": np.array(3)},
    "unknown format": {**CSR, "format": np.array(b"xyz")},
}


@pytest.mark.parametrize("case", WRONG_INSIDE)
def test_graph_that_is_wrong_inside(tmp_path, case):
    folder = write_folder(tmp_path / "shop", features={"image": features_of(4)})
    path = folder / "image_knn2_adj.npz"
    np.savez(path, **{"format": np.array(b"csr"), "shape": np.array([4, 4]), **WRONG_INSIDE[case]})
    assert_refused(folder, path, "damaged")


@pytest.mark.parametrize("form", ["csc", "bsr"])
def test_graph_of_another_format_does_not_crash(tmp_path, form):
    """Compiled conversions trust their indices: a wrong one ends the process unless it is refused before. Hence a process of its own."""
    folder = write_folder(tmp_path / "shop", features={"image": features_of(4)})
    data = np.ones((4, 1, 1), np.float32) if form == "bsr" else np.ones(4, np.float32)
    indices, indptr = (np.zeros(4, int), [0, 10**7, 10**8, 3, 4]) if form == "bsr" else (np.full(4, 10**8), range(5))
    arrays = {"shape": np.array([4, 4]), "data": data, "indices": indices, "indptr": np.array(indptr)}
    np.savez(folder / "image_knn2_adj.npz", format=np.array(form.encode()), **arrays)
    code = f"from recunlearn_jax.data import read_dataset; read_dataset({str(folder)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.returncode  # an exception; a crash gives a negative code
    assert "InputError" in done.stderr


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


# Stored item graphs


@st.composite
def item_features(draw):
    """Not negative; in half of the cases small whole numbers, so that many items are equal and self loops are pushed out by ties."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.integers(2, 50)), draw(st.integers(1, 5))
    if draw(st.booleans()):
        return rng.integers(0, 3, shape).astype(np.float32)
    return np.abs(rng.normal(size=shape)).astype(np.float32)


@given(item_features(), st.integers(1, 12))
def test_similarities_come_back_from_weights(features, k):
    similarities = knn_similarities(features, k)
    ours = similarities_from_weights(normalize(similarities))
    np.testing.assert_allclose(ours.toarray(), similarities.toarray(), rtol=1e-4, atol=1e-5)
    assert ours.nnz == similarities.nnz
    assert ours.dtype == np.float32


def test_ties_do_push_out_self_loops():
    """What the property above and the one below rely on."""
    similarities = knn_similarities(np.repeat(np.eye(2, dtype=np.float32), 5, axis=0), 3)
    assert (similarities.diagonal() == 0).sum() == 4


@pytest.mark.parametrize("copies", [20, 300])
def test_similarities_come_back_among_many_copies(copies):
    """Copies that differ in length only: most self loops are gone, and rows point to rows that have none either."""
    rng = np.random.default_rng(0)
    features = rng.uniform(0.1, 1, (copies + 50, 4))
    features[:copies] = features[0] * rng.uniform(0.1, 10, (copies, 1))
    similarities = knn_similarities(features.astype(np.float32), 10)
    assert (similarities.diagonal() == 0).sum() > copies / 4
    ours = similarities_from_weights(normalize(similarities))
    np.testing.assert_allclose(ours.toarray(), similarities.toarray(), rtol=1e-4, atol=1e-5)


def test_graphs_that_are_not_normalised_are_taken_as_they_are(tmp_path):
    """Similarities with self loops of 1, as this package writes them, and plain neighbour lists without self loops."""
    similarities = knn_similarities(features_of(NUM_ITEMS), 3)
    plain = similarities.copy()
    plain.setdiag(0)
    plain.eliminate_zeros()
    plain.data[:] = 1
    for name, graph in (("values", similarities), ("plain", plain)):
        features = {"image": features_of(NUM_ITEMS)}
        folder = write_folder(tmp_path / name, features=features, graphs={"image_knn3_adj.npz": graph})
        np.testing.assert_array_equal(read_dataset(folder).similarities["image"].toarray(), graph.toarray())


def test_normalised_graph_file_is_read_as_similarities(tmp_path):
    features = features_of(20)
    similarities = knn_similarities(features, 3)
    graphs = {"image_knn3_adj.npz": normalize(similarities)}
    dataset = read_dataset(write_folder(tmp_path / "shop", features={"image": features}, graphs=graphs))
    np.testing.assert_allclose(dataset.similarities["image"].toarray(), similarities.toarray(), rtol=1e-5)


# Generated data


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
