"""How time and memory grow with the number of interactions: 200 training steps at each size, up to 10^7 pairs of 10^6 users and 10^5 items.

    python benchmarks/growth.py OUT.json [--pairs 100000 300000 1000000 3000000 10000000] [--steps 200]
        [--set train.batch_size=512 ...]

A user has ten pairs and an item a hundred on average, two modalities are 32-d. Each size runs in a process of its own, so that its peak
memory is its own; each result is written at once, and the same command skips it. At last the largest size answers a request for a
thousandth of its users, in a further process and after ten steps of training: its time does not depend on how good the model is. Beside the
JSON a plot is drawn, with the slopes of time and memory in log-log axes.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from timing import peak_memory, settings

from recunlearn_jax.backbones import backbone_kind
from recunlearn_jax.config import Config
from recunlearn_jax.environment import environment
from recunlearn_jax.files import write_json
from recunlearn_jax.process import keep_freed_memory
from recunlearn_jax.recommender import Recommender, init_params, recommender, set_up
from recunlearn_jax.requests import parse, resolve
from recunlearn_jax.stopwatch import stopwatch
from recunlearn_jax.synthetic import toy
from recunlearn_jax.train import init_state, train_epoch
from recunlearn_jax.unlearn import answer as answered

PAIRS = (100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)


ANSWER_STEPS = 10  # of training before the request is answered


def one_size(pairs: int, steps: int, config: Config) -> tuple[dict[str, Any], Recommender]:
    """Seconds a step and bytes at the peak, and what was trained."""
    start = time.perf_counter()
    # Of a user's draws two are held out.
    dataset = toy(pairs // 10, pairs // 100, pairs_per_user=12, clusters=max(1, pairs // 20000), feature_size=32)
    dataset = backbone_kind(config.backbone).complete(dataset, config.model)
    made = time.perf_counter() - start
    setup = set_up(dataset, config)
    whole, backbone = setup.data, setup.backbone
    params = init_params(jax.random.key(0), whole, backbone=backbone)
    # The graph is the whole one; the epoch ends after so many steps.
    short = min(steps * config.train.batch_size, len(dataset.train))
    data = whole._replace(sampler=whole.sampler._replace(num_pairs=np.int32(short)))
    state, taken, seconds = init_state(params), 0, 0.0
    with stopwatch() as compiled:
        state, _ = jax.block_until_ready(
            train_epoch(
                state,
                data._replace(sampler=data.sampler._replace(num_pairs=np.int32(1))),
                jax.random.key(0),
                backbone=backbone,
                config=config.train,
            )
        )
    while taken < steps:
        start = time.perf_counter()
        state, loss = jax.block_until_ready(
            train_epoch(state, data, jax.random.key(0), backbone=backbone, config=config.train)
        )
        seconds += time.perf_counter() - start
        taken += -(-short // config.train.batch_size)
    result = {
        "pairs": len(dataset.train),
        "summary": dataset.summary(),
        "steps": taken,
        "step_seconds": seconds / taken,
        "loss": float(loss),
        "data_and_item_graph_seconds": made,
        "compile_seconds": compiled.compiling,
        "training_peak_bytes": peak_memory(),
    }
    return result, recommender(setup, state.params)


def answer(original: Recommender) -> dict[str, Any]:
    """Seconds and bytes of a request for a thousandth of the users."""
    forget_set = resolve(parse(["users:0.1%"], 1), original.dataset)
    answers = [answered(original, forget_set, "delta", seed=seed) for seed in range(2)]
    return {
        "summary": original.dataset.summary(),
        "forgotten": forget_set.counts(),
        "seconds": answers[1].seconds.total,
        "first_seconds": answers[0].seconds.total,
        "programs_of_the_second": answers[1].seconds.programs,
        "info": answers[1].info,
        "peak_bytes": peak_memory(),
    }


def in_new_process(*words: object) -> dict[str, Any]:
    """What this script prints last when it is called with these words."""
    command = [sys.executable, __file__, *map(str, words)]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(ran.stdout.splitlines()[-1])


def slope(sizes: list[int], values: list[float]) -> float:
    """Of a straight line through the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def plot(result: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    points = result["points"]
    sizes = [p["pairs"] for p in points]
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.8))
    for axis, values, label, grows in (
        (axes[0], [p["step_seconds"] for p in points], "seconds a training step", result["slope_time"]),
        (axes[1], [p["training_peak_bytes"] / 2**30 for p in points], "peak memory, GiB", result["slope_memory"]),
    ):
        axis.loglog(sizes, values, "o-")
        axis.loglog(sizes, [values[-1] * n / sizes[-1] for n in sizes], ":", color="grey", label="slope 1")
        axis.set(xlabel="interactions", ylabel=label, title=f"slope {grows:.2f}")
        axis.grid(True, which="both", alpha=0.2)
        axis.legend()
    figure.suptitle(f"{result['environment']['device']}, {result['environment']['cores']} cores", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    keep_freed_memory()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--pairs", type=int, nargs="+", default=PAIRS)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--set", nargs="*", default=[], help="single settings, such as train.batch_size=512")
    parser.add_argument("--one", type=int, help="measure this size only, and print it")
    parser.add_argument("--answer", type=int, help="answer a request on this size only, and print what it took")
    words = parser.parse_args()
    if words.one or words.answer:
        result, original = one_size(words.one or words.answer, words.steps, settings("faithful", words.set))
        print(json.dumps(answer(original) if words.answer else result))
        return
    done: dict[str, Any] = json.loads(words.out.read_text()) if words.out.exists() else {"points": []}
    for size in sorted(words.pairs):
        if any(point["asked"] == size for point in done["points"]):
            continue
        point = in_new_process(words.out, "--one", size, "--steps", words.steps, "--set", *words.set)
        done["points"].append({"asked": size} | point)
        sizes = [p["pairs"] for p in done["points"]]
        if len(sizes) > 1:
            done["slope_time"] = slope(sizes, [p["step_seconds"] for p in done["points"]])
            done["slope_memory"] = slope(sizes, [p["training_peak_bytes"] for p in done["points"]])
        done["environment"] = environment()
        write_json(words.out, done)
        print(done["points"][-1], flush=True)
    if "unlearning" not in done:
        largest = ("--answer", max(words.pairs), "--steps", ANSWER_STEPS)
        done["unlearning"] = in_new_process(words.out, *largest, "--set", *words.set)
        write_json(words.out, done)
        print(done["unlearning"], flush=True)
    if len(done["points"]) > 1:
        plot(done, words.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
