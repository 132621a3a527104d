"""Our training epoch and evaluation against the reference's, MMRec's MGCN in PyTorch, in turn on one machine with the same threads.

    python benchmarks/reference.py OUT.json --mmrec CHECKOUT --python PYTHON_WITH_TORCH --data FOLDER [--widths 4096 384]

Processes that hold one model each take turns: epoch, epoch, evaluation, evaluation, and again; ratios are taken pair by pair, and sampling
is included on both sides. The reference knows the modalities image and text: the data set's two modalities take these places. With
--widths the features are replaced by random ones of these sizes, to time a data set whose features are not at hand. The reference is no
part of this project; --mmrec names a checkout of https://github.com/enoche/MMRec, and --python an interpreter that has torch, numpy, scipy,
pandas and pyyaml. It runs twice: as it comes, and with the allocator setting of `recunlearn_jax.process.keep_freed_memory`, which our
command line uses too.
"""
# The reference and torch are found by the other interpreter only.
# pyright: reportMissingImports=false

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import types
from pathlib import Path

# This module of the package needs nothing, so that the other interpreter, which has no recunlearn_jax, can import it too.
sys.path.insert(0, str(Path(__file__).parent.parent))
from recunlearn_jax.process import keep_freed_memory

RATIO_OF = ("epoch", "evaluation")
WORKERS = ("reference", "reference_kept_memory", "ours", "ours_frozen")


def reference(checkout: Path, folder: Path, seed: int = 999) -> dict:
    """The reference's epoch and evaluation of valid pairs as functions; runs under the other interpreter."""
    sys.path.insert(0, str(checkout / "src"))
    os.chdir(checkout / "src")
    import numpy as np
    import torch

    np.__dict__["float"] = float  # an alias that numpy has dropped since
    if not torch.cuda.is_available():
        torch.Tensor.cuda = lambda self, *_, **__: self  # the model asks for a GPU whatever the settings say
    # Degrees of the item graphs are summed by a package that needs a compiler; this is before the clock starts.
    sums = types.ModuleType("torch_scatter")
    sums.__dict__["scatter_add"] = lambda x, i, dim, dim_size: torch.zeros(dim_size, device=x.device).index_add(
        dim, i, x
    )
    sys.modules[sums.__name__] = sums
    # The helpers for raw images pull in torchvision and are not used.
    unused = types.ModuleType("utils.data_utils")
    for name in ("ImageResize", "ImagePad", "image_to_tensor", "load_decompress_img_from_lmdb_value"):
        setattr(unused, name, None)
    # Imported beside what is used: a reader of raw images and a plotter.
    for module in (unused, *map(types.ModuleType, ("lmdb", "matplotlib", "matplotlib.pyplot"))):
        sys.modules[module.__name__] = module
    from common.trainer import Trainer
    from models.mgcn import MGCN
    from utils.configurator import Config
    from utils.dataloader import EvalDataLoader, TrainDataLoader
    from utils.dataset import RecDataset
    from utils.utils import init_seed

    names = sorted(p.name for p in folder.glob("*_feat.npy"))
    settings = {
        "data_path": f"{folder.parent}/",
        "inter_file_name": f"{folder.name}.inter",
        "vision_feature_file": names[-1],
        "text_feature_file": names[0],
        "USER_ID_FIELD": "userID",
        "ITEM_ID_FIELD": "itemID",
        "use_gpu": torch.cuda.is_available(),
        "cl_loss": 0.01,
        "hyper_parameters": [],
        "seed": seed,
    }
    config = Config("MGCN", folder.name, settings)
    config["cl_loss"] = 0.01
    init_seed(seed)
    train, valid, _ = RecDataset(config).split()
    [str(part) for part in (train, valid)]  # counts its interactions
    train_data = TrainDataLoader(config, train, batch_size=config["train_batch_size"], shuffle=True)
    valid_data = EvalDataLoader(config, valid, additional_dataset=train, batch_size=config["eval_batch_size"])
    train_data.pretrain_setup()
    # The model leaves its tables and layers on the CPU; the reference's own main program moves them like this.
    trainer = Trainer(config, MGCN(config, train_data).to(config["device"]))

    def epoch():
        trainer._train_epoch(train_data, 0)
        trainer.lr_scheduler.step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return {
        "epoch": epoch,
        "evaluation": lambda: trainer.evaluate(valid_data),
        "steps": len(train_data),
        "versions": {
            "torch": torch.__version__,
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            "threads": torch.get_num_threads(),
        },
    }


def ours(folder: Path, trainable: bool) -> dict:
    """The same of ours."""
    # All workers share one GPU, of which jax would take three quarters at once.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import jax

    from recunlearn_jax.backbones import mgcn
    from recunlearn_jax.config import Config
    from recunlearn_jax.data import read_dataset
    from recunlearn_jax.environment import environment
    from recunlearn_jax.evaluate import held_out_task, ranking_metrics
    from recunlearn_jax.recommender import embed, init_params, set_up
    from recunlearn_jax.train import init_state, train_epoch

    config = Config(model=mgcn.Settings(trainable_features=trainable))
    setup = set_up(read_dataset(folder), config)
    data, backbone = setup.data, setup.backbone
    box = [init_state(init_params(jax.random.key(0), data, backbone=backbone))]
    task = held_out_task(setup.dataset, "valid")
    assert task is not None

    def epoch():
        box[0], loss = train_epoch(box[0], data, jax.random.key(0), backbone=backbone, config=config.train)
        loss.block_until_ready()

    def evaluation():
        ranking_metrics(embed(box[0].params, data, backbone=backbone), task, (5, 10, 20, 50))

    steps = -(-len(setup.dataset.train) // config.train.batch_size)
    return {"epoch": epoch, "evaluation": evaluation, "steps": steps, "versions": environment()}


def serve(functions: dict) -> None:
    """Do what each line of the standard input names, and answer with the seconds it took."""
    print(json.dumps({key: functions[key] for key in ("steps", "versions")}), flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        functions[line.strip()]()
        print(time.perf_counter() - start, flush=True)


class Worker:
    """A process that serves; what it prints beside its answers is passed over."""

    def __init__(self, *command: str):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.about = json.loads(self.answer("{"))

    def answer(self, start: str = "") -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(start) and (start or line[:1].isdigit()):
                return line
        code = self.process.wait()
        raise RuntimeError(f"{self.process.args} ended without an answer, exit code {code}; it says why above")

    def seconds(self, what: str) -> float:
        assert self.process.stdin is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return float(self.answer())


def prepared(folder: Path, widths: list[int] | None, place: Path) -> Path:
    """A folder that both sides read alike: no item graph files, nothing beside them, one float32 array a modality."""
    import numpy as np

    from recunlearn_jax.data import read_dataset, write_dataset

    dataset = read_dataset(folder)
    features = dict(dataset.features)
    for modality, width in zip(sorted(features, reverse=True), widths or [], strict=False):
        features[modality] = np.random.default_rng(width).normal(size=(dataset.num_items, width)).astype(np.float32)
    written = write_dataset(dataset.replace(features=features, similarities={}), place / dataset.name)
    (written / "retained.json").unlink()
    return written


def main() -> None:
    if sys.argv[1:2] == ["--serve-reference"]:
        if sys.argv[4] == "kept":
            keep_freed_memory()
        return serve(reference(Path(sys.argv[2]), Path(sys.argv[3])))
    if sys.argv[1:2] == ["--serve-ours"]:
        keep_freed_memory()
        return serve(ours(Path(sys.argv[2]), sys.argv[3] == "trainable"))
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--mmrec", type=Path, required=True)
    parser.add_argument("--python", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--widths", type=int, nargs="+")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", nargs="+", choices=WORKERS, default=WORKERS)
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = prepared(words.data, words.widths, Path(place))
        theirs = (words.python, __file__, "--serve-reference", str(words.mmrec.absolute()), str(folder))
        own = (sys.executable, __file__, "--serve-ours", str(folder))
        commands = [(*theirs, "plain"), (*theirs, "kept"), (*own, "trainable"), (*own, "frozen")]
        workers = {
            name: Worker(*command) for name, command in zip(WORKERS, commands, strict=True) if name in words.workers
        }
        samples = {name: {what: [] for what in RATIO_OF} for name in workers}
        for turn in range(words.rounds + 1):
            for what in RATIO_OF:
                for name, worker in workers.items():
                    taken = worker.seconds(what)
                    if turn:  # the first round warms up
                        samples[name][what].append(taken)
    result = {"data": words.data.name, "widths": words.widths, "about": {n: w.about for n, w in workers.items()}}
    result["seconds"] = samples
    result["step_ms"] = {n: 1e3 * statistics.median(s["epoch"]) / workers[n].about["steps"] for n, s in samples.items()}
    for key, base in (("ratio", "reference"), ("ratio_kept_memory", "reference_kept_memory")):
        result[key] = {
            name: {
                what: statistics.median(a / b for a, b in zip(samples[base][what], samples[name][what], strict=True))
                for what in RATIO_OF
            }
            for name in ("ours", "ours_frozen")
            if {base, name} <= samples.keys()
        }
    words.out.parent.mkdir(parents=True, exist_ok=True)
    words.out.write_text(json.dumps(result, indent=1) + "\n")
    print(result["step_ms"], result["ratio"], result["ratio_kept_memory"])


if __name__ == "__main__":
    main()
