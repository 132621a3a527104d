"""The table of a comparison: one row per model, Golds summarised."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from recunlearn_jax.errors import counted
from recunlearn_jax.results import coupled_of, figure_of, golds_of, methods_of

# title, figure, format
_COLUMNS = (
    ("valid Recall@20", "valid recall@20", "{:.4f}"),
    ("valid NDCG@20", "valid ndcg@20", "{:.4f}"),
    ("test Recall@20", "test recall@20", "{:.4f}"),
    ("test NDCG@20", "test ndcg@20", "{:.4f}"),
    ("forget Recall@20", "forget recall@20", "{:.4f}"),
    ("forget Recall@500", "forget recall@500", "{:.4f}"),
    ("forget Recall@1000", "forget recall@1000", "{:.4f}"),
    ("forget Recall@1500", "forget recall@1500", "{:.4f}"),
    ("gap to Gold", "", "{:+.4f}"),
    ("divergence forget", "BPR divergence forget", "{:.3g}"),
    ("divergence retain", "BPR divergence retain", "{:.3g}"),
    ("canary rank", "canary median rank", "{:.0f}"),
    ("progress", "progress similarities", "{:.2f}"),
    ("collateral", "collateral similarities", "{:.2f}"),
    ("modality overlap", "modality overlap", "{:.3f}"),
    ("preparation s", "preparation total", "{:.3g}"),
    ("seconds", "seconds running", "{:.2f}"),
    ("compile s", "seconds compiling", "{:.1f}"),
    ("speed-up", "speed_up", "{:.1f}x"),
)


_OF_ITEMS = ("forget recall@500", "forget recall@1000", "forget recall@1500")  # shown for requests that name items


def rows(results: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table: the original, each method, the means of both kinds of Gold and half the width of the Golds' band.

    Args:
        results: of `comparison.compare`.
    """
    models, bands = results["models"], results["bands"]
    golds = [models[name] for name in golds_of(results)]
    found = {figure: [figure_of(row, figure) for row in models.values()] for _, figure, _ in _COLUMNS if figure}
    known = [c for c in _COLUMNS if any(value is not None for value in found.get(c[1], ()))]
    if not results["forgotten"]["items"]:
        known = [c for c in known if c[1] not in _OF_ITEMS]
    aim = _mean([figure_of(row, "forget recall@20") for row in golds])
    if aim is not None:
        known.insert([c[1].startswith("forget") for c in known].index(True) + _forget_columns(known), _COLUMNS[8])
    table = []
    for name in methods_of(results):
        cells = [name]
        for title, figure, form in known:
            value = figure_of(models[name], figure or "forget recall@20")
            if not figure:
                value = None if value is None or aim is None else value - aim
            if title == "speed-up" and name.endswith("original"):
                value = None
            cells.append(cell(value, form))
        table.append(cells)
    coupled = [models[name] for name in coupled_of(results)]
    mean, band = [f"Gold, mean of {len(golds)}"], ["Gold, 95 % band +-"]
    beside = [f"coupled Gold, mean of {len(coupled)}"]
    for title, figure, form in known:
        for cells, of in ((mean, golds), (beside, coupled)):
            values = [figure_of(row, figure) for row in of] if figure else []
            cells.append(cell(None if title == "speed-up" else _mean(values), form))
        limits = bands.get(figure)
        half = None if limits is None or limits["alone"] is None else limits["alone"][1] - limits["mean"]
        band.append(cell(half, form))
    return ["model", *[title for title, _, _ in known]], [*table, *([beside] if coupled else []), mean, band]


def _forget_columns(columns: Sequence[tuple[str, str, str]]) -> int:
    return sum(figure.startswith("forget") for _, figure, _ in columns)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def markdown(results: dict[str, Any]) -> str:
    """The table as Markdown, with a heading that says what was compared."""
    header, table = rows(results)
    lines = [f"**{heading(results)}**", "", "| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in table)]) + "\n"


def heading(results: dict[str, Any]) -> str:
    """What was compared, in one line."""
    backbone = results["config"]["backbone"] if results.get("config") else "mgcn"
    forgotten = ", ".join(f"{count:,} {name}" for name, count in results["forgotten"].items() if count)
    seed = (
        f"request seed {results['request']['seed']}, seed {results['seed']}"
        if results["request"]
        else f"seed {results['seed']}"
    )
    on = "" if backbone == "mgcn" else f"{backbone}, "
    where = f"{results['environment']['device']}, {counted(results['environment']['cores'], 'core')}"
    return f"{results['data']}: forget {forgotten} ({on}{seed}, {where})"


def terminal_table(results: dict[str, Any]) -> Table:
    """The table for a terminal: one column per model, so that it fits."""
    header, table = rows(results)
    out = Table(title=heading(results))
    out.add_column("")
    for row in table:
        out.add_column(row[0], justify="right")
    for i, title in enumerate(header[1:], 1):
        out.add_row(title, *[row[i] for row in table])
    return out


def signatures(before: dict[str, Any], after: dict[str, Any], seconds: float, gone: Sequence[str]) -> list[str]:
    """The three failure signatures of MMRecUN in plain words: quality lost, forget pairs that persist, cost.

    Args:
        before, after: metric reports of the original and of the unlearned model, with "valid" and "forget" where they exist.
        seconds: that the answer took.
        gone: modalities that were removed as a whole.
    """
    lines = []
    if "valid" in after and "valid" in before:
        a, b = before["valid"]["recall@20"], after["valid"]["recall@20"]
        change = (b - a) / a if a else 0.0
        lines.append(f"retain quality: valid Recall@20 {a:.4f} -> {b:.4f} ({change:+.1%})")
    else:
        lines.append("retain quality: not measured, no retained user has a valid pair")
    if "forget" in after:
        a, b = before["forget"]["recall@20"], after["forget"]["recall@20"]
        unseen = f"; pairs never seen reach {after['valid']['recall@20']:.4f} (valid)" if "valid" in after else ""
        lines.append(f"forget pairs that persist: forget Recall@20 {a:.4f} -> {b:.4f}{unseen}")
    else:
        lines.append("forget pairs that persist: the request has no interactions to forget")
    if gone:
        lines.append(f"modalities removed: {', '.join(gone)}")
    lines.append(f"cost: {seconds:.2f} s from the request to a usable model")
    lines.append(
        "A low forget Recall is not a proof: `recunlearn compare --canaries 20` plants users and reads their trace in other rows."
    )
    return lines


def cell(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
