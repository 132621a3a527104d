"""Several devices: the same numbers on a mesh of 1, 2 and 8 devices, and arrays that lie where they should."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import COMPILER_FLAGS

from recunlearn_jax import runs
from recunlearn_jax.backbones.mgcn import Settings
from recunlearn_jax.config import Config, TrainConfig
from recunlearn_jax.mesh import AXIS, device_mesh, devices_in_use, place, spread
from recunlearn_jax.synthetic import toy
from recunlearn_jax.train import fit
from recunlearn_jax.unlearn import answer

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "experiments" / "tpu" / "mesh.py"


def test_rows_are_spread_where_they_divide_and_copied_elsewhere():
    tree = {"even": jnp.zeros((8, 3)), "odd": jnp.zeros((7, 3)), "scalar": jnp.float32(1)}
    assert place(tree) is tree
    assert devices_in_use() == 1
    with jax.set_mesh(device_mesh(4)):
        assert devices_in_use() == 4
        placed = place(tree)
        assert placed["even"].sharding.spec == jax.sharding.PartitionSpec(AXIS)
        assert placed["even"].addressable_shards[0].data.shape == (2, 3)
        assert placed["odd"].sharding.is_fully_replicated
        out = jax.jit(lambda x: spread(x) * 2)(jnp.arange(8.0))
        assert len(out.sharding.device_set) == 4
        np.testing.assert_array_equal(out, 2 * np.arange(8.0))


CONFIG = Config(
    model=Settings(embedding_size=8, neighbours=3),
    train=TrainConfig(batch_size=128, learning_rate=5e-3, max_epochs=2),
)
USERS, ITEMS = 96, 48  # both divide by four


@pytest.fixture(scope="module")
def dataset():
    return toy(USERS, ITEMS, pairs_per_user=5, clusters=4, modalities=("image",), feature_size=6)


def made(dataset):
    """A model and its answer to a request, on whatever mesh is set."""
    trained = fit(dataset, CONFIG)
    return trained, answer(trained, ["users:5%", "items:3"], "surgery", seed=1)


@pytest.fixture(scope="module")
def alone(dataset):
    return made(dataset)


@pytest.fixture(scope="module")
def on_two(dataset):
    with jax.set_mesh(device_mesh(2)):
        return made(dataset)


def assert_spread(model, count):
    """Tables and features lie on all devices by rows; what does not divide, or has no rows of nodes, is copied."""
    for array, rows in (
        (model.params["user_embedding"], USERS),
        (model.params["item_embedding"], ITEMS),
        (model.params["image_features"], ITEMS),
        (model.data.features["image"], ITEMS),
    ):
        assert len(array.sharding.device_set) == count
        assert {shard.data.shape[0] for shard in array.addressable_shards} == {rows // count}
    assert model.params["attention_score"]["kernel"].shape == (8, 1)
    for leaf in jax.tree.leaves((model.params, model.data)):
        assert len(leaf.sharding.device_set) == count


def test_training_and_answering_on_a_mesh(alone, on_two):
    """Arrays lie on both devices, and the numbers are those of one."""
    losses = [[entry["loss"] for entry in trained.history] for trained, _ in (alone, on_two)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    for one, two in zip(alone, on_two, strict=True):
        assert_spread(two, 2)
        np.testing.assert_allclose(two.rows, one.rows, rtol=1e-4, atol=1e-5)
    assert on_two[1].dataset.checksum == alone[1].dataset.checksum


@pytest.mark.parametrize("name", ["trained", "answered"])
def test_a_model_is_loaded_over_the_mesh_that_is_set(alone, name, tmp_path):
    """Written on one device, read on four, and written there and read on one: the same bits."""
    model = alone[name == "answered"]
    runs.release(tmp_path / "one", model, {"kind": name})
    with jax.set_mesh(device_mesh(4)):
        loaded = runs.load(tmp_path / "one")
        assert_spread(loaded, 4)
        again = answer(loaded, ["users:7"], "surgery")
        assert_spread(again, 4)
        runs.release(tmp_path / "four", loaded, {"kind": name})
    back = runs.load(tmp_path / "four")
    for other in (loaded, back):
        jax.tree.map(np.testing.assert_array_equal, other.params, model.params)
    assert all(len(leaf.sharding.device_set) == 1 for leaf in jax.tree.leaves((back.params, back.data)))


def test_what_devices_send_is_counted_in_a_program(monkeypatch):
    """By hand, for eight devices: a gather, a sum of two arrays and one that starts early, nothing else; and in a program of jax's own."""
    monkeypatch.setenv("XLA_FLAGS", os.environ["XLA_FLAGS"])
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from communication import collectives

    branch = "%branch_{0} (x: f32[]) -> f32[] {{\n  %r.{0} = f32[{0}]{{0}} all-reduce(%x), to_apply=%add\n}}\n"
    program = (
        branch.format(2)
        + branch.format(5)
        + """
ENTRY %main (x: f32[8,64]) -> f32[9] {
  %g = f32[8,64]{1,0} all-gather(%x), channel_id=1, dimensions={0}
  %r = (f32[16]{0}, s32[]) all-reduce(%a, %b), to_apply=%add
  %s = bf16[4,4]{1,0} collective-permute-start(%y), source_target_pairs={{0,1}}
  %c = f32[] conditional(%i, %x, %x), branch_computations={%branch_2, %branch_5}
  %d = f32[9]{0} fusion(%all-gather.3), kind=kLoop, calls=%fused
}
"""
    )
    assert collectives(program, 8) == {
        "all-gather": {"count": 1, "bytes": 8 * 64 * 4 * 7 / 8},
        "all-reduce": {"count": 2, "bytes": (16 * 4 + 4 + 5 * 4) * 2 * 7 / 8},  # of the branches, the dearer one
        "collective-permute": {"count": 1, "bytes": 32},
    }
    with pytest.raises(ValueError, match="in the loop branch_5"):
        collectives(program.replace("calls=%fused", "body=%branch_5"), 8)
    looped = program.replace("calls=%fused", 'body=%branch_5, backend_config={"known_trip_count":{"n":"3"}}')
    assert collectives(looped, 8)["all-reduce"]["count"] == 5
    with jax.set_mesh(device_mesh(4)):
        x = place(jnp.arange(8.0))
        text = jax.jit(lambda x: x - jnp.mean(x)).lower(x).compile().as_text()
    assert collectives(text, 4) == {"all-reduce": {"count": 1, "bytes": 4 * 2 * 3 / 4}}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The experiment on fake devices of one CPU, one process for each number of them."""
    place = tmp_path_factory.mktemp("mesh")
    flags = f"--xla_force_host_platform_device_count=8 {COMPILER_FLAGS}"
    small = ["model.embedding_size=16", "train.batch_size=512", "mmrecun.steps=5", "mmrecun.batch_size=64"]
    environment = {**os.environ, "XLA_FLAGS": flags}
    files = {count: place / f"{count}.json" for count in (1, 8)}
    processes = []
    for count, out in files.items():  # side by side: each compiles on one core
        command = [sys.executable, str(SCRIPT), str(out), "--devices", str(count), "--epochs", "2", "--set", *small]
        processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment))
    for process in processes:
        _, errors = process.communicate()
        assert process.returncode == 0, errors.decode()
    return {count: json.loads(out.read_text()) for count, out in files.items()}


def test_train_unlearn_and_gold_give_the_same_numbers(results):
    one, many = results[1], results[8]
    assert many["devices"] == 8
    np.testing.assert_allclose(many["losses"], one["losses"], rtol=1e-5)
    for name, model in one["models"].items():
        other = many["models"][name]
        assert other["mean_square_of_rows"] == pytest.approx(model["mean_square_of_rows"], rel=1e-4)
        for split, metrics in model["metrics"].items():
            # A rank may flip where two scores agree to rounding: of some hundred pairs, at most one or two.
            assert other["metrics"][split]["recall@20"] == pytest.approx(metrics["recall@20"], abs=5e-3)


def test_tables_lie_on_all_devices(results):
    """Each device holds an eighth of the rows, not a copy."""
    assert results[8]["rows_on_a_device"]["user_embedding"] == 100
    assert results[8]["rows_on_a_device"]["item_embedding"] == 50
