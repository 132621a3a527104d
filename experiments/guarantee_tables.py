"""Tables of exact, certified and measured forgetting, and what to use when: docs/guarantees.md."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from committed import BENCHMARKS, RESULTS, every, written

from recunlearn_jax import results
from recunlearn_jax.errors import counted
from recunlearn_jax.files import read_json
from recunlearn_jax.results import figure_of, golds_of, methods_of


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
