"""The main job: train an original, answer a request with each method, retrain Gold, and put everything side by side.

Every model is stored under OUT/parts as soon as it exists, in the format of `runs`, with its figures beside it, check by check. An
interrupted comparison resumes from there, and one made before a check existed gets only that check's figures added.
"""

import dataclasses
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from recunlearn_jax import folders, manifest, results, runs
from recunlearn_jax.audit.base import Attempt, Case, Check, Replay, Subject
from recunlearn_jax.audit.case import make_case
from recunlearn_jax.audit.checks import CHECKS
from recunlearn_jax.audit.examine import Figures, examine, usual_checks
from recunlearn_jax.config import PRESETS, Config, config_from_dict, config_to_dict
from recunlearn_jax.data import write_dataset
from recunlearn_jax.dataset import Dataset
from recunlearn_jax.environment import environment
from recunlearn_jax.errors import InputError, check_type, shown
from recunlearn_jax.files import as_path, read_json, write_json
from recunlearn_jax.recommender import Recommender, Setup, set_up
from recunlearn_jax.requests import Asked, ForgetSet, as_request, to_json
from recunlearn_jax.settings import check_seed, seed_after
from recunlearn_jax.stopwatch import Seconds, stopwatch
from recunlearn_jax.train import train
from recunlearn_jax.unlearn import METHODS, answer, prepare
from recunlearn_jax.unlearn.base import no_preparation
from recunlearn_jax.unlearn.driver import find
from recunlearn_jax.unlearn.sharded import AFTER, BEFORE

CLAIM, PARTS, DATA, RETAINED = "comparison.json", "parts", "data", "retained"


class Part(NamedTuple):
    """One model of a comparison."""

    model: Recommender
    commit: dict[str, Any]  # of the code that made it, see `environment.commit`
    attempt: Attempt | None = None  # of a method
    preparation: Seconds | None = None  # before the request, where the method prepares


class Place(NamedTuple):
    """Where the parts of a comparison are, and the data they share."""

    folder: Path
    case: Case
    config: Config
    original: Setup
    retain: Setup
    originals: Path | None = None  # where originals trained earlier may be

    def load(self, name: str) -> Recommender | None:
        """A part if it is complete, else None."""
        folder = self.folder / name
        return runs.load(folder, (self.original, self.retain)) if runs.finished(folder) else None

    def commit(self, name: str) -> dict[str, Any]:
        """Commit of the code that made a part."""
        made_by = runs.manifest_of(self.folder / name)["environment"]
        return {key: made_by[key] for key in ("commit", "changed")}


def compare(
    dataset: Dataset,
    request: Asked,
    config: Config = PRESETS["faithful"],
    *,
    methods: Sequence[str] | Mapping[str, Any] = ("delta", "surgery", "finetune", "mmrecun"),
    golds: int | str | Mapping[str, int] = 3,
    plant: Mapping[str, int] | None = None,
    checks: Sequence[str] | None = None,
    shadows: int = 0,
    seed: int = 0,
    out: str | Path,
    originals: str | Path | None = None,
    tell: Callable[[str], None] = lambda line: None,
    on_epoch: Callable[[dict[str, Any]], None] = lambda entry: None,
) -> dict[str, Any]:
    """Compare ways of answering a request.

    Args:
        dataset: to train the original on.
        request: to be answered, as `requests.as_request` takes it.
        config: of the original.
        methods: names in `unlearn.METHODS`, or name -> settings; Gold is always there.
        golds: number of independent Golds, whose seeds follow `seed`; or {"independent": n, "coupled": m}: m coupled Golds, the first of
            the original and each further one of an original of another seed, which every method answers too; m is 1 if only n is given.
        plant: check -> number to plant, such as {"canary": 20, "shilling": 4}.
        checks: names in `audit.checks.CHECKS`; None for those that every comparison measures.
        shadows: number of shadow models for the check likelihood, 0 for none.
        seed: of the original and of the methods.
        out: folder for parts and results; what it already holds is not computed again.
        originals: parts of another comparison on the same data, settings and seed, whose originals are copied instead of being trained;
            an original of a further seed that is not there is trained.
        tell: receives one line per stage.
        on_epoch: receives each epoch's log entry.

    Returns:
        The content of OUT/results.json, described in docs/results.md.

    Raises:
        InputError: see `make_case`; or OUT holds another comparison; or `originals` holds no original, or one of other data or settings.
    """
    check_type(dataset, Dataset, "dataset", "`read_dataset` reads a data folder")
    check_type(config, Config, "config", "such as `PRESETS['fast']`")
    request, out = as_request(request), as_path(out, "out")
    chosen = {name: find(name, settings)[1] for name, settings in _with_settings(methods).items()}
    checks = usual_checks() if checks is None else [checks] if isinstance(checks, str) else list(checks)
    numbers = number_of(golds)
    _check_arguments(chosen, numbers, checks, shadows)
    check_seed(seed)
    originals = None if originals is None else as_path(originals, "originals")
    if originals is not None and not runs.finished(originals / "original"):
        raise InputError(
            f"originals: {originals} holds no finished original; the folder {PARTS} of another comparison is expected"
        )
    case = make_case(dataset, request, config, plant)._replace(shadows=shadows, work=out / PARTS)
    identity = {
        "data": dataset.name,
        "data_checksum": dataset.checksum,
        "request": to_json(request),
        "config": config_to_dict(config),
        "planted": {name: count for name, count in (plant or {}).items() if count},
        "seed": seed,
    }
    with folders.working(out, CLAIM):
        claim(out, CLAIM, identity, "comparison")
        tell(f"{case.dataset.summary()}; to forget: {_counted(case.forget_set)}")
        place = _place(out, case, config)._replace(originals=originals)

        original = trained(place, seed, on_epoch)
        tell(f"original: best epoch {original.info['best_epoch']}, {original.seconds.total:.1f} s")
        parts: dict[str, Part] = {"original": Part(original, place.commit("original"))}
        for name, settings in chosen.items():
            parts |= answered(place, name, Attempt(name, settings, seed_after(seed, 1)), original)
            spent = parts[name].model.seconds
            tell(f"{name}: {spent.running:.2f} s and {spent.compiling:.1f} s compiling")
        retrained = {}
        for i in range(1, numbers["independent"] + 1):
            name = f"gold-{i}"
            retrained |= answered(
                place, name, Attempt("gold", METHODS["gold"].Settings(), seed_after(seed, 100 * i)), original
            )
            made = retrained[name].model
            tell(
                f"gold {i} of {numbers['independent']}: best epoch {made.info['best_epoch']}, {made.seconds.total:.1f} s"
            )
        replays, coupled = {}, {}
        for i in range(numbers["coupled"]):
            name = f"coupled-{i + 1}"
            of = f"original-{i + 1}" if i else "original"
            before = trained(place, seed_after(seed, i), on_epoch, of) if i else original
            coupled |= answered(place, name, Attempt("coupled", METHODS["coupled"].Settings(), seed), before, of)
            replays[name] = Replay(before, coupled[name].model)
            tell(f"coupled Gold {i + 1} of {numbers['coupled']}: {coupled[name].model.seconds.total:.1f} s")
        parts |= coupled
        golds_made = {name: part.model for name, part in retrained.items()}
        case = case._replace(original=original, golds=golds_made, replays=replays)
        subjects = [Subject(name, part.model, part.attempt) for name, part in parts.items()]
        found = examine(case, subjects, checks, _kept_in(out / PARTS, case), tell)
        figures = found.pop("figures")
        every = {**parts, **retrained}
        gold_seconds = float(np.mean([part.model.seconds.running for part in retrained.values()]))
        outcome = {
            **identity,
            "forgotten": case.forget_set.counts(),
            "forget_checksum": case.forget_set.checksum,
            "summary": case.dataset.summary(),
            "settings": {name: dataclasses.asdict(settings) for name, settings in chosen.items()},
            "shadows": shadows,
            "environment": environment(),
            "time": time.strftime("%Y-%m-%d"),
            "models": {name: row_of(part, figures[name], gold_seconds) for name, part in every.items()},
            "golds": list(retrained),
            "coupled": list(coupled),
            "curves": {name: curve for name, part in every.items() if (curve := _curve(part.model))},
            **found,
        }
        return results.write(out / "results.json", outcome)


def _with_settings(methods: Sequence[str] | Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(methods, Mapping):
        return methods
    return dict.fromkeys([methods] if isinstance(methods, str) else methods)


def parse_golds(words: str) -> dict[str, int]:
    """Numbers of Golds from words such as "5" or "coupled:2,independent:5".

    Raises:
        InputError: words of another form.

    Examples:
        >>> parse_golds("coupled:2,independent:5")
        {'coupled': 2, 'independent': 5}
    """
    if words.isdecimal():
        return {"independent": int(words)}
    found = {}
    for word in words.split(","):
        kind, _, count = word.partition(":")
        if not count.isdecimal() or kind in found:
            raise InputError(f"golds {words!r}: expected a number, or such as coupled:2,independent:5")
        found[kind] = int(count)
    return found


def number_of(golds: int | str | Mapping[str, int]) -> dict[str, int]:
    """How many Golds of each kind, from a number, from words as `parse_golds` takes them, or by kind.

    Raises:
        InputError: anything else, an unknown kind, or a negative number.

    Examples:
        >>> number_of({"coupled": 2, "independent": 5})
        {'independent': 5, 'coupled': 2}
    """
    given = parse_golds(golds) if isinstance(golds, str) else golds
    given = {"independent": given} if isinstance(given, int) else given
    if not isinstance(given, Mapping) or not all(type(count) is int for count in given.values()):
        raise InputError(
            f"golds is {shown(golds)}; a number, or such as {{'coupled': 2, 'independent': 5}}, is allowed"
        )
    unknown = [kind for kind in given if kind not in {"independent", "coupled"}]
    if unknown:
        raise InputError(f"golds: {unknown[0]!r} is no kind of Gold; independent and coupled are")
    if any(count < 0 for count in given.values()):
        raise InputError(f"golds is {golds}; no number of them is below 0")
    return {"independent": given.get("independent", 3), "coupled": given.get("coupled", 1)}


def _check_arguments(methods: Mapping[str, Any], golds: Mapping[str, int], checks: Sequence[str], shadows: int) -> None:
    taken = {"gold": "independent", "coupled": "coupled"}
    for method in methods:
        if method in taken:
            raise InputError(f"method {method!r} is in every comparison; say how many with golds, {taken[method]}:3")
    if golds["independent"] < 1:
        raise InputError(f"golds is {golds['independent']}; at least 1 Gold model is needed to compare with")
    unknown = [name for name in checks if name not in CHECKS]
    if unknown:
        raise InputError(f"check {unknown[0]!r} is not known; choose from {', '.join(CHECKS)}")
    if type(shadows) is not int:
        raise InputError(f"shadows is {shown(shadows)}; a whole number is allowed")
    if shadows and (shadows < 4 or shadows % 2):
        raise InputError(f"{shadows} shadows asked for; 0 or an even number of at least 4 is allowed")
    if shadows and "likelihood" not in checks:
        raise InputError(f"{shadows} shadows asked for; the attack they serve is part of the audit and needs --audit")


def _place(out: Path, case: Case, config: Config) -> Place:
    """Put the data of all parts on disk and on the device."""
    for name, data in ((DATA, case.dataset), (RETAINED, case.retain)):
        if not (out / name).exists():
            write_dataset(data, out / name)
    original = set_up(case.dataset, config)
    return Place(out / PARTS, case, config, original, set_up(case.retain, config, original.sizes))


def trained(place: Place, seed: int, on_epoch: Callable[[dict[str, Any]], None], name: str = "original") -> Recommender:
    """An original: trained, resumed, or loaded where it is finished."""
    folder = place.folder / name
    before = place.originals / name if place.originals else None
    if before is not None and runs.finished(before) and not folder.exists():
        made, wanted = runs.manifest_of(before), (place.config, seed, place.original.dataset.checksum)
        config = config_from_dict(made["config"], str(before))  # a setting newer than the folder had its default
        if (config, made["seed"], made["data_checksum"]) != wanted:
            raise InputError(f"{before}: was trained with other settings, another seed or on other data; leave it out")
        beside = folder.with_name(f"{name}.writing")
        shutil.rmtree(beside, ignore_errors=True)
        shutil.copytree(before, beside, ignore=shutil.ignore_patterns("figures"))
        beside.rename(folder)
    found = place.load(name)
    if found is None:
        with stopwatch() as seconds:
            made = train(place.original, seed, run=folder, on_epoch=on_epoch)
        made = dataclasses.replace(made, seconds=seconds + made.seconds)
        runs.save(folder, made, f"../../{DATA}", {"kind": "trained", "seed": seed})
        found = place.load(name)
        assert found is not None
    return found


def answered(place: Place, name: str, attempt: Attempt, original: Recommender, of: str = "original") -> dict[str, Part]:
    """The answer of one method under a name, loaded from its folder if it is there; with it the model that the method had in service
    before, if that is not the original. `of` is the name of the original."""
    folder, before = place.folder / name, f"{name} original"
    made = place.load(name)
    if made is None:
        method, settings, seed = attempt
        memory = prepare(original, method, settings, seed=seed, work=folder)
        spent = {"preparation": dataclasses.asdict(memory.seconds or Seconds())}
        if memory.original is not original:
            facts = {"kind": "trained", "seed": seed, **spent}
            runs.save(place.folder / before, memory.original, f"../../{DATA}", facts)
        model = answer(original, place.case.forget_set, method, settings, seed=seed, memory=memory, work=folder)
        mark = manifest.mark(runs.manifest_of(place.folder / of))
        facts = runs.answer_facts(place.case.forget_set, method, settings, seed, from_model=mark)
        if METHODS[method].prepare is not no_preparation or METHODS[method].in_place:
            facts |= spent
        runs.save(folder, model, f"../../{RETAINED}", facts)
        for work in (folder / BEFORE, folder / AFTER):  # models of shards, some of which have forgotten nothing
            shutil.rmtree(work, ignore_errors=True)
        made = place.load(name)
        assert made is not None
    _same_settings(folder, attempt)
    in_service = place.load(before)
    prepared = runs.manifest_of(folder if in_service is None else place.folder / before).get("preparation")
    part = Part(made, place.commit(name), attempt, None if prepared is None else Seconds(**prepared))
    return {name: part} | ({} if in_service is None else {before: Part(in_service, place.commit(before))})


def _same_settings(folder: Path, attempt: Attempt) -> None:
    """Refuse an answer made with other settings; a setting newer than the answer had its default then."""
    kept = find(attempt.method, runs.manifest_of(folder)["settings"])[1]
    if kept != attempt.settings:
        before, asked = dataclasses.asdict(kept), dataclasses.asdict(attempt.settings)
        changed = [key for key in asked if before[key] != asked[key]]
        raise InputError(
            f"{folder}: holds an answer with other settings of {attempt.method} ({', '.join(changed)}); choose another folder"
        )


def _kept_in(folder: Path, case: Case):
    """Store a model's figures in its folder, a file per check; anew for another version, request, set of Golds or number of shadows."""

    def keep(model: str, name: str, check: Check, make: Callable[[], Figures]) -> Figures:
        path = folder / model / "figures" / f"{name}.json"
        made_of = {
            "version": check.version,
            "forget_checksum": case.forget_set.checksum,
            "golds": list(case.golds) if check.needs in {"golds", "method"} else [],
            "coupled": list(case.replays) if check.needs == "replays" else [],
            "shadows": case.shadows if check.needs == "method" else 0,
        }
        if path.exists():
            kept = read_json(path)
            if {key: kept.get(key) for key in made_of} == made_of:
                return kept["figures"]
        figures = make()
        write_json(path, made_of | {"figures": figures})
        return figures

    return keep


def row_of(part: Part, figures: Mapping[str, float], gold_seconds: float) -> dict[str, Any]:
    """What the results say about one model."""

    def told(seconds: Seconds) -> dict[str, float]:
        return dataclasses.asdict(seconds) | {"running": seconds.running}

    seconds = part.model.seconds
    return {
        **part.commit,
        "figures": dict(figures),
        "seconds": told(seconds),
        "preparation": None if part.preparation is None else told(part.preparation),
        "speed_up": gold_seconds / max(seconds.running, 1e-9),
        "info": {key: value for key, value in part.model.info.items() if key != "curve"},
    }


def _curve(model: Recommender) -> list[float | None]:
    """Valid metric by epoch, for models that were trained."""
    return model.info.get("curve") or [entry.get("recall@20") for entry in model.history]


def claim(out: Path, mark: str, identity: Mapping[str, Any], what: str) -> None:
    """Record which work a folder holds, so that it can only be resumed as the same work.

    Args:
        out: folder, held by `folders.working`.
        mark: name of the file that records it.
        identity: with the settings under "config".
        what: kind of work kept there, for the message.

    Raises:
        InputError: the folder holds other work, or something else.
    """
    path = out / mark
    if path.exists():
        kept = read_json(path)
        if not isinstance(kept, dict):
            raise InputError(f"{path}: does not say which {what} it is of; choose another folder")
        # A setting newer than the work had its default then.
        kept["config"] = config_to_dict(config_from_dict(kept.get("config"), str(path)))
        different = [key for key in identity if kept.get(key) != identity[key]]
        if different:
            raise InputError(f"{out}: holds a {what} of another {', '.join(different)}; choose another folder")
    elif not folders.unclaimed(out, mark):
        raise InputError(f"{out}: is not empty and holds no {what}; choose a new folder")
    else:
        write_json(path, identity)


def _counted(forget_set: ForgetSet) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in forget_set.counts().items() if count)
