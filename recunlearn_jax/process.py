"""How to set up a process of our own. The command line and the benchmarks do this; a library leaves its host's process alone, so your own
program calls what it wants. Imports no jax: the first two functions must run before jax is imported.
"""

import ctypes
import os
from pathlib import Path

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # glibc's malloc.h


def keep_compiled_programs() -> None:
    """Let later processes find what this one compiles. jax reads these variables when it is imported, so they must be set before that.

    Compiled programs hold no data: graphs, features and ids are always arguments.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "recunlearn_jax"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")  # there are many small programs


def keep_float32_products() -> None:
    """Let matrix products keep float32 unless something else is asked for: by default jax rounds their factors on GPUs and TPUs.

    jax reads this variable when it is imported. Training has a precision of its own, `TrainConfig.precision`.
    """
    os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "highest")


def keep_freed_memory() -> bool:
    """Let glibc keep freed memory for the next call of a program instead of returning it to the system.

    A compiled program on a CPU takes its temporaries in one piece. Above 32 MiB glibc gives such a piece back after each call, and the next
    call waits while the system hands out zeroed pages anew. What a program allocates in threads of its own is beyond this setting.

    Returns:
        Whether there is a glibc that took the settings.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is None:
        return False
    settings = ((_MMAP_THRESHOLD, 2**30), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**28))
    return all(mallopt(option, value) == 1 for option, value in settings)
