"""Tables and plots of a comparison or an audit, made from its results alone, without jax."""

from pathlib import Path
from typing import Any

from recunlearn_jax.files import as_path
from recunlearn_jax.report.audit import audit_markdown, audit_rows, audit_table, audited
from recunlearn_jax.report.comparison import heading, markdown, rows, signatures, terminal_table
from recunlearn_jax.report.effect import effect_markdown, effect_notes, effect_rows, effect_table
from recunlearn_jax.report.pictures import audit_plot, canary_plot, effect_plot, plots
from recunlearn_jax.report.stream import stream_markdown, stream_plot

__all__ = [
    "audit_markdown",
    "audit_plot",
    "audit_rows",
    "audit_table",
    "audited",
    "canary_plot",
    "effect_markdown",
    "effect_notes",
    "effect_plot",
    "effect_rows",
    "effect_table",
    "heading",
    "markdown",
    "plots",
    "rows",
    "signatures",
    "stream_markdown",
    "stream_plot",
    "terminal_table",
    "write",
]


def write(results: dict[str, Any], folder: str | Path) -> list[Path]:
    """Write table.md and the plots of a comparison into a folder, and audit.md and its plot if it was audited.

    Args:
        results: of a comparison, or of an audit, which has no seconds and so no table.md.
        folder: created if it does not exist.
    """
    folder = as_path(folder, "folder")
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    if "curves" in results:
        (folder / "table.md").write_text(markdown(results))
        files += [folder / "table.md", *plots(results, folder)]
    if audited(results):
        (folder / "audit.md").write_text(audit_markdown(results))
        files += [folder / "audit.md", audit_plot(results, folder / "audit.png")]
    if effect_rows(results)[1]:
        files.append(effect_plot(results, folder / "effect.png"))
    if "canary log10 rank" in results["bands"]:
        files.append(canary_plot(results, folder / "canaries.png"))
    return files
