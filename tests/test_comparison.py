"""Comparisons that share what was trained before."""

import json

import numpy as np
import pytest

from recunlearn_jax import manifest, runs
from recunlearn_jax.auditing import audit_runs
from recunlearn_jax.comparison import PARTS, claim, compare
from recunlearn_jax.config import Config, TrainConfig, config_to_dict
from recunlearn_jax.data import write_dataset
from recunlearn_jax.errors import InputError
from recunlearn_jax.interop import imported
from recunlearn_jax.preparation import prepare
from recunlearn_jax.recommender import set_up
from recunlearn_jax.requests import parse, resolve
from recunlearn_jax.train import fit
from recunlearn_jax.unlearn import answer

CONFIG = Config("mf", train=TrainConfig(batch_size=128, max_epochs=2))
LEAST = {"methods": ["surgery"], "golds": {"independent": 1, "coupled": 0}, "checks": ["utility"]}


@pytest.mark.slow
def test_an_original_serves_a_further_request(shop, tmp_path):
    """It is copied and not trained; one of another seed, of other settings or on other data is refused. (The largest seed will do.)"""
    largest = 2**31 - 1
    first, second = tmp_path / "first", tmp_path / "second"
    compare(shop, parse(["users:5%"]), CONFIG, **LEAST, seed=largest, out=first)
    epochs = []
    options = {**LEAST, "originals": first / PARTS, "on_epoch": epochs.append}
    found = compare(shop, {"pairs": "5%"}, CONFIG, **options, seed=largest, out=second)
    assert not epochs
    one, other = (runs.load(folder / PARTS / "original") for folder in (first, second))
    np.testing.assert_array_equal(one.rows, other.rows)
    assert "surgery" in found["models"]
    assert json.loads((second / "comparison.json").read_text())["request"]["pairs"] == "5%"
    slower = Config("mf", train=TrainConfig(batch_size=128, max_epochs=2, learning_rate=1e-4))
    larger = shop.replace(train=shop.train[1:])
    for name, (data, config, seed) in {
        "seed": (shop, CONFIG, 1),
        "settings": (shop, slower, largest),
        "data": (larger, CONFIG, largest),
    }.items():
        with pytest.raises(InputError, match="was trained with other settings, another seed or on other data"):
            compare(data, parse(["users:5%"]), config, **options, seed=seed, out=tmp_path / name)
    # As a version before a setting was there has written it.
    kept = manifest.read(first / PARTS / "original")
    del kept["config"]["train"]["patience"]
    manifest.write(first / PARTS / "original", kept)
    compare(shop, parse(["users:5%"]), CONFIG, **options, seed=largest, out=tmp_path / "later")
    assert not epochs


def test_an_answer_whose_original_was_in_no_folder_has_none(shop, tmp_path):
    original = fit(shop, CONFIG)
    write_dataset(shop, tmp_path / "shop")
    runs.save(tmp_path / "run", original, "../shop", {"kind": "trained", "seed": 0})
    forget_set = resolve("users:5%", shop)
    facts = runs.answer_facts(forget_set, "surgery", None, 0)
    runs.release(tmp_path / "answer", answer(original, forget_set, "surgery"), facts)
    with pytest.raises(InputError, match=r"run: is not the original of .*answer"):
        audit_runs(tmp_path / "answer", tmp_path / "run", [tmp_path] * 3)


def test_something_else_in_the_place_of_data_or_settings(shop, tmp_path, unchecked):
    """A folder for its data, the name of settings for them: told wherever either is taken."""
    calls = {
        "fit": fit,
        "set_up": set_up,
        "compare": lambda data, config: compare(data, "users:5%", config, **LEAST, out=tmp_path / "out"),
    }
    for name, call in calls.items():
        with pytest.raises(InputError, match="dataset: 'data/shop' given; a Dataset is expected"):
            call("data/shop", CONFIG)
        with pytest.raises(InputError, match="config: 'fast' given; a Config is expected"):
            call(shop, "fast")
        assert not list(tmp_path.iterdir()), name
    with pytest.raises(InputError, match="dataset: 'data/shop' given; a Dataset is expected"):
        resolve("users:5%", "data/shop")
    with pytest.raises(InputError, match=r"setup: .* given; a Setup is expected"):
        imported(shop, {})
    with pytest.raises(InputError, match="golds: 3 given; a Sequence is expected"):
        audit_runs(tmp_path / "model", tmp_path / "original", 3)
    with pytest.raises(InputError, match=r"features: .* given; a Mapping is expected"):
        prepare("shop.inter", tmp_path / "out", features=["image.npy"])
    with pytest.raises(InputError, match="features image: 3 given; a path is expected"):
        prepare("shop.inter", tmp_path / "out", features={"image": 3})
    with pytest.raises(InputError, match="facts: kind is missing among seed; `answer_facts` has it"):
        runs.release(tmp_path, fit(shop, Config("ease")), {"seed": 0})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"seed": "1"}, "seed: '1' is not of type int"),
        ({"seed": 2**31}, "seed: 2147483648; a whole number"),
        ({"golds": 2.5}, "golds is 2.5; a number, or such as"),
        ({"golds": {"independent": "2"}}, "golds is .*'2'.*; a number, or such as"),
        ({"golds": "few"}, "golds 'few': expected a number"),
        ({"plant": 3}, "plant: 3 given; a Mapping is expected"),
        ({"plant": {"canary": "2"}}, "plant: canary is '2'; a whole number"),
        ({"originals": "elsewhere"}, "originals: elsewhere holds no finished original; the folder parts"),
        ({"shadows": "4"}, "shadows is '4'; a whole number"),
        ({"methods": "delt"}, "method 'delt' is not known; did you mean 'delta'"),
        ({"checks": "utilty"}, "check 'utilty' is not known"),
    ],
)
def test_what_a_comparison_does_not_take(shop, tmp_path, unchecked, words, told):
    """Told before anything is written."""
    with pytest.raises(InputError, match=told):
        compare(shop, "users:5%", CONFIG, **{**LEAST, **words}, out=tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kept", ["null", "[]", "3", '"text"', "{}", '{"config": null}', '{"config": {}}'])
def test_a_folder_that_does_not_say_whose_work_it_holds_is_refused(tmp_path, kept):
    (tmp_path / "plan.json").write_text(kept)
    with pytest.raises(InputError, match=r"plan\.json|holds a stream of another seed"):
        claim(tmp_path, "plan.json", {"seed": 1, "config": config_to_dict(Config())}, "stream")
    assert (tmp_path / "plan.json").read_text() == kept
