"""A stream: interactions, new users, new items with their content, and removal requests, one after the other, on one model in service.

    clock      when each interaction comes
    plan       what happens when: what is learned, what is to be forgotten, when the model is compared with exact retraining
    learning   how the data and the model take up what came
    guard      when approximation has been used for long enough
    replay     all of it, from the first training to the last comparison

This follows the protocol of sequential requests of arXiv 2603.08341: one request at a time, Gold at each quarter of them.
"""

from recunlearn_jax.stream.clock import Clock, read_clock
from recunlearn_jax.stream.guard import Guard
from recunlearn_jax.stream.learning import Learning
from recunlearn_jax.stream.plan import Learn, Plan, Quarter, Remove, make_plan
from recunlearn_jax.stream.replay import replay

__all__ = [
    "Clock",
    "Guard",
    "Learn",
    "Learning",
    "Plan",
    "Quarter",
    "Remove",
    "make_plan",
    "read_clock",
    "replay",
]
