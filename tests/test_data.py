"""Data sets: folders in and out, the checksum, what is read, and what the constructor checks."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
from refusals import assert_refused, refusal
from toys import (
    NO_PAIRS,
    NUM_ITEMS,
    ROWS,
    assert_same,
    features_of,
    small_dataset,
    sorted_pairs,
    write_folder,
    write_interactions,
)

from recunlearn_jax.data import read_dataset, write_dataset
from recunlearn_jax.dataset import SPLITS
from recunlearn_jax.errors import InputError
from recunlearn_jax.folders import LOCK
from recunlearn_jax.graph import knn_similarities, normalize, with_item_graphs
from recunlearn_jax.removed_ids import RemovedIds

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
            seen = event in changes or (event == "open" and given[2] & (os.O_WRONLY | os.O_RDWR) > 0)
            count += seen
            if seen and count == moment:  # the kill is an event, too
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
    assert os.WTERMSIG(killed) == 9, killed
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
