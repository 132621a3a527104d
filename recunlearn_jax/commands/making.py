"""Commands that make models: `train`, `import`, `grow`, `unlearn`."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from recunlearn_jax import settings
from recunlearn_jax.commands.options import Settings, devices, metrics, progress
from recunlearn_jax.errors import InputError

if TYPE_CHECKING:
    from recunlearn_jax.recommender import Recommender
    from recunlearn_jax.requests import Request


@dataclasses.dataclass(frozen=True)
class Train:
    """Train a recommender. The same command resumes an interrupted run exactly."""

    data: Path
    """MMRec folder."""
    out: Path
    """Folder of the run."""
    seed: int = 0
    devices: int | None = None
    """Spread tables and batches over this many devices; one by default."""
    options: Annotated[Settings, tyro.conf.OmitArgPrefixes] = dataclasses.field(default_factory=Settings)

    def run(self) -> None:
        config, _ = self.options.resolve()
        settings.check_seed(self.seed)
        from recunlearn_jax import folders, runs
        from recunlearn_jax.data import read_dataset
        from recunlearn_jax.train import fit

        dataset = read_dataset(self.data)
        print(dataset.summary())
        if config.backbone == "mgcn" and not dataset.modalities:
            print("note: the data has no modality; MGCN without any is LightGCN")
        with (
            folders.working(self.out, runs.MANIFEST),
            devices(self.devices),
            progress(config.train.max_epochs) as on_epoch,
        ):
            runs.begin(self.out, dataset, self.data, config, self.seed)
            if runs.finished(self.out):
                print(f"{self.out}: already trained; nothing to do")
                return
            trained = fit(dataset, config, seed=self.seed, run=self.out, on_epoch=on_epoch)
            outcome = held_out_report(trained)
            runs.finish(self.out, trained, outcome)
        told(trained, outcome)


@dataclasses.dataclass(frozen=True)
class Import:
    """Take over a model that was trained with MMRec: MGCN, VBPR or FREEDOM."""

    file: tyro.conf.Positional[Path]
    """Its state dict as .safetensors; docs/operators.md has the line of torch that writes it."""
    data: Path
    """Data folder it was trained on."""
    out: Path
    """New folder of the run."""
    options: Annotated[Settings, tyro.conf.OmitArgPrefixes] = dataclasses.field(default_factory=Settings)

    def run(self) -> None:
        config, _ = self.options.resolve()
        from recunlearn_jax import folders, runs
        from recunlearn_jax.data import read_dataset
        from recunlearn_jax.files import digest_of
        from recunlearn_jax.interop import imported, read_safetensors
        from recunlearn_jax.recommender import set_up

        with folders.new(self.out) as beside:
            state = read_safetensors(self.file)
            model = imported(set_up(read_dataset(self.data), config), state)
            facts = {"kind": "trained", "seed": None, "imported_from": digest_of(self.file)}
            runs.save(beside, model, str(self.data.absolute()), facts)
        print(f"{self.out}: {metrics(held_out_report(model))}")


@dataclasses.dataclass(frozen=True)
class Grow:
    """Continue training a model on data that has grown. Removed users, items and modalities stay removed."""

    model: tyro.conf.Positional[Path]
    """Folder of a model: an original or a release."""
    data: Path
    """Data folder as it is now; users and items that the model knows keep their numbers, new ones get the next."""
    out: Path
    """Folder of the new run, with a copy of the data; the same command resumes it."""
    seed: int = 0
    """Seed of the new rows and of the training."""
    readmit: tuple[str, ...] = ()
    """Removed users and items that may come back, such as user:ann item:B01."""
    devices: int | None = None
    """Spread tables and batches over this many devices; one by default."""

    def run(self) -> None:
        settings.check_seed(self.seed)
        from recunlearn_jax import folders, manifest, runs
        from recunlearn_jax.data import read_dataset, write_dataset
        from recunlearn_jax.growth import grow, merged

        with folders.working(self.out, runs.MANIFEST), devices(self.devices):
            model = runs.load(self.model)
            dataset, notes = merged(model.dataset, read_dataset(self.data), self.readmit)
            for note in notes:
                print(f"note: {note}")
            print(dataset.summary())
            facts = {"grown_from": manifest.mark(runs.manifest_of(self.model))}
            runs.begin(self.out, dataset, self.out / runs.DATA, model.config, self.seed, facts)
            if runs.finished(self.out):
                print(f"{self.out}: already trained; nothing to do")
                return
            if not (self.out / runs.DATA).exists():
                write_dataset(dataset, self.out / runs.DATA)
            with progress(model.config.train.max_epochs) as on_epoch:
                trained = grow(model, dataset, readmit=self.readmit, seed=self.seed, run=self.out, on_epoch=on_epoch)
            outcome = held_out_report(trained)
            runs.finish(self.out, trained, outcome, runs.ledger_of(self.model))
        told(trained, outcome)


@dataclasses.dataclass(frozen=True)
class Unlearn:
    """Answer a removal request: write a model that has forgotten it, with the retained data."""

    model: tyro.conf.Positional[Path]
    """Folder of a model."""
    request: tyro.conf.Positional[tuple[str, ...]]
    """What to forget: users:5% users:3,14 users:@FILE items:12,99 pairs:5% pairs:3-12 modality:audio modality:audio:12,99, or a .json."""
    out: Path
    """New folder for the unlearned model."""
    method: str = "delta"
    """delta, mmrecun, surgery, finetune, ascent, rrl, scif, amnesiac, sisa, receraser, ease (for its own backbone), noisy, gold or coupled
    (retrain), or a registered one."""
    seed: int = 0
    """Seed of the method."""
    request_seed: int = 0
    """Seed for drawing shares such as 5%."""
    keep_request: Path | None = None
    """New file for the request itself, with the key to its digest in the ledger. It is kept nowhere else; the release holds no id of it."""
    data: Path | None = None
    """Where the model's data is now, if it was moved."""
    set: tuple[str, ...] = ()
    """Settings of the method, such as delta.follow=0.9; the model keeps its own."""
    devices: int | None = None
    """Spread tables and batches over this many devices; one by default."""

    def run(self) -> None:
        from recunlearn_jax.requests import parse

        request = parse(self.request, self.request_seed)
        if self.request_seed and request.seed != self.request_seed:
            print(f"note: the request has the seed {request.seed} of its own, and --request-seed is not used")
        if self.keep_request is not None:
            for place in (self.out, self.out.with_name(self.out.name + ".writing")):
                if self.keep_request.resolve().is_relative_to(place.resolve()):
                    raise InputError(
                        f"--keep-request {self.keep_request}: is in the release, which must not hold the request"
                    )
        from recunlearn_jax import folders, ledger, manifest, runs
        from recunlearn_jax.files import write_json
        from recunlearn_jax.report import signatures
        from recunlearn_jax.requests import resolve, to_json
        from recunlearn_jax.unlearn import answer
        from recunlearn_jax.unlearn.driver import find, outcome

        defaults = {self.method: settings.to_dict(find(self.method, None)[1])}
        _, chosen = find(self.method, settings.override(defaults, self.set)[self.method])
        with folders.new(self.out) as beside, devices(self.devices):
            salt = ledger.new_salt() if self.keep_request is None else self._salt(self.keep_request, request)
            original, entries = runs.load(self.model, data=self.data), runs.ledger_of(self.model)
            forget_set = resolve(request, original.dataset)
            for note in forget_set.notes(original.dataset):
                print(f"note: {note}")
            answered = answer(original, forget_set, self.method, chosen, seed=self.seed)
            found = outcome(original, answered, forget_set)
            mark = manifest.mark(runs.manifest_of(self.model))
            facts = runs.answer_facts(forget_set, self.method, chosen, self.seed, salt, mark)
            if self.keep_request is not None:
                kept = {"request": to_json(request), "salt": salt, "digest": facts["request_digest"]}
                write_json(self.keep_request, kept)
            runs.release(beside, answered, facts | {"outcome": found}, entries)
        forgotten = ", ".join(f"{n:,} {what}" for what, n in forget_set.counts().items() if n)
        print(f"{self.method} forgot {forgotten or 'nothing'}; model in {self.out}")
        gone = [m for m in original.dataset.modalities if m not in answered.dataset.modalities]
        for line in signatures(found["before"], found["after"], answered.seconds.total, gone):
            print(f"  {line}")

    @staticmethod
    def _salt(file: Path, request: "Request") -> str:
        """Key of the request's digest: a new one, or the one that an interrupted call kept for this request before there was a model."""
        from recunlearn_jax import ledger
        from recunlearn_jax.files import read_json
        from recunlearn_jax.requests import to_json

        if not file.exists():
            return ledger.new_salt()
        kept = read_json(file)
        asked = {"request": to_json(request)}
        if not isinstance(kept, dict) or kept != {**kept, **asked} or not isinstance(kept.get("salt"), str):
            raise InputError(f"{file}: exists already; choose another file for the request")
        return kept["salt"]


def held_out_report(model: "Recommender") -> dict[str, dict[str, float]]:
    """Ranking metrics at 10 and 20 of a model on its valid and test pairs."""
    from recunlearn_jax.evaluate import held_out_task, report

    return report(model.rows, {split: held_out_task(model.dataset, split) for split in ("valid", "test")}, (10, 20))


def told(trained: "Recommender", outcome: dict[str, dict[str, float]]) -> None:
    """Say how a training went."""
    seconds = f"in {trained.seconds.total:.1f} s, {trained.seconds.compiling:.1f} s of them compiling"
    if not trained.info["epochs"]:
        print(f"solved in closed form {seconds}; {metrics(outcome)}")
        return
    print(f"{len(trained.history)} epochs {seconds}")
    print(f"best epoch {trained.best['epoch']}; {metrics(outcome)}")
