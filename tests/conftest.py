"""Strict settings for every test: four CPU devices, no silent promotion of types or ranks, warnings are errors."""

import os
import tempfile

# jax reads these when it is first imported, so they stand before it.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# The second flag halves the time to compile; what tests compute runs for milliseconds.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
)

# Command lines that tests call keep their programs in a folder of this test run.
os.environ.setdefault("XDG_CACHE_HOME", tempfile.mkdtemp(prefix="recunlearn-test-cache-"))

import hypothesis
import jax

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# The same examples in every run; no deadline, because machines that run tests are shared.
hypothesis.settings.register_profile("suite", deadline=None, derandomize=True, max_examples=60)
hypothesis.settings.load_profile("suite")


def pytest_configure(config):
    # No exceptions so far; one for a third party's deprecation stands below this line, with the reason beside it.
    config.addinivalue_line("filterwarnings", "error")
