"""The table and the picture of a stream, made from its result alone, without jax."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recunlearn_jax.report.pictures import saved

QUANTILES = (50, 95, 99)
CLOCKS = {
    "timestamp": "timestamps of the data",
    "order": "positions in each user's own history; between users the data has no clock, so users begin at random",
    "drawn": "none in the data; the order is random",
}


def of_kind(result: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """Entries of the log of one kind."""
    return [entry for entry in result["events"] if entry["event"] == kind]


def latencies(result: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Seconds of a request, of a request until lists are served again, of preparing for it, and of an update: quantiles, and the first
    value, which includes compiling."""
    removed, taken = of_kind(result, "remove"), of_kind(result, "learn")
    series = {
        "request": [entry["seconds"] for entry in removed],
        "request, until lists are served": [entry["seconds"] + entry["rows_seconds"] for entry in removed],
        "preparing for a request, before it comes": [
            e["preparing_seconds"] for e in removed if "preparing_seconds" in e
        ],
        "update": [entry["seconds"] for entry in taken],
    }
    return {name: _quantiles(values) for name, values in series.items() if values}


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    later = values[1:] or values
    return {f"p{q}": float(np.percentile(later, q)) for q in QUANTILES} | {"first": values[0]}


def stream_markdown(result: dict[str, Any]) -> str:
    """The findings, then the tables: latencies, and the model in service beside the Golds of each quarter."""
    removed, quarters = of_kind(result, "remove"), of_kind(result, "quarter")
    retrained = of_kind(result, "retrain")
    pairs = sum(entry["pairs"] for entry in removed)
    said = "; ".join(entry["why"] for entry in retrained)
    lines = [
        f"{result['summary']}.",
        f"Clock: {CLOCKS[result['clock']]}. {result['arrivals']['in the stream']:,} of the interactions come in the stream.",
        f"{len(removed)} requests removed {pairs:,} pairs, answered by {result['method']}. "
        + (
            f"The guard asked for exact retraining {'once' if len(retrained) == 1 else f'{len(retrained)} times'}: {said}."
            if retrained
            else "The guard asked for no exact retraining."
        ),
        "",
        "| seconds | p50 | p95 | p99 | first, with compiling |",
        "|---|---|---|---|---|",
    ]
    for name, row in latencies(result).items():
        lines.append(f"| {name} | " + " | ".join(f"{row[key]:.2f}" for key in ("p50", "p95", "p99", "first")) + " |")
    lines += ["", "In service / mean of the Golds (lowest to highest).", ""]
    names = list(dict.fromkeys(name for quarter in quarters for name in quarter["stream"]))
    lines += [
        "| after | " + " | ".join(names) + " | overlap@20 with Golds | between Golds | Gold, s |",
        "|---" * (len(names) + 4) + "|",
    ]
    for quarter in quarters:
        cells = [_beside(name, quarter) for name in names]
        between = quarter["overlap@20 between Golds"]
        cells += ["-" if x is None else f"{x:.3f}" for x in (quarter["overlap@20 with Golds"], between)]
        cells.append(f"{np.mean([gold['seconds'] for gold in quarter['golds']]):.0f}" if quarter["golds"] else "-")
        lines.append(f"| {_requests_by(quarter, len(removed))} requests | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _requests_by(quarter: dict[str, Any], requests: int) -> int:
    """Number of requests answered by the end of a quarter."""
    return -(-quarter["number"] * requests // 4)


def _beside(name: str, quarter: dict[str, Any]) -> str:
    if name not in quarter["stream"]:
        return "-"
    golds = [gold[name] for gold in quarter["golds"]]
    form = "{:.0f}" if name.startswith("canary") else "{:.4f}"
    own = form.format(quarter["stream"][name])
    if not golds:
        return own
    low, high, mean = (form.format(x) for x in (min(golds), max(golds), np.mean(golds)))
    return f"{own} / {mean} ({low} to {high})" if len(golds) > 1 else f"{own} / {mean}"


def stream_plot(result: dict[str, Any], path: str | Path) -> Path:
    """Three pictures side by side: quality and canaries by quarter, with the Golds' range, and the distribution of seconds."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    quarters, removed, taken = (of_kind(result, kind) for kind in ("quarter", "remove", "learn"))
    after = [_requests_by(quarter, len(removed)) for quarter in quarters]
    panels = [
        ("test ndcg@20", "test NDCG@20", "linear"),
        ("canary median rank", "median rank of the canaries removed first", "log"),
    ]
    panels = [panel for panel in panels if all(panel[0] in quarter["stream"] for quarter in quarters)]
    figure, grid = plt.subplots(1, len(panels) + 1, figsize=(4.2 * (len(panels) + 1), 3.6), squeeze=False)
    axes = grid[0]
    for axis, (name, title, scale) in zip(axes, panels, strict=False):
        golds = np.array([[gold[name] for gold in quarter["golds"]] for quarter in quarters])
        if golds.size:
            axis.fill_between(after, golds.min(axis=1), golds.max(axis=1), color="goldenrod", alpha=0.3)
            axis.plot(after, golds.mean(axis=1), "o-", color="darkgoldenrod", label="Golds, retrained then")
        axis.plot(after, [quarter["stream"][name] for quarter in quarters], "s-", color="tab:blue", label="in service")
        axis.set(xlabel="requests answered", title=title, yscale=scale, xticks=after)
        # The axis starts at 0, or at rank 1, so that a small gap looks small.
        highest = max([*golds.ravel(), *(quarter["stream"][name] for quarter in quarters)])
        axis.set_ylim(int(scale == "log"), 1.25 * highest)
        axis.legend(fontsize=8)
    for values, label in (
        ([e["seconds"] for e in removed[1:]], "a request"),
        ([e["seconds"] for e in taken[1:]], "an update"),
    ):
        axes[-1].step(np.sort(values), np.arange(1, len(values) + 1) / max(len(values), 1), where="post", label=label)
    if seconds := [gold["seconds"] for quarter in quarters for gold in quarter["golds"]]:
        axes[-1].axvline(np.mean(seconds), color="darkgoldenrod", label="a Gold")
    axes[-1].set(xscale="log", xlabel="seconds", title="share that is done by then", ylim=(0, 1.02))
    axes[-1].legend(fontsize=8)
    return saved(figure, path)
