"""How time and memory grow with the number of interactions: training steps at each size, up to 10^7 pairs of 10^6 users and 10^5 items.

    python benchmarks/growth.py OUT.json [--pairs 100000 300000 1000000 3000000 10000000] [--steps 200]
        [--set train.batch_size=512 ...] [--requests]

A user has ten pairs and an item a hundred on average, two modalities are 32-d. Each size runs in a process of its own, so that its peak
memory is its own; each result is written at once, and the same command skips it. A step is timed within an epoch that is cut short; what
drawing an epoch's batches takes stands beside it. Each size ranks for 2,000 users, and answers a request for a hundred users, the same
number at every size; the largest answers requests for a thousandth of its users, items and pairs as well, in a further process. How good
the model is changes no time. Beside the JSON a plot is drawn, with slopes in log-log axes. With --requests steps keep what was measured of
them, and requests are measured anew.
"""

import argparse
import json
import statistics
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
from recunlearn_jax.evaluate import ranking_metrics, task_on
from recunlearn_jax.files import write_json
from recunlearn_jax.process import keep_freed_memory
from recunlearn_jax.recommender import Recommender, init_params, set_up
from recunlearn_jax.requests import Request, parse, resolve
from recunlearn_jax.stopwatch import stopwatch
from recunlearn_jax.synthetic import toy
from recunlearn_jax.train import init_state, train_epoch
from recunlearn_jax.unlearn import answer as answered
from recunlearn_jax.unlearn import prepare

RANKED, LEAVING = 2_000, 100  # users
SHARES = ("users:0.1%", "items:0.1%", "pairs:0.1%")
PAIRS = (100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)


ANSWER_STEPS = 10  # of training before requests for shares are answered


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
    state = init_state(params)

    def epoch(state, places: int):
        """An epoch on the whole graph that ends after so many places; drawing its batches takes as long as for all of them."""
        data = whole._replace(sampler=whole.sampler._replace(num_places=np.int32(places)))
        start = time.perf_counter()
        state, loss = jax.block_until_ready(
            train_epoch(state, data, jax.random.key(0), backbone=backbone, config=config.train)
        )
        return state, float(loss), time.perf_counter() - start

    with stopwatch() as compiled:
        state, _, _ = epoch(state, 1)
    firsts = []  # the shortest of three: one that was held up would make the further steps look shorter than nothing
    for _ in range(3):
        state, _, first = epoch(state, 1)
        firsts.append(first)
    first = min(firsts)
    short = min(steps * config.train.batch_size, len(dataset.train))
    taken = -(-short // config.train.batch_size)
    state, loss, seconds = epoch(state, short)
    step = (seconds - first) / max(taken - 1, 1)
    result = {
        "pairs": len(dataset.train),
        "summary": dataset.summary(),
        "steps": taken,
        "step_seconds": step,
        "drawing_seconds": first - step,
        "loss": loss,
        "data_and_item_graph_seconds": made,
        "compile_seconds": compiled.compiling,
        "training_peak_bytes": peak_memory(),
    }
    return result, Recommender(setup, state.params)


def served(original: Recommender) -> dict[str, Any]:
    """Seconds of ranking for some users, and of a request for a hundred."""
    dataset = original.dataset
    some = dataset.valid[dataset.valid[:, 0] < RANKED]
    task = task_on(dataset, some)
    ranking_metrics(original.rows, task, (20,))  # compiles
    start = time.perf_counter()
    ranking_metrics(original.rows, task, (20,))
    ranked = time.perf_counter() - start
    leaving = np.random.default_rng(1).choice(dataset.num_users, LEAVING, replace=False)
    return {"ranking_seconds": ranked, "request": answer(original, Request(users=leaving.tolist()), 5)}


def answer(original: Recommender, request: Request, answers: int) -> dict[str, Any]:
    """Seconds and bytes of a request, resolving it included: the median of some answers after the one that compiles.

    What is prepared before a request stands apart; `first_seconds` has both. The rows from which lists are served come after the answer
    (`rows_seconds`).
    """
    seconds, preparing, served, made = [], [], [], None
    for seed in range(answers + 1):
        memory = prepare(original, "delta", seed=seed)
        assert memory.seconds is not None
        preparing.append(memory.seconds.total)
        start = time.perf_counter()
        forget_set = resolve(request, original.dataset)
        resolving = time.perf_counter() - start
        made = answered(original, forget_set, "delta", seed=seed, memory=memory)
        seconds.append(resolving + made.seconds.total)
        start = time.perf_counter()
        jax.block_until_ready(made.rows)
        served.append(time.perf_counter() - start)
    assert made is not None
    return {
        "forgotten": forget_set.counts(),
        "seconds": statistics.median(seconds[1:]),
        "preparing_seconds": statistics.median(preparing[1:]),
        "rows_seconds": statistics.median(served[1:]),
        "first_seconds": preparing[0] + seconds[0],
        "programs_of_the_last": made.seconds.programs,
        "info": made.info,
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
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.8))
    for axis, values, label, grows in (
        (axes[0], [p["step_seconds"] for p in points], "seconds a training step", result["slope_time"]),
        (axes[1], [p["training_peak_bytes"] / 2**30 for p in points], "peak memory, GiB", result["slope_memory"]),
        (
            axes[2],
            [p["request"]["seconds"] for p in points],
            "seconds of a request for 100 users",
            result["slope_request"],
        ),
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
    parser.add_argument("--shares", nargs="+", default=SHARES, help="requests that the largest size answers")
    parser.add_argument("--one", type=int, help="measure this size only, and print it")
    parser.add_argument(
        "--answer", type=int, help="answer requests for shares on this size only, and print what they took"
    )
    parser.add_argument("--requests", action="store_true", help="measure requests anew, and nothing else")
    words = parser.parse_args()
    if words.one or words.answer:
        result, original = one_size(words.one or words.answer, words.steps, settings("faithful", words.set))
        shares = {"summary": original.dataset.summary(), "requests": {}}
        for text in words.shares if words.answer else ():
            shares["requests"][text] = answer(original, parse([text], 1), 1)
        print(json.dumps(shares if words.answer else result | served(original)))
        return
    done: dict[str, Any] = json.loads(words.out.read_text()) if words.out.exists() else {"points": []}
    for point in done["points"] if words.requests else ():
        found = in_new_process(words.out, "--one", point["asked"], "--steps", ANSWER_STEPS, "--set", *words.set)
        point |= {key: found[key] for key in ("ranking_seconds", "request")}
        done["requests_environment"] = environment()
        write_json(words.out, done)
        print(point, flush=True)
    if words.requests:
        done.pop("unlearning", None)
    for size in sorted(words.pairs):
        if any(point["asked"] == size for point in done["points"]):
            continue
        point = in_new_process(words.out, "--one", size, "--steps", words.steps, "--set", *words.set)
        done["points"].append({"asked": size} | point)
        done["environment"] = environment()
        write_json(words.out, done)
        print(done["points"][-1], flush=True)
    if len(done["points"]) > 1:
        sizes = [p["pairs"] for p in done["points"]]
        done["slope_time"] = slope(sizes, [p["step_seconds"] for p in done["points"]])
        done["slope_memory"] = slope(sizes, [p["training_peak_bytes"] for p in done["points"]])
        done["slope_request"] = slope(sizes, [p["request"]["seconds"] for p in done["points"]])
        write_json(words.out, done)
    if "unlearning" not in done:
        largest = ("--answer", max(words.pairs), "--steps", ANSWER_STEPS, "--shares", *words.shares)
        done["unlearning"] = in_new_process(words.out, *largest, "--set", *words.set)
        write_json(words.out, done)
        print(done["unlearning"], flush=True)
    if len(done["points"]) > 1:
        plot(done, words.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
