"""The command line: `recunlearn data | train | unlearn | evaluate | recommend | compare | audit | report | settings`.

Options are parsed before jax is imported, so a mistake in them is told at once. Exit codes: 0 done, 1 an audit that found something, 2 a
mistake the user can mend, 70 a defect of this program, with its traceback, 130 interrupted. Compiled programs are kept in
~/.cache/recunlearn_jax for the next call (JAX_COMPILATION_CACHE_DIR names another folder, JAX_ENABLE_COMPILATION_CACHE=false turns this
off).
"""

import contextlib
import dataclasses
import json
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from recunlearn_jax import settings
from recunlearn_jax.errors import InputError
from recunlearn_jax.process import keep_compiled_programs, keep_float32_products, keep_freed_memory

if TYPE_CHECKING:
    from recunlearn_jax.config import Config


@dataclasses.dataclass(frozen=True)
class Settings:
    """Where the settings of a run come from."""

    preset: str = "faithful"
    """A named preset, see `recunlearn settings`."""
    backbone: str | None = None
    """mgcn, lightgcn, vbpr, freedom, mf or a registered one, at its own defaults; the preset's where it is not named."""
    settings: Path | None = None
    """A .json or .toml file of settings; replaces the preset."""
    set: tuple[str, ...] = ()
    """Single settings on top, such as train.batch_size=512 mmrecun.steps=30."""

    def resolve(self, methods: Sequence[str] = ()) -> tuple["Config", dict[str, Any]]:
        """The settings these options describe: of the model, and of each method by its name."""
        from recunlearn_jax.config import PRESETS, config_from_dict, config_to_dict, with_backbone
        from recunlearn_jax.unlearn.driver import find

        if self.preset not in PRESETS:
            raise InputError(f"--preset {self.preset}: unknown; choose from {', '.join(PRESETS)}")
        chosen = {name: find(name, None)[1] for name in methods}
        config = PRESETS[self.preset] if self.backbone is None else with_backbone(PRESETS[self.preset], self.backbone)
        groups = config_to_dict(config) | {name: settings.to_dict(kind) for name, kind in chosen.items()}
        where = "--set"
        if self.settings:
            read, where = settings.read_file(self.settings), str(self.settings)
            groups = {name: values for name, values in read.items() if name in groups or not _is_method(name)}
            if self.backbone is not None and groups.get("backbone", self.backbone) != self.backbone:
                raise InputError(f"--backbone {self.backbone}: {self.settings} has settings of {groups['backbone']}")
            groups = {"backbone": config.backbone, "model": {}, "train": {}} | {key: {} for key in chosen} | groups
        groups = settings.override(groups, self.set)
        of_methods = {name: find(name, groups.pop(name))[1] for name in chosen}
        return config_from_dict(groups, where), of_methods


def _is_method(name: str) -> bool:
    from recunlearn_jax.unlearn import METHODS

    return name in METHODS


@contextlib.contextmanager
def _devices(count: int | None):
    """A mesh over so many devices while a command runs; none where it is not asked for."""
    if count is None:
        yield
        return
    import jax

    from recunlearn_jax.mesh import device_mesh

    if not 1 <= count <= len(jax.devices()):
        raise InputError(f"--devices {count}: there are {len(jax.devices())}; 1 to {len(jax.devices())} is allowed")
    with jax.set_mesh(device_mesh(count)):
        yield


@dataclasses.dataclass(frozen=True)
class Data:
    """Check a data folder, or write the toy data set into a new one."""

    folder: tyro.conf.Positional[Path]
    """An MMRec folder to check; with --toy, a new folder to write."""
    toy: bool = False
    """Write the synthetic data set: clusters of users and items with matching features."""
    users: int = 1500
    items: int = 800
    pairs_per_user: int = 14
    clusters: int = 8
    modalities: tuple[str, ...] = ("image", "text")
    feature_size: int = 32
    seed: int = 0

    def run(self) -> None:
        from recunlearn_jax.data import read_dataset, write_dataset
        from recunlearn_jax.synthetic import toy

        if self.toy:
            dataset = toy(
                self.users,
                self.items,
                pairs_per_user=self.pairs_per_user,
                clusters=self.clusters,
                modalities=self.modalities,
                feature_size=self.feature_size,
                seed=self.seed,
            )
            write_dataset(dataset, self.folder)
        dataset = read_dataset(self.folder)
        print(dataset.summary())
        for modality in dataset.modalities:
            empty = int((~dataset.features[modality].any(axis=1)).sum())
            source = (
                "item graph from a file"
                if modality in dataset.similarities
                else "item graph will be built from the features"
            )
            print(f"  {modality}: {source}; {empty} items without the feature")
        print(f"  checksum {dataset.checksum}")


@dataclasses.dataclass(frozen=True)
class Train:
    """Train a recommender. The same command resumes a run that was cut off, exactly."""

    data: Path
    """MMRec folder."""
    out: Path
    """Folder of the run."""
    seed: int = 0
    devices: int | None = None
    """Spread tables and batches over this many devices; one where it is not named."""
    options: Annotated[Settings, tyro.conf.OmitArgPrefixes] = Settings()

    def run(self) -> None:
        config, _ = self.options.resolve()
        from recunlearn_jax import runs
        from recunlearn_jax.data import read_dataset
        from recunlearn_jax.evaluate import held_out_task, report
        from recunlearn_jax.train import fit

        dataset = read_dataset(self.data)
        print(dataset.summary())
        if config.backbone == "mgcn" and not dataset.modalities:
            print("note: the data has no modality; MGCN without any is LightGCN")
        with _devices(self.devices), _progress(config.train.max_epochs) as on_epoch:
            runs.begin(self.out, dataset, self.data, config, self.seed)
            if runs.finished(self.out):
                print(f"{self.out}: already trained; nothing to do")
                return
            trained = fit(dataset, config, seed=self.seed, run=self.out, on_epoch=on_epoch)
            tasks = {split: held_out_task(trained.dataset, split) for split in ("valid", "test")}
            outcome = report(trained.rows, tasks, (10, 20))
            runs.finish(self.out, trained, outcome)
        print(
            f"{len(trained.history)} epochs in {trained.seconds.total:.1f} s, {trained.seconds.compiling:.1f} s of them compiling"
        )
        print(f"best epoch {trained.best['epoch']}; {_metrics(outcome)}")


@dataclasses.dataclass(frozen=True)
class Unlearn:
    """Answer a removal request: write a model that has forgotten it, with the retained data."""

    model: tyro.conf.Positional[Path]
    """Folder of a model."""
    request: tyro.conf.Positional[tuple[str, ...]]
    """What to forget: users:5% users:3,14 items:12,99 pairs:5% pairs:3-12 modality:audio modality:audio:12,99, or one .json file."""
    out: Path
    """New folder for the unlearned model."""
    method: str = "delta"
    """delta, mmrecun, surgery, finetune, ascent, rrl, scif, amnesiac, sisa, receraser, gold or coupled (retrain), or a registered one."""
    seed: int = 0
    """Of the method."""
    request_seed: int = 0
    """Of the draw of shares such as 5%."""
    set: tuple[str, ...] = ()
    """Settings of the method, such as delta.follow=0.9; those of the model are the model's."""
    devices: int | None = None
    """Spread tables and batches over this many devices; one where it is not named."""

    def run(self) -> None:
        from recunlearn_jax.requests import parse

        request = parse(self.request, self.request_seed)
        from recunlearn_jax import runs
        from recunlearn_jax.report import signatures
        from recunlearn_jax.requests import resolve
        from recunlearn_jax.unlearn import answer
        from recunlearn_jax.unlearn.driver import find, outcome

        defaults = {self.method: settings.to_dict(find(self.method, None)[1])}
        _, chosen = find(self.method, settings.override(defaults, self.set)[self.method])
        if self.out.exists():
            raise InputError(
                f"{self.out}: exists already; choose another folder, so that no earlier model is overwritten"
            )
        with _devices(self.devices):
            original = runs.load(self.model)
            forget_set = resolve(request, original.dataset)
            for note in forget_set.notes(original.dataset):
                print(f"note: {note}")
            answered = answer(original, forget_set, self.method, chosen, seed=self.seed)
            found = outcome(original, answered, forget_set)
            checksum = runs.manifest_of(self.model)["data_checksum"]
            facts = runs.answer_facts(original, forget_set, self.method, chosen, self.seed, checksum)
            runs.release(self.out, answered, facts | {"outcome": found})
        forgotten = ", ".join(f"{n:,} {what}" for what, n in forget_set.counts().items() if n)
        print(f"{self.method} forgot {forgotten}; model in {self.out}")
        gone = [m for m in original.dataset.modalities if m not in answered.dataset.modalities]
        for line in signatures(found["before"], found["after"], answered.seconds.total, gone):
            print(f"  {line}")


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Ranking metrics of a model on valid, test and, beside its original, on what was forgotten."""

    model: tyro.conf.Positional[Path]
    """Folder of a model."""
    original: Path | None = None
    """Folder of the model it was unlearned from: the pairs in its train set and no longer in this one form the forget set."""
    k: tuple[int, ...] = (10, 20)
    """List lengths."""
    json: bool = False
    """Print JSON instead of a table."""

    def run(self) -> None:
        import numpy as np

        from recunlearn_jax import runs
        from recunlearn_jax.evaluate import forget_task, held_out_task, report

        if not self.k or min(self.k) < 1:
            raise InputError(f"--k {' '.join(map(str, self.k))}: list lengths of at least 1 are allowed")
        model = runs.load(self.model)
        tasks = {split: held_out_task(model.dataset, split) for split in ("valid", "test")}
        if self.original:
            before = runs.load(self.original).dataset
            if (before.num_users, before.num_items) != (model.dataset.num_users, model.dataset.num_items):
                raise InputError(f"{self.original}: is no original of {self.model}; its ids run over another range")
            had, has = (d.train[:, 0].astype(np.int64) * d.num_items + d.train[:, 1] for d in (before, model.dataset))
            tasks["forget"] = forget_task(model.dataset, before.train[~np.isin(had, has)])
        metrics = report(model.rows, tasks, self.k)
        if self.json:
            print(json.dumps(metrics, indent=1))
        else:
            for split, values in metrics.items():
                print(split + "  " + "  ".join(f"{name} {value:.4f}" for name, value in values.items()))


@dataclasses.dataclass(frozen=True)
class Recommend:
    """The best items for some users; nothing they already have, nothing that was removed."""

    model: tyro.conf.Positional[Path]
    """Folder of a model."""
    users: tyro.conf.Positional[tuple[int, ...]]
    """User ids."""
    k: int = 20
    """Length of the lists."""

    def run(self) -> None:
        from recunlearn_jax import runs

        if not self.users:
            raise InputError("no user named; give at least one user id")
        lists = runs.load(self.model).recommend(self.users, self.k)
        for user, items in zip(self.users, lists, strict=True):
            print(f"{user}\t{' '.join(str(item) for item in items if item >= 0)}")


@dataclasses.dataclass(frozen=True)
class Compare:
    """Train, forget with each method, retrain Gold, and show a table. Cut off at any time, the same command goes on."""

    data: Path
    """MMRec folder."""
    request: tuple[str, ...]
    """What to forget, as for unlearn."""
    out: Path
    """Folder for models, results.json, table.md and plots."""
    methods: tuple[str, ...] = ("delta", "surgery", "finetune", "mmrecun")
    golds: str = "coupled:1,independent:3"
    """Retrained models to compare with: independent ones have seeds of their own, coupled ones replay the training of the original (and of
    originals of further seeds); a plain number is that of independent ones."""
    canaries: int = 0
    """Plant this many item pairs, each known to eight users who are forgotten too, and report what is left of them."""
    shills: int = 0
    """Plant users who push this many items, forget them too, and report how often the items are still shown."""
    plant: tuple[str, ...] = ()
    """The same for any check that plants, such as canary=20."""
    audit: bool = False
    """Run all checks of the audit on every model, and judge them; see docs/evidence.md."""
    shadows: int = 0
    """With --audit: train this many shadow models and attack with them (U-LiRA); an even number of at least 4."""
    seed: int = 0
    """Of the original and of the methods; Gold seeds follow from it."""
    request_seed: int = 0
    """Of the draw of shares such as 5%."""
    devices: int | None = None
    """Spread tables and batches over this many devices; one where it is not named."""
    options: Annotated[Settings, tyro.conf.OmitArgPrefixes] = Settings()

    def run(self) -> None:
        from recunlearn_jax.requests import parse

        request, planted = parse(self.request, self.request_seed), _planted(self)
        config, chosen = self.options.resolve(self.methods)
        from rich.console import Console

        from recunlearn_jax import report
        from recunlearn_jax.audit import CHECKS
        from recunlearn_jax.comparison import compare, parse_golds
        from recunlearn_jax.data import read_dataset

        dataset = read_dataset(self.data)
        with _devices(self.devices), _progress(config.train.max_epochs) as on_epoch:
            results = compare(
                dataset,
                request,
                config,
                methods=chosen,
                golds=parse_golds(self.golds),
                plant=planted,
                checks=[name for name in CHECKS if name != "likelihood" or self.shadows] if self.audit else None,
                shadows=self.shadows,
                seed=self.seed,
                out=self.out,
                tell=lambda line: print(line, flush=True),
                on_epoch=on_epoch,
            )
        files = report.write(results, self.out)
        console = _console(Console)
        console.print(report.terminal_table(results))
        if self.audit:
            console.print(report.effect_table(results))
            console.print(report.audit_table(results))
        print(f"results in {self.out / 'results.json'}, {', '.join(str(f.name) for f in files)}")


def _planted(words: Compare) -> dict[str, int]:
    found = {"canary": words.canaries, "shilling": words.shills}
    for word in words.plant:
        name, _, count = word.partition("=")
        if not count.isdecimal():
            raise InputError(f"--plant {word}: expected check=number, such as canary=20")
        found[name] = int(count)
    return {name: count for name, count in found.items() if count}


def _console(kind: Any) -> Any:
    return kind(width=None if sys.stdout.isatty() else 200)


@dataclasses.dataclass(frozen=True)
class Audit:
    """Judge an unlearned model by retrained ones: all checks, a verdict each. Exit code 1 where a figure lies outside Gold's band."""

    model: tyro.conf.Positional[Path]
    """Folder of the unlearned model."""
    original: Path
    """Folder of the model it was unlearned from."""
    gold: tuple[Path, ...]
    """Folders of retrained models: `recunlearn unlearn ORIGINAL REQUEST --method gold --seed 1`, 2, 3, ..."""
    coupled: Path | None = None
    """Folder of the coupled Gold, `recunlearn unlearn ORIGINAL REQUEST --method coupled`: what the removal changed is measured, too."""
    out: Path | None = None
    """Folder for audit.json, audit.md and pictures."""
    sequence: bool = True
    """Answer the request once more in five parts (check 10)."""

    def run(self) -> int:
        from rich.console import Console

        from recunlearn_jax import report, results
        from recunlearn_jax.auditing import audit_runs

        found = audit_runs(self.model, self.original, self.gold, coupled=self.coupled, sequence=self.sequence)
        if self.out is not None:
            results.write(self.out / "audit.json", found)
            report.write(found, self.out)
        if self.coupled is not None:
            _console(Console).print(report.effect_table(found))
        _console(Console).print(report.audit_table(found))
        # A model that is not finite is judged by nothing, and is no model that has passed.
        judged = [name for name in found["models"] if name != "original" and name not in found["golds"]]
        return int(any(name in found["not_finite"] or found["misses"][name] for name in judged))


@dataclasses.dataclass(frozen=True)
class Report:
    """Draw the tables and plots of a comparison or an audit anew, from its results alone."""

    results: tyro.conf.Positional[Path]
    """A results.json or audit.json, or the folder that holds one."""
    out: Path | None = None
    """Folder for tables and plots; beside the results where it is not named."""

    def run(self) -> None:
        from rich.console import Console

        from recunlearn_jax import report, results

        path = self.results
        if path.is_dir():
            path = next((path / name for name in ("results.json", "audit.json") if (path / name).exists()), path)
        if path.is_dir():
            raise InputError(f"{path}: holds no results.json and no audit.json")
        found = results.read(path)
        files = report.write(found, self.out or path.parent)
        if "curves" in found:
            _console(Console).print(report.terminal_table(found))
        if report.audited(found):
            if report.effect_rows(found)[1]:
                _console(Console).print(report.effect_table(found))
            _console(Console).print(report.audit_table(found))
        print(f"wrote {', '.join(str(file) for file in files)}")


@dataclasses.dataclass(frozen=True)
class ShowSettings:
    """Print the settings of a preset as JSON, those of every method with them: a file to edit and to pass as --settings."""

    preset: tyro.conf.Positional[str] = "faithful"
    backbone: str | None = None
    """mgcn, lightgcn, vbpr, freedom, mf or a registered one, at its own defaults; the preset's where it is not named."""

    def run(self) -> None:
        from recunlearn_jax.config import config_to_dict
        from recunlearn_jax.unlearn import METHODS

        config, chosen = Settings(preset=self.preset, backbone=self.backbone).resolve(list(METHODS))
        groups = config_to_dict(config) | {name: settings.to_dict(kind) for name, kind in chosen.items()}
        print(json.dumps({name: values for name, values in groups.items() if values != {}}, indent=1))


COMMANDS = {
    "data": Data,
    "train": Train,
    "unlearn": Unlearn,
    "evaluate": Evaluate,
    "recommend": Recommend,
    "compare": Compare,
    "audit": Audit,
    "report": Report,
    "settings": ShowSettings,
}


@contextlib.contextmanager
def _progress(total: int):
    """Show epochs on a terminal, nothing elsewhere; gives the callback for an epoch's log entry."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda entry: None
        return
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("epoch", total=total)

        def on_epoch(entry):
            valid = f", valid Recall@20 {entry['recall@20']:.4f}" if "recall@20" in entry else ""
            bar.update(
                task, completed=entry["epoch"], description=f"epoch {entry['epoch']}, loss {entry['loss']:.4f}{valid}"
            )

        yield on_epoch


def _metrics(outcome: dict[str, Any]) -> str:
    return "; ".join(
        f"{split} Recall@20 {v['recall@20']:.4f} NDCG@20 {v['ndcg@20']:.4f}" for split, v in outcome.items()
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    keep_compiled_programs()
    keep_float32_products()
    keep_freed_memory()
    command = tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="recunlearn", description=__doc__, args=arguments)
    try:
        return command.run() or 0
    except InputError as error:
        print(f"recunlearn: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("recunlearn: interrupted; train and compare go on from where they were", file=sys.stderr)
        return 130
    except Exception:
        traceback.print_exc()
        return 70


if __name__ == "__main__":
    sys.exit(main())
