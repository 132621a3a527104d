"""Surgery: edit the graph, re-initialise the rows of what is forgotten, train nothing.

The baseline to beat: milliseconds, and near Gold on every coarse figure. What it leaves behind is the trace of the forgotten data in other
rows, which the canaries show; for single pairs it changes the graph only.
"""

from typing import Any

import jax

from recunlearn_jax.unlearn.base import Method, Moved, NoSettings, Problem


def surgery(key: jax.Array, problem: Problem, settings: NoSettings) -> tuple[Moved, dict[str, Any]]:
    """Move nothing: the data is edited and the rows are removed for every method."""
    del key, problem, settings
    return Moved({}, {}), {"steps": 0}


METHOD = Method(NoSettings, surgery, in_place=True)
