"""Commands that judge: `compare`, `audit`, `report`, `ledger`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from recunlearn_jax import manifest
from recunlearn_jax.commands.options import Settings, console, devices, progress
from recunlearn_jax.errors import InputError
from recunlearn_jax.settings import check_seed

AUDIT = "audit.json"


@dataclasses.dataclass(frozen=True)
class Compare:
    """Train, forget with each method, retrain Gold, and show a table. The same command resumes a run interrupted at any time."""

    data: Path
    """MMRec folder."""
    request: tuple[str, ...]
    """What to forget, as for unlearn."""
    out: Path
    """Folder for models, results.json, table.md and plots."""
    methods: tuple[str, ...] = ("delta", "surgery", "finetune", "mmrecun")
    golds: str = "coupled:1,independent:3"
    """Retrained models to compare with: independent ones have seeds of their own, coupled ones replay the training of the original (and of
    originals of further seeds); a plain number counts independent ones."""
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
    """Seed of the original and of the methods; Gold seeds follow from it."""
    request_seed: int = 0
    """Seed for drawing shares such as 5%."""
    devices: int | None = None
    """Spread tables and batches over this many devices; one by default."""
    options: Annotated[Settings, tyro.conf.OmitArgPrefixes] = dataclasses.field(default_factory=Settings)

    def run(self) -> None:
        from recunlearn_jax.requests import parse

        check_seed(self.seed)
        request, planted = parse(self.request, self.request_seed), _planted(self)
        config, chosen = self.options.resolve(self.methods)
        from recunlearn_jax import report
        from recunlearn_jax.audit import CHECKS
        from recunlearn_jax.comparison import compare, parse_golds
        from recunlearn_jax.data import read_dataset

        dataset = read_dataset(self.data)
        with devices(self.devices), progress(config.train.max_epochs) as on_epoch:
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
        console().print(report.terminal_table(results))
        if self.audit:
            console().print(report.effect_table(results))
            console().print(report.audit_table(results))
        print(f"results in {self.out / 'results.json'}, {', '.join(str(f.name) for f in files)}")


def _planted(words: Compare) -> dict[str, int]:
    found = {"canary": words.canaries, "shilling": words.shills}
    for word in words.plant:
        name, _, count = word.partition("=")
        if not count.isdecimal():
            raise InputError(f"--plant {word}: expected check=number, such as canary=20")
        found[name] = int(count)
    return {name: count for name, count in found.items() if count}


@dataclasses.dataclass(frozen=True)
class Audit:
    """Judge an unlearned model against retrained ones: all checks, each with a verdict, stored in its folder. Exit code 1 if a figure lies
    outside Gold's band."""

    model: tyro.conf.Positional[Path]
    """Folder of the unlearned model."""
    original: Path
    """Folder of the model it was unlearned from."""
    gold: tuple[Path, ...]
    """Folders of retrained models: `recunlearn unlearn ORIGINAL REQUEST --method gold --seed 1`, 2, 3, ..."""
    coupled: Path | None = None
    """Folder of the coupled Gold, `recunlearn unlearn ORIGINAL REQUEST --method coupled`; with it, what the removal changed is measured."""
    out: Path | None = None
    """Folder for tables and pictures."""
    data: Path | None = None
    """Where the original's data is now, if it was moved."""
    sequence: bool = True
    """Answer the request once more in five parts (check 10)."""

    def run(self) -> int:
        from recunlearn_jax import folders, ledger, report, results, runs
        from recunlearn_jax.auditing import audit_runs, verdict_of

        if self.out is not None and self.out.exists() and not self.out.is_dir():
            raise InputError(f"{self.out}: is a file; a folder is expected")
        if self.out is not None and (self.out / AUDIT).exists():
            results.read(self.out / AUDIT)  # must be an earlier audit; a file that is not ours is not overwritten
        with folders.working(self.model, manifest.FILE):
            entries = runs.ledger_of(self.model)
            found = audit_runs(
                self.model, self.original, self.gold, coupled=self.coupled, sequence=self.sequence, data=self.data
            )
            found = results.write(self.model / AUDIT, found)
            facts = verdict_of(found)
            ledger.write(self.model, ledger.extended(entries, "audited", facts))
        if self.out is not None:
            results.write(self.out / AUDIT, found)
            report.write(found, self.out)
        if self.coupled is not None:
            console().print(report.effect_table(found))
        console().print(report.audit_table(found))
        # A model that is not finite is not judged at all, but it has not passed either.
        return int(bool(facts["verdict"]["outside"]) or not facts["verdict"]["finite"])


@dataclasses.dataclass(frozen=True)
class Report:
    """Write one page of evidence on a release, for a data protection officer; or the tables and plots of a comparison or an audit, from its
    results alone."""

    folder: tyro.conf.Positional[Path]
    """A release; or a results.json or audit.json, or the folder that holds one."""
    out: Path | None = None
    """Folder for what is written; by default beside the results."""

    def run(self) -> None:
        if self.folder.is_dir() and (self.folder / manifest.FILE).exists():
            self._evidence()
        else:
            self._tables()

    def _evidence(self) -> None:
        from recunlearn_jax import evidence, ledger, results
        from recunlearn_jax.files import write_text

        about, entries = manifest.read(self.folder), ledger.read(self.folder)
        if about["kind"] != "unlearned":
            raise InputError(f"{self.folder}: holds no answer to a request, so there is nothing to give evidence of")
        audit = self.folder / AUDIT
        page = evidence.page(about, entries, results.read(audit) if audit.exists() else None)
        path = (self.out or self.folder) / "evidence.html"
        write_text(path, page)
        print(f"wrote {path}")

    def _tables(self) -> None:
        from recunlearn_jax import report, results

        path = self.folder
        if path.is_dir():
            path = next((path / name for name in ("results.json", AUDIT) if (path / name).exists()), path)
        if path.is_dir():
            raise InputError(f"{path}: holds no manifest.json, no results.json and no audit.json")
        found = results.read(path)
        files = report.write(found, self.out or path.parent)
        if "curves" in found:
            console().print(report.terminal_table(found))
        if report.audited(found):
            if report.effect_rows(found)[1]:
                console().print(report.effect_table(found))
            console().print(report.audit_table(found))
        print(f"wrote {', '.join(str(file) for file in files)}")


@dataclasses.dataclass(frozen=True)
class ShowLedger:
    """Show what was done to a model and verify that the record is whole."""

    model: tyro.conf.Positional[Path]
    """Folder of a model."""
    request: Path | None = None
    """File of a request kept with --keep-request: prints which entry answers it."""
    json: bool = False
    """Print the entries as JSON lines."""

    def run(self) -> None:
        from recunlearn_jax import ledger

        if not self.model.is_dir():
            raise InputError(f"{self.model}: no such folder")
        entries = ledger.read(self.model)
        if not entries:
            raise InputError(f"{self.model}: holds no ledger")
        for number, entry in enumerate(entries, 1):
            print(ledger.canonical(entry).decode() if self.json else f"{number}  {ledger.told(entry)}")
        if self.request is not None:
            number = ledger.answering(entries, self.request)
            print(f"entry {number} answers the request in {self.request}")
        if not self.json:
            print(f"the chain of {len(entries)} entries is whole; last hash {entries[-1]['hash']}")
