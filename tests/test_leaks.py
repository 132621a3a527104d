"""Nothing forgotten is released, whatever the method, the kind of request and the backbone: every byte of a release is looked at.

What is searched for: each row of a forgotten user, item or feature as the original had it, in every table of every backbone, and the
forgotten feature rows as the data had them. What is searched: every array of the parameters and of the retained data, and every file of a
release, archives unpacked.
"""

import dataclasses
import io
import json
import warnings
import zipfile

import jax
import numpy as np
import pytest
import scipy.sparse
from orbax.checkpoint import v1 as orbax

from recunlearn_jax import ledger, runs
from recunlearn_jax.backbones import BACKBONES, backbone_kind
from recunlearn_jax.backbones.base import flat, rows_of
from recunlearn_jax.backbones.mgcn import Graphs
from recunlearn_jax.config import Config, TrainConfig
from recunlearn_jax.manifest import mark
from recunlearn_jax.propagate import CompressedRows
from recunlearn_jax.requests import forget_pairs, parse, resolve
from recunlearn_jax.train import fit
from recunlearn_jax.unlearn import METHODS, answer, prepare
from recunlearn_jax.unlearn.spare import without_gaps

# Few steps each: what is released does not depend on how many.
SETTINGS = {
    "mmrecun": {"steps": 2, "batch_size": 32},
    "finetune": {"epochs": 1},
    "noisy": {"steps": 2, "batch_size": 32, "epochs": 1},
    "ascent": {"steps": 2, "batch_size": 32},
    "rrl": {"steps": 2, "batch_size": 32},
    "amnesiac": {"epochs": 1},
    "sisa": {"shards": 2},
    "receraser": {"shards": 2, "aggregation_epochs": 1},
}
KINDS = {
    "users": ["users:3,14"],
    "items": ["items:7,11"],
    "pairs": ["pairs:10%"],
    "feature rows": ["modality:image:1,2,5"],
    "modality": ["modality:image"],
    "all of them": ["users:4", "items:9", "pairs:5%", "modality:text:3,6"],
}


@pytest.fixture(scope="module")
def originals(shop):
    """A trained model of each backbone, made when it is first asked for. One valid pair a user is left out: nothing to stop early on."""
    made = {}

    def original(name):
        if name not in made:
            kind = backbone_kind(name).Settings
            settings = kind() if name == "ease" else kind(embedding_size=16)
            if name in {"mgcn", "freedom"}:
                settings = dataclasses.replace(settings, neighbours=4)
            made[name] = fit(
                shop, Config(name, settings, TrainConfig(batch_size=128, learning_rate=1e-2, max_epochs=2))
            )
        return made[name]

    return original


def forgotten_rows(original, forget_set):
    """Name -> bytes of what must be nowhere in a release."""
    data = original.dataset
    gone = {"users": forget_set.users, "items": forget_set.items}
    rows = {}
    for path, table in flat(original.params).items():
        kind, modality = rows_of(original.backbone, path), original.backbone.of_modality(path)
        if kind not in gone:
            continue
        mask = gone[kind] | forget_set.features.get(modality, False) if kind == "items" else gone[kind]
        rows |= {f"{path}[{i}]": np.asarray(table)[i].tobytes() for i in np.flatnonzero(mask)}
    for m, table in data.features.items():
        mask = forget_set.items | forget_set.features.get(m, False)
        rows |= {f"feature {m}[{i}]": table[i].tobytes() for i in np.flatnonzero(mask)}
    return {name: row for name, row in rows.items() if any(row)}


def found_in(content: bytes, rows) -> list[str]:
    return [name for name, row in rows.items() if row in content]


def arrays_of(model):
    """Every array that a recommender holds on to and that a release would write, as bytes."""
    data = model.dataset
    yield from ((f"parameter {path}", np.asarray(x).tobytes()) for path, x in flat(model.params).items())
    yield from ((f"features {m}", x.tobytes()) for m, x in data.features.items())
    yield from ((f"on the device: {m}", np.asarray(x).tobytes()) for m, x in model.data.features.items())
    yield "rows", np.asarray(model.rows).tobytes()


def matrix_of(graph: CompressedRows):
    """What the device holds, its padding left out."""
    pointers = np.asarray(graph.pointers)
    end, shape = pointers[-1], (len(pointers) - 1, len(graph.transposed_pointers) - 1)
    return scipy.sparse.csr_array((np.asarray(graph.weights)[:end], np.asarray(graph.columns)[:end], pointers), shape)


def everything_in(folder):
    """The tree of a checkpoint without saying what is expected; orbax warns that nobody says where arrays are to lie."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return orbax.load(str(folder))


def check(original, model, forget_set):
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(model.params))
    rows, data = forgotten_rows(original, forget_set), model.dataset
    for place, content in arrays_of(model):
        assert not found_in(content, rows), place
    pairs = {tuple(pair) for pair in forget_pairs(original.dataset, forget_set).tolist()}
    assert not pairs & {tuple(pair) for pair in data.train.tolist()}
    sampler = model.data.sampler
    held = np.asarray(sampler.pairs)[: int(sampler.num_pairs)]
    assert not pairs & {tuple(pair) for pair in held.tolist()}
    for split in (data.train, data.valid, data.test):
        assert not forget_set.users[split[:, 0]].any()
        assert not forget_set.items[split[:, 1]].any()
    for graph in data.similarities.values():
        edges = graph.tocoo()
        assert not (forget_set.items[edges.row] | forget_set.items[edges.col]).any()
    graphs = without_gaps(model).setup.graphs  # as they are in service when the next request was prepared for
    if isinstance(graphs, Graphs):
        a_hat, between = (matrix_of(graph) for graph in (graphs.user_item, graphs.item_user))
        assert (a_hat.nnz, between.nnz) == (2 * len(data.train), len(data.train))
        assert not a_hat[:, np.flatnonzero(np.concatenate([forget_set.users, forget_set.items]))].nnz
        assert not between[:, np.flatnonzero(forget_set.items)].nnz
        for m, graph in graphs.item_item.items():
            assert not matrix_of(graph)[:, np.flatnonzero(forget_set.items | forget_set.features.get(m, False))].nnz
    lists = model.recommend(np.unique(data.train[:, 0]), 10)
    assert not forget_set.items[lists].any()


def assert_no_copies(served, model, forget_set):
    """No forgotten row is left at its place, and none is a scaled copy."""
    for name, kind in served.backbone.id_tables().items():
        if name not in model.params:  # it went with its modality
            continue
        gone = forget_set.users if kind == "users" else forget_set.items
        old, new = (np.asarray(made.params[name])[gone] for made in (served, model))
        lengths = np.linalg.norm(old, axis=1) * np.linalg.norm(new, axis=1)
        assert (np.abs(np.sum(old * new, axis=1)) < 0.9 * lengths).all()


# All of them in `make test`; of `make check` those that compile little.
QUICK = {(backbone, "surgery") for backbone in ("mgcn", "vbpr", "mf")}
PAIRS = [
    pytest.param(backbone, method, marks=() if (backbone, method) in QUICK else pytest.mark.slow)
    for backbone in BACKBONES
    for method, entry in METHODS.items()
    if backbone != "ease" or entry.exact
]


@pytest.mark.parametrize(("backbone", "method"), PAIRS)
def test_no_answer_holds_what_was_forgotten(backbone, method, originals):
    original = originals(backbone)
    memory = prepare(original, method, SETTINGS.get(method), seed=1)
    served = memory.original  # which SISA and RecEraser put into service in place of the original
    before = jax.tree.map(np.array, (original.params, served.params))
    for kind, words in KINDS.items():
        forget_set = resolve(parse(words, 1), original.dataset)
        if memory.spare is not None and memory.spare.taken:  # each of its answers is written in place
            memory = prepare(original, method, SETTINGS.get(method), seed=1)
        model = answer(original, forget_set, method, SETTINGS.get(method), seed=1, memory=memory)
        check(original, model, forget_set)
        if served.backbone.solve is None:  # a row of EASE is an item's column of weights, most of them zero in both
            assert_no_copies(served, model, forget_set)
        if kind == "modality":
            assert not [p for p in flat(model.params) if original.backbone.of_modality(p) == "image"]
            assert model.dataset.modalities == ("text",)
            assert "image" not in model.backbone.modalities
    # The original is as it was: what was written in place was a copy.
    jax.tree.map(np.testing.assert_array_equal, (original.params, served.params), before)


@pytest.fixture(scope="module")
def released(originals, tmp_path_factory):
    """Folder of an answer of each backbone to the mixed request, its original and forget set; everybody and everything has a name."""

    def release(backbone):
        plain = originals(backbone)
        data = plain.dataset.replace(
            user_ids=[f"user<{i:04d}>" for i in range(plain.dataset.num_users)],
            item_ids=[f"item<{i:04d}>" for i in range(plain.dataset.num_items)],
        )
        original = dataclasses.replace(plain, setup=dataclasses.replace(plain.setup, dataset=data))
        words = ["users:user<0004>", "items:item<0009>", "pairs:5%", "modality:text:item<0003>,item<0006>"]
        forget_set = resolve(parse(words, 1), original.dataset)
        method = "ease" if backbone == "ease" else "surgery"
        model = answer(original, forget_set, method)
        folder = tmp_path_factory.mktemp("leaks") / "release"
        begun = {"data_salt": ledger.new_salt(), "model_digest": runs.digest(original.params)}
        facts = runs.answer_facts(forget_set, method, None, 0, from_model=mark(begun))
        before = ledger.extended([], "trained", {"model": mark(begun)})
        runs.release(folder, model, facts, before)
        return folder, original, model, forget_set

    return release


@pytest.mark.parametrize("backbone", BACKBONES)
def test_no_file_of_a_release_holds_what_was_forgotten(backbone, released):
    folder, original, model, forget_set = released(backbone)
    rows = forgotten_rows(original, forget_set)
    lines = {f"{u}\t{i}\t".encode() for u, i in forget_pairs(original.dataset, forget_set).tolist()}
    names = [b"user<0004>", b"item<0009>"]
    # By a checksum of the data before, or of the forget set, a removed pair could be found by trial.
    # Parameters follow from the data: a digest of them would do, too.
    digests = [x.encode() for x in (original.dataset.checksum, forget_set.checksum, runs.digest(original.params))]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {"manifest.json", "ledger.jsonl", "toy.inter", "image_feat.npy", "user_ids.txt"} <= {p.name for p in files}
    for path in files:
        content = path.read_bytes()
        assert not found_in(content, rows), path
        assert not [word for word in (*names, *digests) if word in content], path
        if path.suffix == ".npz":
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    assert not found_in(archive.read(name), rows), (path, name)
        if path.suffix == ".inter":
            written = {b"\t".join(line.split(b"\t")[:2]) + b"\t" for line in content.splitlines()}
            assert not written & lines
    # A checkpoint is compressed on disk: what it holds is read back, all of it, without saying what is expected.
    for name, leaf in flat(everything_in(folder / "model")).items():
        assert not found_in(np.asarray(leaf).tobytes(), rows), name
    np.testing.assert_array_equal(runs.load(folder).rows, model.rows)


def test_a_release_says_what_it_is_and_knows_what_comes_back(released):
    folder, original, model, forget_set = released("mf")
    manifest, entries = runs.manifest_of(folder), ledger.read(folder)
    assert manifest["forgotten"] == forget_set.counts()
    assert not {"request", "forget_checksum", "original_data_checksum"} & set(manifest)
    assert [entry["event"] for entry in entries] == ["trained", "unlearned"]
    assert entries[1]["from_model"] == entries[0]["model"]
    assert entries[1]["model"] == mark(manifest)
    assert manifest["model_digest"] == runs.digest(model.params)
    assert entries[1]["data"] == ledger.commitment(manifest["data_salt"], model.dataset.checksum)
    removed = runs.load(folder).dataset.removed_ids
    assert removed.among("user", original.dataset.user_ids) == ["user<0004>"]
    assert removed.among("item", original.dataset.item_ids) == ["item<0009>"]


def test_the_search_finds_what_is_there(originals, tmp_path):
    """An original holds all of it, on disk too."""
    original = originals("mgcn")
    forget_set = resolve(parse(KINDS["all of them"], 1), original.dataset)
    rows = forgotten_rows(original, forget_set)
    assert {name.partition("[")[0] for name in rows} >= {
        "user_embedding",
        "item_embedding",
        "text_features",
        "feature text",
    }
    everywhere = b"".join(content for _, content in arrays_of(original))
    assert set(found_in(everywhere, rows)) == set(rows)
    out = io.BytesIO()
    np.save(out, original.dataset.features["text"])
    assert found_in(out.getvalue(), rows)
    runs.save(tmp_path / "original", original, "elsewhere", {"kind": "trained", "seed": 0})
    stored = flat(everything_in(tmp_path / "original" / "model"))
    assert found_in(np.asarray(stored["user_embedding"]).tobytes(), rows)
    assert json.loads((tmp_path / "original" / "manifest.json").read_text())["schema_version"] == runs.SCHEMA_VERSION
