"""Ways of forgetting by name: one file each, one line here.

`register` adds one from outside the package; from then on `answer`, the command line, comparisons and audits know it.
"""

from recunlearn_jax.errors import InputError
from recunlearn_jax.unlearn import amnesiac, ascent, finetune, gold, mmrecun, rrl, scif, sharded, surgery
from recunlearn_jax.unlearn.base import Method

METHODS: dict[str, Method] = {
    "mmrecun": mmrecun.METHOD,
    "surgery": surgery.METHOD,
    "finetune": finetune.METHOD,
    "ascent": ascent.METHOD,
    "rrl": rrl.METHOD,
    "scif": scif.METHOD,
    "amnesiac": amnesiac.METHOD,
    "sisa": sharded.SISA,
    "receraser": sharded.RECERASER,
    "gold": gold.METHOD,
}


def register(name: str, method: Method) -> None:
    """Add a method under a name that is free.

    Raises:
        InputError: the name is taken.
    """
    if name in METHODS:
        raise InputError(f"method {name!r}: the name is taken; choose another")
    METHODS[name] = method
