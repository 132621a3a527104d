"""Methods by name: one file each, one line here.

`register` adds one from outside the package; from then on `answer`, the command line, comparisons and audits know it.
"""

from recunlearn_jax.settings import check_name
from recunlearn_jax.unlearn import (
    amnesiac,
    ascent,
    coupled,
    delta,
    ease,
    finetune,
    gold,
    mmrecun,
    noisy,
    rrl,
    scif,
    sharded,
    surgery,
)
from recunlearn_jax.unlearn.base import Method

METHODS: dict[str, Method] = {
    "delta": delta.METHOD,
    "mmrecun": mmrecun.METHOD,
    "surgery": surgery.METHOD,
    "finetune": finetune.METHOD,
    "ascent": ascent.METHOD,
    "rrl": rrl.METHOD,
    "scif": scif.METHOD,
    "amnesiac": amnesiac.METHOD,
    "sisa": sharded.SISA,
    "receraser": sharded.RECERASER,
    "ease": ease.METHOD,
    "noisy": noisy.METHOD,
    "gold": gold.METHOD,
    "coupled": coupled.METHOD,
}


def register(name: str, method: Method) -> None:
    """Add a method under a name that is free.

    Raises:
        InputError: see `settings.check_name`.
    """
    check_name(name, "method", METHODS)
    METHODS[name] = method
