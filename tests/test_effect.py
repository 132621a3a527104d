"""What an answer changes, against coupled Golds, and what someone sees of it: each instrument against a slow oracle or a visible answer."""

import numpy as np
import pytest

from recunlearn_jax.audit import Subject, make_case
from recunlearn_jax.audit.base import Attempt, Replay
from recunlearn_jax.audit.checks import CHECKS
from recunlearn_jax.audit.dip import neighbour_scores
from recunlearn_jax.audit.dose import GROUPS, KINDS, plant_doses
from recunlearn_jax.audit.effect import probes, split, values
from recunlearn_jax.audit.examine import examine
from recunlearn_jax.backbones import mgcn
from recunlearn_jax.comparison import number_of, parse_golds
from recunlearn_jax.config import Config, TrainConfig
from recunlearn_jax.errors import InputError
from recunlearn_jax.requests import forget_pairs, parse
from recunlearn_jax.synthetic import toy
from recunlearn_jax.train import fit
from recunlearn_jax.unlearn import METHODS, NoSettings, answer
from recunlearn_jax.verdict import Figure, Measured, judgement

CONFIG = Config(
    model=mgcn.Settings(embedding_size=16, neighbours=5),
    train=TrainConfig(batch_size=256, learning_rate=1e-2, max_epochs=12, patience=12),
)
SURGERY = Attempt("surgery", NoSettings(), 1)


@pytest.fixture(scope="module")
def case():
    """Pairs and items are forgotten; two coupled Golds."""
    dataset = toy(150, 80, pairs_per_user=8, clusters=4, feature_size=8)
    made = make_case(dataset, parse(["pairs:5%", "items:5%"], 1), CONFIG)
    replays = {}
    for seed in (0, 1):
        original = fit(made.dataset, CONFIG, seed=seed)
        replays[f"coupled-{seed + 1}"] = Replay(original, answer(original, made.forget_set, "coupled"))
    return made._replace(original=replays["coupled-1"].original, replays=replays)


def test_split_by_hand():
    effect = np.array([3.0, 4.0, 0.0])
    assert split(effect, effect) == pytest.approx((1, 0))
    assert split(0 * effect, effect) == (0, 0)
    assert split(2 * effect, effect) == pytest.approx((2, 0))
    progress, collateral = split(np.array([0.0, 0.0, 10.0]) + effect / 2, effect)
    assert (progress, collateral) == pytest.approx((0.5, 2.0))


def test_probes_leave_removed_rows_out_and_know_who_is_affected(case):
    found, users = probes(case), case.dataset.num_users
    left = [set(case.retain.train[:, column].tolist()) for column in (0, 1)]
    forgotten = forget_pairs(case.dataset, case.forget_set)
    affected = {*forgotten[:, 0].tolist(), *(users + forgotten[:, 1]).tolist()}
    for pairs in (found.similarities, *found.scores.values()):
        assert len(pairs)
        nodes = np.unique(pairs)
        assert {n for n in nodes if n < users} <= left[0]
        assert {n - users for n in nodes if n >= users} <= left[1]
    assert set(np.unique(found.similarities)) <= affected
    kinds = found.similarities >= users
    assert np.array_equal(kinds[:, 0], kinds[:, 1])
    assert not affected & set(np.unique(found.scores["other scores"]).tolist())
    assert all(len(affected & {int(a), int(b)}) for a, b in found.scores["affected scores"])
    retained = {tuple(pair) for pair in case.retain.train.tolist()}
    assert {(int(a), int(b) - users) for a, b in found.scores["retained pairs"]} <= retained


def test_values_by_a_loop(case):
    found, rows = probes(case), np.asarray(case.original.rows, np.float64)
    seen = values(case.original, found)
    a, b = found.similarities[3]
    assert seen["similarities"][3] == pytest.approx(
        rows[a] @ rows[b] / np.linalg.norm(rows[a]) / np.linalg.norm(rows[b])
    )
    a, b = found.scores["other scores"][5]
    assert seen["other scores"][5] == pytest.approx(rows[a] @ rows[b])


def test_the_original_has_no_progress_and_the_coupled_gold_nothing_else(case):
    gold = case.replays["coupled-1"].gold
    alone = case._replace(replays={"coupled-1": case.replays["coupled-1"]})
    subjects = [Subject("original", case.original), Subject("as gold", gold, Attempt("gold", NoSettings(), 0))]
    figures = examine(alone, subjects, ["effect"])["figures"]
    for name, value in figures["original"].items():
        if name.startswith(("progress", "collateral")):
            assert value == 0, name
    for name, value in figures["as gold"].items():
        if name.startswith(("progress", "overlap")):
            assert value == pytest.approx(1), name
        if name.startswith(("collateral", "BPR")):
            assert value == pytest.approx(0, abs=1e-5), name
    assert figures["as gold"]["similarity correlation beyond coupled Gold's"] == pytest.approx(0)


def test_methods_answer_every_original(case):
    """Means over the pairs of original and coupled Gold are those of two comparisons of one pair each."""
    answered = answer(case.original, case.forget_set, "surgery", seed=1)
    subject = Subject("surgery", answered, SURGERY)
    both = examine(case, [subject], ["effect", "update"])["figures"]["surgery"]
    single = []
    for name, replay in case.replays.items():
        one = case._replace(original=replay.original, replays={name: replay})
        subject = Subject("surgery", answer(replay.original, case.forget_set, "surgery", seed=1), SURGERY)
        single.append(examine(one, [subject], ["effect", "update"])["figures"]["surgery"])
    assert set(single[0]) < set(both)
    for name in single[0]:
        pair = np.array([row[name] for row in single])
        assert both[name] == pytest.approx(pair.mean())
        assert both[f"{name}, s.e."] == pytest.approx(abs(pair[0] - pair[1]) / 2)
    assert 0 < both["progress similarities"] < 1
    assert "forgotten pairs" in " ".join(both)


def test_a_model_of_another_backbone_has_nothing_to_lay_beside_the_original(case):
    """EASE has other tables, rows and scores: it is judged by the checks that need none of them, and by no other."""
    method = METHODS["ease"]
    answered = answer(case.original, case.forget_set, "ease")
    subject = Subject("ease", answered, Attempt("ease", method.Settings(), 1))
    others = [name for name, check in CHECKS.items() if check.needs in {"params", "replays"}]
    assert {"effect", "update"} <= set(others)
    found = examine(case, [subject], ["forgetting", *others])["figures"]["ease"]
    assert found
    assert found.keys() == examine(case, [subject], ["forgetting"])["figures"]["ease"].keys()


def test_neighbour_scores_by_a_loop():
    rng = np.random.default_rng(0)
    rows, train = rng.normal(size=(12, 3)), np.array([[0, 0], [0, 1], [1, 1], [2, 1], [2, 4]])
    found = neighbour_scores(rows, np.array([[0, 4], [2, 1]]), train, 5)
    score = {(u, i): rows[u] @ rows[5 + i] for u, i in train.tolist()}
    expected = [
        (np.mean([score[0, 0], score[0, 1]]) + score[2, 4]) / 2,
        (np.mean([score[2, 1], score[2, 4]]) + np.mean([score[0, 1], score[1, 1], score[2, 1]])) / 2,
    ]
    np.testing.assert_allclose(found, expected)


def test_a_method_that_lowers_neighbours_is_found_by_them(case):
    """Scores around forgotten pairs lowered by hand: the dip sees it, and the update too."""
    users = case.dataset.num_users
    forgotten = forget_pairs(case.dataset, case.forget_set)
    left = np.isin(forgotten[:, 1], case.retain.train[:, 1])
    rows = np.array(case.original.rows)
    lowered = rows.copy()
    lowered[users + np.unique(forgotten[left, 1])] *= 0.3

    class Model:
        def __init__(self, rows):
            self.rows = rows

    measure = CHECKS["dip"].prepare(case)
    before, after = (measure(Subject("x", Model(r)))["neighbour dip AUC"] for r in (rows, lowered))
    assert after > before + 0.1
    one = case._replace(replays={"coupled-1": case.replays["coupled-1"]})
    update = CHECKS["update"].prepare(one)
    seen = update(Subject("x", Model(lowered)))
    assert seen["update AUC pairs"] > 0.65
    assert update(Subject("original", case.original))["update AUC pairs"] == pytest.approx(0.5)


def test_doses_are_planted_in_every_size_and_kind():
    dataset = toy(600, 120, pairs_per_user=8, clusters=4, modalities=())
    planted, found = plant_doses(dataset, 2, np.array([1, 2]), 0)
    known = np.bincount(dataset.train[:, 1], minlength=dataset.num_items)
    assert [(dose.group, dose.kind) for dose in found.what] == [(g, k) for k in KINDS for g in GROUPS]
    assert len(found.users) == 2 * 2 * sum(GROUPS) == planted.num_users - dataset.num_users
    assert len(np.unique(found.items)) == len(found.items) == 2 * 2 * len(found.what)
    assert not np.isin([1, 2], found.items).any()
    for dose in found.what:
        assert len(dose.canaries.users) == 2 * dose.group
        least, _ = KINDS[dose.kind]
        assert (known[dose.canaries.pairs] >= min(least, 3)).all()


def test_golds_in_words():
    assert parse_golds("5") == {"independent": 5}
    assert parse_golds("coupled:2,independent:5") == {"coupled": 2, "independent": 5}
    assert number_of(4) == {"independent": 4, "coupled": 1}
    assert number_of({"coupled": 2}) == {"independent": 3, "coupled": 2}
    for words in ("", "coupled", "coupled:-1", "coupled:1,coupled:2", "coupled:1.5"):
        with pytest.raises(InputError, match="expected a number, or such as"):
            parse_golds(words)
    with pytest.raises(InputError, match="no kind of Gold"):
        number_of(parse_golds("golden:3"))
    with pytest.raises(InputError, match="below 0"):
        number_of({"coupled": -1})


def test_golds_of_other_seeds_do_not_judge_what_keeps_the_seed():
    figures = [Figure("overlap", "likeness", seeded=True), Figure("rank", "erased")]
    golds = {f"gold-{i}": {"overlap": 0.5 + i / 1000, "rank": 3 + i / 1000} for i in range(4)}
    row = {"overlap": 0.1, "rank": 0.1}
    found = judgement(figures, {"own": Measured(row, {}), "kept": Measured(row, {}, kept_seed=True)}, golds)
    assert set(found["verdicts"]["own"]) == {"overlap", "rank"}
    assert set(found["verdicts"]["kept"]) == {"rank"}
    assert found["misses"] == {"own": 2, "kept": 1}
