"""The table of an audit: one row per figure, one column per model, each value with its verdict."""

from typing import Any

from rich.table import Table

from recunlearn_jax.report.comparison import heading
from recunlearn_jax.report.effect import effect_markdown
from recunlearn_jax.results import INSIDE, coupled_of, figure_of, golds_of


def judged(results: dict[str, Any]) -> tuple[list[str], list[tuple[str, int]]]:
    """Models, and (figure, number of its check), of an audit, in the order of its table."""
    models = [name for name in results["verdicts"] if name not in coupled_of(results)[1:]]
    judged = sorted(results["judged"], key=lambda figure: figure["check"])
    shown = [f for f in judged if any(figure_of(results["models"][m], f["name"]) is not None for m in models)]
    return models, [(figure["name"], figure["check"]) for figure in shown]


def audit_rows(results: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of an audit: one row per figure, one column per model, the verdict after the value.

    Args:
        results: of `comparison.compare` or `auditing.audit_runs`.
    """
    models, figures = judged(results)
    bands = results["bands"]
    table = []
    for figure, check in figures:
        band = bands.get(figure)
        cells = [str(check), figure]
        if band is None:
            cells += ["own", "-", "-"] if any(f"{m}/{figure}" in bands for m in models) else ["-", "-", "-"]
        else:
            alone = band["alone"]
            cells += [f"{band['mean']:.4g}", "-" if band["low"] is None else f"{band['low']:.3g} to {band['high']:.3g}"]
            cells.append("-" if alone is None else f"{alone[1] - band['mean']:.2g}")
        for model in models:
            value, found = figure_of(results["models"][model], figure), results["verdicts"][model].get(figure)
            cells.append("-" if value is None else f"{value:.4g}{_mark(found)}")
        table.append(cells)
    table.append(["", "figures outside", "", "", "", *(str(results["misses"][m]) for m in models)])
    return ["check", "figure", "Gold, mean", "Gold, band", "detects", *models], table


def _mark(found: dict[str, str] | None) -> str:
    if found is None:
        return ""
    if found["verdict"] != INSIDE:
        return f" **{found['verdict']}**"
    return f" ({found['suspicion']}?)" if found["suspicion"] != INSIDE else ""


def audit_notes(results: dict[str, Any]) -> str:
    """Notes needed to read the table of an audit: number of Golds, and how often a Gold itself is accused."""
    count = len(golds_of(results))
    text = (
        f"Bands from {count} Golds, 95 % for all figures of a model together. In brackets: outside a band of its own, whose half-width"
        " (detects) is the smallest difference from Gold's mean that is noticed."
    )
    if results.get("not_finite"):
        text += f" Not finite, so not judged: {', '.join(results['not_finite'])}."
    alarms = results["false_alarms"]
    if alarms is None:
        return text + " Fewer than three Golds: no false-alarm rate."
    return text + (
        f" A Gold left out and judged by the others is outside in {alarms['verdicts']} of {alarms['judged']} figures,"
        f" in brackets in {alarms['suspicions']}."
    )


def audit_markdown(results: dict[str, Any]) -> str:
    """The audit as Markdown, with a heading that says what was audited."""
    header, table = audit_rows(results)
    lines = [f"**{heading(results)}**", "", "| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(row) + " |" for row in table]
    effects = effect_markdown(results)
    return "\n".join([*lines, "", audit_notes(results), *([""] if effects else []), effects])


def audit_table(results: dict[str, Any]) -> Table:
    """The audit for a terminal."""
    header, table = audit_rows(results)
    out = Table(title=heading(results), caption=audit_notes(results))
    for name in header:
        out.add_column(name, justify="right" if name == "check" else "left")
    for row in table:
        out.add_row(*(cell.replace("**", "") for cell in row))
    return out


def audited(results: dict[str, Any]) -> bool:
    """Whether checks were measured beyond those of every comparison."""
    return results.get("audited", bool(results["verdicts"]))
