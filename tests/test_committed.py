"""Committed audits: made as their experiment says, and judged as the package judges."""

from pathlib import Path

import pytest

from recunlearn_jax import results
from recunlearn_jax.results import INSIDE
from recunlearn_jax.unlearn import METHODS
from recunlearn_jax.verdict import Band, Figure, bands, false_alarms, judged_figures, verdicts

EXPERIMENTS = Path(__file__).parent.parent / "experiments"
FOUND = sorted((EXPERIMENTS / "results").glob("forgetting_*.json"))


@pytest.fixture
def cases(monkeypatch):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    from forgetting import CASES, METHODS, PLANTED  # pyright: ignore[reportMissingImports]

    return CASES, METHODS, PLANTED


def test_audits_are_made_as_the_experiment_says(cases):
    asked, methods, planted = cases
    assert {path.stem.removeprefix("forgetting_") for path in FOUND} == set(asked)
    for path in FOUND:
        found, case = results.read(path), asked[path.stem.removeprefix("forgetting_")]
        assert (len(found["golds"]), len(found["coupled"])) == (case.independent, case.coupled), path.stem
        assert set(found["settings"]) == {*methods, *case.more}, path.stem
        assert found["planted"] == (planted if case.planted else {}), path.stem
        assert found["request"]["seed"] == case.seed, path.stem


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.stem)
def test_verdicts_follow_from_the_figures(path):
    """Bands, verdicts and false alarms are what the figures give. Of figures that were measured on Golds for each method alone, the Golds'
    are not kept: their bands are taken as they stand."""
    found = results.read(path)
    rows = {name: model["figures"] for name, model in found["models"].items()}
    golds = {name: rows[name] for name in found["golds"]}
    figures = [Figure(**{key: entry[key] for key in Figure._fields}) for entry in found["judged"]]
    common = {figure.name for figure in judged_figures(figures, list(golds.values()))}
    count = len(common | {name.partition("/")[2] for name in found["bands"] if "/" in name})
    made = bands(figures, list(golds.values()), count)
    assert set(made) == common
    kept = {name: Band(**band) for name, band in found["bands"].items()}
    for name, band in made.items():
        assert band.n == kept[name].n
        for ours, theirs in zip(band[:3], kept[name][:3], strict=True):  # no limits where the Golds are too few
            assert ours == (theirs if theirs is None else pytest.approx(theirs, rel=1e-9, abs=1e-15)), name
    for model, judged in found["verdicts"].items():
        seeded = model == "original" or (model in found["settings"] and not METHODS[model].retrains)
        among = {f.name: band for f in figures if (band := kept.get(f.name) or kept.get(f"{model}/{f.name}"))}
        counted = [figure for figure in figures if not (figure.seeded and seeded)]
        assert verdicts(counted, rows[model], among) == judged, model
        assert found["misses"][model] == sum(each["verdict"] != INSIDE for each in judged.values())
    assert false_alarms(figures, golds, count) == found["false_alarms"]
