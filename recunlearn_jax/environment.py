"""What a result depends on besides data, settings and seeds: the code, the packages, the machine."""

import functools
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

PACKAGES = ("recunlearn_jax", "jax", "jaxlib", "flax", "optax", "jraph", "numpy", "scipy", "orbax-checkpoint")


@functools.cache
def commit() -> dict[str, Any]:
    """{"commit": hash of the checkout this package is imported from, "changed": whether its files differ from that commit}.

    Both are None if the package is installed rather than run from a checkout.
    """
    package = Path(__file__).resolve().parent

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(package), *words], capture_output=True, text=True, check=False)
        except OSError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if not git("ls-files", "--error-unmatch", "__init__.py"):  # a checkout around an installed package is not ours
        return {"commit": None, "changed": None}
    status = git("status", "--porcelain", "--", ".")
    return {"commit": git("rev-parse", "HEAD"), "changed": None if status is None else bool(status)}


def _version(package: str) -> str | None:
    """Version of a package; None if it is not installed, as this one is not when it runs from a checkout."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """Model, family and widest vector instructions where Linux reports them: one name may cover machines of very different speed."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n", maxsplit=1)[0].splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    vectors = [
        name for name in ("avx512f", "avx2", "asimd") if name in told.get("flags", told.get("Features", "")).split()
    ]
    parts = [told.get("model name", platform.machine()), f"family {told.get('cpu family', 'unknown')}", *vectors[:1]]
    return ", ".join(parts)


def environment() -> dict[str, Any]:
    """Code, versions and hardware."""
    return {
        **commit(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "platform": platform.platform(terse=True),
        "processor": _processor(),
        "device": jax.devices()[0].device_kind,
        "devices": len(jax.devices()),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }
