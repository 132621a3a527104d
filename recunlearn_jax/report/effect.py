"""The table of the effect of a removal: progress and collateral of each model."""

from typing import Any

from rich.table import Table

from recunlearn_jax.errors import counted
from recunlearn_jax.report.comparison import cell
from recunlearn_jax.results import coupled_of, figure_of, methods_of

# title, set of probes of the check effect
_PROBES = (
    ("similarities", "similarities"),
    ("affected scores", "affected scores"),
    ("other scores", "other scores"),
    ("retained pairs", "retained pairs"),
    ("forgotten pairs", "forgotten pairs"),
)


def effect_rows(results: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of what each model changed, against the coupled Gold: progress and collateral on each set of probes.

    Args:
        results: of `comparison.compare`; without coupled Golds there is no row.
    """
    models = results["models"]
    names = [
        n for n in methods_of(results) if n != "original" and figure_of(models[n], "progress similarities") is not None
    ]
    shown = [(t, p) for t, p in _PROBES if any(figure_of(models[n], f"progress {p}") is not None for n in names)]
    further = [
        (title, figure)
        for title, figure in (
            ("overlap@20", "overlap@20 with coupled Gold"),
            ("divergence retain", "BPR divergence retain from coupled Gold"),
            ("similarity correlation beyond", "similarity correlation beyond coupled Gold's"),
            ("update AUC pairs", "update AUC pairs"),
            ("update AUC items", "update AUC items"),
        )
        if any(figure_of(models[n], figure) is not None for n in names)
    ]
    table = []
    if names:
        aim = [models[names[0]]["figures"].get(f"{figure}, coupled Gold") for _, figure in further]
        aim[:1] = [1.0] if further and further[0][0] == "overlap@20" else aim[:1]
        table.append(["coupled Gold", *("1 / 0" for _ in shown), *(cell(value, "{:.3g}") for value in aim)])
    for name in [*(["original"] if names and "original" in models else []), *names]:
        cells = [name]
        for _, probe in shown:
            cells.append(
                " / ".join(
                    _with_error(models[name], f"{part} {probe}", "{:.2f}") for part in ("progress", "collateral")
                )
            )
        table.append([*cells, *(_with_error(models[name], figure, "{:.3g}") for _, figure in further)])
    return ["model", *(title for title, _ in shown), *(title for title, _ in further)], table


def _with_error(row: dict[str, Any], figure: str, form: str) -> str:
    """A mean with its standard error in brackets."""
    error = figure_of(row, f"{figure}, s.e.")
    return cell(figure_of(row, figure), form) + ("" if error is None else f" ({error:.2g})")


def effect_notes(results: dict[str, Any]) -> str:
    """Notes needed to read the table of effects."""
    golds = len(coupled_of(results))
    spread = ", each with its own original, standard errors in brackets" if golds > 1 else ""
    return f"Progress / collateral against {counted(golds, 'coupled Gold')}{spread}; 1 / 0 is what retraining changes and nothing else."


def effect_markdown(results: dict[str, Any]) -> str:
    """The effects as Markdown; empty if there is no coupled Gold."""
    header, table = effect_rows(results)
    if not table:
        return ""
    lines = [
        "| " + " | ".join(header) + " |",
        "|" + "---|" * len(header),
        *("| " + " | ".join(row) + " |" for row in table),
    ]
    return "\n".join([*lines, "", effect_notes(results)]) + "\n"


def effect_table(results: dict[str, Any]) -> Table:
    """The effects for a terminal."""
    header, table = effect_rows(results)
    out = Table(title="effect of the removal", caption=effect_notes(results))
    for name in header:
        out.add_column(name)
    for row in table:
        out.add_row(*row)
    return out
