"""Tables and plots of a comparison or an audit, made from its results and nothing else; no jax."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from recunlearn_jax.results import INSIDE, coupled_of, figure_of, golds_of, methods_of

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
    ("preparation s", "preparation total", "{:.1f}"),
    ("seconds", "seconds running", "{:.2f}"),
    ("compile s", "seconds compiling", "{:.1f}"),
    ("speed-up", "speed_up", "{:.1f}x"),
)
# title, set of probes of the check effect
_PROBES = (
    ("similarities", "similarities"),
    ("affected scores", "affected scores"),
    ("other scores", "other scores"),
    ("retained pairs", "retained pairs"),
    ("forgotten pairs", "forgotten pairs"),
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
            cells.append(_cell(value, form))
        table.append(cells)
    coupled = [models[name] for name in coupled_of(results)]
    mean, band = [f"Gold, mean of {len(golds)}"], ["Gold, 95 % band +-"]
    beside = [f"coupled Gold, mean of {len(coupled)}"]
    for title, figure, form in known:
        for cells, of in ((mean, golds), (beside, coupled)):
            values = [figure_of(row, figure) for row in of] if figure else []
            cells.append(_cell(None if title == "speed-up" else _mean(values), form))
        limits = bands.get(figure)
        half = None if limits is None or limits["alone"] is None else limits["alone"][1] - limits["mean"]
        band.append(_cell(half, form))
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
    where = f"{results['environment']['device']}, {results['environment']['cores']} cores"
    return f"{results['data']}: forget {forgotten} ({on}{seed}, {where})"


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

    models, golds, bands = results["models"], golds_of(results), results["bands"]
    if "forget recall@20" in bands and "test recall@20" in bands:
        figure, axis = plt.subplots(figsize=(7, 4.5))
        across, up = bands["forget recall@20"]["alone"], bands["test recall@20"]["alone"]
        if across is not None:
            axis.axvspan(*across, color="goldenrod", alpha=0.2, label="Gold band, forget")
            axis.axhspan(*up, color="goldenrod", alpha=0.1, label="Gold band, test")
        for name, row in models.items():
            gold = name in golds
            label = None if gold and name != golds[0] else ("Gold" if gold else name)
            at = figure_of(row, "forget recall@20"), figure_of(row, "test recall@20")
            if at[0] is None or at[1] is None:
                continue
            axis.scatter(
                at[0],
                at[1],
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
    names = [*[n for n in methods_of(results) if not n.endswith("original")], *golds]
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
        table.append(["coupled Gold", *("1 / 0" for _ in shown), *(_cell(value, "{:.3g}") for value in aim)])
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
    return _cell(figure_of(row, figure), form) + ("" if error is None else f" ({error:.2g})")


def effect_notes(results: dict[str, Any]) -> str:
    """What the table of effects must be read with."""
    return (
        f"Progress / collateral against {len(coupled_of(results))} coupled Golds, each with its own original, standard errors in brackets; "
        "1 / 0 is what retraining changes and nothing else."
    )


def effect_markdown(results: dict[str, Any]) -> str:
    """The effects as Markdown; nothing where there is no coupled Gold."""
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


def _saved(figure: Any, path: Path) -> Path:
    """Write a picture and give its memory back."""
    import matplotlib.pyplot as plt

    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path


def effect_plot(results: dict[str, Any], path: Path, probe: str = "similarities") -> Path:
    """Draw progress against collateral, a point a model, its area by its seconds.

    Args:
        results: of a comparison with coupled Golds.
        path: of the picture.
        probe: set of probes.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(8, 4.5))
    axis.scatter(1, 0, s=220, marker="*", color="goldenrod", zorder=4)
    axis.annotate("coupled Gold", (1, 0), textcoords="offset points", xytext=(-8, 10), ha="right", fontsize=9)
    for name in methods_of(results):
        row = results["models"][name]
        progress, collateral = figure_of(row, f"progress {probe}"), figure_of(row, f"collateral {probe}")
        if progress is None or collateral is None or name.endswith("original"):
            continue
        at = progress, collateral
        seconds = figure_of(row, "seconds running") if "seconds" in row else None
        error = [figure_of(row, f"{part} {probe}, s.e.") for part in ("progress", "collateral")]
        if None not in error:
            axis.errorbar(*at, xerr=error[0], yerr=error[1], color="grey", lw=0.8, zorder=1)
        label = name if seconds is None else f"{name}, {seconds:.2g} s"
        axis.scatter(*at, s=25 + 60 * (seconds or 0) ** 0.5, alpha=0.75, zorder=3, label=label)
    axis.axvline(1, color="goldenrod", lw=0.8, ls=":")
    axis.margins(0.12, 0.15)
    axis.set_ylim(bottom=-0.06)
    axis.set(xlabel=f"progress on {probe} (1: as much as retraining)", ylabel="collateral (0: nothing else)")
    axis.legend(fontsize=8, markerscale=0.6, loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    axis.set_title(heading(results), fontsize=8)
    return _saved(figure, path)


def canary_plot(results: dict[str, Any], path: Path) -> Path:
    """Draw the median rank of canaries against seconds, with the band of a further Gold.

    Args:
        results: of a comparison with canaries.
        path: of the picture.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4.5))
    band = results["bands"].get("canary log10 rank")
    if band is not None and band["alone"] is not None:
        low, high = (10**limit for limit in band["alone"])
        axis.axhspan(low, high, color="goldenrod", alpha=0.25, label="where a further Gold falls, 95 %")
    for name in [*methods_of(results), *golds_of(results)]:
        row = results["models"][name]
        rank, seconds = figure_of(row, "canary median rank"), figure_of(row, "seconds running")
        if rank is None or not seconds or name.endswith("original"):
            continue
        gold = name in golds_of(results)
        label = "Gold" if gold and name == golds_of(results)[0] else None
        axis.scatter(
            seconds, rank, s=70, marker="*" if gold else "o", color="goldenrod" if gold else None, label=label, zorder=3
        )
        if not gold:
            axis.annotate(name, (seconds, rank), textcoords="offset points", xytext=(7, 4), fontsize=8)
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="seconds from the request to usable parameters",
        ylabel="median rank of canaries",
    )
    axis.margins(0.12)
    axis.legend(fontsize=8, loc="center left")
    axis.set_title(heading(results), fontsize=8)
    return _saved(figure, path)


def _judged(results: dict[str, Any]) -> tuple[list[str], list[tuple[str, int]]]:
    """Models and (figure, check) of an audit, in the order of its table."""
    models = [name for name in results["verdicts"] if name not in coupled_of(results)[1:]]
    judged = sorted(results["judged"], key=lambda figure: figure["check"])
    shown = [f for f in judged if any(figure_of(results["models"][m], f["name"]) is not None for m in models)]
    return models, [(figure["name"], figure["check"]) for figure in shown]


def audit_rows(results: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of an audit: a row a figure, a column a model, the verdict behind the value.

    Args:
        results: of `comparison.compare` or `auditing.audit_runs`.
    """
    models, figures = _judged(results)
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
    """What the table of an audit must be read with: number of Golds and how often a Gold itself is accused."""
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


def audit_plot(results: dict[str, Any], path: Path) -> Path:
    """Draw how far each figure of each model lies from Gold's mean, in half-widths of the band of one figure."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    models, figures = _judged(results)
    bands = results["bands"]
    away = np.full((len(figures), len(models)), np.nan)
    for i, (figure, _) in enumerate(figures):
        for j, model in enumerate(models):
            band = bands.get(figure) or bands.get(f"{model}/{figure}")
            value = figure_of(results["models"][model], figure)
            if band is not None and band["alone"] is not None and value is not None:
                half = max(band["alone"][1] - band["mean"], 1e-9)
                away[i, j] = (value - band["mean"]) / half
    figure, axis = plt.subplots(figsize=(3 + 0.8 * len(models), 1.5 + 0.27 * len(figures)))
    drawn = axis.imshow(np.clip(away, -4, 4), cmap="RdBu_r", vmin=-4, vmax=4, aspect="auto")
    axis.set_xticks(range(len(models)), models, rotation=40, ha="right")
    axis.set_yticks(range(len(figures)), [f"{check}  {name}" for name, check in figures], fontsize=8)
    for i, (name, _) in enumerate(figures):
        for j, model in enumerate(models):
            found = results["verdicts"][model].get(name)
            if found is not None and found["verdict"] != INSIDE:
                dark = abs(away[i, j]) > 2.5
                axis.text(j, i, "x", ha="center", va="center", fontsize=9, color="white" if dark else "black")
    figure.colorbar(drawn, label="distance from Gold's mean, in half-bands of one figure; x: outside for all together")
    axis.set_title(heading(results), fontsize=8)
    return _saved(figure, path)


def audited(results: dict[str, Any]) -> bool:
    """Whether checks were measured that not every comparison has."""
    return results.get("audited", bool(results["verdicts"]))


def write(results: dict[str, Any], folder: Path) -> list[Path]:
    """Write table.md and the plots of a comparison into a folder, and audit.md and its plot where it was audited.

    Args:
        results: of a comparison, or of an audit, which has no seconds and so no table.md.
        folder: made where it is not there.
    """
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
