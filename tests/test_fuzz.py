"""Some odd inputs for everything that takes input from outside; `make fuzz` tries as many as there is time for."""

import pytest
from fuzz_edits import Edit
from fuzz_rules import tried
from fuzzing import SURFACES
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

# Cases of surfaces that take longer, and train a model first.
SLOW = {"models": 10, "training": 10, "commands": 10, "results": 6, "stream": 10, "prepare": 10, "losses": 15}
NAMES = [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in SURFACES]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_edited_is_accepted(name):
    surface = SURFACES[name]
    for where in surface.where if name not in SLOW else surface.where[::5]:
        assert tried(surface, [Edit(where, "none")]) == "accepted"


@pytest.mark.parametrize("name", NAMES)
def test_odd_input_is_refused_in_a_sentence_or_harmless(name):
    @settings(max_examples=SLOW.get(name, 30), phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(st.data())
    def each(data):
        tried(SURFACES[name], data.draw(SURFACES[name].cases))

    each()
