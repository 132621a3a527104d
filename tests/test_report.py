"""Comparison figures and tables, on results small enough to check by hand."""

import json
import math

import jax.numpy as jnp
import matplotlib.pyplot
import numpy as np
import pytest

from recunlearn_jax import report, sealed
from recunlearn_jax.audit.checks import judged_figures
from recunlearn_jax.audit.modality import modality_overlap
from recunlearn_jax.errors import InputError
from recunlearn_jax.graph import with_item_graphs
from recunlearn_jax.results import SCHEMA_VERSION, figure_of, golds_of, methods_of, read, write
from recunlearn_jax.synthetic import toy
from recunlearn_jax.verdict import Figure, Measured, judgement

FIGURES = judged_figures(["utility", "forgetting", "divergence"])


def model(forget, test, seconds=1.0, **figures):
    return {
        "figures": {"test recall@20": test, "test ndcg@20": test / 2, "forget recall@20": forget, **figures},
        "seconds": {"running": seconds, "compiling": 0.5},
        "preparation": None,
        "speed_up": 10 / seconds,
    }


def judged(models):
    """Bands and verdicts on these models, those named gold-1, gold-2, ... being the Golds."""
    golds = {name: row["figures"] for name, row in models.items() if name.startswith("gold-")}
    others = {name: Measured(row["figures"], {}) for name, row in models.items() if name not in golds}
    return judgement(FIGURES, others, golds)


@pytest.fixture
def results():
    models = {
        "original": model(0.9, 0.11),
        "mmrecun": model(0.13, 0.105, 2.0),
        "gold-1": model(0.1, 0.1, 10.0),
        "gold-2": model(0.14, 0.104, 10.0),
    }
    return {
        "data": "tiny",
        "forgotten": {"users": 3, "items": 0, "pairs": 21},
        "request": {"seed": 1},
        "seed": 0,
        "environment": {"device": "cpu", "cores": 2},
        "models": models,
        "golds": ["gold-1", "gold-2"],
        "checks": {"utility": 1, "forgetting": 1},
        "audited": False,
        "judged": [{**figure._asdict(), "check": 1} for figure in FIGURES],
        "not_finite": [],
        **judged(models),
        "curves": {"original": [0.01, 0.1], "gold-1": [0.02, 0.09]},
    }


def test_the_band_of_one_figure_is_the_prediction_band_of_a_further_gold(results):
    band = results["bands"]["forget recall@20"]
    half = 12.706 * np.std([0.1, 0.14], ddof=1) * math.sqrt(1.5)  # t(0.975, 1) = 12.706
    assert band["mean"] == pytest.approx(0.12)
    assert band["alone"][1] - band["mean"] == pytest.approx(half, rel=1e-4)
    one = judged({"gold-1": model(0.1, 0.1)})["bands"]["test recall@20"]
    assert one["low"] is None
    assert one["alone"] is None
    twice = {f"gold-{i}": model(0.1, 0.1 * i, **{"BPR divergence forget": 2.0}) for i in (1, 2)}
    twice = judged(twice)["bands"]
    assert twice["BPR divergence forget"] == {"mean": 2.0, "low": None, "high": None, "alone": None, "n": 2}
    assert twice["test recall@20"]["low"] < 0.15 < twice["test recall@20"]["high"]


def test_table_shows_signed_gap_and_leaves_out_what_was_not_measured(results):
    header, rows = report.rows(results)
    cells = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    assert cells["original"]["gap to Gold"] == "+0.7800"
    assert cells["mmrecun"]["gap to Gold"] == "+0.0100"
    assert cells["mmrecun"]["speed-up"] == "5.0x"
    assert cells["original"]["speed-up"] == "-"
    assert cells["Gold, mean of 2"]["test Recall@20"] == "0.1020"
    # Half of the band of one figure on its own: t(0.975, 1) sd sqrt(1.5) or, where only one side can be a miss, t(0.95, 1).
    half = results["bands"]["test recall@20"]["alone"][1] - 0.102
    assert cells["Gold, 95 % band +-"]["test Recall@20"] == f"{half:.4f}"
    assert "canary rank" not in header
    assert "valid Recall@20" not in header
    assert "preparation s" not in header
    assert report.markdown(results).count("\n|") == 6


def test_preparation_is_a_column_and_a_row_of_its_own(results):
    """A method that has a model of its own in service: its original stands beside it, without a speed-up."""
    results["models"] = {
        "sisa": model(0.12, 0.1, 2.0) | {"preparation": {"total": 31.5}},
        "sisa original": model(0.8, 0.1),
        **results["models"],
    }
    header, rows = report.rows(results)
    cells = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    assert cells["sisa"]["preparation s"] == "31.5"
    assert cells["mmrecun"]["preparation s"] == "-"
    assert cells["sisa original"]["speed-up"] == "-"
    assert cells["sisa"]["speed-up"] == "5.0x"


def test_a_model_without_figures_has_a_row_of_dashes(results, tmp_path):
    """One that is not finite was measured in seconds only."""
    results["models"] = {"broken": model(0, 0) | {"figures": {}}, **results["models"]}
    results["not_finite"] = ["broken"]
    header, rows = report.rows(results)
    cells = dict(zip(header, rows[0], strict=True))
    assert rows[0][0] == "broken"
    assert {cells[title] for title in ("test Recall@20", "forget Recall@20", "gap to Gold")} == {"-"}
    assert cells["seconds"] == "1.00"
    results["audited"] = True
    assert {path.name for path in report.write(results, tmp_path)} >= {"table.md", "quality.png", "audit.md"}
    assert "Not finite, so not judged: broken." in (tmp_path / "audit.md").read_text()


def test_items_requests_show_long_lists(results):
    results["forgotten"]["items"] = 4
    for row in results["models"].values():
        row["figures"]["forget recall@500"] = 0.5
    assert "forget Recall@500" in report.rows(results)[0]


def test_plots_are_drawn(results, tmp_path):
    files = report.write(results, tmp_path)
    assert {path.name for path in files} == {"table.md", "curves.png", "quality.png", "seconds.png"}
    for path in files:
        assert path.stat().st_size > 100


def test_the_path_of_a_picture_may_be_text_in_a_new_folder(results, tmp_path):
    path = report.audit_plot(results, str(tmp_path / "new" / "picture.png"))
    assert path == tmp_path / "new" / "picture.png"
    assert path.stat().st_size > 100
    assert len(report.plots(results, str(tmp_path / "several"))) == 3
    with pytest.raises(InputError, match="path: 7 given"):
        report.audit_plot(results, 7)
    assert not matplotlib.pyplot.get_fignums()
    with pytest.raises(InputError, match="folder: 7 given"):
        report.plots(results, 7)


def test_an_audit_is_a_table_and_a_plot_beside_them(results, tmp_path):
    """Where all checks were measured: a row a figure, verdicts behind values, misses at the end."""
    results["audited"] = True
    files = report.write(results, tmp_path)
    assert {"audit.md", "audit.png"} <= {path.name for path in files}
    header, rows = report.audit_rows(results)
    assert header == ["check", "figure", "Gold, mean", "Gold, band", "detects", "original", "mmrecun"]
    cells = {row[1]: row for row in rows}
    assert set(cells) == {"test recall@20", "test ndcg@20", "forget recall@20", "figures outside"}
    found = results["verdicts"]["original"]["forget recall@20"]
    assert found["suspicion"] == "under-forgotten"
    assert "under-forgotten" in cells["forget recall@20"][5]
    band = results["bands"]["forget recall@20"]
    assert float(cells["forget recall@20"][4]) == pytest.approx(band["alone"][1] - band["mean"], rel=0.05)
    assert cells["figures outside"][5:] == [str(results["misses"][name]) for name in ("original", "mmrecun")]


def with_effects(results):
    """The results with two coupled Golds and what two methods changed, seconds and canaries included."""
    effects = {
        "progress similarities": 0.8,
        "collateral similarities": 0.4,
        "overlap@20 with coupled Gold": 0.9,
        "update AUC pairs": 0.7,
    }
    effects |= {
        "progress similarities, s.e.": 0.01,
        "collateral similarities, s.e.": 0.02,
        "update AUC pairs, coupled Gold": 0.6,
    }
    results["models"]["mmrecun"]["figures"] |= effects
    for name, rank in (("mmrecun", 900.0), ("gold-1", 3000.0), ("gold-2", 3500.0)):
        row = results["models"][name]["figures"]
        row |= {"canary median rank": rank, "canary log10 rank": math.log10(rank)}
    results["models"] |= {"coupled-1": model(0.11, 0.1, 8.0), "coupled-2": model(0.13, 0.1, 8.0)}
    results["coupled"] = ["coupled-1", "coupled-2"]
    results["bands"] |= judgement(
        [Figure("canary log10 rank", "erased")],
        {},
        {f"gold-{i}": results["models"][f"gold-{i}"]["figures"] for i in (1, 2)},
    )["bands"]
    return results


def test_effects_are_a_table_with_standard_errors_and_two_pictures(results, tmp_path):
    assert report.effect_rows(results)[1] == []
    assert report.effect_markdown(results) == ""
    results = with_effects(results)
    header, rows = report.effect_rows(results)
    assert header == ["model", "similarities", "overlap@20", "update AUC pairs"]
    assert rows[0] == ["coupled Gold", "1 / 0", "1", "0.6"]
    assert rows[-1] == ["mmrecun", "0.80 (0.01) / 0.40 (0.02)", "0.9", "0.7"]
    assert "2 coupled Golds, each with its own original" in report.effect_markdown(results)
    assert "against 1 coupled Gold; 1 / 0" in report.effect_markdown(results | {"coupled": ["coupled-1"]})
    assert {"effect.png", "canaries.png"} <= {path.name for path in report.write(results, tmp_path)}
    assert report.effect_table(results).row_count == len(rows)


def test_coupled_golds_have_a_row_of_their_own(results):
    """They are no methods, and no Golds that bands come from."""
    before = report.rows(results)[1][-1]
    results = with_effects(results)
    assert methods_of(results) == ["original", "mmrecun"]
    header, rows = report.rows(results)
    cells = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    assert cells["coupled Gold, mean of 2"]["forget Recall@20"] == "0.1200"
    assert cells["coupled Gold, mean of 2"]["seconds"] == "8.00"
    assert cells["mmrecun"]["progress"] == "0.80"
    assert rows[-1][0] == before[0]


def test_figures_that_are_missing_are_none(results):
    row = results["models"]["original"]
    assert figure_of(row, "canary median rank") is None
    assert figure_of(row, "preparation total") is None
    assert figure_of(row, "seconds running") == 1.0
    assert figure_of(row, "speed_up") == 10.0
    assert figure_of(row, "forget recall@20") == 0.9


def test_results_are_read_as_written_and_others_are_refused(results, tmp_path):
    path = tmp_path / "results.json"
    write(path, results)
    found = read(path)
    assert found["schema_version"] == SCHEMA_VERSION
    assert golds_of(found) == ["gold-1", "gold-2"]
    assert methods_of(found) == ["original", "mmrecun"]
    assert report.markdown(found) == report.markdown(results)
    written = json.loads(path.read_text())
    path.write_text(json.dumps(written | {"schema_version": 1}))
    with pytest.raises(InputError, match="schema_version is 1, this version reads 3"):
        read(path)
    # Whatever was changed: nothing that reads results has to ask whether they are what they should be.
    for key in written:
        if key not in {"schema_version", "models"}:
            for changed in (
                {k: v for k, v in written.items() if k != key},
                written | {key: "x"},
                written | {"extra": key},
            ):
                path.write_text(json.dumps(changed))
                with pytest.raises(InputError, match="is not as it was written"):
                    read(path)
    path.write_text(json.dumps(dict(reversed(written.items()))))  # the order of keys says nothing
    assert read(path) == found
    sealed.write(path, {}, SCHEMA_VERSION)
    with pytest.raises(InputError, match="holds no results"):
        read(path)


def test_signatures_in_plain_words():
    before = {"valid": {"recall@20": 0.2}, "forget": {"recall@20": 0.9}}
    after = {"valid": {"recall@20": 0.19}, "forget": {"recall@20": 0.05}}
    text = "\n".join(report.signatures(before, after, 1.25, ["image"]))
    assert "0.2000 -> 0.1900 (-5.0%)" in text
    assert "0.9000 -> 0.0500" in text
    assert "1.25 s" in text
    assert "no interactions to forget" in "\n".join(report.signatures({}, {}, 1.0, []))


def test_modality_overlap_reads_the_graph_that_made_the_rows():
    dataset = with_item_graphs(toy(40, 60, pairs_per_user=4, clusters=3, modalities=("image",), feature_size=6), 5)
    features = dataset.features["image"]
    exact = jnp.concatenate([jnp.zeros((40, 6)), jnp.asarray(features)])
    noise = jnp.asarray(np.random.default_rng(0).normal(size=(100, 6)), jnp.float32)
    concerned = {"image": np.ones(60, bool)}
    assert modality_overlap(exact, dataset, concerned) > 0.99
    assert modality_overlap(noise, dataset, concerned) < 0.3
