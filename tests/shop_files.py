"""Files of interactions and of features as shops have them, in every format that is read."""

import gzip
import json

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file

from recunlearn_jax.dataset import SPLITS, Dataset
from recunlearn_jax.errors import InputError
from recunlearn_jax.preparation import prepare

# user, item, rating, time; ids that a careless reader would change
ROWS = [
    ("007", "10", 5.0, 100),
    ("7", "9", 1.0, 200),
    ("ann", "10", 4.0, 300),
    ("zoë", "1e3", 3.0, 400),
    ("日本", "10", 5.0, 500),
    ("ann", "true", 2.0, 600),
    ("007", "9", 4.5, 700),
    ("a,b", "1.0", 4.0, 800),
    ("ann", "null", 4.0, 900),
    (" x ", "NA", 4.0, 1000),
]
HEADER = ("user_id", "item_id", "rating", "timestamp")


def quoted(cell):
    return f'"{cell}"' if "," in str(cell) else str(cell)


def table(rows=ROWS, header=HEADER, separator=","):
    return "".join(separator.join(map(quoted, row)) + "\n" for row in ([header] if header else []) + list(rows))


def json_lines(rows=ROWS, keys=("reviewerID", "asin", "overall", "unixReviewTime"), dump=json.dumps, **more):
    return "".join(dump({"title": "å {", **dict(zip(keys, row, strict=True)), **more}) + "\n" for row in rows)


def parquet(path, rows=ROWS, header=HEADER, **types):
    pl.DataFrame(list(rows), list(header), orient="row").cast(types).write_parquet(path)


def write(path, content):
    """Text or bytes into a file; packed where the name says so."""
    content = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def named(pairs, dataset):
    return {(dataset.user_ids[user], dataset.item_ids[item]) for user, item in pairs.tolist()}


def pairs_of(dataset: Dataset):
    """All pairs by the ids of the operator."""
    return set().union(*(named(getattr(dataset, name), dataset) for name in SPLITS))


def refusal(*words, **options):
    with pytest.raises(InputError) as caught:
        prepare(*words, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


RECBOLE = ("user_id:token", "item_id:token", "rating:float", "timestamp:float")
AMAZON_2023 = ("user_id", "parent_asin", "rating", "timestamp")
FORMATS = {
    "shop.csv": table(),
    "shop.csv.gz": table(),
    "plain-text": table(),
    "crlf.csv": table().replace("\n", "\r\n"),
    "mark.csv": "\ufeff" + table(),
    "other-order.csv": table([row[::-1] for row in ROWS], HEADER[::-1]),
    "quoted.csv": table(header=('"user_id"', '"item_id"', '"rating"', '"timestamp"')),
    "no-end.csv": table().removesuffix("\n"),
    "text-between.csv": table([(*row, 'one\nand, ""two""') for row in ROWS], (*HEADER, "review")),
    "shop.tsv": table(separator="\t"),
    "tabs.txt": table(separator="\t").replace('"', ""),
    "shop.inter": table(header=RECBOLE, separator="\t").replace('"', ""),
    "mmrec.inter": table(separator="\t"),
    "ratings_Shop.csv": table(header=None),
    "ratings_Shop.csv.gz": table(header=None),
    "reviews_Shop_5.json.gz": json_lines(reviewText="so\nso", helpful=[1, 2]),
    "reviews_Shop.json.gz": json_lines(dump=repr, helpful=[1, 2]),
    "mixed.json": json_lines(ROWS[:5]) + json_lines(ROWS[5:], dump=repr),
    "blank-lines.jsonl": "\ufeff" + json_lines().replace("\n", "\n\n"),
    "escaped.jsonl": json_lines(dump=lambda x: json.dumps(x, ensure_ascii=False)),
    "texts.jsonl": json_lines([(*row[:2], str(row[2]), str(row[3])) for row in ROWS]),
    "Shop.jsonl.gz": json_lines(keys=AMAZON_2023, asin="a variant", images=[{"hi": None}]),
    "Shop.5core.csv.gz": table([(*row, "x y") for row in ROWS], (*AMAZON_2023, "history")),
    "shop.parquet": None,
    "shop.pq": None,
}


def interactions(tmp_path, name):
    path = tmp_path / name
    if FORMATS[name] is None:
        parquet(path)
        return path
    return write(path, FORMATS[name])


VALUES = {"10": [1.0, 2.0], "9": [3.0, -4.0], "1e3": [np.nan, np.nan], "true": [5.0, 6.5], "nobody's": [7.0, 8.0]}


def ids_beside(path, ids=tuple(VALUES)):
    write(path.with_name(path.name + ".ids.txt"), "\ufeff" + "\r\n".join(ids) + "\n")


def feature_file(path, ids=tuple(VALUES), values=None):
    """A feature file of the kind that its name tells."""
    values = np.array(list(VALUES.values()) if values is None else values)
    kind = path.name.partition(".")[2]
    if kind == "npz":
        np.savez(path, ids=np.array(ids), features=values)
    elif kind == "npy":
        np.save(path, values)
        ids_beside(path, ids)
    elif kind == "safetensors":
        save_file({"features": values, "other": values}, path)
        ids_beside(path, ids)
    elif kind == "list.parquet":
        pl.DataFrame({"asin": ids, "vector": list(values)}).write_parquet(path)
    elif kind == "array.parquet":
        pl.DataFrame({"asin": ids, "vector": values}).write_parquet(path)
    elif kind == "parquet":
        pl.DataFrame({"asin": ids, **dict(zip("xy", values.T, strict=True))}).write_parquet(path)
    else:
        separator = "\t" if "tsv" in kind else ","
        rows = [[name, *row] for name, row in zip(ids, values.tolist(), strict=True)]
        write(path, table(rows, ("asin", "0", "1"), separator))
    return path


FEATURE_FILES = [
    f"f.{k}" for k in ("npz", "npy", "safetensors", "csv", "csv.gz", "tsv", "parquet", "list.parquet", "array.parquet")
]
