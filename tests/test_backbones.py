"""VBPR and FREEDOM by the reference implementation's own numbers, and what every backbone promises.

The fixtures hold figures of MMRec's VBPR and FREEDOM (PyTorch, float32) on the data of mgcn_small.npz.
"""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file
from toys import features_of, small_dataset

from recunlearn_jax.backbones import BACKBONES, backbone_kind, freedom, vbpr
from recunlearn_jax.backbones.base import check_tables, flat
from recunlearn_jax.config import Config, TrainConfig
from recunlearn_jax.dataset import Dataset
from recunlearn_jax.errors import InputError
from recunlearn_jax.evaluate import held_out_task, ranking_metrics
from recunlearn_jax.interop import imported, params_from_mmrec_state_dict, read_safetensors
from recunlearn_jax.propagate import CompressedRows
from recunlearn_jax.recommender import embed, fresh_ids, init_params, replace_rows, set_up
from recunlearn_jax.requests import parse, resolve, retained
from recunlearn_jax.train import OPTIMIZER, descend, fit
from recunlearn_jax.unlearn import answer

FIXTURES = Path(__file__).parent / "fixtures"
ORACLES = {name: np.load(FIXTURES / f"{name}_small.npz", allow_pickle=False) for name in ("vbpr", "freedom")}
COMMON = np.load(FIXTURES / "mgcn_small.npz", allow_pickle=False)
WIDTHS = {"image": 24, "text": 12}
USERS, ITEMS = 90, 60


def close(ours, theirs, relative=1e-5, absolute=0.0):
    """Relative to the largest entry of the array: entries that nearly cancel have no digits of their own."""
    theirs = np.asarray(theirs)
    np.testing.assert_allclose(ours, theirs, rtol=relative, atol=max(absolute, relative * np.abs(theirs).max()))


def settings_of(name, layout="auto"):
    told = json.loads(str(ORACLES[name]["config"]))
    if name == "vbpr":
        return vbpr.Settings(embedding_size=told["embedding_size"], norm_weight=told["reg_weight"])
    return freedom.Settings(
        embedding_size=told["embedding_size"],
        user_item_layers=told["n_ui_layers"],
        item_item_layers=told["n_mm_layers"],
        neighbours=told["knn_k"],
        image_weight=told["mm_image_weight"],
        pruned=told["dropout"],
        modal_weight=told["reg_weight"],
        layout=layout,
    )


def params_at(name, prefix):
    oracle = ORACLES[name]
    state = {key.removeprefix(prefix): oracle[key] for key in oracle.files if key.startswith(prefix)}
    return params_from_mmrec_state_dict(state, name, WIDTHS if name == "vbpr" else None)


@pytest.fixture(scope="module")
def dataset():
    rows = COMMON["interactions"]
    order = np.lexsort((rows[:, 1], rows[:, 0]))
    rows = rows[order]
    splits = {s: rows[rows[:, 2] == label, :2].astype(np.int32) for label, s in enumerate(("train", "valid", "test"))}
    features = {m: COMMON[f"{m}_feat"] for m in WIDTHS}
    return Dataset(name="oracle", num_users=USERS, num_items=ITEMS, **splits, features=features)


@pytest.fixture(scope="module", params=[("vbpr", "auto"), ("freedom", "segment"), ("freedom", "csr")], ids="-".join)
def case(request, dataset):
    """Oracle, set-up, and the data that its training figures were made on: FREEDOM's with the reference's own pruned edges."""
    name, layout = request.param
    setup = set_up(dataset, Config(name, settings_of(name, layout)))
    data = setup.data
    if name == "freedom":
        kept = {tuple(pair) for pair in ORACLES[name]["kept_edges"].T.tolist()}
        mask = jnp.asarray([tuple(pair) in kept for pair in dataset.train.tolist()])
        graphs = data.graphs._replace(pruned=freedom._among(data.graphs, data.sampler, mask))
        data = data._replace(graphs=graphs)
    return name, setup, data


def dense(graph, size):
    """The matrix of a graph in either layout."""
    if isinstance(graph, CompressedRows):
        rows = np.repeat(np.arange(size), np.diff(graph.pointers))
        columns, weights = np.asarray(graph.columns)[: len(rows)], np.asarray(graph.weights)[: len(rows)]
    else:
        rows, columns, weights = (np.asarray(x) for x in (graph.receivers, graph.senders, graph.edges))
    out = np.zeros((size, size))
    np.add.at(out, (rows, columns), weights)
    return out


def test_forward(case):
    name, setup, _ = case
    rows = embed(params_at(name, "param/"), setup.data, backbone=setup.backbone)
    close(rows[:USERS], ORACLES[name]["forward/user"])
    close(rows[USERS:], ORACLES[name]["forward/item"])


def test_losses_and_gradients(case):
    name, setup, data = case
    oracle = ORACLES[name]
    batch = (*map(jnp.asarray, oracle["batch"]), jnp.ones(64))
    loss = jax.jit(jax.value_and_grad(lambda p, b: setup.backbone.loss(p, data, b, 64)))
    params = params_at(name, "param/")
    value, gradients = loss(params, batch)
    close(value, oracle["loss/total"])
    for path, theirs in flat(params_at(name, "grad/")).items():
        # FREEDOM's biases have no gradient in exact arithmetic: what the oracle holds there is rounding.
        close(flat(gradients)[path], theirs, 1e-4, absolute=1e-9)
    short = oracle["partial_batch"]
    padding = 64 - short.shape[1]
    batch = (
        *(jnp.asarray(np.pad(x, (0, padding))) for x in short),
        jnp.asarray(np.arange(64) < 64 - padding, jnp.float32),
    )
    close(loss(params, batch)[0], oracle["loss/partial_total"])


def test_five_adam_steps_and_what_they_rank(case):
    name, setup, data = case
    oracle = ORACLES[name]
    params = params_at(name, "param/")

    @jax.jit
    def step(params, opt_state, batch):
        loss, gradients = jax.value_and_grad(setup.backbone.loss)(params, data, (*batch, jnp.ones(64)), 64)
        return *descend(gradients, opt_state, params, 1e-3), loss

    opt_state = OPTIMIZER.init(params)
    for batch, theirs in zip(oracle["adam/batches"], oracle["adam/losses"], strict=True):
        params, opt_state, loss = step(params, opt_state, tuple(map(jnp.asarray, batch)))
        close(loss, theirs)
    for path, theirs in flat(params_at(name, "adam/param/")).items():
        close(flat(params)[path], theirs, absolute=2e-6)  # gradients near Adam's eps: a step is 1e-3
    rows = embed(params_at(name, "adam/param/"), setup.data, backbone=setup.backbone)
    close(rows[oracle["adam/scores_users"]] @ rows[USERS:].T, oracle["adam/scores"])
    for split in ("valid", "test"):
        found = ranking_metrics(rows, held_out_task(setup.dataset, split), (5, 10, 20, 50))
        for metric in ("recall", "ndcg", "precision", "map"):
            for k in (5, 10, 20, 50):
                assert found[f"{metric}@{k}"] == pytest.approx(float(oracle[f"metrics/{split}/{metric}@{k}"]), abs=1e-5)


def test_freedoms_graphs(case):
    name, _, data = case
    if name != "freedom":
        return
    oracle = ORACLES[name]
    for ours, key, size in (
        (data.graphs.item_item, "mm_adj", ITEMS),
        (data.graphs.user_item, "norm_adj", USERS + ITEMS),
        (data.graphs.pruned, "masked_adj", USERS + ITEMS),
    ):
        theirs = np.zeros((size, size))
        np.add.at(theirs, tuple(oracle[f"{key}/index"]), oracle[f"{key}/value"])
        close(dense(ours, size), theirs)


def test_an_epoch_keeps_a_fifth_of_the_edges_and_popular_ones_less_often(case):
    name, setup, _ = case
    if name != "freedom":
        return
    graphs, sampler = setup.data.graphs, setup.data.sampler
    prune = jax.jit(lambda key: freedom.prune(key, graphs, sampler, 0.8))
    pairs, users = setup.dataset.train, USERS
    kept = np.zeros(len(pairs))
    for seed in range(300):
        matrix = dense(prune(jax.random.key(seed)), USERS + ITEMS)
        np.testing.assert_array_equal(matrix, matrix.T)
        there = matrix[pairs[:, 0], users + pairs[:, 1]] > 0
        assert there.sum() == 54
        kept += there
    # The first edge of a draw without replacement is drawn with probability w / sum w; frequencies follow that order.
    weights = {
        tuple(p): w for p, w in zip(ORACLES[name]["edge_pairs"].T.tolist(), ORACLES[name]["edge_weights"], strict=True)
    }
    told = np.array([weights[tuple(pair)] for pair in pairs.tolist()])
    close(np.exp(graphs.chance), told)
    rare, common = told >= np.quantile(told, 0.75), told <= np.quantile(told, 0.25)
    assert kept[rare].mean() > 1.5 * kept[common].mean()
    # Against the same draw by numpy, one edge after the other.
    rng = np.random.default_rng(0)
    expected = np.zeros(len(pairs))
    for _ in range(300):
        expected[rng.choice(len(pairs), 54, replace=False, p=told / told.sum())] += 1
    assert np.abs(kept[rare].mean() - expected[rare].mean()) < 3
    assert np.abs(kept[common].mean() - expected[common].mean()) < 3


def test_a_smaller_data_set_prunes_its_own_edges_only():
    dataset = small_dataset()
    setup = set_up(dataset, Config("freedom", freedom.Settings(embedding_size=4, neighbours=3, pruned=0.5)))
    less = set_up(retained(setup.dataset, resolve(parse(["users:0"]), setup.dataset)), setup.config, setup.sizes)
    matrix = dense(freedom.prune(jax.random.key(0), less.data.graphs, less.data.sampler, 0.5), 12)
    allowed = np.zeros((5, 7), bool)
    allowed[tuple(less.dataset.train.T)] = True
    assert not matrix[:5, 5:][~allowed].any()
    assert (matrix[:5, 5:] > 0).sum() == len(less.dataset.train) // 2


@pytest.mark.parametrize("name", BACKBONES)
def test_the_same_settings_are_the_same_backbone(name):
    """So that a second data set of the same shape, Gold's, compiles nothing."""
    kind = backbone_kind(name)
    first, again = (set_up(small_dataset(), Config(name, kind.Settings())) for _ in range(2))
    assert first.backbone is again.backbone
    other = set_up(
        small_dataset(), Config(name, kind.Settings(**({"penalty": 8.0} if name == "ease" else {"embedding_size": 8})))
    )
    assert other.backbone is not first.backbone


@pytest.mark.parametrize("name", [name for name in BACKBONES if name != "ease"])
def test_id_tables_of_a_new_model_are_drawn_as_for_training(name):
    """Their forms are those that `init` gives, and so is their spread; what they are drawn from is the key alone."""
    setup = set_up(small_dataset(2), Config(name, backbone_kind(name).Settings(embedding_size=4)))
    keys, backbone = jax.random.split(jax.random.key(2), 200), setup.backbone
    ours = jax.vmap(lambda key: fresh_ids(key, backbone=backbone))(keys)
    params = jax.vmap(lambda key: init_params(key, setup.data, backbone=backbone))(keys)
    assert set(ours) == set(backbone.id_tables())
    for table, rows in ours.items():
        assert (rows.shape, rows.dtype) == (params[table].shape, params[table].dtype)
        for spread in (np.std, lambda x: np.abs(x).max()):
            np.testing.assert_allclose(spread(rows), spread(params[table]), rtol=0.03)
        assert abs(rows.mean()) < 4 * rows.std() / np.sqrt(rows.size)
        assert len(np.unique(rows)) > 0.99 * rows.size
    whole = {name: rows[0] for name, rows in ours.items()}
    masks = {name: np.ones(len(rows), bool) for name, rows in whole.items()}
    one_row = {name: rows[:1] for name, rows in whole.items()}  # would be broadcast
    for other in (one_row, {name: rows.astype(jnp.float16) for name, rows in whole.items()}):
        with pytest.raises(TypeError, match=r"of a new model is .*; float32\[.* is expected"):
            replace_rows(whole, other, masks)
    lacking = dataclasses.replace(backbone, init_ids=lambda key: {"user_embedding": key})
    with pytest.raises(TypeError, match="`init_ids` draws user_embedding; its id tables are user_embedding, "):
        fresh_ids(keys[0], backbone=lacking)


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("modalities", [0, 1, 3])
def test_contract(name, modalities):
    """Any number of modalities: finite rows and loss, every table declared, rows by their views."""
    kind = backbone_kind(name).Settings
    setup = set_up(small_dataset(modalities), Config(name, kind() if name == "ease" else kind(embedding_size=4)))
    backbone, data = setup.backbone, setup.data
    params = init_params(jax.random.key(0), data, backbone=backbone)
    check_tables(backbone, params)
    rows = embed(params, data, backbone=backbone)
    assert rows.shape[0] == 12
    assert np.isfinite(rows).all()
    batch = tuple(jnp.asarray(x) for x in ([0, 1, 2], [0, 1, 3], [5, 4, 0]))
    views = jax.jit(lambda p: backbone.views(p, data, *batch))(params)
    close(views.user, rows[batch[0]])
    close(views.positive, rows[5 + batch[1]])
    close(views.negative, rows[5 + batch[2]])
    assert views.user_side is not None or not backbone.contrast
    loss, gradients = jax.value_and_grad(backbone.loss)(
        params, backbone.epoch(jax.random.key(1), data), (*batch, jnp.ones(3)), 3
    )
    assert np.isfinite(loss)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradients))
    gone = {m: [path for path in flat(params) if backbone.of_modality(path) == m] for m in backbone.modalities}
    assert all(gone.values()) or backbone.solve is not None  # whose one matrix holds all of them


@pytest.mark.parametrize("name", ["vbpr", "freedom", "lightgcn", "mf"])
def test_training_finds_the_clusters(name, shop):
    """Far above a random list, 20 of 60 items."""
    trained = fit(
        shop,
        Config(
            name,
            backbone_kind(name).Settings(embedding_size=16),
            TrainConfig(batch_size=128, learning_rate=2e-2, max_epochs=30),
        ),
    )
    assert ranking_metrics(trained.rows, held_out_task(shop, "test"), (20,))["recall@20"] > 0.5


def test_lightgcn_reads_no_content():
    with_content, without = (set_up(small_dataset(n), Config("lightgcn")) for n in (2, 0))
    key = jax.random.key(0)
    rows = [
        embed(init_params(key, s.data, backbone=s.backbone), s.data, backbone=s.backbone)
        for s in (with_content, without)
    ]
    np.testing.assert_array_equal(*rows)


def test_unknown_backbones_and_settings_of_another_are_refused():
    with pytest.raises(InputError, match="did you mean 'vbpr'"):
        Config("vbprr")
    with pytest.raises(InputError, match="settings of freedom"):
        Config("freedom", vbpr.Settings())


def test_states_of_the_reference_are_read_whole_or_refused():
    oracle = ORACLES["vbpr"]
    state = {key.removeprefix("param/"): oracle[key] for key in oracle.files if key.startswith("param/")}
    with pytest.raises(InputError, match="36 columns together"):
        params_from_mmrec_state_dict(state, "vbpr", {"image": 24})
    with pytest.raises(InputError, match="unknown entries extra"):
        params_from_mmrec_state_dict({**state, "extra": np.zeros(1)}, "vbpr", WIDTHS)
    with pytest.raises(InputError, match="read for mgcn, vbpr, freedom"):
        params_from_mmrec_state_dict(state, "lightgcn")


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (np.zeros((2, 2, 2), np.float32), r"'u_embedding' is float32\[2, 2, 2\]; a matrix of floats is expected"),
        (np.zeros((4, 4), np.int32), r"'u_embedding' is int32\[4, 4\]"),
        (np.full((4, 4), "x"), "'u_embedding' is <U1"),
        (np.full((4, 4), np.nan), "'u_embedding' holds NaN or inf"),
    ],
)
def test_parameters_of_another_form_are_refused(value, rule):
    oracle = ORACLES["vbpr"]
    state = {key.removeprefix("param/"): oracle[key] for key in oracle.files if key.startswith("param/")}
    with pytest.raises(InputError, match=rule):
        params_from_mmrec_state_dict({**state, "u_embedding": value}, "vbpr", WIDTHS)


def test_a_model_of_the_reference_comes_in_from_safetensors(tmp_path):
    """It is served, and is refused where the data or the settings are others."""
    content = {"image": features_of(7), "text": features_of(7)}
    setup = set_up(small_dataset(0).replace(features=content), Config("vbpr"))
    params = init_params(jax.random.key(0), setup.data, backbone=setup.backbone)
    state = {
        "u_embedding": np.concatenate([params["user_embedding"], params["user_content"]], axis=1),
        "i_embedding": np.asarray(params["item_embedding"]),
        "item_linear.weight": np.concatenate([params["text_projection"], params["image_projection"]]).T.copy(),
        "item_linear.bias": np.asarray(params["content_bias"]),
    }
    save_file(state, tmp_path / "vbpr.safetensors")
    model = imported(setup, read_safetensors(tmp_path / "vbpr.safetensors"))
    for name, leaf in flat(params).items():
        np.testing.assert_array_equal(flat(model.params)[name], leaf)
    assert model.recommend([0], 3).shape == (1, 3)
    smaller = set_up(setup.dataset, Config("vbpr", vbpr.Settings(embedding_size=8)))
    with pytest.raises(InputError, match=r"with this data and these settings .* is expected"):
        imported(smaller, state)
    with pytest.raises(InputError, match="its training cannot be replayed"):
        answer(model, ["users:1"], "coupled")
    (tmp_path / "vbpr.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0damaged!")
    with pytest.raises(InputError, match=r"no readable \.safetensors file"):
        read_safetensors(tmp_path / "vbpr.safetensors")
    with pytest.raises(InputError, match="a list is given"):
        params_from_mmrec_state_dict([1], "vbpr")


def test_settings_are_read_by_name():
    for kind in BACKBONES.values():
        assert dataclasses.is_dataclass(kind.Settings)
        hash(kind.Settings())  # a static argument of compiled functions
