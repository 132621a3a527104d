"""The audit and its instruments: each check against a slow oracle or a case whose answer is visible, and the audit as a whole on models
that must be flagged and on Golds that must pass."""

import dataclasses
import functools
import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from toys import NO_PAIRS, small_dataset, sorted_pairs

from recunlearn_jax.audit import CHECKS, Subject, cooccurrence, examine, likelihood, make_case, sequence
from recunlearn_jax.audit.base import Attempt
from recunlearn_jax.audit.canary import plant as plant_canaries
from recunlearn_jax.audit.checks import judged_figures
from recunlearn_jax.audit.cooccurrence import correlation, cosines, lost_cooccurrences
from recunlearn_jax.audit.divergence import kl_divergence
from recunlearn_jax.audit.diversity import distance, diversity, gini
from recunlearn_jax.audit.groups import group_tasks
from recunlearn_jax.audit.likelihood import (
    Candidates,
    attacked,
    candidates,
    likelihood_ratios,
    shadow_data,
    shadow_request,
    train_shadows,
)
from recunlearn_jax.audit.membership import area_under_curve, held_out_pairs, true_positives_at
from recunlearn_jax.audit.overlap import overlap
from recunlearn_jax.audit.relearn import forget_loss, lesson, relearn_steps
from recunlearn_jax.audit.sequence import answer_in_turn, in_parts
from recunlearn_jax.audit.shilling import plant_shills, target_exposure
from recunlearn_jax.backbones import mf, mgcn
from recunlearn_jax.backbones.base import sizes_of
from recunlearn_jax.config import Config, TrainConfig
from recunlearn_jax.errors import InputError
from recunlearn_jax.evaluate import ranking_task, ranks_found
from recunlearn_jax.graph import with_item_graphs
from recunlearn_jax.recommender import Recommender, set_up
from recunlearn_jax.requests import Request, as_request, forget_pairs, parse, resolve, retained
from recunlearn_jax.results import INSIDE
from recunlearn_jax.stopwatch import stopwatch
from recunlearn_jax.synthetic import toy
from recunlearn_jax.train import fit
from recunlearn_jax.unlearn import NoSettings, answer, mmrecun
from recunlearn_jax.unlearn.sharded import as_tables
from recunlearn_jax.verdict import (
    Figure,
    Measured,
    bands,
    false_alarms,
    judge,
    judgement,
    prediction_band,
    verdicts,
    without,
)

pytestmark = pytest.mark.slow

CONFIG = Config(
    model=mgcn.Settings(embedding_size=16, neighbours=5, layout="segment"),
    train=TrainConfig(batch_size=512, learning_rate=1e-2, max_epochs=30, patience=30),
)
STEPS = mmrecun.Settings(steps=30, batch_size=256)
FIGURES = judged_figures(list(CHECKS))
OF_ROWS = [name for name, check in CHECKS.items() if check.needs != "method"]
RNG = np.random.default_rng(0)


# --- the instruments


@pytest.mark.parametrize("ties", [False, True])
def test_area_under_curve_counts_pairs(ties):
    members, others = (RNG.integers(0, 5, n) if ties else RNG.normal(size=n) for n in (13, 17))
    expected = np.mean([(a > b) + 0.5 * (a == b) for a, b in itertools.product(members, others)])
    assert area_under_curve(members, others) == pytest.approx(expected)


def test_true_positives_leave_at_most_that_many_false_ones():
    others, members = np.arange(200.0), np.array([197.0, 198.0, 199.5, 300.0])
    assert true_positives_at(members, others, 0.01) == 0.75  # two of 200 are allowed: 198 and 199
    assert true_positives_at(others, others, 0.01) == 0.01


def test_overlap_and_kl_against_numpy():
    a, b = np.array([[1, 2, 3], [4, 5, -1]]), np.array([[3, 2, 9], [6, -1, -1]])
    assert overlap(a, b) == pytest.approx((2 / 3 + 0) / 2)
    assert overlap(a, a) == 1
    x, y = (RNG.normal(size=(9, 4)).astype(np.float32) for _ in range(2))
    users, items = np.arange(3), np.arange(3, 9)
    p, q = (scipy.special.softmax(z[users] @ z[items].T, axis=1) for z in (x, y))
    expected = scipy.stats.entropy(p, q, axis=1).mean()
    got = kl_divergence(jnp.asarray(x), jnp.asarray(y), jnp.asarray(users), jnp.asarray(items))
    assert float(got) == pytest.approx(expected, rel=1e-5)


def test_gini_is_the_mean_difference():
    counts = RNG.integers(0, 9, 12)
    expected = np.abs(counts[:, None] - counts[None]).mean() / (2 * counts.mean())
    assert gini(counts) == pytest.approx(expected)
    assert gini(np.zeros(3)) == 0


def test_diversity_of_two_extremes():
    dataset = toy(60, 40, pairs_per_user=6, clusters=2, feature_size=4)
    known = np.flatnonzero(np.bincount(dataset.train[:, 1], minlength=40))
    one_list = np.tile(known[:4], (60, 1))
    spread = np.stack([np.roll(known, -4 * i)[:4] for i in range(60)])
    narrow, wide = diversity(one_list, dataset), diversity(spread, dataset)
    assert narrow["coverage"] == pytest.approx(4 / len(known))
    assert wide["coverage"] == 1
    assert narrow["evenness"] < 0.15
    assert wide["evenness"] > 0.9
    share = np.bincount(dataset.train[:, 1], minlength=40)[known[:4]] / len(np.unique(dataset.train[:, 0]))
    assert narrow["novelty"] == pytest.approx(np.mean(-np.log2(share)))


def test_distance_within_a_list_counts_pairs():
    features = {"a": RNG.normal(size=(10, 3)).astype(np.float32), "b": RNG.normal(size=(10, 5)).astype(np.float32)}
    lists = np.array([[0, 1, 2], [5, 6, 9]])
    expected = []
    for table, row in itertools.product(features.values(), lists):
        unit = table / np.linalg.norm(table, axis=1, keepdims=True)
        expected.append(np.mean([1 - unit[i] @ unit[j] for i, j in itertools.combinations(row, 2)]))
    assert distance(lists, features) == pytest.approx(np.mean(expected), rel=1e-5)


def test_lost_cooccurrences_by_hand():
    pairs = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 3), (2, 4), (3, 0), (3, 5)]
    dataset = small_dataset().replace(train=sorted_pairs(pairs), valid=[], test=[])
    forget_set = resolve(parse(["users:0"]), dataset)
    pairs = lost_cooccurrences(dataset, retained(dataset, forget_set), forget_pairs(dataset, forget_set))
    assert sorted(map(tuple, pairs.tolist())) == [(0, 1), (0, 2)]  # 1 and 2 still share user 1
    forget_set = resolve(parse(["pairs:2-3"]), dataset)  # a forgotten pair beside a retained one of the same user
    pairs = lost_cooccurrences(dataset, retained(dataset, forget_set), forget_pairs(dataset, forget_set))
    assert pairs.tolist() == [[3, 4]]


def test_a_sample_of_lost_cooccurrences_is_of_all_items(monkeypatch):
    dataset = toy(200, 150, pairs_per_user=8, clusters=1, modalities=())
    forget_set = resolve(parse(["pairs:20%"]), dataset)
    found = functools.partial(
        lost_cooccurrences, dataset, retained(dataset, forget_set), forget_pairs(dataset, forget_set)
    )
    whole, some = found(), found(most=200)
    assert len(some) == 200 < len(whole) / 3
    assert {*map(tuple, some.tolist())} < {*map(tuple, whole.tolist())}
    assert abs(np.median(some) - np.median(whole)) < 10
    np.testing.assert_array_equal(some, found(most=200))
    monkeypatch.setattr(cooccurrence, "_AT_ONCE", 7)
    np.testing.assert_array_equal(some, found(most=200))


def test_correlation_of_similarities():
    z = jnp.asarray(RNG.normal(size=(12, 4)), jnp.float32)
    pairs = np.array([(0, 1), (2, 3), (4, 5), (6, 7)])
    own = cosines(z, pairs, 2)
    a, b = np.asarray(z[2:])[pairs.T]
    np.testing.assert_allclose(own, (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1), rtol=1e-5)
    assert correlation(own, own) == pytest.approx(1)
    assert correlation(own, np.zeros(4)) is None


def test_groups_by_hand():
    train = [(0, 0), (0, 1), (1, 1), (1, 2), (2, 3), (3, 3), (3, 4), (3, 5)]
    test = [(1, 4), (2, 0), (3, 1), (3, 2)]
    dataset = small_dataset().replace(train=sorted_pairs(train), test=sorted_pairs(test), valid=NO_PAIRS)
    forget_set = resolve(parse(["users:0"]), dataset)
    retain = retained(dataset, forget_set)
    tasks = group_tasks(retain, forget_pairs(dataset, forget_set))

    def users(name):
        return sorted(np.asarray(tasks[name].users)[np.asarray(tasks[name].real)].tolist())

    assert users("near") == [1]  # has item 1, which user 0 had
    assert users("far") == [2, 3]
    assert users("active") == [3]
    assert users("inactive") == [2]
    one = resolve(parse(["pairs:3-5"]), dataset)
    tasks = group_tasks(retained(dataset, one), forget_pairs(dataset, one))
    assert users("near") == [3]  # nobody else has item 5; who lost the pair is near it
    # items 3 and 1 have two train pairs each; the best known ones with a fifth of all pairs are head
    assert sorted(np.asarray(tasks["head"].relevant)[0, :, 1].tolist()) == [1]


def test_ranks_found_are_those_of_a_sorted_list():
    z = RNG.normal(size=(8 + 20, 5)).astype(np.float32)
    masked = np.array([(0, 3), (2, 7)])
    pairs = np.array([(0, 1), (0, 5), (2, 4), (7, 19)])
    scores = z[:8] @ z[8:].T
    scores[masked[:, 0], masked[:, 1]] = -np.inf
    expected = sorted(1 + int((scores[u] > scores[u, i]).sum()) for u, i in pairs)
    assert sorted(ranks_found(jnp.asarray(z), ranking_task(pairs, masked, 20)).tolist()) == expected


# --- verdicts


def test_a_band_is_the_students_prediction_interval():
    values = np.array([1.0, 2.0, 4.0, 5.0])
    band = prediction_band(values, sides=2, figures=10)
    half = scipy.stats.t.ppf(1 - 0.05 / 20, 3) * values.std(ddof=1) * np.sqrt(1.25)
    assert (band.low, band.high) == pytest.approx((3 - half, 3 + half))
    one_sided = prediction_band(values, sides=1, figures=1)
    assert one_sided.low == pytest.approx(3 - scipy.stats.t.ppf(0.95, 3) * values.std(ddof=1) * np.sqrt(1.25))
    assert prediction_band(values[:1], sides=1, figures=1).low is None
    assert prediction_band(values[:2], sides=1, figures=1).low is not None
    assert prediction_band(values[:2], sides=1, figures=1, among_golds=True).low is None  # two Golds have one distance


@pytest.mark.parametrize(
    ("rule", "below", "above"),
    [
        ("utility", "utility lost", INSIDE),
        ("variety", "variety lost", INSIDE),
        ("remembered", "over-forgotten", "under-forgotten"),
        ("erased", "under-forgotten", "over-forgotten"),
        ("distance", INSIDE, "unlike Gold"),
        ("likeness", "unlike Gold", INSIDE),
    ],
)
def test_verdicts_by_rule(rule, below, above):
    figure = Figure("any", rule, 0.1)
    assert judge(0.0, figure, 1.0, 2.0) == below
    assert judge(1.5, figure, 1.0, 2.0) == INSIDE
    assert judge(3.0, figure, 1.0, 2.0) == above
    assert judge(2.05, figure, 1.0, 2.0) == INSIDE  # less than what the figure can tell apart


def rows_of_golds(rng, count, names):
    """Independent figures, and distances d_ij = v_i + v_j to single Golds with their mean."""
    own = rng.gamma(3.0, size=count)
    rows = {f"gold-{i}": dict(zip(names, rng.normal(size=len(names)), strict=True)) for i in range(count)}
    for i, row in enumerate(rows.values()):
        apart = {f"KL divergence retain/gold-{j}": own[i] + own[j] for j in range(count) if j != i}
        row.update(apart, **{"KL divergence retain": np.mean(list(apart.values()))})
    return rows


@pytest.mark.parametrize("golds", [3, 5])
def test_a_further_gold_is_accused_as_often_as_stated(golds):
    """5 % of figures on their own, and in about 5 % of models any of them together; distances between Golds no more often."""
    rng, names = np.random.default_rng(1), [f.name for f in FIGURES if f.rule not in {"distance", "likeness"}][:12]
    alone, together, apart, models = 0, 0, 0, 400
    for _ in range(models):
        rows = rows_of_golds(rng, golds + 1, names)
        left = [without(row, "gold-0") for name, row in rows.items() if name != "gold-0"]
        found = verdicts(FIGURES, rows["gold-0"], bands(FIGURES, left, len(names) + 1))
        distance_found = found.pop("KL divergence retain")
        alone += sum(v["suspicion"] != INSIDE for v in found.values())
        apart += distance_found["suspicion"] != INSIDE
        together += any(v["verdict"] != INSIDE for v in found.values())
    assert 0.035 < alone / (models * len(names)) < 0.065
    assert apart / models < 0.1  # skewed, so not exactly 5 %; without the correction about 15 %
    assert together / models < 0.09
    counts = false_alarms(FIGURES, rows, len(names) + 1)
    assert counts is not None
    assert counts["judged"] == (golds + 1) * (len(names) + 1)
    assert false_alarms(FIGURES, {name: rows[name] for name in list(rows)[:2]}, 1) is None


# --- planted users, sequences, shadows


def test_shills_push_an_item_and_leave_with_their_users():
    dataset = with_item_graphs(toy(150, 80, pairs_per_user=8, clusters=4, feature_size=8), 5)
    planted, shills = plant_shills(dataset, 2, group=30, seed=0)
    assert planted.num_users == dataset.num_users + 60
    again, _ = plant_shills(dataset, 2, group=30, seed=0)
    assert again.checksum == planted.checksum
    for target, users in zip(shills.targets, shills.users.reshape(2, 30), strict=True):
        assert planted.train_matrix[users][:, [target]].sum() == 30
    case = make_case(dataset, parse(["users:1"]), CONFIG, {"shilling": 2})
    assert not np.isin(case.retain.train[:, 0], case.planted["shilling"].users).any()
    shill_ids = ",".join(map(str, shills.users))
    left = retained(planted, resolve(parse([f"users:{shill_ids}"]), planted))
    assert np.array_equal(left.train, dataset.train)
    original, gold = fit(planted, CONFIG), fit(left, CONFIG, sizes=sizes_of(planted))
    pushed, clean = (target_exposure(model.rows, shills, left) for model in (original, gold))
    assert pushed > 1.2 * clean, (pushed, clean)
    with pytest.raises(InputError, match="shilling targets"):
        plant_shills(dataset, 1000)


def test_planted_users_leave_with_the_request():
    """What is planted is forgotten beside what is asked for; a share is drawn among the users who were there; two checks do not plant upon
    one item."""
    dataset = toy(150, 80, pairs_per_user=8, clusters=4, modalities=())
    request = parse(["users:10%"], 3)
    alone, both = (make_case(dataset, request, CONFIG, plant) for plant in (None, {"canary": 2, "shilling": 1}))
    added = both.dataset.num_users - dataset.num_users
    assert added == len(both.planted["canary"].users) + len(both.planted["shilling"].users)
    assert np.array_equal(both.forget_set.users, np.append(alone.forget_set.users, np.ones(added, bool)))
    assert not np.isin(both.planted["shilling"].targets, both.planted["canary"].pairs).any()
    assert make_case(dataset, request, CONFIG, {"canary": 0}).planted == {}
    with pytest.raises(InputError, match="'canari' plants nothing; did you mean 'canary'"):
        make_case(dataset, request, CONFIG, {"canari": 2})
    with pytest.raises(InputError, match="'utility' plants nothing"):
        make_case(dataset, request, CONFIG, {"utility": 2})
    with pytest.raises(InputError, match="seed -1 given"):
        make_case(dataset, Request(users="5%", seed=-1), CONFIG, {"canary": 2})


def test_canaries_of_a_shop_with_few_items():
    """Their users buy what there is."""
    shop = small_dataset().replace(train=sorted_pairs([(0, 0), (0, 1), (1, 2), (1, 3)]), valid=[], test=[])
    planted, canaries = plant_canaries(shop, 1, popularity=(1, 100))
    assert set(canaries.pairs.ravel().tolist()) <= {0, 1, 2, 3}
    assert planted.num_users == shop.num_users + len(canaries.users)


def test_figures_that_are_only_shown_widen_no_band():
    figure = Figure("kept", "utility")
    golds = {f"gold-{i}": {} for i in range(5)}

    def judged(**shown):
        of_golds = {f"gold-{i}": {"kept": float(i + 1), **shown} for i in range(5)}
        return judgement([figure], {"method": Measured({"kept": -2.0, **shown}, of_golds)}, golds)["verdicts"]

    assert judged()["method"]["kept"]["verdict"] == "utility lost"
    assert judged(**{f"shown {n}": 0.0 for n in range(50)}) == judged()


@pytest.fixture(scope="module")
def bare():
    """A case with canaries."""
    dataset = toy(200, 90, pairs_per_user=8, clusters=4, feature_size=8)
    return make_case(dataset, parse(["users:5%"], 1), CONFIG, {"canary": 3})


@pytest.fixture(scope="module")
def original(bare):
    return fit(bare.dataset, CONFIG)


@pytest.fixture(scope="module")
def golds(bare, original):
    models = {f"gold-{i}": fit(bare.retain, CONFIG, seed=i, sizes=original.sizes) for i in range(1, 6)}
    for model in models.values():  # retrained in the original's program
        assert not sum(entry["compile_seconds"] for entry in model.history[1:])
    return models


@pytest.fixture(scope="module")
def case(bare, original, golds):
    """With its models; the fifth Gold is left out, to be judged by the others."""
    return bare._replace(original=original, golds={name: golds[name] for name in list(golds)[:4]})


def model_of(rows, case):
    """A recommender with these output rows."""
    config = Config("mf", mf.Settings(embedding_size=rows.shape[1]), CONFIG.train)
    return Recommender(set_up(case.retain, config, case.original.sizes), as_tables(rows, case.dataset))


@pytest.mark.parametrize("modality", ["modality:image:1,2,3,5", "modality:image"])
@pytest.mark.parametrize("of", ["numbers", "names"])
def test_parts_of_a_request_are_the_request(case, modality, of):
    """Also where content goes of items that are removed with it, or were before: they have no name any more."""
    dataset = case.dataset
    if of == "names":
        names = {kind: [f"{kind}-{n}" for n in range(getattr(dataset, f"num_{kind}s"))] for kind in ("user", "item")}
        dataset = dataset.replace(user_ids=names["user"], item_ids=names["item"])
        modality = modality.replace("1,2,3,5", "item-1,item-2,item-3,item-5")
    (earlier, item), users = (dataset.named(kind, np.array(ids)) for kind, ids in (("item", [4, 3]), ("user", [1, 2])))
    dataset = retained(dataset, resolve({"items": [earlier]}, dataset))
    single = zip(*(dataset.named(kind, dataset.train[:7, i]) for i, kind in enumerate(("user", "item"))), strict=True)
    request = as_request({"items": [item], "users": users, "pairs": [*single]})
    whole = resolve(dataclasses.replace(request, modality=parse([modality]).modality), dataset)
    retain = dataset
    for part in in_parts(whole, dataset, 3):
        retain = retained(retain, resolve(part, retain))
    assert retain.checksum == retained(dataset, whole).checksum


def test_requests_in_turn_compile_nothing_after_the_first(case):
    requests = in_parts(case.forget_set, case.dataset, 3)
    answer(case.original, requests[0], "mmrecun", STEPS)
    with stopwatch() as seconds:
        last = answer_in_turn(case.original, requests, "mmrecun", STEPS)
    assert seconds.programs == 0
    assert last.dataset.checksum == case.retain.checksum


def test_likelihood_ratio_finds_what_shadows_show():
    rng, n, shadows = np.random.default_rng(2), 400, 16
    member = np.arange(n) < n // 2
    inside = rng.random((shadows, n)).argsort(axis=0) < shadows // 2
    level = (
        rng.normal(size=n) * 5
    )  # each pair has a level of its own, which hides the difference from a population attack
    noise = rng.normal(size=(shadows + 1, n))
    chosen = Candidates(np.zeros((n, 2), np.int32), member, inside)
    told = attacked(level + 2 * member + noise[-1], level + 2 * inside + noise[:-1], chosen)
    assert told["likelihood ratio AUC"] > 0.85
    assert told["likelihood ratio TPR at 1% FPR"] > 0.2
    assert area_under_curve((level + 2 * member + noise[-1])[member], (level + noise[-1])[~member]) < 0.7
    forgotten = attacked(level + noise[-1], level + noise[:-1], chosen)
    assert 0.4 < forgotten["likelihood ratio AUC"] < 0.6
    # One candidate by hand.
    scores, of_shadows = np.array([1.0]), np.array([[0.0], [2.0], [5.0], [7.0]])
    rows = np.array([[True], [True], [False], [False]])
    ratio = scipy.stats.norm.logpdf(1, 1, np.sqrt(2)) - scipy.stats.norm.logpdf(1, 6, np.sqrt(2))
    assert likelihood_ratios(scores, of_shadows, rows)[0] == pytest.approx(ratio)


def test_shadows_side_by_side_are_shadows_one_by_one_and_resume(case, tmp_path):
    chosen = candidates(case, 4)
    assert (chosen.inside.sum(axis=0) == 2).all()
    datasets = shadow_data(case, chosen)
    for i, dataset in enumerate(datasets):
        had = set(map(tuple, dataset.train.tolist()))
        assert all(
            (tuple(p) in had) == inside for p, inside in zip(chosen.pairs.tolist(), chosen.inside[i], strict=True)
        )
        assert not set(map(tuple, dataset.test.tolist())) & set(map(tuple, chosen.pairs.tolist()))
        retain = retained(dataset, resolve(shadow_request(case, dataset, chosen.pairs[chosen.inside[i]]), dataset))
        assert np.array_equal(retain.train, case.retain.train)
    alone = train_shadows(datasets, CONFIG, 2, seed=3)
    together = train_shadows(datasets, CONFIG, 2, seed=3, together=4)
    train_shadows(datasets, CONFIG, 1, seed=3, run=tmp_path)
    resumed = train_shadows(datasets, CONFIG, 2, seed=3, run=tmp_path)
    for a, b, c in zip(alone, together, resumed, strict=True):
        np.testing.assert_allclose(b.rows, a.rows, atol=1e-4)
        assert np.array_equal(c.rows, a.rows)
    assert not np.allclose(alone[0].rows, alone[1].rows)

    # Every shadow forgets in the programs of the first.
    for method, settings in (("surgery", None), ("mmrecun", STEPS)):
        requests = [
            shadow_request(case, s.dataset, chosen.pairs[own]) for s, own in zip(alone, chosen.inside, strict=True)
        ]
        programs = [answer(s, r, method, settings).seconds.programs for s, r in zip(alone, requests, strict=True)]
        assert programs[1:] == [0, 0, 0]


def test_a_shadow_may_hold_no_candidate(shop, monkeypatch):
    """Of a request for one pair; it has nothing to forget."""
    original = fit(shop, Config("mf", train=TrainConfig(batch_size=128, max_epochs=1)))
    user = shop.test[0, 0]
    pair = shop.train[shop.train[:, 0] == user][:1]
    case = make_case(shop, Request(pairs=pair.tolist()), original.config)._replace(original=original, shadows=4)
    chosen = candidates(case, 4)
    assert not chosen.inside.any(axis=1).all()
    monkeypatch.setattr(likelihood, "make_shadows", lambda *_, **__: likelihood.Shadows([original] * 4, chosen, {}))
    subject = Subject("surgery", original, Attempt("surgery", NoSettings(), 0))
    assert set(likelihood.CHECK.prepare(case)(subject)(subject)) == {figure.name for figure in likelihood.FIGURES}


# --- the audit is audited


@pytest.fixture(scope="module")
def report(case, golds):
    """Models that must be flagged, each for its own reason, and a Gold that must not be."""
    shift = case.dataset.num_users
    left_out = golds["gold-5"]
    users = jnp.asarray(np.flatnonzero(case.forget_set.users))
    loved = jnp.asarray(np.unique(forget_pairs(case.dataset, case.forget_set)[:, 1]))
    pushed = left_out.rows.at[users].set(-100 * jnp.mean(left_out.rows[shift + loved], axis=0)[None])
    noise = jax.random.normal(jax.random.key(1), pushed.shape)
    blurred = left_out.rows + 3 * jnp.std(left_out.rows) * noise
    models = {
        "original": case.original,
        "surgery": answer(case.original, case.forget_set, "surgery"),
        "pushed": model_of(pushed, case),
        "blurred": model_of(blurred, case),
        "left out": left_out,
    }
    return examine(case, [Subject(name, model) for name, model in models.items()], OF_ROWS)


def missed(report, name, kind="suspicion"):
    return {figure: found[kind] for figure, found in report["verdicts"][name].items() if found[kind] != INSIDE}


def test_the_original_is_flagged(report, case):
    found = missed(report, "original", "verdict")
    assert found["forget recall@20"] == "under-forgotten"
    assert missed(report, "original")["membership AUC"] == "under-forgotten"
    assert report["figures"]["original"]["relearn steps"] == 0
    assert all(report["figures"][name]["relearn steps"] > 5 for name in case.golds)
    assert report["figures"]["original"]["similarity correlation"] == pytest.approx(1)


def test_relearning_at_another_rate_shares_the_program(case, golds):
    """A rate near 0 learns nothing, so all steps are taken."""
    taught = lesson(case.original, forget_pairs(case.dataset, case.forget_set))
    backbone = case.original.backbone
    target = forget_loss(case.original.params, taught, backbone=backbone)
    start = (golds["gold-1"].params, taught, target)
    relearn_steps(*start, backbone=backbone, learning_rate=1e-2, most_steps=2)
    with stopwatch() as seconds:
        steps = relearn_steps(*start, backbone=backbone, learning_rate=1e-9, most_steps=3)
    assert (int(steps), seconds.programs) == (3, 0)


def test_surgery_is_flagged_by_what_it_leaves_in_other_rows(report, case):
    figures = report["figures"]
    golds = [figures[name]["canary log10 rank"] for name in case.golds]
    assert figures["surgery"]["canary log10 rank"] < min(golds)
    assert {"canary log10 rank", "similarity correlation"} & set(missed(report, "surgery"))
    assert "under-forgotten" in missed(report, "surgery").values()


def test_a_few_canaries_that_stay_near_each_other_show_in_the_lowest_tenth(bare):
    """Three pairs of twenty: the median hides them."""
    rng = np.random.default_rng(0)
    pairs = rng.permutation(bare.dataset.num_items)[:40].reshape(20, 2).astype(np.int32)
    planted = {"canary": bare.planted["canary"]._replace(pairs=pairs)}
    measure = CHECKS["canary"].prepare(bare._replace(planted=planted))

    def figures(near=0):
        rows = rng.normal(size=(bare.dataset.num_users + bare.dataset.num_items, 8)).astype(np.float32)
        a, b = bare.dataset.num_users + pairs[:near].T
        rows[b] = rows[a]
        return measure(Subject("model", SimpleNamespace(rows=jnp.asarray(rows))))

    judged = CHECKS["canary"].figures
    among = bands(judged, [figures() for _ in range(16)], len(judged))
    for near, verdict in ((0, INSIDE), (3, "under-forgotten")):
        found = verdicts(judged, figures(near), among)
        assert found["canary log10 rank"]["verdict"] == INSIDE
        assert found["canary log10 lowest tenth"]["verdict"] == verdict


def test_pushing_forgotten_scores_below_gold_is_flagged(report):
    assert missed(report, "pushed", "verdict")["forget margin"] == "over-forgotten"


def test_lost_utility_is_flagged(report):
    assert missed(report, "blurred", "verdict")["test recall@20"] == "utility lost"


def test_a_left_out_gold_passes(report):
    assert not missed(report, "left out", "verdict")
    assert report["misses"]["left out"] == 0
    alarms = report["false_alarms"]
    assert alarms["verdicts"] / alarms["judged"] < 0.05


def test_a_model_that_is_not_finite_is_named_and_is_no_yardstick(case, golds):
    """It has no figures and no verdict, and takes no other model's; a Gold must be finite."""
    broken = model_of(golds["gold-1"].rows.at[0, 0].set(jnp.nan), case)
    subjects = [Subject("broken", broken), Subject("original", case.original)]
    found = examine(case, subjects, ["utility", "divergence"])
    assert found["not_finite"] == ["broken"]
    assert found["figures"]["broken"] == {}
    assert "broken" not in found["verdicts"]
    assert "broken" not in found["misses"]
    assert found["verdicts"]["original"]
    with pytest.raises(InputError, match="gold-1: its output rows are not finite"):
        examine(case._replace(golds={**case.golds, "gold-1": broken}), [], ["utility"])


def test_every_check_but_those_of_shadows_and_sequences_has_figures(report, case):
    checks = {f["check"] for f in report["judged"] if f["name"] in report["figures"]["original"]}
    assert checks == {1, 2, 3, 4, 5, 6, 7, 9}
    assert report["checks"] == {name: CHECKS[name].version for name in OF_ROWS}
    assert {check.number for check in CHECKS.values()} == set(range(1, 14))
    assert len(held_out_pairs(case))


def test_closeness_of_a_gold_is_to_the_others(case, golds):
    def closeness(golds):
        return examine(case._replace(golds=golds), [], ["divergence", "overlap"])["figures"]

    twins = closeness({"gold-1": golds["gold-1"], "gold-2": golds["gold-1"]})
    assert twins["gold-1"]["BPR divergence forget"] == 0
    assert twins["gold-1"]["overlap@20"] == 1
    apart = closeness({name: golds[name] for name in ("gold-1", "gold-2")})
    assert apart["gold-1"]["BPR divergence retain"] == pytest.approx(apart["gold-2"]["BPR divergence retain"])
    assert apart["gold-1"]["overlap@20"] < 1


def test_a_sequence_is_judged_by_golds_of_the_whole(case, monkeypatch):
    monkeypatch.setattr(sequence, "PARTS", 2)
    whole = Subject("surgery", answer(case.original, case.forget_set, "surgery"), Attempt("surgery", NoSettings(), 0))
    found = examine(case, [whole], ["utility", "forgetting", "divergence", "sequence"])
    rows = found["figures"]
    # Surgery moves no retained row, in parts or at once.
    assert rows["surgery"]["sequence test recall@20"] == pytest.approx(rows["surgery"]["test recall@20"])
    measure = CHECKS["sequence"].prepare(case)(whole)
    for name, gold in case.golds.items():
        own = measure(Subject(name, gold))
        assert own["sequence BPR divergence forget"] == rows[name]["BPR divergence forget"]
        assert "sequence test recall@20" not in rows[name]  # it is the method's figure, not the Gold's
    assert "sequence test recall@20" in found["verdicts"]["surgery"]
    assert "surgery/sequence test recall@20" in found["bands"]
