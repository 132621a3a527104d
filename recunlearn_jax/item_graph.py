"""Item graphs on disk: `<modality>_knn<k>_adj.npz`, a scipy CSR matrix of normalised weights or of similarities.

Nothing in a file is trusted: scipy's compiled code follows indices wherever they point.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import scipy.sparse

from recunlearn_jax.arrays import as_float32, load_arrays
from recunlearn_jax.errors import InputError

FORM = re.compile(r"(.+)_knn\d+_adj\.npz")
SIMILARITIES = "similarities"  # beside the matrix in an npz: its weights are the s_ij, as they were in memory


def read_item_graphs(
    folder: Path, features: Mapping[str, np.ndarray], num_items: int
) -> dict[str, scipy.sparse.csr_array]:
    """The item graphs of a data folder.

    Args:
        folder: of the data.
        features: by modality.
        num_items: |I|.

    Returns:
        modality -> float32 [|I|, |I|] CSR of similarities s_ij.

    Raises:
        InputError: a file is damaged, has another size, or belongs to no modality.
    """
    graphs = {}
    for path in sorted(folder.glob("*_adj.npz")):
        match = FORM.fullmatch(path.name)
        if path.name.startswith(".") or not match:
            continue
        modality = match[1]
        if modality not in features:
            raise InputError(
                f"{path}: no feature file {modality}_feat.npy beside it; graphs are named <modality>_knn<k>_adj.npz"
            )
        if modality in graphs:
            raise InputError(f"{path}: a second item graph for {modality}; keep one of them in the folder")
        graphs[modality] = _read_graph(path, num_items)
    return graphs


def _read_graph(path: Path, num_items: int) -> scipy.sparse.csr_array:
    try:
        arrays = load_arrays(path)
        if not isinstance(arrays, dict):
            raise ValueError("one array alone")
        graph = _csr(arrays)
    except InputError:
        raise
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: damaged, or no scipy CSR matrix of real numbers in npz ({error})") from error
    if graph.shape != (num_items, num_items):
        raise InputError(f"{path}: shape {graph.shape}, but there are {num_items} items")
    normalised = SIMILARITIES not in arrays
    if not np.isfinite(graph.data).all() or (normalised and (graph.data < 0).any()):
        raise InputError(f"{path}: weights must be finite and not negative")
    if not normalised:
        return graph  # cosines, which may be negative
    with np.errstate(over="ignore", invalid="ignore"):
        similarities = similarities_from_weights(graph)
    if not np.isfinite(similarities.data).all():
        raise InputError(
            f"{path}: the weights do not come from a normalised graph, since its degrees are beyond float32; "
            "allowed are w_ij = s_ij / sqrt(deg_i deg_j), or plain s_ij with s_ii = 1"
        )
    return similarities


def _csr(arrays: Mapping[str, np.ndarray]) -> scipy.sparse.csr_array:
    """The matrix that `scipy.sparse.save_npz` wrote, every index checked, float32, sorted; raises ValueError, TypeError.

    Other formats are refused: scipy converts them with compiled code that trusts their indices.
    """
    names = ("format", "shape", "data", "indices", "indptr")
    missing = set(names).difference(arrays)
    if missing:
        raise ValueError(f"without {', '.join(sorted(missing))}")
    form, shape, data, indices, indptr = (np.asarray(arrays[name]) for name in names)  # a member may be mere bytes
    if form.size != 1 or form.item() not in ("csr", b"csr"):
        raise ValueError(f"format {form}")
    if data.dtype.kind not in "fiub" or any(array.dtype.kind not in "iu" for array in (shape, indices, indptr)):
        kinds = ", ".join(str(array.dtype) for array in (data, shape, indices, indptr))
        raise ValueError(f"data, shape, indices and indptr are {kinds}")
    _check_csr(shape, data, indices, indptr)
    graph = scipy.sparse.csr_array((as_float32(data), indices, indptr), shape=tuple(shape.tolist()))
    graph.check_format(full_check=True)
    graph.sum_duplicates()
    return graph


def _check_csr(shape: np.ndarray, data: np.ndarray, indices: np.ndarray, indptr: np.ndarray) -> None:
    """Raise ValueError unless every array fits; scipy looks at none of them if the last pointer is 0."""
    if any(array.ndim != 1 for array in (shape, data, indices, indptr)) or len(shape) != 2:
        raise ValueError("shape, data, indices and indptr must be lists, shape of two numbers")
    rows, columns = shape.tolist()
    if rows < 0 or columns < 0 or len(indptr) != rows + 1:
        raise ValueError(f"shape {rows} x {columns} with {len(indptr)} pointers, one more than rows is required")
    if indptr[0] != 0 or (indptr[1:] < indptr[:-1]).any() or not int(indptr[-1]) == len(indices) == len(data):
        raise ValueError(f"pointers must rise from 0 to the number of entries, {len(data)}")
    if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < columns:
        raise ValueError(f"an entry outside the {columns} columns")


def similarities_from_weights(graph: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    """Undo the normalisation w_ij = s_ij / sqrt(deg_i deg_j) of a stored item graph, so that it can be edited and normalised anew.

    A self loop gives deg_i = 1 / w_ii, since s_ii = 1. Where ties pushed the loop out, deg follows from deg_i = sum_j s_ij, which is
    v = W v for v = sqrt(deg): a hundred sweeps over those rows. A graph whose weights or self loops are all 1 is not normalised and is
    returned unchanged.

    Args:
        graph: float32 [|I|, |I|] CSR, non-negative.

    Returns:
        float32 CSR with the same edges, the s_ij.
    """
    diagonal = graph.diagonal()
    loops = diagonal > 0
    if not loops.any() or np.allclose(graph.data, 1) or np.allclose(diagonal[loops], 1, atol=1e-4):
        return graph
    root_degree = np.where(loops, 1 / np.sqrt(np.where(loops, diagonal, 1.0)), 1.0)
    for _ in range(100):
        root_degree = np.where(loops, root_degree, graph @ root_degree)
    edges = graph.tocoo()
    data = edges.data * root_degree[edges.row] * root_degree[edges.col]
    return scipy.sparse.csr_array((data.astype(np.float32), (edges.row, edges.col)), shape=graph.shape)
