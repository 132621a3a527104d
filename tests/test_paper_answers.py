"""An answer that is put into a result of the paper's experiments: its row is new, all others stay, and Golds come last."""

from pathlib import Path

import pytest

from recunlearn_jax.audit.base import Attempt
from recunlearn_jax.comparison import Part
from recunlearn_jax.config import Config, TrainConfig
from recunlearn_jax.stopwatch import Seconds
from recunlearn_jax.train import fit
from recunlearn_jax.unlearn import METHODS

EXPERIMENTS = Path(__file__).parent.parent / "experiments"
CODE = {"commit": "c0de", "changed": False}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["delta", "sisa"])
def test_a_row_anew_and_a_further_one(method, shop, monkeypatch):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    from paper_answers import put_into  # pyright: ignore[reportMissingImports]

    model = fit(shop, Config("mf", train=TrainConfig(batch_size=128, max_epochs=1)))
    rows = {
        name: {"seconds": {"running": seconds}}
        for name, seconds in (("original", 9.0), ("delta", 1.0), ("gold-1", 8.0))
    }
    kept = {
        "golds": ["gold-1"],
        "models": rows,
        "settings": {"delta": {"step": 1}},
        "verdicts": {name: {} for name in rows},
        "misses": dict.fromkeys(rows, 0),
        "data": "shop",
    }
    settings = METHODS[method].Settings()
    part = Part(model, CODE, Attempt(method, settings, 1), Seconds(3.0, 1.0, 2))
    found = put_into(kept, {method: part}, {method: {"test recall@20": 0.5}})
    assert list(found["models"])[-1] == "gold-1"
    assert set(found["models"]) == {*rows, method}
    assert found["models"]["original"] == rows["original"]
    own = found["models"][method]
    assert own["figures"] == {"test recall@20": 0.5}
    assert (own["commit"], own["preparation"]["total"]) == ("c0de", 3.0)
    assert own["speed_up"] == pytest.approx(8.0 / model.seconds.running)
    assert found["settings"][method] == vars(settings)
    assert set(found["verdicts"]) == set(found["misses"]) == set(found["models"])
    assert kept["models"] == rows  # the result that was read is not changed
    assert kept["settings"] == {"delta": {"step": 1}}
