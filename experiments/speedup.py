"""A picture: seconds of a request and of retraining by the size of the data, from committed results.

    python experiments/speedup.py

Measured on real data: Gold and delta for 5 % of the users (benchmarks/unlearning.py). Generated data, up to 10^7 pairs: a request for 100
users is measured, and what its lists wait for after it; Gold projected as 30 epochs of the measured step (benchmarks/growth.py); Golds
of the audits took 40 to 74 epochs.
"""

from pathlib import Path
from typing import Any

from recunlearn_jax.files import read_json

BENCHMARKS = Path(__file__).parent.parent / "benchmarks" / "results"
EPOCHS = 30
REAL = ("tiktok", "baby")


def points(name: str) -> tuple[int, float, float]:
    """Train pairs, seconds of Gold and of delta for users:5%, steady."""
    result = read_json(BENCHMARKS / f"unlearning_{name}.json")
    row = result["requests"]["users:5%"]
    pairs = int(result["summary"].split(" items, ")[1].split(" / ")[0].replace(",", ""))
    return pairs, row["gold"]["steady"], row["delta"]["steady"]


def projected(point: dict[str, Any], batch_size: int) -> float:
    """Seconds of Gold at a size of the benchmark of growth."""
    return EPOCHS * -(-point["pairs"] // batch_size) * point["step_seconds"]


def main() -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    grown = read_json(BENCHMARKS / "growth_cpu.json")["points"]
    sizes = [point["pairs"] for point in grown]
    figure, axis = plt.subplots(figsize=(6.4, 4.2))
    axis.loglog(
        sizes,
        [projected(p, 2048) for p in grown],
        "--",
        color="darkgoldenrod",
        label=f"Gold, projected: {EPOCHS} epochs",
    )
    axis.loglog(
        sizes,
        [p["request"]["seconds"] for p in grown],
        "-",
        color="tab:blue",
        label="delta, a request for 100 users, prepared for",
    )
    axis.loglog(
        sizes,
        [p["request"]["seconds"] + p["request"]["rows_seconds"] for p in grown],
        ":",
        color="tab:blue",
        label="with the rows of all lists after it",
    )
    for name in REAL:
        pairs, gold, delta = points(name)
        axis.loglog([pairs], [gold], "o", color="darkgoldenrod", label="Gold, measured" if name == REAL[0] else None)
        axis.loglog(
            [pairs],
            [delta],
            "s",
            color="tab:blue",
            label="delta, 5 % of the users, prepared for" if name == REAL[0] else None,
        )
        axis.annotate(f"{name}\n{gold / delta:.0f}x", (pairs, (gold * delta) ** 0.5), ha="center", fontsize=9)
    axis.set(xlabel="train pairs", ylabel="seconds on two CPU cores", xlim=(3e4, 2.5e7))
    axis.grid(True, which="both", alpha=0.2)
    axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(BENCHMARKS / "speedup_cpu.png", dpi=130)


if __name__ == "__main__":
    main()
