"""How much odd input it takes to break something: edits of valid input, surface by surface, for as long as there is time.

    python benchmarks/fuzz.py OUT.json [--minutes 20] [--seed 0] [--surface NAME ...]

What is edited, and what must hold, stands in `tests/`: `fuzzing.py`, `fuzz_edits.py`, `fuzz_rules.py`. Cases run in a child process; one
that ends it, or from which no answer comes, is a violation like any other, and a new child goes on. OUT.json counts cases, accepted and
refused, and has the smallest example of each violation; it is written as the work goes on. The exit code is 1 where there is a violation.
"""

import argparse
import contextlib
import importlib
import itertools
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

TESTS = Path(__file__).parent.parent / "tests"
sys.path.insert(0, str(TESTS))
os.environ.setdefault("JAX_PLATFORMS", "cpu")

BATCH = 40  # cases of a surface in a row
TURN = 20.0  # seconds after which the next surface has its turn
SILENCE = 180.0  # seconds without a word from the child after which it hangs
MEMORY = 12 * 2**30  # bytes a child may address


class Failed(NamedTuple):
    """A case in which something does not hold."""

    signature: str
    text: str
    case: Sequence[Any]


def child(tell: Connection, surfaces: Sequence[str], seed: int, known: set[str]) -> None:
    """Try surfaces in turn, and tell each case before it is tried, and what came of it."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    null = os.open(os.devnull, os.O_WRONLY)  # libraries warn there of what is odd
    os.dup2(null, 2)
    fuzzing, rules = (importlib.import_module(name) for name in ("fuzzing", "fuzz_rules"))

    def one(name: str, case: Sequence[Any]) -> None:
        tell.send(("case", name, [tuple(edit) for edit in case]))
        try:
            tell.send(("outcome", rules.tried(fuzzing.SURFACES[name], case)))
        except rules.Violation as found:
            if found.signature not in known:
                known.add(found.signature)
                case = rules.smallest(fuzzing.SURFACES[name], case, found.signature)
            tell.send(("violation", Failed(found.signature, found.text, [tuple(edit) for edit in case])))

    for number in itertools.count():
        for name in surfaces:
            _batch(lambda case, name=name: one(name, case), fuzzing.SURFACES[name], seed * 1_000_003 + number)


def _batch(one: Callable[[Sequence[Any]], None], surface: Any, seed: int) -> None:
    import hypothesis

    until = time.monotonic() + TURN
    chosen = hypothesis.settings(
        max_examples=BATCH,
        deadline=None,
        database=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.data_too_large],
    )

    @hypothesis.seed(seed)
    @chosen
    @hypothesis.given(surface.cases)
    def all_of_them(case):
        if time.monotonic() < until:
            one(case)

    all_of_them()


def one_case(tell: Connection, name: str, case: Sequence[Any]) -> None:
    """Try a single case, to see whether it ends the process."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    fuzzing, rules, edits = (importlib.import_module(name) for name in ("fuzzing", "fuzz_rules", "fuzz_edits"))

    with contextlib.suppress(rules.Violation):
        rules.tried(fuzzing.SURFACES[name], [edits.Edit(*edit) for edit in case])
    tell.send("over")


def started(target: Callable[..., None], *words: Any) -> tuple[Any, Connection]:
    """A child process and what it tells."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=target, args=(there, *words), daemon=True)
    process.start()
    there.close()
    return process, here


def how_it_ends(name: str, case: Sequence[Any]) -> str:
    """How a case ends its process; empty where it does not."""
    process, told = started(one_case, name, case)
    try:
        return "" if told.poll(SILENCE) and told.recv() else "no answer"
    except EOFError:
        process.join()
        return f"the process ends with {process.exitcode}"
    finally:
        process.kill()


def smallest_end(name: str, case: Sequence[Any], how: str) -> Failed:
    """The shortest part of a case that ends a process."""
    for size in range(1, len(case)):
        for part in itertools.combinations(case, size):
            found = how_it_ends(name, part)
            if found:
                return Failed(found, found, part)
    return Failed(how, how, case)


class Tally:
    """What was found so far, in a file."""

    def __init__(self, out: Path, seed: int):
        self.out, self.start, self.written = out, time.monotonic(), 0.0
        self.found: dict[str, Any] = {"seed": seed, "minutes": 0.0, "cases": 0, "surfaces": {}, "violations": {}}

    def count(self, name: str, outcome: str) -> None:
        of = self.found["surfaces"].setdefault(name, {"cases": 0, "accepted": 0, "refused": 0, "violations": 0})
        of["cases"] += 1
        of[outcome] += 1
        self.found["cases"] += 1
        if time.monotonic() > self.written + 5:
            self.write()

    def violation(self, name: str, failed: Failed) -> None:
        known = self.found["violations"].setdefault(
            failed.signature, {"surface": name, "count": 0, "text": failed.text, "case": failed.case}
        )
        known["count"] += 1
        if len(failed.case) < len(known["case"]):
            known |= {"surface": name, "text": failed.text, "case": failed.case}
        if known["count"] == 1:
            print(f"{name}: {failed.signature}: {failed.text}\n    {failed.case}", flush=True)
        self.count(name, "violations")

    def write(self) -> None:
        from recunlearn_jax.files import write_json

        self.written = time.monotonic()
        self.found["minutes"] = round((self.written - self.start) / 60, 2)
        write_json(self.out, self.found)


def fuzz(tally: Tally, surfaces: Sequence[str], seconds: float, seed: int) -> None:
    """Let children try cases until the time is over."""
    until = time.monotonic() + seconds
    for number in itertools.count():
        process, told = started(child, surfaces, seed * 1_009 + number, set(tally.found["violations"]))
        name, case = "", []
        try:
            while time.monotonic() < until:
                if not told.poll(min(SILENCE, max(0.0, until - time.monotonic()))):
                    if time.monotonic() >= until:
                        break
                    tally.violation(name, smallest_end(name, case, "no answer"))
                    break
                match told.recv():
                    case ("case", name, case):
                        pass
                    case ("outcome", outcome):
                        tally.count(name, outcome)
                    case ("violation", failed):
                        tally.violation(name, failed)
        except EOFError:
            process.join()
            tally.violation(name, smallest_end(name, case, f"the process ends with {process.exitcode}"))
        finally:
            process.kill()
            process.join()
        if time.monotonic() >= until:
            return
        surfaces = [*surfaces[surfaces.index(name) + 1 :], *surfaces[: surfaces.index(name) + 1]] if name else surfaces


def main() -> int:
    fuzzing = importlib.import_module("fuzzing")

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--surface", nargs="+", choices=list(fuzzing.SURFACES), default=list(fuzzing.SURFACES))
    words = parser.parse_args()
    tally = Tally(words.out, words.seed)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:  # of children that are killed, too
        os.environ["TMPDIR"] = scratch
        fuzz(tally, words.surface, 60 * words.minutes, words.seed)
    tally.write()
    for name, counts in tally.found["surfaces"].items():
        print(f"{name:16}" + ", ".join(f"{count} {what}" for what, count in counts.items()))
    print(f"{tally.found['cases']} cases, {len(tally.found['violations'])} kinds of violations")
    return int(bool(tally.found["violations"]))


if __name__ == "__main__":
    sys.exit(main())
