"""The command line end to end, as a user calls it: a chain of real processes, and `main` in this one for everything else."""

import contextlib
import dataclasses
import io
import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from recunlearn_jax import comparison, runs
from recunlearn_jax import manifest as manifests
from recunlearn_jax.audit import CHECKS, Check, register
from recunlearn_jax.cli import main
from recunlearn_jax.config import PRESETS
from recunlearn_jax.errors import InputError
from recunlearn_jax.results import SCHEMA_VERSION
from recunlearn_jax.synthetic import toy
from recunlearn_jax.verdict import Figure

pytestmark = pytest.mark.slow

SETTINGS = {
    "model": {"embedding_size": 16, "neighbours": 5},
    "train": {"batch_size": 256, "learning_rate": 0.01, "max_epochs": 4, "patience": 4},
    "mmrecun": {"steps": 10, "batch_size": 256},
    "finetune": {"epochs": 1},
    "sisa": {"shards": 2},
}
METHODS = ("surgery", "finetune", "mmrecun", "amnesiac", "sisa")


def process(*words):
    """A command in a process of its own."""
    command = [sys.executable, "-m", "recunlearn_jax.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def recunlearn(*words):
    """A command in this process, which has compiled most of what it needs."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(word) for word in words])
    return SimpleNamespace(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())


def read(path):
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data folder, a settings file and a trained run."""
    root = tmp_path_factory.mktemp("cli")
    # What `settings` prints is a file of settings; some of its values are changed.
    printed = recunlearn("settings")
    assert printed.returncode == 0, printed.stderr
    groups = json.loads(printed.stdout)
    assert set(SETTINGS) < set(groups)
    for name, values in SETTINGS.items():
        assert set(values) <= set(groups[name])
        groups[name] |= values
    (root / "settings.json").write_text(json.dumps(groups))
    words = ["--users", "150", "--items", "80", "--pairs-per-user", "8", "--clusters", "4"]
    made = process("data", root / "data", "--toy", *words)
    assert made.returncode == 0, made.stderr
    assert "150 users x 80 items" in made.stdout
    trained = process("train", "--data", root / "data", "--out", root / "run", "--settings", root / "settings.json")
    assert trained.returncode == 0, trained.stderr
    assert "best epoch" in trained.stdout
    return root


def test_unlearn_evaluate_recommend_and_unlearn_again(folder):
    out = folder / "forgot"
    answer = process("unlearn", folder / "run", "users:3,4", "items:7", "--out", out, "--set", "delta.follow=0.8")
    assert answer.returncode == 0, answer.stderr
    for sign in ("retain quality", "forget pairs that persist", "cost"):
        assert sign in answer.stdout
    manifest = read(out / "manifest.json")
    assert manifest["forgotten"]["users"] == 2
    assert {"schema_version", "data_checksum", "request_digest", "seed", "config", "environment"} <= set(manifest)
    assert manifest["method"] == "delta"
    assert manifest["settings"]["follow"] == 0.8
    assert manifest["from_model"] == manifests.mark(read(folder / "run" / "manifest.json"))
    # no log, no optimizer state
    assert sorted(p.name for p in out.iterdir()) == ["data", "ledger.jsonl", "manifest.json", "model"]
    kept = np.loadtxt(out / "data" / "toy.inter", skiprows=1, dtype=int)
    assert not np.isin(kept[:, 0], [3, 4]).any()
    assert not (kept[:, 1] == 7).any()

    lists = process("recommend", out, "0", "1", "--k", "79")
    assert len(lists.stdout.splitlines()) == 2
    assert " 7 " not in lists.stdout.replace("\t", " ")
    metrics = recunlearn("evaluate", out, "--original", folder / "run", "--json")
    assert set(json.loads(metrics.stdout)) == {"valid", "test", "forget"}
    gone = recunlearn("recommend", out, "3")
    assert gone.returncode == 2
    assert "user 3 has no interaction" in gone.stderr

    once_more = recunlearn("unlearn", out, "pairs:2%", "--out", folder / "twice", "--method", "surgery")
    assert once_more.returncode == 0, once_more.stderr
    assert read(folder / "twice" / "data" / "retained.json")["removed_users"] == [3, 4]


def test_training_again_in_a_finished_folder_does_nothing(folder):
    again = recunlearn(
        "train", "--data", folder / "data", "--out", folder / "run", "--settings", folder / "settings.json"
    )
    assert again.returncode == 0
    assert "already trained" in again.stdout


def test_several_devices_give_the_model_of_one(folder):
    """How a larger backbone trains over a mesh: test_mesh.py."""
    words = ["--data", folder / "data", "--backbone", "mf", "--set", "train.max_epochs=3", "train.batch_size=256"]
    histories = []
    for count in (1, 2):
        done = recunlearn("train", *words, "--out", folder / f"trained-{count}", "--devices", count)
        assert done.returncode == 0, done.stderr
        histories.append([entry["loss"] for entry in runs.manifest_of(folder / f"trained-{count}")["history"]])
    np.testing.assert_allclose(histories[1], histories[0], rtol=1e-4)
    released = {}
    for count in (1, 2):
        out = folder / f"surgery-{count}"
        words = ["unlearn", folder / "trained-2", "users:3", "--method", "surgery", "--out", out, "--devices", count]
        done = recunlearn(*words)
        assert done.returncode == 0, done.stderr
        released[count] = runs.load(out)
    for name in released[1].backbone.id_tables():
        assert np.array_equal(released[1].params[name], released[2].params[name])


# --- comparisons


@pytest.fixture(scope="module")
def compared(folder):
    """One comparison, which every test below looks at or goes on with."""
    words = ["compare", "--data", folder / "data", "--request", "users:10%", "--out", folder / "cmp", "--golds", "3"]
    words += ["--settings", folder / "settings.json", "--canaries", "2", "--shills", "1", "--methods", *METHODS]
    first = recunlearn(*words)
    assert first.returncode == 0, first.stderr
    return SimpleNamespace(
        out=folder / "cmp", words=words, stdout=first.stdout, results=read(folder / "cmp" / "results.json")
    )


@pytest.fixture
def copied(compared, tmp_path):
    """The comparison in a folder of its own, to go on with."""
    shutil.copytree(compared.out, tmp_path / "cmp")
    words = [tmp_path / "cmp" if word == compared.out else word for word in compared.words]
    return SimpleNamespace(out=tmp_path / "cmp", words=words, results=compared.results)


@pytest.fixture
def nothing_is_made(monkeypatch):
    """Training or answering once more is an error."""

    def refuse(*args, **kwargs):
        raise AssertionError("a model was made that was there")

    for name in ("train", "answer", "prepare"):
        monkeypatch.setattr(comparison, name, refuse)


def test_compare_writes_everything(compared):
    results = compared.results
    names = ["original", "surgery", "finetune", "mmrecun", "amnesiac", "amnesiac original", "sisa", "sisa original"]
    assert list(results["models"]) == [*names, "coupled-1", "gold-1", "gold-2", "gold-3"]
    assert results["coupled"] == ["coupled-1"]
    for row in results["models"].values():
        assert 0 <= row["figures"]["forget recall@20"] <= 1
        assert row["figures"]["canary median rank"] >= 1
    assert results["golds"] == ["gold-1", "gold-2", "gold-3"]
    assert {p.name for p in compared.out.iterdir()} >= {"table.md", "curves.png", "quality.png", "seconds.png"}
    for title in ("test Recall@20", "gap to Gold", "canary rank", "speed-up", "compile s"):
        assert title in compared.stdout


def test_results_can_be_traced(compared):
    """Schema, code, and the settings of everything that ran."""
    results = compared.results
    assert results["schema_version"] == SCHEMA_VERSION
    assert {"commit", "changed"} <= set(results["environment"])
    if results["environment"]["commit"] is not None:  # None where the package is installed and not a checkout
        assert len(results["environment"]["commit"]) == 40
        assert isinstance(results["environment"]["changed"], bool)
    assert set(results["settings"]) == set(METHODS)
    assert results["settings"]["mmrecun"]["steps"] == 10
    assert results["settings"]["mmrecun"]["reverse"] == "swap"
    assert results["settings"]["sisa"] == {"shards": 2}
    assert results["settings"]["surgery"] == {}
    assert results["config"]["train"]["max_epochs"] == 4
    assert results["planted"] == {"canary": 2, "shilling": 1}
    assert set(results["checks"]) == {name for name, check in CHECKS.items() if check.usual}


def test_methods_that_prepare_have_an_original_of_their_own(compared):
    models = compared.results["models"]
    for name in ("amnesiac", "sisa"):
        assert models[name]["preparation"]["total"] > 0
        assert models[f"{name} original"]["preparation"] is None
        assert models[f"{name} original"]["figures"] != models["original"]["figures"]
    assert models["surgery"]["preparation"]["total"] > 0  # a spare copy, which its answer is written into
    for name in ("original", "finetune", "mmrecun", "gold-1"):
        assert models[name]["preparation"] is None
    assert "preparation s" in compared.stdout
    assert "sisa original" in compared.stdout


def test_the_same_command_finds_all_parts(copied, nothing_is_made, monkeypatch):
    def refuse(case):
        raise AssertionError("a figure was measured that was there")

    for name, check in CHECKS.items():
        monkeypatch.setitem(CHECKS, name, check._replace(prepare=refuse))
    again = recunlearn(*copied.words)
    assert again.returncode == 0, again.stderr
    assert read(copied.out / "results.json")["models"] == copied.results["models"]


def test_another_comparison_or_other_settings_need_another_folder(compared, nothing_is_made):
    other = recunlearn(*[w if w != "users:10%" else "pairs:10%" for w in compared.words])
    assert other.returncode == 2
    assert "holds a comparison of another request; choose another folder" in other.stderr
    changed = recunlearn(*compared.words, "--set", "mmrecun.steps=11")
    assert changed.returncode == 2
    assert "holds an answer with other settings of mmrecun (steps)" in changed.stderr


def test_figures_are_kept_by_check_and_version(copied, nothing_is_made, monkeypatch):
    """A raised version makes that check's figures anew, and no other's; they stay those of the same models."""
    prepared = []

    def counted(name, check):
        return check._replace(prepare=lambda case: prepared.append(name) or check.prepare(case))

    for name, check in CHECKS.items():
        monkeypatch.setitem(CHECKS, name, counted(name, check))
    monkeypatch.setitem(CHECKS, "forgetting", CHECKS["forgetting"]._replace(version=2))
    for expected in (["forgetting"], ["forgetting"]):  # once for all models, and kept again
        assert recunlearn(*copied.words).returncode == 0
        assert prepared == expected
    results = read(copied.out / "results.json")
    assert results["checks"]["forgetting"] == 2
    assert results["checks"]["utility"] == CHECKS["utility"].version
    for name, row in results["models"].items():
        assert row["figures"] == pytest.approx(copied.results["models"][name]["figures"])


def test_a_check_that_is_registered_later_appears_in_an_old_comparison(copied, nothing_is_made):
    def prepare(case):
        return lambda subject: {"mean square of rows": float(jnp.mean(jnp.square(subject.model.rows)))}

    register("size", Check(9, (Figure("mean square of rows", "remembered"),), prepare, usual=True))
    try:
        assert recunlearn(*copied.words).returncode == 0
    finally:
        del CHECKS["size"]
    results = read(copied.out / "results.json")
    assert results["checks"]["size"] == 1
    assert all(row["figures"]["mean square of rows"] > 0 for row in results["models"].values())
    assert "mean square of rows" in results["bands"]
    for name, row in results["models"].items():
        assert copied.results["models"][name]["figures"].items() <= row["figures"].items()


def test_figures_are_kept_by_all_that_they_depend_on(tmp_path):
    """The request; the Golds, where a check reads them; the shadows, where it needs the method."""
    made = []

    def measured(checksum="a", golds=("gold-1",), shadows=4):
        made.clear()
        case = SimpleNamespace(
            forget_set=SimpleNamespace(checksum=checksum), golds=dict.fromkeys(golds), shadows=shadows
        )
        keep = comparison._kept_in(tmp_path, case)
        for name in ("utility", "overlap", "likelihood"):
            found = keep("surgery", name, CHECKS[name], lambda name=name: made.append(name) or {"surgery": {name: 1}})
            assert found == {"surgery": {name: 1}}
        return made

    assert measured() == ["utility", "overlap", "likelihood"]
    assert measured() == []
    assert measured(shadows=6) == ["likelihood"]
    assert measured(shadows=6, golds=("gold-1", "gold-2")) == ["overlap", "likelihood"]
    assert measured(shadows=6, golds=("gold-1", "gold-2"), checksum="b") == ["utility", "overlap", "likelihood"]


def test_parts_are_run_folders(compared, tmp_path):
    """What a comparison keeps is in the one format on disk: every command works on it."""
    parts = compared.out / "parts"
    for name in ("mmrecun", "sisa", "gold-1"):
        metrics = recunlearn("evaluate", parts / name, "--original", parts / "original", "--json", "--k", "20")
        assert metrics.returncode == 0, metrics.stderr
        found, figures = json.loads(metrics.stdout), compared.results["models"][name]["figures"]
        assert found["test"]["recall@20"] == pytest.approx(figures["test recall@20"])
        assert found["forget"]["recall@20"] == pytest.approx(figures["forget recall@20"])
    for name in ("original", "surgery", "amnesiac original", "sisa original"):
        lists = recunlearn("recommend", parts / name, "0", "1", "--k", "5")
        assert lists.returncode == 0, lists.stderr
        assert [len(line.split()) for line in lists.stdout.splitlines()] == [6, 6]
    for name in ("original", "mmrecun"):
        answer = recunlearn("unlearn", parts / name, "pairs:2%", "--method", "surgery", "--out", tmp_path / name)
        assert answer.returncode == 0, answer.stderr
        assert (tmp_path / name / "data").is_dir()


def test_audit_judges_a_release_by_retrained_models(compared, tmp_path):
    original = compared.out / "parts" / "original"
    for name, method, seed in (("release", "surgery", 0), *((f"gold-{i}", "gold", i) for i in (1, 2, 3))):
        words = ["unlearn", original, "users:10%", "--method", method, "--seed", seed, "--out", tmp_path / name]
        assert recunlearn(*words).returncode == 0
    words = ["audit", tmp_path / "release", "--original", original, "--gold"]
    done = recunlearn(*words, *(tmp_path / f"gold-{i}" for i in (1, 2, 3)), "--out", tmp_path / "report")
    assert done.returncode in {0, 1}, done.stderr
    found = read(tmp_path / "report" / "audit.json")
    assert done.returncode == (found["misses"]["surgery"] > 0)
    assert {"original", "surgery", "gold-1", "gold-2", "gold-3"} == set(found["models"])
    few = recunlearn(*words, tmp_path / "gold-1", tmp_path / "gold-2")
    assert few.returncode == 2
    assert "at least 3 are needed" in few.stderr
    same = recunlearn(*words, tmp_path / "gold-1", tmp_path / "gold-2", tmp_path / "gold-1")
    assert same.returncode == 2
    assert "same model as an earlier Gold" in same.stderr
    others = recunlearn(*words, *(compared.out / "parts" / f"gold-{i}" for i in (1, 2, 3)))
    assert others.returncode == 2
    assert "trained on other data than is retained there" in others.stderr
    assert "sequence test recall@20" in found["verdicts"]["surgery"]
    assert (tmp_path / "report" / "audit.png").exists()
    assert "relearn steps" in (tmp_path / "report" / "audit.md").read_text()
    assert "figures outside" in done.stdout


def test_audit_judges_parts_of_a_comparison(compared):
    parts = compared.out / "parts"
    golds = [parts / f"gold-{i}" for i in (1, 2, 3)]
    done = recunlearn("audit", parts / "mmrecun", "--original", parts / "original", "--gold", *golds)
    assert done.returncode in {0, 1}, done.stderr
    assert "figures outside" in done.stdout
    assert "sequence test recall@20" in done.stdout


def test_compare_audits_with_shadows_and_shills(copied, nothing_is_made):
    """An audit of a comparison that was made without one trains shadows and nothing else."""
    words = copied.words[: copied.words.index("--methods")]
    first = recunlearn(*words, "--methods", "surgery", "--audit", "--shadows", "4")
    assert first.returncode == 0, first.stderr
    results = read(copied.out / "results.json")
    assert {"likelihood ratio AUC", "shilling exposure@20"} <= set(results["verdicts"]["surgery"])
    assert "likelihood ratio AUC" in results["verdicts"]["original"]
    for name in ("original", "surgery"):
        assert 0 < results["models"][name]["figures"]["shadows' least valid recall@20"] <= 1
    assert results["shadows"] == 4
    assert results["false_alarms"]["judged"] > 0
    assert {"audit.md", "audit.png"} <= {p.name for p in copied.out.iterdir()}
    assert set(results["checks"]) == set(CHECKS)


def test_a_method_whose_answer_is_not_finite_is_marked(copied):
    """The comparison goes on with the others, also when it finds that answer again."""
    (copied.out / "parts" / "mmrecun").rename(copied.out / "mmrecun that was")
    for _ in range(2):
        done = recunlearn(*copied.words, "--set", "mmrecun.learning_rate=1e30")
        assert done.returncode == 0, done.stderr
        results = read(copied.out / "results.json")
        assert results["not_finite"] == ["mmrecun"]
        assert results["models"]["mmrecun"]["figures"] == {}
        assert "mmrecun" not in results["verdicts"]
        for name in ("surgery", "sisa"):
            assert results["models"][name] == copied.results["models"][name]
            assert results["verdicts"][name] == copied.results["verdicts"][name]
        assert (copied.out / "table.md").exists()
    parts = copied.out / "parts"
    golds = [parts / f"gold-{i}" for i in (1, 2, 3)]
    judged = recunlearn("audit", parts / "mmrecun", "--original", parts / "original", "--gold", *golds, "--no-sequence")
    assert judged.returncode == 1, judged.stderr
    assert "Not finite, so not judged: mmrecun" in " ".join(judged.stdout.split())


def test_report_draws_tables_from_results_alone(compared, tmp_path):
    """In a process that has no jax."""
    shutil.copy(compared.out / "results.json", tmp_path / "results.json")
    code = (
        "import sys\nfor name in ('jax', 'flax', 'optax'): sys.modules[name] = None\n"
        f"from recunlearn_jax.cli import main\nsys.exit(main(['report', {str(tmp_path)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "table.md").read_text() == (compared.out / "table.md").read_text()
    assert {"table.md", "curves.png", "quality.png", "seconds.png"} <= {p.name for p in tmp_path.iterdir()}
    assert "gap to Gold" in done.stdout
    elsewhere = recunlearn("report", tmp_path / "results.json", "--out", tmp_path / "again")
    assert elsewhere.returncode == 0, elsewhere.stderr
    assert (tmp_path / "again" / "table.md").read_text() == (tmp_path / "table.md").read_text()


# --- mistakes


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["audit", "RUN", "--original", "RUN", "--gold", "RUN"], "holds no unlearned model"),
        (
            ["compare", "--data", "DATA", "--request", "users:5%", "--out", "NEW", "--audit", "--shadows", "3"],
            "an even number of at least 4",
        ),
        (["compare", "--data", "DATA", "--request", "users:5%", "--out", "NEW", "--shadows", "4"], "needs --audit"),
        (
            ["compare", "--data", "DATA", "--request", "users:5%", "--out", "NEW", "--plant", "canari=2"],
            "did you mean 'canary'",
        ),
        (["compare", "--data", "DATA", "--request", "users:5%", "--out", "NEW", "--plant", "canary"], "check=number"),
        (["unlearn", "RUN", "users:9999", "--out", "NEW"], "unknown user 9999"),
        (["unlearn", "RUN", "users", "--out", "NEW"], "expected users:"),
        (["unlearn", "RUN", "modality:video", "--out", "NEW"], "no modality 'video'"),
        (["unlearn", "RUN", "users:5%", "--out", "RUN"], "exists already"),
        (["unlearn", "RUN", "users:5%", "--out", "NEW", "--method", "magic"], "not known; choose from: delta"),
        (["unlearn", "RUN", "users:5%", "--out", "NEW", "--set", "delta.folow=3"], "did you mean 'follow'"),
        # Settings of the model are the model's, and those of another method another's; said before anything is read.
        (
            ["unlearn", "NOWHERE", "users:5%", "--out", "NEW", "--set", "model.trainable_features=false"],
            "unknown group 'model'",
        ),
        (["unlearn", "NOWHERE", "users:5%", "--out", "NEW", "--set", "rrl.steps=3"], "unknown group 'rrl'"),
        (["unlearn", "NOWHERE", "users:5%", "--out", "NEW", "--set", "delta.turn_items=x"], "'x' is not of type float"),
        (["unlearn", "NOWHERE", "users:5%", "--out", "NEW"], "is this the folder of a run?"),
        (["unlearn", "RUN", "users:5%", "--out", "NEW", "--devices", "99"], "--devices 99: there are 4; 1 to 4"),
        (["train", "--data", "DATA", "--out", "NEW", "--devices", "99"], "--devices 99: there are 4; 1 to 4"),
        (["train", "--data", "DATA", "--out", "NEW", "--devices", "0"], "--devices 0: there are 4; 1 to 4"),
        (
            ["compare", "--data", "DATA", "--request", "users:5%", "--out", "NEW", "--devices", "99"],
            "--devices 99: there are 4; 1 to 4",
        ),
        (["train", "--data", "NOWHERE", "--out", "NEW"], "no such folder"),
        (
            ["train", "--data", "DATA", "--out", "RUN", "--settings", "SETTINGS", "--seed", "8"],
            "holds a run with another seed",
        ),
        (
            ["train", "--data", "DATA", "--out", "RUN", "--seed", "8"],
            "another model.embedding_size (16 there, 64 now) and another",
        ),
        (["train", "--data", "DATA", "--out", "DATA"], "is not empty"),
        (["train", "--data", "DATA", "--out", "NEW", "--preset", "swift"], "choose from faithful"),
        (["train", "--data", "DATA", "--out", "NEW", "--backbone", "mgcm"], "did you mean 'mgcn'"),
        (
            ["train", "--data", "DATA", "--out", "NEW", "--backbone", "vbpr", "--settings", "SETTINGS"],
            "has settings of mgcn",
        ),
        (["train", "--data", "DATA", "--out", "NEW", "--set", "train.batch_size=many"], "'many' is not of type int"),
        (["train", "--data", "DATA", "--out", "NEW", "--set", "mmrecun.steps=3"], "unknown group 'mmrecun'"),
        (["evaluate", "RUN", "--k", "0"], "at least 1"),
        (["recommend", "RUN", "0", "--k", "0"], "at least 1"),
        (
            ["compare", "--data", "DATA", "--request", "users:5%", "--out", "NEW", "--methods", "magic"],
            "method 'magic'",
        ),
        (["compare", "--data", "DATA", "--request", "users:5%", "--out", "NEW", "--golds", "0"], "at least 1 Gold"),
        (["report", "DATA"], "holds no manifest.json, no results.json and no audit.json"),
        (["report", "SETTINGS"], "holds no results"),
    ],
)
def test_mistakes_end_with_one_sentence_and_leave_nothing(folder, capsys, words, message):
    places = {"RUN": folder / "run", "DATA": folder / "data", "NEW": folder / "new", "NOWHERE": folder / "nowhere"}
    places["SETTINGS"] = folder / "settings.json"
    assert main([str(places.get(word, word)) for word in words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert "Traceback" not in error
    assert not (folder / "new").exists()


def test_changed_data_is_noticed(folder, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("model",):
        (run / name).symlink_to(folder / "run" / name)
    manifests.write(run, manifests.read(folder / "run") | {"data_checksum": "0" * 64})
    assert main(["evaluate", str(run)]) == 2
    assert "is not the data" in capsys.readouterr().err


def test_help_is_quick_and_imports_no_jax():
    probe = (
        "import sys\nfrom recunlearn_jax.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\nassert 'jax' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    for command in ("data", "train", "unlearn", "evaluate", "recommend", "compare", "audit", "report", "settings"):
        assert command in done.stdout


def test_a_run_begun_before_a_setting_existed_is_resumed(tmp_path):
    """What such a run's manifest lacks had its default then; what it holds must agree."""
    dataset, config = toy(60, 40, pairs_per_user=5, clusters=2), PRESETS["toy"]
    runs.begin(tmp_path / "run", dataset, tmp_path, config, 0)
    manifest = read(tmp_path / "run" / "manifest.json")
    del manifest["config"]["train"]["precision"]
    manifests.write(tmp_path / "run", manifest)
    runs.begin(tmp_path / "run", dataset, tmp_path, config, 0)


def test_a_run_without_a_checkpoint_may_begin_anew(tmp_path):
    """Such as one that diverged; with a checkpoint it is resumed as it was begun, and the setting that differs is named."""
    run, dataset, config = tmp_path / "run", toy(60, 40, pairs_per_user=5, clusters=2), PRESETS["toy"]
    runs.begin(run, dataset, tmp_path, config, 0)
    smaller = dataclasses.replace(config, train=dataclasses.replace(config.train, learning_rate=1e-4))
    runs.begin(run, dataset, tmp_path, smaller, 0)
    assert runs.manifest_of(run)["config"]["train"]["learning_rate"] == 1e-4
    (run / "state" / "epoch-00005").mkdir(parents=True)
    with pytest.raises(
        InputError, match=r"another train.learning_rate \(0.0001 there, 0.005 now\); choose another folder"
    ):
        runs.begin(run, dataset, tmp_path, config, 0)
    with pytest.raises(InputError, match=r"another seed \(0 there, 1 now\)"):
        runs.begin(run, dataset, tmp_path, smaller, 1)
    with pytest.raises(InputError, match="another data_checksum"):
        runs.begin(run, toy(60, 40, pairs_per_user=5, clusters=2, seed=1), tmp_path, smaller, 0)
    runs.begin(run, dataset, tmp_path / "elsewhere", smaller, 0)  # the same data in another place
    assert runs.manifest_of(run)["data"] == str(tmp_path / "elsewhere")
