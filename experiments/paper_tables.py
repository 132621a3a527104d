"""Tables of the paper's experiments, claims and open questions: docs/paper.md, docs/claims.md and docs/variations.md."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from committed import RESULTS, every, titled, written

from recunlearn_jax import results
from recunlearn_jax.errors import counted
from recunlearn_jax.files import read_json
from recunlearn_jax.results import figure_of, methods_of


def alpha() -> str:
    """mmrecun over alpha and delta over the share that rows follow."""
    found = read_json(RESULTS / "alpha_tiktok.json")
    rows = []
    for words, models in found["models"].items():
        for name, model in models.items():
            of, (method, _, value) = model["figures"], name.split()
            effect = f"{of['progress similarities']:.2f} / {of['collateral similarities']:.2f}"
            quality = [f"{of[figure]:.4f}" for figure in ("valid recall@20", "test recall@20", "forget recall@20")]
            rows.append(
                [words, method, value, *quality, effect, f"{of['canary median rank']:.0f}", f"{model['seconds']:.2f}"]
            )
    header = ("request", "method", "alpha or follow", "valid Recall@20", "test Recall@20", "forget Recall@20")
    return written((*header, "similarities", "canary median", "seconds"), rows)


def claims() -> str:
    """MMRecUN's claims in figures, of every audited case."""
    rows = []
    for case, result in every(RESULTS, "forgetting_"):
        models = result["models"]
        golds = [models[name]["figures"] for name in results.golds_of(result)]
        gold = {name: float(np.mean([row[name] for row in golds])) for name in ("forget recall@20", "test recall@20")}
        forget = {name: models[name]["figures"]["forget recall@20"] for name in ("original", "mmrecun", "delta")}
        others = [
            models[name]["figures"]["forget recall@20"]
            for name in ("finetune", "ascent", "rrl", "scif")
            if name in models
        ]
        spread = f"{min(others):.4f} to {max(others):.4f}" if others else "-"
        kept = models["mmrecun"]["figures"]["test recall@20"] / gold["test recall@20"]
        cells = [f"{forget['original']:.4f}", f"{gold['forget recall@20']:.4f}", f"{forget['mmrecun']:.4f}"]
        rows.append(
            [
                case,
                *cells,
                spread,
                f"{forget['delta']:.4f}",
                f"{100 * kept:.0f} %",
            ]
        )
    header = ("case", "forget Recall@20: original", "Gold", "mmrecun", "other baselines", "delta")
    return written((*header, "mmrecun's test Recall@20, of Gold's"), rows)


def variety() -> str:
    """What a request does to the variety of what is recommended, of every audited case."""
    names = ("coverage", "evenness", "novelty", "distance")
    rows = []
    for case, result in every(RESULTS, "forgetting_"):
        models = result["models"]
        golds = [models[name]["figures"] for name in results.golds_of(result)]
        shown = {"original": models["original"]["figures"]}
        shown |= {name: models[name]["figures"] for name in ("delta", "surgery", "mmrecun") if name in models}
        shown["Gold"] = {name: float(np.mean([row[name] for row in golds])) for name in names}
        rows += [[case, model, *(f"{row[name]:.4g}" for name in names)] for model, row in shown.items()]
    return written(("case", "model", *names), rows)


def divergences() -> str:
    """How far forgetting moves each divergence: the original's over the methods', from the Golds, on what was forgotten."""
    rows = []
    for case, result in every(RESULTS, "forgetting_"):
        models = result["models"]
        names = ("BPR divergence forget", "KL divergence forget")
        if not all(name in models["original"]["figures"] for name in names):
            continue
        golds = {name: float(np.mean([models[g]["figures"][name] for g in results.golds_of(result)])) for name in names}
        for model in ("original", "surgery", "delta"):
            of = models[model]["figures"]
            rows.append([case, model, *(f"{of[name] / golds[name]:.3g}" for name in names)])
    return written(("case", "model", "BPR divergence / Golds' own", "KL divergence / Golds' own"), rows)


def _of_golds(result: dict[str, Any], figure: str) -> float:
    return float(np.mean([result["models"][name]["figures"][figure] for name in result["golds"]]))


def variations(group: str) -> str:
    """Recall of forgotten pairs in the original, after each method and in Gold, and test Recall beside Gold's."""
    rows = []
    for name, result in every(RESULTS, f"variations_{group}_"):
        models = result["models"]
        figure = "forget recall@500" if name.endswith("items") else "forget recall@20"  # as the paper has it
        cells = [f"{figure_of(models[m], figure):.4f}" for m in ("original", "surgery", "mmrecun", "delta")]
        cells.append(f"{_of_golds(result, figure):.4f}")
        tested = (_of_golds(result, "test recall@20"), figure_of(models["delta"], "test recall@20"))
        rows.append(
            (name.replace("_", " "), f"{result['forgotten']['pairs']:,}", *cells, f"{tested[1]:.4f} / {tested[0]:.4f}")
        )
    return written(
        (
            *("case", "pairs forgotten", "forget Recall@20, of items @500: original"),
            *("surgery", "mmrecun", "delta", "Gold", "test Recall@20: delta / Gold"),
        ),
        rows,
    )


PAPER_FIGURES = {
    "users": ["valid recall@20", "test recall@20", "forget recall@20"],
    "items": [f"{split} recall@{k}" for split in ("valid", "test", "forget") for k in (500, 1000, 1500)],
    "both": [f"{split} recall@{k}" for k in (20, 500) for split in ("valid", "test", "forget")],
}


def paper(kind: str) -> str:
    """The paper's experiment of that kind: every method on every data set."""
    figures = PAPER_FIGURES[kind]
    rows = []
    for data in ("tiktok", "baby", "sports"):
        path = RESULTS / f"paper_{data}_{kind}.json"
        if not path.exists():
            continue
        found = results.read(path)
        models = found["models"]
        shown = {name: models[name] for name in ("original", *methods_of(found))}
        cells = [
            [
                titled(found, name),
                *(f"{figure_of(row, f):.4f}" for f in figures),
                "-" if "original" in name else _seconds([row]),
            ]
            for name, row in shown.items()
        ]
        golds = [models[name] for name in found["golds"]]
        told = f"Gold, {counted(len(golds), 'model')}"
        cells.append([told, *(f"{_of_golds(found, f):.4f}" for f in figures), _seconds(golds)])
        rows += [[f"**{data}**" if not i else "", *row] for i, row in enumerate(cells)]
    return written(("data", "model", *(f.replace("recall", "Recall") for f in figures), "seconds"), rows)


def _seconds(rows: Sequence[dict[str, Any]]) -> str:
    """Mean of some models, compiling left out."""
    return f"{np.mean([row['seconds']['running'] for row in rows]):.3g}"
