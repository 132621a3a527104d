"""Seconds spent in a block of code, with the compiler's share kept apart."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

import jax

_COMPILER_EVENTS = (
    "/jax/core/compile/jaxpr_trace_duration",
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
    "/jax/core/compile/backend_compile_duration",
)


@dataclass
class Seconds:
    """What a stopwatch measured: wall-clock seconds, how many of them in the compiler, and the number of programs compiled."""

    total: float = 0.0
    compiling: float = 0.0
    programs: int = 0

    def __add__(self, other: "Seconds") -> "Seconds":
        return Seconds(self.total + other.total, self.compiling + other.compiling, self.programs + other.programs)

    @property
    def running(self) -> float:
        """Seconds without the compiler's."""
        return self.total - self.compiling


@contextlib.contextmanager
def stopwatch() -> Iterator[Seconds]:
    """Measure a block; the caller must wait for results still being computed on a device."""
    seconds = Seconds()
    # Only the outermost compiler event counts: tracing of inner functions lies inside that of outer ones.
    spans: list[tuple[float, float]] = []

    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event in _COMPILER_EVENTS:
            now = time.perf_counter()
            spans.append((now - duration_secs, now))
            seconds.programs += event == _COMPILER_EVENTS[-1]

    jax.monitoring.register_event_duration_secs_listener(listen)
    start = time.perf_counter()
    try:
        yield seconds
    finally:
        seconds.total = time.perf_counter() - start
        jax.monitoring.unregister_event_duration_listener(listen)
        end = -float("inf")
        for low, high in sorted(spans):
            seconds.compiling += max(0.0, high - max(low, end))
            end = max(end, high)
