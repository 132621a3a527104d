"""Write the tables of the README and of docs/ anew from committed results: every block between `<!-- table NAME -->` and `<!-- end -->`.

python experiments/tables.py
"""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from recunlearn_jax import report
from recunlearn_jax.comparison import figure_of

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "experiments" / "results"
BLOCK = re.compile(r"(<!-- table (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def read(name: str) -> dict[str, Any]:
    """A committed result."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def quality() -> str:
    """Ranking quality against the reference's."""
    reference = read("reference")
    lines = [
        "| data | features | valid Recall@20 | test Recall@20 | test NDCG@20 | by seed (test Recall@20) | reference test Recall@20 |",
        "|" + "---|" * 7,
    ]
    for path in sorted(RESULTS.glob("quality_*.json")):
        result = json.loads(path.read_text())
        case = path.stem.removeprefix("quality_")
        valid, test, ndcg = (
            [run["metrics"][split][metric] for run in result["runs"]]
            for split, metric in (("valid", "recall@20"), ("test", "recall@20"), ("test", "ndcg@20"))
        )
        theirs = reference["test_recall@20"].get(case)
        lines.append(
            f"| {result['data']} | {reference['features'][case]} | {np.mean(valid):.4f} | {np.mean(test):.4f} | {np.mean(ndcg):.4f} "
            f"| {', '.join(f'{x:.4f}' for x in test)} | {'-' if theirs is None else f'{theirs:.4f}'} |"
        )
    return "\n".join(lines) + "\n"


_ABLATION = (
    ("valid Recall@20", "valid recall@20", "{:.4f}"),
    ("test Recall@20", "test recall@20", "{:.4f}"),
    ("forget Recall@20", "forget recall@20", "{:.4f}"),
    ("divergence to Gold, forget", "divergence forget", "{:.3g}"),
    ("retain", "divergence retain", "{:.3g}"),
    ("canary rank", "canary median_rank", "{:.0f}"),
    ("seconds", "seconds running", "{:.2f}"),
)


def ablation(name: str) -> str:
    """One row a variation of mmrecun."""
    models = read(name)["models"]
    columns = [c for c in _ABLATION if any(figure_of(row, c[1]) is not None for row in models.values())]
    lines = ["| what is changed | " + " | ".join(c[0] for c in columns) + " |", "|" + "---|" * (len(columns) + 1)]
    for variation, row in models.items():
        figures = [figure_of(row, figure) for _, figure, _ in columns]
        cells = ["-" if x is None else form.format(x) for x, (_, _, form) in zip(figures, columns, strict=True)]
        lines.append(f"| {variation} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def table(name: str) -> str:
    """The table of that name: `quality`, an ablation, or a comparison's result."""
    if name == "quality":
        return quality()
    return ablation(name) if name.startswith("ablation_") else report.markdown(read(name))


def renew(text: str) -> str:
    """A page with all its tables made anew."""
    return BLOCK.sub(lambda found: f"{found[1]}{table(found[2])}{found[3]}", text)


if __name__ == "__main__":
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        page.write_text(renew(page.read_text()))
