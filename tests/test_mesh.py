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

from recunlearn_jax.mesh import AXIS, device_mesh, devices_in_use, place, spread

SCRIPT = Path(__file__).parent.parent / "experiments" / "tpu" / "mesh.py"


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


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The experiment on fake devices of one CPU."""
    place = tmp_path_factory.mktemp("mesh")
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    found = {}
    for count in (1, 2, 8):
        out = place / f"{count}.json"
        command = [sys.executable, str(SCRIPT), str(out), "--devices", str(count), "--epochs", "2"]
        environment = {**os.environ, "XLA_FLAGS": flags}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        found[count] = json.loads(out.read_text())
    return found


@pytest.mark.parametrize("count", [2, 8])
def test_train_unlearn_and_gold_give_the_same_numbers(results, count):
    one, many = results[1], results[count]
    assert many["devices"] == count
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
