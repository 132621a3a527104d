"""The benchmarks run, on data small enough for a test, and their figures hang together."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from recunlearn_jax.data import write_dataset
from recunlearn_jax.synthetic import toy

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    dataset = toy(150, 80, pairs_per_user=8, clusters=4, feature_size=8)
    return write_dataset(dataset, tmp_path_factory.mktemp("bench") / "toy")


def bench(script, out, *words):
    command = [sys.executable, str(BENCHMARKS / script), str(out), *map(str, words)]
    environment = {**os.environ, "XLA_FLAGS": ""}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=out.parent)
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text())


def test_step(folder, tmp_path):
    result = bench("step.py", tmp_path / "step.json", "--data", folder)
    assert result["step"]["min"] <= result["step"]["median"] <= result["step"]["max"]
    floor = result["floor"]
    assert floor["seconds"] == pytest.approx(
        floor["flops"] / floor["gemm_flops_per_second"] + floor["bytes"] / floor["bytes_per_second"]
    )
    assert {"propagation", "info_nce", "gradient", "evaluation", "environment", "peak_memory_bytes"} <= set(result)


def test_unlearning(folder, tmp_path):
    words = [
        "--data",
        folder,
        "--requests",
        "users:5%",
        "--plain",
        "--canaries",
        2,
        "--preset",
        "toy",
        "--processes",
        1,
    ]
    words += ["--methods", "mmrecun", "surgery", "--run", tmp_path / "run"]
    result = bench("unlearning.py", tmp_path / "unlearning.json", *words)
    row = result["requests"]["users:5%"]
    assert row["mmrecun"]["programs_after_the_first"] == 0
    for method in ("mmrecun", "surgery"):
        for kind in ("cold", "warm", "steady"):
            assert row[method]["speed_up"][kind] == row["gold"][kind] / row[method][kind]
    assert row["mmrecun"]["cold"] > row["mmrecun"]["steady"]
    assert row["original"]["quality"]["forget"]["recall@20"] > row["gold"]["quality"]["forget"]["recall@20"]
    assert row["surgery"]["quality"]["canary"]["median_rank"] >= row["original"]["quality"]["canary"]["median_rank"]
    assert row["forgotten"]["users"] == 8 + 16  # 5 % of the users and the canary users
    again = bench("unlearning.py", tmp_path / "unlearning.json", *words)
    assert again == result  # a finished request is not measured again
