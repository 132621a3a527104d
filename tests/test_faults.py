"""What goes wrong for people: one clear sentence, exit code 2, nothing lost, nothing silently different. Each case has siblings."""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from recunlearn_jax import folders, ledger, runs
from recunlearn_jax import manifest as manifests
from recunlearn_jax.auditing import audit_runs
from recunlearn_jax.cli import main
from recunlearn_jax.data import write_dataset
from recunlearn_jax.errors import InputError
from recunlearn_jax.folders import LOCK
from recunlearn_jax.synthetic import toy

pytestmark = pytest.mark.slow

SMALL = ["--set", "train.max_epochs=2", "train.batch_size=64", "model.embedding_size=8"]


def recunlearn(*words):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(word) for word in words])
    return SimpleNamespace(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())


def refused(*words, rule):
    """The command ends with 2 and one sentence that holds the rule; notes may stand before it."""
    done = recunlearn(*words)
    assert done.returncode == 2, done.stderr
    sentence = done.stderr.splitlines()[-1]
    assert sentence.startswith("recunlearn: ")
    assert rule in sentence, sentence
    assert all(line.startswith("note: ") for line in done.stderr.splitlines()[:-1])


def done(*words):
    found = recunlearn(*words)
    assert found.returncode == 0, found.stderr
    return found


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A data folder and a trained run of it, for tests that change neither."""
    root = tmp_path_factory.mktemp("faults")
    write_dataset(toy(60, 40, pairs_per_user=5, clusters=2), root / "data")
    done("train", "--data", root / "data", "--out", root / "run", *SMALL)
    return root


@pytest.fixture
def own(shop, tmp_path):
    """A copy of both to be damaged."""
    shutil.copytree(shop / "run", tmp_path / "run")
    shutil.copytree(shop / "data", tmp_path / "data")
    manifest = runs.manifest_of(tmp_path / "run")
    manifests.write(tmp_path / "run", manifest | {"data": str(tmp_path / "data")})
    return tmp_path


# Settings and requests


def test_settings_of_the_model_are_the_models(shop, tmp_path):
    words = ["unlearn", shop / "run", "users:1", "--out", tmp_path / "a", "--method", "surgery", "--set"]
    refused(*words, "model.trainable_features=false", rule="unknown group 'model'")
    refused(*words, "train.batch_size=3", rule="unknown group 'train'")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "word", ["train.batch_size=0", "train.learning_rate=-1", "model.neighbours=0", "train.decay=nan"]
)
def test_settings_out_of_range(shop, tmp_path, word):
    refused("train", "--data", shop / "data", "--out", tmp_path / "run", "--set", word, rule=word.partition("=")[0])
    assert not (tmp_path / "run").exists()


def test_an_answer_that_is_not_finite_is_not_released(shop, tmp_path):
    for word in ("mmrecun.learning_rate=1e30", "ascent.steps=0", "mmrecun.temperature=1e-300"):
        method = word.partition(".")[0]
        words = ["unlearn", shop / "run", "users:1", "--out", tmp_path / word, "--method", method, "--set", word]
        ended = recunlearn(*words)
        if ended.returncode == 0:  # a setting that goes far and yet does no harm
            assert np.isfinite(np.asarray(runs.load(tmp_path / word).rows)).all()
        else:
            assert "the answer is not finite" in ended.stderr
            assert not (tmp_path / word).exists()
    assert (tmp_path / "ascent.steps=0").exists()
    assert not (tmp_path / "mmrecun.learning_rate=1e30").exists()


def test_more_shards_than_users(shop, tmp_path):
    for method in ("sisa", "receraser"):
        words = ["unlearn", shop / "run", "users:1", "--out", tmp_path / method, "--method", method]
        refused(*words, "--set", f"{method}.shards=500", rule="500 shards asked for; with 60 users in train, 1 to 60")


def test_an_answer_without_steps(shop, tmp_path):
    for method, name in (("mmrecun", "steps"), ("finetune", "epochs"), ("ascent", "steps"), ("rrl", "steps")):
        words = ["unlearn", shop / "run", "users:1", "--out", tmp_path / method, "--method", method]
        done(*words, "--set", f"{method}.{name}=0")
        assert runs.finished(tmp_path / method)


def test_a_request_that_is_refused_claims_no_folder(shop, tmp_path):
    words = [
        "compare",
        "--data",
        shop / "data",
        "--out",
        tmp_path / "c",
        "--golds",
        "1",
        "--methods",
        "surgery",
        *SMALL,
    ]
    refused(*words, "--request", "users:0.1%", rule="is none; ask for a larger share")
    refused(*words, "--request", "users:999", rule="unknown user 999")
    done(*words, "--request", "users:5%")


def test_a_modality_is_forgotten_once(shop, tmp_path):
    done("unlearn", shop / "run", "modality:image", "--out", tmp_path / "a", "--method", "surgery")
    again = done("unlearn", tmp_path / "a", "modality:image", "users:3", "--out", tmp_path / "b", "--method", "surgery")
    assert "note: modality image was removed earlier" in again.stdout
    refused("unlearn", tmp_path / "a", "modality:smell", "--out", tmp_path / "c", rule="no modality 'smell'")


def test_a_user_who_has_everything(tmp_path):
    dataset = toy(60, 30, pairs_per_user=5, clusters=2)
    everything = [(0, item) for item in np.unique(dataset.train[:, 1])]
    rest = dataset.train[dataset.train[:, 0] != 0].tolist()
    held_out = {name: pairs[pairs[:, 0] != 0] for name, pairs in (("valid", dataset.valid), ("test", dataset.test))}
    write_dataset(dataset.replace(train=[*rest, *everything], **held_out), tmp_path / "data")
    trained = done("train", "--data", tmp_path / "data", "--out", tmp_path / "run", *SMALL)
    assert "note: user 0 interacted with all" in trained.stderr
    done("unlearn", tmp_path / "run", "pairs:0-1", "users:7", "--out", tmp_path / "a", "--method", "mmrecun")


def test_nothing_they_already_have(shop):
    """In whichever split."""
    data = runs.load(shop / "run").dataset
    user = int(data.valid[0, 0])
    shown = done("recommend", shop / "run", user, "--k", "40").stdout.split()[1:]
    every = np.concatenate([data.train, data.valid, data.test])
    assert not {str(item) for item in every[every[:, 0] == user, 1]} & set(shown)
    refused("recommend", shop / "run", "1_0", rule="unknown user '1_0'")


# Folders


def test_a_kept_request_is_taken_up_again_by_the_same_call_alone(shop, tmp_path):
    """A call that was cut off before its folder had a name leaves the file; nothing else may be overwritten."""
    kept, words = tmp_path / "kept.json", ["unlearn", shop / "run", "users:3", "--method", "surgery"]
    done(*words, "--out", tmp_path / "a", "--keep-request", kept)
    content = kept.read_text()
    shutil.rmtree(tmp_path / "a")
    done(*words, "--out", tmp_path / "a", "--keep-request", kept)
    assert kept.read_text() == content
    assert "entry 2 answers the request" in done("ledger", tmp_path / "a", "--request", kept).stdout
    for other in (content.replace("3", "4"), "[]", "{}", "mine"):
        kept.write_text(other)
        refused(*words, "--out", tmp_path / "b", "--keep-request", kept, rule="kept.json: ")
        assert kept.read_text() == other


def test_out_is_tested_before_the_work(shop, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    for out, rule in (("file", "exists already"), ("full", "exists already"), ("file/below", "Not a directory")):
        refused("unlearn", shop / "run", "users:1", "--out", tmp_path / out, rule=rule)
    (tmp_path / "new.writing").mkdir()
    (tmp_path / "new.writing" / "mine").write_text("mine")
    refused("unlearn", shop / "run", "users:1", "--out", tmp_path / "new", rule="was not made by this program")
    refused("data", tmp_path / "new", "--toy", rule="was not made by this program")
    for command in (["train"], ["compare", "--request", "users:5%"]):
        for out, rule in (("file", "is a file"), ("full", "was not made by this program")):
            refused(*command, "--data", shop / "data", "--out", tmp_path / out, rule=rule)
    files = [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*")) if path.is_file()]
    assert files == ["file", "full/mine", "new.writing/mine"]


def test_results_of_others_are_not_overwritten(shop, tmp_path):
    (tmp_path / "c" / "parts" / "original" / "state").mkdir(parents=True)
    (tmp_path / "c" / "results.json").write_text("mine")
    (tmp_path / "c" / "parts" / "original" / "state" / "mine").write_text("mine")
    words = ["compare", "--data", shop / "data", "--request", "users:5%", "--out", tmp_path / "c", "--golds", "1"]
    refused(*words, rule="was not made by this program")
    assert (tmp_path / "c" / "results.json").read_text() == "mine"
    assert (tmp_path / "c" / "parts" / "original" / "state" / "mine").exists()


def test_data_that_moved(own):
    (own / "data").rename(own / "moved")
    refused("evaluate", own / "run", rule="name the place where it stands now with `recunlearn evaluate")
    refused("unlearn", own / "run", "users:1", "--out", own / "a", rule="--data")
    done("evaluate", own / "run", "--data", own / "moved")
    done("recommend", own / "run", "0")  # the new place is recorded
    (own / "moved").rename(own / "again")
    words = ["train", "--out", own / "run", *SMALL]
    assert "already trained" in done(*words, "--data", own / "again").stdout
    done("unlearn", own / "run", "users:1", "--out", own / "a", "--method", "surgery")
    write_dataset(toy(60, 40, pairs_per_user=5, clusters=2, seed=1), own / "other")
    refused("evaluate", own / "run", "--data", own / "other", rule="is not the data")


def test_a_model_that_can_only_be_read_serves(own, monkeypatch):
    def refuse(*args):
        raise InputError("manifest.json: Read-only file system")

    (own / "data").rename(own / "moved")
    monkeypatch.setattr(manifests, "write", refuse)
    said = done("recommend", own / "run", "0", "--data", own / "moved")
    assert "Read-only file system; where the data stands now is not recorded" in said.stderr
    assert len(said.stdout.splitlines()) == 1


def test_a_ledger_of_another_model_is_not_gone_on_with(own):
    for name, users in (("a", "users:1"), ("b", "users:2")):
        done("unlearn", own / "run", users, "--out", own / name, "--method", "surgery")
    shutil.copy(own / "b" / "ledger.jsonl", own / "a" / "ledger.jsonl")
    words = ["unlearn", own / "a", "users:9", "--out", own / "c", "--method", "surgery"]
    refused(*words, rule="does not end with the model of this folder")
    (own / "a" / "ledger.jsonl").unlink()
    refused(*words, rule="does not end with the model of this folder")
    assert not (own / "c").exists()


def test_a_request_is_not_kept_in_the_release(shop, tmp_path):
    words = ["unlearn", shop / "run", "users:3", "--out", tmp_path / "a", "--method", "surgery", "--keep-request"]
    for place in ("a/request.json", "a.writing/request.json", "b/../a/request.json"):
        refused(*words, tmp_path / place, rule="is in the release, which must not hold the request")
    assert not (tmp_path / "a").exists()
    kept = tmp_path / "kept.json"
    done(*words, kept)
    again = [*words[:1], shop / "run", kept, "--out", tmp_path / "c", "--method", "surgery", "--request-seed", "7"]
    assert "--request-seed is not used" in done(*again).stdout


def test_another_model_is_no_original(shop, tmp_path):
    write_dataset(toy(60, 40, pairs_per_user=5, clusters=2, seed=9), tmp_path / "data")
    done("train", "--data", tmp_path / "data", "--out", tmp_path / "other", "--backbone", "mf", *SMALL)
    refused("evaluate", shop / "run", "--original", tmp_path / "other", rule="is no original of")


def test_seeds_are_refused_before_a_folder_is_claimed(shop, tmp_path):
    words = {
        "train": ["--data", shop / "data"],
        "grow": [shop / "run", "--data", shop / "data"],
        "compare": ["--data", shop / "data", "--request", "users:5%"],
        "stream": ["--data", shop / "data"],
    }
    for command, own in words.items():
        refused(command, *own, "--out", tmp_path / "out", "--seed", "-1", rule="seed")
        assert not list(tmp_path.iterdir()), command


def test_a_solved_model_grows(tmp_path):
    small, large = (toy(users, 30, pairs_per_user=5, clusters=2, modalities=()) for users in (40, 50))
    write_dataset(small, tmp_path / "data")
    more = large.replace(num_items=31, removed_items=[], train=np.concatenate([large.train, [[0, 30]]]))
    write_dataset(more, tmp_path / "now")
    done("train", "--data", tmp_path / "data", "--out", tmp_path / "e", "--backbone", "ease")
    done("grow", tmp_path / "e", "--data", tmp_path / "now", "--out", tmp_path / "eg")
    assert runs.load(tmp_path / "eg").dataset.num_items == 31


def test_golds_begin_anew_and_a_coupled_one_belongs_to_its_original(shop, tmp_path):
    made = [tmp_path / name for name in ("answer", "g1", "g2", "g3", "other", "coupled", "grown")]
    answer, *golds, other, coupled, grown = made
    small = ["--backbone", "mf", *SMALL]
    done("train", "--data", shop / "data", "--out", tmp_path / "run", *small)
    done("unlearn", tmp_path / "run", "pairs:5%", "--out", answer, "--method", "surgery")
    for seed, gold in enumerate(golds, 1):
        done("unlearn", tmp_path / "run", "pairs:5%", "--out", gold, "--method", "gold", "--seed", seed)
    done("grow", tmp_path / "run", "--data", answer / "data", "--out", grown, "--seed", "4")
    refused(
        *["audit", answer, "--original", tmp_path / "run", "--gold", *golds[:2], grown],
        rule="grown: is no Gold; its training began from another model",
    )
    done("train", "--data", shop / "data", "--out", other, *small, "train.learning_rate=0.05")
    done("unlearn", other, "pairs:5%", "--out", coupled, "--method", "coupled")
    with pytest.raises(InputError, match="is no coupled Gold of"):
        audit_runs(answer, tmp_path / "run", golds, coupled=coupled)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "audit.json").write_text("mine")
    words = ["audit", answer, "--original", tmp_path / "run", "--gold", *golds]
    refused(*words, "--out", tmp_path / "mine", rule="audit.json")
    refused(*words, "--out", tmp_path / "mine" / "audit.json", rule="is a file; a folder is expected")
    assert (tmp_path / "mine" / "audit.json").read_text() == "mine"
    assert [entry["event"] for entry in ledger.read(answer)] == ["trained", "unlearned"]


def test_a_folder_is_discarded_at_once(tmp_path, monkeypatch):
    """Killed while it is removed, it is gone under its name; made and removed again, the rest goes with it, and nothing beside it."""

    def make(name):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)

    make("one")
    make("theirs.removed")
    with monkeypatch.context() as killed:
        killed.setattr(shutil, "rmtree", lambda *args, **kwargs: None)
        folders.discard(tmp_path / "one")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.removed", "theirs.removed"]
    make("one")
    folders.discard(tmp_path / "one")
    folders.discard(tmp_path / "never there")
    assert [path.name for path in tmp_path.iterdir()] == ["theirs.removed"]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


DAMAGE = {
    **{"cut": cut, "one bit": flip, "lost": Path.unlink},
    **{"empty": lambda path: path.write_bytes(b""), "null": lambda path: path.write_text("null")},
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_model_is_noticed(own, how):
    """Each file of it."""
    files = [p for p in (own / "run" / "model").rglob("*") if p.is_file() and p.stat().st_size]
    files.append(own / "run" / "manifest.json")
    assert len(files) > 5
    for path in files:
        before = path.read_bytes()
        DAMAGE[how](path)
        found = recunlearn("recommend", own / "run", "0")
        assert found.returncode == 2, path
        assert len(found.stderr.splitlines()) == 1
        path.write_bytes(before)
    done("recommend", own / "run", "0")


def test_a_model_does_not_need_its_log(own):
    """Nothing reads it; it is for people."""
    (own / "run" / "log.jsonl").write_text("{damaged")
    done("recommend", own / "run", "0")
    (own / "run" / "log.jsonl").unlink()
    done("evaluate", own / "run")


def test_a_log_that_is_longer_or_shorter_than_the_checkpoint(shop, tmp_path):
    """Training goes on from what the checkpoint says, to the same parameters."""
    words = ["train", "--data", shop / "data", "--seed", "3", "--set", *SMALL[1:], "train.checkpoint_every=1"]
    done(*words, "--out", tmp_path / "whole")
    for name, change in (("twice", lambda text: text * 2), ("short", lambda text: ""), ("odd", lambda text: "x\n")):
        out = tmp_path / name
        shutil.copytree(tmp_path / "whole", out)
        manifest = runs.manifest_of(out)
        begun = {key: manifest[key] for key in ("schema_version", "kind", "data", "data_checksum", "config", "seed")}
        salt = {"data_salt": manifest["data_salt"], "environment": manifest["environment"]}
        manifests.write(out, begun | salt)
        shutil.rmtree(out / "model")
        (out / "log.jsonl").write_text(change((out / "log.jsonl").read_text()))
        done(*words, "--out", out)
        assert runs.manifest_of(out)["model_digest"] == runs.manifest_of(tmp_path / "whole")["model_digest"]
        assert (out / "log.jsonl").read_text().count("\n") == 2


def test_a_full_disk_ends_the_command(shop, tmp_path):
    """A file may not grow beyond what is set: the process says so and ends, although threads of the checkpoint writer still wait."""
    code = f"""
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from recunlearn_jax import cli, runs
load = runs.load
def loaded(*words, **more):
    model = load(*words, **more)
    resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700))
    return model
runs.load = loaded
sys.argv = ["recunlearn", "unlearn", {str(shop / "run")!r}, "users:1", "--method", "surgery", "--out", {str(tmp_path / "a")!r}]
cli.entry()
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 2, ended.stderr
    assert "recunlearn: " in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "a").exists()


def test_a_reader_who_has_seen_enough(shop):
    command = f"{sys.executable} -m recunlearn_jax.cli settings | head -1"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert ended.stdout == "{\n"
    assert not ended.stderr


# From the raw file to the ledger


def test_requests_ledger_and_reports_speak_the_operators_ids(tmp_path):
    rng = np.random.default_rng(0)
    rows = [(f"u-{u}", f"B{i:03d}") for u in range(60) for i in rng.choice(40, 6, replace=False)]
    (tmp_path / "shop.csv").write_text("user_id,item_id\n" + "".join(f"{u},{i}\n" for u, i in rows))
    done("data", "prepare", tmp_path / "shop.csv", tmp_path / "shop")
    done("train", "--data", tmp_path / "shop", "--out", tmp_path / "run", "--backbone", "mf", *SMALL)
    user, item, word, out = *rows[0], rows[7][0], tmp_path / "release"
    words = ["unlearn", tmp_path / "run", f"users:{word}", "--out", out, "--method", "surgery"]
    refused(*words[:2], "users:7", "--out", out, rule="unknown user '7'; ids of the data are such as u-")
    done(*words, "--keep-request", tmp_path / "request.json")
    assert json.loads((tmp_path / "request.json").read_text())["request"]["users"] == [word]
    refused("recommend", out, word, rule=f"unknown user '{word}'")
    shown = done("recommend", out, user, "--k", "3").stdout
    assert shown.startswith(f"{user}\tB")
    assert item not in shown
    told = done("ledger", out, "--request", tmp_path / "request.json").stdout
    assert "trained" in told
    assert "unlearned  by surgery  forgot 1 users" in told
    assert "entry 2 answers the request" in told
    assert "the chain of 2 entries is whole" in told
    text = (out / "ledger.jsonl").read_text()
    (out / "ledger.jsonl").write_text(text.replace('"surgery"', '"gold"'))
    refused("ledger", out, rule="entry 2 does not follow")
    (out / "ledger.jsonl").write_text(text)
    # data that has grown, in which the removed user is still there
    (tmp_path / "more.csv").write_text((tmp_path / "shop.csv").read_text() + f"new,{item}\nnew,B001\nnew,B002\n")
    done("data", "prepare", tmp_path / "more.csv", tmp_path / "more")
    grow = ["grow", out, "--data", tmp_path / "more", "--out", tmp_path / "grown"]
    refused(*grow, rule=f"user {word} was removed by an earlier request")
    assert not (tmp_path / "grown").exists()
    done(*grow, "--readmit", f"user:{word}")
    assert "already trained" in done(*grow, "--readmit", f"user:{word}").stdout
    assert [entry["event"] for entry in ledger.read(tmp_path / "grown")] == ["trained", "unlearned", "grown"]
    assert done("recommend", tmp_path / "grown", "new").stdout.startswith("new\t")
    assert LOCK in os.listdir(tmp_path / "grown")
