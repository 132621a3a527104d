"""The command line end to end, as a user calls it: real processes for the happy path, `main` for mistakes."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

from recunlearn_jax import runs
from recunlearn_jax.cli import main
from recunlearn_jax.config import PRESETS
from recunlearn_jax.errors import InputError
from recunlearn_jax.synthetic import toy

SETTINGS = {
    "model": {"embedding_size": 16, "neighbours": 5},
    "train": {"batch_size": 256, "learning_rate": 0.01, "max_epochs": 8, "patience": 8},
    "unlearn": {"steps": 10, "batch_size": 256, "finetune_epochs": 1},
}


def recunlearn(*words, **kwargs):
    command = [sys.executable, "-m", "recunlearn_jax.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **kwargs)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data folder, a settings file and a trained run."""
    root = tmp_path_factory.mktemp("cli")
    (root / "settings.json").write_text(json.dumps(SETTINGS))
    words = ["--users", "150", "--items", "80", "--pairs-per-user", "8", "--clusters", "4"]
    made = recunlearn("data", root / "data", "--toy", *words)
    assert made.returncode == 0, made.stderr
    assert "150 users x 80 items" in made.stdout
    trained = recunlearn("train", "--data", root / "data", "--out", root / "run", "--settings", root / "settings.json")
    assert trained.returncode == 0, trained.stderr
    assert "best epoch" in trained.stdout
    return root


def test_unlearn_evaluate_recommend_and_unlearn_again(folder):
    out = folder / "forgot"
    answer = recunlearn("unlearn", folder / "run", "users:3,4", "items:7", "--out", out)
    assert answer.returncode == 0, answer.stderr
    for sign in ("retain quality", "forget pairs that persist", "cost"):
        assert sign in answer.stdout
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["forgotten"]["users"] == 2
    assert {"data_checksum", "request", "seed", "config", "environment"} <= set(manifest)
    assert sorted(p.name for p in out.iterdir()) == ["data", "manifest.json", "model"]  # no log, no optimizer state
    kept = np.loadtxt(out / "data" / "toy.inter", skiprows=1, dtype=int)
    assert not np.isin(kept[:, 0], [3, 4]).any()
    assert not (kept[:, 1] == 7).any()

    metrics = recunlearn("evaluate", out, "--original", folder / "run", "--json")
    assert set(json.loads(metrics.stdout)) == {"valid", "test", "forget"}
    lists = recunlearn("recommend", out, "0", "1", "--k", "79")
    assert len(lists.stdout.splitlines()) == 2
    assert " 7 " not in lists.stdout.replace("\t", " ")
    gone = recunlearn("recommend", out, "3")
    assert gone.returncode == 2
    assert "user 3 has no interaction" in gone.stderr

    once_more = recunlearn("unlearn", out, "pairs:2%", "--out", folder / "twice", "--method", "surgery")
    assert once_more.returncode == 0, once_more.stderr
    assert json.loads((folder / "twice" / "data" / "retained.json").read_text())["removed_users"] == [3, 4]


def test_training_again_in_a_finished_folder_does_nothing(folder):
    again = recunlearn(
        "train", "--data", folder / "data", "--out", folder / "run", "--settings", folder / "settings.json"
    )
    assert again.returncode == 0
    assert "already trained" in again.stdout


def test_compare_writes_everything_and_resumes(folder):
    words = ["compare", "--data", folder / "data", "--request", "users:10%", "--out", folder / "cmp", "--golds", "2"]
    words += ["--settings", folder / "settings.json", "--canaries", "2"]
    first = recunlearn(*words)
    assert first.returncode == 0, first.stderr
    results = json.loads((folder / "cmp" / "results.json").read_text())
    assert list(results["models"]) == ["original", "surgery", "finetune", "mmrecun", "gold-1", "gold-2"]
    for row in results["models"].values():
        assert 0 <= row["forget"]["recall@20"] <= 1
        assert row["canary"]["median_rank"] >= 1
    assert {p.name for p in (folder / "cmp").iterdir()} >= {"table.md", "curves.png", "quality.png", "seconds.png"}
    for title in ("test Recall@20", "gap to Gold", "canary rank", "speed-up", "compile s"):
        assert title in first.stdout

    # the second run finds all parts: the same results, and no training
    stamp = (folder / "cmp" / "parts" / "gold-2" / "part.json").stat().st_mtime_ns
    again = recunlearn(*words)
    assert json.loads((folder / "cmp" / "results.json").read_text())["models"] == results["models"]
    assert (folder / "cmp" / "parts" / "gold-2" / "part.json").stat().st_mtime_ns == stamp
    assert again.returncode == 0
    other = recunlearn(*[w if w != "users:10%" else "pairs:10%" for w in words])
    assert other.returncode == 2
    assert "holds a comparison of other data, request or settings" in other.stderr


def test_audit_judges_a_release_by_retrained_models(folder):
    for name, method, seed in (("release", "surgery", 0), *((f"gold-{i}", "gold", i) for i in (1, 2, 3))):
        words = ["unlearn", folder / "run", "users:10%", "--method", method, "--seed", seed, "--out", folder / name]
        assert recunlearn(*words).returncode == 0
    words = ["audit", folder / "release", "--original", folder / "run", "--gold"]
    done = recunlearn(*words, *(folder / f"gold-{i}" for i in (1, 2, 3)), "--out", folder / "report")
    assert done.returncode in {0, 1}, done.stderr
    found = json.loads((folder / "report" / "audit.json").read_text())["audit"]
    assert done.returncode == (found["misses"]["surgery"] > 0)
    assert {"original", "surgery", "gold-1", "gold-2", "gold-3"} == set(found["figures"])
    few = recunlearn(*words, folder / "gold-1", folder / "gold-2")
    assert few.returncode == 2
    assert "at least 3 are needed" in few.stderr
    same = recunlearn(*words, folder / "gold-1", folder / "gold-2", folder / "gold-1")
    assert same.returncode == 2
    assert "same model as an earlier Gold" in same.stderr
    assert "sequence test recall@20" in found["verdicts"]["surgery"]
    assert (folder / "report" / "audit.png").exists()
    assert "relearn steps" in (folder / "report" / "audit.md").read_text()
    assert "figures outside" in done.stdout


def test_compare_audits_with_shadows_and_shills(folder):
    words = ["compare", "--data", folder / "data", "--request", "pairs:5%", "--out", folder / "audited", "--golds", "3"]
    words += [
        "--settings",
        folder / "settings.json",
        "--methods",
        "surgery",
        "--audit",
        "--shadows",
        "4",
        "--shills",
        "1",
    ]
    first = recunlearn(*words)
    assert first.returncode == 0, first.stderr
    audit = json.loads((folder / "audited" / "results.json").read_text())["audit"]
    assert {"likelihood ratio AUC", "shilling exposure@20"} <= set(audit["verdicts"]["surgery"])
    assert "likelihood ratio AUC" in audit["verdicts"]["original"]
    assert 0 < audit["shadow_valid_recall@20"]["least"] <= 1
    assert audit["false_alarms"]["judged"] > 0
    assert {"audit.md", "audit.png"} <= {p.name for p in (folder / "audited").iterdir()}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["audit", "RUN", "--original", "RUN", "--gold", "RUN"], "holds no unlearned model"),
        (
            ["compare", "--data", "DATA", "--request", "users:5%", "--out", "NEW", "--audit", "--shadows", "3"],
            "an even number of at least 4",
        ),
        (["compare", "--data", "DATA", "--request", "users:5%", "--out", "NEW", "--shadows", "4"], "needs --audit"),
        (["unlearn", "RUN", "users:9999", "--out", "NEW"], "unknown user 9999"),
        (["unlearn", "RUN", "users", "--out", "NEW"], "expected users:"),
        (["unlearn", "RUN", "modality:video", "--out", "NEW"], "no modality 'video'"),
        (["unlearn", "RUN", "users:5%", "--out", "RUN"], "exists already"),
        (["unlearn", "RUN", "users:5%", "--out", "NEW", "--method", "magic"], "unknown; choose from mmrecun"),
        (["unlearn", "RUN", "users:5%", "--out", "NEW", "--set", "unlearn.stepz=3"], "did you mean 'steps'"),
        (["unlearn", "NOWHERE", "users:5%", "--out", "NEW"], "is this the folder of a run?"),
        (["train", "--data", "NOWHERE", "--out", "NEW"], "no such folder"),
        (
            ["train", "--data", "DATA", "--out", "RUN", "--settings", "SETTINGS", "--seed", "8"],
            "holds a run with another seed",
        ),
        (["train", "--data", "DATA", "--out", "RUN", "--seed", "8"], "another config and another seed"),
        (["train", "--data", "DATA", "--out", "DATA"], "is not empty"),
        (["train", "--data", "DATA", "--out", "NEW", "--preset", "swift"], "choose from faithful"),
        (["train", "--data", "DATA", "--out", "NEW", "--set", "train.batch_size=many"], "'many' is not of type int"),
        (["evaluate", "RUN", "--k", "0"], "at least 1"),
        (["recommend", "RUN", "0", "--k", "0"], "at least 1"),
        (
            ["compare", "--data", "DATA", "--request", "users:5%", "--out", "NEW", "--methods", "magic"],
            "method 'magic'",
        ),
        (["compare", "--data", "DATA", "--request", "users:5%", "--out", "NEW", "--golds", "0"], "at least 1 Gold"),
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
    manifest = json.loads((folder / "run" / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps(manifest | {"data_checksum": "0" * 64}))
    assert main(["evaluate", str(run)]) == 2
    assert "the data has changed" in capsys.readouterr().err


def test_help_is_quick_and_imports_no_jax():
    probe = (
        "import sys\nfrom recunlearn_jax.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\nassert 'jax' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    for command in ("data", "train", "unlearn", "evaluate", "recommend", "compare", "audit"):
        assert command in done.stdout


def test_a_run_begun_before_a_setting_existed_is_resumed(tmp_path):
    """What such a run's manifest lacks had its default then; what it holds must agree."""
    dataset, config = toy(60, 40, pairs_per_user=5, clusters=2), PRESETS["toy"]
    runs.begin(tmp_path / "run", dataset, tmp_path, config, 0)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    del manifest["config"]["train"]["precision"]
    (tmp_path / "run" / "manifest.json").write_text(json.dumps(manifest))
    runs.begin(tmp_path / "run", dataset, tmp_path, config, 0)
    other = dataclasses.replace(config, train=dataclasses.replace(config.train, precision="bfloat16"))
    with pytest.raises(InputError, match="holds a run with another config"):
        runs.begin(tmp_path / "run", dataset, tmp_path, other, 0)
