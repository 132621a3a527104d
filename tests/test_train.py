"""Training: reproducible to the bit, resumable after a kill at any moment, and learning what a toy data set shows."""

import dataclasses
import json
import multiprocessing
import random
import re
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recunlearn_jax import checkpoint, cli, runs
from recunlearn_jax.backbones.base import sizes_of
from recunlearn_jax.backbones.mgcn import Settings
from recunlearn_jax.config import Config, TrainConfig
from recunlearn_jax.data import write_dataset
from recunlearn_jax.errors import InputError
from recunlearn_jax.evaluate import held_out_task, ranking_metrics
from recunlearn_jax.recommender import init_params, set_up
from recunlearn_jax.stacked import train_stacked
from recunlearn_jax.stopwatch import stopwatch
from recunlearn_jax.synthetic import toy
from recunlearn_jax.train import batch_size_of, best_entry, epoch_plan, fit, init_state, should_stop, train, train_epoch

pytestmark = pytest.mark.slow

# One setting for all that trains on this data: its epoch is compiled once.
CONFIG = Config(
    model=Settings(embedding_size=16, neighbours=5),
    train=TrainConfig(batch_size=256, learning_rate=5e-3, max_epochs=25, patience=25, checkpoint_every=10),
)


@pytest.fixture(scope="module")
def dataset():
    return toy(150, 80, pairs_per_user=8, clusters=4, feature_size=8)


@pytest.fixture(scope="module")
def trained(dataset):
    return fit(dataset, CONFIG)


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_same_seed_same_bits_other_seed_other_model(dataset, trained):
    assert same(trained.params, fit(dataset, CONFIG).params)
    assert not same(trained.params, fit(dataset, CONFIG, seed=1).params)


def test_training_finds_the_clusters(dataset, trained):
    users, items = trained.rows[: dataset.num_users], trained.rows[dataset.num_users :]
    scores = np.asarray(users @ items.T)
    own = np.arange(dataset.num_users)[:, None] % 4 == np.arange(dataset.num_items)[None] % 4
    assert scores[own].mean() > scores[~own].mean() + scores.std()
    found = ranking_metrics(trained.rows, held_out_task(dataset, "test"), (20,))["recall@20"]
    assert found > 2 * 20 / dataset.num_items  # twice what chance finds


def test_loss_falls_and_the_best_epoch_is_kept(trained):
    assert trained.history[-1]["loss"] < trained.history[0]["loss"]
    valid = [entry["recall@20"] for entry in trained.history]
    assert trained.best["recall@20"] == max(valid)
    now = ranking_metrics(trained.rows, held_out_task(trained.dataset, "valid"), (20,))["recall@20"]
    assert now == trained.best["recall@20"]


def test_a_smaller_data_set_reuses_the_compiled_epoch(dataset, trained):
    smaller = dataset.replace(train=dataset.train[:-300], similarities=trained.dataset.similarities)
    again = fit(smaller, CONFIG, sizes=sizes_of(trained.dataset))
    compiled = [entry["compile_seconds"] for entry in again.history[1:]]
    assert max(compiled) == 0
    # Its own array sizes: the padding must change nothing but the last bits.
    alone = fit(smaller, dataclasses.replace(CONFIG, train=dataclasses.replace(CONFIG.train, max_epochs=1)))
    assert again.history[0]["loss"] == pytest.approx(alone.history[0]["loss"], rel=0.02)


@pytest.mark.parametrize("trainable", [True, False])
def test_no_step_copies_a_table_before_it_changes_it(dataset, trained, trainable):
    """On a CPU: a copy would be one more pass over every table in every step."""
    model = dataclasses.replace(CONFIG.model, trainable_features=trainable)
    setup = set_up(trained.dataset, dataclasses.replace(CONFIG, model=model))
    params = init_params(jax.random.key(0), setup.data, backbone=setup.backbone)
    epoch = train_epoch.lower(
        init_state(params), setup.data, jax.random.key(0), backbone=setup.backbone, config=CONFIG.train
    )
    program = epoch.compile().as_text() or ""
    tables = {table.shape for table in jax.tree.leaves(params) if table.shape[0] in {150, 80}}
    assert len(tables) == (3 if trainable else 2)
    for rows, columns in tables:
        assert f"f32[{rows},{columns}]" in program
        assert not re.findall(rf"f32\[{rows},{columns}\]\S* copy\(", program)


def test_early_stopping_counts_epochs_without_improvement():
    def history(*values):
        return [{"epoch": i, "recall@20": v} for i, v in enumerate(values, 1)]

    config = TrainConfig(patience=2, max_epochs=10)
    assert not should_stop(history(0.1, 0.3, 0.2, 0.2), config)
    assert should_stop(history(0.1, 0.3, 0.2, 0.2, 0.2), config)
    assert not should_stop(history(0.1, 0.3, 0.2, 0.2, 0.31), config)
    assert best_entry(history(0.1, 0.3, 0.3))["epoch"] == 2
    assert should_stop([{"epoch": i} for i in range(1, 11)], config)


def test_without_valid_pairs_all_epochs_are_done(dataset):
    model = fit(dataset.replace(valid=dataset.valid[:0]), CONFIG)
    assert model.best["epoch"] == CONFIG.train.max_epochs


@pytest.mark.parametrize("fitted", [fit, lambda data, config: train_stacked(set_up(data, config), [0])])
def test_a_model_that_diverged_in_its_last_epoch_is_told(fitted):
    """The loss of an epoch is that before its last update."""
    wild = Config("lightgcn", train=TrainConfig(batch_size=4096, learning_rate=3e38, max_epochs=1))
    with pytest.raises(InputError, match="epoch 1: the rows of the model are not finite; training diverged"):
        fitted(toy(40, 30, pairs_per_user=5, clusters=2, modalities=()), wild)


def test_divergence_is_told(dataset):
    wild = Config("mf", train=TrainConfig(batch_size=256, learning_rate=1e30, max_epochs=3))
    with pytest.raises(InputError, match=r"loss is (nan|inf).*learning rate"):
        fit(dataset, wild)


@pytest.mark.parametrize("modalities", [(), ("audio",), ("audio", "image", "text")])
def test_any_number_of_modalities_trains(modalities):
    data = toy(60, 40, pairs_per_user=5, clusters=4, modalities=modalities, feature_size=4)
    model = fit(data, Config(model=Settings(embedding_size=8), train=TrainConfig(batch_size=128, max_epochs=2)))
    assert np.isfinite(model.history[-1]["loss"])


def test_resume_from_a_checkpoint_is_exact(dataset, trained, tmp_path):
    class Cut(Exception):
        pass

    def cut_between_checkpoints(entry):
        if entry["epoch"] == 15:
            raise Cut

    with pytest.raises(Cut):
        fit(dataset, CONFIG, run=tmp_path / "run", on_epoch=cut_between_checkpoints)
    assert checkpoint.saved_epochs(tmp_path / "run") == [10]
    resumed = fit(dataset, CONFIG, run=tmp_path / "run")
    assert same(trained.params, resumed.params)
    assert [e["loss"] for e in resumed.history] == [e["loss"] for e in trained.history]


def test_killed_at_any_moment_and_resumed_ends_with_the_same_bits(tmp_path, monkeypatch):
    """SIGKILL at random times of whole processes that save after every epoch, so that many kills hit a save."""
    data, settings = tmp_path / "data", tmp_path / "settings.json"
    write_dataset(toy(60, 40, pairs_per_user=5, clusters=4, modalities=("image",), feature_size=4), data)
    config = {
        "model": {"embedding_size": 8, "neighbours": 3},
        "train": {"batch_size": 16, "learning_rate": 0.005, "max_epochs": 15, "patience": 15, "checkpoint_every": 1},
    }
    settings.write_text(json.dumps(config))
    # Processes are forked from one that has imported everything and run nothing; what the first compiles the others find.
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "programs"))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["recunlearn_jax.cli", "recunlearn_jax.runs", "recunlearn_jax.train"])

    def start(run):
        words = ["train", "--data", str(data), "--out", str(run), "--settings", str(settings), "--seed", "3"]
        process = context.Process(target=cli.main, args=(words,))
        process.start()
        return process

    def finish(run):
        process = start(run)
        process.join(240)
        assert process.exitcode == 0

    def epochs(run):
        log = run / checkpoint.LOG
        return log.read_text().count("\n") if log.exists() else 0

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    finish(whole)
    draw = random.Random(7)
    kills = 0
    for _ in range(12):
        enough = epochs(cut) + draw.randint(1, 4)
        process = start(cut)
        while process.is_alive() and epochs(cut) < enough:
            time.sleep(0.01)
        time.sleep(draw.random() * 0.1)  # lands in an epoch, in a save, or between the two
        if process.is_alive():
            process.kill()
            kills += 1
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
    else:
        finish(cut)
    assert kills >= 3
    outcome = [runs.manifest_of(run) for run in (whole, cut)]
    assert outcome[0]["outcome"] == outcome[1]["outcome"]
    first, second = runs.load(whole), runs.load(cut)
    assert same(first.params, second.params)
    assert [e["loss"] for e in first.history] == [e["loss"] for e in second.history]


def test_a_model_that_was_saved_compiles_nothing_anew(dataset, trained, tmp_path):
    """The program that trained it trains on from what is read back."""
    checkpoint.save_tree(tmp_path / "model", trained.params)
    params = checkpoint.load_tree(tmp_path / "model", trained.params)
    assert same(params, trained.params)
    with stopwatch() as seconds:
        state = init_state(params)
        config = trained.config.train.of_an_epoch
        train_epoch(state, trained.data, jax.random.key(9), backbone=trained.backbone, config=config)
    assert seconds.programs <= 1  # at most the optimizer's zeros, which are no part of the epoch


def test_a_further_training_compiles_nothing(dataset, trained):
    """Gold's: neither the epoch nor the first parameters, whatever decides when training ends."""
    shorter = dataclasses.replace(CONFIG.train, max_epochs=2, patience=1)
    with stopwatch() as seconds:
        again = fit(dataset, dataclasses.replace(CONFIG, train=shorter), seed=1, sizes=trained.sizes)
    assert len(again.history) == 2
    assert seconds.programs == 0


def test_a_batch_is_at_most_the_data(dataset):
    """Memory and time of a batch size far above the data follow the data; the loss is that of one batch of all pairs."""
    setup = set_up(dataset, CONFIG)
    pairs = len(dataset.train)
    for size in (7, pairs, 2**20):
        config = dataclasses.replace(CONFIG.train, batch_size=size)
        assert batch_size_of(setup.data, config) == min(size, pairs)
        plan = epoch_plan(jnp.int32(0), setup.data, jax.random.key(0), config)
        assert plan.rows.shape == (-(-pairs // min(size, pairs)), min(size, pairs))
        assert int(plan.steps) == len(plan.rows)
        drawn = np.asarray(plan.rows)[np.asarray(plan.weights) > 0]
        assert sorted(drawn) == list(range(pairs))  # each pair once


@pytest.mark.parametrize("layout", ["csr", "gather"])
def test_stacked_trainings_are_those_of_their_seeds(dataset, layout):
    """Each as if it were alone: its parameters to rounding, and its own stop and best epoch."""
    model = dataclasses.replace(CONFIG.model, layout=layout)
    setup = set_up(dataset, Config(model=model, train=dataclasses.replace(CONFIG.train, max_epochs=14, patience=2)))
    told = []
    stacked = train_stacked(setup, [3, 4, 5], on_epoch=told.append)
    alone = [train(setup, seed) for seed in (3, 4, 5)]
    for ours, theirs in zip(stacked, alone, strict=True):
        assert ours.info == theirs.info
        assert [entry["epoch"] for entry in ours.history] == [entry["epoch"] for entry in theirs.history]
        losses = [[entry["loss"] for entry in model.history] for model in (ours, theirs)]
        np.testing.assert_allclose(*losses, rtol=1e-4)
        for a, b in zip(jax.tree.leaves(ours.params), jax.tree.leaves(theirs.params), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    assert len({model.info["epochs"] for model in alone}) > 1  # or nothing would be told of who stops when
    assert told == list(range(1, max(model.info["epochs"] for model in alone) + 1))


def test_stacked_trainings_without_valid_pairs_end_at_the_last_epoch(dataset):
    nothing = dataset.replace(valid=dataset.valid[:0])
    setup = set_up(nothing, dataclasses.replace(CONFIG, train=dataclasses.replace(CONFIG.train, max_epochs=2)))
    assert [model.info["best_epoch"] for model in train_stacked(setup, [0, 1])] == [2, 2]


def test_a_stacked_training_that_diverges_is_told(dataset):
    setup = set_up(dataset, dataclasses.replace(CONFIG, train=dataclasses.replace(CONFIG.train, learning_rate=1e30)))
    with pytest.raises(InputError, match="a learning rate below"):
        train_stacked(setup, [0, 1])
