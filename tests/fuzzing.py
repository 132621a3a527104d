"""What fuzzing tries: everything of the package that takes input from outside, with valid input to edit.

A case is a list of edits (`fuzz_edits`) of what a surface makes, files or arguments; `fuzz_rules` says what must hold then. `test_fuzz`
tries some cases of each surface, `benchmarks/fuzz.py` as many as there is time for.
"""

import contextlib
import gzip
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import safetensors.numpy
import scipy.sparse
from fuzz_rules import Surface, Violation, check_dataset, must, recunlearn
from toys import small_dataset

from recunlearn_jax import losses
from recunlearn_jax import manifest as manifests
from recunlearn_jax.audit.checks import judged_figures
from recunlearn_jax.backbones.base import flat
from recunlearn_jax.commands.options import Settings
from recunlearn_jax.config import config_from_dict, config_to_dict
from recunlearn_jax.data import read_dataset, write_dataset
from recunlearn_jax.dataset import SPLITS, Dataset, as_ids
from recunlearn_jax.errors import InputError
from recunlearn_jax.files import write_json
from recunlearn_jax.graph import normalize
from recunlearn_jax.interop import params_from_mmrec_state_dict, read_safetensors
from recunlearn_jax.preparation import Options, prepare
from recunlearn_jax.removed_ids import RemovedIds
from recunlearn_jax.requests import Request, parse, read_request, resolve, to_json
from recunlearn_jax.results import write as write_results
from recunlearn_jax.stream import read_clock
from recunlearn_jax.synthetic import toy
from recunlearn_jax.verdict import Measured, judgement

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
        must(config_from_dict(config_to_dict(config)) == config, "settings change on their way through a dictionary")


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
    must(not found.forget.all() and len(found.forget) == len(dataset.train), "everything is forgotten")
    with tempfile.TemporaryDirectory(prefix="fuzzing-") as scratch:
        path = Path(scratch) / "request.json"
        write_json(path, to_json(request))
        again = resolve(read_request(path), dataset)
    must(again.checksum == found.checksum, "a kept request asks for something else")


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
    must(made["model_digest"] == whole["model_digest"], "a resumed run has other parameters")


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
        must(clock.times.shape == (len(dataset.train),), "times are not those of the train pairs")
        must(np.isfinite(clock.times).all(), "a time is not finite")


def make_stream(root: Path) -> None:
    """A stream that was cut off before its result was written."""
    with contextlib.chdir(root):
        write_dataset(toy(30, 20, pairs_per_user=4, clusters=2, modalities=(), seed=3), Path("shop"))
        recunlearn("stream", *STREAM, "--out", "begun")
        Path("begun/stream.json").rename("whole.json")


def run_stream(root: Path, edited: Collection[str]) -> None:
    recunlearn("stream", *STREAM, "--out", "begun")
    made, whole = (json.loads((root / name).read_text()) for name in ("begun/stream.json", "whole.json"))
    must(made["events"] == whole["events"], "a resumed stream tells of other events")


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
        must(jnp.issubdtype(value.dtype, jnp.floating), f"{name} is {value.dtype}")
    if any(isinstance(x, np.ndarray) and x.dtype not in (np.float32, np.float64) for x in _values(given)):
        return  # narrower numbers have sums of their own
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same = _loss(name, given, lambda x: jnp.asarray(x, jnp.float32) if isinstance(x, np.ndarray) else x)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(same), strict=True):
        near = np.allclose(np.asarray(one, np.float32), other, rtol=0.05, atol=0.05, equal_nan=True)
        must(near, f"{name} is {one}, of float32 arrays {other}")


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
        must(array.dtype == jnp.float32 and bool(jnp.isfinite(array).all()), name)


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
