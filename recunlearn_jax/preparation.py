"""From an operator's own files to a data folder: read, clean, cut to the k-core, split, and join the features.

    complete -> distinct -> rated -> k-core -> split

Ids stay the strings they are in the file. Users and items get their internal ids in the order of those strings, so the folder does not
depend on the order of the rows, except where a rule refers to the first or the last. Imports no jax.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import polars as pl

from recunlearn_jax import folders
from recunlearn_jax.data import put_dataset
from recunlearn_jax.dataset import NOT_IN_IDS, Dataset, as_ids, check_plain_name
from recunlearn_jax.errors import InputError, check_type, counted, shown
from recunlearn_jax.features import aligned, read_features
from recunlearn_jax.files import as_path, regular
from recunlearn_jax.settings import Checked, CountFromZero
from recunlearn_jax.sources import Format, Source, Wanted, read_interactions

Split = Literal["random", "leave_one_out", "time"]
Duplicates = Literal["first", "last", "refuse"]
TRAIN, VALID, TEST = range(3)


@dataclass(frozen=True)
class Options(Checked):
    """How interactions are read, cleaned and split."""

    format: Format = "auto"
    """Format of the interactions; auto goes by the file name and the content."""
    user_column: str | None = None
    """Name of the user column; if not given, found by the usual names, such as user_id and reviewerID."""
    item_column: str | None = None
    """The same for items, such as item_id, parent_asin and asin; feature tables may use the same name for their ids."""
    rating_column: str | None = None
    """The same for ratings, such as rating and overall; read only with --min-rating."""
    time_column: str | None = None
    """The same for times, such as timestamp and unixReviewTime; in any one unit; read only if the split goes by time."""
    min_rating: float | None = None
    """Interactions with a lower rating are dropped, after the duplicates."""
    duplicates: Duplicates = "first"
    """Which of a user's interactions with an item is kept: by time if the split reads it, else by place in the file; or refuse them."""
    k_core: CountFromZero = 0
    """Drop users and items with fewer interactions, again and again until none is left."""
    split: Split = "random"
    """random: 80/10/10 % of all pairs; leave_one_out: each user's last to test, the one before to valid; time: 80/10/10 % by time."""
    seed: CountFromZero = 0
    """Seed of the random split."""


class Report(NamedTuple):
    """The data set that was written, and what became of the rows, in sentences for the operator."""

    dataset: Dataset
    notes: list[str]


def prepare(
    interactions: str | Path,
    folder: str | Path,
    options: Options = Options(),
    features: Mapping[str, str | Path] = {},
) -> Report:
    """Write a data folder from an interaction file and feature files.

    Held-out pairs of a user or an item without a train pair stay where they are; a note counts them. With `leave_one_out` a user with
    one or two pairs keeps them in train. With `time`, pairs with the same time are never separated.

    Args:
        interactions: a file of one of the formats of `sources`.
        folder: a new one; its name is that of the data set.
        features: modality -> a file of one of the kinds of `features`.

    Raises:
        InputError: the message names the file, the line, the value and what is allowed; nothing has been written then.
    """
    interactions, folder = as_path(interactions, "interactions"), as_path(folder, "folder")
    check_type(features, Mapping, "features", "of a file for each modality")
    contents = {name: as_path(path, f"features {name}") for name, path in features.items()}
    for name in (folder.name, *contents):
        check_plain_name(name)
    for path in (interactions, *contents.values()):
        regular(path)
    with folders.new(folder) as beside:
        report = _prepared(interactions, folder.name, options, contents)
        put_dataset(report.dataset, beside)
    return report


def _prepared(interactions: Path, name: str, options: Options, features: Mapping[str, Path]) -> Report:
    source = read_interactions(interactions, _wanted(options), options.format)
    rows, notes = clean(source, options, interactions)
    kept = k_core(rows["user"].rank("dense").to_numpy(), rows["item"].rank("dense").to_numpy(), options.k_core)
    if len(kept) < len(rows):
        notes.append(f"{counted(len(rows) - len(kept), 'interaction')} dropped by the {options.k_core}-core")
    if not len(kept):
        raise InputError(f"{interactions}: no interaction is left ({'; '.join(notes)})")
    rows = rows[kept]
    (users, user_ids), (items, item_ids) = (coded(rows[kind]) for kind in ("user", "item"))
    pairs = np.stack([users, items], axis=1)
    times = rows["time"].to_numpy() if "time" in rows.columns else None
    labels = split(pairs, times, options)
    notes += _about_split(pairs, labels, times, options)
    tables = {}
    for modality, path in features.items():
        tables[modality], lacking, over = aligned(read_features(path, options.item_column), item_ids.tolist(), path)
        notes.append(f"{modality}: {lacking:,} of {len(item_ids):,} items lack the feature")
        if over:
            notes.append(f"{modality}: {counted(over, 'row')} left out, of no item")
    dataset = Dataset(
        name=name,
        num_users=len(user_ids),
        num_items=len(item_ids),
        train=pairs[labels == TRAIN],
        valid=pairs[labels == VALID],
        test=pairs[labels == TEST],
        features=tables,
        user_ids=user_ids,
        item_ids=item_ids,
    )
    return Report(dataset, notes)


def _wanted(options: Options) -> Wanted:
    columns = {kind: getattr(options, f"{kind}_column") for kind in ("user", "item", "rating", "time")}
    required = ["user", "item"]
    required += ["rating"] if options.min_rating is not None else []
    required += ["time"] if options.split == "time" else []
    optional = ["time"] if options.split == "leave_one_out" else []
    return Wanted({kind: name for kind, name in columns.items() if name is not None}, required, optional)


def clean(source: Source, options: Options, path: Path) -> tuple[pl.DataFrame, list[str]]:
    """Complete rows, one interaction per pair, with a sufficient rating, in order of time if it is read.

    Returns:
        The rows that are kept, and notes on the others.

    Raises:
        InputError: an id holds control characters, or a pair occurs twice and duplicates are refused.
    """
    found = ", ".join(f"{kind} {shown(name)}" for kind, name in source.columns.items())
    notes = [f"{counted(len(source.rows), 'row')} read from {path.name}; the columns are {found}"]
    missing = pl.any_horizontal(pl.all().is_null())
    dropped, rows = source.rows.filter(missing), source.rows.filter(~missing)
    if len(dropped):
        kinds = " or ".join(source.columns)
        notes.append(
            f"{counted(len(dropped), 'row')} dropped without {kinds}; the first is {source.unit} {dropped['row'][0]}"
        )
    for kind in ("user", "item"):
        _check_ids(rows, kind, source.unit, path)
    if "time" in rows.columns:
        rows = rows.sort("time", maintain_order=True)
    distinct = _distinct(rows, options, source.unit, path)
    if len(distinct) < len(rows):
        notes.append(
            f"{counted(len(rows) - len(distinct), 'row')} dropped as duplicates; the {options.duplicates} of a pair is kept"
        )
    rated = distinct if options.min_rating is None else distinct.filter(pl.col("rating") >= options.min_rating)
    if len(rated) < len(distinct):
        notes.append(
            f"{counted(len(distinct) - len(rated), 'interaction')} dropped with a rating below {options.min_rating:g}"
        )
    return rated, notes


def _check_ids(rows: pl.DataFrame, kind: str, unit: str, path: Path) -> None:
    """Files hold one id per line, so ids may hold no control characters and no line ends."""
    beyond_ascii = rows[kind].filter(rows[kind].str.contains("[^ -~]")).unique()
    odd = [name for name in beyond_ascii if NOT_IN_IDS.search(name)]
    if odd:
        row, name = rows.filter(pl.col(kind).is_in(odd)).select("row", kind).row(0)
        raise InputError(f"{path}: {unit} {row} has {kind} {shown(name)}; ids without control characters are allowed")


def _distinct(rows: pl.DataFrame, options: Options, unit: str, path: Path) -> pl.DataFrame:
    pair = ["user", "item"]
    if options.duplicates != "refuse":
        return rows.unique(pair, keep=options.duplicates, maintain_order=True)
    twice = rows.filter(pl.struct(pair).is_duplicated())
    if len(twice):
        user, item = twice[0, "user"], twice[0, "item"]
        same = twice.filter((pl.col("user") == user) & (pl.col("item") == item))["row"].sort()
        raise InputError(
            f"{path}: {unit}s {same[0]} and {same[1]} hold the same pair ({shown(user)}, {shown(item)}); "
            "each is allowed once, unless duplicates is first or last"
        )
    return rows


def k_core(users: np.ndarray, items: np.ndarray, k: int) -> np.ndarray:
    """The interactions of the k-core: the largest part in which each user and each item has at least k of them.

    Args:
        users, items: whole numbers [n], of each interaction, not negative.

    Returns:
        int64 [m], places of those that are kept, ascending.
    """
    kept = np.arange(len(users))
    while True:
        enough = np.ones(len(kept), bool)
        for ids in (users[kept], items[kept]):
            enough &= np.bincount(ids)[ids] >= k if len(ids) else True
        if enough.all():
            return kept
        kept = kept[enough]


def coded(ids: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """Internal ids, int64 [n], and the ids they stand for in sorted order, an object array of str."""
    known = ids.unique().sort()
    codes = ids.cast(pl.Enum(known)).to_physical().to_numpy().astype(np.int64)
    return codes, as_ids(known.to_list())


def split(pairs: np.ndarray, times: np.ndarray | None, options: Options) -> np.ndarray:
    """Whether each pair is for train, valid or test.

    Args:
        pairs: whole numbers [n, 2], unique, in the order of time.
        times: int64 [n], ascending; needed for the split by time.

    Returns:
        int8 [n], 0, 1 or 2.
    """
    if options.split == "leave_one_out":
        return _leave_one_out(pairs[:, 0])
    if options.split == "time":
        assert times is not None
        return _by_time(times)
    return _at_random(pairs, options.seed)


def _at_random(pairs: np.ndarray, seed: int) -> np.ndarray:
    tenth = len(pairs) // 10
    drawn = np.lexsort(pairs.T[::-1])[np.random.default_rng(seed).permutation(len(pairs))]
    labels = np.full(len(pairs), TRAIN, np.int8)
    labels[drawn[:tenth]] = VALID
    labels[drawn[tenth : 2 * tenth]] = TEST
    return labels


def _leave_one_out(users: np.ndarray) -> np.ndarray:
    order = np.argsort(users, kind="stable")
    counts = np.bincount(users)
    after = np.cumsum(counts)[users[order]] - 1 - np.arange(len(users))  # how many of the user's pairs follow
    many = counts[users[order]] >= 3
    labels = np.full(len(users), TRAIN, np.int8)
    labels[order[many & (after == 1)]] = VALID
    labels[order[many & (after == 0)]] = TEST
    return labels


def _by_time(times: np.ndarray) -> np.ndarray:
    """The times below which 80 % and 90 % of the pairs lie separate the splits; pairs with the same time stay together."""
    cuts = times[[math.ceil(len(times) * share / 10) - 1 for share in (8, 9)]]
    return np.searchsorted(cuts, times, side="left").astype(np.int8)


def _about_split(pairs: np.ndarray, labels: np.ndarray, times: np.ndarray | None, options: Options) -> list[str]:
    sizes = " / ".join(f"{int((labels == label).sum()):,}" for label in (TRAIN, VALID, TEST))
    how = {
        "random": f"drawn with seed {options.seed}",
        "leave_one_out": "a user's last pairs by time, and within a moment by their order in the file"
        if times is not None
        else "a user's last pairs by their order in the file, which has no time column",
        "time": "by time, pairs of one moment together",
    }[options.split]
    notes = [f"split {options.split}: {sizes} pairs for train / valid / test, {how}"]
    train, held_out = pairs[labels == TRAIN], pairs[labels != TRAIN]
    cold = ~(np.isin(held_out[:, 0], train[:, 0]) & np.isin(held_out[:, 1], train[:, 1]))
    if cold.any():
        notes.append(
            f"{counted(int(cold.sum()), 'held-out pair')} kept although the user or the item has no train pair"
        )
    return notes
