"""Strict settings for every test: four CPU devices, no silent promotion of types or ranks, warnings are errors."""

import gc
import os
import tempfile

from quick import COMPILER_FLAGS

# jax reads these when it is first imported, so they stand before it.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = " ".join(
    [os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=4", COMPILER_FLAGS]
)

# Where in Python an operation was written is up to a fifth of a file's time under pytest, whose calls stand deep in one another.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")

# Command lines that tests call keep their programs in a folder of this test run.
os.environ.setdefault("XDG_CACHE_HOME", tempfile.mkdtemp(prefix="recunlearn-test-cache-"))

import hypothesis
import jax
import jaxtyping
import pytest
from jaxtyping import install_import_hook

# Shapes and types in the annotations of these modules are checked at every call (while tracing, in jitted functions). `losses` checks its
# shapes itself, in every program, and a test of it must see that.
CHECKED = (
    "sampling",
    "evaluate",
    "products",
    "propagate",
    "recommender",
    "serving",
    "unlearn",
    "backbones",
    "stopwatch",
    "settings",
)
install_import_hook([f"recunlearn_jax.{name}" for name in CHECKED], "beartype.beartype")

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Tracing makes millions of objects that go by themselves; looking for cycles among them as often as usual takes a seventh of the time.
gc.set_threshold(200_000, 20, 100)

# The same examples in every run; no deadline, because machines that run tests are shared.
hypothesis.settings.register_profile("suite", deadline=None, derandomize=True, max_examples=60)
hypothesis.settings.load_profile("suite")


@pytest.fixture(scope="session")
def shop():
    """80 users and 60 items in four clusters, two modalities: enough to learn from, small enough to train in a second."""
    from recunlearn_jax.synthetic import toy

    return toy(80, 60, pairs_per_user=6, clusters=4, feature_size=6)


@pytest.fixture
def unchecked():
    """Without the checks of annotations: what a user is told of an argument of another type is what the code itself says."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module", autouse=True)
def programs_of_one_file():
    """Compiled programs go with the file that made them: each holds memory maps, of which a process may have some 65,000."""
    yield
    jax.clear_caches()


# Files with few tests that take minutes: begun last, one of them would keep a single process busy while the others are done.
LONGEST = ("test_benchmarks", "test_readme", "test_site", "test_mesh", "test_unlearn", "test_cli")


def pytest_collection_modifyitems(items):
    """The longest files first; `make test` hands files out in this order."""
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "slow: takes more than some seconds; `make check` leaves it out, `make test` runs it"
    )
    # No exceptions so far; one for a third party's deprecation stands below this line, with the reason beside it.
    config.addinivalue_line("filterwarnings", "error")
