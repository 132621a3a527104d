"""A stream: its clock, its plan, what is taken up, the guard, and a replay that is cut off and goes on to the same bits."""

import itertools
import json
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from toys import write_folder

from recunlearn_jax import checkpoint, cli
from recunlearn_jax.audit.canary import plant
from recunlearn_jax.config import Config, TrainConfig
from recunlearn_jax.data import write_dataset
from recunlearn_jax.errors import InputError
from recunlearn_jax.evaluate import held_out_task, ranking_metrics
from recunlearn_jax.graph import grown_similarities, knn_similarities
from recunlearn_jax.recommender import set_up, shapes
from recunlearn_jax.report import stream_markdown
from recunlearn_jax.requests import Request, resolve, retained
from recunlearn_jax.stream import Guard, Learn, Learning, Quarter, Remove, make_plan, read_clock, replay
from recunlearn_jax.stream.clock import Clock, clock_of
from recunlearn_jax.stream.guard import Spent, objection
from recunlearn_jax.stream.learning import begun, grown
from recunlearn_jax.stream.replay import WATCHED_FIGURE, _removed_pairs, spent_after, watched_recall
from recunlearn_jax.synthetic import toy
from recunlearn_jax.train import fit, train
from recunlearn_jax.unlearn import answer

CONFIG = Config("lightgcn", train=TrainConfig(batch_size=256, learning_rate=5e-3, max_epochs=2))


@pytest.fixture(scope="module")
def shop():
    return toy(150, 90, pairs_per_user=8, clusters=3, feature_size=4)


@pytest.fixture(scope="module")
def planned(shop):
    """With canaries, twelve requests and four updates."""
    whole, canaries = plant(shop, 2, popularity=(3, 40))
    return whole, make_plan(whole, clock_of(shop, None, "drawn", 0), requests=12, updates=4, canaries=canaries)


# The clock


def test_each_users_order_is_kept(shop):
    known = np.random.default_rng(0).permutation(len(shop.train)).astype(float)
    times = clock_of(shop, known, "order", 3).times
    for user in range(20):
        own = shop.train[:, 0] == user
        np.testing.assert_array_equal(np.argsort(known[own]), np.argsort(times[own]))
    assert times.min() >= 0
    assert times.max() <= 1
    first = np.array([times[shop.train[:, 0] == user].min() for user in range(150)])
    assert 0.6 < np.mean(first < 0.2) < 0.95  # most have begun


@pytest.mark.parametrize(
    ("column", "kind", "order"),
    [("timestamp", "timestamp", [3, 2, 1, 0]), ("order", "order", None), ("rating", "drawn", None)],
)
def test_the_best_clock_of_a_file(tmp_path, column, kind, order):
    folder = write_folder(tmp_path / "shop")
    lines = (folder / "shop.inter").read_text().splitlines()
    times = [40, 30, 20, 99, 99, 10]
    text = [f"{lines[0]}\t{column}", *(f"{line}\t{t}" for line, t in zip(lines[1:], times, strict=True))]
    (folder / "shop.inter").write_text("\n".join(text) + "\n")
    dataset, clock = read_clock(folder)
    assert (clock.kind, len(clock.times)) == (kind, len(dataset.train))
    # Other tools write numbers so.
    text = [text[0], *("\t".join(f"{cell}.0" for cell in line.split("\t")) for line in text[1:])]
    (folder / "shop.inter").write_text("\n".join(text) + "\n")
    np.testing.assert_array_equal(read_clock(folder)[1].times, clock.times)
    if order:
        assert np.argsort(clock.times).tolist() == order


@pytest.mark.parametrize("word", ["soon", "nan", "inf"])
def test_a_time_that_is_none(tmp_path, word):
    folder = write_folder(tmp_path / "shop")
    lines = (folder / "shop.inter").read_text().splitlines()
    text = [f"{lines[0]}\ttimestamp", *(f"{line}\t{word}" for line in lines[1:])]
    (folder / "shop.inter").write_text("\n".join(text) + "\n")
    with pytest.raises(InputError, match=f"row 2 has timestamp '{word}'; a finite number"):
        read_clock(folder)


# The plan


def test_every_arrival_is_taken_up_once(planned):
    whole, plan = planned
    learned = [event for event in plan.events if isinstance(event, Learn)]
    assert [plan.begin, *(e.stop for e in learned)] == [*(e.start for e in learned), len(whole.train)]
    assert [e.number for e in plan.events if isinstance(e, Quarter)] == [1, 2, 3, 4]
    assert isinstance(plan.events[-1], Quarter)
    assert [e.number for e in plan.events if isinstance(e, Remove)] == list(range(1, 13))
    assert sorted(map(tuple, plan.arrivals.tolist())) == sorted(map(tuple, whole.train.tolist()))


@pytest.mark.parametrize("seed", range(6))
def test_requests_name_what_is_there(shop, seed):
    """Canaries first; each request forgets something that the model knows by then."""
    whole, canaries = plant(shop, 2, popularity=(3, 40), seed=seed)
    plan = make_plan(whole, clock_of(shop, None, "drawn", seed), requests=40, updates=5, canaries=canaries, seed=seed)
    dataset, kinds = begun(whole, plan, 0), []
    for event in plan.events:
        if isinstance(event, Learn):
            dataset = grown(dataset, whole, plan.arrivals[event.start : event.stop], 0)
        elif isinstance(event, Remove):
            forget_set = resolve(event.request, dataset)
            assert forget_set.forget.any(), event
            kinds.append(event.kind)
            dataset = retained(dataset, forget_set)
    assert kinds[:2] == ["canary", "canary"]
    assert dataset.removed_users[canaries.users].all()
    assert kinds.count("1 % of the users") == 2
    assert not dataset.removed_items[canaries.pairs].any()
    assert set(kinds) <= {"canary", "1 % of the users", "one user", "pairs of a user", "one item", "0.1 % of the users"}


@pytest.mark.parametrize("requests", [4, 5, 6, 20])
def test_two_requests_are_large(shop, requests):
    """However few there are beside the canaries."""
    whole, canaries = plant(shop, 2, popularity=(3, 40))
    plan = make_plan(whole, clock_of(shop, None, "drawn", 0), requests=requests, updates=2, canaries=canaries)
    kinds = [event.kind for event in plan.events if isinstance(event, Remove)]
    assert (len(kinds), kinds.count("1 % of the users")) == (requests, 2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"requests": 3}, "requests is 3; at least 4"),
        ({"begin": 1.0}, "begin is 1.0; a share above 0 and below 1"),
        ({"begin": 1e-6}, "begin is 1e-06: 0 of 900 pairs come before the stream; at least 1"),
        ({"updates": 0}, "updates is 0; 1 to"),
        ({"updates": 10**6}, "updates is 1000000; 1 to"),
    ],
)
def test_numbers_out_of_range(shop, words, message):
    with pytest.raises(InputError, match=message):
        make_plan(shop, clock_of(shop, None, "drawn", 0), **{"requests": 8, "updates": 2, **words})


def test_more_requests_than_there_is_to_forget():
    few = toy(12, 24, pairs_per_user=4, clusters=1, modalities=())
    with pytest.raises(InputError, match=r"after \d+ of them nothing is left"):
        make_plan(few, clock_of(few, None, "drawn", 0), requests=100, updates=1)


# What is taken up


@given(data=st.data())
def test_an_item_graph_grows_to_what_building_it_anew_gives(data):
    """In three parts; items without content have no place in it."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    items, k = data.draw(st.integers(2, 40)), data.draw(st.integers(1, 12))
    features = rng.normal(size=(items, 5)).astype(np.float32)
    features[rng.random(items) < 0.2] = 0
    turn = rng.integers(0, 3, items)
    graph = knn_similarities(np.where(turn[:, None] == 0, features, np.float32(0)), k)
    for now in (1, 2):
        shown = np.where(turn[:, None] <= now, features, np.float32(0))
        graph = grown_similarities(graph, shown, np.flatnonzero(turn == now), k, block=7)
    anew = knn_similarities(features, k)
    # The order of sums in a product follows the shape of the block.
    np.testing.assert_allclose(graph.toarray(), anew.toarray(), atol=1e-6)


def test_a_removed_item_stays_out_of_the_graph():
    features = np.random.default_rng(1).normal(size=(12, 4)).astype(np.float32)
    graph, gone = knn_similarities(features, 3), 5
    left = np.where(np.arange(12)[:, None] == gone, np.float32(0), features)
    kept = graph.toarray()
    kept[gone] = kept[:, gone] = 0
    wider = np.vstack([left, np.ones((1, 4), np.float32)])
    before = scipy.sparse.csr_array(np.pad(kept, (0, 1)))
    after = grown_similarities(before, wider, np.array([12]), 3).toarray()
    assert not after[gone].any()
    assert not after[:, gone].any()
    assert np.count_nonzero(after[12]) == 3


def test_without_requests_all_comes_together(planned):
    whole, plan = planned
    dataset = begun(whole, plan, 5)
    assert len(dataset.train) == plan.begin
    came = np.bincount(dataset.train[:, 1], minlength=whole.num_items) > 0
    for m in whole.modalities:
        assert not dataset.features[m][~came].any()
        np.testing.assert_array_equal(dataset.features[m][came], whole.features[m][came])
    for event in plan.events:
        if isinstance(event, Learn):
            dataset = grown(dataset, whole, plan.arrivals[event.start : event.stop], 5)
    np.testing.assert_array_equal(dataset.train, whole.train)
    seen = np.bincount(whole.train[:, 1], minlength=whole.num_items) > 0
    for split in ("valid", "test"):
        pairs = getattr(whole, split)
        np.testing.assert_array_equal(getattr(dataset, split), pairs[seen[pairs[:, 1]]])
    for m in whole.modalities:
        anew = knn_similarities(np.where(seen[:, None], whole.features[m], np.float32(0)), 5)
        np.testing.assert_allclose(dataset.similarities[m].toarray(), anew.toarray(), atol=1e-6)


def test_what_was_removed_does_not_come_back(planned):
    whole, plan = planned
    dataset = begun(whole, plan, 3)
    later = plan.arrivals[plan.begin :]
    user, item = later[0, 0], later[-1, 1]
    dataset = retained(dataset, resolve(Request(users=[int(user)], items=[int(item)]), dataset))
    dataset = grown(dataset, whole, later, 3)
    for split in ("train", "valid", "test"):
        pairs = getattr(dataset, split)
        assert user not in pairs[:, 0]
        assert item not in pairs[:, 1]
    assert not any(dataset.features[m][item].any() for m in dataset.modalities)
    assert not any(dataset.similarities[m][[item]].nnz for m in dataset.modalities)


# The guard


def test_when_exact_retraining_is_due():
    guard = Guard(forgotten=0.1, lost=0.2)
    assert objection(guard, Spent(0.1, 0.1, 0.5, 0.4)) is None  # as much as is allowed
    assert "11.0% of the pairs forgotten" in str(objection(guard, Spent(0.11, 0, 0.5, 0.5)))
    assert "12.0% of the pairs taken up" in str(objection(guard, Spent(0, 0.12, 0.5, 0.5)))
    assert "fell by 22.0%" in str(objection(guard, Spent(0, 0, 0.5, 0.39)))
    assert objection(guard, Spent()) is None
    with pytest.raises(InputError, match=r"forgotten: 1\.5"):
        Guard(forgotten=1.5)


def test_retraining_pays_back():
    log = [
        {"event": "original", "watched recall@20": 0.5},
        {"event": "remove", "share": 0.04},
        {"event": "learn", "grown": 0.03, "watched recall@20": 0.45},
        {"event": "remove", "share": 0.02},
        {"event": "learn", "grown": 0.05, "watched recall@20": 0.45},
    ]
    assert spent_after(log) == Spent(pytest.approx(0.06), pytest.approx(0.08), 0.5, 0.45)
    assert spent_after([*log, {"event": "retrain", "watched recall@20": 0.48}]) == Spent(0, 0, 0.48, 0.48)


@pytest.mark.slow
def test_what_the_guard_watches_is_recall(shop):
    """The same number as the evaluation's, of the users who are asked for; whoever has gone is left out."""
    model = fit(shop, CONFIG)
    everyone = np.unique(shop.valid[:, 0])
    task = held_out_task(model.dataset, "valid")
    expected = ranking_metrics(model.rows, task, (20,))["recall@20"]
    assert watched_recall(model, everyone) == {WATCHED_FIGURE: pytest.approx(expected)}
    answered = answer(model, [f"users:{everyone[0]}", "items:3"], "surgery")
    task = held_out_task(answered.dataset, "valid")
    expected = ranking_metrics(answered.rows, task, (20,))["recall@20"]
    assert watched_recall(answered, everyone) == {WATCHED_FIGURE: pytest.approx(expected)}
    assert watched_recall(answered, everyone[:1]) == {}


# The replay


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"golds": -1}, "golds is -1; a whole number of at least 0 is allowed"),
        ({"canaries": -2}, "canaries is -2; a whole number of at least 0 is allowed"),
        ({"method": "detla"}, "method 'detla' is not known"),
        ({"method": "gold"}, "method 'gold' retrains, or prepares"),
        ({"method": "sisa"}, "method 'sisa' retrains, or prepares"),
        ({"seed": -1}, "seed"),
        ({"requests": 6.5}, "requests is 6.5; a whole number of at least 0"),
        ({"updates": "2"}, "updates is '2'; a whole number of at least 0"),
        ({"golds": True}, "golds is True; a whole number of at least 0"),
        ({"learning": {"epochs": 2}}, "learning: .* given; a Learning is expected"),
        ({"guard": {"lost": 0.1}}, "guard: .* given; a Guard is expected"),
    ],
)
def test_what_a_replay_does_not_take(shop, tmp_path, words, message):
    """Told before anything is trained."""
    with pytest.raises(InputError, match=message):
        replay(shop, clock_of(shop, None, "drawn", 0), CONFIG, **{"out": tmp_path / "out", **words})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("place", "given", "message"),
    [
        (0, "data/shop", "dataset: 'data/shop' given; a Dataset is expected"),
        (1, "order", "clock: 'order' given; a Clock is expected"),
        (1, Clock("drawn", np.zeros(3)), "clock: 3 times; the data has .* so it is not the clock of these data"),
        (2, "fast", "config: 'fast' given; a Config is expected"),
    ],
)
def test_a_replay_of_something_else(shop, tmp_path, place, given, message):
    asked = [shop, clock_of(shop, None, "drawn", 0), CONFIG]
    asked[place] = given
    with pytest.raises(InputError, match=message):
        replay(*asked, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_requests_of_later_quarters_are_not_counted(planned):
    whole, plan = planned
    dataset, stream = begun(whole, plan, 0), SimpleNamespace(plan=plan, whole=whole)
    for index, event in enumerate(plan.events):
        if isinstance(event, Learn):
            dataset = grown(dataset, whole, plan.arrivals[event.start : event.stop], 0)
        elif isinstance(event, Remove):
            dataset = retained(dataset, resolve(event.request, dataset))
        asked = [tuple(p) for e in plan.events[:index] if isinstance(e, Remove) for p in e.request.pairs]
        counted = list(map(tuple, _removed_pairs(stream, index, dataset).tolist()))
        assert set(counted) <= set(asked)


def test_a_backbone_that_takes_no_steps(shop, tmp_path):
    with pytest.raises(InputError, match="'ease' is solved in closed form"):
        replay(shop, clock_of(shop, None, "drawn", 0), Config("ease"), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


OPTIONS = {
    "requests": 8,
    "updates": 3,
    "canaries": 1,
    "golds": 1,
    "guard": Guard(forgotten=0.03, learned=1.0),
    "learning": Learning(epochs=1),
}


class Cut(Exception):
    """The process is killed here."""


def played(shop, out, cut_at=None):
    told = []

    def tell(line):
        told.append(line)
        if cut_at is not None and len(told) == cut_at:
            raise Cut

    clock = clock_of(shop, None, "drawn", 0)
    return replay(shop, clock, CONFIG, **OPTIONS, out=out, tell=tell)


def untimed(value):
    """Without what a clock on the wall says."""
    if isinstance(value, list):
        return [untimed(part) for part in value]
    if isinstance(value, dict):
        return {key: untimed(part) for key, part in value.items() if "seconds" not in key and key != "compiling"}
    return value


@pytest.mark.slow
def test_a_replay_that_is_killed_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    """Cut off twice, between updates, it ends as one that was not: the same log, the same parameters."""
    shop = toy(150, 90, pairs_per_user=8, clusters=3, feature_size=4)
    whole = played(shop, tmp_path / "whole")
    for cut_at in (6, 4):
        with pytest.raises(Cut):
            played(shop, tmp_path / "cut", cut_at)
    gone_on = played(shop, tmp_path / "cut")
    assert untimed(gone_on["events"]) == untimed(whole["events"])
    (last,) = {*checkpoint.saved_epochs(tmp_path / "whole")}
    like = {"params": shapes(set_up(plant(shop, 1)[0], CONFIG))}
    one, other = (checkpoint.load_tree(checkpoint.state_path(tmp_path / name, last), like) for name in ("whole", "cut"))
    jax.tree.map(np.testing.assert_array_equal, one, other)

    events = [event["event"] for event in whole["events"]]
    assert events.count("remove") == 8
    assert events.count("quarter") == 4
    assert "retrain" in events  # the guard was given little
    assert all(e["seconds"] >= 0 for e in whole["events"] if "seconds" in e)

    # What the guard asked for after a request is kept: cut off in what follows, it is not trained again.
    retrained = 1 + [*itertools.pairwise(events)].index(("remove", "retrain"))
    trained = []
    monkeypatch.setattr(
        sys.modules["recunlearn_jax.stream.replay"],
        "train",
        lambda *a, run, **k: trained.append(run.name) or train(*a, run=run, **k),
    )
    with pytest.raises(Cut):
        played(shop, tmp_path / "later", retrained + 2)
    name = f"retrained-{whole['events'][retrained]['index']}"
    assert trained == ["original", name]
    assert untimed(played(shop, tmp_path / "later")["events"]) == untimed(whole["events"])
    assert trained.count(name) == 1
    assert not [*(tmp_path / "later").glob("retrained-*")]

    text = stream_markdown(whole)
    assert "8 requests removed" in text
    assert "exact retraining" in text
    other = clock_of(shop, None, "drawn", 1)._replace(kind="drawn")
    with pytest.raises(InputError, match="holds a stream of another plan_digest"):
        replay(shop, other, CONFIG, **OPTIONS, out=tmp_path / "whole")
    with pytest.raises(InputError, match=r"holds a stream of another .*requests"):
        replay(shop, clock_of(shop, None, "drawn", 0), CONFIG, requests=9, canaries=1, out=tmp_path / "whole")


@pytest.mark.slow
def test_the_command(tmp_path, capsys):
    shop = toy(120, 80, pairs_per_user=7, clusters=2, feature_size=4)
    write_dataset(shop, tmp_path / "data")
    words = [
        "stream",
        "--data",
        str(tmp_path / "data"),
        "--out",
        str(tmp_path / "out"),
        "--requests",
        "4",
        "--updates",
        "2",
    ]
    words += ["--canaries", "0", "--golds", "1", "--backbone", "mf"]
    words += ["--set", "train.max_epochs=1", "learn.epochs=1", "guard.lost=1"]
    assert cli.main(words) == 0
    assert "In service" in capsys.readouterr().out
    result = json.loads((tmp_path / "out" / "stream.json").read_text())
    assert result["learning"]["epochs"] == 1
    assert result["guard"]["lost"] == 1
    assert (tmp_path / "out" / "stream.png").stat().st_size > 10_000
    assert cli.main([*words, "guard.forgotten=2"]) == 2
    assert "guard.forgotten: 2" in capsys.readouterr().err
