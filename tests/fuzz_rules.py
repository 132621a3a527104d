"""What must hold of edited input: it is accepted and what came of it is whole, or refused in one sentence and nothing was written."""

import contextlib
import functools
import io
import itertools
import os
import re
import shutil
import signal
import tempfile
import traceback
import warnings
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from fuzz_edits import ODD, Case, Edit, argument_kinds, edit_argument, edit_file, filled, kinds_of, value_of
from hypothesis import strategies as st

from recunlearn_jax.cli import main
from recunlearn_jax.data import read_dataset, write_dataset
from recunlearn_jax.dataset import SPLITS, Dataset
from recunlearn_jax.errors import LONGEST, InputError, Note
from recunlearn_jax.folders import LOCK

SECONDS = 60  # after which a case counts as one that hangs


class Violation(AssertionError):
    """What must hold does not; `signature` is the same for cases that fail in the same place."""

    def __init__(self, signature: str, text: str):
        super().__init__(f"{signature}: {text}")
        self.signature, self.text = signature, text


class Hang(BaseException):
    """No exception of a library's, so that nothing takes it for one of its own."""


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """End what takes too long."""

    def stop(*_: Any) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def check_sentence(text: str) -> None:
    """One line that a person can read."""
    if not text.isprintable() or len(text) > LONGEST or not re.search(r"[A-Za-z]{2,}.* .*[A-Za-z]{2,}", text):
        raise Violation("no sentence", repr(text[:700]))


def recunlearn(*words: str) -> str:
    """What a command prints; raises InputError where it refuses, and Violation where it does neither."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code: Any = main(words)
        except SystemExit as stop:  # of the parser of options, which has its own way to tell
            code = f"parser {stop.code}"
    told = [line for line in err.getvalue().splitlines() if line] or [""]
    if "Traceback" in out.getvalue() + err.getvalue() or code not in (0, 1, 2, "parser 0", "parser 2"):
        frames = re.findall(r'recunlearn_jax/(\S+\.py)", line \d+, in (\S+)', err.getvalue())
        raise Violation(f"{told[-1].partition(':')[0]} in {':'.join(frames[-1])}", told[-1][:300])
    if code == "parser 2":
        raise InputError("the options of the command line cannot be read")
    if code == 2:
        if not told[-1].startswith("recunlearn: ") or not all(line.startswith("note: ") for line in told[:-1]):
            raise Violation("exit code 2 without one sentence", err.getvalue()[:600])
        raise InputError(told[-1].removeprefix("recunlearn: "))
    return out.getvalue()


def snapshot(folder: Path) -> dict[str, Any]:
    """What stands in a folder, locks apart."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.name == LOCK:
            continue
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = ("link", os.readlink(path))
        else:
            found[name] = path.read_bytes() if path.is_file() else ("folder" if path.is_dir() else "pipe")
    return found


def place_of(error: BaseException) -> str:
    """The innermost function of the package that an error came through."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "recunlearn_jax" in frame.filename]
    return f"{Path(frames[-1].filename).name}:{frames[-1].name}" if frames else "the surface"


@dataclass(frozen=True)
class Surface:
    """Something that takes input from outside.

    Attributes:
        make: writes valid files into a folder, or returns arguments.
        run: hands them over, with the names of what was edited; raises `refuses`, or what was accepted is whole.
        edited: patterns of files; or names of arguments.
        written: what an accepted run may write to, at the top of the folder.
        refuses: how bad input is refused.
        arguments: whether arguments are edited, not files.
        together: whether one case may edit several files.
        settle: makes a copy of the files at home where it stands.
    """

    make: Callable[..., Any]
    run: Callable[..., None]
    edited: tuple[str, ...]
    written: tuple[str, ...] = ("out",)
    refuses: tuple[type[Exception], ...] = (InputError,)
    arguments: bool = False
    together: bool = True
    settle: Callable[[Path], Any] = lambda root: None

    @functools.cached_property
    def where(self) -> list[str]:
        """Files or arguments that are edited."""
        if self.arguments:
            return list(self.edited)
        root = sample(self.make)
        found = {path for pattern in self.edited for path in root.glob(pattern) if path.is_file() and path.name != LOCK}
        return sorted(path.relative_to(root).as_posix() for path in found)

    @functools.cached_property
    def cases(self) -> st.SearchStrategy[list[Edit]]:
        """One to three edits."""

        def edits(where: str) -> st.SearchStrategy[Edit]:
            kinds = argument_kinds(self.make()[where]) if self.arguments else kinds_of(where)
            places = st.integers(0, 2**16)
            return st.builds(Edit, st.just(where), st.sampled_from(kinds), places, places, st.sampled_from(list(ODD)))

        where = st.sampled_from(self.where)
        if self.together:
            return st.lists(where.flatmap(edits), min_size=1, max_size=3)
        return where.flatmap(lambda where: st.lists(edits(where), min_size=1, max_size=3))


@functools.cache
def sample(make: Callable[[Path], None]) -> Path:
    """A folder of valid files, made once in a process."""
    holder = tempfile.TemporaryDirectory(prefix="fuzzing-")
    _HOLDERS.append(holder)
    make(Path(holder.name))
    return Path(holder.name)


_HOLDERS: list[tempfile.TemporaryDirectory] = []


def tried(surface: Surface, case: Case) -> str:
    """Whether a case is "accepted" or "refused"; raises Violation where what must hold does not."""
    as_usual = (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    )  # tests have stricter settings
    with tempfile.TemporaryDirectory(prefix="fuzzing-") as scratch, warnings.catch_warnings(), as_usual[0], as_usual[1]:
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", Note)
        root = Path(scratch) / "a" / "b" / "c"  # so that a name such as ../x stays within
        if surface.arguments:
            root.mkdir(parents=True)
            material = surface.make()
            for edit in case:
                edit_argument(material, edit)
            material = filled(material, value_of)
        else:
            shutil.copytree(sample(surface.make), root, symlinks=True)
            surface.settle(root)
            for edit in case:
                edit_file(root, edit)
            material = root
        before = snapshot(Path(scratch))
        outcome = _outcome(surface, material, root, {edit.where for edit in case})
        after = snapshot(Path(scratch))
        allowed = tuple(f"a/b/c/{name}" for name in surface.written) if outcome == "accepted" else ()
        changed = [
            name
            for name in sorted({*before, *after})
            if before.get(name) != after.get(name) and not (allowed and name.startswith(allowed))
        ]
        if changed:
            raise Violation(f"{outcome}, and {changed[0].removeprefix('a/b/c/')} changed", ", ".join(changed[:5]))
        return outcome


def _outcome(surface: Surface, material: Any, root: Path, edited: Collection[str]) -> str:
    try:
        with contextlib.chdir(root), limited(SECONDS):
            surface.run(material, edited)
    except Violation:
        raise
    except surface.refuses as error:
        check_sentence(str(error))
        return "refused"
    except Hang as error:
        raise Violation(f"hangs in {place_of(error)}", f"no end after {SECONDS} s") from error
    except Exception as error:
        told = f"{type(error).__name__}: {str(error)[:300]}"
        raise Violation(f"{type(error).__name__} in {place_of(error)}", told) from error
    return "accepted"


def smallest(surface: Surface, case: Case, signature: str) -> Case:
    """The shortest part of a case that fails in the same place."""
    for size in range(1, len(case)):
        for part in itertools.combinations(case, size):
            try:
                tried(surface, part)
            except Violation as violation:
                if violation.signature == signature:
                    return part
    return case


def must(holds: Any, told: str) -> None:
    if not holds:
        raise Violation("accepted, and not whole", told)


def check_dataset(dataset: Dataset) -> None:
    """What a data set promises, and that a folder keeps it."""
    for split in SPLITS:
        pairs = getattr(dataset, split)
        must(pairs.dtype == np.int32 and pairs.ndim == 2 and (pairs >= 0).all(), split)
        must((pairs < (dataset.num_users, dataset.num_items)).all(), split)
    for modality, rows in dataset.features.items():
        must(rows.dtype == np.float32 and len(rows) == dataset.num_items and np.isfinite(rows).all(), modality)
    for modality, graph in dataset.similarities.items():
        must(graph.shape == (dataset.num_items,) * 2 and np.isfinite(graph.data).all(), modality)
    with tempfile.TemporaryDirectory(prefix="fuzzing-") as scratch:
        again = read_dataset(write_dataset(dataset, Path(scratch) / "again"))
    must(
        again.checksum == dataset.checksum and again.removed_ids == dataset.removed_ids,
        "a folder reads back as another",
    )
