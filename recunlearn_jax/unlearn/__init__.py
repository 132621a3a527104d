"""Ways of forgetting, one a file, with one contract.

    method(key, original, forget_set, config) -> Unlearned

`original` is the trained recommender, `forget_set` the resolved request, `config` all settings. The answer holds parameters in which no
forgotten row or feature is left, and the retained data with its graphs; it trains, ranks and is unlearned again like any other model.
The methods that train one model a shard (`sharded`) have an original of their own and stand apart; `compare` runs them beside the others.
"""

from collections.abc import Callable

import jax

from recunlearn_jax.config import Config
from recunlearn_jax.requests import ForgetSet
from recunlearn_jax.train import Trained
from recunlearn_jax.unlearn.amnesiac import amnesiac
from recunlearn_jax.unlearn.ascent import ascent
from recunlearn_jax.unlearn.base import Unlearned
from recunlearn_jax.unlearn.finetune import finetune
from recunlearn_jax.unlearn.gold import gold
from recunlearn_jax.unlearn.mmrecun import mmrecun
from recunlearn_jax.unlearn.rrl import rrl
from recunlearn_jax.unlearn.scif import scif
from recunlearn_jax.unlearn.surgery import surgery

Method = Callable[[jax.Array, Trained, ForgetSet, Config], Unlearned]

METHODS: dict[str, Method] = {
    "mmrecun": mmrecun,
    "surgery": surgery,
    "finetune": finetune,
    "ascent": ascent,
    "rrl": rrl,
    "scif": scif,
    "amnesiac": amnesiac,
    "gold": gold,
}

UNREPEATABLE = ("amnesiac",)
"""Methods that cannot answer a second request on their own answer: the record that they take back from ends with the original."""
