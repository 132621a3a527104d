"""The benchmarks run, on data small enough for a test, and their figures hang together."""

import dataclasses
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

from recunlearn_jax import losses
from recunlearn_jax.data import write_dataset
from recunlearn_jax.products import feature_product
from recunlearn_jax.synthetic import toy
from recunlearn_jax.unlearn.delta import Settings

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SMALL = ("train.batch_size=256", "model.embedding_size=16")
SHORT = "train.max_epochs=12"


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Of the scripts: one device, quick compilation, and programs kept for the next script; where cold is measured, it has its own."""
    cache = tmp_path_factory.mktemp("programs")
    return {
        **os.environ,
        "XLA_FLAGS": COMPILER_FLAGS,
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


@pytest.fixture(scope="module")
def bench(environment):
    def run(script, out, *words):
        command = [sys.executable, str(BENCHMARKS / script), str(out), *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=out.parent)
        assert done.returncode == 0, done.stderr
        return json.loads(out.read_text())

    return run


@pytest.fixture(scope="module")
def suite(environment, tmp_path_factory):
    """The accelerator suite on the smallest data, run once: folder of its results, and what it printed."""
    out = tmp_path_factory.mktemp("accelerator")
    small = {"USERS": "150", "ITEMS": "320", "WIDTH": "8", "MODALITIES": "image", "CANARIES": "2", "PRESET": "toy"}
    small |= {"MODELS": "2", "STACKED": f"--data {out / 'data'} --layouts gather"}
    command = ["bash", str(BENCHMARKS / "accelerator.sh"), str(out)]
    chosen = environment | small | {"PYTHON": sys.executable, "SET": " ".join([*SMALL, SHORT])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=chosen)
    assert done.returncode == 0, done.stderr
    assert "cut off or failed" not in done.stdout, done.stdout + done.stderr
    return out, done.stdout


def test_the_accelerator_suite_runs_in_one_call(suite):
    folder, printed = suite
    parts = {"step", "step_frozen", "unlearning", "stacked", "deterministic"}
    assert {path.stem for path in folder.glob("*.json")} == parts
    assert "no reference" in printed


@pytest.mark.parametrize("name", ["step", "step_frozen"])
def test_step(suite, name):
    result = json.loads((suite[0] / f"{name}.json").read_text())
    assert result["trainable_features"] == (name == "step")
    assert result["step"]["min"] <= result["step"]["median"] <= result["step"]["max"]
    floor = result["floor"]
    assert floor["seconds"] == pytest.approx(
        floor["flops"] / floor["gemm_flops_per_second"] + floor["bytes"] / floor["bytes_per_second"]
    )
    assert {"propagation", "info_nce", "gradient", "evaluation", "environment", "peak_memory_bytes"} <= set(result)


def test_stacked(suite):
    result = json.loads((suite[0] / "stacked.json").read_text())
    assert set(result["layouts"]) == {"gather"}
    for row in result["layouts"].values():
        assert row["same_bits"]  # a CPU's sums are always in one order
        assert row["times_one"] == row["stacked_epoch"]["median"] / row["epoch"]["median"] > 0
    alone = json.loads((suite[0] / "deterministic.json").read_text())
    assert "deterministic" in alone["xla_flags"]
    assert all("stacked_epoch" not in row for row in alone["layouts"].values())


def test_unlearning(suite, bench):
    path = suite[0] / "unlearning.json"
    result = json.loads(path.read_text())
    row = result["requests"]["users:5%"]
    assert row["delta"]["programs_after_the_first"] == 0
    for kind in ("cold", "warm", "steady"):
        assert row["delta"]["speed_up"][kind] == row["gold"][kind] / row["delta"][kind]
    assert row["delta"]["cold"] > row["delta"]["steady"]
    assert row["original"]["quality"]["forget"]["recall@20"] > row["gold"]["quality"]["forget"]["recall@20"]
    ranks = {name: row[name]["quality"]["canary"]["median_rank"] for name in ("original", "delta", "gold")}
    assert ranks["original"] < ranks["gold"], ranks
    assert all(1 <= rank < 320 for rank in ranks.values()), ranks
    assert row["forgotten"]["users"] == 8 + 16  # 5 % of the users and the canary users
    assert result["settings"]["delta"] == dataclasses.asdict(Settings())
    assert row["delta"]["info"]["moved_users"] > 0
    words = ["--data", suite[0] / "data", "--requests", "users:5%", "--plain"]
    assert bench("unlearning.py", path, *words) == result  # a finished request is not measured again


def test_operations_are_counted_in_every_turn_of_a_loop(monkeypatch):
    """Value and gradient of InfoNCE: three B x B products of width d and one matrix times a vector, in however many blocks."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    from step import matrix_operations

    gradient = jax.jit(jax.value_and_grad(losses.info_nce, (0, 1)))
    for size in (256, 2048):
        rows = jnp.ones((size, 16))
        assert matrix_operations(gradient, rows, rows) == 2 * size * size * (3 * 16 + 1)
    rows = jnp.ones((2048, 16))
    counted = jax.jit(jax.value_and_grad(lambda x, y, ids: losses.info_nce(x, y, ids=ids), (0, 1)))
    for choice, size in enumerate((768, 1536, 2048)):  # the branch that a batch takes is not the largest there is
        assert matrix_operations(counted, rows, rows, jnp.arange(2048), choices=[choice]) == 2 * size**2 * (3 * 16 + 1)
    with pytest.raises(ValueError, match="1 choices"):
        matrix_operations(gradient, rows, rows, choices=[0])
    table, kernel = jnp.ones((300, 1024)), jnp.ones((1024, 4))
    frozen = jax.jit(jax.value_and_grad(lambda kernel: jnp.sum(feature_product(table, kernel))))
    assert matrix_operations(frozen, kernel) == 2 * 2 * 300 * 1024 * 4


def test_growth(bench, tmp_path):
    words = ["--pairs", 4000, 12000, "--steps", 4, "--shares", "users:1%", "pairs:1%", "--set", *SMALL]
    result = bench("growth.py", tmp_path / "growth.json", *words)
    small, large = result["points"]
    assert [small["steps"], large["steps"]] == [4, 4]
    assert result["unlearning"]["summary"] == large["summary"]
    for answered in (small["request"], large["request"], *result["unlearning"]["requests"].values()):
        assert answered["programs_of_the_last"] == 0
        assert answered["forgotten"]["pairs"] > 0
        assert answered["info"]["moved_items"] > 0
        assert answered["peak_bytes"] > 0
        assert answered["rows_seconds"] > 0
    assert [point["request"]["forgotten"]["users"] for point in (small, large)] == [100, 100]
    assert list(result["unlearning"]["requests"]) == ["users:1%", "pairs:1%"]
    assert result["slope_time"] == pytest.approx(
        np.log(large["step_seconds"] / small["step_seconds"]) / np.log(large["pairs"] / small["pairs"])
    )
    assert (tmp_path / "growth.png").exists()


def test_time_to_quality(bench, tmp_path, monkeypatch):
    dataset = toy(150, 80, pairs_per_user=8, clusters=4, feature_size=8)
    folder = write_dataset(dataset, tmp_path / "toy")
    words = ["--data", folder, "--target", 0.15, "--presets", "toy", "--seeds", 0, 1, "--epochs", 12]
    result = bench("time_to_quality.py", tmp_path / "quality.json", *words)
    for seed, run in result["runs"]["toy"].items():
        assert run[-1]["recall@20"] >= 0.15 > max((e["recall@20"] for e in run[:-1]), default=0)
        assert run[-1]["seconds"] == result["summary"]["toy"]["reached_seconds"][seed]
    first = result["runs"]["toy"]["0"][0]
    assert 0 < first["compile_seconds"] < first["seconds"]
    assert bench("time_to_quality.py", tmp_path / "quality.json", *words) == result
    monkeypatch.syspath_prepend(BENCHMARKS)
    from time_to_quality import summary

    short, long = (
        [{"seconds": float(s), "recall@20": r} for s, r in rows] for rows in ([(1, 0.2)], [(1, 0.1), (2, 0.12)])
    )
    found = summary({"0": short, "1": long}, 0.15)
    assert found["all_seconds"] is None
    assert found["reached_epoch"] == {"0": 1, "1": None}
    assert found["given_up_after_seconds"] == {"1": 2.0}
