"""Every example in a docstring runs and gives what it says."""

import doctest
import importlib
import pkgutil

import pytest

import recunlearn_jax

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(recunlearn_jax.__path__, "recunlearn_jax.")
    if "cli" not in module.name
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    found = doctest.testmod(importlib.import_module(name))
    assert not found.failed


def test_there_are_examples():
    """The search reaches the modules that have some."""
    finder = doctest.DocTestFinder()
    examples = {name: sum(len(t.examples) for t in finder.find(importlib.import_module(name))) for name in MODULES}
    assert sum(examples.values()) > 25
    assert {"recunlearn_jax.losses", "recunlearn_jax.unlearn.driver", "recunlearn_jax.settings"} <= {
        name for name, count in examples.items() if count
    }
