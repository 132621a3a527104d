"""Parity with the reference implementation's own numbers, float32."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse

from recunlearn_jax import losses
from recunlearn_jax.backbones.base import shape_of
from recunlearn_jax.backbones.mgcn import Settings, module
from recunlearn_jax.config import Config
from recunlearn_jax.dataset import Dataset
from recunlearn_jax.graph import bipartite, knn_similarities, normalize, with_item_graphs
from recunlearn_jax.interop import params_from_mmrec_state_dict
from recunlearn_jax.recommender import Setup, set_up
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


class Reference(NamedTuple):
    """The reference's data set up in a layout, with the functions that tests share, each compiled once."""

    setup: Setup
    loss: Callable  # (params, (users, positives, negatives)) -> loss, views
    gradient: Callable  # the same with the loss's gradient: ((loss, views), gradient)


@pytest.fixture(scope="module", params=["segment", "csr", "gather"])
def setting(request, dataset):
    setup = set_up(dataset, Config(model=Settings(embedding_size=CONFIG["embedding_size"], layout=request.param)))

    def loss_of(params, data, batch):
        views = setup.backbone.views(params, data, *batch)
        loss = losses.mgcn(
            views,
            contrast_weight=CONFIG["cl_loss"],
            l2_weight=CONFIG["reg_weight"],
            temperature=CONFIG["tau"],
            batch_size=CONFIG["batch_size"],
        )
        return loss, views

    value, gradient = jax.jit(loss_of), jax.jit(jax.value_and_grad(loss_of, has_aux=True))
    return Reference(
        setup,
        lambda params, batch: value(params, setup.data, jnp.asarray(batch, jnp.int32)),
        lambda params, batch: gradient(params, setup.data, jnp.asarray(batch, jnp.int32)),
    )


@pytest.fixture(scope="module")
def first(setting):
    """Loss, views and gradient of the first batch."""
    (loss, views), gradient = setting.gradient(oracle_params("param/"), ORACLE["batch"])
    return loss, views, gradient


def at(tree, path):
    for entry in path:
        tree = tree[entry.key]
    return tree


def test_user_item_graph(dataset):
    entries = (ORACLE["norm_adj/value"], tuple(ORACLE["norm_adj/index"]))
    theirs = scipy.sparse.coo_array(entries, shape=(USERS + ITEMS, USERS + ITEMS))
    close(bipartite(dataset.train, USERS, ITEMS).toarray(), theirs.toarray())


@pytest.mark.parametrize("modality", ["image", "text"])
def test_item_graphs(modality):
    theirs = scipy.sparse.coo_array(
        (ORACLE[f"{modality}_adj/value"], ORACLE[f"{modality}_adj/index"]), shape=(ITEMS, ITEMS)
    )
    close(normalize(knn_similarities(ORACLE[f"{modality}_feat"], CONFIG["knn_k"])).toarray(), theirs.toarray())


def test_forward(setting, dataset):
    model, data = module(shape_of(dataset), setting.setup.config.model), setting.setup.data
    out = jax.jit(model.apply)({"params": oracle_params("param/")}, data.graphs, data.features)
    close(out.embedding[:USERS], ORACLE["forward/user"])
    close(out.embedding[USERS:], ORACLE["forward/item"])
    close(out.side, ORACLE["forward/side"])
    close(out.content, ORACLE["forward/content"])


def test_each_loss(first):
    total, views, _ = first
    close(losses.bpr_jit(*losses.scores(views)), ORACLE["loss/bpr"])
    l2 = losses.row_l2_jit(views.user, views.positive, views.negative, batch_size=CONFIG["batch_size"])
    close(CONFIG["reg_weight"] * l2, ORACLE["loss/embedding_l2"])
    close(
        losses.info_nce_jit(views.positive_side, views.positive_content, temperature=0.2), ORACLE["loss/infonce_items"]
    )
    close(losses.info_nce_jit(views.user_side, views.user_content, temperature=0.2), ORACLE["loss/infonce_users"])
    close(total, ORACLE["loss/total"])


def test_partial_batch_with_and_without_padding(setting):
    """With the settings of this file, and as the backbone gives it to training."""
    params, part = oracle_params("param/"), ORACLE["partial_batch"].astype(np.int32)
    close(setting.loss(params, part)[0], ORACLE["loss/partial_total"])
    padded = np.pad(part, ((0, 0), (0, 27)))
    weights = (np.arange(64) < 37).astype(np.float32)
    backbone, data = setting.setup.backbone, setting.setup.data

    @jax.jit
    def both(params, data, padded, weights):
        loss = losses.mgcn(backbone.views(params, data, *padded), batch_size=64, weights=weights)
        return loss, backbone.loss(params, data, (*padded, weights), 64)

    for loss in both(params, data, tuple(padded), weights):
        close(loss, ORACLE["loss/partial_total"])


def test_every_gradient(first):
    ours, theirs = first[2], oracle_params("grad/")
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for path, value in jax.tree_util.tree_leaves_with_path(theirs):
        close(at(ours, path), value, 1e-4)


def test_five_adam_steps(setting):
    params, step = oracle_params("param/"), jax.jit(descend)
    state = jax.jit(OPTIMIZER.init)(params)
    for batch, loss in zip(ORACLE["adam/batches"], ORACLE["adam/losses"], strict=True):
        (ours, _), gradients = setting.gradient(params, batch)
        close(ours, loss, 1e-4)
        params, state = step(gradients, state, params, CONFIG["lr"])
    for path, value in jax.tree_util.tree_leaves_with_path(oracle_params("adam/param/")):
        close(at(params, path), value, 1e-4)
