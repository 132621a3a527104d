"""A backbone, a method and a check that nobody in the package knows, registered by the pages of docs/ alone: they train, forget, are
compared, audited, saved and served, from Python and from the command line."""

import contextlib
import dataclasses
import functools
import io
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import recunlearn_jax as ru
from recunlearn_jax import runs
from recunlearn_jax.audit import CHECKS
from recunlearn_jax.audit import register as register_check
from recunlearn_jax.audit.base import Check
from recunlearn_jax.backbones import BACKBONES, BackboneKind, mf
from recunlearn_jax.backbones import register as register_backbone
from recunlearn_jax.cli import main
from recunlearn_jax.data import write_dataset
from recunlearn_jax.errors import InputError
from recunlearn_jax.recommender import Recommender, set_up
from recunlearn_jax.unlearn import METHODS, Method, NoSettings, removal
from recunlearn_jax.unlearn import register as register_method
from recunlearn_jax.verdict import Figure

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parent.parent / "docs"
PAGES = ("backbone", "method", "check")


@pytest.fixture(scope="module")
def registered():
    """The blocks of the three pages, executed as they stand; afterwards the registries are as they were."""
    before = [dict(registry) for registry in (BACKBONES, METHODS, CHECKS)]
    printed = {}
    for page in PAGES:
        space = {"__name__": page}
        with contextlib.redirect_stdout(io.StringIO()) as out:
            for block in re.findall(r"```python\n(.*?)```", (DOCS / f"{page}.md").read_text(), re.DOTALL):
                exec(compile(block, f"docs/{page}.md", "exec"), space)
        printed[page] = out.getvalue()
    yield printed
    for registry, known in zip((BACKBONES, METHODS, CHECKS), before, strict=True):
        registry.clear()
        cast(dict, registry).update(known)


def told(*words):
    """Exit code and output of a command line."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        code = main([str(word) for word in words])
    return code, out.getvalue()


@pytest.fixture(scope="module")
def place(registered, shop, tmp_path_factory):
    root = tmp_path_factory.mktemp("contracts")
    write_dataset(shop, root / "shop")
    words = ["train", "--data", root / "shop", "--out", root / "run", "--backbone", "scaled_mf"]
    code, said = told(*words, "--set", "train.max_epochs=6", "train.batch_size=128", "train.learning_rate=0.02")
    assert code == 0
    assert "best epoch" in said
    return root


def test_the_pages_do_what_they_say(registered):
    assert "moved_rows" in registered["method"]
    assert "forget log10 rank" in registered["check"]


def test_a_foreign_backbone_forgets_by_a_foreign_method_on_the_command_line(place):
    out = place / "answered"
    code, said = told(
        "unlearn", place / "run", "users:3,14", "--out", out, "--method", "noise", "--set", "noise.sigma=0.5"
    )
    assert code == 0
    assert "noise forgot 2 users" in said
    assert json.loads((out / "manifest.json").read_text())["settings"] == {"sigma": 0.5}
    original, answered = runs.load(place / "run"), runs.load(out)
    for name in ("user_embedding", "user_scale"):
        for user in (3, 14):
            assert not np.array_equal(original.params[name][user], answered.params[name][user]), name
    assert told("recommend", out, "0", "--k", "5")[0] == 0
    assert told("evaluate", out, "--original", place / "run")[0] == 0
    assert (
        told("unlearn", out, "pairs:5%", "--out", place / "again", "--method", "mmrecun", "--set", "mmrecun.steps=2")[0]
        == 0
    )


def test_they_are_compared_and_audited_together(place):
    words = ["compare", "--data", place / "shop", "--request", "users:10%", "--out", place / "compared", "--golds", "3"]
    words += ["--backbone", "scaled_mf", "--methods", "noise", "amnesiac", "--audit", "--canaries", "2"]
    words += ["--set", "train.max_epochs=4", "train.batch_size=128", "train.learning_rate=0.02", "noise.sigma=0.3"]
    code, said = told(*words)
    assert code == 0
    assert "forget log10 rank" in said
    results = json.loads((place / "compared" / "results.json").read_text())
    assert results["config"]["backbone"] == "scaled_mf"
    assert results["settings"]["noise"] == {"sigma": 0.3}
    assert results["checks"]["median_rank"] == 1
    assert "forget log10 rank" in results["verdicts"]["noise"]
    assert {figure["name"]: figure["check"] for figure in results["judged"]}["forget log10 rank"] == 2
    assert "forget log10 rank" in (place / "compared" / "audit.md").read_text()
    code, said = told("settings", "--backbone", "scaled_mf")
    assert json.loads(said)["model"] == {"embedding_size": 32, "l2_weight": 1e-3}
    assert json.loads(said)["noise"] == {"sigma": 0.1}


def test_a_backbone_that_hides_a_table_is_refused_wherever_it_comes_from(registered, shop):
    """Training refuses it (the page shows that); so does an answer, if a model of it got so far, whatever the table's form."""

    @functools.cache
    def hiding(shape, settings):
        whole = mf.make(shape, settings)

        def init(key, data):
            return {**whole.init(key, data), "profiles": {"flat": jnp.zeros((4, shape.num_users))}}

        return dataclasses.replace(whole, name="hiding", init=init)

    @functools.cache
    def joint(shape, settings):
        """One table of users and items, declared as if it were a layer."""
        table = (shape.num_users + shape.num_items, 8)
        return dataclasses.replace(
            mf.make(shape, settings),
            name="joint",
            init=lambda key, data: {"embedding": jax.random.normal(key, table)},
            tables={"embedding": "neither"},
        )

    register_backbone("joint", BackboneKind(mf.Settings, joint))
    with pytest.raises(TypeError, match="keep two tables"):
        ru.fit(shop, ru.Config("joint"))
    register_backbone("hiding", BackboneKind(mf.Settings, hiding))
    config = ru.Config("hiding", train=ru.TrainConfig(batch_size=128, max_epochs=1))
    with pytest.raises(TypeError, match="'profiles/flat' of shape"):
        ru.fit(shop, config)
    setup = set_up(shop, config)
    sneaked = Recommender(setup, setup.backbone.init(jax.random.key(0), setup.data))
    with pytest.raises(TypeError, match="'profiles/flat' of shape"):
        ru.answer(sneaked, ["users:3"], "surgery")


def test_a_method_cannot_hand_on_what_the_backbone_does_not_have(registered, shop, monkeypatch):
    original = ru.fit(shop, ru.Config("mf", train=ru.TrainConfig(batch_size=128, max_epochs=1)))

    def wider(key, problem, settings):
        params = problem.original.params
        return {**params, "user_embedding": params["user_embedding"][:, :3]}, {}

    def fewer(key, problem, settings):
        return {"user_embedding": problem.original.params["user_embedding"]}, {}

    def more(key, problem, settings):
        return {**problem.original.params, "copy": problem.original.params["user_embedding"]}, {}

    def copies(key, problem, settings):
        table = problem.original.params["user_embedding"]
        return {**problem.original.params, "user_embedding": table.at[5].set(table[3])}, {}

    for name, function in (("wider", wider), ("fewer", fewer), ("more", more), ("copies", copies)):
        register_method(name, Method(NoSettings, function))
    with pytest.raises(TypeError, match=r"'user_embedding' is float32\[80, 3\]"):
        ru.answer(original, ["users:3"], "wider")
    with pytest.raises(TypeError, match="lack 'item_embedding'"):
        ru.answer(original, ["users:3"], "fewer")
    with pytest.raises(RuntimeError, match="rows of forgotten users or items stand in user_embedding"):
        ru.answer(original, ["users:3"], "copies")
    monkeypatch.setattr(removal, "_BLOCK", 2)  # it is found in any block
    with pytest.raises(RuntimeError, match="stand in user_embedding"):
        ru.answer(original, ["users:3"], "copies")
    ru.answer(original, ["users:4"], "copies")  # the copied row is nobody's who is forgotten
    twins = dataclasses.replace(original, params=copies(None, SimpleNamespace(original=original), None)[0])
    ru.answer(twins, ["users:3"], "surgery")  # whose row was the same before is no copy
    assert "copy" not in ru.answer(original, ["users:3"], "more").params  # what the backbone lacks is left behind


def test_a_name_is_given_once(registered):
    with pytest.raises(InputError, match="'mgcn': the name is taken"):
        register_backbone("mgcn", BACKBONES["mgcn"])
    with pytest.raises(InputError, match="'gold': the name is taken"):
        register_method("gold", METHODS["gold"])
    with pytest.raises(InputError, match="'utility': the name is taken"):
        register_check("utility", CHECKS["utility"])
    for name in ("original", "gold-1", "a/b", "Mine"):  # a folder, a key and a word of the command line
        with pytest.raises(InputError, match="a name begins with a letter"):
            register_method(name, METHODS["surgery"])
    with pytest.raises(InputError, match="has a /"):
        register_check("mine", Check(1, (Figure("a/b", "utility"),), lambda case: lambda subject: {}))
    with pytest.raises(InputError, match=r"the figure 'test recall@20' is another check's"):
        register_check("mine", Check(1, (Figure("test recall@20", "utility"),), lambda case: lambda subject: {}))
