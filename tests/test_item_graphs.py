"""Item graphs in files: refusals, and similarities that come back from weights."""

import re
import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from refusals import assert_refused, item_graph
from toys import NUM_ITEMS, features_of, write_folder

from recunlearn_jax.data import read_dataset
from recunlearn_jax.errors import Note
from recunlearn_jax.graph import knn_similarities, normalize
from recunlearn_jax.item_graph import similarities_from_weights

# Refusals


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
