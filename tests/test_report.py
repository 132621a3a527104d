"""Comparison figures and tables, on results small enough to check by hand."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from recunlearn_jax import report
from recunlearn_jax.audit.modality import modality_overlap
from recunlearn_jax.comparison import figure_of, gold_band
from recunlearn_jax.graph import with_item_graphs
from recunlearn_jax.synthetic import toy


def model(forget, test, seconds=1.0, **more):
    return {
        "test": {"recall@20": test, "ndcg@20": test / 2},
        "forget": {"recall@20": forget},
        "seconds": {"running": seconds, "compiling": 0.5},
        "speed_up": 10 / seconds,
        **more,
    }


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
        "gold": gold_band(models),
        "curves": {"original": [0.01, 0.1], "gold-1": [0.02, 0.09]},
    }


def test_gold_band_is_the_prediction_band_of_a_further_gold(results):
    band = results["gold"]["forget recall@20"]
    half = 12.706 * np.std([0.1, 0.14], ddof=1) * math.sqrt(1.5)  # t(0.975, 1) = 12.706
    assert band["mean"] == pytest.approx(0.12)
    assert band["high"] - band["mean"] == pytest.approx(half, rel=1e-4)
    assert gold_band({"gold-1": model(0.1, 0.1)})["test recall@20"]["low"] is None
    twice = gold_band({f"gold-{i}": model(0.1, 0.1 * i, divergence={"forget": 2.0}) for i in (1, 2)})
    assert twice["divergence forget"] == {"mean": 2.0, "low": None, "high": None, "n": 2}
    assert twice["test recall@20"]["low"] < 0.15 < twice["test recall@20"]["high"]


def test_table_shows_signed_gap_and_leaves_out_what_was_not_measured(results):
    header, rows = report.rows(results)
    cells = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    assert cells["original"]["gap to Gold"] == "+0.7800"
    assert cells["mmrecun"]["gap to Gold"] == "+0.0100"
    assert cells["mmrecun"]["speed-up"] == "5.0x"
    assert cells["original"]["speed-up"] == "-"
    assert cells["Gold, mean of 2"]["test Recall@20"] == "0.1020"
    assert "canary rank" not in header
    assert "valid Recall@20" not in header
    assert report.markdown(results).count("\n|") == 6


def test_items_requests_show_long_lists(results):
    results["forgotten"]["items"] = 4
    for row in results["models"].values():
        row["forget"]["recall@500"] = 0.5
    assert "forget Recall@500" in report.rows(results)[0]


def test_plots_are_drawn(results, tmp_path):
    for path in report.write(results, tmp_path):
        assert path.stat().st_size > 100


def test_figures_that_are_missing_are_none(results):
    assert figure_of(results["models"]["original"], "canary median_rank") is None


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
