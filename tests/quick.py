"""Flags that have XLA compile quickly: what tests compute runs for milliseconds."""

from importlib import metadata

# Where it is known, this takes a third off the time to compile.
_PLAIN_LOOPS = " --xla_cpu_use_fusion_emitters=false" if metadata.version("jaxlib").startswith("0.10.") else ""
# The first flag halves the time to compile.
COMPILER_FLAGS = f"--xla_backend_optimization_level=0{_PLAIN_LOOPS}"
# For commands that train for seconds, whose steps take twice as long without it.
TRAINING_FLAGS = f"--xla_backend_optimization_level=1{_PLAIN_LOOPS}"
