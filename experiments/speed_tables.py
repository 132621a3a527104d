"""Tables of seconds, bytes and quality of training: docs/speed.md and docs/performance.md."""

import numpy as np
from committed import BENCHMARKS, RESULTS, every, written

from recunlearn_jax.files import read_json


def quality() -> str:
    """Ranking quality against the reference's."""
    reference = read_json(RESULTS / "reference.json")
    header = ("data", "backbone", "features", "valid Recall@20", "test Recall@20", "test NDCG@20")
    rows = []
    for case, result in every(RESULTS, "quality_"):
        valid, test, ndcg = (
            [run["metrics"][split][metric] for run in result["runs"]]
            for split, metric in (("valid", "recall@20"), ("test", "recall@20"), ("test", "ndcg@20"))
        )
        theirs = [reference[f"{split}_recall@20"].get(case) for split in ("valid", "test")]
        means = [f"{np.mean(values):.4f}" for values in (valid, test, ndcg)]
        by_seed = ", ".join(f"{x:.4f}" for x in test)
        told = " / ".join("-" if value is None else f"{value:.4f}" for value in theirs)
        backbone = result["config"]["backbone"]
        rows.append((result["data"], backbone, reference["features"][case], *means, by_seed, told))
    return written([*header, "by seed (test Recall@20)", "reference, valid / test Recall@20"], rows)


def unlearning() -> str:
    """Cold, warm and steady seconds of an answer and of Gold, with the quality beside them."""
    header = (
        *("data", "cores", "request", "method", "seconds cold / warm / steady", "prepared before, s", "Gold's seconds"),
        *(
            "speed-up cold / warm / steady",
            "steady, with preparing",
            "forget Recall@20 (original, Gold)",
            "test Recall@20 (Gold)",
        ),
        "canary rank (original, Gold)",
    )
    rows = []
    for data, result in every(BENCHMARKS, "unlearning_"):
        for request, row in result["requests"].items():
            gold, original = row["gold"], row["original"]
            for method in (name for name in row if name not in {"gold", "original", "forgotten"}):
                own = row[method]
                seconds, of_gold, ratios = (
                    " / ".join(f"{of[kind]:.{digits}f}{unit}" for kind in ("cold", "warm", "steady"))
                    for of, digits, unit in ((own, 2, ""), (gold, 0, ""), (own["speed_up"], 0, "x"))
                )
                prepared = f"{own['preparing']:.2f}" if "preparing" in own else "-"
                whole = f"{own['speed_up']['unprepared']:.0f}x" if "unprepared" in own["speed_up"] else "-"
                forget, test = (
                    [m["quality"][s]["recall@20"] for m in (own, original, gold)] for s in ("forget", "test")
                )
                ranks = [m["quality"].get("canary", {}).get("median_rank") for m in (own, original, gold)]
                rows.append(
                    (
                        *(data, result["environment"]["cores"], request, method),
                        *(seconds, prepared, of_gold, ratios, whole),
                        f"{forget[0]:.4f} ({forget[1]:.4f}, {forget[2]:.4f})",
                        f"{test[0]:.4f} ({test[2]:.4f})",
                        "-" if None in ranks else f"{ranks[0]:.0f} ({ranks[1]:.0f}, {ranks[2]:.0f})",
                    )
                )
    return written(header, rows)


def speed_ups() -> str:
    """The speed-ups of the default method on tiktok and Baby in a sentence, from the slowest request to the fastest."""
    steady, unprepared, warm, cold = (_span("delta", kind) for kind in ("steady", "unprepared", "warm", "cold"))
    return (
        f"On tiktok and Baby `delta` answers {steady} as fast as our own retraining, in a process whose programs are\n"
        f"in memory and which prepared for a request while nothing came; {unprepared} where it has to prepare first;\n"
        f"{warm} in a new process that finds its programs in the cache, and {cold} when all of them have to be compiled.\n"
    )


def speed_ups_of_mmrecun() -> str:
    """Those of the paper's method, whose claim is 1.3."""
    data = " and ".join(name for name, result in every(BENCHMARKS, "unlearning_") if "mmrecun" in result["settings"])
    return (
        f"On a quiet machine `mmrecun` answers requests of {data} {_span('mmrecun', 'steady')} as fast as our own retraining, and\n"
        f"{_span('mmrecun', 'cold')} when all of its programs have to be compiled.\n"
    )


def _span(method: str, kind: str) -> str:
    """From the lowest to the highest speed-up of a method."""
    rows = [row for _, result in every(BENCHMARKS, "unlearning_") for row in result["requests"].values()]
    found = [row[method]["speed_up"][kind] for row in rows if method in row]
    ends = dict.fromkeys(f"{end:,.0f}" for end in (min(found), max(found)))  # once where they are said alike
    return f"{' to '.join(ends)} times"


def steps() -> str:
    """The training step against the floor of its device."""
    header = (
        *("data", "features", "step, ms (min to max)", "floor, ms", "achieved", "InfoNCE, ms"),
        *("propagation csr / segment, ms forward + backward", "evaluation, ms", "peak memory"),
    )
    rows = []
    for data, result in every(BENCHMARKS, "step_"):
        step, floor = result["step"], result["floor"]
        walk = " / ".join(
            f"{1e3 * sum(result['propagation'][kind][way]['median'] for way in ('forward', 'backward')):.1f}"
            for kind in ("csr", "segment")
        )
        rows.append(
            (
                *(data, "trained" if result["trainable_features"] else "frozen"),
                f"{1e3 * step['median']:.0f} ({1e3 * step['min']:.0f} to {1e3 * step['max']:.0f})",
                *(f"{1e3 * floor['seconds']:.0f}", f"{floor['achieved']:.0%}"),
                *(f"{1e3 * result['info_nce']['median']:.1f}", walk),
                f"{1e3 * result['evaluation']['median']:.0f} ({result['evaluated_users']:,} users)",
                f"{result['peak_memory_bytes'] / 2**30:.1f} GiB",
            )
        )
    return written(header, rows)


def machines() -> str:
    """Where the benchmarks ran."""
    rows = []
    for name, result in every(BENCHMARKS):
        if not {"about", "environment"} & result.keys():  # counts, which no machine changes
            continue
        on = result["about"]["ours"]["versions"] if "about" in result else result["environment"]
        rows.append((name, on["processor"], on["cores"], on["device"], on["packages"]["jax"]))
    return written(("result", "processor", "cores", "device", "jax"), rows)


def quality_times() -> str:
    """When each seed of each side reached a valid Recall@20."""
    header = (
        *("data", "cores", "valid Recall@20 to reach", "training", "epoch, by seed", "seconds, by seed"),
        *("mean of those that arrive", "every seed after"),
    )
    rows = []
    for _, result in every(BENCHMARKS, "time_to_quality_"):
        for side, found in result["summary"].items():
            seeds, stopped = found["reached_seconds"], found["given_up_after_seconds"]
            arrived = [x for x in seeds.values() if x is not None]
            rows.append(
                (
                    *(result["data"], result["environment"]["cores"], f"{result['target']:.4f}", side),
                    ", ".join("-" if x is None else str(x) for x in found["reached_epoch"].values()),
                    ", ".join(f"never ({stopped[s]:.0f})" if x is None else f"{x:.0f}" for s, x in seeds.items()),
                    f"{np.mean(arrived):.0f} s" if arrived else "-",
                    f"{found['all_seconds']:.0f} s" if not stopped else f"more than {max(stopped.values()):.0f} s",
                )
            )
    return written(header, rows)


def growth() -> str:
    """Time and memory of training by the number of interactions, and a request on the largest size."""
    result = read_json(BENCHMARKS / "growth_cpu.json")
    rows, before = [], None
    for point in result["points"]:
        size = point["summary"].split(", ")
        users, _, items = size[0].partition(" x ")
        slope = "-"
        if before:
            slope = f"{np.log(point['step_seconds'] / before['step_seconds']) / np.log(point['pairs'] / before['pairs']):.2f}"
        before = point
        memory = f"{point['training_peak_bytes'] / 2**30:.2f} GiB"
        data = f"{users.split(': ')[1]}, {items}"
        served = (
            f"{point['data_and_item_graph_seconds']:.1f}",
            f"{point['ranking_seconds']:.2f}",
            f"{point['request']['seconds']:.3f}",
            f"{point['request']['preparing_seconds']:.2f}",
            f"{point['request']['rows_seconds']:.2f}" if "rows_seconds" in point["request"] else "-",
        )
        rows.append((f"{point['pairs']:,}", data, f"{1e3 * point['step_seconds']:.0f}", slope, memory, *served))
    header = (
        *("train pairs", "data", "ms a step", "slope from the row above", "peak memory"),
        *("data and item graphs, s", "ranking for 2,000 users, s", "a request for 100 users, s"),
        *("prepared before it, s", "then its rows, s"),
    )
    slopes = "| {slope_time:.2f} | {slope_memory:.2f} | | | {slope_request:.2f} | | |".format(**result)
    shares = result["unlearning"]["requests"]
    told = "; ".join(
        f"{words}: {row['seconds']:.2f} s ({row['first_seconds']:.1f} s with preparing and compiling)"
        for words, row in shares.items()
    )
    peak = max(row["peak_bytes"] for row in shares.values()) / 2**30
    return f"{written(header, rows)}| all, slope log-log | | {slopes}\n\nOn the largest, {told}; {peak:.1f} GiB at the peak.\n"


def communication() -> str:
    """What eight devices send in a step, counted in the compiled program, and the time it would take."""
    result = read_json(BENCHMARKS / "communication.json")
    sizes, projected = result["sizes"], result["projected"]
    rows = [
        (kind, *(f"{s['collectives'][kind]['count']}, {s['collectives'][kind]['bytes'] / 1e6:.1f} MB" for s in sizes))
        for kind in sizes[0]["collectives"]
    ]
    rows.append(("all", *(f"{s['bytes'] / 1e6:.0f} MB" for s in sizes)))
    times = ", ".join(f"{ms:.0f} ms by {link}" for link, ms in projected["milliseconds"].items())
    return (
        written(("collective: number, sent by a device", *(f"{s['nodes']:,} nodes" for s in sizes)), rows)
        + f"\n{result['bytes_of_a_node'] / 1e3:.1f} kB a node and {result['bytes_of_the_batch'] / 1e6:.0f} MB for the batch. "
        f"On {projected['nodes']:,} nodes {projected['bytes'] / 1e9:.1f} GB a step: {times}.\n"
    )


def against_reference() -> str:
    """Our step and evaluation against MMRec's, in turn on one machine."""
    header = (
        *("data", "features", "reference, ms a step (memory kept)", "ours", "ours, frozen features"),
        *("times faster: step", "frozen features", "evaluation"),
    )
    rows = []
    for _, result in every(BENCHMARKS, "reference_"):
        step, ratio, kept = result["step_ms"], result["ratio"], result["ratio_kept_memory"]
        widths = " and ".join(f"{w}-d, random" for w in result["widths"] or []) or "the data's own"
        times = (
            f"{ratio[name][what]:.1f} ({kept[name][what]:.1f})"
            for name, what in (("ours", "epoch"), ("ours_frozen", "epoch"), ("ours", "evaluation"))
        )
        theirs = f"{step['reference']:.0f} ({step['reference_kept_memory']:.0f})"
        rows.append((result["data"], widths, theirs, f"{step['ours']:.0f}", f"{step['ours_frozen']:.0f}", *times))
    return written(header, rows)


def gpu() -> str:
    """What an H100 takes at the size of Amazon Baby, the reference beside it."""
    reference, answers, probes = (
        read_json(BENCHMARKS / "h100" / f"{name}.json") for name in ("reference", "unlearning", "probes")
    )
    times, ratio, row = reference["seconds"], reference["ratio"]["ours"], answers["requests"]["users:5%"]
    gold, delta = row["gold"], row["delta"]
    evaluation = {name: 1e3 * float(np.median(of["evaluation"])) for name, of in times.items()}
    step = reference["step_ms"]
    before, now = probes["before"][0], probes["quiet"][0]
    rows = [
        ("training step", f"{step['reference']:.1f} ms", f"{step['ours']:.2f} ms", f"{ratio['epoch']:.1f}"),
        (
            *("evaluation of valid pairs", f"{evaluation['reference']:.0f} ms", f"{evaluation['ours']:.1f} ms"),
            f"{ratio['evaluation']:.0f}",
        ),
        ("Gold, to its early stop", "-", f"{gold['steady']:.1f} s ({gold['info']['epochs']} epochs)", "-"),
        (
            *("delta, users:5%, steady", "-", f"{delta['steady']:.2f} s"),
            f"{delta['speed_up']['steady']:.0f} (than our Gold)",
        ),
        (
            *(f"step on data of {now['data']}", "-", f"{now['step_ms']:.2f} ms"),
            f"{before['step_ms'] / now['step_ms']:.1f} (than before)",
        ),
    ]
    return written((answers["environment"]["device"], "MMRec in PyTorch", "ours", "times faster"), rows)


def gpu_probes() -> str:
    """Layouts, determinism and stacks on an H100."""
    probes = read_json(BENCHMARKS / "h100" / "probes.json")
    named = {
        "before": "before",
        "quiet": "alone",
        "deterministic_beside_others": "deterministic flag, beside others",
        "stacked_16_beside_others": "16 stacked, beside others",
    }
    rows = []
    for group, what in named.items():
        for row in probes[group]:
            kind = ", ".join([row["layout"], *([row["precision"]] if "precision" in row else [])])
            own = row.get("kernel_ms_a_step")
            bits = {True: "yes", False: "no"}.get(row.get("same_bits"), "-")
            rows.append((row["data"], kind, what, f"{row['step_ms']:.2f}", "-" if own is None else f"{own:.2f}", bits))
    first = probes["first_training"]
    table = written(("data", "layout", "training", "ms a step", "of the card's own time", "repeats"), rows)
    return f"{table}\nCompiling the first training at {first['data']}: {first['compiling_s']:.0f} s.\n"


def contracts() -> str:
    """What the redesign of the joints cost in speed: two checkouts in turn."""
    result = read_json(BENCHMARKS / "contracts_tiktok.json")
    rows = [
        (name, f"{row['before']:.3g}", f"{row['after']:.3g}", f"{row['ratio']:.2f}", len(row["before_samples"]))
        for name, row in result["rows"].items()
    ]
    return written(("tiktok", "before", "after", "before / after", "pairs of processes"), rows)
