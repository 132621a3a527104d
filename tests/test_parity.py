"""Parity with the reference implementation's own numbers, float32."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse

from recunlearn_jax import losses
from recunlearn_jax.config import ModelConfig
from recunlearn_jax.data import Dataset
from recunlearn_jax.graph import bipartite, knn_similarities, normalize, with_item_graphs
from recunlearn_jax.interop import params_from_mmrec_state_dict
from recunlearn_jax.models import build_graphs, build_model
from recunlearn_jax.train import OPTIMIZER, descend

ORACLE = np.load(Path(__file__).parent / "fixtures" / "mgcn_small.npz", allow_pickle=False)
CONFIG = json.loads(str(ORACLE["config"]))
USERS, ITEMS = 90, 60


def close(ours, theirs, relative=1e-5):
    """Relative to the largest entry of the array: entries that nearly cancel have no digits of their own."""
    theirs = np.asarray(theirs)
    np.testing.assert_allclose(np.asarray(ours), theirs, rtol=relative, atol=relative * np.abs(theirs).max())


def oracle_params(prefix):
    return params_from_mmrec_state_dict(
        {k.removeprefix(prefix): ORACLE[k] for k in ORACLE.files if k.startswith(prefix)}
    )


@pytest.fixture(scope="module")
def dataset():
    rows = ORACLE["interactions"]
    splits = {s: rows[rows[:, 2] == label, :2].astype(np.int32) for label, s in enumerate(("train", "valid", "test"))}
    features = {m: ORACLE[f"{m}_feat"] for m in ("image", "text")}
    plain = Dataset(name="oracle", num_users=USERS, num_items=ITEMS, **splits, features=features)
    return with_item_graphs(plain, CONFIG["knn_k"])


@pytest.fixture(scope="module", params=["segment", "csr"])
def setting(request, dataset):
    config = ModelConfig(embedding_size=CONFIG["embedding_size"], layout=request.param)
    return build_model(dataset, config), build_graphs(dataset, config), dataset.features


def batch_loss(params, setting, batch):
    model, graphs, features = setting
    users, positives, negatives = batch
    views = model.apply({"params": params}, graphs, features, users, positives, negatives, method="batch")
    loss = losses.mgcn(
        views,
        contrast_weight=CONFIG["cl_loss"],
        l2_weight=CONFIG["reg_weight"],
        temperature=CONFIG["tau"],
        batch_size=CONFIG["batch_size"],
    )
    return loss, views


def gradient(setting, params, batch):
    return jax.jit(jax.value_and_grad(lambda p, b: batch_loss(p, setting, b), has_aux=True))(params, batch)


def at(tree, path):
    for entry in path:
        tree = tree[entry.key]
    return tree


def test_user_item_graph(dataset):
    theirs = scipy.sparse.coo_array((ORACLE["norm_adj/value"], ORACLE["norm_adj/index"]), shape=(USERS + ITEMS,) * 2)
    close(bipartite(dataset.train, USERS, ITEMS).toarray(), theirs.toarray())


@pytest.mark.parametrize("modality", ["image", "text"])
def test_item_graphs(modality):
    theirs = scipy.sparse.coo_array(
        (ORACLE[f"{modality}_adj/value"], ORACLE[f"{modality}_adj/index"]), shape=(ITEMS, ITEMS)
    )
    close(normalize(knn_similarities(ORACLE[f"{modality}_feat"], CONFIG["knn_k"])).toarray(), theirs.toarray())


def test_forward(setting):
    model, graphs, features = setting
    out = jax.jit(model.apply)({"params": oracle_params("param/")}, graphs, features)
    close(out.embedding[:USERS], ORACLE["forward/user"])
    close(out.embedding[USERS:], ORACLE["forward/item"])
    close(out.side, ORACLE["forward/side"])
    close(out.content, ORACLE["forward/content"])


def test_each_loss(setting):
    total, views = batch_loss(oracle_params("param/"), setting, jnp.asarray(ORACLE["batch"], jnp.int32))
    close(losses.bpr(*losses.scores(views)), ORACLE["loss/bpr"])
    l2 = losses.row_l2(views.user, views.positive, views.negative, batch_size=CONFIG["batch_size"])
    close(CONFIG["reg_weight"] * l2, ORACLE["loss/embedding_l2"])
    close(losses.info_nce(views.positive_side, views.positive_content, temperature=0.2), ORACLE["loss/infonce_items"])
    close(losses.info_nce(views.user_side, views.user_content, temperature=0.2), ORACLE["loss/infonce_users"])
    close(total, ORACLE["loss/total"])


def test_partial_batch_with_and_without_padding(setting):
    params, part = oracle_params("param/"), ORACLE["partial_batch"].astype(np.int32)
    close(batch_loss(params, setting, part)[0], ORACLE["loss/partial_total"])
    model, graphs, features = setting
    padded = np.pad(part, ((0, 0), (0, 27)))
    views = model.apply({"params": params}, graphs, features, *padded, method="batch")
    weights = (np.arange(64) < 37).astype(np.float32)
    loss = losses.mgcn(views, batch_size=64, weights=weights)
    close(loss, ORACLE["loss/partial_total"])


def test_every_gradient(setting):
    _, ours = gradient(setting, oracle_params("param/"), jnp.asarray(ORACLE["batch"], jnp.int32))
    theirs = oracle_params("grad/")
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for path, value in jax.tree_util.tree_leaves_with_path(theirs):
        close(at(ours, path), value, 1e-4)


def test_five_adam_steps(setting):
    params = oracle_params("param/")
    state = OPTIMIZER.init(params)
    for batch, loss in zip(ORACLE["adam/batches"], ORACLE["adam/losses"], strict=True):
        (ours, _), gradients = gradient(setting, params, jnp.asarray(batch, jnp.int32))
        close(ours, loss, 1e-4)
        params, state = descend(gradients, state, params, CONFIG["lr"])
    for path, value in jax.tree_util.tree_leaves_with_path(oracle_params("adam/param/")):
        close(at(params, path), value, 1e-4)
