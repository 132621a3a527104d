"""Write the tables of the README and of docs/ anew from committed results: every block between `<!-- table NAME -->` and `<!-- end -->`.

python experiments/tables.py
"""

import re

from committed import RESULTS, ROOT
from forgetting_tables import (
    ablation,
    additivity,
    check,
    counted,
    demo,
    forgetting,
    instruments,
    last_epochs,
    likelihood,
    nearness,
    partners,
    replay,
    sequence,
    stream,
    traces,
    training_length,
)
from guarantee_tables import coins, decision, deletions, ease_quality, noise
from paper_tables import alpha, claims, divergences, paper, variations, variety
from speed_tables import (
    against_reference,
    communication,
    contracts,
    gpu,
    gpu_probes,
    growth,
    machines,
    quality,
    quality_times,
    speed_ups,
    speed_ups_of_mmrecun,
    steps,
    unlearning,
)

from recunlearn_jax import report, results

BLOCK = re.compile(r"(<!-- table (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)

TABLES = {
    "ease": ease_quality,
    "deletions": deletions,
    "noisy": noise,
    "coins": coins,
    "decision": decision,
    "gpu": gpu,
    "probes": gpu_probes,
    "demo": demo,
    "stream": stream,
    "alpha": alpha,
    "claims": claims,
    "variety": variety,
    "divergences": divergences,
    "contracts": contracts,
    "counted": counted,
    "traces": traces,
    "nearness": nearness,
    "forgetting": forgetting,
    "replay": replay,
    "last_epochs": last_epochs,
    "additivity": additivity,
    "partners": partners,
    "training_length": training_length,
    "likelihood": likelihood,
    "sequence": sequence,
    "instruments": instruments,
    "quality": quality,
    "speed_ups": speed_ups,
    "speed_ups_of_mmrecun": speed_ups_of_mmrecun,
    "unlearning": unlearning,
    "steps": steps,
    "machines": machines,
    "time_to_quality": quality_times,
    "growth": growth,
    "communication": communication,
    "reference": against_reference,
}


def table(name: str) -> str:
    """The table of that name: one of `TABLES`, an ablation, or a comparison's result."""
    if name in TABLES:
        return TABLES[name]()
    if name.startswith("check_"):
        return check(name.removeprefix("check_"))
    if name.startswith("paper_"):
        return paper(name.removeprefix("paper_"))
    if name.startswith("variations_"):
        return variations(name.removeprefix("variations_"))
    if name.startswith("ablation_"):
        return ablation(name)
    shown = report.audit_markdown if name.startswith("forgetting_") else report.markdown
    return shown(results.read(RESULTS / f"{name}.json"))


def renew(text: str) -> str:
    """A page with all its tables made anew."""
    return BLOCK.sub(lambda found: f"{found[1]}{table(found[2])}{found[3]}", text)


if __name__ == "__main__":
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        page.write_text(renew(page.read_text()))
