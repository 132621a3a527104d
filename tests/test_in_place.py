"""Answers written in place: the same as those built anew, to the bit, and the original is left as it was."""

import jax
import jax.numpy as jnp
import jraph
import numpy as np
import pytest
import scipy.sparse
from toys import small_dataset

from recunlearn_jax import in_place
from recunlearn_jax.backbones import backbone_kind
from recunlearn_jax.backbones.base import flat
from recunlearn_jax.config import Config
from recunlearn_jax.in_place import own, write
from recunlearn_jax.propagate import CompressedRows
from recunlearn_jax.recommender import Recommender, init_params, set_up
from recunlearn_jax.synthetic import toy
from recunlearn_jax.unlearn import METHODS, answer, prepare
from recunlearn_jax.unlearn.base import Method, Moved, NoSettings

REQUESTS = {
    "users": ["users:1,3"],
    "items": ["items:0,5"],
    "pairs": ["pairs:0-1,2-2"],
    "feature rows": ["modality:image:1,2,5"],
    "all of them": ["users:2", "items:3", "pairs:0-1", "modality:audio:1"],
    "a modality": ["modality:image"],
}
BACKBONES = {
    "mgcn": {"neighbours": 3},
    "mgcn in segments": {"neighbours": 3, "layout": "segment"},
    "mgcn gathered": {"neighbours": 3, "layout": "gather"},
    "lightgcn": {},
    "freedom": {"neighbours": 3},
    "vbpr": {},
    "mf": {},
}
IN_PLACE = ("mgcn", "mgcn in segments", "lightgcn", "vbpr", "mf")


@pytest.mark.parametrize("piece", [1, 6, 2**16])
@pytest.mark.parametrize("count", [0, 1, 5, 7])
@pytest.mark.parametrize("shape", [(7,), (7, 3)])
def test_written_as_numpy_writes(shape, count, piece, monkeypatch):
    monkeypatch.setattr(in_place, "_PIECE", piece)
    rng = np.random.default_rng(0)
    table, at = rng.normal(size=shape).astype(np.float32), rng.permutation(len(np.zeros(shape)))[:count]
    values = rng.normal(size=(count, *shape[1:])).astype(np.float32)
    given = jnp.asarray(table)
    mine = own(given)
    place = mine.unsafe_buffer_pointer()
    ours = write(mine, at, values)
    np.testing.assert_array_equal(given, table)
    assert mine.is_deleted()
    assert ours.unsafe_buffer_pointer() == place
    table[at] = values
    np.testing.assert_array_equal(ours, table)


@pytest.fixture(scope="module")
def originals():
    """Untrained models with rows of order one: what answers write does not depend on training."""
    made = {}

    def original(name):
        if name not in made:
            kind = name.split()[0]
            settings = backbone_kind(kind).Settings(embedding_size=8, **BACKBONES[name])
            setup = set_up(small_dataset(2), Config(kind, settings))
            params = init_params(jax.random.key(1), setup.data, backbone=setup.backbone)
            made[name] = Recommender(setup, jax.tree.map(lambda table: 3 * table, params))
        return made[name]

    return original


def matrices(graphs):
    """Every matrix among a backbone's graphs, dense; an edge that went is no edge, and says nothing of where it led."""
    found = []
    for leaf in jax.tree.leaves(graphs, is_leaf=lambda x: isinstance(x, CompressedRows | jraph.GraphsTuple)):
        if isinstance(leaf, CompressedRows):
            for pointers, columns, weights in (leaf[:3], leaf[3:]):
                assert not np.asarray(columns)[np.asarray(weights) == 0].any()
                end, shape = int(pointers[-1]), (len(pointers) - 1, int(np.max(columns, initial=0)) + 1)
                parts = (np.asarray(weights)[:end], np.asarray(columns)[:end], np.asarray(pointers))
                found.append(scipy.sparse.csr_array(parts, shape=shape).toarray())
        elif isinstance(leaf, jraph.GraphsTuple):
            assert not np.asarray(leaf.senders)[np.asarray(leaf.edges) == 0].any()
            dense = np.zeros((int(np.asarray(leaf.receivers).max()) + 1, int(np.asarray(leaf.senders).max()) + 1))
            np.add.at(dense, (np.asarray(leaf.receivers), np.asarray(leaf.senders)), np.asarray(leaf.edges))
            found.append(dense)
        else:
            found.append(np.asarray(leaf))
    return found


def trimmed(matrix):
    """Without the empty rows and columns behind the last that is not."""
    used = np.argwhere(matrix)
    return matrix[tuple(slice(top + 1) for top in used.max(axis=0))] if len(used) else matrix[:0]


CASES = [("mgcn", kind, "delta") for kind in REQUESTS]
CASES += [(name, kind, "delta") for name in IN_PLACE[1:] for kind in ("pairs", "all of them")]
CASES += [("mgcn", "all of them", "surgery"), ("mgcn gathered", "items", "surgery"), ("freedom", "pairs", "surgery")]


@pytest.mark.parametrize(("name", "kind", "method"), CASES)
def test_an_answer_in_place_is_the_answer(name, kind, method, originals):
    """The first answer takes the spare copy; the next one of the same memory builds all it needs."""
    original, words = originals(name), REQUESTS[kind]
    before = jax.tree.map(np.array, (original.params, original.data))
    memory = prepare(original, method, seed=3)
    assert (memory.spare is not None) == (name in IN_PLACE)
    first = answer(original, words, method, seed=3, memory=memory)
    if memory.spare is not None:
        # A modality that goes leaves another backbone, and nothing to write into.
        assert memory.spare.taken == (first.backbone is original.backbone)
    second = answer(original, words, method, seed=3, memory=memory)
    third = answer(original, words, method, seed=3)
    for other in (second, third):
        assert first.info == other.info
        assert first.dataset.checksum == other.dataset.checksum
        assert flat(first.params).keys() == flat(other.params).keys()
        jax.tree.map(np.testing.assert_array_equal, first.params, other.params)
        jax.tree.map(np.testing.assert_array_equal, first.data.sampler, other.data.sampler)
        jax.tree.map(np.testing.assert_array_equal, first.data.features, other.data.features)
        np.testing.assert_array_equal(first.rows, other.rows)
        for ours, theirs in zip(*(matrices(model.data.graphs) for model in (first, other)), strict=True):
            np.testing.assert_array_equal(trimmed(ours), trimmed(theirs))
    jax.tree.map(np.testing.assert_array_equal, (original.params, original.data), before)


@pytest.mark.parametrize("layout", ["csr", "segment"])
def test_request_upon_request(layout):
    """Each prepared for: what is written next does not depend on how the graph before came about."""
    settings = backbone_kind("mgcn").Settings(embedding_size=8, neighbours=3, layout=layout)
    setup = set_up(toy(40, 30, pairs_per_user=5, clusters=2, feature_size=4), Config("mgcn", settings))
    ours = theirs = Recommender(setup, init_params(jax.random.key(1), setup.data, backbone=setup.backbone))
    requests = (["users:1,3"], ["pairs:10%"], ["items:0,5"], ["modality:image:1,2,7"], ["users:2", "items:3"])
    for seed, words in enumerate(requests):
        memory = prepare(ours, "delta", seed=seed)
        # What is in service from then on tells nothing of the edges that went before.
        assert not memory.original.setup.gaps
        jax.tree.map(np.testing.assert_array_equal, memory.original.setup.graphs, theirs.setup.graphs)
        ours = answer(memory.original if seed % 2 else ours, words, seed=seed, memory=memory)
        assert ours.setup.gaps
        theirs = answer(theirs, words, seed=seed)
        jax.tree.map(np.testing.assert_array_equal, ours.params, theirs.params)
        np.testing.assert_array_equal(ours.rows, theirs.rows)
        assert ours.dataset.checksum == theirs.dataset.checksum


@pytest.mark.parametrize(
    ("rows", "values", "message"),
    [
        (
            {"content": [0]},
            {"content": [[0.0] * 8]},
            "moves rows of content; id tables are user_embedding, item_embedding",
        ),
        ({"user_embedding": [1]}, {}, "moves rows of user_embedding"),
        ({"user_embedding": [5]}, {"user_embedding": [[0.0] * 8]}, "places from 0 to 4, int .*, each once"),
        ({"user_embedding": [-1]}, {"user_embedding": [[0.0] * 8]}, "places from 0 to 4"),
        ({"user_embedding": [1, 1]}, {"user_embedding": [[0.0] * 8] * 2}, "each once"),
        ({"user_embedding": [True, False]}, {"user_embedding": [[0.0] * 8] * 2}, "places from 0 to 4"),
        ({"user_embedding": [1]}, {"user_embedding": [[0.0]]}, r"are float32\[1, 1\]; float32\[1, 8\] is expected"),
        ({"user_embedding": [1, 2]}, {"user_embedding": [[0.0] * 8]}, r"float32\[2, 8\] is expected"),
        ({"user_embedding": [1]}, {"user_embedding": np.zeros((1, 8))}, r"are float64\[1, 8\]"),
    ],
)
@pytest.mark.parametrize("prepared", [True, False])
def test_rows_that_do_not_fit_are_refused(rows, values, message, prepared, originals, monkeypatch):
    original = originals("mf")
    values = {n: x if isinstance(x, np.ndarray) else np.array(x, np.float32) for n, x in values.items()}
    moved = Moved({n: np.array(x) for n, x in rows.items()}, values)
    monkeypatch.setitem(METHODS, "moves", Method(NoSettings, lambda *given: (moved, {}), in_place=True))
    memory = prepare(original, "moves") if prepared else None
    with pytest.raises(TypeError, match=f"^method 'moves': .*{message}"):
        answer(original, ["users:3"], "moves", memory=memory)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(original.params))


@pytest.mark.parametrize("prepared", [True, False])
def test_rows_that_are_removed_are_replaced_whatever_a_method_says(prepared, originals, monkeypatch):
    """Even its own row as it was, which no other may have."""
    original = originals("mf")
    own = np.asarray(original.params["user_embedding"])
    for rows, refused in (([3, 1], False), ([0], True)):
        moved = Moved(
            {"user_embedding": np.array(rows)}, {"user_embedding": own[[3] * len(rows)] * [[1], [2]][: len(rows)]}
        )
        moved = moved._replace(values={n: x.astype(np.float32) for n, x in moved.values.items()})
        monkeypatch.setitem(
            METHODS, "moves", Method(NoSettings, lambda *given, moved=moved: (moved, {}), in_place=True)
        )
        memory = prepare(original, "moves") if prepared else None
        if refused:
            with pytest.raises(RuntimeError, match="rows of forgotten users or items stand in user_embedding"):
                answer(original, ["users:3"], "moves", memory=memory)
            continue
        answered = np.asarray(answer(original, ["users:3"], "moves", memory=memory).params["user_embedding"])
        np.testing.assert_array_equal(answered[1], 2 * own[3])
        assert (answered[3] != own[3]).any()


def test_a_memory_that_was_used_is_shown(originals):
    original = originals("mf")
    memory = prepare(original, "delta")
    answer(original, ["users:1"], memory=memory)
    assert "a spare copy, taken" in repr(memory.spare)


def test_nothing_compiles_for_another_request(originals):
    original = originals("mgcn")
    answer(original, ["users:1"], memory=prepare(original, "delta"))
    for words in (["users:2,3"], ["pairs:0-1"], ["users:0"]):
        memory = prepare(original, "delta")
        assert answer(original, words, memory=memory).seconds.programs == 0


def test_a_full_user_is_told_of_in_place_too(originals):
    """Where items go, a user may be left with all there are."""
    setup = originals("mf").setup
    full = setup.dataset.replace(train=[[0, 0], [0, 1], [1, 0], [1, 2]], valid=[], test=[])
    original = Recommender(set_up(full, setup.config), originals("mf").params)
    memory = prepare(original, "delta")
    with pytest.warns(UserWarning, match="user 0 interacted with all 2 items of train"):
        answer(original, ["items:2"], memory=memory)
