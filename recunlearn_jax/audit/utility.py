"""Check 1, utility: ranking quality over retained users."""

from recunlearn_jax.audit.base import Case, Check, Measure, Row, Subject
from recunlearn_jax.evaluate import held_out_task, report
from recunlearn_jax.verdict import Figure

KS = (20, 500, 1000, 1500)


def prepare(case: Case) -> Measure:
    """Recall, precision, NDCG, MAP and hit rate on valid and test, by the protocol of MMRec: train items are not candidates."""
    tasks = {split: held_out_task(case.retain, split) for split in ("valid", "test")}

    def measure(subject: Subject) -> Row:
        found = report(subject.model.rows, tasks, KS)
        return {f"{split} {name}": value for split, metrics in found.items() for name, value in metrics.items()}

    return measure


FIGURES = tuple(
    Figure(f"{split} {metric}@20", "utility") for split in ("valid", "test") for metric in ("recall", "ndcg")
)
CHECK = Check(1, FIGURES, prepare, usual=True)
