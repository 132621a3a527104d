"""Write the tables of the README and of docs/ anew from committed results: every block between `<!-- table NAME -->` and `<!-- end -->`.

python experiments/tables.py
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recunlearn_jax import report, results
from recunlearn_jax.audit import CHECKS
from recunlearn_jax.errors import counted
from recunlearn_jax.files import read_json
from recunlearn_jax.results import figure_of, golds_of, methods_of

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "experiments" / "results"
BENCHMARKS = ROOT / "benchmarks" / "results"
BLOCK = re.compile(r"(<!-- table (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def every(folder: Path, begins: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Committed results whose names begin so: what follows in the name, and the content. Numbers in names count: 5 before 10."""
    paths = folder.glob(f"{begins}*.json")
    for path in sorted(paths, key=lambda path: [part.zfill(9) for part in re.split(r"(\d+)", path.stem)]):
        yield path.stem.removeprefix(begins), read_json(path)


def written(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown."""
    title, *lines = ["| " + " | ".join(map(str, line)) + " |\n" for line in (header, *rows)]
    return "".join([title, "|" + "---|" * len(header) + "\n", *lines])


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


_ABLATION = (
    ("valid Recall@20", "valid recall@20", "{:.4f}"),
    ("test Recall@20", "test recall@20", "{:.4f}"),
    ("forget Recall@20", "forget recall@20", "{:.4f}"),
    ("divergence to Gold, forget", "BPR divergence forget", "{:.3g}"),
    ("retain", "BPR divergence retain", "{:.3g}"),
    ("canary rank", "canary median rank", "{:.0f}"),
    ("similarity correlation", "similarity correlation", "{:.3f}"),
)


def ablation(name: str) -> str:
    """One row a variation of delta or mmrecun, or a setting of another method."""
    models = results.read(RESULTS / f"{name}.json")["models"]
    columns = [c for c in _ABLATION if any(figure_of(row, c[1]) is not None for row in models.values())]
    rows = []
    for variation, row in models.items():
        found = [(figure_of(row, figure), form) for _, figure, form in columns]
        rows.append((variation, *("-" if x is None else form.format(x) for x, form in found)))
    return written(["variation", *(title for title, _, _ in columns)], rows)


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
            f"{point['request']['seconds']:.2f}",
            f"{point['request']['preparing_seconds']:.2f}",
        )
        rows.append((f"{point['pairs']:,}", data, f"{1e3 * point['step_seconds']:.0f}", slope, memory, *served))
    header = (
        *("train pairs", "data", "ms a step", "slope from the row above", "peak memory"),
        *("data and item graphs, s", "ranking for 2,000 users, s", "a request for 100 users, s"),
        "prepared before it, s",
    )
    slopes = "| {slope_time:.2f} | {slope_memory:.2f} | | | {slope_request:.2f} | |".format(**result)
    shares = result["unlearning"]["requests"]
    told = "; ".join(
        f"{words}: {row['seconds']:.1f} s ({row['first_seconds']:.1f} s with preparing and compiling)"
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


def _solved() -> dict[str, dict[str, Any]]:
    """EASE's results by data set."""
    return dict(every(RESULTS, "ease_"))


def _of_ease(result: dict[str, Any]) -> dict[str, Any]:
    """The chosen row of the grid."""
    return max(result["grid"], key=lambda row: row["metrics"]["valid"]["recall@20"])


def _trained(case: str) -> float:
    """Mean test Recall@20 of a case of `quality`."""
    runs = read_json(RESULTS / f"quality_{case}.json")["runs"]
    return float(np.mean([run["metrics"]["test"]["recall@20"] for run in runs]))


def ease_quality() -> str:
    """EASE with the choice of the valid pairs, with and without content, and MGCN beside it."""
    rows = []
    for data, result in _solved().items():
        if not result["grid"]:
            continue
        best, mgcn = _of_ease(result), _trained(data)
        plain = max(
            (r for r in result["grid"] if not r["content_weight"]), key=lambda r: r["metrics"]["valid"]["recall@20"]
        )
        recall, without = best["metrics"]["test"]["recall@20"], plain["metrics"]["test"]["recall@20"]
        chosen = f"{best['penalty']:.0f}, {best['content_weight']:g}"
        valid = f"{best['metrics']['valid']['recall@20']:.4f}"
        rows.append((data, chosen, valid, f"{recall:.4f}", f"{without:.4f}", f"{mgcn:.4f}", f"{recall / mgcn:.0%}"))
    header = (
        "data",
        "penalty, content weight",
        "valid Recall@20",
        "test Recall@20",
        "without content",
        "MGCN",
        "EASE / MGCN",
    )
    return written(header, rows)


def deletions() -> str:
    """Exact deletions beside solving anew."""
    rows = []
    for data, result in _solved().items():
        for request, row in result["deletions"].items():
            forgotten = ", ".join(
                counted(row[kind], kind[:-1]) for kind in row if kind.split()[-1] in {"users", "items", "pairs", "rows"}
            )
            times = (
                f"{row['answer']:.2f}",
                f"{row['anew']:.1f}",
                "solved anew" if row["solved_anew"] else f"{row['anew'] / row['answer']:.0f}x",
            )
            rows.append(
                (
                    data,
                    request.replace(":1", ": one") if request[-2:] == ":1" else request,
                    forgotten,
                    row["rank"],
                    *times,
                    f"{row['error']:.0e}",
                )
            )
    header = (
        "data",
        "request",
        "forgotten",
        "rank",
        "answer, s",
        "solving anew, s",
        "times faster",
        "largest difference of a weight",
    )
    return written(header, rows)


def noise() -> str:
    """Recall by epsilon where noise gives the guarantee."""
    rows = []
    for data, result in every(RESULTS, "noisy_"):
        gold, before = (result[name] for name in ("gold", "original"))
        told = f"{before['test']['recall@20']:.4f} / {gold['test']['recall@20']:.4f} ({result['gold_epochs']} epochs)"
        for epsilon in dict.fromkeys(row["epsilon"] for row in result["rows"]):
            cells = []
            for kept in dict.fromkeys(row["kept"] for row in result["rows"]):
                own = [r for r in result["rows"] if (r["epsilon"], r["kept"]) == (epsilon, kept)]
                cells.append(" -> ".join(f"{r['metrics']['test']['recall@20']:.4f}" for r in own))
            rows.append((data, f"{epsilon:.0e}" if epsilon > 100 else f"{epsilon:g}", *cells, told))
    header = ("data", "epsilon", "ball lets in 0.01 % of the model", "1 %", "all of it", "original / Gold")
    return written(header, rows)


def coins() -> str:
    """What an attacker rules out by guessing which canaries were there."""
    cases = [results.read(RESULTS / f"forgetting_tiktok_{kind}_5_seed1.json") for kind in ("users", "pairs")]
    names = [*methods_of(cases[0])]
    guessed = {name: figure_of(cases[0]["models"][name], "coins guessed") or 0.0 for name in names}
    rows = []
    for name in ["gold", *sorted(names, key=lambda n: guessed[n])]:
        cells = []
        for case in cases:
            of = golds_of(case) if name == "gold" else [name]
            found = [case["models"][model]["figures"] for model in of if model in case["models"]]
            found = [figures for figures in found if "coins guessed" in figures]
            right = [round(case["planted"]["canary"] * figures["coins guessed"]) for figures in found]
            bound = [figures["epsilon at least"] for figures in found]
            cells.append(_range(right, "{}"))
            cells.append(_range(bound, "{:.2f}") if any(bound) else "-")
        rows.append((name, *cells))
    return written(
        ("model", "users:5%: right of 20", "epsilon at least", "pairs:5%: right of 20", "epsilon at least"), rows
    )


AFFORDABLE = 60  # seconds of retraining that anybody can wait
NEAR = 0.95  # of MGCN's test Recall@20, for which EASE may stand in its place


def _range(values: Sequence[float], form: str) -> str:
    """Lowest to highest, or the one there is; - where there is none."""
    ends = dict.fromkeys(form.format(x) for x in (min(values), max(values))) if values else ["-"]
    return " to ".join(ends)


def decision() -> str:
    """What to use, by rule, from seconds and verdicts measured."""
    rows, solved = [], _solved()
    sources = [(data, "2 CPU cores", result) for data, result in every(BENCHMARKS, "unlearning_")]
    sources.append(("generated, size of Baby", "H100", read_json(BENCHMARKS / "h100" / "unlearning.json")))
    for data, device, result in sources:
        for request, row in result["requests"].items():
            gold, delta = (row[name]["steady"] for name in ("gold", "delta"))
            kind = request.split(":")[0]
            exact, share, use_ease = "-", 0.0, ""
            if data in solved:
                share = _of_ease(solved[data])["metrics"]["test"]["recall@20"] / _trained(data)
                edits = [r["answer"] for name, r in solved[data]["deletions"].items() if name == f"{kind}:5%"]
                chosen = _of_ease(solved[data])
                use_ease = (
                    f"EASE (penalty {chosen['penalty']:.0f}, content weight {chosen['content_weight']:g}), else delta"
                )
                exact = f"{edits[0]:.2f} s, {share:.0%} of MGCN" if edits else f"{share:.0%} of MGCN"
            judged = [r for name, r in every(RESULTS, f"forgetting_{data}_{kind}_5_seed")]
            verdict = ", ".join(str(r["misses"]["delta"]) for r in judged) or "-"
            use = (
                "retrain"
                if gold <= AFFORDABLE
                else use_ease
                if share >= NEAR
                else "delta, and retrain when there is time"
            )
            rows.append((data, device, request, f"{gold:.0f} s", f"{delta:.2f} s", verdict, exact, use))
    header = (
        "data",
        "device",
        "request",
        "retraining",
        "delta",
        "its figures outside Gold's bands, by request seed",
        "EASE",
        "use",
    )
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


def _pair(row: dict[str, Any], probe: str) -> str:
    """Progress / collateral of a model on a set of probes."""
    found = [figure_of(row, f"{part} {probe}") for part in ("progress", "collateral")]
    return "-" if None in found else " / ".join(f"{x:.2f}" for x in found if x is not None)


def forgetting(begins: str = "") -> str:
    """Every method of the cases that begin so: what it changed against the coupled Golds, what is left, and what it cost."""
    header = (
        *(
            "case",
            "method",
            "similarities",
            "affected scores",
            "other scores",
            "forgotten pairs",
            "overlap with coupled Gold",
        ),
        *("canary median (tenth)", "forget Recall@20", "membership AUC", "valid / test Recall@20, % of Golds'"),
        *("figures outside", "seconds"),
    )
    rows = []
    for rest, result in every(RESULTS, f"forgetting_{begins}"):
        case = begins + rest + ("" if result["environment"]["device"] == "cpu" else ", on a GPU")
        models, golds = result["models"], [result["models"][name] for name in result["golds"]]
        aims = {
            figure: np.mean([row["figures"][figure] for row in golds])
            for figure in ("forget recall@20", "valid recall@20", "test recall@20")
        }
        inside = [figure_of(row, "membership AUC") for row in golds]
        alarms = result["false_alarms"]
        rows.append(
            (
                *(f"**{case}**", f"Gold, mean of {len(golds)}", "1 / 0", "1 / 0", "1 / 0", "1 / 0", "1"),
                canaries(golds),
                f"{aims['forget recall@20']:.4f}",
                "-" if None in inside else f"{np.mean([x for x in inside if x is not None]):.3f}",
                "100 / 100",
                "-" if alarms is None else f"{alarms['verdicts'] / len(golds):.1f}",
                f"{np.mean([row['seconds']['running'] for row in golds]):.0f}",
            )
        )
        for name in results.methods_of(result):
            if name.endswith("original"):
                continue
            row = models[name]
            overlap, member = figure_of(row, "overlap@20 with coupled Gold"), figure_of(row, "membership AUC")
            kept = [figure_of(row, f"{split} recall@20") for split in ("valid", "test")]
            rows.append(
                (
                    *("", name),
                    *(
                        _pair(row, probe)
                        for probe in ("similarities", "affected scores", "other scores", "forgotten pairs")
                    ),
                    "-" if overlap is None else f"{overlap:.3f}",
                    canaries([row]),
                    f"{figure_of(row, 'forget recall@20'):.4f}",
                    "-" if member is None else f"{member:.3f}",
                    " / ".join(
                        f"{100 * x / aims[f'{split} recall@20']:.0f}"
                        for x, split in zip(kept, ("valid", "test"), strict=True)
                        if x is not None
                    ),
                    str(result["misses"][name]),
                    f"{row['seconds']['running']:.2g}",
                )
            )
    return written(header, rows)


def canaries(rows: Sequence[dict[str, Any]]) -> str:
    """Median rank of the canaries, and the lowest tenth, as means of some models; a dash where none were planted."""
    ranks = [[figure_of(row, f"canary {what}") for what in ("median rank", "lowest tenth")] for row in rows]
    if any(None in of for of in ranks):
        return "-"
    median, tenth = np.mean(np.array(ranks, float), axis=0)
    return f"{median:.0f} ({tenth:.0f})"


def replay() -> str:
    """What a replay differs by from the original."""
    result = read_json(RESULTS / "replay_tiktok.json")
    rows = []
    for name, row in result["rows"].items():
        equal = "; equal to the bit" if row.get("bits equal") else ""
        rows.append(
            (
                name if name == "another seed" else f"replay without {name}".replace("1 pairs", "1 pair"),
                row["pairs"],
                f"{row['overlap@20']:.4f}{equal}",
                f"{row['BPR divergence retain']:.3g}",
            )
        )
    return written(
        ("tiktok", "pairs removed", "overlap@20 with the original", "BPR divergence on retained pairs"), rows
    )


def last_epochs() -> str:
    """What exact training without the forgotten pairs reaches where it begins late."""
    result = read_json(RESULTS / "replay_tiktok.json")
    probes = ("similarities", "affected scores", "other scores", "retained pairs")
    rows = [
        (f"last {last} of {result['epochs']} epochs", *(_pair({"figures": row}, p) for p in probes))
        for last, row in result["last epochs"].items()
    ]
    return written(("tiktok, users:5%", *probes), rows)


def sequence() -> str:
    """One request for all against twenty in a row."""
    result = read_json(RESULTS / "sequence_tiktok.json")
    rows = []
    for name, model in result["models"].items():
        row = model["figures"]
        ranks = [row[f"canary {what}"] for what in ("median rank", "lowest tenth")]
        rows.append(
            (
                *(name, *(_pair(model, probe) for probe in ("similarities", "affected scores", "other scores"))),
                f"{row['overlap@20 with coupled Gold']:.3f}",
                f"{ranks[0]:.0f} ({ranks[1]:.0f})",
                f"{row['relearn steps']:.0f}" if "relearn steps" in row else "-",
                f"{row['valid recall@20']:.4f} / {row['test recall@20']:.4f}",
            )
        )
    header = ("tiktok, users:5%", "similarities", "affected scores", "other scores", "overlap with coupled Gold")
    return written((*header, "canary median (tenth)", "relearn steps", "valid / test Recall@20"), rows)


def instruments() -> str:
    """How clearly BPR and KL divergence tell the original and surgery from Gold, in units of the distance between Golds."""
    rows = []
    for case, result in every(RESULTS, "forgetting_"):
        models = result["models"]
        if len(result["golds"]) < 3:  # their distances have no spread
            continue
        for figure in (f"{kind} divergence {side}" for side in ("forget", "retain") for kind in ("BPR", "KL")):
            instrument, _, side = figure.split(" ")
            between = [models[gold]["figures"][figure] for gold in result["golds"]]
            mean, spread = float(np.mean(between)), float(np.std(between, ddof=1))
            own = [models[name]["figures"][figure] for name in ("original", "surgery")]
            told = (f"{x / mean:.3g} times, {(x - mean) / spread:+.3g} sd" for x in own)
            rows.append((case, side, instrument, f"{mean:.3g} +- {spread:.2g}", *told))
    return written(("case", "side", "instrument", "between Golds, mean and sd", "original", "surgery"), rows)


def contracts() -> str:
    """What the redesign of the joints cost in speed: two checkouts in turn."""
    result = read_json(BENCHMARKS / "contracts_tiktok.json")
    rows = [
        (name, f"{row['before']:.3g}", f"{row['after']:.3g}", f"{row['ratio']:.2f}", len(row["before_samples"]))
        for name, row in result["rows"].items()
    ]
    return written(("tiktok", "before", "after", "before / after", "pairs of processes"), rows)


def alpha() -> str:
    """mmrecun over alpha and delta over the share that rows follow."""
    found = read_json(RESULTS / "alpha_tiktok.json")
    rows = []
    for words, models in found["models"].items():
        for name, model in models.items():
            of, (method, _, value) = model["figures"], name.split()
            effect = f"{of['progress similarities']:.2f} / {of['collateral similarities']:.2f}"
            quality = [f"{of[figure]:.4f}" for figure in ("valid recall@20", "test recall@20", "forget recall@20")]
            rows.append(
                [words, method, value, *quality, effect, f"{of['canary median rank']:.0f}", f"{model['seconds']:.2f}"]
            )
    header = ("request", "method", "alpha or follow", "valid Recall@20", "test Recall@20", "forget Recall@20")
    return written((*header, "similarities", "canary median", "seconds"), rows)


def claims() -> str:
    """MMRecUN's claims in figures, of every audited case."""
    rows = []
    for case, result in every(RESULTS, "forgetting_"):
        models = result["models"]
        golds = [models[name]["figures"] for name in results.golds_of(result)]
        gold = {name: float(np.mean([row[name] for row in golds])) for name in ("forget recall@20", "test recall@20")}
        forget = {name: models[name]["figures"]["forget recall@20"] for name in ("original", "mmrecun", "delta")}
        others = [
            models[name]["figures"]["forget recall@20"]
            for name in ("finetune", "ascent", "rrl", "scif")
            if name in models
        ]
        spread = f"{min(others):.4f} to {max(others):.4f}" if others else "-"
        kept = models["mmrecun"]["figures"]["test recall@20"] / gold["test recall@20"]
        cells = [f"{forget['original']:.4f}", f"{gold['forget recall@20']:.4f}", f"{forget['mmrecun']:.4f}"]
        rows.append(
            [
                case,
                # Cases on the GPU shared one card.
                f"{models['mmrecun']['speed_up']:.0f}x" if result["environment"]["device"] == "cpu" else "-",
                *cells,
                spread,
                f"{forget['delta']:.4f}",
                f"{100 * kept:.0f} %",
            ]
        )
    header = ("case", "mmrecun over Gold", "forget Recall@20: original", "Gold", "mmrecun", "other baselines", "delta")
    return written((*header, "mmrecun's test Recall@20, of Gold's"), rows)


def variety() -> str:
    """What a request does to the variety of what is recommended, of every audited case."""
    names = ("coverage", "evenness", "novelty", "distance")
    rows = []
    for case, result in every(RESULTS, "forgetting_"):
        models = result["models"]
        golds = [models[name]["figures"] for name in results.golds_of(result)]
        shown = {"original": models["original"]["figures"]}
        shown |= {name: models[name]["figures"] for name in ("delta", "surgery", "mmrecun") if name in models}
        shown["Gold"] = {name: float(np.mean([row[name] for row in golds])) for name in names}
        rows += [[case, model, *(f"{row[name]:.4g}" for name in names)] for model, row in shown.items()]
    return written(("case", "model", *names), rows)


def divergences() -> str:
    """How far forgetting moves each divergence: the original's over the methods', from the Golds, on what was forgotten."""
    rows = []
    for case, result in every(RESULTS, "forgetting_"):
        models = result["models"]
        names = ("BPR divergence forget", "KL divergence forget")
        if not all(name in models["original"]["figures"] for name in names):
            continue
        golds = {name: float(np.mean([models[g]["figures"][name] for g in results.golds_of(result)])) for name in names}
        for model in ("original", "surgery", "delta"):
            of = models[model]["figures"]
            rows.append([case, model, *(f"{of[name] / golds[name]:.3g}" for name in names)])
    return written(("case", "model", "BPR divergence / Golds' own", "KL divergence / Golds' own"), rows)


RULES = {
    "utility": "less is a miss",
    "variety": "less is a miss",
    "remembered": "more is under-forgotten, less over-forgotten",
    "erased": "less is under-forgotten, more over-forgotten",
    "distance": "more than between Golds is a miss",
    "likeness": "less than between Golds is a miss",
}
READS = {
    "rows": "output rows",
    "params": "parameters",
    "golds": "output rows, beside each Gold's",
    "replays": "output rows, beside the coupled Golds'",
    "method": "the method, which is run again",
}


def check(name: str) -> str:
    """What a check judges, by which rule, and where it comes from."""
    found = CHECKS[name]
    rows = [(figure.name, RULES[figure.rule], f"{figure.resolution:g}") for figure in found.figures]
    table = written(("judged figure", "outside Gold's band", "smallest excess that counts"), rows) if rows else ""
    facts = [f"Number {found.number} of the audit. It reads {READS[found.needs]}."]
    facts += ["It is measured in every comparison."] if found.usual else ["It is measured with `--audit`."]
    facts += [f"It plants users: `--plant {name}=NUMBER`."] if found.plant else []
    facts += [f"Source: {found.source}."] if found.source else []
    facts += [] if rows else ["Its figures are shown and not judged."]
    return f"{table}\n{' '.join(facts)}\n"


def stream() -> str:
    """A replay of Sports."""
    return report.stream_markdown(read_json(RESULTS / "stream_sports.json"))


def _of_golds(result: dict[str, Any], figure: str) -> float:
    return float(np.mean([result["models"][name]["figures"][figure] for name in result["golds"]]))


def variations(group: str) -> str:
    """Recall of forgotten pairs in the original, after each method and in Gold, and test Recall beside Gold's."""
    rows = []
    for name, result in every(RESULTS, f"variations_{group}_"):
        models = result["models"]
        figure = "forget recall@500" if name.endswith("items") else "forget recall@20"  # as the paper has it
        cells = [f"{figure_of(models[m], figure):.4f}" for m in ("original", "surgery", "mmrecun", "delta")]
        cells.append(f"{_of_golds(result, figure):.4f}")
        tested = (_of_golds(result, "test recall@20"), figure_of(models["delta"], "test recall@20"))
        rows.append(
            (name.replace("_", " "), f"{result['forgotten']['pairs']:,}", *cells, f"{tested[1]:.4f} / {tested[0]:.4f}")
        )
    return written(
        (
            *("case", "pairs forgotten", "forget Recall@20, of items @500: original"),
            *("surgery", "mmrecun", "delta", "Gold", "test Recall@20: delta / Gold"),
        ),
        rows,
    )


PAPER_FIGURES = {
    "users": ["valid recall@20", "test recall@20", "forget recall@20"],
    "items": [f"{split} recall@{k}" for split in ("valid", "test", "forget") for k in (500, 1000, 1500)],
    "both": [f"{split} recall@{k}" for k in (20, 500) for split in ("valid", "test", "forget")],
}


def paper(kind: str) -> str:
    """The paper's experiment of that kind: every method on every data set."""
    figures = PAPER_FIGURES[kind]
    rows = []
    for data in ("tiktok", "baby", "sports"):
        path = RESULTS / f"paper_{data}_{kind}.json"
        if not path.exists():
            continue
        found = results.read(path)
        models = found["models"]
        shown = {name: models[name] for name in ("original", *methods_of(found)) if not name.endswith("-original")}
        cells = [[name, *(f"{figure_of(row, f):.4f}" for f in figures)] for name, row in shown.items()]
        golds = len(found["golds"])
        cells.append([f"Gold, {counted(golds, 'model')}", *(f"{_of_golds(found, f):.4f}" for f in figures)])
        rows += [[f"**{data}**" if not i else "", *row] for i, row in enumerate(cells)]
    return written(("data", "model", *(f.replace("recall", "Recall") for f in figures)), rows)


def demo() -> str:
    """The columns of the demo's table that tell its story."""
    found = results.read(RESULTS / "demo_toy.json")
    header, rows = report.rows(found)
    wanted = (
        "model",
        "test Recall@20",
        "forget Recall@20",
        "canary rank",
        "progress",
        "collateral",
        "preparation s",
        "seconds",
        "speed-up",
    )
    places = [header.index(name) for name in wanted]
    shown = [[row[place] for place in places] for row in rows if "band" not in row[0]]
    return f"**{report.heading(found)}**\n\n" + written(wanted, shown)


TABLES = {
    "ease": ease_quality,
    "deletions": deletions,
    "noisy": noise,
    "coins": coins,
    "decision": decision,
    "gpu": gpu,
    "probes": gpu_probes,
    "demo": demo,
    "stream": stream,
    "alpha": alpha,
    "claims": claims,
    "variety": variety,
    "divergences": divergences,
    "contracts": contracts,
    "forgetting": forgetting,
    "replay": replay,
    "last_epochs": last_epochs,
    "sequence": sequence,
    "instruments": instruments,
    "quality": quality,
    "unlearning": unlearning,
    "steps": steps,
    "machines": machines,
    "time_to_quality": quality_times,
    "growth": growth,
    "communication": communication,
    "reference": against_reference,
}


def table(name: str) -> str:
    """The table of that name: one of `TABLES`, an ablation, or a comparison's result."""
    if name in TABLES:
        return TABLES[name]()
    if name.startswith("check_"):
        return check(name.removeprefix("check_"))
    if name.startswith("paper_"):
        return paper(name.removeprefix("paper_"))
    if name.startswith("variations_"):
        return variations(name.removeprefix("variations_"))
    if name.startswith("ablation_"):
        return ablation(name)
    shown = report.audit_markdown if name.startswith("forgetting_") else report.markdown
    return shown(results.read(RESULTS / f"{name}.json"))


def renew(text: str) -> str:
    """A page with all its tables made anew."""
    return BLOCK.sub(lambda found: f"{found[1]}{table(found[2])}{found[3]}", text)


if __name__ == "__main__":
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        page.write_text(renew(page.read_text()))
