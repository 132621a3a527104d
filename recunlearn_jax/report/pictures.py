"""The pictures of a comparison and of an audit."""

from pathlib import Path
from typing import Any

from recunlearn_jax.files import as_path
from recunlearn_jax.report.audit import judged
from recunlearn_jax.report.comparison import heading
from recunlearn_jax.results import INSIDE, figure_of, golds_of, methods_of


def plots(results: dict[str, Any], folder: str | Path) -> list[Path]:
    """Draw learning curves, forget against retain quality with the Gold band, and time bars.

    Args:
        results: of `comparison.compare`.
        folder: receives curves.png, quality.png and seconds.png.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    folder = as_path(folder, "folder")
    drawn = []

    def save(figure, name):
        figure.suptitle(heading(results), fontsize=9)
        drawn.append(saved(figure, folder / name))

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


def effect_plot(results: dict[str, Any], path: str | Path, probe: str = "similarities") -> Path:
    """Draw progress against collateral, one point per model, with an area that grows with its seconds.

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
    return saved(figure, path)


def canary_plot(results: dict[str, Any], path: str | Path) -> Path:
    """Draw the median rank of canaries against seconds, with the band of a further Gold.

    Args:
        results: of a comparison with canaries.
        path: of the picture.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(8, 4.5))
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
        label = name if not gold else "Gold" if name == golds_of(results)[0] else None
        axis.scatter(
            seconds, rank, s=70, marker="*" if gold else "o", color="goldenrod" if gold else None, label=label, zorder=3
        )
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="seconds from the request to usable parameters",
        ylabel="median rank of canaries",
    )
    axis.margins(0.12)
    axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
    axis.set_title(heading(results), fontsize=8)
    return saved(figure, path)


def audit_plot(results: dict[str, Any], path: str | Path) -> Path:
    """Draw how far each figure of each model lies from Gold's mean, in half-widths of the band of one figure."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    models, figures = judged(results)
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
    return saved(figure, path)


def saved(figure: Any, path: str | Path) -> Path:
    """Write a picture, with its folder if there is none, and free its memory, written or not.

    Raises:
        InputError: the path is neither text nor a path.
    """
    import matplotlib.pyplot as plt

    try:
        path = as_path(path, "path")
        figure.tight_layout()
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)
    finally:
        plt.close(figure)
    return path
