"""Tables and plots of a comparison, made from its results and nothing else."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from recunlearn_jax.audit.verdict import FIGURES, INSIDE
from recunlearn_jax.comparison import figure_of

# title, figure, format
_COLUMNS = (
    ("valid Recall@20", "valid recall@20", "{:.4f}"),
    ("valid NDCG@20", "valid ndcg@20", "{:.4f}"),
    ("test Recall@20", "test recall@20", "{:.4f}"),
    ("test NDCG@20", "test ndcg@20", "{:.4f}"),
    ("forget Recall@20", "forget recall@20", "{:.4f}"),
    ("gap to Gold", "", "{:+.4f}"),
    ("divergence forget", "divergence forget", "{:.3g}"),
    ("divergence retain", "divergence retain", "{:.3g}"),
    ("canary rank", "canary median_rank", "{:.0f}"),
    ("modality overlap", "modality_overlap", "{:.3f}"),
    ("seconds", "seconds running", "{:.2f}"),
    ("compile s", "seconds compiling", "{:.1f}"),
    ("speed-up", "speed_up", "{:.1f}x"),
)
_ITEM_COLUMNS = tuple((f"forget Recall@{k}", f"forget recall@{k}", "{:.4f}") for k in (500, 1000, 1500))


def method_names(results: dict[str, Any]) -> list[str]:
    """Names of the models that are no Gold, in the order of the comparison."""
    return [name for name in results["models"] if not name.startswith("gold-")]


def rows(results: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table: the original, each method, the mean of the Golds and the half-width of their band.

    Args:
        results: of `comparison.compare`.
    """
    models = results["models"]
    golds = [row for name, row in models.items() if name.startswith("gold-")]
    columns = list(_COLUMNS)
    if results["forgotten"]["items"]:
        columns[5:5] = _ITEM_COLUMNS
    known = [c for c in columns if not c[1] or any(figure_of(row, c[1]) is not None for row in models.values())]
    known = [c for c in known if c[1] or "forget recall@20" in results["gold"]]
    table = []
    for name in method_names(results):
        cells = [name]
        for title, figure, form in known:
            if title == "gap to Gold":
                value = figure_of(models[name], "forget recall@20")
                value = None if value is None else value - results["gold"]["forget recall@20"]["mean"]
            else:
                value = figure_of(models[name], figure)
            if name == "original" and title == "speed-up":
                value = None
            cells.append(_cell(value, form))
        table.append(cells)
    mean, band = [f"Gold, mean of {len(golds)}"], ["Gold, 95 % band +-"]
    for title, figure, form in known:
        values = [v for v in (figure_of(row, figure) for row in golds) if v is not None] if figure else []
        mean.append(_cell(sum(values) / len(values) if values and title != "speed-up" else None, form))
        limits = results["gold"].get(figure)
        half = None if limits is None or limits["high"] is None else limits["high"] - limits["mean"]
        band.append(_cell(half, form))
    return ["model", *[title for title, _, _ in known]], [*table, mean, band]


def markdown(results: dict[str, Any]) -> str:
    """The table as Markdown, with a heading that says what was compared."""
    header, table = rows(results)
    lines = [f"**{heading(results)}**", "", "| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in table)]) + "\n"


def heading(results: dict[str, Any]) -> str:
    """What was compared, in one line."""
    forgotten = ", ".join(f"{count:,} {name}" for name, count in results["forgotten"].items() if count)
    seed = f"request seed {results['request']['seed']}, seed {results['seed']}"
    return f"{results['data']}: forget {forgotten} ({seed}, {results['environment']['device']}, {results['environment']['cores']} cores)"


def terminal_table(results: dict[str, Any]) -> Table:
    """The table for a terminal: one column a model, so that it fits."""
    header, table = rows(results)
    out = Table(title=heading(results))
    out.add_column("")
    for row in table:
        out.add_column(row[0], justify="right")
    for i, title in enumerate(header[1:], 1):
        out.add_row(title, *[row[i] for row in table])
    return out


def plots(results: dict[str, Any], folder: Path) -> list[Path]:
    """Draw learning curves, forget against retain quality with the Gold band, and time bars.

    Args:
        results: of `comparison.compare`.
        folder: receives curves.png, quality.png and seconds.png.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    drawn = []

    def save(figure, name):
        figure.suptitle(heading(results), fontsize=9)
        figure.tight_layout()
        figure.savefig(folder / name, dpi=120)
        plt.close(figure)
        drawn.append(folder / name)

    figure, axis = plt.subplots(figsize=(7, 4))
    for name, curve in results["curves"].items():
        axis.plot(range(1, len(curve) + 1), curve, label=name)
    axis.set(xlabel="epoch", ylabel="valid Recall@20")
    axis.legend()
    save(figure, "curves.png")

    models = results["models"]
    if "forget recall@20" in results["gold"] and "test recall@20" in results["gold"]:
        figure, axis = plt.subplots(figsize=(7, 4.5))
        across, up = results["gold"]["forget recall@20"], results["gold"]["test recall@20"]
        if across["low"] is not None:
            axis.axvspan(across["low"], across["high"], color="goldenrod", alpha=0.2, label="Gold band, forget")
            axis.axhspan(up["low"], up["high"], color="goldenrod", alpha=0.1, label="Gold band, test")
        for name, row in models.items():
            gold = name.startswith("gold-")
            label = None if gold and name != "gold-1" else ("Gold" if gold else name)
            axis.scatter(
                row["forget"]["recall@20"],
                row["test"]["recall@20"],
                s=60,
                marker="*" if gold else "o",
                color="goldenrod" if gold else None,
                label=label,
                zorder=3,
            )
        axis.set(xlabel="forget Recall@20 (aim: Gold's)", ylabel="test Recall@20 (higher is better)")
        axis.legend(fontsize=8)
        save(figure, "quality.png")

    figure, axis = plt.subplots(figsize=(7, 3.5))
    names = [*[n for n in method_names(results) if n != "original"], *[n for n in models if n.startswith("gold-")]]
    running = [models[n]["seconds"]["running"] for n in names]
    compiling = [models[n]["seconds"]["compiling"] for n in names]
    axis.barh(names, running, label="running")
    axis.barh(names, compiling, left=running, color="lightgrey", label="compiling")
    for i, (a, b) in enumerate(zip(running, compiling, strict=True)):
        axis.text(a + b, i, f" {a:.2f} s + {b:.1f} s", va="center", fontsize=8)
    axis.margins(x=0.25)
    axis.invert_yaxis()
    axis.set(xlabel="seconds")
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False, fontsize=8)  # never over a bar
    save(figure, "seconds.png")
    return drawn


def _judged(audit: dict[str, Any]) -> tuple[list[str], list[tuple[str, int]]]:
    """Models and (figure, check) of an audit, in the order of its table."""
    models = list(audit["verdicts"])
    return models, [(f.name, f.check) for f in FIGURES if any(f.name in audit["figures"][m] for m in models)]


def audit_rows(audit: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of an audit: a row a figure, a column a model, the verdict behind the value.

    Args:
        audit: of `auditing.audit`.
    """
    models, figures = _judged(audit)
    table = []
    for figure, check in figures:
        band = audit["bands"].get(figure)
        cells = [str(check), figure]
        if band is None:
            cells += ["own", "-"] if any(f"{m}/{figure}" in audit["bands"] for m in models) else ["-", "-"]
        else:
            cells += [f"{band['mean']:.4g}", "-" if band["low"] is None else f"{band['low']:.3g} to {band['high']:.3g}"]
        for model in models:
            value, found = audit["figures"][model].get(figure), audit["verdicts"][model].get(figure)
            cells.append("-" if value is None else f"{value:.4g}{_mark(found)}")
        table.append(cells)
    table.append(["", "figures outside", "", "", *(str(audit["misses"][m]) for m in models)])
    return ["check", "figure", "Gold, mean", "Gold, band", *models], table


def _mark(found: dict[str, str] | None) -> str:
    if found is None:
        return ""
    if found["verdict"] != INSIDE:
        return f" **{found['verdict']}**"
    return f" ({found['suspicion']}?)" if found["suspicion"] != INSIDE else ""


def audit_notes(audit: dict[str, Any]) -> str:
    """What the table of an audit must be read with: number of Golds and how often a Gold itself is accused."""
    text = f"Bands from {len(audit['golds'])} Golds, 95 % for all figures of a model together. In brackets: outside a band of its own."
    alarms = audit["false_alarms"]
    if alarms is None:
        return text + " Fewer than three Golds: no false-alarm rate."
    return text + (
        f" A Gold left out and judged by the others is outside in {alarms['verdicts']} of {alarms['judged']} figures,"
        f" in brackets in {alarms['suspicions']}."
    )


def audit_markdown(results: dict[str, Any]) -> str:
    """The audit of a comparison as Markdown, with a heading that says what was audited."""
    header, table = audit_rows(results["audit"])
    lines = [f"**{heading(results)}**", "", "| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(row) + " |" for row in table]
    return "\n".join([*lines, "", audit_notes(results["audit"])]) + "\n"


def audit_table(audit: dict[str, Any], title: str) -> Table:
    """The audit for a terminal."""
    header, table = audit_rows(audit)
    out = Table(title=title, caption=audit_notes(audit))
    for name in header:
        out.add_column(name, justify="right" if name == "check" else "left")
    for row in table:
        out.add_row(*(cell.replace("**", "") for cell in row))
    return out


def audit_plot(results: dict[str, Any], path: Path) -> Path:
    """Draw how far each figure of each model lies from Gold's mean, in half-widths of the band of one figure."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    audit = results["audit"]
    models, figures = _judged(audit)
    away = np.full((len(figures), len(models)), np.nan)
    for i, (figure, _) in enumerate(figures):
        for j, model in enumerate(models):
            band = audit["bands"].get(figure) or audit["bands"].get(f"{model}/{figure}")
            value = audit["figures"][model].get(figure)
            if band is not None and band["alone"] is not None and value is not None:
                half = max(band["alone"][1] - band["mean"], 1e-9)
                away[i, j] = (value - band["mean"]) / half
    figure, axis = plt.subplots(figsize=(3 + 0.8 * len(models), 1.5 + 0.27 * len(figures)))
    drawn = axis.imshow(np.clip(away, -4, 4), cmap="RdBu_r", vmin=-4, vmax=4, aspect="auto")
    axis.set_xticks(range(len(models)), models, rotation=40, ha="right")
    axis.set_yticks(range(len(figures)), [f"{check}  {name}" for name, check in figures], fontsize=8)
    for i, (name, _) in enumerate(figures):
        for j, model in enumerate(models):
            found = audit["verdicts"][model].get(name)
            if found is not None and found["verdict"] != INSIDE:
                dark = abs(away[i, j]) > 2.5
                axis.text(j, i, "x", ha="center", va="center", fontsize=9, color="white" if dark else "black")
    figure.colorbar(drawn, label="distance from Gold's mean, in half-bands of one figure; x: outside for all together")
    axis.set_title(heading(results), fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path


def write(results: dict[str, Any], folder: Path) -> list[Path]:
    """Write table.md and the plots of a comparison into a folder, and audit.md and its plot where it was audited."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.md").write_text(markdown(results))
    files = [folder / "table.md", *plots(results, folder)]
    if "audit" in results:
        (folder / "audit.md").write_text(audit_markdown(results))
        files += [folder / "audit.md", audit_plot(results, folder / "audit.png")]
    return files


def signatures(before: dict[str, Any], after: dict[str, Any], seconds: float, gone: Sequence[str]) -> list[str]:
    """The three failure signatures of MMRecUN in plain words: quality lost, forget pairs that persist, cost.

    Args:
        before, after: metric reports of the original and of the unlearned model, with "valid" and "forget" where they exist.
        seconds: the answer took.
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


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
