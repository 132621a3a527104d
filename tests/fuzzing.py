"""What fuzzing is made of: valid inputs, small edits of them, and what must hold afterwards.

A case is a list of edits of what a surface makes, files or arguments. Either the edited input is accepted, and what came of it is whole,
or it is refused in one sentence, and nothing has been written. `test_fuzz` tries some cases of each surface, `benchmarks/fuzz.py` as many
as there is time for.
"""

import contextlib
import copy
import functools
import gzip
import io
import itertools
import json
import math
import os
import re
import shutil
import signal
import tempfile
import traceback
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import safetensors.numpy
import scipy.sparse
from hypothesis import strategies as st
from toys import small_dataset

from recunlearn_jax import ledger, losses
from recunlearn_jax import manifest as manifests
from recunlearn_jax.audit.checks import judged_figures
from recunlearn_jax.backbones.base import flat
from recunlearn_jax.cli import main
from recunlearn_jax.commands.options import Settings
from recunlearn_jax.config import config_from_dict, config_to_dict
from recunlearn_jax.data import read_dataset, write_dataset
from recunlearn_jax.dataset import SPLITS, Dataset, as_ids
from recunlearn_jax.errors import LONGEST, InputError, Note
from recunlearn_jax.files import write_json
from recunlearn_jax.folders import LOCK
from recunlearn_jax.graph import normalize
from recunlearn_jax.interop import params_from_mmrec_state_dict, read_safetensors
from recunlearn_jax.preparation import Options, prepare
from recunlearn_jax.removed_ids import RemovedIds
from recunlearn_jax.requests import Request, parse, read_request, resolve, to_json
from recunlearn_jax.results import write as write_results
from recunlearn_jax.stream import read_clock
from recunlearn_jax.synthetic import toy
from recunlearn_jax.verdict import Measured, judgement

SECONDS = 60  # after which a case counts as one that hangs

# Values that are seldom meant. In JSON two of them stand as marks, since no writer would write them.
DEEP, DIGITS = "<deep>", "<digits>"
ODD: dict[str, Any] = {
    **{"none": None, "true": True, "0": 0, "1": 1, "-1": -1, "2**31": 2**31, "2**63": 2**63, "10**30": 10**30},
    **{"0.5": 0.5, "1e308": 1e308, "nan": math.nan, "inf": math.inf, "-inf": -math.inf, "digits": DIGITS},
    **{"empty": "", "word": "x", "blank": " ", "tab": "\t", "line break": "\n", "return": "\r", "NUL": "\0"},
    **{"escape": "\x1b[31m", "right to left": "\u202e", "half a pair": "\ud800", "accents": "Zoë", "digit": "\u0661"},
    **{"quote": '"', "comma": ",", "percent": "5%", "underscore": "1_0", "path": "../x", "long": "a" * 50_000},
    **{"list": [], "object": {}, "list of lists": [[0, 1]], "list of words": ["x"], "deep": DEEP},
}
DTYPES = ("f2", "f8", ">f4", "i1", "u1", "i8", "u8", "?", "c8", "U3", "S3", "M8[s]", "V4", "O")
COLUMN_TYPES = (pl.Int8, pl.UInt64, pl.Float32, pl.Boolean, pl.Binary, pl.Date, pl.Datetime, pl.Categorical, pl.Null)


class Edit(NamedTuple):
    """One small change."""

    where: str  # file or argument
    kind: str
    place: int = 0  # of a byte, a line or an entry; counted around
    other: int = 0  # the same of a second one
    odd: str = "none"  # name of a value in ODD


Case = Sequence[Edit]


def text_of(odd: str) -> str:
    """A value as it would be typed."""
    value = {DEEP: "[" * 50_000, DIGITS: "9" * 5_000}.get(str(ODD[odd]), ODD[odd])
    return value if isinstance(value, str) else json.dumps(value)


def value_of(odd: str) -> Any:
    """A value as a program would hand it over."""
    if ODD[odd] == DEEP:
        return functools.reduce(lambda inner, _: [inner], range(5_000), [])
    return 10**5_000 if ODD[odd] == DIGITS else copy.copy(ODD[odd])


# Edits, family by family: what stands in a file, as one family sees it, and the edit -> what stands there then.


def _bytes_gone(content: bytes, edit: Edit) -> bytes:
    at = edit.place % (len(content) + 1)
    return content[:at] + content[at + 1 + edit.other % 64 :]


def _bytes_more(content: bytes, edit: Edit) -> bytes:
    at = edit.place % (len(content) + 1)
    return content[:at] + text_of(edit.odd).encode(errors="surrogatepass") + content[at:]


def _flip(content: bytes, edit: Edit) -> bytes:
    changed = bytearray(content)
    if changed:
        changed[edit.place % len(changed)] ^= 1 << edit.other % 8
    return bytes(changed)


BYTES = {
    "flip a bit": _flip,
    "cut": lambda content, edit: content[: edit.place % (len(content) + 1)],
    "bytes gone": _bytes_gone,
    "bytes more": _bytes_more,
    "twice": lambda content, edit: content * 2,
}

Lines = list[list[str]]  # cells, with what separates them


def _lines_of(content: bytes) -> Lines:
    return [re.split(r"([\t,:=-])", line) for line in content.decode(errors="surrogateescape").split("\n")]


def _bytes_of(lines: Lines) -> bytes:
    return "\n".join("".join(cells) for cells in lines).encode(
        errors="surrogatepass" if _halves(lines) else "surrogateescape"
    )


def _halves(lines: Lines) -> bool:
    return any("\ud800" in cell for cells in lines for cell in cells)


def _line(change: Callable[[Lines, int, int], Any]) -> Callable[[Lines, Edit], Lines]:
    def edited(lines, edit):
        change(lines, edit.place % len(lines), edit.other % len(lines))
        return lines

    return edited


def _cell(change: Callable[[list[str], int, str], Any]) -> Callable[[Lines, Edit], Lines]:
    def edited(lines, edit):
        cells = lines[edit.place % len(lines)]
        change(cells, edit.other % len(cells) // 2 * 2, text_of(edit.odd))
        return lines

    return edited


def _swap(values: list, one: int, other: int) -> None:
    values[one], values[other] = values[other], values[one]


def _columns_swapped(lines: Lines, edit: Edit) -> Lines:
    for cells in lines:
        _swap(cells, *(place % len(cells) // 2 * 2 for place in (edit.place, edit.other)))
    return lines


LINES = {
    "cell set": _cell(lambda cells, at, text: cells.__setitem__(at, text)),
    "cell gone": _cell(lambda cells, at, text: cells.__delitem__(slice(at, at + 2))),
    "cell more": _cell(lambda cells, at, text: cells.insert(at, text + "\t")),
    "line gone": _line(lambda lines, one, other: lines.pop(one)),
    "line again": _line(lambda lines, one, other: lines.insert(other, list(lines[one]))),
    "lines swapped": _line(_swap),
    "columns swapped": _columns_swapped,
}


def slots(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a tree of dictionaries and lists, as (what holds it, its key)."""
    for key, value in list(
        tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    ):
        yield tree, key
        yield from slots(value)


def _slot(change: Callable[[Any, Any, Edit], None]) -> Callable[[Any, Edit], Any]:
    def edited(tree, edit):
        whole = {"": tree}
        found = list(slots(whole))
        holder, key = found[edit.place % len(found)]
        change(holder, key, edit)
        return whole.get("")

    return edited


def _renamed(holder: Any, key: Any, edit: Edit) -> None:
    if isinstance(holder, dict):
        name = text_of(edit.odd)
        holder[name] = holder.pop(key)


TREE = {
    "value set": _slot(lambda holder, key, edit: holder.__setitem__(key, _Odd(edit.odd))),
    "value gone": _slot(lambda holder, key, edit: holder.__delitem__(key)),
    "value in a list": _slot(lambda holder, key, edit: holder.__setitem__(key, [holder[key]])),
    "value renamed": _slot(_renamed),
    "value again": _slot(lambda holder, key, edit: isinstance(holder, list) and holder.append(holder[key])),
}


class _Odd(str):
    """Stands for an odd value until it is known how the tree is kept."""


def _filled(tree: Any, fill: Callable[[str], Any]) -> Any:
    if isinstance(tree, _Odd):
        return fill(str(tree))
    if isinstance(tree, dict):
        return {key: _filled(value, fill) for key, value in tree.items()}
    return [_filled(value, fill) for value in tree] if isinstance(tree, list) else tree


def _json_of(tree: Any) -> str:
    text = json.dumps(_filled(tree, lambda odd: ODD[odd]))
    return text.replace(f'"{DEEP}"', "[" * 50_000 + "]" * 50_000).replace(f'"{DIGITS}"', "9" * 5_000)


def _hashed(entries: Any, edit: Edit) -> Any:
    """A ledger that whoever changed it has hashed anew."""
    previous = ledger.FIRST
    entries = _filled(entries, lambda odd: ODD[odd])
    for entry in entries:
        entry["previous"] = previous
        entry["hash"] = previous = ledger.hash_of(entry)
    return entries


def _array(change: Callable[[np.ndarray, Edit], Any]) -> Callable[[Any, Edit], Any]:
    def edited(tree, edit):
        whole = {"": tree}
        found = [(holder, key) for holder, key in slots(whole) if isinstance(holder[key], np.ndarray)]
        if found:
            holder, key = found[edit.place % len(found)]
            holder[key] = change(holder[key], edit)
        return whole[""]

    return edited


def _entry(array: np.ndarray, edit: Edit) -> np.ndarray:
    changed = array.copy()
    if changed.size:
        with contextlib.suppress(ValueError, TypeError, OverflowError), np.errstate(all="ignore"):
            changed.flat[edit.other % changed.size] = np.asarray(value_of(edit.odd)).astype(changed.dtype)
    return changed


def _cast(array: np.ndarray, edit: Edit) -> np.ndarray:
    with contextlib.suppress(Exception), np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return array.astype(DTYPES[edit.other % len(DTYPES)])
    return array


def _shape(array: np.ndarray, edit: Edit) -> np.ndarray:
    if not array.ndim:
        return array[None]
    shapes = [array[:0], array[:-1], array[..., :0], array[None], array.ravel(), array.ravel()[:1], array.T]
    shapes += [np.repeat(array, 2, axis=-1), np.concatenate([array, array[:1]])]
    return shapes[edit.other % len(shapes)]


def _filled_with(array: np.ndarray, edit: Edit) -> np.ndarray:
    filled = array.copy()
    if array.size:
        filled.fill(_entry(array.ravel()[:1], edit)[0])  # an object entry may be a list, which is not to be spread
    return filled


ARRAYS = {
    "entry set": _array(_entry),
    "type": _array(_cast),
    "shape": _array(_shape),
    "scalar": _array(lambda array, edit: np.asarray(array.ravel()[0] if array.size else 0)),
    "filled": _array(_filled_with),
}


def _column(change: Callable[[pl.DataFrame, str, Edit], pl.DataFrame]) -> Callable[[pl.DataFrame, Edit], pl.DataFrame]:
    return lambda frame, edit: change(frame, frame.columns[edit.place % frame.width], edit)


COLUMNS = {
    "column type": _column(
        lambda frame, name, edit: frame.with_columns(
            pl.col(name).cast(COLUMN_TYPES[edit.other % len(COLUMN_TYPES)], strict=False)
        )
    ),
    "column of lists": _column(lambda frame, name, edit: frame.with_columns(pl.concat_list(pl.col(name)))),
    "column gone": _column(lambda frame, name, edit: frame.drop(name)),
    "column renamed": _column(lambda frame, name, edit: frame.rename({name: text_of(edit.odd)})),
    "rows gone": _column(lambda frame, name, edit: frame.head(edit.other % (len(frame) + 1))),
}


def _nothing(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)


FILES: dict[str, Callable[[Path], None]] = {
    "file gone": lambda path: None,
    "file empty": lambda path: path.touch(),
    "folder in its place": lambda path: path.mkdir(),
    "pipe in its place": os.mkfifo,
    "link to itself": lambda path: path.symlink_to(path.name),
    "link to nowhere": lambda path: path.symlink_to("nowhere"),
}


class Family(NamedTuple):
    """Edits that see a file in one way."""

    kinds: dict[str, Callable[[Any, Edit], Any]]
    read: Callable[[Path], Any]
    write: Callable[[Path, Any], Any]


def _packed(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def _pack(path: Path, content: bytes) -> None:
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def _json_lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in _packed(path).splitlines()]


def _load(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return safetensors.numpy.load_file(path)
    with path.open("rb") as file:  # closed also where numpy finds the file damaged
        content = np.load(file)
        return content if isinstance(content, np.ndarray) else dict(content)


def _save(path: Path, tree: Any) -> None:
    tree = _filled(tree, lambda odd: np.array(value_of(odd)))
    if path.suffix == ".safetensors":
        safetensors.numpy.save_file({name: np.ascontiguousarray(array) for name, array in tree.items()}, path)
        return
    with path.open("wb") as file:
        np.savez(file, **tree) if path.suffix == ".npz" else np.save(file, tree)


FAMILIES = {
    "bytes": Family(BYTES, Path.read_bytes, Path.write_bytes),
    "lines": Family(LINES, lambda path: _lines_of(_packed(path)), lambda path, lines: _pack(path, _bytes_of(lines))),
    "json": Family(TREE, lambda path: json.loads(path.read_text()), lambda path, tree: path.write_text(_json_of(tree))),
    "json lines": Family(
        {f"{kind} in a line": edited for kind, edited in TREE.items()} | {"hashed anew": _hashed},
        _json_lines,
        lambda path, entries: _pack(path, "".join(_json_of(entry) + "\n" for entry in entries).encode()),
    ),
    "arrays": Family(ARRAYS | {f"array: {kind}": edited for kind, edited in TREE.items()}, _load, _save),
    "columns": Family(COLUMNS, pl.read_parquet, lambda path, frame: frame.write_parquet(path)),
}
OF_SUFFIX = {
    **dict.fromkeys((".npy", ".npz", ".safetensors"), ("arrays", "bytes")),
    **dict.fromkeys((".inter", ".csv", ".tsv", ".txt", ".toml"), ("lines", "bytes")),
    **{".json": ("json", "bytes"), ".parquet": ("columns", "bytes"), ".jsonl": ("json lines", "lines", "bytes")},
    **{".gz": ("json lines", "lines", "bytes")},
}


def kinds_of(where: str) -> list[str]:
    """The edits that a file allows."""
    families = OF_SUFFIX.get(Path(where).suffix, ("bytes",))
    return [kind for family in families for kind in FAMILIES[family].kinds] + list(FILES)


def argument_kinds(value: Any) -> list[str]:
    """The edits that an argument allows."""
    arrays = any(isinstance(holder[key], np.ndarray) for holder, key in slots({"": value}))
    return [*TREE, *(ARRAYS if arrays else ())]


def edit_file(root: Path, edit: Edit) -> None:
    """Change a file; nothing happens where an earlier edit has left nothing that could be edited in this way."""
    path = root / edit.where
    if edit.kind in FILES:
        _nothing(path)
        if not path.is_dir():
            FILES[edit.kind](path)
        return
    family = next((family for family in FAMILIES.values() if edit.kind in family.kinds), None)
    if family is None or path.is_symlink() or not path.is_file():
        return
    before = path.read_bytes()
    try:
        family.write(path, family.kinds[edit.kind](family.read(path), edit))
    except Exception:  # whatever a reader or a writer of damaged files may raise
        path.write_bytes(before)


def edit_argument(arguments: dict[str, Any], edit: Edit) -> None:
    """Change an argument."""
    kinds = TREE | ARRAYS
    if edit.where in arguments and edit.kind in kinds:
        inside = kinds[edit.kind]({edit.where: arguments.pop(edit.where)}, edit)
        arguments |= inside if isinstance(inside, dict) else {}


# What must hold


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
            material = _filled(material, value_of)
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


def _whole(holds: Any, told: str) -> None:
    if not holds:
        raise Violation("accepted, and not whole", told)


def check_dataset(dataset: Dataset) -> None:
    """What a data set promises, and that a folder keeps it."""
    for split in SPLITS:
        pairs = getattr(dataset, split)
        _whole(pairs.dtype == np.int32 and pairs.ndim == 2 and (pairs >= 0).all(), split)
        _whole((pairs < (dataset.num_users, dataset.num_items)).all(), split)
    for modality, rows in dataset.features.items():
        _whole(rows.dtype == np.float32 and len(rows) == dataset.num_items and np.isfinite(rows).all(), modality)
    for modality, graph in dataset.similarities.items():
        _whole(graph.shape == (dataset.num_items,) * 2 and np.isfinite(graph.data).all(), modality)
    with tempfile.TemporaryDirectory(prefix="fuzzing-") as scratch:
        again = read_dataset(write_dataset(dataset, Path(scratch) / "again"))
    _whole(
        again.checksum == dataset.checksum and again.removed_ids == dataset.removed_ids,
        "a folder reads back as another",
    )


# Data folders


def shop() -> Dataset:
    """Ids, two modalities with graphs, and what an earlier request removed."""
    dataset = small_dataset()
    return dataset.replace(
        name="shop",
        removed_users=np.arange(5) == 4,
        removed_items=np.arange(7) == 6,
        removed_modalities=("text",),
        user_ids=as_ids(["ann", "007", "zoë", "d", ""]),
        item_ids=as_ids([*(f"B0{i}" for i in range(6)), ""]),
        removed_ids=RemovedIds(bytes(16)).with_more("user", ["eve"]),
    )


def make_data(root: Path) -> None:
    write_dataset(shop(), root / "shop")
    plain = small_dataset(1, graphs=False)
    write_dataset(plain, root / "plain")
    (root / "plain" / "retained.json").unlink()
    scipy.sparse.save_npz(root / "plain" / "audio_knn3_adj.npz", normalize(small_dataset(1).similarities["audio"]))


def run_data(root: Path, edited: Collection[str]) -> None:
    for folder in {Path(where).parts[0] for where in edited}:
        try:
            dataset = read_dataset(root / folder)
        except InputError as error:
            if str(root / folder) not in str(error):
                raise Violation("no file is named", str(error)) from error
            raise
        check_dataset(dataset)


def data_arguments() -> dict[str, Any]:
    dataset = shop()
    lists = {"user_ids": dataset.user_ids.tolist(), "item_ids": dataset.item_ids.tolist()}
    arrays = ("train", "valid", "test", "removed_users", "removed_items")
    return {
        **{name: getattr(dataset, name) for name in ("name", "num_users", "num_items", "removed_modalities", *arrays)},
        **{name: dict(getattr(dataset, name)) for name in ("features", "similarities")},
        **lists,
        "removed_ids": dataset.removed_ids,
    }


def run_dataset(arguments: dict[str, Any], edited: Collection[str]) -> None:
    if {"name", "num_users", "num_items", *SPLITS} <= arguments.keys():
        check_dataset(Dataset(**{str(name): value for name, value in arguments.items() if name in data_arguments()}))


# Settings


METHODS = ("delta", "mmrecun", "sisa")


def make_settings(root: Path) -> None:
    config, chosen = Settings(preset="toy").resolve(METHODS)
    groups = config_to_dict(config) | {name: vars(settings) for name, settings in chosen.items()}
    write_json(root / "settings.json", groups)
    lines = [f"{name} = {json.dumps(value)}" for name, value in groups.items() if not isinstance(value, dict)]
    for group, values in groups.items():
        if isinstance(values, dict):
            lines += [f"[{group}]", *(f"{name} = {json.dumps(value)}" for name, value in values.items())]
    (root / "settings.toml").write_text("\n".join(lines))
    words = ["train.batch_size=512", "train.learning_rate=1e-3", "model.trainable_features=false", "delta.follow=0.9"]
    (root / "words.txt").write_text("\n".join([*words, "train.precision=float32"]))


def run_settings(root: Path, edited: Collection[str]) -> None:
    for where in edited:
        words = _words(root / where) if where == "words.txt" else []
        chosen = Settings(preset="toy", set=tuple(words)) if words else Settings(settings=Path(where))
        config, _ = chosen.resolve(METHODS)
        _whole(config_from_dict(config_to_dict(config)) == config, "settings change on their way through a dictionary")


def _words(path: Path) -> list[str]:
    """Words of a command line, one a line; the shell hands over no NUL."""
    if path.is_symlink() or not path.is_file():
        return []
    words = path.read_bytes().decode(errors="surrogateescape").replace("\0", "").split("\n")
    return words


# Requests


def make_requests(root: Path) -> None:
    words = ["users:ann,007", "items:B03", "pairs:zoë-B04", "modality:audio:50%", "modality:image"]
    (root / "words.txt").write_text("\n".join(words))
    (root / "share.txt").write_text("users:30%")
    (root / "files.txt").write_text("users:@ids.txt\npairs:@pairs.txt")
    (root / "ids.txt").write_text("ann\n007\n")
    (root / "pairs.txt").write_text("zoë\tB04\nd\tB00\n")
    request = {"users": ["ann"], "items": "20%", "pairs": [["zoë", "B04"]], "modality": {"audio": "all"}, "seed": 3}
    write_json(root / "request.json", request)
    write_json(root / "kept.json", {"request": request, "salt": "00" * 16, "digest": "0" * 64})


def run_requests(root: Path, edited: Collection[str]) -> None:
    for where in edited:
        words = {"ids.txt": "files.txt", "pairs.txt": "files.txt"}.get(where, where)
        check_request(parse(_words(root / words) if words.endswith(".txt") else [words]))


def check_request(request: Request) -> None:
    """It is resolved to what it is after having been kept in a file."""
    dataset = shop()
    found = resolve(request, dataset)
    _whole(not found.forget.all() and len(found.forget) == len(dataset.train), "everything is forgotten")
    with tempfile.TemporaryDirectory(prefix="fuzzing-") as scratch:
        path = Path(scratch) / "request.json"
        write_json(path, to_json(request))
        again = resolve(read_request(path), dataset)
    _whole(again.checksum == found.checksum, "a kept request asks for something else")


def request_arguments() -> dict[str, Any]:
    pairs = [["zoë", "B04"], ["d", "B00"]]
    return {"users": ["ann", "007"], "items": "20%", "pairs": pairs, "modality": {"audio": ["B01"]}, "seed": 3}


def run_request(arguments: dict[str, Any], edited: Collection[str]) -> None:
    known = request_arguments()
    check_request(Request(**{name: value for name, value in arguments.items() if name in known}))


# Data as it comes from operators


FEATURES = ("image.csv", "image.npz", "image.npy", "image.npy.ids.txt", "image.safetensors", "image.parquet")


def make_prepare(root: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [(f"u{u}", f"B{i}", int(rng.integers(1, 6)), 10**9 + n) for n in range(12) for u, i in [(n % 4, n % 5)]]
    columns = ("user_id", "item_id", "rating", "timestamp")
    for name, separator in (("orders.csv", ","), ("orders.tsv", "\t")):
        (root / name).write_text("".join(separator.join(map(str, row)) + "\n" for row in [columns, *rows]))
    typed = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    (root / "orders.inter").write_text(typed + "".join("\t".join(map(str, row)) + "\n" for row in rows))
    (root / "ratings.csv").write_text("".join(",".join(map(str, row)) + "\n" for row in rows))
    lines = "".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows)
    (root / "orders.jsonl").write_text(lines)
    (root / "reviews.json.gz").write_bytes(gzip.compress(lines.encode()))
    pl.DataFrame(rows, list(columns), orient="row").write_parquet(root / "orders.parquet")
    items, table = [f"B{i}" for i in range(5)], rng.normal(size=(5, 2)).astype(np.float32)
    np.savez(root / "image.npz", ids=np.array(items), features=table)
    np.save(root / "image.npy", table)
    safetensors.numpy.save_file({"features": table}, root / "image.safetensors")
    for name in ("image.npy", "image.safetensors"):
        (root / f"{name}.ids.txt").write_text("\n".join(items))
    frame = pl.DataFrame({"item_id": items, "x": table[:, 0], "y": table[:, 1]})
    frame.write_csv(root / "image.csv")
    frame.write_parquet(root / "image.parquet")


def run_prepare(root: Path, edited: Collection[str]) -> None:
    for where in sorted(edited):
        features = where.removesuffix(".ids.txt") if where in FEATURES or where.endswith(".ids.txt") else "image.csv"
        interactions = "orders.csv" if where.startswith("image") else where
        options = ["--split", "leave_one_out"]
        if interactions in ("orders.csv", "orders.parquet"):
            options = ["--split", "time", "--min-rating", "2", "--duplicates", "last"]
        if interactions in ("orders.tsv", "ratings.csv"):
            options = ["--k-core", "2", "--duplicates", "refuse"]
        made = root / "out" / where.replace(".", "_")
        recunlearn("data", "prepare", interactions, str(made), *options, "--features", f"image={features}")
        check_dataset(read_dataset(made))


# Names


def make_names(root: Path) -> None:
    (root / "folder.txt").write_text("out-shop")
    (root / "modality.txt").write_text("image")
    make_prepare(root)


def run_names(root: Path, edited: Collection[str]) -> None:
    folder, modality = ((_words(root / name) or [""])[0] for name in ("folder.txt", "modality.txt"))
    if "\0" not in folder and not Path(os.path.normpath(root / folder)).is_relative_to(root):
        return  # a place elsewhere that was asked for by its path
    made = prepare(Path("orders.csv"), root / folder, Options(), {modality: Path("image.csv")})
    check_dataset(made.dataset)


# Models


SMALL = ["--backbone", "mf", "--set", "train.max_epochs=2", "train.batch_size=64", "model.embedding_size=4"]


def make_models(root: Path) -> None:
    """A data folder, a trained run, a release, a run that was cut off, and the request that was kept."""
    small = toy(30, 20, pairs_per_user=4, clusters=2, modalities=("image",), feature_size=3)
    ids = {"user_ids": as_ids([f"u{i}" for i in range(30)]), "item_ids": as_ids([f"B{i}" for i in range(20)])}
    with contextlib.chdir(root):
        write_dataset(small.replace(**ids), Path("shop"))
        recunlearn("train", "--data", "shop", "--out", "run", *SMALL, "train.checkpoint_every=1")
        answer = ["unlearn", "run", "users:u3", "--out", "release", "--method", "surgery"]
        recunlearn(*answer, "--keep-request", "kept.json")
        manifest = json.loads(Path("run/manifest.json").read_text()) | {"data": "../shop"}
        manifests.write(Path("run"), manifest)
        shutil.copytree("run", "begun")
        shutil.rmtree("begun/model")
        Path("begun/ledger.jsonl").unlink()
        of_end = {"best", "outcome", "model_digest", "sizes", "history", "info", "seconds"}
        manifests.write(Path("begun"), {k: v for k, v in manifest.items() if k not in of_end})


def _all(*commands: Sequence[str]) -> None:
    """Each command, whatever became of the others; raises the first refusal."""
    refusals = []
    for words in commands:
        try:
            recunlearn(*words)
        except InputError as error:
            refusals.append(error)
    if refusals:
        raise refusals[0]


def run_models(root: Path, edited: Collection[str]) -> None:
    folders = {Path(where).parts[0] for where in edited}
    if "run" in folders:
        _all(["recommend", "run", "u0"], ["ledger", "run"])
    if folders & {"release", "kept.json"}:
        shown = ["ledger", "release", "--request", "kept.json"]
        with tempfile.TemporaryDirectory(prefix="fuzzing-") as scratch:
            _all(["recommend", "release", "u0"], shown, ["report", "release", "--out", scratch])


def settle_training(root: Path) -> None:
    """The data stands where the run says, so that nothing has to be recorded anew."""
    manifest = json.loads((root / "begun" / "manifest.json").read_text())
    manifests.write(root / "begun", manifest | {"data": str(root / "shop")})


def run_training(root: Path, edited: Collection[str]) -> None:
    recunlearn("train", "--data", "shop", "--out", "begun", *SMALL, "train.checkpoint_every=1")
    made, whole = (json.loads((root / name / "manifest.json").read_text()) for name in ("begun", "run"))
    _whole(made["model_digest"] == whole["model_digest"], "a resumed run has other parameters")


# Streams


STREAM = ["--data", "shop", "--requests", "4", "--updates", "2", "--golds", "0", "--canaries", "0", *SMALL]


def make_clocks(root: Path) -> None:
    """Two folders whose interactions say when they came."""
    with contextlib.chdir(root):
        for kind in ("timestamp", "order"):
            write_dataset(small_dataset(0), Path(kind))
            (path,) = Path(kind).glob("*.inter")
            header, *rows = path.read_text().splitlines()
            timed = [f"{header}\t{kind}", *(f"{row}\t{at}" for at, row in enumerate(rows))]
            path.write_text("".join(f"{line}\n" for line in timed))


def run_clocks(root: Path, edited: Collection[str]) -> None:
    for folder in {Path(where).parts[0] for where in edited}:
        dataset, clock = read_clock(root / folder)
        check_dataset(dataset)
        _whole(clock.times.shape == (len(dataset.train),), "times are not those of the train pairs")
        _whole(np.isfinite(clock.times).all(), "a time is not finite")


def make_stream(root: Path) -> None:
    """A stream that was cut off before its result was written."""
    with contextlib.chdir(root):
        write_dataset(toy(30, 20, pairs_per_user=4, clusters=2, modalities=(), seed=3), Path("shop"))
        recunlearn("stream", *STREAM, "--out", "begun")
        Path("begun/stream.json").rename("whole.json")


def run_stream(root: Path, edited: Collection[str]) -> None:
    recunlearn("stream", *STREAM, "--out", "begun")
    made, whole = (json.loads((root / name).read_text()) for name in ("begun/stream.json", "whole.json"))
    _whole(made["events"] == whole["events"], "a resumed stream tells of other events")


# Results


def results() -> dict[str, Any]:
    """Of a comparison with an audit."""
    figures = judged_figures(["utility", "forgetting", "divergence"])

    def row(forget: float, test: float) -> dict[str, Any]:
        measured = {"test recall@20": test, "test ndcg@20": test / 2, "forget recall@20": forget}
        seconds = {"total": 3.0, "running": 2.0, "compiling": 1.0}
        return {"figures": measured, "seconds": seconds, "preparation": None, "speed_up": 5.0, "info": {}}

    models = {"original": row(0.9, 0.11), "delta": row(0.2, 0.1), "gold-1": row(0.1, 0.1), "gold-2": row(0.2, 0.12)}
    golds = {name: models[name]["figures"] for name in ("gold-1", "gold-2")}
    others = {name: Measured(models[name]["figures"], {}) for name in ("original", "delta")}
    return {
        **{"data": "tiny", "data_checksum": "0" * 64, "seed": 0, "shadows": 0, "audited": True, "not_finite": []},
        "forgotten": {"users": 3, "items": 0, "pairs": 21},
        "request": {"users": "5%", "seed": 1},
        "config": {"backbone": "mgcn"},
        "environment": {"device": "cpu", "cores": 2},
        **{"models": models, "golds": list(golds), "coupled": []},
        "checks": {"utility": 1, "forgetting": 1},
        "judged": [{**figure._asdict(), "check": 1} for figure in figures],
        **judgement(figures, others, golds),
        "curves": {"original": [0.01, 0.1], "gold-1": [0.02, 0.09]},
    }


def make_results(root: Path) -> None:
    found = results()
    write_results(root / "results.json", found)
    write_results(root / "audit.json", {key: value for key, value in found.items() if key != "curves"})


def run_results(root: Path, edited: Collection[str]) -> None:
    for where in edited:
        recunlearn("report", where, "--out", "out")


# Command lines


COMMANDS = {
    "recommend": "recommend run u0 u1 --k 3",
    "evaluate": "evaluate run --k 5 10 --json",
    "ledger": "ledger release --request kept.json --json",
    "settings": "settings toy --backbone mf",
    "data": "data shop",
    "unlearn": "unlearn run users:u1 --out out/answer --method surgery --seed 1 --keep-request out/kept.json",
    "report": "report release --out out/page",
    "train": f"train --data shop --out run {' '.join(SMALL)} train.checkpoint_every=1",
    "stream": f"stream {' '.join(SMALL)} --data shop --out out/stream --requests 2 --updates 1 --golds 0 --canaries 0",
    "import": "import none.safetensors --data shop --out out/imported --backbone mf",
}


def make_commands(root: Path) -> None:
    make_models(root)
    for name, words in COMMANDS.items():
        (root / f"{name}.txt").write_text(words.replace(" ", "\n"))


def run_commands(root: Path, edited: Collection[str]) -> None:
    for where in sorted(edited):
        recunlearn(*(word for word in _words(root / where)))


# Losses


VIEWS = ("views", "retain", "forget")


def loss_arguments() -> dict[str, Any]:
    """The arguments of every loss, by its name; views as dictionaries."""
    rng = np.random.default_rng(0)

    def vector() -> np.ndarray:
        return rng.uniform(0, 5, 6).astype(np.float32)

    def table() -> np.ndarray:
        return rng.normal(size=(6, 3)).astype(np.float32)

    names = ("user", "positive", "negative", "user_side", "user_content", "positive_side", "positive_content")
    views = {name: table() for name in names}
    weighted = {"weights": vector()}
    return {
        "bpr": {"positive_scores": vector(), "negative_scores": vector(), **weighted},
        "reverse_bpr": {"forget_scores": vector(), "negative_scores": vector(), "form": "swap", **weighted},
        "info_nce": {"x": table(), "y": table(), "temperature": 0.2, **weighted},
        "row_l2": {"tables": [table(), table()], "batch_size": 8, **weighted},
        "table_norms": {"tables": [table(), table()], **weighted},
        "bpr_divergence": {"scores_a": vector(), "scores_b": vector(), **weighted},
        "scores": {"views": views},
        "contrast": {"views": views, "temperature": 0.2, **weighted},
        "mgcn": {"views": views, "contrast_weight": 0.01, "l2_weight": 1e-4, "batch_size": 8, **weighted},
        "mmrecun": {"retain": views, "forget": views, "alpha": 0.5, "reverse": "ascent", "retain_weights": vector()},
    }


def run_losses(arguments: dict[str, Any], edited: Collection[str]) -> None:
    for name in sorted(edited & loss_arguments().keys()):
        given = arguments.get(name)
        if isinstance(given, dict) and given.keys() == loss_arguments()[name].keys():
            views = [value for key, value in given.items() if key in VIEWS and isinstance(value, dict)]
            if all(value.keys() <= set(losses.Views._fields) for value in views):
                _check_loss(name, given)


def _check_loss(name: str, given: dict[str, Any]) -> None:
    """The same value as of float32 arrays; or an error that names an argument."""
    known = {
        word
        for key, value in loss_arguments()[name].items()
        for word in (key, *(("views", *value) if isinstance(value, dict) else ()))
    } | {"weights", "views"}  # as a part of a sum calls them
    try:
        found = _loss(name, given, _on_device)
    except (ValueError, TypeError) as error:
        if not any(word in str(error) for word in known):
            raise Violation(f"{type(error).__name__} of {name} names no argument", str(error)[:300]) from error
        raise
    for value in jax.tree.leaves(found):
        _whole(jnp.issubdtype(value.dtype, jnp.floating), f"{name} is {value.dtype}")
    if any(isinstance(x, np.ndarray) and x.dtype not in (np.float32, np.float64) for x in _values(given)):
        return  # narrower numbers have sums of their own
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same = _loss(name, given, lambda x: jnp.asarray(x, jnp.float32) if isinstance(x, np.ndarray) else x)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(same), strict=True):
        near = np.allclose(np.asarray(one, np.float32), other, rtol=0.05, atol=0.05, equal_nan=True)
        _whole(near, f"{name} is {one}, of float32 arrays {other}")


def _values(given: dict[str, Any]) -> Iterator[Any]:
    """Arguments and what stands in them, no deeper: a list may be too deep for jax."""
    for value in given.values():
        yield from value.values() if isinstance(value, dict) else value if isinstance(value, list) else (value,)


def _on_device(value: Any) -> Any:
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biufc":
        return value
    return jnp.asarray(value.astype(value.dtype.newbyteorder("=")))


def _loss(name: str, given: dict[str, Any], convert: Callable[[Any], Any]) -> Any:
    arguments = {}
    for key, value in given.items():
        if key in VIEWS and isinstance(value, dict):
            arguments[key] = losses.Views(**{part: convert(rows) for part, rows in value.items()})
        else:
            arguments[key] = [convert(rows) for rows in value] if isinstance(value, list) else convert(value)
    tables = arguments.pop("tables", [])
    return getattr(losses, name)(*(tables if isinstance(tables, list) else [tables]), **arguments)


# Parameters of MMRec


def state_arguments() -> dict[str, Any]:
    rng = np.random.default_rng(0)

    def of(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    tables = {"user_embedding.weight": of(5, 4), "item_id_embedding.weight": of(7, 4)}
    image = {"image_embedding.weight": of(7, 3), "image_trs.weight": of(4, 3), "image_trs.bias": of(4)}
    gates = {
        f"{name}.{part}": of(4, 4) if part == "weight" else of(4)
        for name in ("gate_v.0", "gate_image_prefer.0", "query_common.0")
        for part in ("weight", "bias")
    }
    content = {"item_linear.weight": of(4, 3), "item_linear.bias": of(4)}
    return {
        "mgcn": {"state": {**tables, **image, **gates, "query_common.2.weight": of(1, 4)}, "backbone": "mgcn"},
        "freedom": {"state": {**tables, **image}, "backbone": "freedom"},
        "vbpr": {
            "state": {"u_embedding": of(5, 8), "i_embedding": of(7, 4), **content},
            "backbone": "vbpr",
            "widths": {"image": 3},
        },
    }


def run_state(arguments: dict[str, Any], edited: Collection[str]) -> None:
    for name in sorted(edited & state_arguments().keys()):
        given = arguments.get(name)
        if isinstance(given, dict) and {"state", "backbone"} <= given.keys() <= {"state", "backbone", "widths"}:
            _check_params(params_from_mmrec_state_dict(**given))


def _check_params(params: Any) -> None:
    for name, array in flat(params).items():
        _whole(array.dtype == jnp.float32 and bool(jnp.isfinite(array).all()), name)


def make_state_file(root: Path) -> None:
    safetensors.numpy.save_file(state_arguments()["freedom"]["state"], root / "model.safetensors")


def run_state_file(root: Path, edited: Collection[str]) -> None:
    _check_params(params_from_mmrec_state_dict(read_safetensors(root / "model.safetensors"), "freedom"))


SURFACES = {
    "interactions": Surface(make_data, run_data, ("*/*.inter",)),
    "features": Surface(make_data, run_data, ("*/*_feat.npy",)),
    "graphs": Surface(make_data, run_data, ("*/*_adj.npz",)),
    "beside the data": Surface(make_data, run_data, ("shop/*.json", "shop/*.txt")),
    "data set": Surface(data_arguments, run_dataset, tuple(data_arguments()), arguments=True),
    "settings": Surface(make_settings, run_settings, ("*",)),
    "request files": Surface(make_requests, run_requests, ("*",)),
    "request": Surface(request_arguments, run_request, tuple(request_arguments()), arguments=True),
    "prepare": Surface(make_prepare, run_prepare, ("*",), together=False),
    "names": Surface(make_names, run_names, ("folder.txt", "modality.txt"), ("",)),
    "models": Surface(make_models, run_models, ("run/manifest.json", "run/*.jsonl", "run/model/**/*", "release/**/*")),
    "training": Surface(make_models, run_training, ("begun/**/*",), ("begun",), settle=settle_training),
    "clocks": Surface(make_clocks, run_clocks, ("*/*.inter",)),
    "stream": Surface(make_stream, run_stream, ("begun/plan.json", "begun/state/**/*"), ("begun",)),
    "results": Surface(make_results, run_results, ("*",), together=False),
    "commands": Surface(make_commands, run_commands, ("*.txt",), ("",), together=False),
    "losses": Surface(loss_arguments, run_losses, tuple(loss_arguments()), (), (ValueError, TypeError), arguments=True),
    "state dict": Surface(state_arguments, run_state, tuple(state_arguments()), arguments=True),
    "state file": Surface(make_state_file, run_state_file, ("*",)),
}
