"""Flags that have XLA compile quickly: what tests compute runs for milliseconds."""

from importlib import metadata

# The first halves the time to compile; the second, where it is known, takes another third off.
COMPILER_FLAGS = "--xla_backend_optimization_level=0" + (
    " --xla_cpu_use_fusion_emitters=false" if metadata.version("jaxlib").startswith("0.10.") else ""
)
