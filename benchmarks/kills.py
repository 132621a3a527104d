"""What killed commands leave: each is killed at random moments, run again, perhaps killed again, and compared with one left alone.

    python benchmarks/kills.py OUT.json [--kills 50] [--seed 0] [--command NAME ...]

Real processes train, compare, unlearn, prepare data and grow on toy data. A kill (SIGKILL) comes at a random time, just after a file has
appeared, or before a certain one of the changes that the process makes to files. What the last run leaves must be what the undisturbed one
left: parameters to the bit, data, figures, files, and nothing beside them. At last two processes at a time work on one folder: one must be
told at once. OUT.json counts the trials by what became of them and is written as the work goes on. The exit code is 1 where a trial ended
otherwise than identical, or refused with a way out.
"""

import argparse
import contextlib
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from recunlearn_jax import ledger, runs
from recunlearn_jax.data import write_dataset
from recunlearn_jax.files import digest_of, write_json
from recunlearn_jax.folders import LOCK
from recunlearn_jax.synthetic import toy

PATIENCE = 600.0  # seconds after which a command hangs
MOST_KILLS = 3  # of one trial
GOOD = ("identical", "refused, then identical")
# What differs from run to run, by the names of keys.
VOLATILE = {
    "seconds",
    "compile_seconds",
    "preparation",
    "preparation_seconds",
    "speed_up",
    "environment",
    "time",
    "commit",
    "changed",
    "digest",
}

# Runs the command line and kills itself before the n-th change of a file below a folder; with 0 it counts them.
WATCHED = """
import atexit, os, pathlib, runpy, sys
root, moment, told, *words = sys.argv[1:]
changes, writing, count = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}, os.O_WRONLY | os.O_RDWR | os.O_CREAT, 0

def watch(event, given):
    global count
    if event == "open":
        below = isinstance(given[0], str) and given[0].startswith(root) and given[2] & writing
    else:  # within a folder that is being removed, names are relative
        below = event in changes and (str(given[0]).startswith(root) or (len(given) > 1 and given[-1] not in (-1, None)))
    if below:
        count += 1
        if count == int(moment):
            os.kill(os.getpid(), 9)

sys.addaudithook(watch)
atexit.register(lambda: pathlib.Path(told).write_text(str(count)))
sys.argv = ["recunlearn", *words]
runpy.run_module("recunlearn_jax.cli", run_name="__main__", alter_sys=True)
"""


class Moment(NamedTuple):
    """When a process is killed: after so many seconds, so many files, or before so many changes."""

    kind: str
    at: float


class Ended(NamedTuple):
    """A process that has ended, by itself or not."""

    code: int | None  # None where it hung
    told: str  # the last line of its errors
    seconds: float


class Command(NamedTuple):
    """A command left alone: what it makes, how long it takes, and how many files and changes of files that are."""

    words: list[str]  # {in} is the folder of what it reads, {out} that of what it makes
    made: Any
    seconds: float
    files: int
    changes: int


SETTINGS = ["--set", "train.max_epochs=4", "train.batch_size=64", "train.checkpoint_every=1", "model.embedding_size=8"]
COMPARED = ["--request", "users:5%", "--golds", "coupled:1,independent:1", "--methods", "surgery", "finetune", "sisa"]
COMPARED += [*SETTINGS, "sisa.shards=2", "finetune.epochs=1"]
KEPT = ["--keep-request", "{out}/request.json"]
COMMANDS = {
    "train": ["train", "--data", "{in}/data", "--out", "{out}/made", *SETTINGS],
    "compare": ["compare", "--data", "{in}/data", "--out", "{out}/made", *COMPARED],
    "unlearn": ["unlearn", "{in}/run", "users:1,2", "--out", "{out}/made", "--method", "finetune", *KEPT],
    "prepare": ["data", "prepare", "{in}/orders.csv", "{out}/made", "--features", "image={in}/image.csv"],
    "grow": ["grow", "{in}/run", "--data", "{in}/now", "--out", "{out}/made"],
}


class Bench:
    """Folders of inputs and of trials, and the environment of the processes."""

    def __init__(self, root: Path):
        self.root, self.inputs = root, root / "in"
        self.environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_backend_optimization_level=0",
            "JAX_COMPILATION_CACHE_DIR": str(root / "programs"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        self.trials = 0

    def inputs_made(self) -> None:
        """Data, data that has grown, a model, and an operator's own files."""
        self.inputs.mkdir(parents=True)
        dataset = toy(60, 40, pairs_per_user=5, clusters=2, feature_size=4)
        write_dataset(dataset, self.inputs / "data")
        grown = toy(66, 40, pairs_per_user=5, clusters=2, feature_size=4, seed=1)
        write_dataset(grown, self.inputs / "now")
        with (self.inputs / "orders.csv").open("w", newline="") as orders:
            csv.writer(orders).writerows([("user", "item"), *((f"u{u}", f"B{i}") for u, i in dataset.train.tolist())])
        with (self.inputs / "image.csv").open("w", newline="") as pictures:
            rows = ([f"B{i}", *row] for i, row in enumerate(dataset.features["image"].tolist()))
            csv.writer(pictures).writerows([("item", "x0", "x1", "x2", "x3"), *rows])
        words = [word.format_map({"in": self.inputs, "out": self.inputs}) for word in COMMANDS["train"]]
        ended = finished(self.started(self.inputs, ["{out}/run" if w.endswith("/made") else w for w in words]))
        if ended.code:
            raise RuntimeError(ended.told)

    def place(self) -> Path:
        """A new folder for a trial."""
        self.trials += 1
        place = self.root / f"trial-{self.trials}"
        place.mkdir()
        return place

    def started(self, place: Path, words: list[str], change: int = 0) -> subprocess.Popen:
        """A process, which kills itself before a change of a file, if that is not 0."""
        filled = [word.format_map({"in": self.inputs, "out": place}) for word in words]
        command = [sys.executable, "-c", WATCHED, str(place), str(change), str(self.root / "changes"), *filled]
        return subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=self.environment, start_new_session=True
        )


def finished(process: subprocess.Popen) -> Ended:
    """Wait for the end of a process."""
    start = time.monotonic()
    try:
        errors = process.communicate(timeout=PATIENCE)[1].decode(errors="replace")
    except subprocess.TimeoutExpired:
        kill(process)
        return Ended(None, "no end", PATIENCE)
    if "Traceback" in errors:
        return Ended(70, errors.strip().splitlines()[-1], time.monotonic() - start)
    return Ended(process.returncode, (errors.strip().splitlines() or [""])[-1], time.monotonic() - start)


def kill(process: subprocess.Popen) -> None:
    """End a process and its children at once."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def killed(bench: Bench, place: Path, words: list[str], moment: Moment) -> Ended:
    """Run a command until the moment comes, or to its end where that comes first."""
    process = bench.started(place, words, int(moment.at) if moment.kind == "change" else 0)
    start = time.monotonic()
    known = set(below(place))
    while process.poll() is None and moment.kind != "change":
        if (
            time.monotonic() - start >= moment.at
            if moment.kind == "time"
            else len(set(below(place)) - known) >= moment.at
        ):
            break
        time.sleep(0.002)
    if moment.kind != "change":
        kill(process)
    return finished(process)


def below(place: Path) -> Iterator[str]:
    """Every file in a folder; what vanishes meanwhile is passed over."""
    for folder, _, names in os.walk(place):
        yield from (os.path.join(folder, name) for name in names)


def made_in(place: Path) -> Any:
    """What a command made, in a form that is the same wherever and whenever it was made; None where it is not complete."""
    made = place / "made"
    beside = sorted(path.name for path in place.iterdir())
    if (made / "comparison.json").exists():
        if not (made / "results.json").exists():
            return None
        parts = {path.parent.name: model_in(path.parent) for path in sorted(made.glob("parts/*/manifest.json"))}
        return {"beside": beside, "results": _lasting(json.loads((made / "results.json").read_text())), "parts": parts}
    if (made / "manifest.json").exists():
        return {"beside": beside, "model": model_in(made)} if runs.finished(made) else None
    if made.is_dir() and any(made.glob("*.inter")):
        names = sorted(path.relative_to(made).as_posix() for path in made.rglob("*") if path.name != LOCK)
        return {"beside": beside, "files": {name: digest_of(made / name) for name in names}}
    return None


def model_in(folder: Path) -> dict[str, Any]:
    """Parameters as they are read back, data, log and ledger of a model."""
    model, manifest = runs.load(folder), runs.manifest_of(folder)
    log = folder / "log.jsonl"
    return {
        "parameters": runs.digest(model.params),
        "recorded": manifest["model_digest"],
        "data": model.dataset.checksum,
        "history": _lasting(list(model.history)),
        "log": _lasting([json.loads(line) for line in log.read_text().splitlines()]) if log.exists() else None,
        "events": [(entry["event"], entry["model"]) for entry in ledger.read(folder)],
        "names": sorted(path.name for path in folder.iterdir() if path.name not in (LOCK, "state")),
    }


def _lasting(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _lasting(entry) for key, entry in value.items() if key not in VOLATILE}
    return [_lasting(entry) for entry in value] if isinstance(value, (list, tuple)) else value


def left_alone(bench: Bench, name: str) -> Command:
    """A command that nothing disturbs, the second time, when its programs are compiled."""
    for _ in range(2):
        place = bench.place()
        ended = finished(bench.started(place, COMMANDS[name]))
        if ended.code:
            raise RuntimeError(f"{name}: {ended.told}")
    changes = int((bench.root / "changes").read_text())
    return Command(COMMANDS[name], made_in(place), ended.seconds, len(list(below(place))), changes)


def moment(command: Command, draw: random.Random, share: float) -> Moment:
    """When to kill, within a share of what is to be done. Every other change is one of the last, where finished work takes its place."""
    kind = draw.choice(["change", "change", "time", "file"])
    if kind == "time":
        return Moment(kind, draw.uniform(0, share * command.seconds))
    latest = max(1, round(share * (command.changes if kind == "change" else command.files)))
    earliest = max(1, latest - 20) if kind == "change" and draw.random() < 0.5 else 1
    return Moment(kind, draw.randint(earliest, latest))


def trial(bench: Bench, command: Command, draw: random.Random, most: int) -> dict[str, Any]:
    """Kill a command, run it again until it ends by itself, and say what became of it."""
    place, moments = bench.place(), []
    while len(moments) < most and (not moments or draw.random() < 0.5):
        chosen = moment(command, draw, draw.random() if moments else 1.0)  # what is left takes less
        ended = killed(bench, place, command.words, chosen)
        if ended.code not in (-signal.SIGKILL, 0, 2):
            return {"moments": moments, "became": "crashes", "told": ended.told.replace(f"{place}/", "")}
        if ended.code != -signal.SIGKILL:
            break
        moments.append(f"{chosen.kind} {chosen.at:.4g}")
    return {"moments": moments} | outcome(bench, command, place)


def outcome(bench: Bench, command: Command, place: Path) -> dict[str, Any]:
    """What the same command makes of what a killed one has left."""
    before = made_in(place)
    ended = finished(bench.started(place, command.words))
    refused = ended.told if ended.code == 2 else ""
    if refused and before is None:
        ended = finished(bench.started(place, command.words))
    made = made_in(place)
    if ended.code is None or ended.code not in (0, 2):
        became = "hangs" if ended.code is None else "crashes"
    elif made is None:
        became = "refused for good" if ended.code == 2 else "different"
    elif made != command.made:
        became = "different"
    else:
        became = "refused, then identical" if refused and before is None else "identical"
    told = {"became": became, "code": ended.code, "told": ended.told.replace(f"{place}/", "")}
    if became in GOOD:
        shutil.rmtree(place)
    return told


def two_at_once(bench: Bench, command: Command, stopped: bool) -> dict[str, Any]:
    """Two processes on one folder: started together, or the second while the first is held up in the midst of its work."""
    place = bench.place()
    first = bench.started(place, command.words)
    if stopped:
        while first.poll() is None and not any(place.glob(f"*/{LOCK}")):
            time.sleep(0.001)
        os.killpg(first.pid, signal.SIGSTOP)
    second = bench.started(place, command.words)
    ends = [finished(second)] if stopped else []
    if stopped:
        os.killpg(first.pid, signal.SIGCONT)
    ends += [finished(first)] if stopped else [finished(first), finished(second)]
    codes = sorted(str(ended.code) for ended in ends)
    refusal = next((ended.told for ended in ends if ended.code == 2), "")
    # One that comes when the other has ended finds its work done.
    good = codes == ["0", "2"] or (
        not stopped and codes == ["0", "0"] and command.words[0] in ("train", "grow", "compare")
    )
    same = made_in(place) == command.made
    if good and same:
        shutil.rmtree(place)
    return {
        "codes": codes,
        "told": refusal.replace(f"{place}/", ""),
        "became": "identical" if good and same else "violation",
    }


def run(out: Path, kills: int, seed: int, names: list[str], bench: Bench) -> int:
    """All trials; returns the number of violations."""
    draw, done = random.Random(seed), 0
    bench.inputs_made()
    inputs = {path: digest_of(Path(path)) for path in below(bench.inputs)}
    commands = {name: left_alone(bench, name) for name in names}
    found: dict[str, Any] = {"seed": seed, "kills": 0, "violations": [], "two at once": {}}
    found["commands"] = {
        name: {"seconds": round(c.seconds, 1), "changes": c.changes, "trials": 0, "kills": 0}
        for name, c in commands.items()
    }
    while done < kills:
        for name in names:
            if done >= kills:
                break
            told = trial(bench, commands[name], draw, min(MOST_KILLS, kills - done))
            done += len(told["moments"])
            counts = found["commands"][name]
            counts["trials"] += 1
            counts["kills"] += len(told["moments"])
            counts[told["became"]] = counts.get(told["became"], 0) + 1
            print(name, told, flush=True)
            if told["became"] not in GOOD:
                found["violations"].append({"command": name} | told)
            write_json(out, found | {"kills": done})
    found["kills"] = done
    for name in names:
        pairs = {how: two_at_once(bench, commands[name], how == "held up") for how in ("together", "held up")}
        found["two at once"][name] = pairs
        print(name, pairs, flush=True)
        found["violations"] += [
            {"command": name, "two": how} | told for how, told in pairs.items() if told["became"] not in GOOD
        ]
        write_json(out, found)
    if {path: digest_of(Path(path)) for path in below(bench.inputs)} != inputs:
        found["violations"].append({"command": "all", "became": "what they read was changed"})
    write_json(out, found)
    return len(found["violations"])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--command", nargs="+", choices=list(COMMANDS), default=list(COMMANDS))
    words = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="kills-"))
    violations = run(words.out, words.kills, words.seed, words.command, Bench(root))
    print(f"{violations} violations" + (f"; what they left is in {root}" if violations else ""))
    if not violations:
        shutil.rmtree(root)
    return int(violations > 0)


if __name__ == "__main__":
    sys.exit(main())
