"""MGCN against a dense float64 oracle, for every number of modalities, and what its parts promise."""

import functools
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recunlearn_jax.backbones.base import shape_of, sizes_of
from recunlearn_jax.backbones.mgcn import Graphs, Output, Settings, make, module
from recunlearn_jax.config import Config
from recunlearn_jax.dataset import Dataset
from recunlearn_jax.errors import InputError
from recunlearn_jax.graph import with_item_graphs
from recunlearn_jax.interop import params_from_mmrec_state_dict
from recunlearn_jax.recommender import init_params, set_up

USERS, ITEMS, SIZE = 7, 6, 4
WIDTHS = {"audio": 3, "image": 5, "text": 2}
TRAIN = np.array(
    [[0, 0], [0, 1], [1, 1], [1, 2], [2, 0], [2, 3], [3, 4], [4, 2], [4, 3], [4, 5], [6, 1]], np.int32
)  # user 5 has no interaction
NO_PAIRS = np.zeros((0, 2), np.int32)
PARTIAL = (("image", 2), ("image", 4), ("text", 4))  # item 2 has no image, item 4 nothing
BATCH = tuple(jnp.array(x, jnp.int32) for x in ([0, 2, 2, 4], [1, 2, 3, 5], [4, 5, 2, 0]))


@functools.cache
def dataset_of(modalities: tuple[str, ...], without: tuple[tuple[str, int], ...] = ()) -> Dataset:
    """Item graphs attached; `without` names (modality, item) that is missing."""
    features = {}
    for name in modalities:
        features[name] = np.random.default_rng(len(name)).normal(size=(ITEMS, WIDTHS[name])).astype(np.float32)
        features[name] += 1  # similarities are positive, as those of real features are
    for name, item in without:
        features[name][item] = 0
    return with_item_graphs(Dataset("small", USERS, ITEMS, TRAIN, NO_PAIRS, NO_PAIRS, features=features), 3)


class World:
    """A model with its graphs, features and parameters; its functions are compiled once a test module."""

    def __init__(self, dataset: Dataset, **settings):
        self.settings = Settings(embedding_size=SIZE, neighbours=3, **settings)
        self.dataset, self.model = dataset, module(shape_of(dataset), self.settings)
        self.backbone = make(shape_of(dataset), self.settings)
        self.graphs: Graphs = self.backbone.graphs(dataset, sizes_of(dataset))
        self.features = {m: jnp.asarray(dataset.features[m]) for m in dataset.modalities}
        self.params = random_params(dataset, self.settings.trainable_features)

    @functools.cached_property
    def compiled(self):
        return jax.jit(lambda params, graphs, features: self.model.apply({"params": params}, graphs, features))

    def forward(self, params, graphs=None, features=None) -> Output:
        return self.compiled(params, graphs or self.graphs, features or self.features)

    @functools.cached_property
    def pull(self):
        """Gradient of <cotangent, Z> in the parameters."""

        def inner(params, cotangent):
            return jnp.vdot(
                cast(Any, self.model.apply({"params": params}, self.graphs, self.features)).embedding, cotangent
            )

        return jax.jit(jax.grad(inner))


def random_params(dataset, trainable_features=True):
    """All of order 1, so that no gate or attention is flat; in the order of names, so a modality has the same in every model."""

    def normal(name, *shape):
        return np.random.default_rng(list(name.encode())).normal(size=shape).astype(np.float32)

    def dense(name, fan_in, bias=True, out=SIZE):
        layer = {"kernel": normal(name, fan_in, out)}
        return layer | {"bias": normal(name + " bias", out)} if bias else layer

    params = {"user_embedding": normal("user", USERS, SIZE), "item_embedding": normal("item", ITEMS, SIZE)}
    for m in dataset.modalities:
        if trainable_features:
            params[f"{m}_features"] = dataset.features[m]
        params[f"{m}_projection"] = dense(f"{m} projection", WIDTHS[m])
        params[f"{m}_purifier"] = dense(f"{m} purifier", SIZE)
        params[f"{m}_preference"] = dense(f"{m} preference", SIZE)
    if dataset.modalities:
        params["attention_hidden"] = dense("hidden", SIZE)
        params["attention_score"] = dense("score", SIZE, bias=False, out=1)
    return jax.tree.map(jnp.asarray, params)


def world_of(modalities: tuple[str, ...], without: tuple[tuple[str, int], ...] = (), **settings) -> World:
    return _world(modalities, without, tuple(sorted(({"layout": "csr"} | settings).items())))


@functools.cache
def _world(modalities, without, settings):
    return World(dataset_of(modalities, without), **dict(settings))


# The oracle


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def dense_a_hat(train):
    a = np.zeros((USERS + ITEMS,) * 2)
    for user, item in train:
        a[user, USERS + item] = a[USERS + item, user] = 1
    root = np.array([d**-0.5 if d else 0 for d in a.sum(axis=1)])
    return root[:, None] * a * root


def oracle_forward(dataset, params, user_item_layers=2, item_item_layers=1) -> Output:
    """MGCN in dense float64, the fuser one node after another over the modalities that the node has."""
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    a_hat = dense_a_hat(dataset.train)

    def linear(name, x):
        return x @ params[name]["kernel"] + params[name].get("bias", 0)

    tables = np.concatenate([params["user_embedding"], params["item_embedding"]])
    content = sum(np.linalg.matrix_power(a_hat, p) @ tables for p in range(user_item_layers + 1)) / (
        user_item_layers + 1
    )
    modal = {}
    for m in dataset.modalities:
        has = dataset.features[m].any(axis=1)
        similarity = dataset.similarities[m].toarray().astype(np.float64) * has[:, None] * has
        root = np.array([d**-0.5 if d else 0 for d in similarity.sum(axis=1)])
        raw = params.get(f"{m}_features", dataset.features[m])
        purified = params["item_embedding"] * sigmoid(linear(f"{m}_purifier", linear(f"{m}_projection", raw)))
        purified = np.linalg.matrix_power(root[:, None] * similarity * root, item_item_layers) @ (
            has[:, None] * purified
        )
        modal[m] = np.concatenate([a_hat[:USERS, USERS:] @ purified, purified])
    side = np.zeros_like(content)
    for node in range(USERS + ITEMS):
        present = [m for m in dataset.modalities if node < USERS or dataset.features[m][node - USERS].any()]
        if not present:
            continue
        scores = [linear("attention_score", np.tanh(linear("attention_hidden", modal[m][node])))[0] for m in present]
        attention = np.exp(scores) / np.sum(np.exp(scores))
        common = sum(a * modal[m][node] for a, m in zip(attention, present, strict=True))
        specific = sum(sigmoid(linear(f"{m}_preference", content[node])) * (modal[m][node] - common) for m in present)
        side[node] = (specific + common) / (1 + len(present))
    return Output(content + side, side, content)


def close(ours, theirs, relative=1e-5):
    """Relative to the largest entry of each array."""

    def check(a, b):
        b = np.asarray(b)
        np.testing.assert_allclose(np.asarray(a), b, rtol=relative, atol=relative * max(1e-3, np.abs(b).max()))

    jax.tree.map(check, ours, theirs)


ALL = ("audio", "image", "text")
every_layout = pytest.mark.parametrize("layout", ["segment", "csr", "gather"])


@pytest.mark.parametrize(
    ("modalities", "layout"),
    [((), "csr"), (("text",), "csr"), (("image", "text"), "csr"), (ALL, "csr"), (ALL, "segment"), (ALL, "gather")],
)
def test_dense_oracle(modalities, layout):
    world = world_of(modalities, layout=layout)
    out = world.forward(world.params)
    close(out, oracle_forward(world.dataset, world.params))
    assert out.embedding.shape == (USERS + ITEMS, SIZE)
    assert out.embedding.dtype == jnp.float32


@pytest.mark.parametrize("layers", [0, 3])
def test_without_modality_it_is_lightgcn(layers):
    """Mean of the powers of A_hat times the tables, nothing else; no layer at all leaves the tables."""
    world = world_of((), user_item_layers=layers)
    assert set(world.params) == {"user_embedding", "item_embedding"}
    out = world.forward(world.params)
    tables = np.concatenate([world.params["user_embedding"], world.params["item_embedding"]]).astype(np.float64)
    power, total = tables, tables
    for _ in range(layers):
        power = dense_a_hat(TRAIN) @ power
        total = total + power
    close(out.embedding, total / (layers + 1))
    assert not out.side.any()
    np.testing.assert_array_equal(out.content, out.embedding)


def test_numbers_of_layers():
    settings = {"user_item_layers": 3, "item_item_layers": 2}
    world = world_of(("image", "text"), **settings)
    close(world.forward(world.params), oracle_forward(world.dataset, world.params, **settings))


def test_layouts_have_the_same_gradient():
    cotangent = np.random.default_rng(0).normal(size=(USERS + ITEMS, SIZE)).astype(np.float32)
    gradients = []
    for layout in ("segment", "csr", "gather"):
        world = world_of(("image", "text"), layout=layout)
        gradients.append(world.pull(world.params, cotangent))
    for ours in gradients[1:]:
        close(ours, gradients[0], 1e-4)
    assert all(np.abs(g).max() > 1e-6 for g in jax.tree.leaves(gradients[0]))


def views_of(out, users, positives, negatives):
    """What `batch` promises, taken from the full forward pass."""
    positives, negatives = USERS + positives, USERS + negatives
    embeddings = (out.embedding[rows] for rows in (users, positives, negatives))
    return (*embeddings, out.side[users], out.content[users], out.side[positives], out.content[positives])


def test_batch_is_the_full_forward_pass_gathered():
    """Rows and gradients, users and items named more than once and an item without image included."""
    world = world_of(("image", "text"), PARTIAL)
    rng = np.random.default_rng(1)
    cotangents = [rng.normal(size=(4, SIZE)).astype(np.float32) for _ in range(7)]

    def ours(params):
        views = cast(Any, world.model.apply({"params": params}, world.graphs, world.features, *BATCH, method="batch"))
        assert views.user_ids is BATCH[0]
        assert views.positive_ids is BATCH[1]
        return tuple(views)[:7]

    def theirs(params):
        return views_of(world.forward(params), *BATCH)

    def gradient(views):
        def inner(params):
            rows = views(params)
            return sum(jnp.vdot(row, c) for row, c in zip(rows, cotangents, strict=True)), rows

        return jax.jit(jax.grad(inner, has_aux=True))(world.params)

    (our_gradient, our_rows), (their_gradient, their_rows) = gradient(ours), gradient(theirs)
    close(our_rows, their_rows, 1e-6)
    close(our_gradient, their_gradient, 1e-5)


def test_batch_without_modality():
    world = world_of(())
    batch = jax.jit(lambda params: world.model.apply({"params": params}, world.graphs, {}, *BATCH, method="batch"))
    close(tuple(batch(world.params))[:7], views_of(world.forward(world.params), *BATCH), 1e-6)


@pytest.mark.parametrize("modalities", [("image", "text"), ()])
def test_the_backbone_is_the_module(modalities):
    """The pure functions of the contract hand on the module's rows and views; side and content are there for the contrast."""
    world = world_of(modalities)
    setup = set_up(world.dataset, Config(model=world.settings))
    assert setup.backbone is world.backbone
    rows = jax.jit(world.backbone.rows)(world.params, setup.data)
    close(rows, world.forward(world.params).embedding, 1e-6)
    views = jax.jit(world.backbone.views)(world.params, setup.data, *BATCH)
    close(tuple(views)[:7], views_of(world.forward(world.params), *BATCH), 1e-6)
    assert world.backbone.contrast == bool(modalities)


# An item that lacks a modality


def test_missing_modality_against_the_oracle():
    """The oracle's attention and divisor know only the modalities that a node has."""
    world = world_of(("image", "text"), PARTIAL)
    out = world.forward(world.params)
    close(out, oracle_forward(world.dataset, world.params))
    assert not out.side[USERS + 4].any()
    np.testing.assert_array_equal(out.embedding[USERS + 4], out.content[USERS + 4])
    assert np.abs(out.side[USERS + 2]).max() > 1e-3


def test_an_item_without_a_modality_is_one_of_the_model_without_it():
    partial, text = world_of(("image", "text"), PARTIAL), world_of(("text",), (("text", 4),))
    ours, theirs = (world.forward(world.params) for world in (partial, text))
    row, same = (jax.tree.map(lambda x: x[USERS + 2], out) for out in (ours, theirs))
    close(row, same, 1e-6)
    assert np.abs(ours.side[USERS + 3] - theirs.side[USERS + 3]).max() > 1e-3  # another item has its image


@pytest.mark.parametrize("item_item_layers", [1, 0])
def test_features_of_a_missing_modality_reach_nobody(item_item_layers):
    """The table has a trainable row for the item all the same, but no output depends on it; users see it without layers too."""
    world = world_of(("image", "text"), PARTIAL, item_item_layers=item_item_layers)
    changed = dict(world.params)
    changed["image_features"] = changed["image_features"].at[jnp.array([2, 4])].set(7)
    changed["text_features"] = changed["text_features"].at[4].set(-3)
    jax.tree.map(np.testing.assert_array_equal, world.forward(changed), world.forward(world.params))


def test_features_of_a_missing_modality_have_no_gradient():
    world = world_of(("image", "text"), PARTIAL)
    gradient = world.pull(world.params, np.ones((USERS + ITEMS, SIZE), np.float32))
    image, text = np.asarray(gradient["image_features"]), np.asarray(gradient["text_features"])
    assert not image[[2, 4]].any()
    assert not text[4].any()
    assert (np.abs(image[[0, 1, 3, 5]]).max(axis=1) > 1e-4).all()
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))


def test_an_item_graph_from_a_file_brings_no_missing_modality_back():
    """A file may hold edges of an item whose features are gone; degrees too are those without them."""
    full, partial = dataset_of(("image", "text")), world_of(("image", "text"), PARTIAL)
    dataset = partial.dataset.replace(similarities=full.similarities)
    assert dataset.similarities["image"][:, 2].nnz > 1
    graphs = partial.backbone.graphs(dataset, sizes_of(dataset))
    ours = partial.forward(partial.params, graphs)
    close(ours, oracle_forward(dataset, partial.params))
    changed = partial.params | {"image_features": partial.params["image_features"].at[2].set(7)}
    jax.tree.map(np.testing.assert_array_equal, partial.forward(changed, graphs), ours)


# Features and parameters


def test_frozen_features():
    """No feature parameter, and the same output: the tables given are those that would be trained."""
    frozen, trained = world_of(("image", "text"), trainable_features=False), world_of(("image", "text"))
    names = set(jax.eval_shape(frozen.model.init, jax.random.key(0), frozen.graphs, frozen.features)["params"])
    assert names == set(frozen.params)
    assert not any(name.endswith("_features") for name in names)
    close(frozen.forward(frozen.params), trained.forward(trained.params), 1e-6)


def test_trainable_features_are_read_from_the_parameters():
    world = world_of(("image", "text"))
    others = {m: jnp.zeros_like(x) for m, x in world.features.items()}
    out = world.forward(world.params, features=others)
    jax.tree.map(np.testing.assert_array_equal, out, world.forward(world.params))


@pytest.fixture(scope="module")
def initial():
    world = world_of(("image", "text"))
    setup = set_up(world.dataset, Config(model=world.settings))
    return world, [init_params(jax.random.key(seed), setup.data, backbone=setup.backbone) for seed in (0, 0, 1)]


def test_init_shapes(initial):
    world, (params, *_) = initial
    assert jax.tree.map(lambda x: (x.shape, x.dtype), params) == jax.tree.map(
        lambda x: (x.shape, x.dtype), world.params
    )


def test_init_bounds(initial):
    """Linear layers +-1/sqrt(fan_in) and tables xavier uniform; the largest entries come near the bound."""
    _, (params, *_) = initial
    for name, layer in params.items():
        if name.endswith("_features"):
            continue
        if name.endswith("_embedding"):
            entries, bound = layer, np.sqrt(6 / sum(layer.shape))
        else:
            entries = np.concatenate([x.ravel() for x in layer.values()])
            bound = 1 / np.sqrt(layer["kernel"].shape[0])
        largest = np.abs(entries).max()
        assert largest <= bound * (1 + 1e-6), name
        if name != "attention_score":  # four numbers only
            assert largest > 0.6 * bound, name
        assert np.unique(entries).size == entries.size, name
        assert entries.min() < 0 < entries.max(), name


def test_init_takes_features_as_given(initial):
    world, (params, *_) = initial
    for m in ("image", "text"):
        np.testing.assert_array_equal(params[f"{m}_features"], world.dataset.features[m])


def test_init_depends_on_the_key_alone(initial):
    _, (first, again, other) = initial
    jax.tree.map(np.testing.assert_array_equal, first, again)
    for name in ("user_embedding", "attention_hidden"):
        assert all((a != b).all() for a, b in zip(*(jax.tree.leaves(p[name]) for p in (first, other)), strict=True))


@every_layout
def test_graphs_in_arrays_as_large_as_another_data_sets(layout):
    """An edited data set runs in the program of the original."""
    original = dataset_of(("image", "text"))
    edited = original.replace(train=TRAIN[[0, 2, 3, 7]], features=dict(dataset_of(("image", "text"), PARTIAL).features))
    edited = with_item_graphs(edited.replace(similarities={}), 3)
    world = world_of(("image", "text"), layout=layout)
    large, small = (world.backbone.graphs(dataset, sizes_of(original)) for dataset in (original, edited))
    shapes = [jax.tree.map(lambda x: (x.shape, x.dtype), graphs) for graphs in (large, small)]
    assert shapes[0] == shapes[1]
    close(world.forward(world.params, small), oracle_forward(edited, world.params))


# Parameters of the reference


def reference_state(modalities=("image", "text")):
    """A state dict as the reference names it, from the same random parameters."""
    params = random_params(dataset_of(tuple(modalities)))
    state = {
        "user_embedding.weight": params["user_embedding"],
        "item_id_embedding.weight": params["item_embedding"],
    }

    def linear(theirs, ours):
        state[f"{theirs}.weight"] = params[ours]["kernel"].T
        if "bias" in params[ours]:
            state[f"{theirs}.bias"] = params[ours]["bias"]

    for m in modalities:
        state[f"{m}_embedding.weight"] = params[f"{m}_features"]
        linear(f"{m}_trs", f"{m}_projection")
        linear({"image": "gate_v.0", "text": "gate_t.0"}[m], f"{m}_purifier")
        linear(f"gate_{m}_prefer.0", f"{m}_preference")
    if modalities:
        linear("query_common.0", "attention_hidden")
        linear("query_common.2", "attention_score")
    return params, {name: np.asarray(x) for name, x in state.items()}


@pytest.mark.parametrize("modalities", [("image", "text"), ("text",), ()])
def test_parameters_of_the_reference(modalities):
    params, state = reference_state(modalities)
    ours = params_from_mmrec_state_dict(state)
    assert jax.tree.structure(ours) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, ours, params)


@pytest.mark.parametrize("name", ["user_embedding.weight", "gate_v.0.bias", "query_common.2.weight"])
def test_missing_entry_of_a_state_dict(name):
    _, state = reference_state()
    del state[name]
    with pytest.raises(InputError, match=f"entry '{name}' is missing; it has gate_image_prefer.0.bias"):
        params_from_mmrec_state_dict(state)


def test_unknown_entries_of_a_state_dict():
    _, state = reference_state()
    with pytest.raises(InputError, match=r"unknown entries a\.bias, z\.weight for mgcn"):
        params_from_mmrec_state_dict(state | {"z.weight": np.zeros(1), "a.bias": np.zeros(1)})
    # the bias that the reference's attention score has not
    with pytest.raises(InputError, match=r"unknown entries query_common\.2\.bias"):
        params_from_mmrec_state_dict(state | {"query_common.2.bias": np.zeros(1)})
