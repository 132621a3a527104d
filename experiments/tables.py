"""Write the tables of the README and of docs/ anew from committed results: every block between `<!-- table NAME -->` and `<!-- end -->`.

python experiments/tables.py
"""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from recunlearn_jax import report
from recunlearn_jax.comparison import figure_of

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "experiments" / "results"
BENCHMARKS = ROOT / "benchmarks" / "results"
BLOCK = re.compile(r"(<!-- table (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def read(name: str) -> dict[str, Any]:
    """A committed result."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def quality() -> str:
    """Ranking quality against the reference's."""
    reference = read("reference")
    lines = [
        "| data | features | valid Recall@20 | test Recall@20 | test NDCG@20 | by seed (test Recall@20) | reference test Recall@20 |",
        "|" + "---|" * 7,
    ]
    for path in sorted(RESULTS.glob("quality_*.json")):
        result = json.loads(path.read_text())
        case = path.stem.removeprefix("quality_")
        valid, test, ndcg = (
            [run["metrics"][split][metric] for run in result["runs"]]
            for split, metric in (("valid", "recall@20"), ("test", "recall@20"), ("test", "ndcg@20"))
        )
        theirs = reference["test_recall@20"].get(case)
        lines.append(
            f"| {result['data']} | {reference['features'][case]} | {np.mean(valid):.4f} | {np.mean(test):.4f} | {np.mean(ndcg):.4f} "
            f"| {', '.join(f'{x:.4f}' for x in test)} | {'-' if theirs is None else f'{theirs:.4f}'} |"
        )
    return "\n".join(lines) + "\n"


_ABLATION = (
    ("valid Recall@20", "valid recall@20", "{:.4f}"),
    ("test Recall@20", "test recall@20", "{:.4f}"),
    ("forget Recall@20", "forget recall@20", "{:.4f}"),
    ("divergence to Gold, forget", "divergence forget", "{:.3g}"),
    ("retain", "divergence retain", "{:.3g}"),
    ("canary rank", "canary median_rank", "{:.0f}"),
    ("similarity correlation", "similarity_correlation", "{:.3f}"),
)


def ablation(name: str) -> str:
    """One row a variation of mmrecun, or a setting of another method."""
    models = read(name)["models"]
    columns = [c for c in _ABLATION if any(figure_of(row, c[1]) is not None for row in models.values())]
    lines = ["| variation | " + " | ".join(c[0] for c in columns) + " |", "|" + "---|" * (len(columns) + 1)]
    for variation, row in models.items():
        figures = [figure_of(row, figure) for _, figure, _ in columns]
        cells = ["-" if x is None else form.format(x) for x, (_, _, form) in zip(figures, columns, strict=True)]
        lines.append(f"| {variation} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def unlearning() -> str:
    """Cold, warm and steady seconds of an answer and of Gold, with the quality beside them."""
    lines = [
        "| data | cores | request | method | seconds cold / warm / steady | Gold's seconds | speed-up cold / warm / steady "
        "| forget Recall@20 (original, Gold) | test Recall@20 (Gold) | canary rank (original, Gold) |",
        "|" + "---|" * 10,
    ]
    for path in sorted(BENCHMARKS.glob("unlearning_*.json")):
        result = json.loads(path.read_text())
        cores = result["environment"]["cores"]
        for request, row in result["requests"].items():
            gold, original = row["gold"], row["original"]
            for method in (name for name in row if name not in {"gold", "original", "forgotten"}):
                own = row[method]
                times = (
                    " / ".join(f"{of[kind]:.{digits}f}{unit}" for kind in ("cold", "warm", "steady"))
                    for of, digits, unit in ((own, 2, ""), (gold, 0, ""), (own["speed_up"], 0, "x"))
                )
                forget, test = (
                    [m["quality"][s]["recall@20"] for m in (own, original, gold)] for s in ("forget", "test")
                )
                ranks = [m["quality"].get("canary", {}).get("median_rank") for m in (own, original, gold)]
                canary = "-" if None in ranks else f"{ranks[0]:.0f} ({ranks[1]:.0f}, {ranks[2]:.0f})"
                lines.append(
                    f"| {path.stem.removeprefix('unlearning_')} | {cores} | {request} | {method} | {' | '.join(times)} "
                    f"| {forget[0]:.4f} ({forget[1]:.4f}, {forget[2]:.4f}) | {test[0]:.4f} ({test[2]:.4f}) | {canary} |"
                )
    return "\n".join(lines) + "\n"


def steps() -> str:
    """The training step against the floor of its device."""
    lines = [
        "| data | features | step, ms (min to max) | floor, ms | achieved | InfoNCE, ms | propagation csr / segment, ms forward + backward "
        "| evaluation, ms | peak memory |",
        "|" + "---|" * 9,
    ]
    for path in sorted(BENCHMARKS.glob("step_*.json")):
        result = json.loads(path.read_text())
        step, floor = result["step"], result["floor"]
        walk = " / ".join(
            f"{1e3 * sum(result['propagation'][kind][way]['median'] for way in ('forward', 'backward')):.1f}"
            for kind in ("csr", "segment")
        )
        lines.append(
            f"| {path.stem.removeprefix('step_')} | {'trained' if result['trainable_features'] else 'frozen'} "
            f"| {1e3 * step['median']:.0f} ({1e3 * step['min']:.0f} to {1e3 * step['max']:.0f}) | {1e3 * floor['seconds']:.0f} "
            f"| {floor['achieved']:.0%} | {1e3 * result['info_nce']['median']:.1f} | {walk} "
            f"| {1e3 * result['evaluation']['median']:.0f} ({result['evaluated_users']:,} users) "
            f"| {result['peak_memory_bytes'] / 2**30:.1f} GiB |"
        )
    return "\n".join(lines) + "\n"


def machines() -> str:
    """Where the benchmarks ran."""
    lines = ["| result | processor | cores | device | jax |", "|" + "---|" * 5]
    for path in sorted(BENCHMARKS.glob("*.json")):
        result = json.loads(path.read_text())
        on = result["about"]["ours"]["versions"] if "about" in result else result["environment"]
        cells = (path.stem, on["processor"], on["cores"], on["device"], on["packages"]["jax"])
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def quality_times() -> str:
    """When each seed of each side reached a valid Recall@20."""
    lines = [
        "| data | cores | valid Recall@20 to reach | training | epoch, by seed | seconds, by seed "
        "| mean of those that arrive | every seed after |",
        "|" + "---|" * 8,
    ]
    for path in sorted(BENCHMARKS.glob("time_to_quality_*.json")):
        result = json.loads(path.read_text())
        for side, found in result["summary"].items():
            seeds, stopped = found["reached_seconds"], found["given_up_after_seconds"]
            epochs = ", ".join("-" if x is None else str(x) for x in found["reached_epoch"].values())
            seconds = ", ".join(f"never ({stopped[s]:.0f})" if x is None else f"{x:.0f}" for s, x in seeds.items())
            arrived = [x for x in seeds.values() if x is not None]
            mean = f"{np.mean(arrived):.0f} s" if arrived else "-"
            last = f"{found['all_seconds']:.0f} s" if not stopped else f"more than {max(stopped.values()):.0f} s"
            lines.append(
                f"| {result['data']} | {result['environment']['cores']} | {result['target']:.4f} | {side} "
                f"| {epochs} | {seconds} | {mean} | {last} |"
            )
    return "\n".join(lines) + "\n"


def growth() -> str:
    """Time and memory of training by the number of interactions, and a request on the largest size."""
    result = json.loads((BENCHMARKS / "growth_cpu.json").read_text())
    lines = ["| train pairs | data | ms a step | slope from the row above | peak memory |", "|" + "---|" * 5]
    before = None
    for point in result["points"]:
        size = point["summary"].split(", ")
        users, _, items = size[0].partition(" x ")
        slope = "-"
        if before:
            slope = f"{np.log(point['step_seconds'] / before['step_seconds']) / np.log(point['pairs'] / before['pairs']):.2f}"
        before = point
        lines.append(
            f"| {point['pairs']:,} | {users.split(': ')[1]}, {items} | {1e3 * point['step_seconds']:.0f} | {slope} "
            f"| {point['training_peak_bytes'] / 2**30:.2f} GiB |"
        )
    lines.append(f"| all, slope log-log | | | {result['slope_time']:.2f} | {result['slope_memory']:.2f} |")
    request = result["unlearning"]
    lines += [
        "",
        f"A request for {request['forgotten']['users']:,} users on the largest: {request['seconds']:.0f} s, "
        f"{request['first_seconds']:.0f} s with compiling, "
        f"{request['peak_bytes'] / 2**30:.1f} GiB at the peak.",
    ]
    return "\n".join(lines) + "\n"


def against_reference() -> str:
    """Our step and evaluation against MMRec's, in turn on one machine."""
    lines = [
        "| data | features | reference, ms a step (memory kept) | ours | ours, frozen features "
        "| times faster: step | frozen features | evaluation |",
        "|" + "---|" * 8,
    ]
    for path in sorted(BENCHMARKS.glob("reference_*.json")):
        result = json.loads(path.read_text())
        step, ratio, kept = result["step_ms"], result["ratio"], result["ratio_kept_memory"]
        widths = " and ".join(f"{w}-d, random" for w in result["widths"] or []) or "the data's own"
        times = [
            f"{ratio[name][what]:.1f} ({kept[name][what]:.1f})"
            for name, what in (("ours", "epoch"), ("ours_frozen", "epoch"), ("ours", "evaluation"))
        ]
        lines.append(
            f"| {result['data']} | {widths} | {step['reference']:.0f} ({step['reference_kept_memory']:.0f}) | {step['ours']:.0f} "
            f"| {step['ours_frozen']:.0f} | {' | '.join(times)} |"
        )
    return "\n".join(lines) + "\n"


def instruments() -> str:
    """How clearly BPR and KL divergence tell the original and surgery from Gold, in units of the distance between Golds."""
    lines = [
        "| case | side | instrument | between Golds, mean and sd | original | surgery |",
        "|" + "---|" * 6,
    ]
    for path in sorted(RESULTS.glob("audit_*.json")):
        audit = json.loads(path.read_text())["audit"]
        for side in ("forget", "retain"):
            for instrument in ("BPR", "KL"):
                figure = f"{instrument} divergence {side}"
                between = [audit["figures"][gold][figure] for gold in audit["golds"]]
                mean, spread = float(np.mean(between)), float(np.std(between, ddof=1))
                own = [audit["figures"][name][figure] for name in ("original", "surgery")]
                cells = [f"{x / mean:.3g} times, {(x - mean) / spread:+.3g} sd" for x in own]
                lines.append(
                    f"| {path.stem.removeprefix('audit_')} | {side} | {instrument} | {mean:.3g} +- {spread:.2g} | {' | '.join(cells)} |"
                )
    return "\n".join(lines) + "\n"


TABLES = {
    "instruments": instruments,
    "quality": quality,
    "unlearning": unlearning,
    "steps": steps,
    "machines": machines,
    "time_to_quality": quality_times,
    "growth": growth,
    "reference": against_reference,
}


def table(name: str) -> str:
    """The table of that name: one of `TABLES`, an ablation, or a comparison's result."""
    if name in TABLES:
        return TABLES[name]()
    if name.startswith("audit_"):
        return report.audit_markdown(read(name))
    return ablation(name) if name.startswith("ablation_") else report.markdown(read(name))


def renew(text: str) -> str:
    """A page with all its tables made anew."""
    return BLOCK.sub(lambda found: f"{found[1]}{table(found[2])}{found[3]}", text)


if __name__ == "__main__":
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        page.write_text(renew(page.read_text()))
