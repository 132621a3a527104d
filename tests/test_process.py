"""What the command line does to its own process."""

import os
import subprocess
import sys

import pytest

MEASURE = """
import resource, sys
from recunlearn_jax.process import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def faults():
    bytes_ = bytearray(100 * 2**20)  # above glibc's largest threshold
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
first = faults()
print(faults() - first)
"""


def pages(word):
    done = subprocess.run([sys.executable, "-c", MEASURE, word], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_freed_memory_is_kept():
    """Without it a second array of the same size is handed out by the system page by page."""
    assert pages("keep") < pages("leave") / 10


def test_products_are_float32_unless_the_environment_says_otherwise():
    script = "from recunlearn_jax.process import keep_float32_products as keep; keep(); import jax; "
    script += "print(jax.config.jax_default_matmul_precision)"
    for given, kept in (({}, "highest"), ({"JAX_DEFAULT_MATMUL_PRECISION": "bfloat16"}, "bfloat16")):
        environment = {name: value for name, value in os.environ.items() if name != "JAX_DEFAULT_MATMUL_PRECISION"}
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment | given, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == kept
