"""Check 5, U-LiRA: can someone who knows how models that learnt and forgot a pair score it still tell that it was forgotten?

Shadow models are trained on the retained data and half of the candidates, and then forget that half by the method under examination.
For each candidate they give two distributions of its score: learnt and forgotten (in), never seen (out). The attacker compares the
score of the model under examination with both:

    log N(score; mean_in, sd_in) - log N(score; mean_out, sd_out)

Candidates are the forgotten pairs (members) and test pairs of the same users (no model of the case has seen them). A method that forgets
leaves no difference, and the area under the curve is Gold's.

Sources: Carlini et al. 2022 (arXiv 2112.03570), with one sd for all candidates as they advise for few shadows; Hayes et al. 2024
(arXiv 2403.01218), U-LiRA.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from recunlearn_jax import checkpoint
from recunlearn_jax.audit.base import Case, Check, Measure, Row, Subject
from recunlearn_jax.audit.membership import area_under_curve, true_positives_at
from recunlearn_jax.backbones import Backbone
from recunlearn_jax.backbones.base import Data, sizes_of
from recunlearn_jax.config import Config, TrainConfig
from recunlearn_jax.dataset import Dataset
from recunlearn_jax.evaluate import held_out_task, pair_margins, ranking_metrics
from recunlearn_jax.precision import check_precision
from recunlearn_jax.recommender import Recommender, init_params, set_up
from recunlearn_jax.requests import Request, forget_pairs, named
from recunlearn_jax.settings import seed_after
from recunlearn_jax.train import TrainState, best_entry, init_state, train, train_epoch
from recunlearn_jax.unlearn import answer
from recunlearn_jax.verdict import Figure


class Candidates(NamedTuple):
    """Pairs whose membership is guessed, and which shadow was trained on which."""

    pairs: np.ndarray  # int32 [n, 2]
    member: np.ndarray  # bool [n], a forgotten pair of the case
    inside: np.ndarray  # bool [shadows, n], each pair in half of the shadows


def candidates(case: Case, shadows: int, seed: int = 0) -> Candidates:
    """Forgotten pairs and test pairs of their users, dealt out to the shadows.

    Args:
        case: whose request has forgotten pairs.
        shadows: an even number of at least 4.
        seed: of the deal.
    """
    forgotten = forget_pairs(case.dataset, case.forget_set)
    others = case.dataset.test[np.isin(case.dataset.test[:, 0], forgotten[:, 0])]
    forgotten = forgotten[np.isin(forgotten[:, 0], others[:, 0])]  # both kinds are of the same users
    pairs = np.concatenate([forgotten, others])
    order = np.random.default_rng([seed, 17]).random((shadows, len(pairs))).argsort(axis=0)
    return Candidates(pairs, np.arange(len(pairs)) < len(forgotten), order < shadows // 2)


def shadow_data(case: Case, chosen: Candidates) -> list[Dataset]:
    """The data set of each shadow: the retained data and its candidates; candidates are taken out of test."""
    own = {tuple(pair) for pair in chosen.pairs.tolist()}
    test = np.array([pair for pair in case.dataset.test.tolist() if tuple(pair) not in own], np.int32).reshape(-1, 2)

    def with_train(pairs):
        train = np.concatenate([case.retain.train, pairs.astype(np.int32)])
        return case.dataset.replace(train=train[np.lexsort((train[:, 1], train[:, 0]))], test=test)

    return [with_train(chosen.pairs[rows]) for rows in chosen.inside]


def shadow_request(case: Case, dataset: Dataset, pairs: np.ndarray) -> Request:
    """The case's request on a shadow: the same users and items, and the candidates it was trained on."""
    users, items = np.flatnonzero(case.forget_set.users), np.flatnonzero(case.forget_set.items)
    single = pairs[~case.forget_set.users[pairs[:, 0]] & ~case.forget_set.items[pairs[:, 1]]]
    return named(dataset, users, items, single, case.forget_set.features)


@functools.partial(jax.jit, static_argnames=("backbone", "config", "together"), donate_argnames="states")
def train_epochs(
    states: TrainState, data: Data, keys: jax.Array, *, backbone: Backbone, config: TrainConfig, together: int
) -> TrainState:
    """One epoch of every shadow, in one program.

    Args:
        states: stacked along the first axis, donated.
        data: stacked; the arrays of all shadows have the same size.
        keys: [shadows].
        together: number of shadows trained side by side (vmap) while the others wait; 1 on a CPU, since one shadow fills its cores.
    """

    def one(shadow):
        state, own, key = shadow
        return train_epoch(state, own, key, backbone=backbone, config=config)[0]

    return jax.lax.map(one, (states, data, keys), batch_size=together if together > 1 else None)


def train_shadows(
    datasets: list[Dataset],
    config: Config,
    epochs: int,
    *,
    seed: int,
    together: int = 1,
    run: Path | None = None,
    on_epoch: Callable[[int], None] = lambda epoch: None,
) -> list[Recommender]:
    """Train all shadows for a fixed number of epochs, that of the original's best epoch.

    Args:
        datasets: with item graphs, all in one id space.
        config: settings of training.
        epochs: of each.
        seed: of all shadows; each shadow's index is folded in.
        together: see `train_epochs`; more than 1 needs the layout "segment".
        run: folder for checkpoints; the same call resumes where it was interrupted.
        on_epoch: called after each epoch.
    """
    check_precision(config.train.precision)
    sizes = sizes_of(max(datasets, key=lambda d: len(d.train)))
    first = set_up(datasets[0], config, sizes)
    setups = [
        first,
        *(set_up(dataset, config, sizes, first) for dataset in datasets[1:]),
    ]  # features are on the device only once
    if setups[0].backbone.solve is not None:
        return [train(setup, seed) for setup in setups]
    data, backbone = [setup.data for setup in setups], setups[0].backbone
    keys = [jax.random.fold_in(jax.random.key(seed), i) for i in range(len(datasets))]

    def stack(trees: list[Any]) -> Any:
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)

    states = stack(
        [
            init_state(init_params(jax.random.fold_in(key, 0), d, backbone=backbone))
            for key, d in zip(keys, data, strict=True)
        ]
    )
    done = 0
    if run is not None:
        run.mkdir(parents=True, exist_ok=True)
        saved = checkpoint.saved_epochs(run)
        if saved:
            done = saved[-1]
            states = TrainState(**checkpoint.load_tree(checkpoint.state_path(run, done), states._asdict()))
    every, stacked = stack(data), jnp.stack([jax.random.fold_in(key, 1) for key in keys])
    while done < epochs:
        states = train_epochs(
            states, every, stacked, backbone=backbone, config=config.train.of_an_epoch, together=together
        )
        jax.block_until_ready(states)
        done += 1
        on_epoch(done)
        if run is not None and (done % config.train.checkpoint_every == 0 or done == epochs):
            checkpoint.save_tree(checkpoint.state_path(run, done), states._asdict())
            checkpoint.keep_only(run, done)
    params = [jax.tree.map(lambda leaf, i=i: leaf[i], states.params) for i in range(len(datasets))]
    return [Recommender(setup, own) for setup, own in zip(setups, params, strict=True)]


def likelihood_ratios(scores: np.ndarray, shadow_scores: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Log likelihood ratio of each candidate, float [n]; higher values suggest that it was learnt and forgotten.

    Args:
        scores: float [n], of the model under examination.
        shadow_scores: float [shadows, n], of the shadows after forgetting.
        inside: bool [shadows, n], whether the shadow was trained on the candidate before forgetting.
    """

    def log_density(rows):
        mean = np.mean(shadow_scores, axis=0, where=rows)
        spread = np.sqrt(np.mean(np.var(shadow_scores, axis=0, where=rows, ddof=1)))
        spread = max(float(spread), 1e-12)
        return -np.log(spread) - 0.5 * np.square((scores - mean) / spread)

    return log_density(inside) - log_density(~inside)


def attacked(scores: np.ndarray, shadow_scores: np.ndarray, chosen: Candidates) -> dict[str, float]:
    """The two figures of the attack on one model: area under the curve, and true positive rate at 1 % false positives."""
    ratios = likelihood_ratios(scores, shadow_scores, chosen.inside)
    members, others = ratios[chosen.member], ratios[~chosen.member]
    return {
        "likelihood ratio AUC": area_under_curve(members, others),
        "likelihood ratio TPR at 1% FPR": true_positives_at(members, others),
    }


class Shadows(NamedTuple):
    """Shadow models of a case, ready to forget by any method."""

    models: Sequence[Recommender]
    chosen: Candidates
    quality: dict[str, float]  # valid Recall@20: mean and lowest of the shadows


def make_shadows(
    case: Case,
    config: Config,
    *,
    count: int,
    epochs: int,
    seed: int = 0,
    together: int = 1,
    run: Path | None = None,
    on_epoch: Callable[[int], None] = lambda epoch: None,
) -> Shadows:
    """Train the shadow models of a case.

    Args:
        case: whose request has forgotten pairs.
        config: settings of training.
        count: even, at least 4.
        epochs: number of training epochs of each, that of the original's best epoch.
        seed: of candidates and training.
        together: shadows side by side, see `train_epochs`.
        run: folder for checkpoints.
        on_epoch: called after each epoch.
    """
    chosen = candidates(case, count, seed)
    models = train_shadows(
        shadow_data(case, chosen), config, epochs, seed=seed, together=together, run=run, on_epoch=on_epoch
    )
    task = held_out_task(models[0].dataset, "valid")
    recalls = [ranking_metrics(m.rows, task, (20,))["recall@20"] for m in models] if task is not None else []
    return Shadows(models, chosen, {"mean": float(np.mean(recalls)), "least": min(recalls)} if recalls else {})


def prepare(case: Case):
    """The attack on a method's answer and the same attack on each Gold; also on the original, whose shadows forget nothing."""

    @functools.cache
    def shadows() -> Shadows:  # if every attack is stored already, no shadow is trained
        original = case.original
        assert original is not None
        run = None if case.work is None else case.work / f"shadows-{case.shadows}"
        epochs = best_entry(original.history)["epoch"]
        return make_shadows(case, original.config, count=case.shadows, epochs=epochs, run=run)

    def of_method(subject: Subject) -> Measure:
        members = candidates(case, case.shadows).member if case.shadows else np.zeros(0, bool)
        if not members.any() or members.all():  # no shadows asked for, or nothing to tell apart
            return lambda other: {}
        made = shadows()
        pairs, users = jnp.asarray(made.chosen.pairs), case.dataset.num_users

        def scores(model: Recommender) -> np.ndarray:
            return np.asarray(pair_margins(model.rows, pairs, num_users=users))

        def forgot(i: int, shadow: Recommender) -> Recommender:
            if subject.attempt is None:
                return shadow
            request = shadow_request(case, shadow.dataset, made.chosen.pairs[made.chosen.inside[i]])
            if request.describe() == "nothing":  # by chance, a shadow may hold none of a few candidates
                return shadow
            method, settings, seed = subject.attempt
            return answer(shadow, request, method, settings, seed=seed_after(seed, i))

        stacked = np.stack([scores(forgot(i, shadow)) for i, shadow in enumerate(made.models)])
        quality = {f"shadows' {name} valid recall@20": value for name, value in made.quality.items()}

        def measure(other: Subject) -> Row:
            found = attacked(scores(other.model), stacked, made.chosen)
            return found | (quality if other.name == subject.name else {})

        return measure

    return of_method


FIGURES = (Figure("likelihood ratio AUC", "remembered"), Figure("likelihood ratio TPR at 1% FPR", "remembered"))
CHECK = Check(
    5,
    FIGURES,
    prepare,
    needs="method",
    source="arXiv 2112.03570, arXiv 2403.01218",
)
